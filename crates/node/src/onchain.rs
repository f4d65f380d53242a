//! The on-chain wallet as LDK sees it: coins for fee bumping, and where sweeps go.
//!
//! The wallet itself is in `wallet/`. Signing follows the rule of this crate: local keys sign at
//! once; for a phone the answer comes from the desk, or an `Err` and LDK's call is made again later.

use std::sync::{Arc, Mutex};

use bitcoin::{OutPoint, Psbt, ScriptBuf, Transaction};
use lightning::sign::ChangeDestinationSourceSync;
use lightning::util::wallet_utils::{Utxo, WalletSourceSync};
use longhand_proto::signer::SignPsbt;
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;

use crate::journal::lock;
use crate::keys::remote::Remote;
use crate::wallet::Wallet;

/// See the module.
pub(crate) struct Onchain {
    pub wallet: Arc<Mutex<Wallet>>,
    /// `None` with local keys.
    pub remote: Option<Arc<Remote>>,
    /// What LDK is about to spend: it asks for scripts without saying what for.
    claiming: Mutex<Vec<OutPoint>>,
}

impl Onchain {
    pub fn new(wallet: Arc<Mutex<Wallet>>, remote: Option<Arc<Remote>>) -> Onchain {
        Onchain {
            wallet,
            remote,
            claiming: Mutex::default(),
        }
    }

    /// Says what the next call of LDK's is for.
    pub fn claims(&self, outpoints: Vec<OutPoint>) {
        *lock(&self.claiming) = outpoints;
    }
}

impl WalletSourceSync for Onchain {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        Ok(lock(&self.wallet).confirmed_utxos())
    }

    fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
        lock(&self.wallet).transaction(outpoint.txid).ok_or(())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        Ok(lock(&self.wallet).claim_change_script(&lock(&self.claiming)))
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        let psbt = lock(&self.wallet).describe(psbt);
        let ours = |input: &bitcoin::psbt::Input| {
            !input.bip32_derivation.is_empty() || !input.tap_key_origins.is_empty()
        };
        if !psbt.inputs.iter().any(ours) {
            return Ok(psbt.unsigned_tx);
        }
        let signed = match &self.remote {
            None => {
                let mut signed = psbt.clone();
                lock(&self.wallet)
                    .sign_locally(&mut signed)
                    .map_err(|_| ())?;
                signed
            }
            Some(remote) => {
                let op = SignPsbt {
                    psbt: psbt.serialize(),
                    purpose: Purpose::Bump.into(),
                };
                match remote.ask_node(Op::SignPsbt(op)) {
                    Some(Answer::Psbt(bytes)) => Psbt::deserialize(&bytes).map_err(|_| ())?,
                    _ => return Err(()),
                }
            }
        };
        lock(&self.wallet)
            .finalize_own(&signed, &psbt)
            .map_err(|_| ())
    }
}

impl ChangeDestinationSourceSync for Onchain {
    fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        Ok(lock(&self.wallet).sweep_script(&lock(&self.claiming)))
    }
}
