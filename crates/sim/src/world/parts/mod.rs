//! What stands behind the seams of a host and a phone. Each part belongs to the life of one process; when that ends, the
//! part answers nothing more.
//!
//! - `line`: a link's carrier. `pipe`: the connection between two nodes, and wake calls.
//! - `store`: the host's. `disk`: a phone's. `source`: the host's chain source.

mod disk;
mod line;
mod pipe;
mod source;
mod store;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

pub use disk::SimDisk;
pub use line::Line;
pub use pipe::SimNetwork;
pub use source::SimSource;
pub use store::SimStore;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sent to the simulator.
#[derive(Clone, Debug)]
pub enum News {
    /// The host's process has ended.
    HostDied,
    /// A phone's process has ended.
    PhoneDied(usize),
    /// A phone's link was dropped; it cannot come back for so long.
    LinkDropped { phone: usize, away: Duration },
    /// An owner's phone was called.
    Woken(String),
}

/// The life of one process. All its parts look at it; it ends once.
pub struct Life {
    has_ended: AtomicBool,
    ended: watch::Sender<bool>,
    /// Counts the times when every line of the process broke.
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

    /// Cuts every line that it has now.
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
