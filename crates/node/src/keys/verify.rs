//! The phone's signatures, verified before they are sent to a peer: a wrong one would cost the channel.

use bitcoin::Amount;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
    build_htlc_transaction, get_htlc_redeemscript, make_funding_redeemscript,
};
use rayon::prelude::*;

/// Verifies the signatures of a peer's commitment and of each HTLC that has an output in it, in order (BOLT 3).
pub(crate) fn commitment(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
    signature: &Signature,
    htlc_signatures: &[Signature],
    secp: &Secp256k1<All>,
) -> Option<()> {
    let script = funding_script(parameters)?;
    let trusted = commitment.trust();
    let built = trusted.built_transaction();
    let sighash = built.get_sighash_all(&script, parameters.channel_value_satoshis);
    let holder = &parameters.holder_pubkeys.funding_pubkey;
    secp.verify_ecdsa(&sighash, signature, holder).ok()?;
    if htlc_signatures.len() != commitment.nondust_htlcs().len() {
        return None;
    }
    let (keys, features) = (trusted.keys(), &parameters.channel_type_features);
    let anchors = features.supports_anchors_zero_fee_htlc_tx()
        || features.supports_anchor_zero_fee_commitments();
    let sighash_type = if anchors {
        EcdsaSighashType::SinglePlusAnyoneCanPay
    } else {
        EcdsaSighashType::All
    };
    // Every payment waits for this, so it runs on all cores.
    let htlcs = commitment.nondust_htlcs().par_iter();
    let pairs = htlcs.zip(htlc_signatures);
    pairs.try_for_each(|(htlc, signature)| {
        let transaction = build_htlc_transaction(
            &built.txid,
            commitment.negotiated_feerate_per_kw(),
            parameters.holder_selected_contest_delay,
            htlc,
            features,
            &keys.broadcaster_delayed_payment_key,
            &keys.revocation_key,
        );
        let script = get_htlc_redeemscript(htlc, features, keys);
        let amount = Amount::from_sat(htlc.amount_msat / 1000);
        let sighash = SighashCache::new(&transaction)
            .p2wsh_signature_hash(0, &script, amount, sighash_type)
            .ok()?;
        let holder = keys.countersignatory_htlc_key.to_public_key();
        secp.verify_ecdsa(&Message::from(sighash), signature, &holder)
            .ok()
    })
}

/// Verifies the signature of a cooperative close (BOLT 2).
pub(crate) fn closing(
    parameters: &ChannelTransactionParameters,
    closing: &ClosingTransaction,
    signature: &Signature,
    secp: &Secp256k1<All>,
) -> Option<()> {
    let script = funding_script(parameters)?;
    let trusted = closing.trust();
    let sighash = trusted.get_sighash_all(&script, parameters.channel_value_satoshis);
    let holder = &parameters.holder_pubkeys.funding_pubkey;
    secp.verify_ecdsa(&sighash, signature, holder).ok()
}

/// Verifies the signature of a gossip message (BOLT 7); `message` is without its signatures.
pub(crate) fn gossip(message: &[u8], signature: &Signature, signer: &PublicKey) -> Option<()> {
    let digest = Message::from_digest(sha256d::Hash::hash(message).to_byte_array());
    Secp256k1::verification_only()
        .verify_ecdsa(&digest, signature, signer)
        .ok()
}

fn funding_script(parameters: &ChannelTransactionParameters) -> Option<bitcoin::ScriptBuf> {
    let counterparty = parameters.counterparty_pubkeys()?.funding_pubkey;
    let holder = parameters.holder_pubkeys.funding_pubkey;
    Some(make_funding_redeemscript(&holder, &counterparty))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::{ScriptBuf, Txid};
    use lightning::chain::transaction::OutPoint;
    use lightning::ln::chan_utils::{
        CounterpartyChannelTransactionParameters, HTLCOutputInCommitment,
    };
    use lightning::sign::ecdsa::EcdsaChannelSigner;
    use lightning::sign::{ChannelSigner, InMemorySigner, KeysManager};
    use lightning::types::features::ChannelTypeFeatures;
    use lightning::types::payment::PaymentHash;

    use super::*;

    /// The phone's side of a channel with anchors, with its keys.
    fn channel() -> (InMemorySigner, ChannelTransactionParameters, Secp256k1<All>) {
        let secp = Secp256k1::new();
        let keys =
            |byte| KeysManager::new(&[byte; 32], 0, 0, true).derive_channel_keys(&[byte; 32]);
        let (ours, theirs) = (keys(1), keys(2));
        let parameters = ChannelTransactionParameters {
            holder_pubkeys: ours.pubkeys(&secp),
            holder_selected_contest_delay: 144,
            is_outbound_from_holder: true,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: theirs.pubkeys(&secp),
                selected_contest_delay: 144,
            }),
            funding_outpoint: Some(OutPoint {
                txid: Txid::from_byte_array([7; 32]),
                index: 0,
            }),
            splice_parent_funding_txid: None,
            channel_type_features: ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
            channel_value_satoshis: 1_000_000,
        };
        (ours, parameters, secp)
    }

    fn with_two_htlcs(
        parameters: &ChannelTransactionParameters,
        secp: &Secp256k1<All>,
    ) -> CommitmentTransaction {
        let htlc = |byte: u8| HTLCOutputInCommitment {
            offered: true,
            amount_msat: 50_000_000,
            cltv_expiry: 500,
            payment_hash: PaymentHash([byte; 32]),
            transaction_output_index: None,
        };
        let point = parameters.holder_pubkeys.payment_point;
        CommitmentTransaction::new(
            (1 << 48) - 1,
            &point,
            400_000,
            490_000,
            1000,
            vec![htlc(1), htlc(2)],
            &parameters.as_counterparty_broadcastable(),
            secp,
        )
    }

    #[test]
    fn a_commitment_with_one_wrong_htlc_signature_is_not_sent() {
        let (keys, parameters, secp) = channel();
        let built = with_two_htlcs(&parameters, &secp);
        let (signature, htlcs) = keys
            .sign_counterparty_commitment(&parameters, &built, vec![], vec![], &secp)
            .unwrap();
        let check = |signature, htlcs: &[Signature]| {
            commitment(&parameters, &built, &signature, htlcs, &secp).is_some()
        };
        assert!(check(signature, &htlcs));
        assert!(!check(signature, &htlcs[..1]));
        assert!(!check(signature, &[htlcs[0], htlcs[0]]));
        assert!(!check(htlcs[0], &htlcs));
    }

    #[test]
    fn a_close_signed_over_other_amounts_is_not_sent() {
        let (keys, parameters, secp) = channel();
        let outpoint = parameters.funding_outpoint.unwrap().into_bitcoin_outpoint();
        let close = |to_holder_sat| {
            let script = || ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([3; 32]));
            ClosingTransaction::new(to_holder_sat, 500_000, script(), script(), outpoint)
        };
        let agreed = close(400_000);
        let sign = |closing: &ClosingTransaction| {
            keys.sign_closing_transaction(&parameters, closing, &secp)
                .unwrap()
        };
        assert!(closing(&parameters, &agreed, &sign(&agreed), &secp).is_some());
        assert!(closing(&parameters, &agreed, &sign(&close(399_000)), &secp).is_none());
    }
}
