//! Incoming payments: preimages before their time, and invoices that are not the owner's.

use bitcoin::secp256k1::SecretKey;
use lightning_invoice::{Bolt11Invoice, Currency};
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ClaimableHtlc, GetPreimage};
use longhand_signer::{InvoiceRequest, Rule};

use super::commitment::thiefs_key;
use crate::funded::{deep, mine_and_prove, spend_of};
use crate::handshake::{act_one, dialed};
use crate::invoice::{Draft, EXPIRY_S, ask_for, finish};
use crate::onion::{Offer, peel};
use crate::scene::*;
use crate::{Case, Cases, Verdict};

const AMOUNT_MSAT: u64 = 50_000_000;

/// An invoice of the phone's.
pub(crate) fn invoiced(phone: &mut Phone, amount_msat: u64) -> [u8; 32] {
    let asked = ask_for(phone, amount_msat);
    finish(phone, &Draft::of(&asked), &asked).expect("an honest invoice");
    asked.payment_hash
}

fn claim(hash: [u8; 32], said_msat: &[u64]) -> Op {
    let htlc = |amount_msat: &u64| ClaimableHtlc {
        channel_keys_id: KEYS_ID.to_vec(),
        amount_msat: *amount_msat,
        cltv_expiry: 500,
    };
    Op::GetPreimage(GetPreimage {
        payment_hash: hash.to_vec(),
        htlcs: said_msat.iter().map(htlc).collect(),
    })
}

/// Which steps of an HTLC have been taken.
#[derive(Clone, Copy)]
enum Until {
    Validated,
    Released,
    Signed,
    Revoked,
}

fn commit(phone: &mut Phone, channel: &Channel, htlcs: &[Htlc], until: Until) {
    let steps = channel.peers_update(1, 400_000, htlcs);
    for op in steps.into_iter().take(until as usize + 1) {
        phone.ask(op).expect("an honest step");
    }
}

/// An invoice over [`AMOUNT_MSAT`] for which an HTLC of `paid_msat` has come.
fn paid(phone: &mut Phone, paid_msat: u64, until: Until) -> [u8; 32] {
    let channel = Channel::open(phone);
    let hash = invoiced(phone, AMOUNT_MSAT);
    commit(phone, &channel, &[Htlc::incoming(hash, paid_msat)], until);
    hash
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = onions();
    all.extend(points());
    all.extend(preimages());
    all.extend(unread());
    all.extend(invoices());
    all
}

/// The peer offers an HTLC for an invoice.
fn offered(phone: &mut Phone) -> Offer {
    Channel::open(phone);
    let hash = invoiced(phone, AMOUNT_MSAT);
    offer(phone, Htlc::incoming(hash, AMOUNT_MSAT))
}

/// With the onion of an honest payer.
fn offer(phone: &Phone, htlc: Htlc) -> Offer {
    let mut payments = phone.signer.payments();
    let payment = payments.find(|payment| payment.payment_hash == htlc.payment_hash);
    let invoice: Bolt11Invoice = payment
        .and_then(|payment| payment.bolt11.parse().ok())
        .expect("an invoice");
    let node = phone.signer.keys().node_id();
    Offer::of(htlc, 0, node, invoice.payment_secret().0, AMOUNT_MSAT)
}

/// A handshake with the point of this onion, as one with the hub.
fn handshake_with(phone: &mut Phone, offer: &Offer) -> Op {
    phone.set_hub(thiefs_key());
    let point = offer.message().onion_routing_packet.public_key;
    dialed(&thiefs_key(), &point.expect("an honest onion"))
}

