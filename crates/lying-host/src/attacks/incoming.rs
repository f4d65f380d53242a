//! Incoming payments: preimages before their time, and invoices that are not the owner's.

use bitcoin::secp256k1::SecretKey;
use lightning_invoice::Currency;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ClaimableHtlc, GetPreimage};
use longhand_signer::{InvoiceRequest, Rule};

use super::commitment::thiefs_key;
use crate::invoice::{Draft, EXPIRY_S, ask_for, finish};
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
    let steps = [
        validate(&channel.holder(1, 400_000, htlcs)),
        release(0),
        sign(&channel.theirs(1, 400_000, htlcs)),
        channel.revocation(0),
    ];
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
    let mut all = preimages();
    all.extend(invoices());
    all
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
