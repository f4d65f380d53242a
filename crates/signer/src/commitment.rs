//! Commitments as the host encoded them: parsed, then checked until LDK's functions, which trust their input and panic on some of it,
//! can be used on them.

use std::collections::BTreeSet;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, Secp256k1};
use bitcoin::sighash::SighashCache;
use bitcoin::{Amount, EcdsaSighashType, Transaction};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction, build_htlc_transaction, derive_private_key, get_htlc_redeemscript,
    htlc_success_tx_weight, htlc_timeout_tx_weight, make_funding_redeemscript,
};
use lightning::sign::InMemorySigner;
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::ser::{Readable, ReadableArgs, Writeable};

use rayon::prelude::*;

use crate::rules::{Refused, Rule};

/// The index of the first commitment of a channel; they count down from it (BOLT 3).
pub(crate) const FIRST_INDEX: u64 = (1 << 48) - 1;

/// The side whose commitment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Holder,
    Peer,
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

/// Checks that `commitment` is the one that follows from `parameters`, its number, amounts and HTLCs: every output, every key.
///
/// After this LDK's signing and building functions cannot panic on it.
pub(crate) fn check_commitment(
    secp: &Secp256k1<All>,
    parameters: &ChannelTransactionParameters,
    side: Side,
    commitment: &CommitmentTransaction,
) -> Result<(), Refused> {
    if commitment.commitment_number() > FIRST_INDEX {
        return Err(mismatch("its number is out of range"));
    }
    if commitment.trust().channel_type_features() != &parameters.channel_type_features {
        return Err(mismatch("its channel type is not the channel's"));
    }
    check_amounts(parameters, commitment)?;
    let directed = match side {
        Side::Holder => parameters.as_holder_broadcastable(),
        Side::Peer => parameters.as_counterparty_broadcastable(),
    };
    commitment
        .verify(&directed, secp)
        .map_err(|()| mismatch("its transaction is not what its parts make"))?;
    check_htlc_outputs(commitment)
}

/// Checks that no sum can overflow, and that no HTLC transaction can pay more than its input.
fn check_amounts(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
) -> Result<(), Refused> {
    let balances = u128::from(commitment.to_broadcaster_value_sat())
        + u128::from(commitment.to_countersignatory_value_sat());
    let htlcs: u128 = commitment
        .nondust_htlcs()
        .iter()
        .map(|htlc| u128::from(htlc.amount_msat / 1000))
        .sum();
    if balances + htlcs > u128::from(parameters.channel_value_satoshis) {
        return Err(mismatch("it spends more than the channel holds"));
    }
    if zero_fee_htlcs(&parameters.channel_type_features) {
        return Ok(());
    }
    let feerate = u64::from(commitment.negotiated_feerate_per_kw());
    for htlc in commitment.nondust_htlcs() {
        let weight = match htlc.offered {
            true => htlc_timeout_tx_weight(&parameters.channel_type_features),
            false => htlc_success_tx_weight(&parameters.channel_type_features),
        };
        if feerate * weight / 1000 > htlc.amount_msat / 1000 {
            return Err(mismatch("an HTLC does not pay for its own transaction"));
        }
    }
    Ok(())
}

/// Checks the output index of each HTLC, which LDK's `verify` trusts when it rebuilds the outputs.
fn check_htlc_outputs(commitment: &CommitmentTransaction) -> Result<(), Refused> {
    let trusted = commitment.trust();
    let outputs = &trusted.built_transaction().transaction.output;
    let mut taken = BTreeSet::new();
    for htlc in commitment.nondust_htlcs() {
        let index = htlc
            .transaction_output_index
            .ok_or_else(|| mismatch("an HTLC has no output"))?;
        let script =
            get_htlc_redeemscript(htlc, trusted.channel_type_features(), trusted.keys()).to_p2wsh();
        let fits = usize::try_from(index)
            .ok()
            .and_then(|index| outputs.get(index));
        let fits = fits.is_some_and(|out| {
            out.script_pubkey == script && out.value == htlc.to_bitcoin_amount()
        });
        if !fits || !taken.insert(index) {
            return Err(mismatch("an HTLC names an output that is not its own"));
        }
    }
    Ok(())
}