fn points() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PointReused);
    cases.honest("a handshake, twice", |phone| {
        let offer = offered(phone);
        let op = handshake_with(phone, &offer);
        phone.ask(op.clone()).expect("an honest step");
        op
    });
    cases.honest("an onion, twice, and a handshake before", |phone| {
        let handshake = act_one(&phone.signer.keys().node_id(), 5);
        phone.ask(handshake).expect("an honest step");
        let op = offered(phone).peel(KEYS_ID);
        phone.ask(op.clone()).expect("an honest step");
        op
    });
    cases.attack("the secret of an onion as that of a handshake", |phone| {
        let offer = offered(phone);
        phone.ask(offer.peel(KEYS_ID)).expect("an honest step");
        handshake_with(phone, &offer)
    });
    cases.attack("an onion that was read by a handshake before", |phone| {
        let offer = offered(phone);
        let handshake = handshake_with(phone, &offer);
        phone.ask(handshake).expect("nobody sees it yet");
        offer.peel(KEYS_ID)
    });
    cases.all
}

fn onions() -> Vec<Case> {
    let mut foreign = Cases::of(Rule::OnionForeign);
    foreign.honest("the onion of an HTLC for an invoice", |phone| {
        offered(phone).peel(KEYS_ID)
    });
    foreign.honest(
        "an onion with a payment secret that is no invoice's",
        |phone| {
            let offer = offered(phone);
            Offer {
                secret: [9; 32],
                ..offer
            }
            .peel(KEYS_ID)
        },
    );
    foreign.attack("an onion for another node", |phone| {
        let offer = offered(phone);
        Offer {
            hops: vec![thiefs_key()],
            ..offer
        }
        .peel(KEYS_ID)
    });
    foreign.attack("an onion of another payment", |phone| {
        let offer = offered(phone);
        Offer {
            onion_hash: [9; 32],
            ..offer
        }
        .peel(KEYS_ID)
    });
    foreign.attack("an HTLC of a blinded path", |phone| {
        let mut message = offered(phone).message();
        message.blinding_point = Some(thiefs_key());
        peel(KEYS_ID, &message)
    });
    foreign.attack("an onion of another version", |phone| {
        let mut message = offered(phone).message();
        message.onion_routing_packet.version = 1;
        peel(KEYS_ID, &message)
    });
    for byte in [0, 1, 33, 650, 1_299] {
        foreign.attack(
            format!("an onion with another payload, in byte {byte}"),
            move |phone| {
                let mut message = offered(phone).message();
                message.onion_routing_packet.hop_data[byte] ^= 1;
                peel(KEYS_ID, &message)
            },
        );
    }
    for byte in [0, 31] {
        foreign.attack(
            format!("an onion with another MAC, in byte {byte}"),
            move |phone| {
                let mut message = offered(phone).message();
                message.onion_routing_packet.hmac[byte] ^= 1;
                peel(KEYS_ID, &message)
            },
        );
    }
    let mut forward = Cases::of(Rule::OnionForward);
    forward.honest("an onion that ends here", |phone| {
        offered(phone).peel(KEYS_ID)
    });
    for (name, more) in [("to the thief", 1), ("by the thief to the thief", 2)] {
        forward.attack(
            format!("an HTLC that is to be forwarded {name}"),
            move |phone| {
                let mut offer = offered(phone);
                offer.hops.extend(vec![thiefs_key(); more]);
                offer.peel(KEYS_ID)
            },
        );
    }
    [foreign.all, forward.all].into_iter().flatten().collect()
}

