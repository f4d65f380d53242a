//! One node's state: LDK's objects, the wallet, and what we remember beside them.
//!
//! Everything here is synchronous and does no I/O. It is made by [`Core::load`] from what the store
//! holds, changed by the actor's turns, and thrown away whole after a panic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::bip32::Xpriv;
use bitcoin::block::Header;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Network, Txid};
use lightning::chain::{BlockLocator, Confirm};
use lightning::ln::channel_state::{ChannelDetails, ChannelShutdownState};
use lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler};
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::sign::{EntropySource, KeysManager, NodeSigner};
use lightning::types::payment::PaymentHash;
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
    CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE, KVStoreSync, OUTPUT_SWEEPER_PERSISTENCE_KEY,
    OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE, OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning::util::wallet_utils::WalletSync;
use longhand_chain::{BlockRef, WatchList};
use longhand_proto::command::{ClosedChannel, Payment};
use prost::Message;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::actor::Input;
use crate::agreed::{self, AgreedCloses};
use crate::bumps::Bumps;
use crate::chain_sync::{Connected, Replay};
use crate::gate::Gate;
use crate::graph::{Answers, GossipSync, Queries};
use crate::journal::{Journal, lock};
use crate::keys::KeyRing;
use crate::keys::remote::Remote;
use crate::ldk::{
    Broadcaster, Bumper, ChainMonitor, ChannelManager, Fees, Filter, Gossip, MONITOR_UPDATES,
    PeerManager, Sweeper, user_config,
};
use crate::logger::Logger;
use crate::onchain::Onchain;
use crate::peer::Peers;
use crate::persister::{AtOnce, Persister};
use crate::records::{Claim, Open, Send};
use crate::wallet::{self, SharedWallet, WalletSetup};
use crate::{Keys, NodeConfig, NodeError, NodeEvent, Services};

/// See the module.
pub(crate) struct Core {
    pub config: Arc<NodeConfig>,
    pub services: Services,
    pub journal: Arc<Journal>,
    pub keys: Arc<KeyRing>,
    pub wallet: SharedWallet,
    pub filter: Arc<Filter>,
    pub broadcaster: Arc<Broadcaster>,
    pub chain_monitor: Arc<ChainMonitor>,
    pub persister: Arc<Persister>,
    pub manager: Arc<ChannelManager>,
    pub gate: Arc<Gate>,
    pub peer_manager: Arc<PeerManager>,
    /// Of a hub.
    pub gossip: Option<Arc<GossipSync>>,
    pub sweeper: Sweeper,
    pub onchain: Arc<Onchain>,
    pub bumper: Bumper,
    pub peers: Peers,
    /// Height up to which blocks have come. LDK may not have heard of the last ones yet.
    pub height: u32,
    pub payments: HashMap<PaymentHash, Payment>,
    pub claims: HashMap<PaymentHash, Claim>,
    pub opens: HashMap<u128, Open>,
    pub sends: HashMap<Vec<u8>, Send>,
    /// Where peers with channels can be dialled.
    pub addresses: HashMap<PublicKey, String>,
    /// More fees for forced closes.
    pub bumps: Bumps,
    /// Channels that peers ask for and that are not accepted yet, with the peer.
    pub requests: Vec<(ChannelId, PublicKey)>,
    /// Payments a hub holds for peers that are away.
    pub held: Vec<crate::hold::Held>,
    /// Channels that were closed, by their ids.
    pub closed: HashMap<ChannelId, ClosedChannel>,
    /// What has spent the fundings of channels of whose end LDK has not told yet.
    pub closings: HashMap<ChannelId, Txid>,
    /// Closes that wait to be deep in the chain.
    pub agreed: AgreedCloses,
    /// What the host has to hear of HTLCs that were lost.
    pub losses: Vec<NodeEvent>,
    /// Blocks that the wallet may know already, see `chain_sync.rs`.
    pub replayed: Vec<Connected>,
    /// The newest block, when LDK has not heard of it: see `chain_sync.rs`.
    pub best_untold: Option<(Header, u32)>,
    /// LDK's best block may be one that was reorganised out of the chain.
    pub has_forked: bool,
    /// While it is not known whether the newest block of before is in the chain.
    pub replay: Option<Box<Replay>>,
    /// The sweeps in blocks as they are stored.
    pub swept: Vec<(Txid, u32, Option<BlockHash>)>,
    /// Since the channel manager was last written.
    manager_has_changed: bool,
}

/// Seconds since 1970.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn unreadable(what: &str) -> impl FnOnce(String) -> NodeError {
    let what = what.to_owned();
    move |reason| NodeError::Load(format!("{what}: {reason}"))
}

