//! Closes of channels, and the transactions that follow on chain (BOLT 5).

use bitcoin::absolute::LockTime;
use bitcoin::consensus::deserialize;
use bitcoin::secp256k1::{Message, PublicKey, SecretKey};
use bitcoin::{Amount, EcdsaSighashType, OutPoint, ScriptBuf, Transaction, TxOut};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, ClosingTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction, TxCreationKeys, get_htlc_redeemscript,
    get_keyed_anchor_redeemscript, get_revokeable_redeemscript,
};
use lightning::ln::types::ChannelId;
use lightning::sign::{HTLCDescriptor, SpendableOutputDescriptor};
use longhand_proto::signer as proto;

use super::KeysId;
use crate::commitment::{funding_script, p2wsh_sighash, read};
use crate::engine::Signer;
use crate::ledger::Channel;
use crate::rules::Refused;

/// The value of a keyed anchor output (BOLT 3).
const ANCHOR: Amount = Amount::from_sat(330);

/// A cooperative close of one of the channel's balances, within its capacity.
pub(crate) struct Closing<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub channel_id: ChannelId,
    pub to_holder_sat: u64,
    /// Of the transaction.
    pub fee_sat: u64,
    pub to_holder_script: ScriptBuf,
    /// The position of that script in the owner's wallet, as the host says.
    pub to_holder_position: (u32, u32),
    /// Of the transaction, rebuilt.
    pub sighash: Message,
}

/// The owner's commitment, for broadcast.
pub(crate) struct Broadcast<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub commitment: HolderCommitmentTransaction,
}

/// The second stage of an HTLC on the owner's commitment.
pub(crate) struct HolderHtlc<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub transaction: Transaction,
    pub input: usize,
    pub descriptor: HTLCDescriptor,
}

/// A spend of an HTLC on a commitment of the peer's.
pub(crate) struct CounterpartyHtlc<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    /// The commitment's.
    pub point: PublicKey,
    pub htlc: HTLCOutputInCommitment,
    pub claim: Claim,
}

/// A spend of an output of a revoked commitment.
pub(crate) struct Justice<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    /// The commitment's per-commitment secret and point.
    pub secret: SecretKey,
    pub point: PublicKey,
    pub claim: Claim,
}

/// A transaction that takes outputs of a peer's commitment to the owner's wallet.
pub(crate) struct Claim {
    pub transaction: Transaction,
    pub input: usize,
    /// Of the output that the input spends.
    pub value: Amount,
    /// The position of the script that is paid in the owner's wallet, as the host says.
    pub position: (u32, u32),
    pub sighash: Message,
}

/// A spend of the owner's anchor.
pub(crate) struct Anchor {
    pub keys_id: KeysId,
    pub sighash: Message,
}

/// The transaction that brings outputs of closed channels into the on-chain wallet.
pub(crate) struct Sweep {
    pub script: ScriptBuf,
    /// The position of that script in the owner's wallet, as the host says.
    pub position: (u32, u32),
    /// `None` when an output is not the owner's, or does not pay its fee.
    ///
    /// Signed, because LDK compares an output with the owner's keys only while it signs. It leaves the phone when it is judged.
    pub transaction: Option<Transaction>,
    /// Sum of the outputs that are swept.
    pub value: Amount,
}

impl Claim {
    /// A claim of an output with this script and value by an input of a transaction.
    fn new(
        (transaction, input): (Transaction, usize),
        script: &ScriptBuf,
        value_sat: u64,
        position: (u32, u32),
    ) -> Result<Claim, Refused> {
        let value = Amount::from_sat(value_sat);
        Ok(Claim {
            sighash: sighash(&transaction, input, script, value)?,
            transaction,
            input,
            value,
            position,
        })
    }
}