/// Preimages for HTLCs whose onions are not for the invoice.
fn unread() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PreimageOnion);
    cases.honest("the preimage of HTLCs whose onions were read", |phone| {
        let hash = paid(phone, AMOUNT_MSAT, Until::Revoked);
        claim(hash, &[AMOUNT_MSAT])
    });
    type Change = fn(&mut Offer);
    for (name, change) in [
        ("was not read", None),
        (
            "has another payment secret",
            Some((|it| it.secret[0] ^= 1) as Change),
        ),
        (
            "has another payment secret in its last byte",
            Some(|it| it.secret[31] ^= 1),
        ),
        (
            "names a total below the invoice",
            Some(|it| it.total_msat -= 1),
        ),
        (
            "is of an HTLC over another amount",
            Some(|it| it.htlc.amount_msat += 1_000),
        ),
        (
            "is of an HTLC that expires later",
            Some(|it| it.htlc.cltv_expiry += 1),
        ),
        (
            "is for more than its HTLC has",
            Some(|it| it.amount_msat += 1),
        ),
    ] as [(&str, Option<Change>); 7]
    {
        cases.attack(format!("an HTLC whose onion {name}"), move |phone| {
            phone.has_onions = false;
            let channel = Channel::open(phone);
            let hash = invoiced(phone, AMOUNT_MSAT);
            let htlc = Htlc::incoming(hash, AMOUNT_MSAT);
            if let Some(change) = change {
                let mut offer = offer(phone, htlc);
                change(&mut offer);
                phone.ask(offer.peel(KEYS_ID)).expect("an honest onion");
            }
            commit(phone, &channel, &[htlc], Until::Revoked);
            claim(hash, &[AMOUNT_MSAT])
        });
    }
    let mut little = Cases::of(Rule::PreimageUnderpaid);
    little.honest(
        "all of what a payer sends for an invoice of any amount",
        |phone| claim(paid_open(phone, AMOUNT_MSAT), &[AMOUNT_MSAT]),
    );
    little.attack(
        "half of what a payer sends for an invoice of any amount",
        |phone| claim(paid_open(phone, 2 * AMOUNT_MSAT), &[AMOUNT_MSAT]),
    );
    let mut any = Cases::of(Rule::AnyAmount);
    any.honest("a payment of any amount at the owner's limit", |phone| {
        let hash = paid_open(phone, AMOUNT_MSAT);
        phone.limit("any_amount_sat", "50000");
        claim(hash, &[AMOUNT_MSAT])
    });
    any.attack("a payment of any amount above the owner's limit", |phone| {
        let hash = paid_open(phone, AMOUNT_MSAT);
        phone.limit("any_amount_sat", "49999");
        claim(hash, &[AMOUNT_MSAT])
    });
    [cases.all, little.all, any.all]
        .into_iter()
        .flatten()
        .collect()
}

/// An invoice of any amount, whose payer sends `total_msat`, and for which [`AMOUNT_MSAT`] have come.
fn paid_open(phone: &mut Phone, total_msat: u64) -> [u8; 32] {
    phone.has_onions = false;
    let channel = Channel::open(phone);
    let hash = invoiced(phone, 0);
    let htlc = Htlc::incoming(hash, AMOUNT_MSAT);
    let offer = Offer {
        total_msat,
        ..offer(phone, htlc)
    };
    phone.ask(offer.peel(KEYS_ID)).expect("an honest onion");
    commit(phone, &channel, &[htlc], Until::Revoked);
    hash
}

