//! Simulated transports, disks and chain source of a host and its phones. Each part belongs to the life of one process;
//! when that ends, the part does not answer any more.
//!
//! - `line`: a link's carrier, or a connection to the relay. `relay`: the mailbox at which hosts and phones meet. `hashmail`: the
//!   calls to it, where they meet at its hashmail.
//! - `pipe`: the connection between two nodes, and wake calls.
//! - `store`: the host's. `disk`: a phone's. `source`: the host's chain source.

mod disk;
mod hashmail;
mod line;
mod pipe;
mod relay;
mod source;
mod store;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use disk::SimDisk;
pub use hashmail::{DialHashmail, ToHashmail};
pub use line::{Line, LineEnd};
pub use pipe::SimNetwork;
pub use relay::SimRelay;
pub use source::SimSource;
pub use store::SimStore;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process that makes a connection: a phone to the host, and either to the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// An owner's phone.
    Phone(usize),
    /// The host.
    Host,
}

/// Event for the simulator.
#[derive(Clone, Debug)]
pub enum News {
    /// The host's process has ended.
    HostDied,
    /// A phone's process has ended.
    PhoneDied(usize),
    /// A connection was dropped; its client cannot reconnect for so long.
    LinkDropped { client: Client, away: Duration },
    /// The relay's process has ended.
    RelayDied,
    /// A wake call was sent to an owner's phone.
    Woken(String),
}

/// The life of one process, shared by all its parts; it ends once.
pub struct Life {
    has_ended: AtomicBool,
    ended: watch::Sender<bool>,
    /// Counts how often all lines of the process were cut.
    breaks: watch::Sender<u32>,
    news: mpsc::UnboundedSender<News>,
    died: News,
}

impl Life {
    pub fn begin(died: News, news: mpsc::UnboundedSender<News>) -> Arc<Life> {
        Arc::new(Life {
            has_ended: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            breaks: watch::Sender::new(0),
            news,
            died,
        })
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Returns when it has ended.
    pub async fn over(&self) {
        // The sender is here: waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Cuts every line that the process has now.
    pub fn break_lines(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Ends it in this instant, as a crash does: it is started again.
    pub fn end(&self) {
        if self.retire() {
            let _ = self.news.send(self.died.clone());
        }
    }

    /// Ends it for good. False when it had ended before.
    pub fn retire(&self) -> bool {
        let ends = !self.has_ended.swap(true, Ordering::SeqCst);
        self.ended.send_replace(true);
        ends
    }
}
