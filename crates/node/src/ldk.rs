//! LDK's objects as this crate instantiates them, and the small adapters they need.
//!
//! What LDK would send into the world (transactions) is collected in [`Broadcaster`] and let go by
//! the actor after the turn is committed.

use std::sync::{Arc, Mutex};

use bitcoin::{Script, Transaction};
use lightning::chain::chaininterface::{
    BroadcasterInterface, ConfirmationTarget, FEERATE_FLOOR_SATS_PER_KW, FeeEstimator,
    TransactionType,
};
use lightning::chain::{self, WatchedOutput};
use lightning::onion_message::messenger::NullMessageRouter;
use lightning::util::config::UserConfig;
use longhand_chain::{Chain, Watch, WatchList};

use crate::agreed::Agreed;
use crate::gate::Gate;
use crate::graph::{Answers, Router};
use crate::journal::{Journal, lock};
use crate::keys::{ChannelSigner, KeyRing};
use crate::logger::Logger;
use crate::peer::Socket;
use crate::persister::Persister;

pub(crate) type ChainMonitor = lightning::chain::chainmonitor::ChainMonitor<
    ChannelSigner,
    Arc<Filter>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Logger>,
    Arc<Persister>,
    Arc<KeyRing>,
>;

pub(crate) type ChannelManager = lightning::ln::channelmanager::ChannelManager<
    Arc<ChainMonitor>,
    Arc<Broadcaster>,
    Arc<KeyRing>,
    Arc<KeyRing>,
    Arc<KeyRing>,
    Arc<Fees>,
    Arc<Router<Arc<KeyRing>>>,
    Arc<NullMessageRouter>,
    Arc<Logger>,
>;

pub(crate) type PeerManager = lightning::ln::peer_handler::PeerManager<
    Socket,
    Arc<Gate>,
    Gossip,
    Arc<lightning::ln::peer_handler::IgnoringMessageHandler>,
    Arc<Logger>,
    Arc<Answers>,
    Arc<KeyRing>,
    Arc<ChainMonitor>,
>;

/// Gossip for hubs; light nodes ignore it.
pub(crate) type Gossip =
    Arc<dyn lightning::ln::msgs::RoutingMessageHandler + Send + Sync + 'static>;

pub(crate) type Sweeper = lightning::util::sweep::OutputSweeperSync<
    Arc<Broadcaster>,
    Arc<crate::onchain::Onchain>,
    Arc<Fees>,
    Arc<Filter>,
    Arc<Journal>,
    Arc<Logger>,
    Arc<KeyRing>,
>;

pub(crate) type Bumper = lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync<
    Arc<Broadcaster>,
    Arc<lightning::util::wallet_utils::WalletSync<Arc<crate::onchain::Onchain>, Arc<Logger>>>,
    Arc<KeyRing>,
    Arc<Logger>,
>;

/// Incremental monitor updates kept before the whole monitor is written again.
pub(crate) const MONITOR_UPDATES: u64 = 50;

/// Collects what LDK wants broadcast in this turn.
#[derive(Default)]
pub(crate) struct Broadcaster {
    packages: Mutex<Vec<Vec<Transaction>>>,
    /// Those of them that end a channel on which both sides have agreed.
    agreed: Mutex<Vec<Agreed>>,
}

impl Broadcaster {
    pub fn push(&self, package: Vec<Transaction>) {
        lock(&self.packages).push(package);
    }

    pub fn take(&self) -> Vec<Vec<Transaction>> {
        std::mem::take(&mut lock(&self.packages))
    }

    pub fn take_agreed(&self) -> Vec<Agreed> {
        std::mem::take(&mut lock(&self.agreed))
    }

    pub fn len(&self) -> usize {
        lock(&self.packages).len()
    }

    /// What has come since there were so many.
    pub fn since(&self, len: usize) -> Vec<Vec<Transaction>> {
        lock(&self.packages).get(len..).unwrap_or_default().to_vec()
    }
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, txs: &[(&Transaction, TransactionType)]) {
        for (tx, kind) in txs {
            if let TransactionType::CooperativeClose {
                counterparty_node_id,
                channel_id,
            } = kind
            {
                let close = Agreed::new(*counterparty_node_id, *channel_id, (*tx).clone());
                lock(&self.agreed).push(close);
            }
        }
        self.push(txs.iter().map(|(tx, _)| (*tx).clone()).collect());
    }
}

