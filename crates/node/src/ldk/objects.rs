//! All of LDK's objects of one node: loaded from the journal, and written with each turn.
//!
//! They are loaded in two steps. [`Monitors`] are read first; what changes them must do so before the channel manager is
//! read, because it compares its channels with them. [`Monitors::load`] then makes the rest.

use std::sync::Arc;

use lightning::chain::chainmonitor::ChainMonitor as LdkChainMonitor;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BlockLocator, Confirm};
use lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync;
use lightning::events::{Event, EventsProvider};
use lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use lightning::ln::msgs::RoutingMessageHandler;
use lightning::ln::peer_handler::{
    IgnoringMessageHandler, MessageHandler, PeerManager as LdkPeerManager,
};
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::sign::{EntropySource, NodeSigner};
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE, KVStoreSync, OUTPUT_SWEEPER_PERSISTENCE_KEY,
    OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE, OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning::util::sweep::OutputSweeperSync;
use lightning::util::wallet_utils::WalletSync;
use longhand_chain::{BlockRef, FeeRates};

use crate::api::{NodeConfig, NodeError};
use crate::graph::{Answers, GossipSync, Graph, Queries};
use crate::keys::{ChannelSigner, KeyRing};
use crate::ldk::adapters::{Broadcaster, Fees, Filter, user_config};
use crate::ldk::gate::Gate;
use crate::ldk::logger::Logger;
use crate::ldk::persister::{AtOnce, Persister};
use crate::ldk::socket::Socket;
use crate::ldk::types::{ChainMonitor, ChannelManager};
use crate::onchain::Onchain;
use crate::store::journal::{Journal, lock};

pub(crate) type PeerManager = LdkPeerManager<
    Socket,
    Arc<Gate>,
    Gossip,
    Arc<IgnoringMessageHandler>,
    Arc<Logger>,
    Arc<Answers>,
    Arc<KeyRing>,
    Arc<ChainMonitor>,
>;

/// Gossip for hubs; light nodes ignore it.
type Gossip = Arc<dyn RoutingMessageHandler + Send + Sync + 'static>;

pub(crate) type Sweeper = OutputSweeperSync<
    Arc<Broadcaster>,
    Arc<Onchain>,
    Arc<Fees>,
    Arc<Filter>,
    Arc<Journal>,
    Arc<Logger>,
    Arc<KeyRing>,
>;

pub(crate) type Bumper = BumpTransactionEventHandlerSync<
    Arc<Broadcaster>,
    Arc<WalletSync<Arc<Onchain>, Arc<Logger>>>,
    Arc<KeyRing>,
    Arc<Logger>,
>;

type Monitor = ChannelMonitor<ChannelSigner>;

/// Incremental monitor updates kept before the whole monitor is written again.
const MONITOR_UPDATES: u64 = 50;

/// See the module.
pub(crate) struct Ldk {
    pub keys: Arc<KeyRing>,
    pub filter: Arc<Filter>,
    pub broadcaster: Arc<Broadcaster>,
    pub fees: Arc<Fees>,
    pub chain_monitor: Arc<ChainMonitor>,
    pub persister: Arc<Persister>,
    pub manager: Arc<ChannelManager>,
    pub gate: Arc<Gate>,
    pub peer_manager: PeerManager,
    pub sweeper: Sweeper,
    pub onchain: Arc<Onchain>,
    pub bumper: Bumper,
    journal: Arc<Journal>,
    /// Since the channel manager was last written.
    manager_has_changed: bool,
}

impl Ldk {
    /// Everything of LDK's that follows the chain.
    pub fn confirmables(&self) -> [&dyn Confirm; 3] {
        [&*self.chain_monitor, &*self.manager, &self.sweeper]
    }

    /// The block up to which LDK's objects have followed the chain: the oldest of theirs.
    pub fn oldest_block(&self) -> BlockRef {
        let mut oldest = reference(self.manager.current_best_block());
        for channel_id in self.chain_monitor.list_monitors() {
            if let Ok(monitor) = self.chain_monitor.get_monitor(channel_id) {
                let block = reference(monitor.current_best_block());
                if block.height < oldest.height {
                    oldest = block;
                }
            }
        }
        oldest
    }

    /// Takes the events of channel manager and chain monitor.
    pub fn take_events(&self) -> Vec<Event> {
        let events = std::sync::Mutex::new(Vec::new());
        let take = |event: Event| {
            lock(&events).push(event);
            Ok(())
        };
        self.manager.process_pending_events(&take);
        self.chain_monitor.process_pending_events(&take);
        events.into_inner().unwrap_or_default()
    }

    /// Whether [`Ldk::write_manager`] or the persister has something to write.
    pub fn has_changed(&mut self) -> bool {
        self.manager_has_changed |= self.manager.get_and_clear_needs_persistence();
        self.manager_has_changed || self.persister.has_noted()
    }