/// Checks the peer's signatures on the owner's commitment and on its HTLC transactions, after `check_commitment`.
pub(crate) fn check_peer_signatures(
    secp: &Secp256k1<All>,
    parameters: &ChannelTransactionParameters,
    commitment: &HolderCommitmentTransaction,
) -> Result<(), Refused> {
    let bad = |what: &str| {
        Refused::new(
            Rule::HolderSignature,
            format!("the peer's signature on {what} is not valid"),
        )
    };
    let peer = parameters
        .counterparty_pubkeys()
        .ok_or_else(|| Refused::malformed("the peer's keys are missing"))?;
    let trusted = commitment.trust();
    let funding = make_funding_redeemscript(
        &parameters.holder_pubkeys.funding_pubkey,
        &peer.funding_pubkey,
    );
    let sighash = trusted
        .built_transaction()
        .get_sighash_all(&funding, parameters.channel_value_satoshis);
    secp.verify_ecdsa(&sighash, &commitment.counterparty_sig, &peer.funding_pubkey)
        .map_err(|_| bad("the commitment transaction"))?;

    if commitment.counterparty_htlc_sigs.len() != commitment.nondust_htlcs().len() {
        return Err(bad("an HTLC transaction (there must be one for each HTLC)"));
    }
    // The longest computation of a payment on a phone, so that all cores share it.
    let htlcs = commitment.nondust_htlcs().par_iter();
    let pairs = htlcs.zip(&commitment.counterparty_htlc_sigs);
    pairs.try_for_each(|(htlc, signature)| {
        check_htlc_signature(secp, parameters, commitment, htlc, signature).and_then(|valid| {
            valid
                .then_some(())
                .ok_or_else(|| bad("an HTLC transaction"))
        })
    })
}

/// Whether `signature` is the peer's on the second-stage transaction of `htlc` (BOLT 3).
fn check_htlc_signature(
    secp: &Secp256k1<All>,
    parameters: &ChannelTransactionParameters,
    commitment: &HolderCommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
    signature: &Signature,
) -> Result<bool, Refused> {
    let transaction = holder_htlc_transaction(parameters, commitment, htlc);
    let sighash = htlc_sighash(commitment, htlc, &transaction)?;
    let keys = commitment.trust().keys();
    let key = keys.countersignatory_htlc_key.to_public_key();
    Ok(secp.verify_ecdsa(&sighash, signature, &key).is_ok())
}

/// Signs the peer's commitment and its HTLC transactions (BOLT 3), after `check_commitment`.
///
/// The signatures are those of LDK's `InMemorySigner`, which would derive its key for each of them again.
pub(crate) fn sign_peer_commitment(
    secp: &Secp256k1<All>,
    keys: &InMemorySigner,
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
) -> Result<(Signature, Vec<Signature>), Refused> {
    let peer = parameters
        .counterparty_pubkeys()
        .ok_or_else(|| Refused::malformed("the peer's keys are missing"))?;
    let funding = make_funding_redeemscript(
        &parameters.holder_pubkeys.funding_pubkey,
        &peer.funding_pubkey,
    );
    let mut funding_key = keys.funding_key(parameters.splice_parent_funding_txid);
    let signature = commitment
        .trust()
        .built_transaction()
        .sign_counterparty_commitment(
            &funding_key,
            &funding,
            parameters.channel_value_satoshis,
            secp,
        );
    funding_key.non_secure_erase();
    let point = commitment.per_commitment_point();
    let mut htlc_key = derive_private_key(secp, &point, &keys.htlc_base_key);
    let sign = |htlc| -> Result<Signature, Refused> {
        let transaction = peer_htlc_transaction(parameters, commitment, htlc);
        let sighash = htlc_sighash(commitment, htlc, &transaction)?;
        Ok(secp.sign_ecdsa_low_r(&sighash, &htlc_key))
    };
    let htlcs: Result<_, _> = commitment.nondust_htlcs().par_iter().map(sign).collect();
    htlc_key.non_secure_erase();
    Ok((signature, htlcs?))
}

