//! For tests and simulations: a phone on one thread that can be killed at any write, and at any moment.
//!
//! With the feature `testing`:
//! - on a runtime of one thread (tokio's `current_thread`) work for the disk is done in the task that needs it, instead of
//!   by `spawn_blocking`: what happens then depends on nothing but the runtime's own order; and a vault's seed that was
//!   opened before in the process is not stretched again;
//! - [`Vault::with_disk_faults`](crate::Vault::with_disk_faults) asks a [`DiskFaults`] before each durable write;
//! - [`Vault::with_witness`](crate::Vault::with_witness) tells a [`Witness`] all that the signer says;
//! - [`Phone::kill`](crate::Phone::kill) ends a phone as SIGKILL does.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::ExposeSecret;
use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use longhand_link::{Carrier, CarrierError, RecordSink, RecordStream};
use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_answer::Answer;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::vault::disk::COMPACT_FROM_BYTES;
pub use crate::vault::disk::DiskWrite;
use crate::vault::{Opened, Passphrase, VaultError};

/// Decides what becomes of the durable writes of one vault.
pub trait DiskFaults: Send + Sync + 'static {
    /// Asked before each write, with the number of bytes in it (0 for [`DiskWrite::LedgerCut`],
    /// [`DiskWrite::LedgerSync`] and [`DiskWrite::HostForget`], which have none).
    fn before(&self, write: DiskWrite, bytes: usize) -> DiskFate;

    /// The power is gone, by what [`DiskFaults::before`] answered last: nothing of this vault is written any more. Called
    /// before the write returns to the phone, so that what the phone would say next can be kept in.
    fn power_gone(&self);

    /// The ledger is worth compacting from so many bytes on.
    fn compact_from_bytes(&self) -> u64 {
        COMPACT_FROM_BYTES
    }

    /// What was written last takes until then, and so does all that comes meanwhile: nobody hears of it before. It is
    /// durable already. Asked on a runtime of one thread only.
    fn busy_until(&self) -> Option<Instant> {
        None
    }
}

/// Hears all that one phone's signer says that could cost money, through all its lives. Such as an audit of what it must
/// never say, which does not believe the signer's own ledger.
///
/// What is made waits for the ledger. Whether it is on the disk, a phone that dies as it writes cannot tell; the next one
/// that is made of the same files can. So a witness keeps what was made until it hears that it is durable, or is not.
pub trait Witness: Send + Sync + 'static {
    /// The signer has made this. It may leave when the ledger is durable up to record number `version`.
    fn made(&self, said: Said<'_>, version: u64);

    /// The ledger is durable up to record `version`, and what rests on it is let out next.
    fn durable(&self, version: u64);

    /// The signer was read from the disk, and the ledger there goes up to record `version`. What rests on that is as good
    /// as said, left or not: the signer acts as if it had. What rests on more has never left, and never will.
    fn restored(&self, version: u64);
}

/// See [`Witness::made`].
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// To the node.
    Answer(&'a SignerOp, &'a Answer),
    /// To whoever is to pay it.
    Invoice {
        /// SHA-256 of the preimage.
        payment_hash: [u8; 32],
        /// 0 = any amount.
        amount_msat: u64,
    },
}

/// What becomes of a write.
#[derive(Debug)]
pub enum DiskFate {
    /// It is done.
    GoOn,
    /// It fails with this error after so many of its bytes; the next ones may be done.
    Fail {
        /// Such as [`io::ErrorKind::StorageFull`].
        error: io::Error,
        /// Bytes that are there all the same; all of them at most.
        written: usize,
    },
    /// The power goes before anything of it is done.
    PowerGoneBefore,
    /// The power goes after so many of its bytes. Of a file that is replaced they are those of the new one, which never
    /// takes the old one's place.
    PowerGoneTorn {
        /// Bytes that are there; all of them at most.
        written: usize,
    },
    /// The power goes when all of it is durable, and nobody has heard of it yet.
    PowerGoneAfter,
}

/// One vault's faults, and whether its power is gone.
#[derive(Default)]
pub(crate) struct Faults {
    decide: Option<Arc<dyn DiskFaults>>,
    is_gone: AtomicBool,
}

impl Faults {
    pub(crate) fn new(decide: Arc<dyn DiskFaults>) -> Faults {
        Faults {
            decide: Some(decide),
            is_gone: AtomicBool::new(false),
        }
    }