impl Core {
    /// Reads the node back from its namespace, or begins it. Nothing is written before the first turn.
    pub async fn load(
        config: Arc<NodeConfig>,
        services: Services,
        inbox: mpsc::UnboundedSender<Input>,
        next_connection: u64,
    ) -> Result<Core, NodeError> {
        let journal = Arc::new(Journal::loading(
            services.store.load(&config.namespace).await?,
        ));
        let start = services.chain.tip().ok_or_else(|| {
            NodeError::Load("the chain's tip is not known yet: wait for the chain source".into())
        })?;
        let wallet = load_wallet(&config, &journal, start)?;
        let keys = Arc::new(load_keys(&config, &journal, &wallet)?);
        Core::assemble(
            config,
            services,
            journal,
            wallet,
            keys,
            start,
            inbox,
            next_connection,
        )
    }

    #[allow(clippy::too_many_arguments)]
    fn assemble(
        config: Arc<NodeConfig>,
        services: Services,
        journal: Arc<Journal>,
        wallet: SharedWallet,
        keys: Arc<KeyRing>,
        start: BlockRef,
        inbox: mpsc::UnboundedSender<Input>,
        next_connection: u64,
    ) -> Result<Core, NodeError> {
        let logger = Arc::new(Logger {
            node: config.namespace.clone(),
        });
        let fees = Arc::new(Fees {
            chain: Arc::clone(&services.chain),
        });
        let broadcaster = Arc::new(Broadcaster::default());
        let filter = Arc::new(Filter::default());
        let remote = keys.as_remote().cloned();
        let onchain = Arc::new(Onchain::new(Arc::clone(&wallet), remote.clone()));
        let persister = Arc::new(Persister::new(AtOnce::new(
            Arc::clone(&journal),
            Arc::clone(&logger),
            MONITOR_UPDATES,
            Arc::clone(&keys),
            Arc::clone(&keys),
            Arc::clone(&broadcaster),
            Arc::clone(&fees),
        )));
        let chain_monitor = Arc::new(ChainMonitor::new(
            Some(Arc::clone(&filter)),
            Arc::clone(&broadcaster),
            Arc::clone(&logger),
            Arc::clone(&fees),
            Arc::clone(&persister),
            Arc::clone(&keys),
            keys.get_peer_storage_key(),
            false,
        ));
        let monitors = persister
            .at_once
            .read_all_channel_monitors_with_updates()
            .map_err(|error| unreadable("channel monitors")(error.to_string()))?;
        let mut agreed = agreed::load(&journal)?;
        agreed::Monitors {
            journal: &journal,
            persister: &persister.at_once,
            broadcaster: &broadcaster,
            fees: &fees,
            logger: &logger,
        }
        .end(&mut agreed, monitors.iter().map(|(_, monitor)| monitor))?;
        let ldk = Ldk {
            config: &config,
            services: &services,
            keys: &keys,
            logger: &logger,
        };
        let manager = ldk.manager(
            &journal,
            &chain_monitor,
            &broadcaster,
            &fees,
            monitors.iter().map(|(_, monitor)| monitor).collect(),
            start,
        )?;
        for (_, monitor) in monitors {
            chain_monitor
                .load_existing_monitor(monitor.channel_id(), monitor)
                .map_err(|()| NodeError::Load("a channel monitor is there twice".into()))?;
        }
        let gate = Arc::new(Gate::new(
            Arc::clone(&manager),
            remote.clone(),
            Arc::clone(&journal),
        ));
        for close in agreed.values() {
            gate.close_agreed(close.node_id, close.channel_id);
        }
        let (peer_manager, gossip) = ldk.peer_manager(&gate, &chain_monitor);
        let sweeper = ldk.sweeper(
            &journal,
            &broadcaster,
            &fees,
            &filter,
            &onchain,
            manager.current_best_block(),
        )?;
        let bumper = Bumper::new(
            Arc::clone(&broadcaster),
            Arc::new(WalletSync::new(Arc::clone(&onchain), Arc::clone(&logger))),
            Arc::clone(&keys),
            Arc::clone(&logger),
        );
        let mut core = Core {
            peers: Peers::new(inbox, remote.is_some(), next_connection),
            height: manager.current_best_block().height,
            payments: HashMap::new(),
            claims: HashMap::new(),
            opens: HashMap::new(),
            sends: HashMap::new(),
            addresses: HashMap::new(),
            bumps: Bumps::default(),
            requests: Vec::new(),
            replayed: Vec::new(),
            best_untold: None,
            has_forked: false,
            replay: None,
            held: Vec::new(),
            closed: HashMap::new(),
            closings: HashMap::new(),
            agreed,
            losses: Vec::new(),
            config,
            services,
            journal,
            keys,
            wallet,
            filter,
            broadcaster,
            chain_monitor,
            persister,
            manager,
            gate,
            peer_manager,
            gossip,
            swept: sweeper.get_relevant_txids(),
            sweeper,
            onchain,
            bumper,
            manager_has_changed: false,
        };
        core.load_records()?;
        core.journal.finish_loading();
        Ok(core)
    }

