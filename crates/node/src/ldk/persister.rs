//! Writing channel monitors.
//!
//! LDK writes a whole monitor with every block that may concern it. A turn may take in many blocks and is committed as
//! one, so such a monitor is only noted here, and written once, with the turn.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::ln::types::ChannelId;
use lightning::util::persist::{MonitorName, MonitorUpdatingPersister};

use crate::keys::{ChannelSigner, KeyRing};
use crate::ldk::adapters::{Broadcaster, Fees};
use crate::ldk::logger::Logger;
use crate::store::journal::{Journal, lock};

/// LDK's persister, which writes to the journal at once.
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

    /// Takes the channels whose monitors are to be written with this turn.
    pub fn take_noted(&self) -> BTreeSet<ChannelId> {
        std::mem::take(&mut *lock(&self.noted))
    }

    /// Writes a whole monitor. The journal never fails.
    pub fn write(&self, monitor: &ChannelMonitor<ChannelSigner>) {
        let name = monitor.persistence_key();
        self.at_once.update_persisted_channel(name, None, monitor);
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

    /// "Completed" means that the turn has it: nothing leaves the node before the turn is committed.
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