    /// Does one write as far as it is let.
    pub(crate) fn write<T, U>(
        &self,
        what: DiskWrite,
        bytes: &[u8],
        put: impl FnOnce(&[u8]) -> io::Result<T>,
        settle: impl FnOnce(T) -> io::Result<U>,
    ) -> io::Result<U> {
        self.check()?;
        let fate = match &self.decide {
            Some(decide) => decide.before(what, bytes.len()),
            None => DiskFate::GoOn,
        };
        let first = |count: usize| &bytes[..count.min(bytes.len())];
        match fate {
            DiskFate::GoOn => settle(put(bytes)?),
            DiskFate::Fail { error, written } => {
                put(first(written))?;
                Err(error)
            }
            DiskFate::PowerGoneBefore => Err(self.cut_power()),
            DiskFate::PowerGoneTorn { written } => {
                put(first(written))?;
                Err(self.cut_power())
            }
            DiskFate::PowerGoneAfter => {
                settle(put(bytes)?)?;
                Err(self.cut_power())
            }
        }
    }

    pub(crate) fn compact_from_bytes(&self) -> u64 {
        let decide = self.decide.as_ref();
        decide.map_or(COMPACT_FROM_BYTES, |decide| decide.compact_from_bytes())
    }

    pub(crate) fn busy_until(&self) -> Option<Instant> {
        self.decide.as_ref()?.busy_until()
    }

    /// Fails when the power is gone.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(power_gone());
        }
        Ok(())
    }

    fn cut_power(&self) -> io::Error {
        self.is_gone.store(true, Ordering::SeqCst);
        if let Some(decide) = &self.decide {
            decide.power_gone();
        }
        power_gone()
    }

    /// As if the power were gone, but nobody is told.
    pub(crate) fn kill(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }
}

/// Whether this is a runtime on which all has to be done in its one thread.
pub(crate) fn is_on_one_thread() -> bool {
    use tokio::runtime::{Handle, RuntimeFlavor};
    Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

/// Opens a vault's seed, on one thread only once in this process: a simulated phone is started thousands of times, and
/// what stretches a passphrase and words is meant to take long.
pub(crate) fn open_once(
    sealed: &[u8],
    passphrase: &Passphrase,
    open: impl FnOnce() -> Result<Opened, VaultError>,
) -> Result<Opened, VaultError> {
    static OPENED: Mutex<BTreeMap<[u8; 32], Opened>> = Mutex::new(BTreeMap::new());
    if !is_on_one_thread() {
        return open();
    }
    let key = [sealed, passphrase.expose_secret().as_bytes()].concat();
    let key = sha256::Hash::hash(&key).to_byte_array();
    let known = || OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(opened) = known().get(&key) {
        return Ok(opened.clone());
    }
    let opened = open()?;
    known().insert(key, opened.clone());
    Ok(opened)
}

fn power_gone() -> io::Error {
    io::Error::other("the power is gone")
}

/// What ends with a phone that is killed: in that moment nothing leaves by its carriers any more, and nothing comes.
pub(crate) struct Lifeline(watch::Sender<bool>);

impl Lifeline {
    pub(crate) fn new() -> Lifeline {
        Lifeline(watch::Sender::new(false))
    }

    pub(crate) fn cut(&self) {
        self.0.send_replace(true);
    }

    /// The same connection, as long as the phone lives.
    pub(crate) fn hold(&self, carrier: Carrier) -> Carrier {
        let half = || self.0.subscribe();
        Carrier::new(
            Held {
                half: carrier.sink,
                is_cut: half(),
            },
            Held {
                half: carrier.stream,
                is_cut: half(),
            },
        )
    }
}

/// One half of a carrier, and whether it is cut.
struct Held<T> {
    half: T,
    is_cut: watch::Receiver<bool>,
}

#[async_trait]
impl RecordSink for Held<Box<dyn RecordSink>> {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        let Held { half, is_cut } = self;
        tokio::select! {
            biased;
            _ = is_cut.wait_for(|is_cut| *is_cut) => Err(killed()),
            sent = half.send(record) => sent,
        }
    }
}

#[async_trait]
impl RecordStream for Held<Box<dyn RecordStream>> {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        let Held { half, is_cut } = self;
        tokio::select! {
            biased;
            _ = is_cut.wait_for(|is_cut| *is_cut) => Err(killed()),
            received = half.recv() => received,
        }
    }
}

fn killed() -> CarrierError {
    CarrierError("the phone was killed".into())
}
