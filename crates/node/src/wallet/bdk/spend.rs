//! Builds the wallet's own transactions: coin selection, and the reservation of inputs.

use bdk_wallet::chain::ConfirmationBlockTime;
use bdk_wallet::chain::FullTxOut;
use bdk_wallet::coin_selection::InsufficientFunds;
use bdk_wallet::error::CreateTxError;
use bitcoin::absolute::LockTime;
use bitcoin::policy::MAX_STANDARD_TX_WEIGHT;
use bitcoin::{Amount, FeeRate, OutPoint, Psbt, Script, ScriptBuf, Sequence, Transaction, Txid};

use longhand_proto::{MAX_FEERATE_SAT_PER_KW, MIN_FEERATE_SAT_PER_KW};

use super::{BdkWallet, KEYCHAINS, WalletError};
use crate::wallet::{Replacement, SendAmount, WalletSpends};

/// Of an input's witness, a signature and a key (BIP 141); a taproot input's weighs less.
pub(super) const WITNESS_WEIGHT: u64 = 108;
/// Of an input with its witness.
pub(super) const INPUT_WEIGHT: u64 = 41 * 4 + WITNESS_WEIGHT;

impl WalletSpends for BdkWallet {
    fn fund(
        &mut self,
        script: ScriptBuf,
        amount_sat: u64,
        feerate_sat_per_kw: u32,
        keep_sat: u64,
    ) -> Result<Psbt, WalletError> {
        let sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
        let amount = SendAmount::Exact(amount_sat);
        self.build(script, amount, feerate_sat_per_kw, keep_sat, sequence)
    }

    fn send(
        &mut self,
        script: ScriptBuf,
        amount: SendAmount,
        feerate_sat_per_kw: u32,
        keep_sat: u64,
    ) -> Result<Psbt, WalletError> {
        let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        self.build(script, amount, feerate_sat_per_kw, keep_sat, sequence)
    }

    fn replace(
        &mut self,
        txid: Txid,
        by: Replacement,
        feerate_sat_per_kw: u32,
    ) -> Result<Psbt, WalletError> {
        self.build_replacement(txid, by, feerate_sat_per_kw)
    }

    fn accelerate(&mut self, txid: Txid, feerate_sat_per_kw: u32) -> Result<Psbt, WalletError> {
        self.build_child(txid, feerate_sat_per_kw)
    }

    fn feerate_of(&self, txid: Txid) -> Option<u32> {
        self.pending_feerate(txid)
    }

    fn release(&mut self, tx: &Transaction) {
        self.unlock_inputs(tx);
        for output in &tx.output {
            if let Some((keychain, index)) =
                self.bdk.derivation_of_spk(output.script_pubkey.clone())
            {
                self.bdk.unmark_used(keychain, index);
            }
        }
    }
}

impl BdkWallet {
    fn build(
        &mut self,
        script: ScriptBuf,
        amount: SendAmount,
        feerate_sat_per_kw: u32,
        keep_sat: u64,
        sequence: Sequence,
    ) -> Result<Psbt, WalletError> {
        check_feerate(feerate_sat_per_kw)?;
        let funds = self.funds(feerate_sat_per_kw);
        let amount_sat = match amount {
            SendAmount::Exact(amount_sat) => amount_sat,
            SendAmount::All => 0,
        };
        if amount != SendAmount::All {
            check_dust(&script, amount_sat)?;
        }
        let wanted_sat = amount_sat.saturating_add(keep_sat);
        if wanted_sat >= funds.spendable_sat {
            return Err(funds.insufficient(wanted_sat.saturating_add(1)));
        }
        let psbt = match amount {
            SendAmount::Exact(_) => {
                self.build_exact(&script, amount_sat, feerate_sat_per_kw, sequence, &funds)
            }
            SendAmount::All => {
                self.build_all(&script, keep_sat, feerate_sat_per_kw, sequence, &funds)
            }
        }
        .map_err(|e| refusal(e, &script, amount_sat, keep_sat, &funds))?;
        let checked = check_built(&psbt, &script, wanted_sat, &funds);
        if checked.is_err() {
            self.release(&psbt.unsigned_tx);
        }
        checked?;
        for input in &psbt.unsigned_tx.input {
            self.bdk.lock_outpoint(input.previous_output);
        }
        Ok(psbt)
    }

    fn build_exact(
        &mut self,
        script: &Script,
        amount_sat: u64,
        feerate_sat_per_kw: u32,
        sequence: Sequence,
        funds: &Funds,
    ) -> Result<Psbt, CreateTxError> {
        let height = self.tip.height;
        let mut builder = self.bdk.build_tx();
        builder
            .add_recipient(script.to_owned(), Amount::from_sat(amount_sat))
            .fee_rate(FeeRate::from_sat_per_kwu(feerate_sat_per_kw.into()))
            .set_exact_sequence(sequence)
            .nlocktime(locktime(height))
            .current_height(height.min(MAX_HEIGHT))
            .unspendable(funds.unspendable.clone());
        builder.finish()
    }

    fn build_all(
        &mut self,
        script: &Script,
        keep_sat: u64,
        feerate_sat_per_kw: u32,
        sequence: Sequence,
        funds: &Funds,
    ) -> Result<Psbt, CreateTxError> {
        let height = self.tip.height;
        let change = (keep_sat > 0).then(|| self.bdk.next_unused_address(KEYCHAINS[1]));
        let mut builder = self.bdk.build_tx();
        if let Some(change) = &change {
            let change = change.script_pubkey();
            let keep = Amount::from_sat(keep_sat).max(change.minimal_non_dust());
            builder.add_recipient(change, keep);
        }
        builder
            .drain_wallet()
            .drain_to(script.to_owned())
            .fee_rate(FeeRate::from_sat_per_kwu(feerate_sat_per_kw.into()))
            .set_exact_sequence(sequence)
            .nlocktime(locktime(height))
            .current_height(height.min(MAX_HEIGHT))
            .unspendable(funds.unspendable.clone());
        let psbt = builder.finish()?;
        if let Some(change) = change {
            self.bdk.mark_used(change.keychain, change.index);
        }
        Ok(psbt)
    }

