//! The owner's balance falls, and nothing that the owner sees explains it.

use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{
    GetPreimage, SignCounterpartyCommitment, TrimmedHtlc, ValidateHolderCommitment,
};
use longhand_signer::Rule;

use super::commitment::{AFTER_SAT, BOTH, PAID, PAID_MSAT, Whose};
use crate::scene::*;
use crate::{Case, Cases};

/// What the owner has before anything is paid.
const BEFORE_SAT: u64 = 400_000;
/// What may be missing.
const MISSING_SAT: [u64; 7] = [1, 2, 330, 354, 1_000, 10_000, 100_000];

/// A commitment of a side.
fn of(channel: &Channel, whose: Whose, step: u64, to_phone_sat: u64, htlcs: &[Htlc]) -> Op {
    match whose {
        Whose::Owners => validate(&channel.holder(step, to_phone_sat, htlcs)),
        Whose::Peers => sign(&channel.theirs(step, to_phone_sat, htlcs)),
    }
}

pub(crate) fn with_preimages(op: Op, preimages: &[[u8; 32]]) -> Op {
    let outbound_preimages = preimages.iter().map(|it| it.to_vec()).collect();
    match op {
        Op::ValidateHolderCommitment(op) => {
            Op::ValidateHolderCommitment(ValidateHolderCommitment {
                outbound_preimages,
                ..op
            })
        }
        Op::SignCounterpartyCommitment(op) => {
            Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
                outbound_preimages,
                ..op
            })
        }
        op => op,
    }
}

pub(super) fn trimmed(op: Op, htlcs: &[([u8; 32], u64)]) -> Op {
    let Op::SignCounterpartyCommitment(op) = op else {
        return op;
    };
    let trimmed = htlcs.iter().map(|(hash, amount_msat)| TrimmedHtlc {
        payment_hash: hash.to_vec(),
        amount_msat: *amount_msat,
    });
    Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
        trimmed: trimmed.collect(),
        ..op
    })
}

/// The payment is in flight on both sides.
pub(super) fn paying(phone: &mut Phone) -> Channel {
    let channel = Channel::open(phone);
    phone.intend(PAID, PAID_MSAT);
    in_flight(phone, &channel);
    channel
}

fn in_flight(phone: &mut Phone, channel: &Channel) {
    let htlcs = [Htlc::outgoing(PAID, PAID_MSAT)];
    for op in channel.owners_update(1, AFTER_SAT, &htlcs) {
        phone.ask(op).expect("an honest step");
    }
}

/// The payment failed: it has left the commitments that come before this one.
fn failing(phone: &mut Phone, whose: Whose) -> Channel {
    let channel = paying(phone);
    if let Whose::Peers = whose {
        let ours = validate(&channel.holder(2, BEFORE_SAT, &[]));
        for op in [ours, release(1)] {
            phone.ask(op).expect("an honest step");
        }
    }
    channel
}

/// The owner has earned the HTLC of an invoice: its preimage was released.
fn earned(phone: &mut Phone) -> Channel {
    let channel = Channel::open(phone);
    let hash = super::incoming::invoiced(phone, PAID_MSAT);
    let htlcs = [Htlc::incoming(hash, PAID_MSAT)];
    for op in [
        validate(&channel.holder(1, BEFORE_SAT, &htlcs)),
        release(0),
        sign(&channel.theirs(1, BEFORE_SAT, &htlcs)),
        channel.revocation(0),
        Op::GetPreimage(GetPreimage {
            payment_hash: hash.to_vec(),
            htlcs: Vec::new(),
        }),
    ] {
        phone.ask(op).expect("an honest step");
    }
    channel
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Cases::of(Rule::Balance);
    for whose in BOTH {
        steps(&mut cases, whose);
    }
    firsts(&mut cases);
    small(&mut cases);
    fee_rates(&mut cases);
    cases.all
}

fn steps(cases: &mut Cases, whose: Whose) {
    cases.honest(
        format!("{whose:?} commitment with the balance of before"),
        move |phone| of(&Channel::open(phone), whose, 1, BEFORE_SAT, &[]),
    );
    cases.honest(
        format!("{whose:?} commitment in which the peer gives"),
        move |phone| of(&Channel::open(phone), whose, 1, BEFORE_SAT + 100, &[]),
    );
    cases.honest(
        format!("{whose:?} commitment without an HTLC that failed"),
        move |phone| of(&failing(phone, whose), whose, 2, BEFORE_SAT, &[]),
    );
    cases.honest(
        format!("{whose:?} commitment without an HTLC that was earned"),
        move |phone| {
            let earned_sat = BEFORE_SAT + PAID_MSAT / 1_000;
            of(&earned(phone), whose, 2, earned_sat, &[])
        },
    );
    for less in MISSING_SAT {
        cases.attack(
            format!("{whose:?} quiet commitment, {less} sat less"),
            move |phone| of(&Channel::open(phone), whose, 1, BEFORE_SAT - less, &[]),
        );
        cases.attack(
            format!("{whose:?} commitment with an incoming HTLC, {less} sat less"),
            move |phone| {
                let htlcs = [Htlc::incoming([7; 32], 40_000_000)];
                of(&Channel::open(phone), whose, 1, BEFORE_SAT - less, &htlcs)
            },
        );
        cases.attack(
            format!("{whose:?} commitment beside a payment, {less} sat less"),
            move |phone| {
                let channel = paying(phone);
                let htlcs = [Htlc::outgoing(PAID, PAID_MSAT)];
                of(&channel, whose, 2, AFTER_SAT - less, &htlcs)
            },
        );
        cases.attack(
            format!("{whose:?} commitment without a failed HTLC, {less} sat less"),
            move |phone| of(&failing(phone, whose), whose, 2, BEFORE_SAT - less, &[]),
        );
        cases.attack(
            format!("{whose:?} commitment without an earned HTLC, {less} sat less"),
            move |phone| {
                let earned_sat = BEFORE_SAT + PAID_MSAT / 1_000;
                of(&earned(phone), whose, 2, earned_sat - less, &[])
            },
        );
    }
    cases.attack(
        format!("{whose:?} commitment without anything of the owner's"),
        move |phone| of(&Channel::open(phone), whose, 1, 0, &[]),
    );
    cases.attack(
        format!("{whose:?} commitment that keeps a failed HTLC's amount"),
        move |phone| of(&failing(phone, whose), whose, 2, AFTER_SAT, &[]),
    );
    cases.attack(
        format!("{whose:?} commitment with another payment's preimage"),
        move |phone| {
            let op = of(&failing(phone, whose), whose, 2, AFTER_SAT, &[]);
            with_preimages(op, &[[9; 32]])
        },
    );
    cases.attack(
        format!("{whose:?} commitment with the hash in place of the preimage"),
        move |phone| {
            let op = of(&failing(phone, whose), whose, 2, AFTER_SAT, &[]);
            with_preimages(op, &[PAID])
        },
    );
    cases.attack(
        format!("{whose:?} commitment that keeps an earned HTLC's amount"),
        move |phone| of(&earned(phone), whose, 2, BEFORE_SAT, &[]),
    );
}