    /// Writes the monitors that blocks have changed. One that was archived since is not written again.
    pub fn write_monitors(&self) {
        for channel_id in self.persister.take_noted() {
            if let Ok(monitor) = self.chain_monitor.get_monitor(channel_id) {
                self.persister.write(&monitor);
            }
        }
    }

    /// Writes the channel manager when it has changed, or when anything else of the turn is written: its record is then
    /// of the same turn as all others.
    pub fn write_manager(&mut self) {
        let changed = self.manager.get_and_clear_needs_persistence();
        if changed | std::mem::take(&mut self.manager_has_changed) || !self.journal.is_empty() {
            // The journal never fails.
            let _ = KVStoreSync::write(
                &*self.journal,
                CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
                CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
                CHANNEL_MANAGER_PERSISTENCE_KEY,
                self.manager.encode(),
            );
        }
    }
}

/// LDK's locator without its ancestors.
pub(crate) fn reference(block: BlockLocator) -> BlockRef {
    BlockRef {
        height: block.height,
        hash: block.block_hash,
    }
}

/// A record in the store that cannot be read.
pub(crate) fn unreadable(record: &str) -> impl FnOnce(String) -> NodeError {
    let record = record.to_owned();
    move |reason| NodeError::Load(format!("{record}: {reason}"))
}

/// The channel monitors of a node that is being loaded, and the adapters that all of LDK's objects share.
pub(crate) struct Monitors {
    pub broadcaster: Arc<Broadcaster>,
    pub fees: Arc<Fees>,
    pub logger: Arc<Logger>,
    pub persister: Arc<Persister>,
    pub journal: Arc<Journal>,
    monitors: Vec<Monitor>,
    filter: Arc<Filter>,
    keys: Arc<KeyRing>,
}

impl Monitors {
    /// Reads the monitors from the journal.
    ///
    /// # Errors
    /// [`NodeError::Load`] when one cannot be read.
    pub fn read(
        namespace: &str,
        journal: Arc<Journal>,
        keys: Arc<KeyRing>,
        rates: FeeRates,
    ) -> Result<Monitors, NodeError> {
        let logger = Arc::new(Logger {
            node: namespace.to_owned(),
        });
        let fees = Arc::new(Fees::new(rates));
        let broadcaster = Arc::new(Broadcaster::default());
        let persister = Arc::new(Persister::new(AtOnce::new(
            Arc::clone(&journal),
            Arc::clone(&logger),
            MONITOR_UPDATES,
            Arc::clone(&keys),
            Arc::clone(&keys),
            Arc::clone(&broadcaster),
            Arc::clone(&fees),
        )));
        let read = persister.at_once.read_all_channel_monitors_with_updates();
        let read = read.map_err(|error| unreadable("channel monitors")(error.to_string()))?;
        let monitors = read.into_iter().map(|(_, monitor)| monitor).collect();
        Ok(Monitors {
            broadcaster,
            fees,
            logger,
            persister,
            journal,
            monitors,
            filter: Arc::default(),
            keys,
        })
    }

    /// The monitors, to be changed before [`Monitors::load`].
    pub fn all(&self) -> impl Iterator<Item = &Monitor> {
        self.monitors.iter()
    }

    /// Makes LDK's other objects. A node without a stored channel manager begins at the block `start`.
    ///
    /// # Errors
    /// [`NodeError::Load`] when a record cannot be read, or records do not fit each other.
    pub fn load(
        self,
        config: &NodeConfig,
        graph: &Graph,
        gossip: Option<Arc<GossipSync>>,
        onchain: Arc<Onchain>,
        start: BlockRef,
        now_unix_s: u64,
    ) -> Result<Ldk, NodeError> {
        let now_unix_s = u32::try_from(now_unix_s).unwrap_or(u32::MAX);
        let chain_monitor = Arc::new(LdkChainMonitor::new(
            Some(Arc::clone(&self.filter)),
            Arc::clone(&self.broadcaster),
            Arc::clone(&self.logger),
            Arc::clone(&self.fees),
            Arc::clone(&self.persister),
            Arc::clone(&self.keys),
            self.keys.get_peer_storage_key(),
            false,
        ));
        let manager = self.manager(config, graph, &chain_monitor, start, now_unix_s)?;
        let best_block = manager.current_best_block();
        let gate = Arc::new(Gate::new(
            Arc::clone(&manager),
            self.keys.as_remote().cloned(),
            Arc::clone(&self.journal),
        ));
        let peer_manager = self.peer_manager(&gate, &chain_monitor, gossip, now_unix_s);
        let sweeper = self.sweeper(&onchain, best_block)?;
        let bumper = Bumper::new(
            Arc::clone(&self.broadcaster),
            Arc::new(WalletSync::new(
                Arc::clone(&onchain),
                Arc::clone(&self.logger),
            )),
            Arc::clone(&self.keys),
            Arc::clone(&self.logger),
        );
        for monitor in self.monitors {
            chain_monitor
                .load_existing_monitor(monitor.channel_id(), monitor)
                .map_err(|()| NodeError::Load("a channel monitor is there twice".into()))?;
        }
        Ok(Ldk {
            keys: self.keys,
            filter: self.filter,
            broadcaster: self.broadcaster,
            fees: self.fees,
            chain_monitor,
            persister: self.persister,
            manager,
            gate,
            peer_manager,
            sweeper,
            onchain,
            bumper,
            journal: self.journal,
            manager_has_changed: false,
        })
    }

