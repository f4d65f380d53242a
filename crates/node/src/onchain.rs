//! LDK's wallet traits on the node's wallet (`wallet/`): coins for fee bumps, and the scripts that bumps and sweeps pay.
//!
//! Local keys sign at once. A phone's signature comes from the desk; until it is there LDK's call fails, and is made again
//! after the next answers.

use std::sync::{Arc, Mutex};

use bitcoin::{OutPoint, Psbt, ScriptBuf, Transaction};
use lightning::sign::ChangeDestinationSourceSync;
use lightning::util::wallet_utils::{Utxo, WalletSourceSync};
use longhand_proto::signer::SignPsbt;
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;

use crate::keys::remote::Remote;
use crate::store::journal::lock;
use crate::wallet::SharedWallet;

/// See the module.
pub(crate) struct Onchain {
    pub wallet: SharedWallet,
    /// `None` with local keys.
    pub remote: Option<Arc<Remote>>,
    /// The outputs that LDK's next transaction spends, since LDK asks for a script without naming them.
    claiming: Mutex<Vec<OutPoint>>,
}

impl Onchain {
    pub fn new(wallet: SharedWallet, remote: Option<Arc<Remote>>) -> Onchain {
        Onchain {
            wallet,
            remote,
            claiming: Mutex::default(),
        }
    }

    /// Sets the outputs that LDK's next transaction spends: a replacement pays the script of the one before.
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