    /// The coins that can be spent now and are worth more than the fee for their input. An unconfirmed one can be spent when
    /// all inputs of its transaction are the wallet's own, since nobody else can replace that transaction.
    fn funds(&self, feerate_sat_per_kw: u32) -> Funds {
        let input_fee_sat = u64::from(feerate_sat_per_kw) * INPUT_WEIGHT / 1_000;
        let mut funds = Funds {
            spendable_sat: 0,
            held_sat: 0,
            unspendable: Vec::new(),
        };
        for (_, output) in self.unspent() {
            let value_sat = output.txout.value.to_sat();
            let is_worth_its_fee = value_sat > input_fee_sat;
            let is_spendable = is_worth_its_fee && self.is_spendable(&output);
            if is_spendable && !self.is_held(&output) {
                funds.spendable_sat = funds.spendable_sat.saturating_add(value_sat);
                continue;
            }
            if is_spendable {
                funds.held_sat = funds.held_sat.saturating_add(value_sat);
            }
            funds.unspendable.push(output.outpoint);
        }
        funds
    }

    /// Coins that cannot be spent now, whatever the fee rate.
    pub(super) fn unspendable(&self) -> Vec<OutPoint> {
        let unspent = self.unspent();
        let others =
            unspent.filter(|(_, output)| !self.is_spendable(output) || self.is_held(output));
        others.map(|(_, output)| output.outpoint).collect()
    }

    fn is_spendable(&self, output: &FullTxOut<ConfirmationBlockTime>) -> bool {
        let is_safe = if output.chain_position.is_confirmed() {
            self.is_settled(output)
        } else {
            self.is_wholly_own(output.outpoint.txid)
        };
        is_safe && !self.bdk.is_outpoint_locked(output.outpoint)
    }
}

struct Funds {
    spendable_sat: u64,
    /// Not spendable until the search for the wallet's coins is complete.
    held_sat: u64,
    unspendable: Vec<OutPoint>,
}

impl Funds {
    fn insufficient(&self, needed_sat: u64) -> WalletError {
        let available_sat = self.spendable_sat;
        match self.held_sat {
            0 => WalletError::InsufficientFunds {
                needed_sat,
                available_sat,
            },
            held_sat => WalletError::Held {
                needed_sat,
                available_sat,
                held_sat,
            },
        }
    }
}

/// The greatest height of a lock time.
pub(super) const MAX_HEIGHT: u32 = 499_999_999;

/// Lock time at the tip (anti fee sniping): the transaction cannot be mined in a block that replaces the tip.
pub(super) fn locktime(height: u32) -> LockTime {
    LockTime::from_height(height).unwrap_or(LockTime::ZERO)
}

pub(super) fn check_feerate(sat_per_kw: u32) -> Result<(), WalletError> {
    let (min, max) = (MIN_FEERATE_SAT_PER_KW, MAX_FEERATE_SAT_PER_KW);
    if (min..=max).contains(&sat_per_kw) {
        return Ok(());
    }
    Err(WalletError::FeeRate {
        sat_per_kw,
        min,
        max,
    })
}

fn check_dust(script: &Script, amount_sat: u64) -> Result<(), WalletError> {
    let limit_sat = script.minimal_non_dust().to_sat();
    if amount_sat < limit_sat {
        return Err(WalletError::BelowDust {
            amount_sat,
            limit_sat,
        });
    }
    Ok(())
}

/// Checks that a built transaction pays `script`, leaves what was to be kept, and is not too heavy to be relayed.
fn check_built(
    psbt: &Psbt,
    script: &Script,
    wanted_sat: u64,
    funds: &Funds,
) -> Result<(), WalletError> {
    let inputs = psbt.inputs.len() as u64;
    let weight = psbt.unsigned_tx.weight().to_wu() + inputs * WITNESS_WEIGHT;
    if weight > u64::from(MAX_STANDARD_TX_WEIGHT) {
        return Err(WalletError::TooManyInputs { inputs });
    }
    let fee_sat = psbt
        .fee()
        .map_err(|e| WalletError::Build(e.to_string()))?
        .to_sat();
    let needed_sat = wanted_sat.saturating_add(fee_sat);
    let paid = psbt
        .unsigned_tx
        .output
        .iter()
        .any(|output| *output.script_pubkey == *script);
    if needed_sat > funds.spendable_sat || !paid {
        return Err(funds.insufficient(needed_sat.max(funds.spendable_sat.saturating_add(1))));
    }
    Ok(())
}

/// The wallet's error for BDK's.
fn refusal(
    error: CreateTxError,
    script: &Script,
    amount_sat: u64,
    keep_sat: u64,
    funds: &Funds,
) -> WalletError {
    match error {
        CreateTxError::CoinSelection(InsufficientFunds { needed, .. }) => {
            let needed_sat = needed.to_sat().saturating_add(keep_sat);
            funds.insufficient(needed_sat.max(funds.spendable_sat.saturating_add(1)))
        }
        CreateTxError::NoUtxosSelected => funds.insufficient(amount_sat.saturating_add(keep_sat)),
        CreateTxError::OutputBelowDustLimit(_) => WalletError::BelowDust {
            amount_sat,
            limit_sat: script.minimal_non_dust().to_sat(),
        },
        other => WalletError::Build(other.to_string()),
    }
}
