//! Correct replies, correct replies in the wrong place, and replies that would steal money.

use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::payment::State;
use longhand_proto::command::*;
use longhand_signer::Keychain;
use prost::Message;

use super::world::{address, good_reply, payment};
use super::{Call, InvoiceLie, Kind, Lie, Script};

/// Every kind of call.
const ALL: [Kind; 21] = [
    Kind::Info,
    Kind::Balance,
    Kind::Address,
    Kind::Open,
    Kind::Invoice,
    Kind::Pay,
    Kind::SendOnchain,
    Kind::Channels,
    Kind::Payments,
    Kind::Close,
    Kind::Connect,
    Kind::Payment,
    Kind::OpenInvoices,
    Kind::Sends,
    Kind::Bump,
    Kind::Abandon,
    Kind::WakeUrls,
    Kind::SetWakeUrls,
    Kind::ConnectApp,
    Kind::Apps,
    Kind::DisconnectApp,
];

fn call(kind: Kind) -> Call {
    Call {
        kind: kind.into(),
        amount: 1_000_000,
        text: "coffee".into(),
        number: 3_600,
        flag: false,
    }
}

fn says(reply: Reply) -> Lie {
    Lie {
        reply: Some(CommandReply { reply: Some(reply) }),
        ..Lie::default()
    }
}

fn script(calls: &[Kind], lies: &[Lie]) -> Script {
    Script {
        calls: calls.iter().map(|kind| call(*kind)).collect(),
        lies: lies.to_vec(),
        registers: false,
    }
}

/// A lie in the second reply, which has the invoice: with the first request the phone checks that its node is awake.
fn invoice(lie: InvoiceLie) -> Script {
    let lie = Lie {
        invoice: Some(lie),
        ..Lie::default()
    };
    script(&[Kind::Invoice], &[Lie::default(), lie])
}

fn addresses() -> Vec<Script> {
    let says = |address| script(&[Kind::Address], &[says(Reply::Address(address))]);
    let own = |keychain, index| address(keychain, index);
    let far = (1 << 20) - 1;
    vec![
        says(own(Keychain::External, 0)),
        says(own(Keychain::External, far)),
        says(own(Keychain::Internal, 1)),
        says(longhand_proto::command::Address {
            index: 1,
            ..own(Keychain::External, 2)
        }),
        says(longhand_proto::command::Address {
            index: u32::MAX,
            ..own(Keychain::External, 2)
        }),
    ]
}

fn invoices() -> Vec<Script> {
    let lies = [
        InvoiceLie::default(),
        InvoiceLie {
            amount_msat: Some(999),
            ..InvoiceLie::default()
        },
        InvoiceLie {
            description: Some("tea".into()),
            ..InvoiceLie::default()
        },
        InvoiceLie {
            expiry_s: Some(1),
            ..InvoiceLie::default()
        },
        InvoiceLie {
            payment_hash: vec![1; 32],
            ..InvoiceLie::default()
        },
        InvoiceLie {
            fallback: true,
            ..InvoiceLie::default()
        },
        InvoiceLie {
            other_payee: true,
            ..InvoiceLie::default()
        },
        InvoiceLie {
            late_s: 4_000,
            ..InvoiceLie::default()
        },
        InvoiceLie {
            other_network: true,
            ..InvoiceLie::default()
        },
        InvoiceLie {
            at: 9,
            xor: 3,
            ..InvoiceLie::default()
        },
    ];
    lies.map(invoice).to_vec()
}

