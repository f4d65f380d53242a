//! The signer together with its ledger: no answer of the signer is returned before the ledger is durable.
//!
//! Calls that come while the disk is busy go through the signer meanwhile, and share the next write. Lock order: the disk's lock
//! before the engine's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Network;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use lightning_invoice::Bolt11Invoice;
use longhand_base::runtime::{Panicked, Runtime};
use longhand_proto::command::UnsignedInvoice;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::{KnownBlock, KnownBlocks, Refusal, SignerBatch, SignerReply};
use longhand_signer::rules::Refused;
use longhand_signer::{InvoiceRequest, LedgerRecord, Notice, Recorded, Seed, Signer};
use longhand_spv::{Headers, StoredChange};
use prost::Message;
use zeroize::Zeroizing;

use crate::command::RefusalList;
use crate::error::PhoneError;
use crate::refusals::Refusals;
use crate::vault::ledger::{Ledger, Records};
use crate::vault::{Vault, VaultError};
use crate::witness::Said;

/// A signer engine and the ledger file from which it is restored. Its methods write to the disk, so that they may block; see
/// [`blocking`].
pub(crate) struct DurableSigner {
    vault: Arc<Vault>,
    runtime: Arc<dyn Runtime>,
    seed: Seed,
    disk: Mutex<Disk>,
    /// `None` after a panic or a failed write: its state may be ahead of the ledger then.
    engine: Mutex<Option<Engine>>,
    refusals: Refusals,
    /// Changes of the headers that are not stored yet, in order.
    header_changes: Mutex<Vec<StoredChange>>,
}

/// The signer, and the records by which it is ahead of the disk.
struct Engine {
    signer: Signer,
    life: u64,
    unwritten: Records,
    /// Records made in this life, with those unwritten.
    made: u64,
}

/// The ledger's file.
struct Disk {
    ledger: Option<Ledger>,
    /// Counts the engines that were restored from it.
    life: u64,
    /// Records of this life that are durable.
    written: u64,
    /// The end of the life before.
    last: Option<Failed>,
}

/// The signer's answer to batches.
pub(crate) struct Answered {
    /// Encoded, one for each batch.
    pub replies: Vec<Vec<u8>>,
    /// All that are in the replies.
    pub refusals: Vec<Refusal>,
    /// The greeting of the next links, when there are new headers.
    pub known_blocks: Option<Vec<u8>>,
}

/// The end of an engine's life.
struct Failed {
    life: u64,
    written: u64,
    error: VaultError,
}

impl DurableSigner {
    /// Restores the signer from the vault's ledger.
    pub(crate) fn open(
        vault: Arc<Vault>,
        runtime: Arc<dyn Runtime>,
    ) -> Result<DurableSigner, PhoneError> {
        let seed = vault.seed()?;
        let disk = Disk {
            ledger: None,
            life: 0,
            written: 0,
            last: None,
        };
        let signer = DurableSigner {
            vault,
            runtime,
            seed,
            disk: Mutex::new(disk),
            engine: Mutex::new(None),
            refusals: Refusals::default(),
            header_changes: Mutex::default(),
        };
        signer.restore()?;
        Ok(signer)
    }

    pub(crate) fn network(&self) -> Network {
        self.vault.secrets().network
    }

    /// Calls `work` with the signer. Returns its value once its records are durable, and all earlier ones that it may depend on.
    ///
    /// When they cannot be written, the signer is dropped and restored from the disk for the next call.
    pub(crate) fn record<T>(
        &self,
        work: impl FnOnce(&mut Signer) -> (T, Vec<LedgerRecord>),
    ) -> Result<T, PhoneError> {
        let made = self.make(work)?;
        self.make_durable(made.life, made.records)?;
        if let Some(witness) = self.vault.witness() {
            witness.durable(made.version);
        }
        Ok(made.value)
    }

    /// Calls `work` with the signer. Its records are written with those of the next call that waits for them: for what may be lost.
    pub(crate) fn note(
        &self,
        work: impl FnOnce(&mut Signer) -> Result<Recorded<()>, Refused>,
    ) -> Result<(), PhoneError> {
        let made = self.make(|signer| match work(signer) {
            Ok(Recorded { records, .. }) => (Ok(()), records),
            Err(refused) => (Err(refused), Vec::new()),
        })?;
        Ok(made.value?)
    }

