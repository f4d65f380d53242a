//! Reading a node back from the entries of its namespace, or beginning it.

use std::sync::Arc;
use std::time::Instant;

use bitcoin::Network;
use bitcoin::bip32::Xpriv;
use bitcoin::secp256k1::PublicKey;
use lightning::sign::KeysManager;
use longhand_chain::{BlockRef, FeeRates};
use zeroize::Zeroizing;

use super::unread::Unread;
use super::{MANAGER_TICK, NodeMachine, REBROADCAST};
use crate::api::{Keys, NodeConfig, NodeError, State};
use crate::graph::{GossipSync, Graph};
use crate::keys::KeyRing;
use crate::keys::remote::Remote;
use crate::ldk::objects::{Monitors, unreadable};
use crate::machine::output::Output;
use crate::machine::timers::{Timer, TimerTable};
use crate::machine::turn::{Now, Turn};
use crate::onchain::Onchain;
use crate::parts::acceptance::Acceptance;
use crate::parts::announcements::Announcements;
use crate::parts::block_filters::BlockFilters;
use crate::parts::chain_feed::ChainFeed;
use crate::parts::claims::Claims;
use crate::parts::closed_channels::ClosedChannels;
use crate::parts::connections::Connections;
use crate::parts::coop_closes::CoopCloses;
use crate::parts::dialing::Dialing;
use crate::parts::fee_bumps::FeeBumps;
use crate::parts::forwarding::Forwarding;
use crate::parts::funding_proofs::FundingProofs;
use crate::parts::held_forwards::HeldForwards;
use crate::parts::onchain_sends::OnchainSends;
use crate::parts::openings::Openings;
use crate::parts::payments::Payments;
use crate::parts::requests::Requests;
use crate::parts::signer_headers::SignerHeaders;
use crate::parts::signer_session::SignerSession;
use crate::parts::sweeps::Sweeps;
use crate::parts::wallet_scan::WalletScan;
use crate::store::journal::{Journal, lock};
use crate::store::schema::{VERSION, key};
use crate::wallet::{self, SharedWallet, WalletSetup};

/// Everything that a node is loaded from.
pub(crate) struct Loading {
    pub config: Arc<NodeConfig>,
    pub graph: Arc<Graph>,
    /// Of a hub.
    pub gossip: Option<Arc<GossipSync>>,
    /// The entries of the node's namespace, without its history ([`key::HISTORY`]).
    pub entries: Vec<(String, Vec<u8>)>,
    /// The chain's tip: where a new node begins.
    pub tip: BlockRef,
    pub fee_rates: FeeRates,
    pub now: Now,
    /// Of the signer session; see [`super::NodeMachine::next_generation`].
    pub generation: u64,
}

