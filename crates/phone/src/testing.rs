//! Faults for tests and simulations: a phone on one thread that can be killed at any write, and at any moment.
//!
//! With the feature `testing`:
//! - on a runtime of one thread (tokio's `current_thread`) work for the disk is done in the task that needs it, instead of
//!   by `spawn_blocking`, so that the order of events depends on the runtime alone; and a vault's seed that was opened before in the
//!   process does not go through the key derivation again;
//! - [`Vault::with_disk_faults`](crate::Vault::with_disk_faults) calls a [`DiskFaults`] before each durable write;
//! - [`Vault::with_witness`](crate::Vault::with_witness) reports all answers of the signer to a [`Witness`];
//! - [`Phone::kill`](crate::Phone::kill) ends a phone as SIGKILL does.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::ExposeSecret;
use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use longhand_link::{Carrier, CarrierError, Dial, LinkError, RecordSink, RecordStream, Rendezvous};
use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_answer::Answer;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::vault::disk::COMPACT_FROM_BYTES;
pub use crate::vault::disk::DiskWrite;
use crate::vault::{Opened, Passphrase, VaultError};

/// Decides the result of the durable writes of one vault.
pub trait DiskFaults: Send + Sync + 'static {
    /// Called before each write, with the number of bytes in it (0 for [`DiskWrite::LedgerCut`],
    /// [`DiskWrite::LedgerSync`] and [`DiskWrite::HostForget`], which have none).
    fn before(&self, write: DiskWrite, bytes: usize) -> DiskFate;

    /// Called when the power is gone, by the last result of [`DiskFaults::before`]: nothing of this vault is written any more. It comes
    /// before the write returns to the phone, so that the phone's next messages can be suppressed.
    fn power_gone(&self);

    /// The size in bytes from which the ledger is compacted.
    fn compact_from_bytes(&self) -> u64 {
        COMPACT_FROM_BYTES
    }

    /// The time until which the last write, and all that come meanwhile, take: no call returns before it. They are
    /// durable already. Called on a runtime of one thread only.
    fn busy_until(&self) -> Option<Instant> {
        None
    }
}

/// Observes all answers of one phone's signer that could cost money, through all its restarts, such as an audit of what a signer must
/// never sign, which does not rely on the signer's own ledger.
///
/// An answer waits for the ledger. A phone that dies during the write does not know whether it is durable; the next one that is made
/// of the same files does. So a witness keeps an answer until it is reported to be durable, or not to be.
pub trait Witness: Send + Sync + 'static {
    /// The signer has made this answer. It may be sent when the ledger is durable up to record number `version`.
    fn made(&self, said: Said<'_>, version: u64);

    /// The ledger is durable up to record `version`, and the answers that depend on it are sent next.
    fn durable(&self, version: u64);

    /// The signer was restored from the disk, where the ledger ends at record `version`. Answers that depend on it count as sent, since
    /// the signer acts as if they were. Answers that depend on more were never sent, and never will be.
    fn restored(&self, version: u64);
}

/// See [`Witness::made`].
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// An answer to the node.
    Answer(&'a SignerOp, &'a Answer),
    /// A signed invoice, for its payer.
    Invoice {
        /// SHA-256 of the preimage.
        payment_hash: [u8; 32],
        /// 0 = any amount.
        amount_msat: u64,
    },
}

/// The result of a write.
#[derive(Debug)]
pub enum DiskFate {
    /// It succeeds.
    GoOn,
    /// It fails with this error after so many of its bytes; later writes may succeed.
    Fail {
        /// Such as [`io::ErrorKind::StorageFull`].
        error: io::Error,
        /// Bytes that are written all the same; all of them at most.
        written: usize,
    },
    /// The power goes before any of it is written.
    PowerGoneBefore,
    /// The power goes after so many of its bytes. When a file is replaced they are bytes of the new file, which never replaces the old
    /// one.
    PowerGoneTorn {
        /// Bytes that are written; all of them at most.
        written: usize,
    },
    /// The power goes when all of it is durable, before the write returns.
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

    /// Does one write, as far as its fault allows.
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

    /// Behaves as if the power were gone, without a call of [`DiskFaults::power_gone`].
    pub(crate) fn kill(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }
}

/// Whether this is a runtime of one thread, on which no work may be done elsewhere.
pub(crate) fn is_on_one_thread() -> bool {
    use tokio::runtime::{Handle, RuntimeFlavor};
    Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::CurrentThread)
}

/// Opens a vault's seed; on a runtime of one thread once in this process, since a simulated phone is started thousands of times and key
/// derivation takes long on purpose.
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

/// The carriers of a phone, which end when it is killed: from that moment on they send and receive nothing.
pub(crate) struct Lifeline(watch::Sender<bool>);

impl Lifeline {
    pub(crate) fn new() -> Lifeline {
        Lifeline(watch::Sender::new(false))
    }

    pub(crate) fn cut(&self) {
        self.0.send_replace(true);
    }

    /// Dials as `dialer` does; its connections break when the phone is killed.
    pub(crate) fn hold_all<'a>(&'a self, dialer: &'a dyn Dial) -> HeldDial<'a> {
        HeldDial {
            dialer,
            lifeline: self,
        }
    }

    /// The same connection, until the phone is killed.
    fn hold(&self, carrier: Carrier) -> Carrier {
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

/// See [`Lifeline::hold_all`].
pub(crate) struct HeldDial<'a> {
    dialer: &'a dyn Dial,
    lifeline: &'a Lifeline,
}

#[async_trait]
impl Dial for HeldDial<'_> {
    async fn dial(&self, address: &str, meeting: &Rendezvous) -> Result<Carrier, LinkError> {
        let dialled = self.dialer.dial(address, meeting).await;
        dialled.map(|carrier| self.lifeline.hold(carrier))
    }
}

/// A half of a carrier, and whether it is cut.
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