    fn make<T>(
        &self,
        work: impl FnOnce(&mut Signer) -> (T, Vec<LedgerRecord>),
    ) -> Result<Made<T>, PhoneError> {
        let mut place = loop {
            let place = lock(&self.engine);
            if place.is_some() {
                break place;
            }
            // Another call's write may fail before the lock is taken again.
            drop(place);
            self.restore()?;
        };
        // Taken out, so that a panic in `work` drops it.
        let mut engine = place.take().ok_or(VaultError::NeedsReopening)?;
        let (value, records) = work(&mut engine.signer);
        engine.made += records.len() as u64;
        engine.unwritten.extend(records.iter().map(to_bytes));
        let made = Made {
            value,
            life: engine.life,
            records: engine.made,
            version: engine.signer.version(),
        };
        *place = Some(engine);
        Ok(made)
    }

    /// Restores the signer from the disk, unless another call has done so.
    fn restore(&self) -> Result<(), PhoneError> {
        let mut disk = lock(&self.disk);
        let mut place = lock(&self.engine);
        if place.is_some() {
            return Ok(());
        }
        // The file is closed before it is opened again.
        disk.ledger = None;
        let (ledger, records) = self.vault.ledger()?;
        let network = self.network();
        let mut signer = Signer::restore(&self.seed, network, &self.vault.ledger_key(), records)?;
        lock(&self.header_changes).clear();
        signer.set_headers(self.vault.headers());
        signer.set_filters(self.vault.filters());
        if let Some(witness) = self.vault.witness() {
            witness.restored(signer.version());
        }
        disk.begin(ledger);
        *place = Some(Engine {
            signer,
            life: disk.life,
            unwritten: Records::new(),
            made: 0,
        });
        Ok(())
    }

    /// Returns when the first `made` records of `life` are durable; the call that takes the lock first writes for all.
    fn make_durable(&self, life: u64, made: u64) -> Result<(), VaultError> {
        let mut disk = lock(&self.disk);
        if let Some(outcome) = disk.outcome(life, made) {
            return outcome;
        }
        let mut place = lock(&self.engine);
        let engine = place.as_mut().filter(|engine| engine.life == life);
        // Another call panicked with the engine, and these records are lost.
        let engine = engine.ok_or(VaultError::NeedsReopening)?;
        let (records, made) = (std::mem::take(&mut engine.unwritten), engine.made);
        drop(place);
        if let Err(error) = disk.append(&records, made) {
            *lock(&self.engine) = None;
            let again = repeat(&error);
            disk.fail(error);
            return Err(again);
        }
        if disk.ledger.as_ref().is_some_and(Ledger::wants_compaction) {
            self.compact_now(&mut disk);
        }
        Ok(())
    }

    /// Compacts the ledger. Best effort: when other calls have made records since, it is left to the next write.
    fn compact_now(&self, disk: &mut Disk) {
        let place = lock(&self.engine);
        let (Some(engine), Some(ledger)) = (place.as_ref(), &mut disk.ledger) else {
            return;
        };
        if engine.life != disk.life || !engine.unwritten.is_empty() {
            return;
        }
        match ledger.compact(&[to_bytes(&engine.signer.snapshot())]) {
            Ok(()) => tracing::info!(entries = ledger.entries(), "compacted the ledger"),
            Err(error) => tracing::warn!(%error, "the ledger was not compacted"),
        }
    }

    /// [`DurableSigner::record`] for an owner's call, which the signer may refuse.
    pub(crate) fn call<T>(
        &self,
        work: impl FnOnce(&mut Signer) -> Result<Recorded<T>, Refused>,
    ) -> Result<T, PhoneError> {
        let recorded = self.record(|signer| match work(signer) {
            Ok(mut recorded) => {
                let records = std::mem::take(&mut recorded.records);
                (Ok(recorded), records)
            }
            Err(refused) => (Err(refused), Vec::new()),
        })?;
        let Recorded {
            value, warnings, ..
        } = recorded?;
        let warnings = warnings.into_iter().map(|refused| Notice {
            refused,
            is_warning: true,
        });
        self.keep_refusals(&warnings.collect::<Vec<_>>());
        Ok(value)
    }