    fn load_records(&mut self) -> Result<(), NodeError> {
        let bad = |what: &str| NodeError::Load(format!("a record of {what}"));
        for (_, bytes) in self.journal.loaded("pay/") {
            let payment = Payment::decode(&bytes[..]).map_err(|_| bad("a payment"))?;
            let hash = <[u8; 32]>::try_from(&payment.payment_hash[..]);
            self.payments
                .insert(PaymentHash(hash.map_err(|_| bad("a payment"))?), payment);
        }
        for (_, bytes) in self.journal.loaded("claim/") {
            let claim = Claim::decode(&bytes[..]).map_err(|_| bad("a claim"))?;
            let hash = claim.hash().ok_or_else(|| bad("a claim"))?;
            self.claims.insert(hash, claim);
        }
        for (_, bytes) in self.journal.loaded("open/") {
            let open = Open::decode(&bytes[..]).map_err(|_| bad("a channel opening"))?;
            let id = open
                .user_channel_id()
                .ok_or_else(|| bad("a channel opening"))?;
            self.opens.insert(id, open);
        }
        for (_, bytes) in self.journal.loaded("send/") {
            let send = Send::decode(&bytes[..]).map_err(|_| bad("an on-chain payment"))?;
            self.sends.insert(send.id.clone(), send);
        }
        for (node_id, bytes) in self.journal.loaded("peer/") {
            if let (Ok(node_id), Ok(address)) = (node_id.parse(), String::from_utf8(bytes)) {
                self.addresses.insert(node_id, address);
            }
        }
        self.load_closed()?;
        self.load_held();
        self.fail_interrupted_opens();
        if let Some(remote) = self.remote() {
            let channels = self.manager.list_channels();
            let alive = channels.iter().map(|channel| channel.user_channel_id);
            remote.retain_channels(&alive.collect());
        }
        Ok(())
    }

    /// The phone's side of the keys, when they are on a phone.
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        self.keys.as_remote()
    }

    /// True when the channel can carry payments both ways: an owner's node needs its peer's forwarding terms
    /// (`channel_update`) to be paid over it.
    pub fn is_usable(&self, channel: &ChannelDetails) -> bool {
        let terms_known = self.config.is_hub || channel.counterparty.forwarding_info.is_some();
        channel.is_usable && terms_known
    }

    /// True while a cooperative close is under way.
    pub fn is_agreeing_on_a_close(&self) -> bool {
        use ChannelShutdownState::{NotShuttingDown, ShutdownComplete};
        let channels = self.manager.list_channels();
        let mut states = channels
            .iter()
            .filter_map(|channel| channel.channel_shutdown_state);
        states.any(|state| !matches!(state, NotShuttingDown | ShutdownComplete))
    }

    /// What has to be watched from the first block on, and the block to go on from: the oldest that any part
    /// of the node knows.
    pub fn subscription(&self) -> (BlockRef, WatchList) {
        let mut from = reference(self.manager.current_best_block());
        for channel_id in self.chain_monitor.list_monitors() {
            if let Ok(monitor) = self.chain_monitor.get_monitor(channel_id) {
                let block = reference(monitor.current_best_block());
                if block.height < from.height {
                    from = block;
                }
            }
        }
        let mut wallet = lock(&self.wallet);
        if wallet.best_block().height < from.height {
            from = wallet.best_block();
        }
        let mut watch = self.filter.take_initial();
        let ours = wallet.take_new_watches();
        watch.scripts.extend(ours.scripts);
        watch.outpoints.extend(ours.outpoints);
        (from, watch)
    }

    /// Everything LDK has that is told of blocks.
    pub fn confirmables(&self) -> [&dyn Confirm; 3] {
        [&*self.chain_monitor, &*self.manager, &self.sweeper]
    }

    /// Whether there is anything that [`Core::write_turn`] would write.
    pub fn has_changed(&mut self) -> bool {
        self.manager_has_changed |= self.manager.get_and_clear_needs_persistence();
        self.manager_has_changed
            || self.persister.has_noted()
            || !self.journal.is_empty()
            || lock(&self.wallet).has_changes()
    }

    /// Puts into the journal what has changed since the last commit and is not there yet.
    pub fn write_turn(&mut self) {
        wallet::write_changes(&mut **lock(&self.wallet), &self.journal);
        self.write_sweeps();
        self.end_settled_claims();
        self.persister.write_noted(&self.chain_monitor);
        let changed = self.manager.get_and_clear_needs_persistence();
        if changed | std::mem::take(&mut self.manager_has_changed) || !self.journal.is_empty() {
            // Ours is the same journal: it never fails.
            let _ = KVStoreSync::write(
                &*self.journal,
                CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
                CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
                CHANNEL_MANAGER_PERSISTENCE_KEY,
                self.manager.encode(),
            );
        }
    }

    /// Watches what the wallet has to do with since this turn.
    pub fn watch_wallet(&self) {
        let watches = lock(&self.wallet).take_new_watches();
        watches
            .scripts
            .into_iter()
            .for_each(|script| self.filter.script(script));
        watches
            .outpoints
            .into_iter()
            .for_each(|outpoint| self.filter.outpoint(outpoint));
    }
}