/// Fee rates of the host's chain source, as LDK asks for them.
pub(crate) struct Fees {
    pub chain: Arc<dyn Chain>,
}

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        let rates = self.chain.fee_rates();
        let rate = match target {
            // Pinned to the floor: with anything higher LDK closes peer-funded channels when the
            // fee rate falls, even while disconnected (`check_for_stale_feerate`).
            ConfirmationTarget::MinAllowedAnchorChannelRemoteFee
            | ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => FEERATE_FLOOR_SATS_PER_KW,
            ConfirmationTarget::MaximumFeeEstimate => rates.urgent.saturating_mul(10).max(25_000),
            ConfirmationTarget::UrgentOnChainSweep => rates.urgent,
            ConfirmationTarget::AnchorChannelFee => rates.minimum,
            ConfirmationTarget::NonAnchorChannelFee => rates.normal,
            ConfirmationTarget::ChannelCloseMinimum => rates.background,
            ConfirmationTarget::OutputSpendingFee => rates.normal,
        };
        rate.max(FEERATE_FLOOR_SATS_PER_KW)
    }
}

/// Passes what LDK wants watched to the follower; collects it until there is a subscription.
#[derive(Default)]
pub(crate) struct Filter {
    state: Mutex<FilterState>,
}

#[derive(Default)]
struct FilterState {
    before: WatchList,
    watch: Option<Arc<dyn Watch>>,
}

impl Filter {
    /// What was registered while loading.
    pub fn take_initial(&self) -> WatchList {
        std::mem::take(&mut lock(&self.state).before)
    }

    /// From now on everything goes to `watch`, also what came since [`Filter::take_initial`].
    pub fn connect(&self, watch: Arc<dyn Watch>) {
        let mut state = lock(&self.state);
        let late = std::mem::take(&mut state.before);
        late.outpoints
            .into_iter()
            .for_each(|outpoint| watch.outpoint(outpoint));
        late.scripts
            .into_iter()
            .for_each(|script| watch.script(script));
        late.txids.into_iter().for_each(|txid| watch.txid(txid));
        state.watch = Some(watch);
    }

    pub fn script(&self, script: bitcoin::ScriptBuf) {
        let mut state = lock(&self.state);
        match &state.watch {
            Some(watch) => watch.script(script),
            None => state.before.scripts.push(script),
        }
    }

    pub fn outpoint(&self, outpoint: bitcoin::OutPoint) {
        let mut state = lock(&self.state);
        match &state.watch {
            Some(watch) => watch.outpoint(outpoint),
            None => state.before.outpoints.push(outpoint),
        }
    }
}

impl chain::Filter for Filter {
    fn register_tx(&self, txid: &bitcoin::Txid, script_pubkey: &Script) {
        let mut state = lock(&self.state);
        match &state.watch {
            Some(watch) => {
                watch.txid(*txid);
                watch.script(script_pubkey.to_owned());
            }
            None => {
                state.before.txids.push(*txid);
                state.before.scripts.push(script_pubkey.to_owned());
            }
        }
    }

    fn register_output(&self, output: WatchedOutput) {
        self.outpoint(output.outpoint.into_bitcoin_outpoint());
    }
}

/// How channels are made and run.
pub(crate) fn user_config(is_hub: bool) -> UserConfig {
    let mut config = UserConfig::default();
    let handshake = &mut config.channel_handshake_config;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    handshake.minimum_depth = 3;
    handshake.announce_for_forwarding = false;
    // A phone is paid what its channel holds, not a tenth of it.
    handshake.unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    handshake.announced_channel_max_inbound_htlc_value_in_flight_percentage = 100;
    config
        .channel_handshake_limits
        .force_announced_channel_preference = false;
    config.accept_forwards_to_priv_channels = is_hub;
    config.reject_inbound_splices = true;
    config.enable_dual_funded_channels = false;
    if is_hub {
        // Payments for a phone that is away are held and the phone is woken.
        config.htlc_interception_flags =
            lightning::util::config::HTLCInterceptionFlags::ToOfflinePrivateChannels as u8;
    }
    config
}