    /// The replies to `batches`, once all records that they depend on are durable.
    pub(crate) fn answer(&self, batches: &[SignerBatch]) -> Result<Answered, PhoneError> {
        let hub = self.hub()?;
        self.record(|signer| {
            signer.set_hub(hub);
            let (mut records, mut refusals) = (Vec::new(), Vec::new());
            let (mut notices, mut changes) = (Vec::new(), Vec::new());
            let mut has_new_filters = false;
            let now_unix_s = self.runtime.now_unix_s();
            let replies = batches.iter().map(|batch| {
                let outcome = signer.handle(batch, now_unix_s);
                self.report_answers(batch, &outcome.reply, signer.version());
                records.extend(outcome.records);
                notices.extend(outcome.notices);
                changes.extend(outcome.headers);
                has_new_filters |= outcome.has_new_filters;
                refusals.extend(refusals_in(&outcome.reply));
                outcome.reply.encode_to_vec()
            });
            let replies = replies.collect();
            let known_blocks = (!changes.is_empty()).then(|| known_blocks(signer.headers()));
            // In the order of the engine's calls.
            lock(&self.header_changes).extend(changes);
            let answered = Answered {
                replies,
                refusals,
                known_blocks,
            };
            ((answered, notices, has_new_filters), records)
        })
        .map(|(answered, notices, has_new_filters)| {
            self.keep_headers();
            if has_new_filters {
                self.keep_filters();
            }
            self.keep_refusals(&notices);
            answered
        })
    }

    /// Stores the headers that the signer has taken since.
    fn keep_headers(&self) {
        if lock(&self.header_changes).is_empty() {
            return;
        }
        let Ok(checkpoint) = self.look(|signer| signer.headers().checkpoint().clone()) else {
            return;
        };
        let take = || std::mem::take(&mut *lock(&self.header_changes));
        if !self.vault.keep_headers(&checkpoint, take)
            && let Ok(headers) = self.look(|signer| signer.headers().clone())
        {
            self.vault.replace_headers(&headers);
        }
    }

    /// Stores what filters have shown. Best effort: the host shows again what is lost.
    fn keep_filters(&self) {
        let Ok(filters) = self.look(|signer| signer.filters().clone()) else {
            return;
        };
        if let Err(error) = self.vault.save_filters(&filters) {
            tracing::warn!(%error, "what filters have shown was not stored");
        }
    }

    /// What was refused, the latest first.
    pub(crate) fn refusals(&self) -> RefusalList {
        self.refusals.list(&self.vault)
    }

    /// The host's own hub, as the host said when it registered the phone.
    fn hub(&self) -> Result<Option<PublicKey>, PhoneError> {
        let host = self.vault.host()?;
        Ok(host.and_then(|host| PublicKey::from_slice(&host.hub_node_id).ok()))
    }

    /// Takes headers of the second source; returns the greeting of the next links when they are new, or why they are not taken.
    pub(crate) fn take_headers(
        &self,
        headers: &[Header],
        now_unix_s: u64,
    ) -> Result<Result<Option<Vec<u8>>, String>, PhoneError> {
        let taken = self.record(|signer| {
            let taken = signer.take_headers(headers, now_unix_s);
            let taken = taken.map(|change| {
                let is_new = change.is_some();
                lock(&self.header_changes).extend(change);
                is_new.then(|| known_blocks(signer.headers()))
            });
            (taken, Vec::new())
        })?;
        self.keep_headers();
        Ok(taken.map_err(|error| error.to_string()))
    }

    /// Signs the invoice that the host wrote, if it is the one that was requested.
    pub(crate) fn sign_invoice(
        &self,
        unsigned: &UnsignedInvoice,
        asked: &InvoiceRequest,
    ) -> Result<Bolt11Invoice, PhoneError> {
        let signed = self.call(|signer| {
            let signed = signer.finish_invoice(unsigned, asked, self.runtime.now_unix_s())?;
            if let Some(witness) = self.vault.witness() {
                let said = Said::Invoice {
                    payment_hash: asked.payment_hash,
                    amount_msat: asked.amount_msat,
                };
                witness.made(said, signer.version());
            }
            Ok(signed)
        });
        if let Err(PhoneError::Refused(refused)) = &signed {
            self.keep_refusals(&[Notice {
                refused: refused.clone(),
                is_warning: false,
            }]);
        }
        signed
    }

