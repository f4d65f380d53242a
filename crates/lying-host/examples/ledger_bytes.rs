//! Bytes of the phone's ledger: of a channel in a snapshot, and written for one outgoing payment.
#![allow(clippy::expect_used)]

use bitcoin::hashes::{Hash, sha256};
use longhand_lying_host::scene::{Channel, Htlc, Phone, release, sign, validate};
use longhand_proto::signer::ValidateHolderCommitment;
use longhand_proto::signer::signer_op::Op;

const PREIMAGE: [u8; 32] = [6; 32];
const PAID_MSAT: u64 = 50_000_000;
const AFTER_SAT: u64 = 350_000;

fn main() {
    let mut phone = Phone::new();
    let empty = snapshot(&phone);
    let channel = Channel::open(&mut phone);
    let quiet = snapshot(&phone) - empty;
    let before = written(&phone);

    let hash = sha256::Hash::hash(&PREIMAGE).to_byte_array();
    phone.intend(hash, PAID_MSAT);
    let htlcs = [Htlc::outgoing(hash, PAID_MSAT)];
    for op in channel.owners_update(1, AFTER_SAT, &htlcs) {
        phone.ask(op).expect("an honest step");
    }
    let in_flight = snapshot(&phone) - empty;
    for op in [
        fulfilled(validate(&channel.holder(2, AFTER_SAT, &[]))),
        release(1),
        sign(&channel.theirs(2, AFTER_SAT, &[])),
        channel.revocation(1),
    ] {
        phone.ask(op).expect("an honest step");
    }
    let payment = written(&phone) - before;
    println!("a channel in a snapshot: {quiet} bytes, with an HTLC in flight {in_flight}");
    println!("an outgoing payment: {payment} bytes written");
}

fn snapshot(phone: &Phone) -> usize {
    phone.signer.snapshot().as_bytes().len()
}

fn written(phone: &Phone) -> usize {
    phone.disk.iter().map(Vec::len).sum()
}

fn fulfilled(op: Op) -> Op {
    let Op::ValidateHolderCommitment(op) = op else {
        return op;
    };
    Op::ValidateHolderCommitment(ValidateHolderCommitment {
        outbound_preimages: vec![PREIMAGE.to_vec()],
        ..op
    })
}