/// Reads wallet, keys, LDK's objects and all parts. Nothing is written before the first commit.
///
/// # Errors
/// [`NodeError::Load`] when a record cannot be read, or is of a newer version.
pub(super) fn load(loading: Loading) -> Result<NodeMachine, NodeError> {
    let journal = Arc::new(Journal::loading(loading.entries));
    check_version(&journal)?;
    let config = loading.config;
    let wallet = load_wallet(&config, &journal, loading.tip)?;
    let keys = Arc::new(load_keys(&config, &journal, &wallet, loading.now)?);
    let onchain = Arc::new(Onchain::new(Arc::clone(&wallet), keys.as_remote().cloned()));
    let (namespace, rates) = (&config.namespace, loading.fee_rates);
    let monitors = Monitors::read(namespace, Arc::clone(&journal), keys, rates)?;
    let mut coop_closes = CoopCloses::load(&journal)?;
    coop_closes.end_monitors(&monitors)?;
    let ldk = monitors.load(
        &config,
        &loading.graph,
        loading.gossip,
        onchain,
        loading.tip,
        loading.now.unix_s(),
    )?;
    coop_closes.close_gate(&ldk.gate);
    let turn = Turn {
        height: ldk.manager.current_best_block().height,
        config,
        graph: loading.graph,
        journal: Arc::clone(&journal),
        wallet,
        ldk,
        now: loading.now,
        output: Output::default(),
    };
    let mut openings = Openings::load(&journal)?;
    openings.fail_interrupted(&turn);
    if let Some(remote) = turn.remote() {
        let channels = turn.channels();
        let alive = channels.iter().map(|channel| channel.user_channel_id);
        remote.retain_channels(&alive.collect());
    }
    let machine = NodeMachine {
        timers: first_timers(turn.now.instant),
        state: State::Dormant,
        restarts: 0,
        is_restless: false,
        close_ticks: 0,
        dials: Vec::new(),
        acceptance: Acceptance::default(),
        announcements: Announcements::default(),
        chain_feed: ChainFeed::default(),
        claims: Claims::load(&journal)?,
        closed_channels: ClosedChannels::load(&journal)?,
        connections: Connections::default(),
        coop_closes,
        dialing: Dialing::load(&journal, &openings),
        fee_bumps: FeeBumps::default(),
        forwarding: Forwarding::load(&journal),
        block_filters: BlockFilters::default(),
        funding_proofs: FundingProofs::load(&journal)?,
        held_forwards: HeldForwards::load(&journal),
        onchain_sends: OnchainSends::load(&journal)?,
        openings,
        payments: Payments::load(&journal)?,
        requests: Requests::default(),
        session: SignerSession::new(turn.remote().is_none(), loading.generation),
        signer_headers: SignerHeaders::default(),
        sweeps: Sweeps::load(&turn),
        wallet_scan: WalletScan::load(&turn, loading.tip)?,
        unread: Unread::default(),
        #[cfg(feature = "testing")]
        panics_when_attached: 0,
        turn,
    };
    journal.finish_loading();
    Ok(machine)
}

fn first_timers(now: Instant) -> TimerTable {
    let mut timers = TimerTable::new(now);
    timers.set(Timer::CheckPeers, now);
    timers.set(Timer::ManagerTick, now + MANAGER_TICK);
    timers.set(Timer::Announcement, now);
    timers.set(Timer::Rebroadcast, now + REBROADCAST);
    timers
}

/// Refuses records of a newer program, and has the version written with the first commit if it is not.
fn check_version(journal: &Journal) -> Result<(), NodeError> {
    let stored = match journal.loaded_one(key::VERSION) {
        None => 1,
        Some(bytes) => {
            let bytes = <[u8; 4]>::try_from(&bytes[..]);
            let bytes = bytes.map_err(|_| NodeError::Load("the records' version".into()))?;
            u32::from_be_bytes(bytes)
        }
    };
    if stored > VERSION {
        return Err(NodeError::Load(format!(
            "its records have version {stored}, this program knows up to {VERSION}: use a newer Longhand"
        )));
    }
    if stored < VERSION {
        journal.put(key::VERSION, VERSION.to_be_bytes().to_vec());
    }
    Ok(())
}

/// Descriptors of the wallet: an owner's public ones, or a hub's own with its keys.
fn descriptors(config: &NodeConfig) -> Result<(Zeroizing<String>, Zeroizing<String>), NodeError> {
    match &config.keys {
        Keys::Remote(registration) => Ok((
            registration.external_descriptor.clone().into(),
            registration.internal_descriptor.clone().into(),
        )),
        Keys::Local(seed) => {
            let master = Xpriv::new_master(config.network, &seed[..])
                .map_err(|error| unreadable("the hub's seed")(error.to_string()))?;
            let coin = match config.network {
                Network::Bitcoin => 0,
                _ => 1,
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
    now: Now,
) -> Result<KeyRing, NodeError> {
    match &config.keys {
        Keys::Local(seed) => {
            // LDK derives ephemeral keys from the start time, which must be another one with each start.
            let start = now.since_1970;
            let keys = KeysManager::new(seed, start.as_secs(), start.subsec_nanos(), true);
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
