//! The part of the machine that is lent to each of its parts: LDK's objects, wallet, journal, height, time and output.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelDetails;
use lightning::sign::EntropySource;

use crate::api::NodeConfig;
use crate::graph::Graph;
use crate::keys::remote::Remote;
use crate::ldk::objects::Ldk;
use crate::machine::output::Output;
use crate::store::journal::{Journal, lock};
use crate::wallet::{OnchainWallet, SharedWallet};

/// The time of a turn. The driver reads the clocks; nothing below it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// For timers and limits.
    pub instant: Instant,
    /// For records, invoices and scores.
    pub since_1970: Duration,
}

impl Now {
    /// Seconds since 1970.
    pub fn unix_s(&self) -> u64 {
        self.since_1970.as_secs()
    }
}

/// See the module. Everything that a part writes or sends waits here until the turn is committed.
pub(crate) struct Turn {
    pub config: Arc<NodeConfig>,
    pub graph: Arc<Graph>,
    pub journal: Arc<Journal>,
    pub wallet: SharedWallet,
    pub ldk: Ldk,
    /// Height up to which blocks have come. LDK may not know the last ones yet.
    pub height: u32,
    pub now: Now,
    pub output: Output,
}

impl Turn {
    /// The phone's side of the keys; `None` with local keys.
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        self.ldk.keys.as_remote()
    }

    pub fn wallet(&self) -> MutexGuard<'_, Box<dyn OnchainWallet>> {
        lock(&self.wallet)
    }

    pub fn node_id(&self) -> PublicKey {
        self.ldk.keys.node_id()
    }

    /// LDK's open channels, whatever their state.
    pub fn channels(&self) -> Vec<ChannelDetails> {
        self.ldk.manager.list_channels()
    }

    /// True when the peer is connected and has sent `init`.
    pub fn is_connected(&self, node_id: &PublicKey) -> bool {
        self.ldk.peer_manager.peer_by_node_id(node_id).is_some()
    }

    /// True when the channel can carry payments both ways: an owner's node needs its peer's forwarding terms
    /// (`channel_update`) to be paid over it.
    pub fn is_usable(&self, channel: &ChannelDetails) -> bool {
        let terms_known = self.config.is_hub || channel.counterparty.forwarding_info.is_some();
        channel.is_usable && terms_known
    }

    /// Whether anything has changed since the last commit.
    pub fn has_changed(&mut self) -> bool {
        self.ldk.has_changed() || !self.journal.is_empty() || self.wallet().has_changes()
    }

    /// A channel id that was never used.
    pub fn random_channel_id(&self) -> u128 {
        let bytes = self.ldk.keys.get_secure_random_bytes();
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        u128::from_be_bytes(id)
    }

    /// Watches the scripts and outputs that are the wallet's since the last call.
    pub fn watch_wallet(&self) {
        let watches = self.wallet().take_new_watches();
        let filter = &self.ldk.filter;
        watches.scripts.into_iter().for_each(|it| filter.script(it));
        let outpoints = watches.outpoints.into_iter();
        outpoints.for_each(|it| filter.outpoint(it));
    }
}
