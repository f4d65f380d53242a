//! Signatures that punish a breach, with the delegated revocation basepoint secret (BOLT 5).
//!
//! The secret spends the outputs of a revoked commitment that a peer has broadcast, and nothing of the owner's balance.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Amount, ScriptBuf, Transaction};
use lightning::ln::chan_utils::{
    self, ChannelTransactionParameters, HTLCOutputInCommitment, TxCreationKeys,
};

/// One output of a revoked commitment, as an input of the transaction that takes it.
pub(crate) struct RevokedOutput<'a> {
    pub parameters: &'a ChannelTransactionParameters,
    pub justice_tx: &'a Transaction,
    pub input: usize,
    pub amount_sat: u64,
    pub per_commitment_key: &'a SecretKey,
    /// `None` for the peer's `to_local`.
    pub htlc: Option<&'a HTLCOutputInCommitment>,
}

/// Signs the input that takes `output`.
pub(crate) fn sign(
    output: &RevokedOutput<'_>,
    revocation_basepoint_secret: &SecretKey,
    secp: &Secp256k1<All>,
) -> Option<Signature> {
    let point = PublicKey::from_secret_key(secp, output.per_commitment_key);
    let script = witness_script(output, &point, secp)?;
    let key = chan_utils::derive_private_revocation_key(
        secp,
        output.per_commitment_key,
        revocation_basepoint_secret,
    );
    let sighash = SighashCache::new(output.justice_tx)
        .p2wsh_signature_hash(
            output.input,
            &script,
            Amount::from_sat(output.amount_sat),
            EcdsaSighashType::All,
        )
        .ok()?;
    Some(secp.sign_ecdsa(&Message::from(sighash), &key))
}

fn witness_script(
    output: &RevokedOutput<'_>,
    point: &PublicKey,
    secp: &Secp256k1<All>,
) -> Option<ScriptBuf> {
    let parameters = output.parameters;
    if !parameters.is_populated() {
        return None;
    }
    let directed = parameters.as_counterparty_broadcastable();
    let keys = TxCreationKeys::from_channel_static_keys(
        point,
        directed.broadcaster_pubkeys(),
        directed.countersignatory_pubkeys(),
        secp,
    );
    Some(match output.htlc {
        None => chan_utils::get_revokeable_redeemscript(
            &keys.revocation_key,
            directed.contest_delay(),
            &keys.broadcaster_delayed_payment_key,
        ),
        Some(htlc) => {
            chan_utils::get_htlc_redeemscript(htlc, &parameters.channel_type_features, &keys)
        }
    })
}
