//! The signer and its ledger, kept together: nothing the signer says is let out before the ledger is durable.

use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::Network;
use longhand_signer::rules::Refused;
use longhand_signer::{LedgerRecord, Recorded, Seed, Signer};
use zeroize::Zeroizing;

use crate::error::PhoneError;
use crate::vault::ledger::Ledger;
use crate::vault::{Vault, VaultError};

/// One signer engine and the file it is restored from.
///
/// Its methods write to the disk: call them where that may block.
pub(crate) struct Keeper {
    vault: Arc<Vault>,
    seed: Seed,
    engine: Mutex<Option<Engine>>,
}

struct Engine {
    signer: Signer,
    ledger: Ledger,
}

impl Keeper {
    /// Restores the signer from the vault's ledger.
    pub(crate) fn open(vault: Arc<Vault>) -> Result<Keeper, PhoneError> {
        let seed = Seed::from_words(&vault.secrets().mnemonic)?;
        let engine = restore(&vault, &seed)?;
        Ok(Keeper {
            vault,
            seed,
            engine: Mutex::new(Some(engine)),
        })
    }

    pub(crate) fn network(&self) -> Network {
        self.vault.secrets().network
    }

    /// Lets `work` use the signer, and returns what it returns once the records are durable.
    ///
    /// When they cannot be written, what the signer has in memory is more than what is on record: it is
    /// dropped, and restored from the disk for the next call.
    pub(crate) fn record<T>(
        &self,
        work: impl FnOnce(&mut Signer) -> (T, Vec<LedgerRecord>),
    ) -> Result<T, PhoneError> {
        let mut place = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out, so that it is gone when `work` panics or a write fails.
        let mut engine = match place.take() {
            Some(engine) => engine,
            None => restore(&self.vault, &self.seed)?,
        };
        let (value, records) = work(&mut engine.signer);
        engine.persist(&records)?;
        *place = Some(engine);
        Ok(value)
    }

    /// [`Keeper::record`] for an owner's call, which the signer may refuse.
    pub(crate) fn call<T>(
        &self,
        work: impl FnOnce(&mut Signer) -> Result<Recorded<T>, Refused>,
    ) -> Result<T, PhoneError> {
        let recorded = self.record(|signer| match work(signer) {
            Ok(Recorded { value, records }) => (Ok(value), records),
            Err(refused) => (Err(refused), Vec::new()),
        })?;
        Ok(recorded?)
    }

    /// Lets `look` see the signer.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Signer) -> T) -> Result<T, PhoneError> {
        self.record(|signer| (look(signer), Vec::new()))
    }

    #[cfg(test)]
    pub(crate) fn compact(&self) {
        let mut place = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = place.as_mut() {
            engine.compact();
        }
    }
}

impl Engine {
    fn persist(&mut self, records: &[LedgerRecord]) -> Result<(), VaultError> {
        let bytes: Vec<_> = records.iter().map(to_bytes).collect();
        self.ledger.append(&bytes)?;
        if self.ledger.wants_compaction() {
            self.compact();
        }
        Ok(())
    }

    /// Best effort: the records are durable already.
    fn compact(&mut self) {
        match self.ledger.compact(&[to_bytes(&self.signer.snapshot())]) {
            Ok(()) => tracing::info!(entries = self.ledger.entries(), "compacted the ledger"),
            Err(error) => tracing::warn!(%error, "the ledger was not compacted"),
        }
    }
}

fn restore(vault: &Vault, seed: &Seed) -> Result<Engine, PhoneError> {
    let (ledger, records) = vault.ledger()?;
    let network = vault.secrets().network;
    let signer = Signer::restore(seed, network, &vault.ledger_key(), records)?;
    Ok(Engine { signer, ledger })
}

fn to_bytes(record: &LedgerRecord) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(record.as_bytes().to_vec())
}
