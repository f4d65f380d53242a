//! Forced closes that the owner did not ask for (BOLT 5).

use lightning::util::ser::Writeable;
use longhand_proto::signer::SignHolderHtlc;
use longhand_proto::signer::signer_op::Op;
use longhand_signer::Rule;

use super::closing::holder_htlc;
use super::commitment::{AFTER_SAT, PAID, PAID_MSAT};
use super::seen::{AMOUNT_MSAT, opened, paid_until};
use crate::scene::*;
use crate::tlv::encode;
use crate::{Case, Cases};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Cases::of(Rule::CloseUnasked);
    by_the_owner(&mut cases);
    outgoing(&mut cases);
    incoming(&mut cases);
    htlcs(&mut cases);
    cases.all
}

fn latest(channel: &Channel) -> Op {
    sign_holder(&channel.holder(0, 400_000, &[]))
}

fn by_the_owner(cases: &mut Cases) {
    cases.honest("a forced close that the owner has asked for", |phone| {
        let channel = Channel::open(phone);
        phone.intend_force(&channel);
        latest(&channel)
    });
    cases.honest("the same again, after a restart of the phone", |phone| {
        let channel = Channel::open(phone);
        phone.intend_force(&channel);
        phone.ask(latest(&channel)).expect("an honest step");
        phone.restart();
        latest(&channel)
    });
    cases.honest(
        "a forced close after a cooperative one was asked for",
        |phone| {
            let channel = Channel::open(phone);
            phone.intend_close(&channel.id().0, false, "");
            phone.intend_force(&channel);
            latest(&channel)
        },
    );
    cases.attack("a forced close that nobody has asked for", |phone| {
        latest(&Channel::open(phone))
    });
    cases.attack(
        "a forced close of a channel that the owner has opened",
        |phone| {
            let channel = Channel::outbound(phone);
            let first = channel.holder_at(0, 1_000, FUNDER_SAT, 0);
            for op in [
                channel.setup(),
                sign(&channel.theirs_at(0, 1_000, FUNDER_SAT, 0)),
                validate(&first),
            ] {
                phone.ask(op).expect("an honest step");
            }
            sign_holder(&first)
        },
    );
    cases.attack("a forced close in place of a cooperative one", |phone| {
        let channel = Channel::open(phone);
        phone.intend_close(&channel.id().0, false, "");
        latest(&channel)
    });
    cases.attack(
        "a forced close of another channel than the owner's",
        |phone| {
            let channel = Channel::open(phone);
            phone.intend_close(&[9; 32], true, "");
            latest(&channel)
        },
    );
    for byte in [0, 15, 30, 31] {
        cases.attack(
            format!("a forced close of one whose id differs in byte {byte}"),
            move |phone| {
                let channel = Channel::open(phone);
                let mut id = channel.id().0;
                id[byte] ^= 1;
                phone.intend_close(&id, true, "");
                latest(&channel)
            },
        );
    }
}

/// So many blocks are mined, and the phone is shown their headers.
fn pass(phone: &mut Phone, blocks: u32) {
    phone.chain.mine_empty(blocks);
    phone.show_headers();
}

/// A channel with an HTLC of a payment that expires at this many blocks above the tip.
fn paying(phone: &mut Phone, blocks: u32) -> Channel {
    let (channel, height) = opened(phone);
    phone.intend(PAID, PAID_MSAT);
    let paid = [Htlc {
        cltv_expiry: height + blocks,
        ..Htlc::outgoing(PAID, PAID_MSAT)
    }];
    for op in channel.owners_update(1, AFTER_SAT, &paid) {
        phone.ask(op).expect("an honest step");
    }
    channel
}

/// Its latest commitment for broadcast.
fn with_payment(channel: &Channel, cltv_expiry: u32) -> Op {
    let paid = [Htlc {
        cltv_expiry,
        ..Htlc::outgoing(PAID, PAID_MSAT)
    }];
    sign_holder(&channel.holder(1, AFTER_SAT, &paid))
}