    fn manager(
        &self,
        config: &NodeConfig,
        graph: &Graph,
        chain_monitor: &Arc<ChainMonitor>,
        start: BlockRef,
        now_unix_s: u32,
    ) -> Result<Arc<ChannelManager>, NodeError> {
        let user_config = user_config(config.is_hub);
        let router = graph.router(Arc::clone(&self.logger), Arc::clone(&self.keys));
        let stored = KVStoreSync::read(
            &*self.journal,
            CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
            CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
            CHANNEL_MANAGER_PERSISTENCE_KEY,
        );
        let Ok(stored) = stored else {
            if !self.monitors.is_empty() {
                return Err(NodeError::Load("channels without their manager".into()));
            }
            let params = ChainParameters {
                network: config.network,
                best_block: BlockLocator::new(start.hash, start.height),
            };
            return Ok(Arc::new(ChannelManager::new(
                Arc::clone(&self.fees),
                Arc::clone(chain_monitor),
                Arc::clone(&self.broadcaster),
                router,
                Arc::new(NullMessageRouter {}),
                Arc::clone(&self.logger),
                Arc::clone(&self.keys),
                Arc::clone(&self.keys),
                Arc::clone(&self.keys),
                user_config,
                params,
                now_unix_s,
            )));
        };
        let args = ChannelManagerReadArgs::new(
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::clone(&self.fees),
            Arc::clone(chain_monitor),
            Arc::clone(&self.broadcaster),
            router,
            Arc::new(NullMessageRouter {}),
            Arc::clone(&self.logger),
            user_config,
            self.monitors.iter().collect(),
        );
        <(BlockLocator, Arc<ChannelManager>)>::read(&mut &stored[..], args)
            .map(|(_, manager)| manager)
            .map_err(|error| unreadable("the channel manager")(format!("{error:?}")))
    }

    fn peer_manager(
        &self,
        gate: &Arc<Gate>,
        chain_monitor: &Arc<ChainMonitor>,
        gossip: Option<Arc<GossipSync>>,
        now_unix_s: u32,
    ) -> PeerManager {
        let ignoring = Arc::new(IgnoringMessageHandler {});
        let answers = Arc::new(Answers::default());
        let gossip: Gossip = match gossip {
            Some(sync) => Arc::new(Queries::new(sync, Arc::clone(&answers))),
            None => Arc::clone(&ignoring) as Gossip,
        };
        let handler = MessageHandler {
            chan_handler: Arc::clone(gate),
            route_handler: gossip,
            onion_message_handler: Arc::clone(&ignoring),
            custom_message_handler: answers,
            send_only_message_handler: Arc::clone(chain_monitor),
        };
        PeerManager::new(
            handler,
            now_unix_s,
            &self.keys.get_secure_random_bytes(),
            Arc::clone(&self.logger),
            Arc::clone(&self.keys),
        )
    }

    fn sweeper(
        &self,
        onchain: &Arc<Onchain>,
        best_block: BlockLocator,
    ) -> Result<Sweeper, NodeError> {
        let stored = KVStoreSync::read(
            &*self.journal,
            OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE,
            OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
            OUTPUT_SWEEPER_PERSISTENCE_KEY,
        );
        let Ok(stored) = stored else {
            return Ok(Sweeper::new(
                best_block,
                Arc::clone(&self.broadcaster),
                Arc::clone(&self.fees),
                Some(Arc::clone(&self.filter)),
                Arc::clone(&self.keys),
                Arc::clone(onchain),
                Arc::clone(&self.journal),
                Arc::clone(&self.logger),
            ));
        };
        let args = (
            Arc::clone(&self.broadcaster),
            Arc::clone(&self.fees),
            Some(Arc::clone(&self.filter)),
            Arc::clone(&self.keys),
            Arc::clone(onchain),
            Arc::clone(&self.journal),
            Arc::clone(&self.logger),
        );
        <(BlockLocator, Sweeper)>::read(&mut &stored[..], args)
            .map(|(_, sweeper)| sweeper)
            .map_err(|error| unreadable("the sweeper")(format!("{error:?}")))
    }
}