/// LDK's locator without its ancestors.
pub(crate) fn reference(block: BlockLocator) -> BlockRef {
    BlockRef {
        height: block.height,
        hash: block.block_hash,
    }
}

/// Wallet descriptors: an owner's public ones, or a hub's own with its keys.
fn descriptors(config: &NodeConfig) -> Result<(Zeroizing<String>, Zeroizing<String>), NodeError> {
    match &config.keys {
        Keys::Remote(registration) => Ok((
            registration.external_descriptor.clone().into(),
            registration.internal_descriptor.clone().into(),
        )),
        Keys::Local(seed) => {
            let master = Xpriv::new_master(config.network, &seed[..])
                .map_err(|error| unreadable("the hub's seed")(error.to_string()))?;
            let coin = if config.network == Network::Bitcoin {
                0
            } else {
                1
            };
            Ok((
                format!("wpkh({master}/84h/{coin}h/0h/0/*)").into(),
                format!("wpkh({master}/84h/{coin}h/0h/1/*)").into(),
            ))
        }
    }
}

fn load_wallet(
    config: &NodeConfig,
    journal: &Journal,
    start: BlockRef,
) -> Result<SharedWallet, NodeError> {
    let (external, internal) = descriptors(config)?;
    let setup = WalletSetup {
        namespace: config.namespace.clone(),
        network: config.network,
        external,
        internal,
        birthday: start,
    };
    let wallet = wallet::load(&*config.wallets, &setup, journal)
        .map_err(|error| unreadable("the wallet")(error.to_string()))?;
    if matches!(config.keys, Keys::Remote(_)) && lock(&wallet).holds_keys() {
        let reason = "an owner's descriptor has a private key in it".to_owned();
        return Err(unreadable("the registration")(reason));
    }
    Ok(wallet)
}

fn load_keys(
    config: &NodeConfig,
    journal: &Arc<Journal>,
    wallet: &SharedWallet,
) -> Result<KeyRing, NodeError> {
    match &config.keys {
        Keys::Local(seed) => {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let keys = KeysManager::new(seed, since.as_secs(), since.subsec_nanos(), true);
            KeyRing::local(keys, Arc::clone(wallet))
        }
        Keys::Remote(registration) => {
            let node_id = PublicKey::from_slice(&registration.node_id)
                .map_err(|error| unreadable("the registration")(error.to_string()))?;
            let remote = Remote::load(node_id, Arc::clone(journal), Arc::clone(wallet))
                .ok_or_else(|| NodeError::Load("a record of channel keys".into()))?;
            KeyRing::remote(Arc::new(remote), registration, Arc::clone(wallet))
        }
    }
}

/// Makes LDK's larger objects.
struct Ldk<'a> {
    config: &'a Arc<NodeConfig>,
    services: &'a Services,
    keys: &'a Arc<KeyRing>,
    logger: &'a Arc<Logger>,
}