fn outgoing(cases: &mut Cases) {
    let after = |passed: u32| {
        move |phone: &mut Phone| {
            let channel = paying(phone, 10);
            let expiry = phone.chain.height() + 10;
            pass(phone, passed);
            with_payment(&channel, expiry)
        }
    };
    let name = |passed| format!("an HTLC of the owner's that expires in 10 blocks, after {passed}");
    for passed in [10, 11, 40] {
        cases.honest(name(passed), after(passed));
    }
    for passed in [0, 1, 9] {
        cases.attack(name(passed), after(passed));
    }
    cases.attack(
        "an HTLC that expires in blocks which the phone does not know",
        |phone| {
            let channel = paying(phone, 10);
            let expiry = phone.chain.height() + 10;
            phone.chain.mine_empty(20);
            with_payment(&channel, expiry)
        },
    );
    for blocks in [1, 9, 10] {
        cases.attack(
            format!("an HTLC in the peer's commitment alone that has expired {blocks} blocks ago"),
            move |phone| {
                let (channel, height) = opened(phone);
                phone.intend(PAID, PAID_MSAT);
                let made_up = [Htlc {
                    cltv_expiry: height - blocks,
                    ..Htlc::outgoing(PAID, PAID_MSAT)
                }];
                let theirs = sign(&channel.theirs(1, AFTER_SAT, &made_up));
                phone.ask(theirs).expect("what the owner asked for");
                latest(&channel)
            },
        );
    }
    cases.attack("an HTLC that has failed before it expired", |phone| {
        let channel = paying(phone, 10);
        for op in channel.peers_update(2, 400_000, &[]) {
            phone.ask(op).expect("an honest step");
        }
        pass(phone, 20);
        sign_holder(&channel.holder(2, 400_000, &[]))
    });
}

/// A channel with a payment to the owner that expires at this many blocks above the tip, and its latest commitment for broadcast.
fn paid(phone: &mut Phone, blocks: u32, is_claimed: bool) -> Op {
    let (channel, height) = opened(phone);
    let claim = paid_until(phone, &channel, height + blocks);
    let hash = match &claim {
        Op::GetPreimage(claim) => claim.payment_hash[..].try_into().expect("a hash"),
        _ => unreachable!("a claim asks for a preimage"),
    };
    if is_claimed {
        phone.ask(claim).expect("an honest step");
    }
    let htlcs = [Htlc {
        cltv_expiry: height + blocks,
        ..Htlc::incoming(hash, AMOUNT_MSAT)
    }];
    sign_holder(&channel.holder(1, 400_000, &htlcs))
}

fn incoming(cases: &mut Cases) {
    let after = |passed: u32, is_claimed: bool| {
        move |phone: &mut Phone| {
            let op = paid(phone, 200, is_claimed);
            pass(phone, passed);
            op
        }
    };
    let name = |which, passed| format!("{which} that expires in 200 blocks, after {passed}");
    for passed in [56, 100, 199, 250] {
        cases.honest(name("a claimed payment", passed), after(passed, true));
    }
    for passed in [0, 1, 55] {
        cases.attack(name("a claimed payment", passed), after(passed, true));
    }
    for passed in [56, 170] {
        let which = "a payment whose preimage is on the phone";
        cases.attack(name(which, passed), after(passed, false));
    }
}

fn htlcs(cases: &mut Cases) {
    let claim = |phone: &mut Phone, is_asked: bool| {
        let channel = Channel::open(phone);
        let (_, transaction, descriptor) = holder_htlc(phone, &channel);
        if is_asked {
            phone.intend_force(&channel);
        }
        Op::SignHolderHtlc(SignHolderHtlc {
            transaction: encode(&transaction),
            input: 0,
            descriptor: descriptor.encode(),
        })
    };
    cases.attack(
        "an HTLC of a commitment that was not signed for broadcast",
        move |phone| claim(phone, false),
    );
    cases.honest(
        "one of a commitment whose signature is in no record",
        move |phone| claim(phone, true),
    );
}
