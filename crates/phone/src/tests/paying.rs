//! Invoices and payments.

use longhand_proto::Code;
use longhand_proto::command::payment::State;

use super::*;
use crate::command::PaymentState;

fn found(payment: proto::Payment) -> Reply {
    Reply::FoundPayment(proto::FoundPayment {
        payment: Some(payment),
    })
}

async fn intents(phone: &Phone) -> Vec<([u8; 32], u64, u64)> {
    phone
        .look(|signer| {
            signer
                .intents()
                .map(|i| (i.payment_hash, i.amount_msat, i.max_fee_msat))
                .collect()
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn an_invoice_is_made_by_both_and_signed_by_the_phone() {
    let (dir, phone, host) = attached().await;
    let made = phone.invoice(Some(1_000), "tea", 600).await.unwrap();
    let invoice: Bolt11Invoice = made.bolt11.parse().unwrap();
    assert_eq!(invoice.get_payee_pub_key(), phone.node_id());
    assert_eq!(invoice.amount_milli_satoshis(), Some(1_000));
    let [Ask::CreateInvoice(asked)] = &host.asked()[..] else {
        panic!()
    };
    assert_eq!(asked.payment_hash, invoice.payment_hash().0);

    // Its preimage is durable: a restarted phone knows the payment.
    phone.detach().await.unwrap();
    drop(phone);
    let vault = open_when_free(&dir).await;
    let phone = start(vault, ToHost(host)).unwrap();
    let known = phone
        .look(|signer| {
            signer
                .payments()
                .map(|payment| payment.bolt11.clone())
                .collect::<Vec<_>>()
        })
        .await
        .unwrap();
    assert_eq!(known, [made.bolt11]);
}

/// The tasks of a dropped phone end a moment later.
async fn open_when_free(dir: &TempDir) -> Vault {
    loop {
        match Vault::open(dir.path(), &"passphrase".to_owned().into()) {
            Ok(vault) => return vault,
            Err(crate::vault::VaultError::InUse(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn an_invoice_that_is_not_what_was_asked_is_not_signed() {
    let (_dir, phone, host) = attached().await;
    host.script(|ask| match ask {
        Ask::CreateInvoice(create) => {
            let other = proto::CreateInvoice {
                amount_msat: 2_000,
                ..create.clone()
            };
            Some(Act::Reply(Reply::UnsignedInvoice(unsigned_invoice(&other))))
        }
        _ => None,
    });
    assert_eq!(
        code_of(phone.invoice(Some(1_000), "tea", 600).await),
        Code::SignerRefused
    );
    // The host's invoice is listed with what else was refused.
    let listed = phone.refusals().await.unwrap().refusals;
    let listed: Vec<_> = listed.iter().map(|it| &it.rule[..]).collect();
    assert_eq!(listed, ["invoice-mismatch"]);
}

#[tokio::test]
async fn a_payment_is_on_record_before_it_is_sent_and_proved_after() {
    let (_dir, phone, host) = attached().await;
    let spec = InvoiceSpec::default();
    let (pending, paid) = (spec.payment(State::Pending), spec.payment(State::Succeeded));
    host.script(move |ask| match ask {
        Ask::Pay(_) => Some(Act::Reply(Reply::Payment(pending.clone()))),
        Ask::AwaitPayment(_) => Some(Act::Reply(Reply::Payment(paid.clone()))),
        _ => None,
    });
    let done = phone.pay(&spec.text(), None, Some(1_234)).await.unwrap();
    assert_eq!((done.state, done.fee_msat), (PaymentState::Succeeded, 12));
    assert_eq!(intents(&phone).await, [(spec.hash(), 5_000_000, 1_234)]);
    let [Ask::Pay(pay), Ask::AwaitPayment(wait)] = &host.asked()[..] else {
        panic!()
    };
    assert_eq!((pay.amount_msat, pay.max_fee_msat), (0, Some(1_234)));
    assert_eq!(wait.payment_hash, spec.hash());
}

#[tokio::test]
async fn a_proof_that_does_not_fit_is_no_proof() {
    let (_dir, phone, host) = attached().await;
    let spec = InvoiceSpec::default();
    let mut paid = spec.payment(State::Succeeded);
    paid.preimage = vec![0x44; 32];
    host.script(move |ask| match ask {
        Ask::Pay(_) => Some(Act::Reply(Reply::Payment(paid.clone()))),
        _ => None,
    });
    assert_eq!(
        code_of(phone.pay(&spec.text(), None, None).await),
        Code::ProofInvalid
    );
}

#[tokio::test]
async fn a_failed_payment_says_why_and_may_be_tried_again() {
    let (_dir, phone, host) = attached().await;
    let spec = InvoiceSpec::default();
    let (failed, paid) = (spec.payment(State::Failed), spec.payment(State::Succeeded));
    let mut attempts = 0;
    let known = failed.clone();
    host.script(move |ask| match ask {
        Ask::Pay(_) => {
            attempts += 1;
            let payment = if attempts == 1 {
                failed.clone()
            } else {
                paid.clone()
            };
            Some(Act::Reply(Reply::Payment(payment)))
        }
        Ask::GetPayment(_) => Some(Act::Reply(found(known.clone()))),
        _ => None,
    });
    let error = phone.pay(&spec.text(), None, None).await.unwrap_err();
    assert!(error.to_string().contains("no route"), "{error}");
    assert_eq!(error.code(), Code::PaymentFailed);
    phone.pay(&spec.text(), None, None).await.unwrap();
}

#[tokio::test]
async fn a_payment_that_failed_unseen_is_reported_before_it_is_tried_again() {
    let (_dir, phone, host) = attached().await;
    let spec = InvoiceSpec::default();
    let (failed, paid) = (spec.payment(State::Failed), spec.payment(State::Succeeded));
    let mut attempts = 0;
    host.script(move |ask| match ask {
        Ask::Pay(_) => {
            attempts += 1;
            match attempts {
                // The answer to the first attempt is lost.
                1 => Some(Act::Refuse("".into())),
                _ => Some(Act::Reply(Reply::Payment(paid.clone()))),
            }
        }
        Ask::GetPayment(_) => Some(Act::Reply(found(failed.clone()))),
        _ => None,
    });
    phone.pay(&spec.text(), None, None).await.unwrap_err();
    let ended = phone.pay(&spec.text(), None, None).await;
    assert_eq!(code_of(ended), Code::PaymentFailed);
    let pays = |host: &ScriptedHost| {
        let asked = host.asked();
        let pays = asked.iter().filter(|ask| matches!(ask, Ask::Pay(_)));
        pays.count()
    };
    assert_eq!(pays(&host), 1);
    phone.pay(&spec.text(), None, None).await.unwrap();
    assert_eq!(pays(&host), 2);
}

#[tokio::test]
async fn what_is_paid_is_not_paid_again() {
    let (_dir, phone, host) = attached().await;
    let spec = InvoiceSpec::default();
    let paid = spec.payment(State::Succeeded);
    host.script(move |ask| match ask {
        Ask::Pay(_) => Some(Act::Reply(Reply::Payment(paid.clone()))),
        Ask::GetPayment(_) => Some(Act::Reply(found(paid.clone()))),
        _ => None,
    });
    phone.pay(&spec.text(), None, None).await.unwrap();
    assert_eq!(
        code_of(phone.pay(&spec.text(), None, None).await),
        Code::AlreadyPaid
    );
    let pays = host
        .asked()
        .iter()
        .filter(|ask| matches!(ask, Ask::Pay(_)))
        .count();
    assert_eq!(pays, 1);
}

#[tokio::test]
async fn what_is_paid_is_not_paid_again_at_a_host_that_cannot_find_one_payment() {
    let (_dir, phone, host) = attached().await;
    let spec = InvoiceSpec::default();
    let paid = spec.payment(State::Succeeded);
    host.script(move |ask| match ask {
        Ask::Pay(_) => Some(Act::Reply(Reply::Payment(paid.clone()))),
        Ask::GetPayment(_) => {
            let action = proto::error::Action::FixInput;
            Some(Act::Reply(error(Code::UnknownCommand, action)))
        }
        Ask::ListPayments(_) => Some(Act::Reply(Reply::Payments(proto::Payments {
            payments: vec![paid.clone()],
            next: Vec::new(),
        }))),
        _ => None,
    });
    phone.pay(&spec.text(), None, None).await.unwrap();
    let again = phone.pay(&spec.text(), None, None).await;
    assert_eq!(code_of(again), Code::AlreadyPaid);
}

#[tokio::test]
async fn our_own_invoice_is_not_paid() {
    let (_dir, phone, host) = attached().await;
    let own = phone.invoice(Some(1_000), "", 600).await.unwrap();
    assert_eq!(
        code_of(phone.pay(&own.bolt11, None, None).await),
        Code::InvoiceOwn
    );
    assert!(!host.asked().iter().any(|ask| matches!(ask, Ask::Pay(_))));
}

#[tokio::test(start_paused = true)]
async fn a_payment_is_waited_for_across_links_that_break() {
    let (_dir, phone, host) = attached().await;
    let spec = InvoiceSpec::default();
    let (pending, paid) = (spec.payment(State::Pending), spec.payment(State::Succeeded));
    let (mut pays, mut waits) = (0, 0);
    host.script(move |ask| match ask {
        Ask::Pay(_) => {
            pays += 1;
            Some(if pays == 1 {
                Act::HangUp
            } else {
                Act::Reply(Reply::Payment(pending.clone()))
            })
        }
        Ask::AwaitPayment(_) => {
            waits += 1;
            Some(if waits < 3 {
                Act::HangUp
            } else {
                Act::Reply(Reply::Payment(paid.clone()))
            })
        }
        _ => None,
    });
    phone.pay(&spec.text(), None, None).await.unwrap();
    assert_eq!(host.dials.load(Ordering::SeqCst), 4);
    assert_eq!(intents(&phone).await.len(), 1);
}

#[tokio::test]
async fn only_an_address_of_our_own_is_shown() {
    let (_dir, phone, host) = attached().await;
    let script = phone
        .look(|signer| {
            signer
                .own_script(longhand_signer::Keychain::External, 3)
                .unwrap()
        })
        .await
        .unwrap();
    let own = bitcoin::Address::from_script(&script, Network::Regtest)
        .unwrap()
        .to_string();
    let given = proto::Address {
        address: own.clone(),
        keychain: 0,
        index: 3,
    };
    let say = |host: &ScriptedHost, given: proto::Address| {
        host.script(move |_| Some(Act::Reply(Reply::Address(given.clone()))));
    };
    say(&host, given.clone());
    assert_eq!(phone.address().await.unwrap().address, own);
    for foreign in [
        proto::Address {
            index: 4,
            ..given.clone()
        },
        proto::Address {
            keychain: 1,
            ..given.clone()
        },
        proto::Address {
            keychain: 7,
            ..given.clone()
        },
        proto::Address {
            index: u32::MAX,
            ..given.clone()
        },
        proto::Address {
            address: "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x".into(),
            ..given
        },
    ] {
        say(&host, foreign);
        assert_eq!(code_of(phone.address().await), Code::NotOurs);
    }
}

#[tokio::test]
async fn an_address_for_change_is_not_shown() {
    let (_dir, phone, host) = attached().await;
    let own = |signer: &longhand_signer::Signer| {
        signer.own_script(longhand_signer::Keychain::Internal, 3)
    };
    let script = phone.look(own).await.unwrap().unwrap();
    let own = bitcoin::Address::from_script(&script, Network::Regtest).unwrap();
    let given = proto::Address {
        address: own.to_string(),
        keychain: 1,
        index: 3,
    };
    host.script(move |_| Some(Act::Reply(Reply::Address(given.clone()))));
    assert_eq!(code_of(phone.address().await), Code::NotOurs);
}

#[tokio::test]
async fn a_channel_to_the_hub_names_the_hub() {
    let (_dir, phone, host) = attached().await;
    host.script(|ask| match ask {
        Ask::OpenChannel(open) => Some(Act::Reply(Reply::OpenedChannel(proto::OpenedChannel {
            id: open.id.clone(),
            channel_id: vec![9; 32],
            funding_outpoint: "00:1".into(),
        }))),
        _ => None,
    });
    let opened = phone.open(100_000, None, false, false, None).await.unwrap();
    assert_eq!(opened.channel_id, "09".repeat(32));
    let [Ask::OpenChannel(open)] = &host.asked()[..] else {
        panic!()
    };
    assert_eq!(open.counterparty_node_id, payee_id().serialize());
    assert_eq!((open.id.len(), open.push_msat), (16, 0));
    let intents = phone
        .look(|signer| signer.channel_intents().count())
        .await
        .unwrap();
    assert_eq!(intents, 1);
}

#[tokio::test]
async fn a_channel_without_a_peer_is_refused_where_the_host_has_no_hub() {
    let host = scripted_host();
    host.script(|ask| match ask {
        Ask::Register(register) => Some(Act::Reply(Reply::Registered(proto::Registered {
            node_id: register.node_id.clone(),
            hub_node_id: Vec::new(),
        }))),
        Ask::GetInfo(_) => Some(Act::Reply(Reply::Info(proto::Info::default()))),
        _ => None,
    });
    let (_dir, phone) = phone_with(WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    let opened = phone.open(100_000, None, false, false, None).await;
    assert_eq!(code_of(opened), Code::NoHub);
    assert_eq!(host.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_close_stays_until_the_two_nodes_agree() {
    let (_dir, phone, host) = attached().await;
    let channel = proto::Channel {
        channel_id: vec![9; 32],
        ..Default::default()
    };
    let script = |looks_until_agreed: u32| {
        let (mut looks, channel) = (0, channel.clone());
        move |ask: &Ask| match ask {
            Ask::CloseChannel(_) => Some(Act::Reply(Reply::ClosingChannel(
                proto::ClosingChannel::default(),
            ))),
            Ask::ListChannels(_) => {
                looks += 1;
                let open = looks < looks_until_agreed;
                let channels = open.then(|| channel.clone()).into_iter().collect();
                Some(Act::Reply(Reply::Channels(proto::Channels {
                    channels,
                    ..proto::Channels::default()
                })))
            }
            _ => None,
        }
    };
    host.script(script(4));
    assert!(phone.close(&"09".repeat(32), false).await.unwrap().agreed);
    host.script(script(u32::MAX));
    assert!(!phone.close(&"09".repeat(32), false).await.unwrap().agreed);
}

#[tokio::test]
async fn a_payment_that_the_host_gives_for_another_hash_is_not_taken() {
    let (_dir, phone, host) = attached().await;
    let other = InvoiceSpec::default().payment(State::Succeeded);
    host.script(move |ask| match ask {
        Ask::GetPayment(_) => Some(Act::Reply(found(other.clone()))),
        _ => None,
    });
    let asked = phone.payment(&"ab".repeat(32)).await;
    assert_eq!(code_of(asked), Code::AnswerMalformed);
}

#[tokio::test]
async fn a_payment_that_the_host_does_not_know_is_unknown() {
    let (_dir, phone, host) = attached().await;
    host.script(move |ask| match ask {
        Ask::GetPayment(_) => Some(Act::Reply(Reply::FoundPayment(Default::default()))),
        _ => None,
    });
    let asked = phone.payment(&"ab".repeat(32)).await;
    assert_eq!(code_of(asked), Code::PaymentUnknown);
    assert_eq!(
        code_of(phone.payment("ab").await),
        Code::PaymentHashMalformed
    );
}

#[tokio::test]
async fn all_payments_are_read_page_by_page() {
    let (_dir, phone, host) = attached().await;
    host.script(move |ask| match ask {
        Ask::ListPayments(list) => {
            let next = match list.before.first() {
                None => vec![9; 40],
                Some(9) => vec![8; 40],
                _ => Vec::new(),
            };
            Some(Act::Reply(Reply::Payments(proto::Payments {
                payments: vec![InvoiceSpec::default().payment(State::Succeeded)],
                next,
            })))
        }
        _ => None,
    });
    assert_eq!(phone.payments().await.unwrap().payments.len(), 3);
    let page = phone.payments_page(Some(7), None).await.unwrap();
    assert_eq!(page.next, "09".repeat(40));
    let Some(Ask::ListPayments(asked)) = host.asked().pop() else {
        panic!("a page is asked for")
    };
    assert_eq!((asked.limit, asked.before), (7, Vec::new()));
    let malformed = phone.payments_page(None, Some("01")).await;
    assert_eq!(code_of(malformed), Code::CursorMalformed);
}

#[tokio::test]
async fn a_host_that_names_the_same_page_for_ever_is_not_asked_for_ever() {
    let (_dir, phone, host) = attached().await;
    host.script(move |ask| match ask {
        Ask::ListPayments(_) => Some(Act::Reply(Reply::Payments(proto::Payments {
            payments: vec![InvoiceSpec::default().payment(State::Succeeded)],
            next: vec![1; 40],
        }))),
        _ => None,
    });
    assert_eq!(code_of(phone.payments().await), Code::AnswerMalformed);
}

#[tokio::test]
async fn an_open_invoice_is_listed_with_the_text_that_the_phone_signed() {
    let (_dir, phone, host) = attached().await;
    let made = phone.invoice(Some(1_000), "tea", 600).await.unwrap();
    let Some(Ask::CreateInvoice(asked)) = host.asked().pop() else {
        panic!("an invoice is asked for")
    };
    host.script(move |ask| match ask {
        Ask::ListInvoices(_) => Some(Act::Reply(Reply::Invoices(proto::Invoices {
            invoices: vec![
                proto::OpenInvoice {
                    payment_hash: asked.payment_hash.clone(),
                    description: "tea\u{1b}[2J".into(),
                    ..Default::default()
                },
                proto::OpenInvoice::default(),
            ],
        }))),
        _ => None,
    });
    let list = phone.invoices().await.unwrap().invoices;
    assert_eq!(list[0].bolt11, made.bolt11);
    assert_eq!(list[0].description, "tea [2J");
    assert_eq!(list[1].bolt11, "");
}