fn preimages() -> Vec<Case> {
    let mut unknown = Cases::of(Rule::PreimageUnknown);
    unknown.honest("the preimage of a payment that is paid", |phone| {
        let hash = paid(phone, AMOUNT_MSAT, Until::Revoked);
        claim(hash, &[AMOUNT_MSAT])
    });
    unknown.attack("a hash that the phone did not make", |_| {
        claim([9; 32], &[AMOUNT_MSAT])
    });
    unknown.attack("a payment without an invoice", |phone| {
        let asked = ask_for(phone, AMOUNT_MSAT);
        claim(asked.payment_hash, &[AMOUNT_MSAT])
    });
    for byte in [0, 31] {
        unknown.attack(format!("another hash, in byte {byte}"), move |phone| {
            let mut hash = invoiced(phone, AMOUNT_MSAT);
            hash[byte] ^= 1;
            claim(hash, &[AMOUNT_MSAT])
        });
    }

    let mut early = Cases::of(Rule::PreimageNotCommitted);
    early.honest("the preimage when both sides are committed", |phone| {
        let hash = paid(phone, AMOUNT_MSAT, Until::Revoked);
        claim(hash, &[AMOUNT_MSAT])
    });
    early.attack("nothing has come", |phone| {
        Channel::open(phone);
        let hash = invoiced(phone, AMOUNT_MSAT);
        claim(hash, &[AMOUNT_MSAT])
    });
    for (name, until) in [
        ("is in the owner's commitment alone", Until::Validated),
        (
            "is in the owner's commitment, and the one before is revoked",
            Until::Released,
        ),
        ("is in both, and the peer has not revoked", Until::Signed),
    ] {
        early.attack(format!("the HTLC {name}"), move |phone| {
            let hash = paid(phone, AMOUNT_MSAT, until);
            claim(hash, &[AMOUNT_MSAT])
        });
    }
    early.attack("the HTLC has another hash", |phone| {
        let channel = Channel::open(phone);
        let hash = invoiced(phone, AMOUNT_MSAT);
        commit(
            phone,
            &channel,
            &[Htlc::incoming([9; 32], AMOUNT_MSAT)],
            Until::Revoked,
        );
        claim(hash, &[AMOUNT_MSAT])
    });
    early.attack("the channel of the HTLC is being closed", |phone| {
        let channel = Channel::open(phone);
        let hash = invoiced(phone, AMOUNT_MSAT);
        let funding = channel
            .parameters
            .funding_outpoint
            .expect("a whole channel");
        let close = longhand_proto::signer::SignClosing {
            to_holder_sat: 400_000,
            to_counterparty_sat: 500_000,
            to_holder_script: super::closing::own_script(phone, 3).to_bytes(),
            to_counterparty_script: super::closing::thief().to_bytes(),
            funding_outpoint: crate::tlv::encode(&funding.into_bitcoin_outpoint()),
            to_holder_keychain: 0,
            to_holder_index: 3,
        };
        phone.ask(Op::SignClosing(close)).expect("an honest step");
        claim(hash, &[AMOUNT_MSAT])
    });

    let mut little = Cases::of(Rule::PreimageUnderpaid);
    little.honest("more than the invoice asks", |phone| {
        let hash = paid(phone, AMOUNT_MSAT + 1_000_000, Until::Revoked);
        claim(hash, &[AMOUNT_MSAT + 1_000_000])
    });
    for paid_msat in [1_000_000, 25_000_000, 49_000_000, 49_453_999] {
        for said_msat in [vec![], vec![AMOUNT_MSAT], vec![545_999, 545_999]] {
            little.attack(
                format!("{paid_msat} msat of {AMOUNT_MSAT}, and the host says {said_msat:?}"),
                move |phone| {
                    let hash = paid(phone, paid_msat, Until::Revoked);
                    claim(hash, &said_msat)
                },
            );
        }
    }

    let mut late = Cases::of(Rule::PreimageExpired);
    for (name, after_s, is_good) in [
        ("in the last second", 0, true),
        ("a second", 1, false),
        ("a day", 86_400, false),
    ] {
        let play = move |phone: &mut Phone| {
            phone.now_unix_s = NOW + u64::from(EXPIRY_S) + after_s;
            let hash = paid(phone, AMOUNT_MSAT, Until::Revoked);
            claim(hash, &[AMOUNT_MSAT])
        };
        match is_good {
            true => late.honest(format!("an HTLC {name} of the invoice"), play),
            false => late.attack(format!("an HTLC {name} after the invoice"), play),
        }
    }
    let mut all = unknown.all;
    all.extend(early.all);
    all.extend(little.all);
    all.extend(late.all);
    all
}

