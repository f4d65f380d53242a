//! Higher fees for the wallet's own unconfirmed transactions: by a replacement (BIP 125), or by a child (CPFP).

use bdk_wallet::KeychainKind;
use bdk_wallet::error::{BuildFeeBumpError, CreateTxError};
use bitcoin::{Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, Txid};

use super::spend::{INPUT_WEIGHT, MAX_HEIGHT, WITNESS_WEIGHT, check_feerate, locktime};
use super::{BdkWallet, KEYCHAINS, WalletError};
use crate::wallet::{Replacement, SendAmount, WalletTransactions};

/// The fee rate of relay, in satoshis per 1,000 weight units.
const RELAY_SAT_PER_KW: u64 = 253;
/// A transaction with one output to the wallet, without its inputs.
const CHILD_WEIGHT: u64 = 4 * (11 + 43);

/// The fee of a draft.
enum FeePolicy {
    FeeRate(FeeRate),
    FeeAmount(Amount),
}

impl BdkWallet {
    pub(super) fn build_replacement(
        &mut self,
        txid: Txid,
        by: Replacement,
        feerate_sat_per_kw: u32,
    ) -> Result<Psbt, WalletError> {
        check_feerate(feerate_sat_per_kw)?;
        let old = self.pending_own(txid)?;
        if self.has_child(&old) {
            return Err(WalletError::HasChild);
        }
        let fee = self.bdk.calculate_fee(&old);
        let old_fee_sat = fee.map_err(|_| WalletError::NotReplaceable)?.to_sat();
        let back = match by {
            Replacement::ToWallet => Some(self.bdk.next_unused_address(KEYCHAINS[1])),
            Replacement::Payment(..) => None,
        };
        let to = back.as_ref().map(|back| back.script_pubkey());
        let rate = FeePolicy::FeeRate(FeeRate::from_sat_per_kwu(feerate_sat_per_kw.into()));
        let mut psbt = self.draft(&old, &by, to.clone(), rate)?;
        // It pays for its own relay beside the fee of the old one (BIP 125, rules 3 and 4), which may be heavier.
        let weight = psbt.unsigned_tx.weight().to_wu() + WITNESS_WEIGHT * psbt.inputs.len() as u64;
        let least_sat = old_fee_sat.saturating_add(RELAY_SAT_PER_KW * weight / 1_000 + 1);
        let fee_sat = psbt.fee().map_or(0, |fee| fee.to_sat());
        if fee_sat < least_sat {
            let least = FeePolicy::FeeAmount(Amount::from_sat(least_sat));
            psbt = self.draft(&old, &by, to, least)?;
        }
        if let Some(back) = back {
            self.bdk.mark_used(back.keychain, back.index);
        }
        self.lock_inputs(&psbt);
        Ok(psbt)
    }

    fn draft(
        &mut self,
        old: &Transaction,
        by: &Replacement,
        back: Option<ScriptBuf>,
        fee: FeePolicy,
    ) -> Result<Psbt, WalletError> {
        let change = self.change_of(old);
        let height = self.tip.height;
        let spent: Vec<OutPoint> = old.input.iter().map(|it| it.previous_output).collect();
        let mut unspendable = self.unspendable();
        unspendable.retain(|outpoint| !spent.contains(outpoint));
        let builder = self.bdk.build_fee_bump(old.compute_txid());
        let mut builder = builder.map_err(not_replaceable)?;
        match by {
            // The recipients are those of the old one, without its change.
            Replacement::Payment(_, SendAmount::Exact(_)) => {
                builder.unspendable(unspendable);
            }
            Replacement::Payment(payee, SendAmount::All) => {
                builder.set_recipients(change.into_iter().collect());
                builder.drain_to(payee.clone()).manually_selected_only();
            }
            Replacement::ToWallet => {
                builder.set_recipients(Vec::new()).manually_selected_only();
                if let Some(back) = back {
                    builder.drain_to(back);
                }
            }
        }
        match fee {
            FeePolicy::FeeRate(rate) => builder.fee_rate(rate),
            FeePolicy::FeeAmount(amount) => builder.fee_absolute(amount),
        };
        builder
            .set_exact_sequence(Sequence::ENABLE_RBF_NO_LOCKTIME)
            .nlocktime(locktime(height))
            .current_height(height.min(MAX_HEIGHT));
        builder.finish().map_err(fee_error)
    }

    /// Whether a transaction that counts spends an output of this one: it would be gone with it.
    fn has_child(&self, tx: &Transaction) -> bool {
        let txid = tx.compute_txid();
        let mut outputs = (0..).zip(&tx.output);
        outputs.any(|(vout, _)| self.is_spent(OutPoint { txid, vout }))
    }

