//! Channel closes: cooperative and unilateral, and the transactions that follow on chain.
//!
//! All signatures are RFC 6979 without added entropy, so that a repeated operation gives the same ones.

use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{Message, PublicKey, SecretKey};
use bitcoin::{Amount, EcdsaSighashType, OutPoint, ScriptBuf, Transaction};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, ClosingTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction, TxCreationKeys, derive_private_key, derive_private_revocation_key,
    get_htlc_redeemscript, get_keyed_anchor_redeemscript, get_revokeable_redeemscript,
    make_funding_redeemscript,
};
use lightning::ln::types::ChannelId;
use lightning::sign::HTLCDescriptor;
use longhand_proto::signer as proto;

use crate::commitment::{holder_htlc_transaction, p2wsh_sighash, read, same};
use crate::engine::{Answer, Change, Signer};
use crate::ledger::{Channel, PeerCommitment, entry};
use crate::rules::{Refused, Rule};

/// The value of a keyed anchor output (BOLT 3).
const ANCHOR_SAT: u64 = 330;

type Answered = Result<(Answer, Vec<Change>), Refused>;

impl Signer {
    pub(crate) fn sign_closing(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignClosing,
    ) -> Result<Answer, Refused> {
        let parameters = &self.channel(&keys_id)?.parameters;
        let outpoint: OutPoint = deserialize(&op.funding_outpoint)
            .map_err(|_| Refused::malformed("the funding outpoint cannot be read"))?;
        if parameters
            .funding_outpoint
            .map(|funding| funding.into_bitcoin_outpoint())
            != Some(outpoint)
        {
            return Err(Refused::malformed(
                "the funding outpoint is not this channel's",
            ));
        }
        let total = op.to_holder_sat.checked_add(op.to_counterparty_sat);
        if total.is_none_or(|total| total > parameters.channel_value_satoshis) {
            return Err(Refused::malformed(
                "the close pays out more than the channel holds",
            ));
        }
        let to_holder_script = ScriptBuf::from_bytes(op.to_holder_script.clone());
        let channel_id = ChannelId::v1_from_funding_txid(
            &outpoint.txid.to_byte_array(),
            u16::try_from(outpoint.vout).map_err(|_| Refused::malformed("no such output"))?,
        );
        let is_owners = || {
            self.closes_to(&channel_id.0, &to_holder_script)
                || self.is_own_script(&to_holder_script, op.to_holder_keychain, op.to_holder_index)
        };
        if op.to_holder_sat > 0 && !is_owners() {
            let message = "the owner's part of the close would go to a script that is neither the owner's nor asked for";
            return Err(Refused::new(Rule::NotOurScript, message));
        }
        let closing = ClosingTransaction::new(
            op.to_holder_sat,
            op.to_counterparty_sat,
            to_holder_script,
            ScriptBuf::from_bytes(op.to_counterparty_script.clone()),
            outpoint,
        );
        let funding = funding_script(parameters)?;
        let sighash = closing
            .trust()
            .get_sighash_all(&funding, parameters.channel_value_satoshis);
        Ok(self.sign(sighash, &self.keys.channel(&keys_id).funding_key(None)))
    }

    pub(crate) fn sign_holder_commitment(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignHolderCommitment,
    ) -> Answered {
        let channel = self.channel(&keys_id)?;
        let asked: HolderCommitmentTransaction = read(&op.commitment)?;
        let holder = channel
            .holder
            .iter()
            .find(|holder| same(&holder.commitment, &asked))
            .ok_or_else(not_on_record)?;
        // The ledger's copy is signed, which was checked when it was validated.
        let funding = funding_script(&channel.parameters)?;
        let built = holder.commitment.trust();
        let sighash = built
            .built_transaction()
            .get_sighash_all(&funding, channel.parameters.channel_value_satoshis);
        let answer = self.sign(sighash, &self.keys.channel(&keys_id).funding_key(None));
        Ok((answer, signed_for_broadcast(keys_id, channel, holder.index)))
    }

    pub(crate) fn sign_holder_htlc(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignHolderHtlc,
    ) -> Answered {
        let channel = self.channel(&keys_id)?;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        let asked: HTLCDescriptor = read(&op.descriptor)?;
        let of_channel = asked.channel_derivation_parameters.keys_id == keys_id
            && asked.channel_derivation_parameters.transaction_parameters == channel.parameters;
        if !of_channel {
            return Err(Refused::new(
                Rule::NotOurOutput,
                "the HTLC is not of this channel",
            ));
        }
        let number = asked.per_commitment_number;
        let holder = channel
            .holder
            .iter()
            .find(|holder| holder.index == number)
            .ok_or_else(not_on_record)?;
        let trusted = holder.commitment.trust();
        let htlc = holder
            .commitment
            .nondust_htlcs()
            .iter()
            .find(|htlc| **htlc == asked.htlc);
        let htlc = htlc
            .filter(|_| trusted.txid() == asked.commitment_txid)
            .ok_or_else(not_on_record)?;

        let expected = holder_htlc_transaction(&channel.parameters, &holder.commitment, htlc);
        let pairs = transaction
            .input
            .get(input)
            .zip(transaction.output.get(input));
        let pays_owner = pairs.is_some_and(|(spent, paid)| {
            spent.previous_output == expected.input[0].previous_output
                && *paid == expected.output[0]
        });
        if !pays_owner {
            let message = "the transaction does not pay the HTLC to the owner's delayed key at the same position";
            return Err(Refused::new(Rule::NotOurOutput, message));
        }
        let script = get_htlc_redeemscript(
            htlc,
            &channel.parameters.channel_type_features,
            trusted.keys(),
        );
        let sighash = p2wsh_sighash(
            &transaction,
            input,
            &script,
            htlc.to_bitcoin_amount(),
            EcdsaSighashType::All,
        )?;
        let base = self.keys.channel(&keys_id).htlc_base_key;
        let key = derive_private_key(&self.keys.secp, &trusted.keys().per_commitment_point, &base);
        Ok((
            self.sign(sighash, &key),
            signed_for_broadcast(keys_id, channel, holder.index),
        ))
    }