    /// For the owner to see, see `refusals.rs`.
    fn keep_refusals(&self, notices: &[Notice]) {
        let now_unix_s = self.runtime.now_unix_s();
        self.refusals.add(&self.vault, notices, now_unix_s);
    }

    fn report_answers(&self, batch: &SignerBatch, reply: &SignerReply, version: u64) {
        let Some(witness) = self.vault.witness() else {
            return;
        };
        for (op, answer) in batch.ops.iter().zip(&reply.answers) {
            if let Some(answer) = &answer.answer {
                witness.made(Said::Answer(op, answer), version);
            }
        }
    }

    /// Calls `look` with the signer.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Signer) -> T) -> Result<T, PhoneError> {
        self.record(|signer| (look(signer), Vec::new()))
    }

    #[cfg(test)]
    pub(crate) fn compact(&self) {
        self.compact_now(&mut lock(&self.disk));
    }
}

/// The blocks that a phone knows, as its greeting on a link.
pub(crate) fn known_blocks(headers: &Headers) -> Vec<u8> {
    let blocks = headers.locator().into_iter();
    let blocks = blocks.map(|(height, hash)| KnownBlock {
        height,
        hash: hash.as_byte_array().to_vec(),
    });
    let blocks = blocks.collect();
    KnownBlocks { blocks }.encode_to_vec()
}

fn refusals_in(reply: &SignerReply) -> impl Iterator<Item = Refusal> {
    let answers = reply.answers.iter();
    answers.filter_map(|answer| match &answer.answer {
        Some(Answer::Refusal(refusal)) => Some(refusal.clone()),
        _ => None,
    })
}

/// Runs `work`, which writes to the disk, on a thread where that does not delay the link.
pub(crate) async fn blocking<T: Send + 'static>(
    signer: &Arc<DurableSigner>,
    work: impl FnOnce(&DurableSigner) -> Result<T, PhoneError> + Send + 'static,
) -> Result<T, PhoneError> {
    let engine = Arc::clone(signer);
    let done = signer.runtime.blocking(move || work(&engine)).await;
    done.map_err(|Panicked| PhoneError::Stopped("its work was not finished".into()))?
}

/// The result of a call, and what has to be durable before it is used.
struct Made<T> {
    value: T,
    life: u64,
    /// Records of this life so far.
    records: u64,
    version: u64,
}

impl Disk {
    /// A new life, from this ledger.
    fn begin(&mut self, ledger: Ledger) {
        self.ledger = Some(ledger);
        self.life += 1;
        self.written = 0;
    }

    /// The result for the first `made` records of `life`; `None` while they wait to be written.
    fn outcome(&self, life: u64, made: u64) -> Option<Result<(), VaultError>> {
        let over = self.last.as_ref().filter(|last| last.life == life);
        match over {
            Some(last) if made > last.written => Some(Err(repeat(&last.error))),
            Some(_) => Some(Ok(())),
            None if life != self.life => Some(Err(VaultError::NeedsReopening)),
            None => (made <= self.written).then_some(Ok(())),
        }
    }

    fn append(&mut self, records: &Records, made: u64) -> Result<(), VaultError> {
        let ledger = self.ledger.as_mut().ok_or(VaultError::NeedsReopening)?;
        ledger.append(records)?;
        self.written = made;
        Ok(())
    }

    fn fail(&mut self, error: VaultError) {
        self.last = Some(Failed {
            life: self.life,
            written: self.written,
            error,
        });
        self.ledger = None;
    }
}

