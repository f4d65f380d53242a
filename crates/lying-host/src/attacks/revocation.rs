//! Revocations: secrets before their time, and secrets that revoke nothing (BOLT 2, `revoke_and_ack`).

use lightning::sign::ChannelSigner;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{CounterpartyRevocation, ReleaseSecret};
use longhand_signer::Rule;

use crate::scene::*;
use crate::{Case, Cases};

fn revoke(index: u64, secret: Vec<u8>) -> Op {
    Op::CounterpartyRevocation(CounterpartyRevocation { index, secret })
}

fn secret(channel: &Channel, step: u64) -> Vec<u8> {
    let secret = channel.peer.release_commitment_secret(FIRST - step);
    secret.expect("a secret").to_vec()
}

/// The peer has two commitments.
fn updated(phone: &mut Phone) -> Channel {
    let channel = Channel::open(phone);
    let next = sign(&channel.theirs(1, 400_000, &[]));
    phone.ask(next).expect("an honest step");
    channel
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = releases();
    all.extend(revocations());
    all
}

fn releases() -> Vec<Case> {
    let mut early = Cases::of(Rule::RevokeBeforeValidate);
    early.honest("the secret of a commitment that has a successor", |phone| {
        let channel = Channel::open(phone);
        let next = validate(&channel.holder(1, 400_000, &[]));
        phone.ask(next).expect("an honest step");
        release(0)
    });
    for step in [0, 1, 2, 7, 1_000] {
        early.attack(
            format!("the secret of commitment {step}, of which 0 is the latest"),
            move |phone| {
                Channel::open(phone);
                release(step)
            },
        );
    }
    early.attack("the secret of the last commitment there can be", |phone| {
        Channel::open(phone);
        Op::ReleaseSecret(ReleaseSecret { index: 0 })
    });

    let mut signed = Cases::of(Rule::RevokeSigned);
    signed.honest(
        "the secret of a commitment before the one that was signed for broadcast",
        |phone| {
            let channel = Channel::open(phone);
            phone.intend_force(&channel);
            let next = channel.holder(1, 400_000, &[]);
            for op in [validate(&next), sign_holder(&next)] {
                phone.ask(op).expect("an honest step");
            }
            release(0)
        },
    );
    signed.attack("a commitment that was signed for broadcast", |phone| {
        let channel = Channel::open(phone);
        phone.intend_force(&channel);
        let next = channel.holder(1, 400_000, &[]);
        let first = channel.holder(0, 400_000, &[]);
        for op in [validate(&next), sign_holder(&first)] {
            phone.ask(op).expect("an honest step");
        }
        release(0)
    });
    signed.attack("the same, signed a second time", |phone| {
        let channel = Channel::open(phone);
        phone.intend_force(&channel);
        let first = channel.holder(0, 400_000, &[]);
        let next = channel.holder(1, 400_000, &[]);
        for op in [validate(&next), sign_holder(&first), sign_holder(&first)] {
            phone.ask(op).expect("an honest step");
        }
        release(0)
    });
    let mut all = early.all;
    all.extend(signed.all);
    all
}

fn revocations() -> Vec<Case> {
    let mut order = Cases::of(Rule::RevocationOrder);
    order.honest("the peer's oldest commitment is revoked", |phone| {
        updated(phone).revocation(0)
    });
    order.honest("it is revoked again", |phone| {
        let channel = updated(phone);
        phone.ask(channel.revocation(0)).expect("an honest step");
        channel.revocation(0)
    });
    order.attack("the peer has no newer commitment", |phone| {
        Channel::open(phone).revocation(0)
    });
    for step in [1, 2, 5] {
        order.attack(
            format!("commitment {step} is revoked before the first"),
            move |phone| updated(phone).revocation(step),
        );
    }
    order.attack("the peer's only commitment is revoked", |phone| {
        let channel = updated(phone);
        phone.ask(channel.revocation(0)).expect("an honest step");
        channel.revocation(1)
    });

    let mut secrets = Cases::of(Rule::RevocationSecret);
    secrets.honest("the secret of the commitment", |phone| {
        let channel = updated(phone);
        revoke(FIRST, secret(&channel, 0))
    });
    for step in [1, 2, 3] {
        secrets.attack(format!("the secret of commitment {step}"), move |phone| {
            let channel = updated(phone);
            revoke(FIRST, secret(&channel, step))
        });
    }
    for byte in [0, 7, 15, 23, 31] {
        secrets.attack(format!("another secret, in byte {byte}"), move |phone| {
            let channel = updated(phone);
            let mut secret = secret(&channel, 0);
            secret[byte] ^= 1;
            revoke(FIRST, secret)
        });
    }
    for (name, bytes) in [("no", 0), ("half a", 16), ("too long a", 33)] {
        secrets.attack(format!("{name} secret"), move |phone| {
            updated(phone);
            revoke(FIRST, vec![1; bytes])
        });
    }
    secrets.attack("another secret for a commitment that is revoked", |phone| {
        let channel = updated(phone);
        phone.ask(channel.revocation(0)).expect("an honest step");
        revoke(FIRST, vec![1; 32])
    });
    let mut all = order.all;
    all.extend(secrets.all);
    all
}