    pub(crate) fn sign_counterparty_htlc(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignCounterpartyHtlc,
    ) -> Result<Answer, Refused> {
        let parameters = &self.channel(&keys_id)?.parameters;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        let point = PublicKey::from_slice(&op.per_commitment_point)
            .map_err(|_| Refused::malformed("the per-commitment point is not a public key"))?;
        let htlc: HTLCOutputInCommitment = read(&op.htlc)?;
        let keys = self.peer_keys(parameters, &point)?;
        let script = get_htlc_redeemscript(&htlc, &parameters.channel_type_features, &keys);
        let value = Amount::from_sat(op.amount_sat);
        let sighash = p2wsh_sighash(&transaction, input, &script, value, EcdsaSighashType::All)?;
        let key = derive_private_key(
            &self.keys.secp,
            &point,
            &self.keys.channel(&keys_id).htlc_base_key,
        );
        Ok(self.sign(sighash, &key))
    }

    pub(crate) fn sign_justice(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignJustice,
    ) -> Result<Answer, Refused> {
        let channel = self.channel(&keys_id)?;
        let parameters = &channel.parameters;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        let secret = SecretKey::from_slice(&op.per_commitment_secret)
            .map_err(|_| Refused::malformed("the per-commitment secret is not a key"))?;
        let point = PublicKey::from_secret_key(&self.keys.secp, &secret);
        // A peer that colludes with the host can reveal the secret of a commitment that it has not revoked, and broadcast it: its
        // HTLCs would be theirs.
        let in_force = |peer: &PeerCommitment| peer.commitment.per_commitment_point() == point;
        if channel.peer.iter().any(in_force) {
            let message = "the peer has not revoked this commitment";
            return Err(Refused::new(Rule::JusticeUnrevoked, message));
        }
        let keys = self.peer_keys(parameters, &point)?;
        let script = if op.htlc.is_empty() {
            let delay = parameters.holder_selected_contest_delay;
            get_revokeable_redeemscript(
                &keys.revocation_key,
                delay,
                &keys.broadcaster_delayed_payment_key,
            )
        } else {
            get_htlc_redeemscript(&read(&op.htlc)?, &parameters.channel_type_features, &keys)
        };
        let value = Amount::from_sat(op.amount_sat);
        let sighash = p2wsh_sighash(&transaction, input, &script, value, EcdsaSighashType::All)?;
        let base = self.keys.channel(&keys_id).revocation_base_key;
        Ok(self.sign(
            sighash,
            &derive_private_revocation_key(&self.keys.secp, &secret, &base),
        ))
    }

    pub(crate) fn sign_anchor(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignAnchor,
    ) -> Result<Answer, Refused> {
        let parameters = &self.channel(&keys_id)?.parameters;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        let script = get_keyed_anchor_redeemscript(&parameters.holder_pubkeys.funding_pubkey);
        let value = Amount::from_sat(ANCHOR_SAT);
        let sighash = p2wsh_sighash(&transaction, input, &script, value, EcdsaSighashType::All)?;
        Ok(self.sign(sighash, &self.keys.channel(&keys_id).funding_key(None)))
    }

    fn sign(&self, sighash: Message, key: &SecretKey) -> Answer {
        Answer::Signature(
            self.keys
                .secp
                .sign_ecdsa_low_r(&sighash, key)
                .serialize_compact()
                .to_vec(),
        )
    }

    /// The keys of the peer's commitment with this point.
    fn peer_keys(
        &self,
        parameters: &ChannelTransactionParameters,
        point: &PublicKey,
    ) -> Result<TxCreationKeys, Refused> {
        let peer = parameters.counterparty_pubkeys().ok_or_else(no_peer)?;
        Ok(TxCreationKeys::from_channel_static_keys(
            point,
            peer,
            &parameters.holder_pubkeys,
            &self.keys.secp,
        ))
    }
}

fn funding_script(parameters: &ChannelTransactionParameters) -> Result<ScriptBuf, Refused> {
    let peer = parameters.counterparty_pubkeys().ok_or_else(no_peer)?;
    Ok(make_funding_redeemscript(
        &parameters.holder_pubkeys.funding_pubkey,
        &peer.funding_pubkey,
    ))
}

/// Records that `index` was signed for broadcast: its secret and all after it stay on the phone.
fn signed_for_broadcast(keys_id: [u8; 32], channel: &Channel, index: u64) -> Vec<Change> {
    if channel.broadcast.is_some_and(|signed| signed >= index) {
        return Vec::new();
    }
    vec![Change::HolderSigned(entry::ChannelIndex {
        keys_id: keys_id.to_vec(),
        index,
    })]
}

fn transaction(bytes: &[u8], input: u32) -> Result<(Transaction, usize), Refused> {
    let transaction =
        deserialize(bytes).map_err(|_| Refused::malformed("the transaction cannot be read"))?;
    let input = usize::try_from(input)
        .map_err(|_| Refused::malformed("the transaction has no such input"))?;
    Ok((transaction, input))
}

fn not_on_record() -> Refused {
    Refused::new(
        Rule::SignRevoked,
        "the holder commitment is revoked, or was never validated here",
    )
}

fn no_peer() -> Refused {
    Refused::malformed("the peer's keys are missing")
}