/// The second-stage transaction of one HTLC of a checked holder commitment.
pub(crate) fn holder_htlc_transaction(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
) -> Transaction {
    let delay = parameters.as_holder_broadcastable().contest_delay();
    htlc_transaction(delay, commitment, htlc)
}

/// The same for a commitment of the peer's.
fn peer_htlc_transaction(
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
fn htlc_sighash(
    commitment: &CommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
    transaction: &Transaction,
) -> Result<Message, Refused> {
    let trusted = commitment.trust();
    let features = trusted.channel_type_features();
    let script = get_htlc_redeemscript(htlc, features, trusted.keys());
    let kind = match zero_fee_htlcs(features) {
        true => EcdsaSighashType::SinglePlusAnyoneCanPay,
        false => EcdsaSighashType::All,
    };
    p2wsh_sighash(transaction, 0, &script, htlc.to_bitcoin_amount(), kind)
}

/// The BIP 143 sighash of `input`, which must be there.
pub(crate) fn p2wsh_sighash(
    transaction: &Transaction,
    input: usize,
    script: &bitcoin::Script,
    value: Amount,
    kind: EcdsaSighashType,
) -> Result<Message, Refused> {
    let sighash = SighashCache::new(transaction).p2wsh_signature_hash(input, script, value, kind);
    sighash
        .map(Message::from)
        .map_err(|_| Refused::malformed("the transaction has no such input"))
}

fn mismatch(what: &str) -> Refused {
    Refused::new(
        Rule::CommitmentMismatch,
        format!("the commitment is not the channel's: {what}"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::Txid;
    use bitcoin::hashes::Hash;
    use lightning::chain::transaction::OutPoint;
    use lightning::ln::chan_utils::CounterpartyChannelTransactionParameters;
    use lightning::sign::ecdsa::EcdsaChannelSigner;
    use lightning::sign::{ChannelSigner, KeysManager};
    use lightning::types::payment::PaymentHash;

    use super::*;

    #[test]
    fn the_peers_commitment_is_signed_as_by_ldks_own_signer() {
        let secp = Secp256k1::new();
        let keys =
            |byte| KeysManager::new(&[byte; 32], 0, 0, true).derive_channel_keys(&[byte; 32]);
        let (ours, theirs) = (keys(1), keys(2));
        for features in [
            ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
            ChannelTypeFeatures::only_static_remote_key(),
        ] {
            let parameters = ChannelTransactionParameters {
                holder_pubkeys: ours.pubkeys(&secp),
                holder_selected_contest_delay: 144,
                is_outbound_from_holder: true,
                counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                    pubkeys: theirs.pubkeys(&secp),
                    selected_contest_delay: 288,
                }),
                funding_outpoint: Some(OutPoint {
                    txid: Txid::from_byte_array([7; 32]),
                    index: 0,
                }),
                splice_parent_funding_txid: None,
                channel_type_features: features,
                channel_value_satoshis: 1_000_000,
            };
            let htlc = |byte: u8| HTLCOutputInCommitment {
                offered: byte.is_multiple_of(2),
                amount_msat: 50_000_000 + u64::from(byte),
                cltv_expiry: 500,
                payment_hash: PaymentHash([byte; 32]),
                transaction_output_index: None,
            };
            let commitment = CommitmentTransaction::new(
                FIRST_INDEX,
                &theirs.get_per_commitment_point(FIRST_INDEX, &secp).unwrap(),
                300_000,
                390_000,
                1000,
                (1..6).map(htlc).collect(),
                &parameters.as_counterparty_broadcastable(),
                &secp,
            );
            let by_ldk = ours
                .sign_counterparty_commitment(&parameters, &commitment, vec![], vec![], &secp)
                .unwrap();
            let by_us = sign_peer_commitment(&secp, &ours, &parameters, &commitment).unwrap();
            assert_eq!(by_us.0, by_ldk.0);
            assert_eq!(by_us.1.len(), 5);
            assert_eq!(by_us.1, by_ldk.1);
        }
    }
}