    pub(super) fn build_child(
        &mut self,
        txid: Txid,
        feerate_sat_per_kw: u32,
    ) -> Result<Psbt, WalletError> {
        check_feerate(feerate_sat_per_kw)?;
        let parent = self.pending_own(txid)?;
        let fee = self.bdk.calculate_fee(&parent);
        let parent_fee_sat = fee.map_err(|_| WalletError::NotReplaceable)?.to_sat();
        let outputs = self.unspent_outputs(txid);
        if outputs.is_empty() {
            return Err(WalletError::NotReplaceable);
        }
        let child_weight = CHILD_WEIGHT + INPUT_WEIGHT * outputs.len() as u64;
        let weight = parent.weight().to_wu().saturating_add(child_weight);
        let wanted_sat = u64::from(feerate_sat_per_kw).saturating_mul(weight) / 1_000;
        let own_sat = u64::from(feerate_sat_per_kw).saturating_mul(child_weight) / 1_000;
        let fee_sat = wanted_sat.saturating_sub(parent_fee_sat);
        if fee_sat < own_sat {
            let sat_per_kw = rate_sat_per_kw(parent_fee_sat, &parent);
            return Err(WalletError::FeeTooLow { sat_per_kw });
        }
        let back = self.bdk.next_unused_address(KEYCHAINS[1]);
        let height = self.tip.height;
        let mut builder = self.bdk.build_tx();
        builder
            .add_utxos(&outputs)
            .map_err(|error| WalletError::Build(error.to_string()))?
            .manually_selected_only()
            .drain_to(back.script_pubkey())
            .fee_absolute(Amount::from_sat(fee_sat))
            .set_exact_sequence(Sequence::ENABLE_RBF_NO_LOCKTIME)
            .nlocktime(locktime(height));
        let psbt = builder.finish().map_err(fee_error)?;
        self.bdk.mark_used(back.keychain, back.index);
        self.lock_inputs(&psbt);
        Ok(psbt)
    }

    pub(super) fn pending_feerate(&self, txid: Txid) -> Option<u32> {
        let tx = self.pending_own(txid).ok()?;
        let fee = self.bdk.calculate_fee(&tx).ok()?;
        Some(rate_sat_per_kw(fee.to_sat(), &tx))
    }

    fn pending_own(&self, txid: Txid) -> Result<Transaction, WalletError> {
        let known = self.bdk.get_tx(txid);
        let pending = known.filter(|tx| !tx.chain_position.is_confirmed());
        match pending {
            Some(tx) if self.is_wholly_own(txid) => Ok(tx.tx_node.tx.as_ref().clone()),
            _ => Err(WalletError::NotReplaceable),
        }
    }

    /// The output of a payment that went back to the wallet's change keychain.
    fn change_of(&self, tx: &Transaction) -> Option<(ScriptBuf, Amount)> {
        let is_change = |script: &ScriptBuf| {
            let path = self.bdk.derivation_of_spk(script.clone());
            path.is_some_and(|(keychain, _)| keychain == KeychainKind::Internal)
        };
        let mut outputs = tx.output.iter();
        let change = outputs.find(|output| is_change(&output.script_pubkey))?;
        (tx.output.len() > 1).then(|| (change.script_pubkey.clone(), change.value))
    }

    fn unspent_outputs(&self, txid: Txid) -> Vec<OutPoint> {
        let unspent = self.unspent().map(|(_, output)| output.outpoint);
        let of_tx = unspent.filter(|outpoint| outpoint.txid == txid);
        of_tx
            .filter(|outpoint| !self.bdk.is_outpoint_locked(*outpoint))
            .collect()
    }

    fn lock_inputs(&mut self, psbt: &Psbt) {
        for input in &psbt.unsigned_tx.input {
            self.bdk.lock_outpoint(input.previous_output);
        }
    }
}

fn rate_sat_per_kw(fee_sat: u64, tx: &Transaction) -> u32 {
    let rate = fee_sat.saturating_mul(1_000) / tx.weight().to_wu().max(1);
    u32::try_from(rate).unwrap_or(u32::MAX)
}

fn not_replaceable(_: BuildFeeBumpError) -> WalletError {
    WalletError::NotReplaceable
}

fn fee_error(error: CreateTxError) -> WalletError {
    match error {
        CreateTxError::FeeRateTooLow { required } => {
            let sat_per_kw = u32::try_from(required.to_sat_per_kwu()).unwrap_or(u32::MAX);
            WalletError::FeeTooLow { sat_per_kw }
        }
        CreateTxError::CoinSelection(error) => WalletError::InsufficientFunds {
            needed_sat: error.needed.to_sat(),
            available_sat: error.available.to_sat(),
        },
        other => WalletError::Build(other.to_string()),
    }
}
