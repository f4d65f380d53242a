//! Transactions of the on-chain wallet.

use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{EcdsaSighashType, TapSighashType, Transaction, TxOut, Witness, ecdsa, taproot};

use super::{Fault, Signed};
use crate::engine::{Answer, Change, Signer};
use crate::intents::OnchainIntent;
use crate::keys::{Account, WalletKey};
use crate::ledger::KnownChannelIntent;
use crate::proposal::{OnChain, OwnInput, Spent};
use crate::rules::within_limit;

const LACKS: Fault = Fault("the PSBT does not say what its inputs spend");

impl Signer {
    /// Signs every input that is the phone's (P2WPKH of BIP 84, P2TR key path of BIP 86), and finalizes it.
    pub(super) fn sign_psbt(&self, it: OnChain<'_>) -> Signed {
        let witnesses = it.own.iter().map(|input| self.witness(&it, input));
        let witnesses = witnesses.collect::<Result<Vec<_>, Fault>>()?;
        let sent = self.signed_for(&it).into_iter();
        let changes = sent.chain(self.funded(&it)).collect();
        let OnChain { mut psbt, own, .. } = it;
        for (input, witness) in own.iter().zip(witnesses) {
            let input = psbt.inputs.get_mut(input.index).ok_or(LACKS)?;
            input.partial_sigs.clear();
            input.tap_key_sig = None;
            input.final_script_witness = Some(witness);
        }
        Ok((Answer::Psbt(psbt.serialize()), changes))
    }

    /// Records the intent that a payment is signed for, when it was not signed for before.
    fn signed_for(&self, it: &OnChain<'_>) -> Option<Change> {
        let intent = within_limit(self.limits(), it).filter(|intent| intent.spends.is_none())?;
        let inputs = &it.psbt.unsigned_tx.input;
        let signed_for = OnchainIntent {
            spends: inputs.first().map(|input| input.previous_output),
            ..intent.clone()
        };
        Some(Change::OnchainIntent((&signed_for).into()))
    }

    /// Records the openings that a funding is signed for, when they were not signed for before.
    fn funded(&self, it: &OnChain<'_>) -> Vec<Change> {
        let new = it.funds.iter().filter_map(|channel| {
            let mut openings = it.openings.iter();
            let opening = openings.find(|opening| opening.is_of(channel))?;
            opening.spends.is_none().then_some(*opening)
        });
        let inputs = &it.psbt.unsigned_tx.input;
        let funded = |opening: &KnownChannelIntent| KnownChannelIntent {
            spends: inputs.first().map(|input| input.previous_output),
            ..opening.clone()
        };
        let funded = new.map(|opening| Change::ChannelIntent((&funded(opening)).into()));
        funded.collect()
    }

    fn witness(&self, it: &OnChain<'_>, input: &OwnInput) -> Result<Witness, Fault> {
        let key = self.keys.wallet_key(&input.address);
        let key = key.ok_or(Fault("the key of an input cannot be derived"))?;
        let tx = &it.psbt.unsigned_tx;
        match input.address.account {
            Account::Bip84 => {
                let spent = it.spent.get(input.index).and_then(Spent::known);
                self.p2wpkh_witness(tx, input.index, &key, spent.ok_or(LACKS)?)
            }
            Account::Bip86 => {
                let spent: Option<Vec<&TxOut>> = it.spent.iter().map(Spent::known).collect();
                self.p2tr_witness(tx, input.index, &key, &spent.ok_or(LACKS)?)
            }
        }
    }

    fn p2wpkh_witness(
        &self,
        tx: &Transaction,
        index: usize,
        key: &WalletKey,
        spent: &TxOut,
    ) -> Result<Witness, Fault> {
        let secp = &self.keys.secp;
        let sighash = SighashCache::new(tx)
            .p2wpkh_signature_hash(
                index,
                &spent.script_pubkey,
                spent.value,
                EcdsaSighashType::All,
            )
            .map_err(|_| LACKS)?;
        let signature = secp.sign_ecdsa_low_r(&Message::from(sighash), &key.secret);
        Ok(Witness::p2wpkh(
            &ecdsa::Signature::sighash_all(signature),
            &key.secret.public_key(secp),
        ))
    }

    fn p2tr_witness(
        &self,
        tx: &Transaction,
        index: usize,
        key: &WalletKey,
        spent: &[&TxOut],
    ) -> Result<Witness, Fault> {
        let secp = &self.keys.secp;
        let sighash_type = TapSighashType::Default;
        let sighash = SighashCache::new(tx)
            .taproot_key_spend_signature_hash(index, &Prevouts::All(spent), sighash_type)
            .map_err(|_| LACKS)?;
        let keys = key.taproot_keypair(secp);
        let signature = secp.sign_schnorr_no_aux_rand(&Message::from(sighash), &keys);
        Ok(Witness::p2tr_key_spend(&taproot::Signature {
            signature,
            sighash_type,
        }))
    }
}
