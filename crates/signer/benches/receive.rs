//! The computation of a phone for the most expensive step of a channel: a new commitment on both sides, in one batch, with
//! the secret of the one before. The disk and the link are not in it.
#![allow(missing_docs, clippy::unwrap_used)]

use bitcoin::Network;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use longhand_lying_host::scene::{
    Channel, Htlc, KEYS_ID, LEDGER_KEY, NOW, Phone, release, seed, sign, validate,
};
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerOp, signer_answer::Answer};
use longhand_signer::Signer;

/// The batch with which a phone takes `htlcs` incoming HTLCs into its channel.
fn step(channel: &Channel, htlcs: u8) -> SignerBatch {
    let incoming = |n| Htlc::incoming([n; 32], 2_000_000 + u64::from(n));
    let htlcs: Vec<Htlc> = (0..htlcs).map(incoming).collect();
    let op = |op: Op| SignerOp {
        channel_keys_id: KEYS_ID.to_vec(),
        op: Some(op),
    };
    let ops = [
        validate(&channel.holder(1, 400_000, &htlcs)),
        release(0),
        sign(&channel.theirs(1, 400_000, &htlcs)),
        channel.revocation(0),
    ];
    SignerBatch {
        ops: ops.map(op).into(),
    }
}

fn receive(criterion: &mut Criterion) {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let mut group = criterion.benchmark_group("receive_step");
    for htlcs in [1, 5, 16] {
        let batch = step(&channel, htlcs);
        let before =
            || Signer::restore(&seed(), Network::Regtest, &LEDGER_KEY, &phone.disk).unwrap();
        let answers = before().handle(&batch, NOW).reply.answers;
        let refused = |answer: &Option<Answer>| matches!(answer, None | Some(Answer::Refusal(_)));
        assert!(
            !answers.iter().any(|answer| refused(&answer.answer)),
            "{answers:?}"
        );
        group.bench_function(BenchmarkId::new("htlcs", htlcs), |bencher| {
            bencher.iter_batched(
                before,
                // The returned value is dropped outside the measurement.
                |mut signer| (signer.handle(&batch, NOW), signer),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, receive);
criterion_main!(benches);
