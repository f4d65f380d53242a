//! Outgoing HTLCs that the owner did not ask for.

use longhand_proto::signer::signer_op::Op;
use longhand_signer::Rule;

use super::balance::{paying, trimmed};
use super::commitment::{AFTER_SAT, PAID, PAID_MSAT};
use crate::scene::*;
use crate::{Case, Cases};

fn offer(channel: &Channel, hash: [u8; 32]) -> Op {
    sign(&channel.theirs(1, AFTER_SAT, &[Htlc::outgoing(hash, PAID_MSAT)]))
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = unasked();
    all.extend(limits());
    all
}

fn unasked() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PaymentUnasked);
    cases.honest("an HTLC for a payment that was asked for", |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        offer(&channel, PAID)
    });
    cases.honest("an HTLC a week after the invoice expired", |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        phone.now_unix_s += 7 * 24 * 3_600;
        offer(&channel, PAID)
    });
    cases.attack("nobody asked for a payment", |phone| {
        offer(&Channel::open(phone), PAID)
    });
    for byte in 0..32 {
        cases.attack(
            format!("another payment hash, in byte {byte}"),
            move |phone| {
                let channel = Channel::open(phone);
                phone.intend(PAID, PAID_MSAT);
                let mut other = PAID;
                other[byte] ^= 1;
                offer(&channel, other)
            },
        );
    }
    cases.attack("the payment has ended", |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        let ended = phone.signer.payment_ended(&PAID).expect("it is known");
        phone.keep(&ended.records);
        offer(&channel, PAID)
    });
    for days in [15, 100, 1_000] {
        cases.attack(
            format!("the invoice expired {days} days ago"),
            move |phone| {
                let channel = Channel::open(phone);
                phone.intend(PAID, PAID_MSAT);
                phone.now_unix_s += days * 24 * 3_600 + 3_600;
                offer(&channel, PAID)
            },
        );
    }
    cases.attack("an invoice of the owner's is paid by the owner", |phone| {
        let channel = Channel::open(phone);
        let hash = super::incoming::invoiced(phone, PAID_MSAT);
        offer(&channel, hash)
    });
    cases.attack("the owner's commitment has the HTLC first", |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        validate(&channel.holder(1, AFTER_SAT, &[Htlc::outgoing(PAID, PAID_MSAT)]))
    });
    for (name, change) in [
        (
            "another amount",
            (|it| Htlc {
                amount_msat: it.amount_msat - 1_000,
                ..it
            }) as fn(Htlc) -> Htlc,
        ),
        ("another expiry", |it| Htlc {
            cltv_expiry: it.cltv_expiry + 1,
            ..it
        }),
        ("another hash", |it| Htlc {
            payment_hash: [5; 32],
            ..it
        }),
    ] {
        cases.attack(
            format!("the owner's commitment has the HTLC with {name}"),
            move |phone| {
                let channel = Channel::open(phone);
                phone.intend(PAID, PAID_MSAT);
                phone.ask(offer(&channel, PAID)).expect("an honest step");
                let other = change(Htlc::outgoing(PAID, PAID_MSAT));
                validate(&channel.holder(1, AFTER_SAT, &[other]))
            },
        );
    }
    cases.attack("the owner's commitment has the HTLC twice", |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        phone.ask(offer(&channel, PAID)).expect("an honest step");
        let paid = Htlc::outgoing(PAID, PAID_MSAT);
        validate(&channel.holder(1, AFTER_SAT - 50_000, &[paid, paid]))
    });
    for (name, hash) in [("unknown", [9; 32]), ("one bit else", [7; 32])] {
        cases.attack(
            format!("a small HTLC with a hash that is {name}"),
            move |phone| {
                let channel = Channel::open(phone);
                phone.intend(PAID, PAID_MSAT);
                let op = sign(&channel.theirs(1, 399_700, &[]));
                trimmed(op, &[(hash, 300_000)])
            },
        );
    }
    cases.all
}

fn limits() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PaymentLimit);
    // The fee limit of the scene is a tenth of the amount.
    let most_msat = PAID_MSAT / 10 * 11;
    cases.honest("an HTLC of the amount and its fee limit", move |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        sign(&channel.theirs(1, 345_000, &[Htlc::outgoing(PAID, most_msat)]))
    });
    cases.honest("a payment in three parts", |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        let part = Htlc::outgoing(PAID, PAID_MSAT / 4);
        sign(&channel.theirs(1, 362_500, &[part; 3]))
    });
    cases.honest("a payment that failed is tried again", |phone| {
        let channel = paying(phone);
        for op in channel.peers_update(2, 400_000, &[]) {
            phone.ask(op).expect("an honest step");
        }
        sign(&channel.theirs(3, AFTER_SAT, &[Htlc::outgoing(PAID, PAID_MSAT)]))
    });
    for more_msat in [1_000, 1_000_000, PAID_MSAT] {
        cases.attack(
            format!("{more_msat} msat above the fee limit"),
            move |phone| {
                let channel = Channel::open(phone);
                phone.intend(PAID, PAID_MSAT);
                let amount_msat = most_msat + more_msat;
                let sat = 400_000 - amount_msat / 1_000;
                sign(&channel.theirs(1, sat, &[Htlc::outgoing(PAID, amount_msat)]))
            },
        );
    }
    for parts in 2..7 {
        cases.attack(format!("{parts} HTLCs, each of the amount"), move |phone| {
            let channel = Channel::open(phone);
            phone.intend(PAID, PAID_MSAT);
            let htlcs = vec![Htlc::outgoing(PAID, PAID_MSAT); parts];
            let sat = 400_000 - 50_000 * parts as u64;
            sign(&channel.theirs(1, sat, &htlcs))
        });
    }
    cases.attack("a second HTLC beside the first", |phone| {
        let channel = paying(phone);
        let paid = Htlc::outgoing(PAID, PAID_MSAT);
        sign(&channel.theirs(2, 300_000, &[paid, paid]))
    });
    cases.attack(
        "the HTLC moves to another expiry while the first one stands",
        |phone| {
            let channel = paying(phone);
            let other = Htlc {
                cltv_expiry: 501,
                ..Htlc::outgoing(PAID, PAID_MSAT)
            };
            sign(&channel.theirs(2, AFTER_SAT, &[other]))
        },
    );
    cases.attack("small HTLCs above the limit", |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, 300_000);
        let op = sign(&channel.theirs(1, 399_400, &[]));
        trimmed(op, &[(PAID, 300_000), (PAID, 300_000)])
    });
    cases.attack("a small HTLC beside one of the whole limit", move |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, PAID_MSAT);
        let op = sign(&channel.theirs(1, 344_700, &[Htlc::outgoing(PAID, most_msat)]));
        trimmed(op, &[(PAID, 300_000)])
    });
    cases.all
}
