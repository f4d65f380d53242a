//! Outgoing HTLCs that have no output in a commitment (BOLT 3, "Trimmed Outputs").
//!
//! LDK's signer interface lists HTLCs with outputs only. The phone compares every HTLC with what its owner asked for, so that the node
//! adds the others to the operation when it is sent.

use lightning::ln::chan_utils::{CommitmentTransaction, HTLCOutputInCommitment};
use lightning::ln::channel_state::{ChannelDetails, OutboundHTLCDetails, OutboundHTLCStateDetails};
use lightning::util::ser::Readable;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignCounterpartyCommitment, SignerBatch, TrimmedHtlc};

use crate::machine::turn::Turn;

/// Adds to each commitment of a peer the new outgoing HTLCs that it has no output for.
///
/// While a signature is awaited LDK offers no further HTLC, so that those it has offered and the peer has not committed to are those of
/// this commitment.
pub(crate) fn add(batch: &mut SignerBatch, turn: &Turn) {
    let mut channels = None;
    for op in &mut batch.ops {
        let Some(Op::SignCounterpartyCommitment(sign)) = &mut op.op else {
            continue;
        };
        let keys_id = &op.channel_keys_id[..];
        let is_it = |channel: &&ChannelDetails| {
            let known = turn
                .remote()
                .and_then(|remote| remote.keys_id_of(channel.user_channel_id));
            known.is_some_and(|known| known == keys_id)
        };
        let channels = channels.get_or_insert_with(|| turn.channels());
        if let Some(channel) = channels.iter().find(is_it) {
            sign.trimmed = trimmed(sign, &channel.pending_outbound_htlcs);
        }
    }
}

fn trimmed(sign: &SignCounterpartyCommitment, pending: &[OutboundHTLCDetails]) -> Vec<TrimmedHtlc> {
    let commitment = CommitmentTransaction::read(&mut &sign.commitment[..]);
    let Ok(commitment) = commitment else {
        return Vec::new();
    };
    let mut outputs: Vec<&HTLCOutputInCommitment> = commitment.nondust_htlcs().iter().collect();
    let mut has_no_output = |htlc: &&OutboundHTLCDetails| {
        let same = |output: &&HTLCOutputInCommitment| {
            !output.offered
                && output.payment_hash == htlc.payment_hash
                && output.amount_msat == htlc.amount_msat
                && output.cltv_expiry == htlc.cltv_expiry
        };
        let output = outputs.iter().position(same);
        output.map(|index| outputs.swap_remove(index)).is_none()
    };
    // Those that are not new take their outputs first: another HTLC may be equal.
    let (new, old): (Vec<_>, Vec<_>) = pending
        .iter()
        .filter(|htlc| htlc.htlc_id.is_some())
        .partition(|htlc| htlc.state == Some(OutboundHTLCStateDetails::AwaitingRemoteRevokeToAdd));
    for htlc in &old {
        has_no_output(htlc);
    }
    let htlc = |htlc: &OutboundHTLCDetails| TrimmedHtlc {
        payment_hash: htlc.payment_hash.0.to_vec(),
        amount_msat: htlc.amount_msat,
    };
    new.into_iter()
        .filter(|htlc| has_no_output(htlc))
        .map(htlc)
        .collect()
}