fn invoices() -> Vec<Case> {
    let mut cases = Cases::of(Rule::InvoiceMismatch);
    let signed = |phone: &mut Phone, change: &dyn Fn(&mut Draft)| {
        let asked = ask_for(phone, AMOUNT_MSAT);
        let mut draft = Draft::of(&asked);
        change(&mut draft);
        verdict(finish(phone, &draft, &asked).map(drop))
    };
    cases.add(true, "the invoice that was asked for", move |phone| {
        signed(phone, &|_| ())
    });
    type Change = fn(&mut Draft);
    for (name, change) in [
        (
            "of another network",
            (|it| it.currency = Currency::Bitcoin) as Change,
        ),
        ("of the test network", |it| {
            it.currency = Currency::BitcoinTestnet
        }),
        ("with another payment hash", |it| it.payment_hash[0] ^= 1),
        ("with another payment hash in its last byte", |it| {
            it.payment_hash[31] ^= 1
        }),
        ("over one msat more", |it| it.amount_msat += 1),
        ("over one msat less", |it| it.amount_msat -= 1),
        ("over any amount", |it| it.amount_msat = 0),
        ("over ten times the amount", |it| it.amount_msat *= 10),
        ("with another description", |it| {
            it.description = "tea".into()
        }),
        ("without a description", |it| it.description.clear()),
        ("that expires a second later", |it| it.expiry_s += 1),
        ("that expires at once", |it| it.expiry_s = 1),
        ("of two hours ago", |it| it.date -= 7_200),
        ("of two hours from now", |it| it.date += 7_200),
        ("that pays the thief", |it| {
            it.payee = SecretKey::from_slice(&[1; 32]).ok()
        }),
        ("with an on-chain address", |it| it.fallback = true),
        ("with a final delta of 17 blocks", |it| {
            it.final_delta_blocks = 17
        }),
        ("with a final delta of 0 blocks", |it| {
            it.final_delta_blocks = 0
        }),
        ("with a final delta of 145 blocks", |it| {
            it.final_delta_blocks = 145
        }),
        ("with a final delta of 2,016 blocks", |it| {
            it.final_delta_blocks = 2_016
        }),
        ("with metadata", |it| it.metadata = Some(vec![1])),
        ("with another payment secret", |it| {
            it.secret = Some([7; 32])
        }),
    ] {
        cases.add(false, format!("an invoice {name}"), move |phone| {
            signed(phone, &change)
        });
    }
    let mut hints = Cases::of(Rule::InvoiceHint);
    hints.add(true, "an invoice with a hint from a peer", move |phone| {
        let peer = Channel::open(phone).peer_node_id();
        signed(phone, &|it| it.hint = Some(peer))
    });
    hints.add(
        false,
        "an invoice with a hint from a stranger",
        move |phone| {
            Channel::open(phone);
            signed(phone, &|it| it.hint = Some(thiefs_key()))
        },
    );
    hints.add(
        false,
        "an invoice with a hint to a channel that nobody funded",
        move |phone| {
            phone.has_chain = false;
            let peer = Channel::open(phone).peer_node_id();
            signed(phone, &|it| it.hint = Some(peer))
        },
    );
    hints.add(
        false,
        "an invoice with a hint to a channel that is closed",
        move |phone| {
            let channel = deep(phone, 6);
            mine_and_prove(phone, &spend_of(&channel));
            let peer = channel.peer_node_id();
            signed(phone, &|it| it.hint = Some(peer))
        },
    );
    hints.add(
        false,
        "an invoice with a hint of a phone without channels",
        move |phone| signed(phone, &|it| it.hint = Some(thiefs_key())),
    );
    let mut again = Cases::of(Rule::Duplicate);
    again.add(true, "an invoice for each payment", move |phone| {
        signed(phone, &|_| ())
    });
    again.add(false, "a second invoice for one payment", |phone| {
        let asked = ask_for(phone, AMOUNT_MSAT);
        finish(phone, &Draft::of(&asked), &asked).expect("an honest invoice");
        verdict(finish(phone, &Draft::of(&asked), &asked).map(drop))
    });
    again.add(false, "the same preimage for two payments", |phone| {
        let first = ask_for(phone, AMOUNT_MSAT);
        let _: InvoiceRequest = first;
        let entropy = [AMOUNT_MSAT as u8; 32];
        verdict(
            phone
                .signer
                .new_payment(AMOUNT_MSAT, entropy, NOW)
                .map(drop),
        )
    });
    let mut all = cases.all;
    all.extend(hints.all);
    all.extend(again.all);
    all
}

pub(super) fn verdict(done: Result<(), longhand_signer::Refused>) -> Verdict {
    match done {
        Ok(()) => Verdict::Signed,
        Err(refused) => Verdict::Refused(refused.rule),
    }
}