/// A copy of the error, for other calls whose records were in the same write.
fn repeat(error: &VaultError) -> VaultError {
    match error {
        VaultError::Full => VaultError::Full,
        VaultError::Io(error) => {
            VaultError::Io(std::io::Error::new(error.kind(), error.to_string()))
        }
        _ => VaultError::NeedsReopening,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_bytes(record: &LedgerRecord) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(record.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::mpsc;
    use std::thread;

    use longhand_proto::Code;

    use super::*;
    use longhand_base::runtime::tokio;

    use crate::testing::{DiskFate, DiskFaults, DiskWrite, OneThread};
    use crate::tests::{WORDS, new_vault, open_on};

    /// Delays the first write to the ledger until the calls behind it have been through the signer, and fails the second one if
    /// `fails_second` is set.
    struct BusyDisk {
        behind: Mutex<Option<(mpsc::Receiver<()>, usize)>>,
        writing: mpsc::SyncSender<()>,
        appends: Mutex<u32>,
        fails_second: bool,
    }

    impl DiskFaults for BusyDisk {
        fn before(&self, write: DiskWrite, _: usize) -> DiskFate {
            if !matches!(write, DiskWrite::LedgerAppend) {
                return DiskFate::GoOn;
            }
            *lock(&self.appends) += 1;
            if let Some((behind, calls)) = lock(&self.behind).take() {
                self.writing.send(()).unwrap();
                behind.iter().take(calls).for_each(drop);
            } else if self.fails_second {
                let error = std::io::ErrorKind::StorageFull.into();
                return DiskFate::Fail { error, written: 0 };
            }
            DiskFate::GoOn
        }
        fn power_gone(&self) {
            unreachable!("the power is never cut");
        }
    }

    /// One call begins a write, four come while the disk is busy. Returns the results of the four, and the number of writes.
    fn four_behind_one(fails_second: bool) -> (Vec<Result<(), PhoneError>>, u32, usize) {
        let dir = tempfile::tempdir().unwrap();
        let (through, behind) = mpsc::channel();
        let (writing, is_writing) = mpsc::sync_channel(1);
        let disk = Arc::new(BusyDisk {
            behind: Mutex::new(Some((behind, 4))),
            writing,
            appends: Mutex::default(),
            fails_second,
        });
        drop(new_vault(dir.path(), WORDS));
        let vault = Arc::new(open_on(disk.clone(), dir.path()));
        let signer = DurableSigner::open(vault, OneThread::new()).unwrap();
        let pay = |byte: u8, through: Option<mpsc::Sender<()>>| {
            signer.call(move |signer| {
                let recorded = signer.add_intent([byte; 32], 1, 1, u64::MAX, 1);
                through
                    .into_iter()
                    .for_each(|through| through.send(()).unwrap());
                recorded
            })
        };
        let outcomes = thread::scope(|scope| {
            let first = scope.spawn(|| pay(0, None));
            is_writing.recv().unwrap();
            let others = (1..5).map(|byte| {
                let through = through.clone();
                scope.spawn(move || pay(byte, Some(through)))
            });
            let others: Vec<_> = others.collect();
            first.join().unwrap().unwrap();
            others.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let appends = *lock(&disk.appends);
        let known = signer.look(|signer| signer.intents().count()).unwrap();
        (outcomes, appends, known)
    }

    #[test]
    fn a_ledger_with_records_that_the_signer_cannot_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Arc::new(new_vault(dir.path(), WORDS));
        let (mut ledger, _) = vault.ledger().unwrap();
        let no_record = Zeroizing::new(b"no record".to_vec());
        ledger.append(&[no_record]).unwrap();
        drop(ledger);
        let refused = DurableSigner::open(vault, OneThread::new())
            .map(drop)
            .unwrap_err();
        assert_eq!(refused.report().code, Code::LedgerUnusable);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_that_panics_is_reported_as_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let signer = DurableSigner::open(Arc::new(new_vault(dir.path(), WORDS)), tokio()).unwrap();
        let work = |_: &DurableSigner| -> Result<(), PhoneError> { panic!("as the test wants it") };
        let stopped = blocking(&Arc::new(signer), work).await.unwrap_err();
        assert_eq!(stopped.report().code, Code::Stopped);
    }

    #[test]
    fn calls_that_come_while_the_disk_is_busy_share_the_next_write() {
        let (outcomes, appends, known) = four_behind_one(false);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!((appends, known), (2, 5));
    }

    #[test]
    fn a_write_that_fails_fails_every_call_that_shared_it_and_no_other() {
        let (outcomes, appends, known) = four_behind_one(true);
        let full = |outcome: &Result<_, PhoneError>| {
            outcome
                .as_ref()
                .is_err_and(|error| error.report().code == Code::DiskFull)
        };
        assert!(outcomes.iter().all(full), "{outcomes:?}");
        assert_eq!((appends, known), (2, 1));
    }
}
