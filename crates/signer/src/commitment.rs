//! Commitments (BOLT 3): their LDK encoding, and the transactions that follow from them.

use bitcoin::secp256k1::Message;
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, EcdsaSighashType, ScriptBuf, Transaction};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HTLCOutputInCommitment,
    build_htlc_transaction, get_htlc_redeemscript, make_funding_redeemscript,
};
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::ser::{Readable, ReadableArgs, Writeable};

use crate::rules::Refused;

/// The index of the first commitment of a channel; they count down from it (BOLT 3).
pub(crate) const FIRST_INDEX: u64 = (1 << 48) - 1;

/// The side whose commitment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Holder,
    Counterparty,
}

/// Reads one LDK-encoded value that fills `bytes`.
pub(crate) fn read<T: Readable>(mut bytes: &[u8]) -> Result<T, Refused> {
    let value =
        T::read(&mut bytes).map_err(|_| Refused::malformed("an LDK encoding cannot be read"))?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(Refused::malformed(
            "bytes are left over after an LDK encoding",
        ))
    }
}

/// Reads channel parameters that fill `bytes`.
pub(crate) fn read_parameters(mut bytes: &[u8]) -> Result<ChannelTransactionParameters, Refused> {
    let parameters =
        <ChannelTransactionParameters as ReadableArgs<Option<u64>>>::read(&mut bytes, None)
            .map_err(|_| Refused::malformed("the channel parameters cannot be read"))?;
    if bytes.is_empty() {
        Ok(parameters)
    } else {
        Err(Refused::malformed(
            "bytes are left over after the parameters",
        ))
    }
}

/// Whether HTLC transactions pay no fee of their own, and so are signed by the peer with SINGLE|ANYONECANPAY.
pub(crate) fn zero_fee_htlcs(features: &ChannelTypeFeatures) -> bool {
    features.supports_anchors_zero_fee_htlc_tx() || features.supports_anchor_zero_fee_commitments()
}

/// Whether `asked` equals the commitment `on_record` in every part.
///
/// LDK's own comparison, and its encoding of unknown features, assert what this function has to check.
pub(crate) fn same(on_record: &CommitmentTransaction, asked: &CommitmentTransaction) -> bool {
    let features = on_record.trust().channel_type_features();
    features == asked.trust().channel_type_features() && on_record.encode() == asked.encode()
}

/// The script of the funding output (BOLT 3); `None` without the peer's keys.
pub(crate) fn funding_script(parameters: &ChannelTransactionParameters) -> Option<ScriptBuf> {
    let peer = parameters.counterparty_pubkeys()?;
    Some(make_funding_redeemscript(
        &parameters.holder_pubkeys.funding_pubkey,
        &peer.funding_pubkey,
    ))
}

/// The second-stage transaction of one HTLC of a holder commitment that was judged: LDK's builder trusts its input, and panics on
/// some of it.
pub(crate) fn holder_htlc_transaction(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
) -> Transaction {
    let delay = parameters.as_holder_broadcastable().contest_delay();
    htlc_transaction(delay, commitment, htlc)
}

/// The same for a commitment of the peer's.
pub(crate) fn peer_htlc_transaction(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
) -> Transaction {
    let delay = parameters.as_counterparty_broadcastable().contest_delay();
    htlc_transaction(delay, commitment, htlc)
}

fn htlc_transaction(
    contest_delay: u16,
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
) -> Transaction {
    let trusted = commitment.trust();
    build_htlc_transaction(
        &trusted.txid(),
        commitment.negotiated_feerate_per_kw(),
        contest_delay,
        htlc,
        trusted.channel_type_features(),
        &trusted.keys().broadcaster_delayed_payment_key,
        &trusted.keys().revocation_key,
    )
}

/// The sighash of an HTLC's second-stage transaction for the side that does not broadcast `commitment`.
pub(crate) fn htlc_sighash(
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
    transaction: &Transaction,
) -> Option<Message> {
    let trusted = commitment.trust();
    let features = trusted.channel_type_features();
    let script = get_htlc_redeemscript(htlc, features, trusted.keys());
    let kind = match zero_fee_htlcs(features) {
        true => EcdsaSighashType::SinglePlusAnyoneCanPay,
        false => EcdsaSighashType::All,
    };
    p2wsh_sighash(transaction, 0, &script, htlc.to_bitcoin_amount(), kind)
}

/// The BIP 143 sighash of `input`; `None` when there is no such input.
pub(crate) fn p2wsh_sighash(
    transaction: &Transaction,
    input: usize,
    script: &bitcoin::Script,
    value: Amount,
    kind: EcdsaSighashType,
) -> Option<Message> {
    let sighash = SighashCache::new(transaction).p2wsh_signature_hash(input, script, value, kind);
    sighash.map(Message::from).ok()
}