fn payments() -> Vec<Script> {
    let paid = || payment(State::Succeeded);
    let pending = || says(Reply::Payment(payment(State::Pending)));
    let good = Lie::default;
    let answers = [
        vec![good(), good()],
        vec![good(), pending(), pending(), good()],
        vec![good(), says(Reply::Payment(payment(State::Failed)))],
        vec![
            good(),
            says(Reply::Payment(Payment {
                preimage: vec![1; 32],
                ..paid()
            })),
        ],
        vec![
            good(),
            says(Reply::Payment(Payment {
                payment_hash: vec![1; 32],
                ..paid()
            })),
        ],
        vec![good(), says(Reply::Payment(Payment { state: 9, ..paid() }))],
    ];
    let once = answers
        .iter()
        .map(|lies| script(&[Kind::Pay], lies))
        .collect();
    let again = script(
        &[Kind::Pay, Kind::Pay],
        &[good(), pending(), good(), good()],
    );
    [once, vec![again]].concat()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut scripts: Vec<Script> = ALL.iter().map(|kind| script(&[*kind], &[])).collect();
    scripts.push(Script {
        calls: vec![Call {
            flag: true,
            ..call(Kind::Open)
        }],
        ..Script::default()
    });
    let steering = "no\u{1b}[2J\u{9b}2J\r\nall is well\u{202e}tas 5";
    let error = |action: Action| {
        says(Reply::Error(Error {
            code: steering.into(),
            message: steering.into(),
            action: action.into(),
            is_final: true,
        }))
    };
    let refusal = Lie {
        refuses: steering.into(),
        ..Lie::default()
    };
    let hang_up = Lie {
        hangs_up: true,
        ..Lie::default()
    };
    let info = good_reply(&Ask::GetInfo(GetInfo {}), None);
    let waking = Reply::Info(Info {
        state: "waking".into(),
        ..Info::default()
    });
    let hub = Reply::Info(Info {
        hub_node_id: vec![2; 33],
        ..Info::default()
    });
    let searching = Reply::Balance(Balance {
        scan_target_height: u32::MAX,
        scan_problem: steering.into(),
        ..Balance::default()
    });
    let channels = |text: &str| {
        says(Reply::Channels(Channels {
            channels: vec![Channel {
                state: text.into(),
                funding_outpoint: text.into(),
                ..Channel::default()
            }],
            closed: vec![ClosedChannel {
                reason: text.into(),
                closing_txid: text.into(),
                ..ClosedChannel::default()
            }],
        }))
    };
    let record = || Payment {
        description: steering.into(),
        bolt11: steering.into(),
        failure: steering.into(),
        ..payment(State::Failed)
    };
    let page = says(Reply::Payments(Payments {
        payments: vec![record()],
        next: vec![1; 40],
    }));
    let found = says(Reply::FoundPayment(FoundPayment {
        payment: Some(record()),
    }));
    let open = says(Reply::Invoices(Invoices {
        invoices: vec![OpenInvoice {
            description: steering.into(),
            ..OpenInvoice::default()
        }],
    }));
    let sends = says(Reply::Sends(Sends {
        sends: vec![Send {
            address: steering.into(),
            problem: steering.into(),
            ..Send::default()
        }],
    }));
    let wake_urls = says(Reply::WakeUrls(WakeUrls {
        urls: vec![steering.into()],
        operator_has_one: true,
    }));
    let sent = Reply::SentOnchain(SentOnchain {
        txid: steering.into(),
        fee_sat: u64::MAX,
    });
    scripts.extend([
        script(&[Kind::Balance], &[error(Action::GiveUp)]),
        script(&[Kind::Balance], &[says(Reply::Error(Error::default()))]),
        script(&[Kind::Balance], std::slice::from_ref(&refusal)),
        script(&[Kind::Balance], &[says(info.clone())]),
        script(&[Kind::Balance], &[says(searching)]),
        script(&[Kind::Balance, Kind::Info], std::slice::from_ref(&hang_up)),
        script(&[Kind::Info], &[says(hub.clone())]),
        script(&[Kind::Connect], &[says(hub)]),
        script(&[Kind::Connect], &[Lie::default(), says(info)]),
        script(&[Kind::Close], &[says(waking.clone()), says(waking)]),
        script(&[Kind::Channels], &[channels(steering)]),
        script(&[Kind::SendOnchain], &[says(sent)]),
        script(&[Kind::Payments], &[page]),
        script(&[Kind::OpenInvoices], &[open]),
        script(&[Kind::Sends], &[sends]),
        script(&[Kind::WakeUrls], &[wake_urls]),
        script(&[Kind::Payment], &[found]),
        Script {
            registers: true,
            ..script(&[Kind::Connect], &[])
        },
        Script {
            registers: true,
            ..script(&[Kind::Info], &[error(Action::Retry)])
        },
        Script {
            registers: true,
            ..script(&[Kind::Info], &[refusal])
        },
        Script {
            registers: true,
            ..script(
                &[Kind::Connect],
                &[says(Reply::Registered(Registered {
                    node_id: super::node::registration().node_id,
                    hub_node_id: vec![7; 3],
                }))],
            )
        },
    ]);
    scripts.extend(addresses());
    scripts.extend(invoices());
    scripts.extend(payments());
    scripts.iter().map(Message::encode_to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{check, world::World};
    use super::*;

    /// Checks the seeds: without a lie every call has its reply.
    #[test]
    fn without_a_lie_every_call_is_answered() {
        crate::node::run(|| async {
            let world = World::new(Vec::new(), false);
            world.phone.attach().await.unwrap();
            let mut hashes = std::collections::HashSet::new();
            for kind in ALL {
                let command = call(kind).command();
                let reply = world.phone.execute(command.clone()).await.unwrap();
                check(&world.phone, &command, &reply, &mut hashes);
            }
            assert_eq!(hashes.len(), 1);
            world.phone.stop_now();
        });
    }
}
