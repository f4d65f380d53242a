//! Writing channel monitors.
//!
//! LDK writes a whole monitor with every block that may concern it. A turn may take in many blocks and is kept as one, so
//! here such a monitor is only noted, and written once, when the turn is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::ln::types::ChannelId;
use lightning::util::persist::{MonitorName, MonitorUpdatingPersister};

use crate::journal::{Journal, lock};
use crate::keys::{ChannelSigner, KeyRing};
use crate::ldk::{Broadcaster, ChainMonitor, Fees};
use crate::logger::Logger;

/// LDK's, which writes to the journal at once.
pub(crate) type AtOnce = MonitorUpdatingPersister<
    Arc<Journal>,
    Arc<Logger>,
    Arc<KeyRing>,
    Arc<KeyRing>,
    Arc<Broadcaster>,
    Arc<Fees>,
>;

/// See the module.
pub(crate) struct Persister {
    pub at_once: AtOnce,
    /// Channels whose monitors are still to be written in this turn.
    noted: Mutex<BTreeSet<ChannelId>>,
}

impl Persister {
    pub fn new(at_once: AtOnce) -> Persister {
        Persister {
            at_once,
            noted: Mutex::default(),
        }
    }

    /// Has a channel's monitor written with this turn.
    pub fn note(&self, channel_id: ChannelId) {
        lock(&self.noted).insert(channel_id);
    }

    /// Whether the turn has monitors to write.
    pub fn has_noted(&self) -> bool {
        !lock(&self.noted).is_empty()
    }

    /// Writes them. One that was given up since has nothing more to be kept.
    pub fn write_noted(&self, monitors: &ChainMonitor) {
        for channel_id in std::mem::take(&mut *lock(&self.noted)) {
            if let Ok(monitor) = monitors.get_monitor(channel_id) {
                // The journal never fails.
                let name = monitor.persistence_key();
                self.at_once.update_persisted_channel(name, None, &monitor);
            }
        }
    }
}

impl Persist<ChannelSigner> for Persister {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<ChannelSigner>,
    ) -> ChannelMonitorUpdateStatus {
        self.at_once.persist_new_channel(name, monitor)
    }

    /// "Completed" means that the turn has it: nothing leaves the node before that is kept.
    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<ChannelSigner>,
    ) -> ChannelMonitorUpdateStatus {
        match update {
            Some(_) => self.at_once.update_persisted_channel(name, update, monitor),
            None => {
                self.note(monitor.channel_id());
                ChannelMonitorUpdateStatus::Completed
            }
        }
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        Persist::<ChannelSigner>::archive_persisted_channel(&self.at_once, name);
    }
}
