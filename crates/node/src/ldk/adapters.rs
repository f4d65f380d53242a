//! The small adapters that LDK's objects need.
//!
//! Transactions that LDK broadcasts are collected in [`Broadcaster`], and sent by the driver after the turn is committed.

use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Script, Transaction};
use lightning::chain::chaininterface::{
    BroadcasterInterface, ConfirmationTarget, FEERATE_FLOOR_SATS_PER_KW, FeeEstimator,
    TransactionType,
};
use lightning::chain::{self, WatchedOutput};
use lightning::ln::types::ChannelId;
use lightning::util::config::UserConfig;
use longhand_chain::{FeeRates, Watch, WatchList};

use crate::store::journal::lock;

/// The transaction of a cooperative close, as LDK broadcasts it once.
pub(crate) struct ClosingTransaction {
    pub channel_id: ChannelId,
    pub node_id: PublicKey,
    pub tx: Transaction,
}

/// Collects the transactions that LDK broadcasts in this turn.
#[derive(Default)]
pub(crate) struct Broadcaster {
    packages: Mutex<Vec<Vec<Transaction>>>,
    /// Those of them that close a channel cooperatively.
    coop_closes: Mutex<Vec<ClosingTransaction>>,
}

impl Broadcaster {
    pub fn push(&self, package: Vec<Transaction>) {
        lock(&self.packages).push(package);
    }

    pub fn take(&self) -> Vec<Vec<Transaction>> {
        std::mem::take(&mut lock(&self.packages))
    }

    pub fn take_coop_closes(&self) -> Vec<ClosingTransaction> {
        std::mem::take(&mut lock(&self.coop_closes))
    }

    pub fn len(&self) -> usize {
        lock(&self.packages).len()
    }

    /// The packages after the first `len`.
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
                lock(&self.coop_closes).push(ClosingTransaction {
                    channel_id: *channel_id,
                    node_id: *counterparty_node_id,
                    tx: (*tx).clone(),
                });
            }
        }
        self.push(txs.iter().map(|(tx, _)| (*tx).clone()).collect());
    }
}

/// Fee rates of the host's chain source, as LDK asks for them. They are set with each turn.
pub(crate) struct Fees(Mutex<FeeRates>);

impl Fees {
    pub fn new(rates: FeeRates) -> Fees {
        Fees(Mutex::new(rates))
    }

    pub fn set(&self, rates: FeeRates) {
        *lock(&self.0) = rates;
    }

    pub fn rates(&self) -> FeeRates {
        *lock(&self.0)
    }
}

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        let rates = self.rates();
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

/// Passes outputs, scripts and transaction ids that LDK watches to the follower; collects them until there is a
/// subscription.
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
    /// Everything that was registered while the node was loaded.
    pub fn take_initial(&self) -> WatchList {
        std::mem::take(&mut lock(&self.state).before)
    }

    /// From now on everything goes to `watch`, also everything registered since [`Filter::take_initial`].
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

/// LDK's settings of a hub, or of an owner's node.
pub(crate) fn user_config(is_hub: bool) -> UserConfig {
    let mut config = UserConfig::default();
    let handshake = &mut config.channel_handshake_config;
    handshake.negotiate_anchors_zero_fee_htlc_tx = true;
    handshake.minimum_depth = 3;
    if !is_hub {
        // So long a phone may sleep while its peer, with or without the host, publishes an old commitment.
        handshake.our_to_self_delay = 1_008;
        // An owner's node forwards nothing: its phone would not sign the HTLC. LDK fails what has not so much time.
        config.channel_config.cltv_expiry_delta = u16::MAX;
    }
    handshake.announce_for_forwarding = false;
    // An owner may have a close paid to another address; the phone signs for no other than the one it was asked for.
    handshake.commit_upfront_shutdown_pubkey = false;
    // A phone can be paid all that its channel holds, not a tenth of it.
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