impl Ldk<'_> {
    fn manager(
        &self,
        journal: &Journal,
        chain_monitor: &Arc<ChainMonitor>,
        broadcaster: &Arc<Broadcaster>,
        fees: &Arc<Fees>,
        monitors: Vec<
            &lightning::chain::channelmonitor::ChannelMonitor<crate::keys::ChannelSigner>,
        >,
        start: BlockRef,
    ) -> Result<Arc<ChannelManager>, NodeError> {
        let config = user_config(self.config.is_hub);
        let router = self
            .services
            .graph
            .router(Arc::clone(self.logger), Arc::clone(self.keys));
        let stored = KVStoreSync::read(
            journal,
            CHANNEL_MANAGER_PERSISTENCE_PRIMARY_NAMESPACE,
            CHANNEL_MANAGER_PERSISTENCE_SECONDARY_NAMESPACE,
            CHANNEL_MANAGER_PERSISTENCE_KEY,
        );
        let Ok(stored) = stored else {
            if !monitors.is_empty() {
                return Err(NodeError::Load("channels without their manager".into()));
            }
            let params = ChainParameters {
                network: self.config.network,
                best_block: BlockLocator::new(start.hash, start.height),
            };
            return Ok(Arc::new(ChannelManager::new(
                Arc::clone(fees),
                Arc::clone(chain_monitor),
                Arc::clone(broadcaster),
                router,
                Arc::new(NullMessageRouter {}),
                Arc::clone(self.logger),
                Arc::clone(self.keys),
                Arc::clone(self.keys),
                Arc::clone(self.keys),
                config,
                params,
                u32::try_from(unix_s()).unwrap_or(u32::MAX),
            )));
        };
        let args = ChannelManagerReadArgs::new(
            Arc::clone(self.keys),
            Arc::clone(self.keys),
            Arc::clone(self.keys),
            Arc::clone(fees),
            Arc::clone(chain_monitor),
            Arc::clone(broadcaster),
            router,
            Arc::new(NullMessageRouter {}),
            Arc::clone(self.logger),
            config,
            monitors,
        );
        <(BlockLocator, Arc<ChannelManager>)>::read(&mut &stored[..], args)
            .map(|(_, manager)| manager)
            .map_err(|error| unreadable("the channel manager")(format!("{error:?}")))
    }

    fn peer_manager(
        &self,
        gate: &Arc<Gate>,
        chain_monitor: &Arc<ChainMonitor>,
    ) -> (Arc<PeerManager>, Option<Arc<GossipSync>>) {
        let ignoring = Arc::new(IgnoringMessageHandler {});
        let answers = Arc::new(Answers::default());
        let sync = self.config.is_hub.then(|| {
            let (chain, logger) = (Arc::clone(&self.services.chain), Arc::clone(self.logger));
            self.services.graph.gossip_sync(chain, logger)
        });
        let gossip: Gossip = match &sync {
            Some(sync) => Arc::new(Queries::new(Arc::clone(sync), Arc::clone(&answers))),
            None => Arc::clone(&ignoring) as Gossip,
        };
        let handler = MessageHandler {
            chan_handler: Arc::clone(gate),
            route_handler: gossip,
            onion_message_handler: Arc::clone(&ignoring),
            custom_message_handler: answers,
            send_only_message_handler: Arc::clone(chain_monitor),
        };
        let manager = PeerManager::new(
            handler,
            u32::try_from(unix_s()).unwrap_or(u32::MAX),
            &self.keys.get_secure_random_bytes(),
            Arc::clone(self.logger),
            Arc::clone(self.keys),
        );
        (Arc::new(manager), sync)
    }

    fn sweeper(
        &self,
        journal: &Arc<Journal>,
        broadcaster: &Arc<Broadcaster>,
        fees: &Arc<Fees>,
        filter: &Arc<Filter>,
        onchain: &Arc<Onchain>,
        best_block: BlockLocator,
    ) -> Result<Sweeper, NodeError> {
        let stored = KVStoreSync::read(
            &**journal,
            OUTPUT_SWEEPER_PERSISTENCE_PRIMARY_NAMESPACE,
            OUTPUT_SWEEPER_PERSISTENCE_SECONDARY_NAMESPACE,
            OUTPUT_SWEEPER_PERSISTENCE_KEY,
        );
        let Ok(stored) = stored else {
            return Ok(Sweeper::new(
                best_block,
                Arc::clone(broadcaster),
                Arc::clone(fees),
                Some(Arc::clone(filter)),
                Arc::clone(self.keys),
                Arc::clone(onchain),
                Arc::clone(journal),
                Arc::clone(self.logger),
            ));
        };
        let args = (
            Arc::clone(broadcaster),
            Arc::clone(fees),
            Some(Arc::clone(filter)),
            Arc::clone(self.keys),
            Arc::clone(onchain),
            Arc::clone(journal),
            Arc::clone(self.logger),
        );
        <(BlockLocator, Sweeper)>::read(&mut &stored[..], args)
            .map(|(_, sweeper)| sweeper)
            .map_err(|error| unreadable("the sweeper")(format!("{error:?}")))
    }
}