/// First commitments of channels that the owner funds.
fn firsts(cases: &mut Cases) {
    for whose in BOTH {
        let first = move |sat: u64| {
            move |phone: &mut Phone| {
                let channel = Channel::outbound(phone);
                phone.ask(channel.setup()).expect("an honest step");
                match whose {
                    Whose::Owners => validate(&channel.holder_at(0, 1_000, sat, 0)),
                    Whose::Peers => sign(&channel.theirs_at(0, 1_000, sat, 0)),
                }
            }
        };
        cases.honest(
            format!("{whose:?} first commitment of the owner's channel"),
            first(FUNDER_SAT),
        );
        for less in MISSING_SAT {
            cases.attack(
                format!("{whose:?} first commitment with {less} sat pushed"),
                first(FUNDER_SAT - less),
            );
        }
        cases.attack(
            format!("{whose:?} first commitment with everything pushed"),
            first(0),
        );
        cases.attack(
            format!("{whose:?} first commitment with an HTLC"),
            move |phone| {
                let channel = Channel::new(phone);
                phone.ask(channel.setup()).expect("an honest step");
                let htlcs = [Htlc::incoming([7; 32], 40_000_000)];
                of(&channel, whose, 0, BEFORE_SAT, &htlcs)
            },
        );
    }
}

/// HTLCs without outputs.
fn small(cases: &mut Cases) {
    const SMALL_MSAT: u64 = 300_000;
    let theirs = |channel: &Channel, sat: u64| of(channel, Whose::Peers, 1, sat, &[]);
    cases.honest("a small HTLC that is named", move |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, SMALL_MSAT);
        trimmed(theirs(&channel, BEFORE_SAT - 300), &[(PAID, SMALL_MSAT)])
    });
    cases.attack("a small HTLC that is not named", move |phone| {
        let channel = Channel::open(phone);
        phone.intend(PAID, SMALL_MSAT);
        theirs(&channel, BEFORE_SAT - 300)
    });
    for more in [1, 54, 1_000] {
        cases.attack(
            format!("{more} sat more than the small HTLC that is named"),
            move |phone| {
                let channel = Channel::open(phone);
                phone.intend(PAID, SMALL_MSAT);
                let op = theirs(&channel, BEFORE_SAT - 300 - more);
                trimmed(op, &[(PAID, SMALL_MSAT)])
            },
        );
    }
    for less in [300, 301, 600] {
        cases.attack(
            format!("{less} sat less in the owner's commitment for no small HTLC"),
            move |phone| {
                let channel = Channel::open(phone);
                of(&channel, Whose::Owners, 1, BEFORE_SAT - less, &[])
            },
        );
    }
    cases.attack(
        "a small HTLC twice in the owner's commitments",
        move |phone| {
            let channel = Channel::open(phone);
            phone.intend(PAID, SMALL_MSAT);
            let sent = trimmed(theirs(&channel, BEFORE_SAT - 300), &[(PAID, SMALL_MSAT)]);
            for op in [
                sent,
                channel.revocation(0),
                of(&channel, Whose::Owners, 1, BEFORE_SAT - 300, &[]),
                release(0),
            ] {
                phone.ask(op).expect("an honest step");
            }
            of(&channel, Whose::Owners, 2, BEFORE_SAT - 600, &[])
        },
    );
}

/// Fee rates that are named and not paid: the difference is the peer's.
fn fee_rates(cases: &mut Cases) {
    let funded = |phone: &mut Phone| {
        let channel = Channel::outbound(phone);
        phone.ask(channel.setup()).expect("an honest step");
        let first = sign(&channel.theirs_at(0, 1_000, FUNDER_SAT, 0));
        phone.ask(first).expect("an honest step");
        channel
    };
    let after = VALUE_SAT - 660 - 11_240;
    cases.honest("a higher fee rate that is paid", move |phone| {
        sign(&funded(phone).theirs_at(1, 10_000, after, 0))
    });
    for to_peer in [354, 5_000, 11_240 - 1_124] {
        cases.attack(
            format!("a higher fee rate of which the peer gets {to_peer} sat"),
            move |phone| sign(&funded(phone).theirs_at(1, 10_000, after, to_peer)),
        );
    }
}
