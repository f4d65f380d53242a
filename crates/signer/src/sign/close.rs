//! Closes of channels, and the transactions that follow on chain (BOLT 5).

use bitcoin::EcdsaSighashType;
use bitcoin::secp256k1::{Message, SecretKey};
use lightning::ln::chan_utils::{
    derive_private_key, derive_private_revocation_key, get_htlc_redeemscript,
};

use super::{Fault, Signed};
use crate::commitment::{funding_script, p2wsh_sighash};
use crate::engine::{Answer, Change, Signer};
use crate::ledger::{Channel, entry};
use crate::proposal::{Broadcast, Closing, CounterpartyHtlc, HolderHtlc, Justice, KeysId, Sweep};

pub(super) fn sweep(sweep: &Sweep) -> Result<Answer, Fault> {
    let transaction = sweep.transaction.as_ref();
    let transaction = transaction.ok_or(Fault("there is no sweep"))?;
    Ok(Answer::Transaction(bitcoin::consensus::serialize(
        transaction,
    )))
}

impl Signer {
    pub(super) fn sign_broadcast(&self, it: &Broadcast<'_>) -> Signed {
        let parameters = &it.channel.parameters;
        let funding = funding_script(parameters).ok_or(Fault("the peer's keys are missing"))?;
        let index = it.commitment.commitment_number();
        // The one on record, which was checked when it was validated.
        let commitment = it.channel.holder_at(index);
        let commitment = commitment.ok_or(Fault("the holder commitment is not on record"))?;
        let sighash = commitment
            .trust()
            .built_transaction()
            .get_sighash_all(&funding, parameters.channel_value_satoshis);
        let answer = self.sign_with_funding_key(&it.keys_id, &sighash);
        Ok((answer, signed_for_broadcast(it.keys_id, it.channel, index)))
    }

    pub(super) fn sign_holder_htlc(&self, it: &HolderHtlc<'_>) -> Signed {
        let index = it.descriptor.per_commitment_number;
        let commitment = it.channel.holder_at(index);
        let trusted = commitment
            .ok_or(Fault("the holder commitment is not on record"))?
            .trust();
        let (htlc, keys) = (&it.descriptor.htlc, trusted.keys());
        let features = &it.channel.parameters.channel_type_features;
        let script = get_htlc_redeemscript(htlc, features, keys);
        let sighash = p2wsh_sighash(
            &it.transaction,
            it.input,
            &script,
            htlc.to_bitcoin_amount(),
            EcdsaSighashType::All,
        )
        .ok_or(Fault("the transaction has no such input"))?;
        let base = self.keys.channel(&it.keys_id).htlc_base_key;
        let key = derive_private_key(&self.keys.secp, &keys.per_commitment_point, &base);
        Ok((
            self.sign_ecdsa(&sighash, &key),
            signed_for_broadcast(it.keys_id, it.channel, index),
        ))
    }

    pub(super) fn sign_counterparty_htlc(&self, it: &CounterpartyHtlc<'_>) -> Answer {
        let base = self.keys.channel(&it.keys_id).htlc_base_key;
        let key = derive_private_key(&self.keys.secp, &it.point, &base);
        self.sign_ecdsa(&it.claim.sighash, &key)
    }

    /// The point is recorded: no later commitment may have it.
    pub(super) fn sign_justice(&self, it: &Justice<'_>) -> (Answer, Vec<Change>) {
        let base = self.keys.channel(&it.keys_id).revocation_base_key;
        let key = derive_private_revocation_key(&self.keys.secp, &it.secret, &base);
        let answer = self.sign_ecdsa(&it.claim.sighash, &key);
        let signed = entry::JusticeSigned {
            keys_id: it.keys_id.to_vec(),
            point: it.point.serialize().to_vec(),
        };
        let is_new = !it.channel.punished.contains(&it.point);
        let changes = is_new.then_some(Change::JusticeSigned(signed));
        (answer, changes.into_iter().collect())
    }

    /// The channel ends with it: no commitment and no preimage follows.
    pub(super) fn sign_closing(&self, it: &Closing<'_>) -> (Answer, Vec<Change>) {
        let answer = self.sign_with_funding_key(&it.keys_id, &it.sighash);
        let signed = entry::ClosingSigned {
            keys_id: it.keys_id.to_vec(),
        };
        let changes = (!it.channel.is_closing).then_some(Change::ClosingSigned(signed));
        (answer, changes.into_iter().collect())
    }

    pub(super) fn sign_with_funding_key(&self, keys_id: &KeysId, sighash: &Message) -> Answer {
        self.sign_ecdsa(sighash, &self.keys.channel(keys_id).funding_key(None))
    }

    fn sign_ecdsa(&self, sighash: &Message, key: &SecretKey) -> Answer {
        let signature = self.keys.secp.sign_ecdsa_low_r(sighash, key);
        Answer::Signature(signature.serialize_compact().to_vec())
    }
}

/// Records that `index` was signed for broadcast: its secret and all after it stay on the phone.
fn signed_for_broadcast(keys_id: KeysId, channel: &Channel, index: u64) -> Vec<Change> {
    if channel.broadcast.is_some_and(|signed| signed >= index) {
        return Vec::new();
    }
    vec![Change::HolderSigned(entry::ChannelIndex {
        keys_id: keys_id.to_vec(),
        index,
    })]
}