impl Signer {
    pub(super) fn read_closing(
        &self,
        keys_id: KeysId,
        op: &proto::SignClosing,
    ) -> Result<Closing<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let parameters = &channel.parameters;
        let outpoint = funding_outpoint(parameters, &op.funding_outpoint)?;
        let total = op.to_holder_sat.checked_add(op.to_counterparty_sat);
        if total.is_none_or(|total| total > parameters.channel_value_satoshis) {
            return Err(Refused::malformed(
                "the close pays out more than the channel holds",
            ));
        }
        let channel_id = channel.id().ok_or_else(no_funding)?;
        let to_holder_script = ScriptBuf::from_bytes(op.to_holder_script.clone());
        let closing = ClosingTransaction::new(
            op.to_holder_sat,
            op.to_counterparty_sat,
            to_holder_script.clone(),
            ScriptBuf::from_bytes(op.to_counterparty_script.clone()),
            outpoint,
        );
        let funding = funding_script(parameters).ok_or_else(no_peer)?;
        Ok(Closing {
            keys_id,
            channel,
            channel_id,
            to_holder_sat: op.to_holder_sat,
            fee_sat: parameters.channel_value_satoshis - total.unwrap_or(0),
            to_holder_script,
            to_holder_position: (op.to_holder_keychain, op.to_holder_index),
            sighash: closing
                .trust()
                .get_sighash_all(&funding, parameters.channel_value_satoshis),
        })
    }

    pub(super) fn read_broadcast(
        &self,
        keys_id: KeysId,
        op: &proto::SignHolderCommitment,
    ) -> Result<Broadcast<'_>, Refused> {
        Ok(Broadcast {
            keys_id,
            channel: self.channel(&keys_id)?,
            commitment: read(&op.commitment)?,
        })
    }

    pub(super) fn read_holder_htlc(
        &self,
        keys_id: KeysId,
        op: &proto::SignHolderHtlc,
    ) -> Result<HolderHtlc<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        Ok(HolderHtlc {
            keys_id,
            channel,
            transaction,
            input,
            descriptor: read(&op.descriptor)?,
        })
    }

    pub(super) fn read_counterparty_htlc(
        &self,
        keys_id: KeysId,
        op: &proto::SignCounterpartyHtlc,
    ) -> Result<CounterpartyHtlc<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let parameters = &channel.parameters;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        let point = PublicKey::from_slice(&op.per_commitment_point)
            .map_err(|_| Refused::malformed("the per-commitment point is not a public key"))?;
        let htlc: HTLCOutputInCommitment = read(&op.htlc)?;
        let keys = self.counterparty_keys(parameters, &point)?;
        let script = get_htlc_redeemscript(&htlc, &parameters.channel_type_features, &keys);
        Ok(CounterpartyHtlc {
            keys_id,
            channel,
            point,
            htlc,
            claim: Claim::new(
                (transaction, input),
                &script,
                op.amount_sat,
                (op.keychain, op.index),
            )?,
        })
    }

    pub(super) fn read_justice(
        &self,
        keys_id: KeysId,
        op: &proto::SignJustice,
    ) -> Result<Justice<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let parameters = &channel.parameters;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        let secret = SecretKey::from_slice(&op.per_commitment_secret)
            .map_err(|_| Refused::malformed("the per-commitment secret is not a key"))?;
        let point = PublicKey::from_secret_key(&self.keys.secp, &secret);
        let keys = self.counterparty_keys(parameters, &point)?;
        let script = match &op.htlc[..] {
            [] => get_revokeable_redeemscript(
                &keys.revocation_key,
                parameters.holder_selected_contest_delay,
                &keys.broadcaster_delayed_payment_key,
            ),
            htlc => get_htlc_redeemscript(&read(htlc)?, &parameters.channel_type_features, &keys),
        };
        Ok(Justice {
            keys_id,
            channel,
            secret,
            point,
            claim: Claim::new(
                (transaction, input),
                &script,
                op.amount_sat,
                (op.keychain, op.index),
            )?,
        })
    }

    pub(super) fn read_anchor(
        &self,
        keys_id: KeysId,
        op: &proto::SignAnchor,
    ) -> Result<Anchor, Refused> {
        let parameters = &self.channel(&keys_id)?.parameters;
        let (transaction, input) = transaction(&op.transaction, op.input)?;
        let script = get_keyed_anchor_redeemscript(&parameters.holder_pubkeys.funding_pubkey);
        Ok(Anchor {
            keys_id,
            sighash: sighash(&transaction, input, &script, ANCHOR)?,
        })
    }

    pub(super) fn read_sweep(&self, op: &proto::SpendOutputs) -> Result<Sweep, Refused> {
        let descriptors: Result<Vec<SpendableOutputDescriptor>, Refused> =
            op.descriptors.iter().map(|bytes| read(bytes)).collect();
        let descriptors = descriptors?;
        let is_money = |descriptor| output(descriptor).value <= Amount::MAX_MONEY;
        if descriptors.is_empty() || !descriptors.iter().all(is_money) {
            return Err(Refused::malformed(
                "there is nothing to sweep, or more than there is money",
            ));
        }
        let script = ScriptBuf::from_bytes(op.change_script.clone());
        let values = descriptors.iter().map(|it| output(it).value);
        let value = values.fold(Amount::ZERO, |sum, value| {
            sum.checked_add(value).unwrap_or(Amount::MAX_MONEY)
        });
        Ok(Sweep {
            value,
            position: (op.change_keychain, op.change_index),
            transaction: self.sweep(&descriptors, script.clone(), op),
            script,
        })
    }

    fn sweep(
        &self,
        descriptors: &[SpendableOutputDescriptor],
        script: ScriptBuf,
        op: &proto::SpendOutputs,
    ) -> Option<Transaction> {
        let descriptors: Vec<&SpendableOutputDescriptor> = descriptors.iter().collect();
        let secp = &self.keys.secp;
        let (psbt, _) = SpendableOutputDescriptor::create_spendable_outputs_psbt(
            secp,
            &descriptors,
            Vec::new(),
            script,
            op.feerate_sat_per_kw,
            Some(LockTime::from_consensus(op.locktime)),
        )
        .ok()?;
        if psbt.unsigned_tx.output.is_empty() {
            return None;
        }
        let ldk = self.keys.deterministic_ldk();
        let signed = ldk.sign_spendable_outputs_psbt(&descriptors, psbt, secp);
        Some(signed.ok()?.extract_tx_unchecked_fee_rate())
    }

    /// The keys of the peer's commitment with this point.
    fn counterparty_keys(
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

/// The funding outpoint, which must be the channel's.
fn funding_outpoint(
    parameters: &ChannelTransactionParameters,
    bytes: &[u8],
) -> Result<OutPoint, Refused> {
    let outpoint: OutPoint = deserialize(bytes)
        .map_err(|_| Refused::malformed("the funding outpoint cannot be read"))?;
    let funding = parameters.funding_outpoint;
    if funding.map(|funding| funding.into_bitcoin_outpoint()) != Some(outpoint) {
        return Err(Refused::malformed(
            "the funding outpoint is not this channel's",
        ));
    }
    Ok(outpoint)
}

fn transaction(bytes: &[u8], input: u32) -> Result<(Transaction, usize), Refused> {
    let transaction =
        deserialize(bytes).map_err(|_| Refused::malformed("the transaction cannot be read"))?;
    let input = usize::try_from(input).map_err(|_| no_input())?;
    Ok((transaction, input))
}

fn sighash(
    transaction: &Transaction,
    input: usize,
    script: &ScriptBuf,
    value: Amount,
) -> Result<Message, Refused> {
    p2wsh_sighash(transaction, input, script, value, EcdsaSighashType::All).ok_or_else(no_input)
}

fn output(descriptor: &SpendableOutputDescriptor) -> &TxOut {
    match descriptor {
        SpendableOutputDescriptor::StaticOutput { output, .. } => output,
        SpendableOutputDescriptor::DelayedPaymentOutput(descriptor) => &descriptor.output,
        SpendableOutputDescriptor::StaticPaymentOutput(descriptor) => &descriptor.output,
    }
}

fn no_input() -> Refused {
    Refused::malformed("the transaction has no such input")
}

fn no_funding() -> Refused {
    Refused::malformed("the channel's funding is missing")
}

fn no_peer() -> Refused {
    Refused::malformed("the peer's keys are missing")
}
