//! The owner's commands.
//!
//! Each is checked before anything is changed. Those that read are answered whatever the state of the
//! node; those that need the signer answer `SIGNER_AWAY` at once while it is away. What takes longer than a
//! turn becomes a record (`spending.rs`) and the reply waits for it.

use bitcoin::address::NetworkUnchecked;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Network};
use lightning::chain::channelmonitor::Balance as Claimable;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{
    Bolt11InvoiceParameters, OptionalBolt11PaymentParams, PaymentId,
};
use lightning::ln::outbound_payment::{Bolt11PaymentError, Retry, RetryableSendFailure};
use lightning::ln::types::ChannelId;
use lightning::routing::router::RouteParametersConfig;
use lightning::types::payment::PaymentHash;
use lightning::util::sweep::{OutputSpendStatus, TrackedSpendableOutput};
use lightning_invoice::{
    Bolt11Invoice, Bolt11InvoiceDescription, Currency, Description, InvoiceBuilder,
    RawBolt11Invoice, RouteHint, RouteHintHop, RoutingFees,
};
use longhand_proto::MIN_CHANNEL_SAT;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command::Command::*;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{
    Address as AddressReply, Balance, Channel, Channels, CloseChannel, ClosingChannel, Command,
    CommandReply, CreateInvoice, Error, Info, NewAddress, OpenChannel, Pay, Payment, Payments,
    PeerConnected, SendOnchain, SignerStats, UnsignedInvoice, error::Action, payment,
};

use crate::core::{Core, unix_s};
use crate::events::ANCHOR_RESERVE_SAT;
use crate::journal::lock;
use crate::records::{self, user_channel_id};
use crate::wallet::SendAmount;

/// Blocks a payer must leave an owner to claim (BOLT 11 `c`): a day, where LDK would do with 42 blocks. LDK gives up what is
/// not settled 39 blocks before it expires, and a phone that has gone meanwhile needs time to be called and to come.
const MIN_FINAL_CLTV_EXPIRY_DELTA: u16 = 144;
/// How long LDK looks for other routes.
const RETRY_FOR: std::time::Duration = std::time::Duration::from_secs(30);

/// What a reply waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Payment(PaymentHash),
    Opened(u128),
    Usable(u128),
    Sent(Vec<u8>),
    Peer(PublicKey),
}

/// What comes of a command in its own turn.
pub(crate) enum Outcome {
    Now(Reply),
    Later(Wait),
}

type Answer = Result<Outcome, Error>;

/// An error for a person and a program.
pub(crate) fn error(code: &str, action: Action, message: impl Into<String>) -> Error {
    Error {
        code: code.to_owned(),
        message: message.into(),
        action: action.into(),
    }
}

/// A reply that is an error.
pub(crate) fn refused(error: Error) -> CommandReply {
    CommandReply {
        reply: Some(Reply::Error(error)),
    }
}

/// What needs the phone fails with this while it is away.
pub(crate) fn signer_away() -> Error {
    error(
        "SIGNER_AWAY",
        Action::WaitForPhone,
        "the phone is not connected and this needs its signature: bring it online and try again",
    )
}

fn bad(code: &str, message: impl Into<String>) -> Error {
    error(code, Action::FixInput, message)
}

/// True for commands that need the signer, or peers, which there are only with it.
pub(crate) fn needs_signer(command: &Command) -> bool {
    matches!(
        command.command,
        Some(
            Kind::OpenChannel(_)
                | Kind::CreateInvoice(_)
                | Kind::Pay(_)
                | Kind::SendOnchain(_)
                | Kind::CloseChannel(_)
                | Kind::ConnectPeer(_)
        )
    )
}

/// True for commands that would fail for no good reason while the channels' peers are being connected.
pub(crate) fn needs_channels(command: &Command) -> bool {
    match &command.command {
        Some(Kind::CreateInvoice(_) | Kind::Pay(_)) => true,
        Some(Kind::CloseChannel(close)) => !close.force,
        _ => false,
    }
}

/// True for commands that change nothing.
pub(crate) fn only_reads(command: &Command) -> bool {
    matches!(
        command.command,
        Some(GetInfo(_) | GetBalance(_) | ListChannels(_) | ListPayments(_))
    )
}

impl Core {
    /// Carries out `command`, or says what the reply waits for.
    pub fn command(&mut self, command: Command) -> Answer {
        match command.command {
            Some(GetInfo(_)) => Ok(Outcome::Now(Reply::Info(self.info()))),
            Some(GetBalance(_)) => Ok(Outcome::Now(Reply::Balance(self.balance()))),
            Some(ListChannels(_)) => {
                let channels = self.channels();
                let closed = self.closed_channels();
                Ok(Outcome::Now(Reply::Channels(Channels { channels, closed })))
            }
            Some(ListPayments(_)) => {
                let mut payments: Vec<Payment> = self.payments.values().cloned().collect();
                payments.sort_by_key(|payment| payment.created_unix_s);
                Ok(Outcome::Now(Reply::Payments(Payments { payments })))
            }
            Some(Kind::NewAddress(NewAddress {})) => {
                let (address, keychain, index) = lock(&self.wallet).new_address();
                let address = address.to_string();
                Ok(Outcome::Now(Reply::Address(AddressReply {
                    address,
                    keychain,
                    index,
                })))
            }
            Some(Kind::OpenChannel(open)) => self.open(open),
            Some(Kind::CreateInvoice(invoice)) => self.unsigned_invoice(&invoice),
            Some(Kind::Pay(pay)) => self.pay(&pay),
            Some(Kind::SendOnchain(send)) => self.send_onchain(send),
            Some(Kind::CloseChannel(close)) => self.close(&close),
            Some(Kind::ConnectPeer(peer)) => {
                let node_id = self.peer_id(&peer.node_id)?;
                self.remember_address(node_id, &peer.address);
                Ok(Outcome::Later(Wait::Peer(node_id)))
            }
            Some(AwaitPayment(wait)) => {
                Ok(Outcome::Later(Wait::Payment(hash(&wait.payment_hash)?)))
            }
            Some(AwaitChannel(wait)) => {
                let id = user_channel_id(&wait.id);
                let id = id
                    .filter(|id| self.opens.contains_key(id))
                    .ok_or_else(no_such_open)?;
                Ok(Outcome::Later(Wait::Usable(id)))
            }
            Some(Register(_)) => Err(bad(
                "ALREADY_REGISTERED",
                "this node runs already: nothing is to be done",
            )),
            None => Err(bad(
                "UNKNOWN_COMMAND",
                "this host does not know the command: use a host of the phone's version or newer",
            )),
        }
    }

    /// The reply to what was waited for, when it has come.
    pub fn fulfilled(&self, wait: &Wait) -> Option<Result<Reply, Error>> {
        match wait {
            Wait::Payment(hash) => {
                let payment = self.payments.get(hash)?;
                let ended = payment.state() != payment::State::Pending;
                ended.then(|| Ok(Reply::Payment(payment.clone())))
            }
            Wait::Opened(id) => {
                let open = self.opens.get(id)?;
                if let Some(failure) = open_failure(open) {
                    return Some(Err(failure));
                }
                open.broadcast
                    .then(|| Ok(Reply::OpenedChannel(opened(open))))
            }
            Wait::Usable(id) => {
                let open = self.opens.get(id)?;
                if let Some(failure) = open_failure(open) {
                    return Some(Err(failure));
                }
                let channels = self.manager.list_channels();
                let channel = channels
                    .iter()
                    .find(|channel| channel.user_channel_id == *id);
                let Some(channel) = channel else {
                    let closed = "the channel was closed before it could be used";
                    let closed = error("CHANNEL_CLOSED", Action::GiveUp, closed);
                    return open.broadcast.then_some(Err(closed));
                };
                if !self.is_usable(channel) {
                    return None;
                }
                Some(Ok(Reply::Channel(describe(channel, true))))
            }
            Wait::Sent(id) => {
                let send = self.sends.get(id)?;
                if !send.failure.is_empty() {
                    return Some(Err(bad("SIGNER_REFUSED", send.failure.clone())));
                }
                let sent = longhand_proto::command::SentOnchain {
                    txid: send.txid.clone(),
                    fee_sat: send.fee_sat,
                };
                (!send.txid.is_empty()).then_some(Ok(Reply::SentOnchain(sent)))
            }
            Wait::Peer(node_id) => self
                .is_connected(node_id)
                .then_some(Ok(Reply::PeerConnected(PeerConnected {}))),
        }
    }

    // -- Reading.

    pub fn info(&self) -> Info {
        let channels = self.manager.list_channels();
        Info {
            node_id: self.keys.node_id().serialize().to_vec(),
            network: self.config.network.to_string(),
            block_height: self.height,
            hub_node_id: self
                .config
                .hub
                .map(|id| id.serialize().to_vec())
                .unwrap_or_default(),
            channels: count(channels.len()),
            usable_channels: count(
                channels
                    .iter()
                    .filter(|channel| self.is_usable(channel))
                    .count(),
            ),
            peers: count(self.peer_manager.list_peers().len()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            signer_stats: Some(SignerStats::default()),
            state: String::new(),
        }
    }

    pub fn balance(&self) -> Balance {
        let (confirmed, pending) = lock(&self.wallet).balance();
        let channels = self.manager.list_channels();
        let mut balance = Balance {
            onchain_confirmed_sat: confirmed,
            onchain_pending_sat: pending,
            ..Balance::default()
        };
        for channel in &channels {
            balance.inbound_capacity_msat += channel.inbound_capacity_msat;
            balance.lightning_msat += self.channel_balance_msat(channel);
        }
        balance.closing_sat = self.closing_sat(&channels);
        balance
    }

    /// What is ours of an open channel: what we may send, what must stay as reserve included.
    fn channel_balance_msat(&self, channel: &ChannelDetails) -> u64 {
        let Ok(monitor) = self.chain_monitor.get_monitor(channel.channel_id) else {
            return 0;
        };
        let ours = monitor
            .get_claimable_balances()
            .iter()
            .map(Claimable::claimable_amount_satoshis)
            .sum::<u64>();
        ours.saturating_mul(1000)
    }

    fn was_never_funded(&self, id: &ChannelId) -> bool {
        let mut failed = self.opens.values().filter(|open| open.has_failed());
        failed.any(|open| !open.broadcast && open.channel_id == id.0)
    }

    fn closing_sat(&self, open: &[ChannelDetails]) -> u64 {
        let is_open = |id: &ChannelId| open.iter().any(|channel| channel.channel_id == *id);
        // LDK waits for a funding that was never sent: its coins are in the wallet.
        let mut closed = self.chain_monitor.list_monitors();
        closed.retain(|id| !is_open(id) && !self.was_never_funded(id));
        let monitors = closed.into_iter();
        let monitors = monitors.filter_map(|id| self.chain_monitor.get_monitor(id).ok());
        let claimable: u64 = monitors
            .flat_map(|monitor| monitor.get_claimable_balances())
            .filter(|balance| !is_in_the_wallet(balance))
            .map(|balance| balance.claimable_amount_satoshis())
            .sum();
        let tracked = self.sweeper.tracked_spendable_outputs();
        let unswept: u64 = tracked
            .iter()
            .filter(|output| !self.is_swept(output))
            .map(|output| descriptor_sat(&output.descriptor))
            .sum();
        claimable.saturating_add(unswept)
    }

    /// Whether the wallet has it: from a sweep's broadcast on, unless a block takes an earlier sweep, of fewer outputs.
    fn is_swept(&self, output: &TrackedSpendableOutput) -> bool {
        let outpoint = output.descriptor.spendable_outpoint();
        match output.status {
            OutputSpendStatus::PendingInitialBroadcast { .. } => false,
            OutputSpendStatus::PendingFirstConfirmation { .. } => {
                lock(&self.wallet).is_spent(outpoint.into_bitcoin_outpoint())
            }
            OutputSpendStatus::PendingThresholdConfirmations { .. } => true,
        }
    }

    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<Channel> = Vec::new();
        for details in self.manager.list_channels() {
            let mut channel = describe(&details, self.is_usable(&details));
            channel.balance_msat = self.channel_balance_msat(&details);
            channels.push(channel);
        }
        for open in self
            .opens
            .values()
            .filter(|open| !open.broadcast && !open.has_failed())
        {
            let id = open
                .user_channel_id()
                .map(|id| id.to_be_bytes().to_vec())
                .unwrap_or_default();
            if channels.iter().all(|channel| channel.user_channel_id != id) {
                channels.push(open.channel());
            }
        }
        channels
    }

    // -- Acting.

    fn peer_id(&self, bytes: &[u8]) -> Result<PublicKey, Error> {
        if bytes.is_empty() {
            let no_hub = || {
                bad(
                    "BAD_NODE_ID",
                    "a peer's node id is needed: this node has no hub",
                )
            };
            return self.config.hub.ok_or_else(no_hub);
        }
        let node_id = PublicKey::from_slice(bytes)
            .map_err(|_| bad("BAD_NODE_ID", "the node id is not a public key: check it"))?;
        if node_id == self.keys.node_id() {
            return Err(bad(
                "BAD_NODE_ID",
                "the node id is this node's own: give the peer's",
            ));
        }
        Ok(node_id)
    }

    /// Keeps where a peer can be dialled.
    pub fn remember_address(&mut self, node_id: PublicKey, address: &str) {
        if !address.is_empty() {
            self.journal
                .put(format!("peer/{node_id}"), address.as_bytes().to_vec());
            self.addresses.insert(node_id, address.to_owned());
        }
    }

    fn open(&mut self, mut request: OpenChannel) -> Answer {
        let id = user_channel_id(&request.id)
            .ok_or_else(|| bad("BAD_ID", "the channel's id must be 16 bytes"))?;
        if self.opens.contains_key(&id) {
            return Ok(Outcome::Later(Wait::Opened(id)));
        }
        let peer = self.peer_id(&request.counterparty_node_id)?;
        if request.amount_sat < MIN_CHANNEL_SAT {
            return Err(bad(
                "AMOUNT_TOO_SMALL",
                format!("a channel needs at least {MIN_CHANNEL_SAT} sat: give more"),
            ));
        }
        if request.push_msat > 0 && !self.config.is_hub {
            return Err(bad(
                "PUSH_REFUSED",
                "only a hub may give funds away with a new channel",
            ));
        }
        let (confirmed, _) = lock(&self.wallet).balance();
        let needed = request.amount_sat.saturating_add(ANCHOR_RESERVE_SAT);
        if needed > confirmed {
            return Err(bad(
                "INSUFFICIENT_FUNDS",
                format!(
                    "the channel needs {needed} sat on chain (with {ANCHOR_RESERVE_SAT} kept for fees), \
                     there are {confirmed} sat confirmed: add funds"
                ),
            ));
        }
        request.counterparty_node_id = peer.serialize().to_vec();
        self.remember_address(peer, &request.address);
        self.begin_open(id, request);
        Ok(Outcome::Later(Wait::Opened(id)))
    }

    fn unsigned_invoice(&mut self, request: &CreateInvoice) -> Answer {
        let hash = hash(&request.payment_hash)?;
        let amount_msat = (request.amount_msat > 0).then_some(request.amount_msat);
        let secret = self.manager.create_inbound_payment_for_hash(
            hash,
            amount_msat,
            request.expiry_s,
            // Blocks may pass while the payment waits at the hub: LDK takes it as long as there is time to claim it.
            None,
            None,
        );
        let (secret, _) = secret.map_err(|()| {
            bad(
                "BAD_AMOUNT",
                "the amount is above all bitcoin there will ever be: give less",
            )
        })?;
        let description = Description::new(request.description.clone()).map_err(|_| {
            bad(
                "BAD_DESCRIPTION",
                "the description is longer than 639 bytes",
            )
        })?;
        let now = std::time::Duration::from_secs(unix_s());
        let mut invoice = InvoiceBuilder::new(currency(self.config.network))
            .invoice_description(Bolt11InvoiceDescription::Direct(description))
            .payment_hash(hash)
            .payment_secret(secret)
            .duration_since_epoch(now)
            .min_final_cltv_expiry_delta(MIN_FINAL_CLTV_EXPIRY_DELTA.into())
            .expiry_time(std::time::Duration::from_secs(request.expiry_s.into()))
            .payee_pub_key(self.keys.node_id())
            .basic_mpp();
        if let Some(amount_msat) = amount_msat {
            invoice = invoice.amount_milli_satoshis(amount_msat);
        }
        for hint in self.hop_hints() {
            invoice = invoice.private_route(hint);
        }
        let raw = invoice.build_raw().map_err(|error| {
            bad(
                "BAD_INVOICE",
                format!("the invoice cannot be made: {error}"),
            )
        })?;
        Ok(Outcome::Now(Reply::UnsignedInvoice(split(&raw))))
    }

    /// How to reach unannounced channels (BOLT 11 `r`).
    fn hop_hints(&self) -> Vec<RouteHint> {
        let channels = self.manager.list_channels();
        let usable = channels
            .iter()
            .filter(|channel| channel.is_channel_ready && !channel.is_announced);
        usable
            .filter_map(|channel| {
                let forwarding = channel.counterparty.forwarding_info.as_ref()?;
                Some(RouteHint(vec![RouteHintHop {
                    src_node_id: channel.counterparty.node_id,
                    short_channel_id: channel.get_inbound_payment_scid()?,
                    fees: RoutingFees {
                        base_msat: forwarding.fee_base_msat,
                        proportional_millionths: forwarding.fee_proportional_millionths,
                    },
                    cltv_expiry_delta: forwarding.cltv_expiry_delta,
                    htlc_minimum_msat: channel.inbound_htlc_minimum_msat,
                    htlc_maximum_msat: channel.inbound_htlc_maximum_msat,
                }]))
            })
            .collect()
    }

    /// An invoice signed with local keys.
    pub fn local_invoice(
        &mut self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<String, Error> {
        let description = Description::new(description.to_owned()).map_err(|_| {
            bad(
                "BAD_DESCRIPTION",
                "the description is longer than 639 bytes",
            )
        })?;
        let parameters = Bolt11InvoiceParameters {
            amount_msats: (amount_msat > 0).then_some(amount_msat),
            description: Bolt11InvoiceDescription::Direct(description),
            invoice_expiry_delta_secs: Some(expiry_s),
            ..Bolt11InvoiceParameters::default()
        };
        self.manager
            .create_bolt11_invoice(parameters)
            .map(|invoice| invoice.to_string())
            .map_err(|error| {
                bad(
                    "BAD_INVOICE",
                    format!("the invoice cannot be made: {error}"),
                )
            })
    }

    fn pay(&mut self, request: &Pay) -> Answer {
        let invoice: Bolt11Invoice = request
            .bolt11
            .parse()
            .map_err(|_| bad("BAD_INVOICE", "this is not a BOLT 11 invoice: check it"))?;
        let hash = invoice.payment_hash();
        match self.payments.get(&hash) {
            Some(known) if known.outbound && known.state() != payment::State::Failed => {
                return Ok(Outcome::Later(Wait::Payment(hash)));
            }
            Some(known) if !known.outbound => {
                return Err(bad(
                    "OWN_INVOICE",
                    "this invoice is this node's own: nothing to pay",
                ));
            }
            _ => {}
        }
        self.check_invoice(&invoice, request)?;
        let amount_msat = invoice
            .amount_milli_satoshis()
            .unwrap_or(request.amount_msat);
        let fee_limit = if request.max_fee_msat > 0 {
            request.max_fee_msat
        } else {
            // One percent, and never less than five satoshis.
            (amount_msat / 100).max(5_000)
        };
        let parameters = OptionalBolt11PaymentParams {
            route_params_config: RouteParametersConfig::default()
                .with_max_total_routing_fee_msat(fee_limit),
            retry_strategy: Retry::Timeout(RETRY_FOR),
            ..OptionalBolt11PaymentParams::default()
        };
        let own_amount = invoice
            .amount_milli_satoshis()
            .is_none()
            .then_some(request.amount_msat);
        let id = PaymentId(hash.0);
        self.manager
            .pay_for_bolt11_invoice(&invoice, id, own_amount, parameters)
            .map_err(|error| match error {
                Bolt11PaymentError::InvalidAmount => {
                    bad("BAD_AMOUNT", "the amount is below the invoice's: give more")
                }
                Bolt11PaymentError::SendingFailed(failure) => send_failure(&failure),
            })?;
        self.payments.remove(&hash);
        self.update_payment(hash, true, |payment| payment.amount_msat = amount_msat);
        Ok(Outcome::Later(Wait::Payment(hash)))
    }

    fn check_invoice(&self, invoice: &Bolt11Invoice, request: &Pay) -> Result<(), Error> {
        if invoice.network() != self.config.network {
            return Err(bad(
                "WRONG_NETWORK",
                format!(
                    "the invoice is for {}, this node is on {}",
                    invoice.network(),
                    self.config.network
                ),
            ));
        }
        if invoice.get_payee_pub_key() == self.keys.node_id() {
            return Err(bad(
                "OWN_INVOICE",
                "this invoice is this node's own: nothing to pay",
            ));
        }
        if invoice.would_expire(std::time::Duration::from_secs(unix_s())) {
            return Err(bad(
                "INVOICE_EXPIRED",
                "the invoice has expired: ask for a new one",
            ));
        }
        let amount_msat = match invoice.amount_milli_satoshis() {
            Some(amount_msat) => amount_msat,
            None if request.amount_msat > 0 => request.amount_msat,
            None => {
                return Err(bad("AMOUNT_NEEDED", "the invoice has no amount: give one"));
            }
        };
        let spendable: u64 = self
            .manager
            .list_channels()
            .iter()
            .map(|channel| channel.outbound_capacity_msat)
            .sum();
        if amount_msat > spendable {
            return Err(bad(
                "INSUFFICIENT_FUNDS",
                format!(
                    "the channels can send {spendable} msat, the payment needs {amount_msat} msat"
                ),
            ));
        }
        Ok(())
    }

    fn send_onchain(&mut self, request: SendOnchain) -> Answer {
        if request.id.is_empty() {
            return Err(bad("BAD_ID", "the payment needs an id"));
        }
        if self.sends.contains_key(&request.id) {
            return Ok(Outcome::Later(Wait::Sent(request.id)));
        }
        let address = request
            .address
            .parse::<Address<NetworkUnchecked>>()
            .map_err(|_| bad("BAD_ADDRESS", "this is not a bitcoin address: check it"))?;
        let address = address.require_network(self.config.network).map_err(|_| {
            bad(
                "WRONG_NETWORK",
                format!("the address is not one of {}", self.config.network),
            )
        })?;
        let amount = match (request.all, request.amount_sat) {
            (true, _) => SendAmount::All,
            (false, 0) => return Err(bad("BAD_AMOUNT", "an amount above zero is needed")),
            (false, amount_sat) => SendAmount::Exact(amount_sat),
        };
        let feerate = match request.feerate_sat_per_kw {
            0 => self.services.chain.fee_rates().normal,
            given => given,
        };
        let keep = if self.manager.list_channels().is_empty() {
            0
        } else {
            ANCHOR_RESERVE_SAT
        };
        let psbt = lock(&self.wallet)
            .send(address.script_pubkey(), amount, feerate, keep)
            .map_err(|error| bad(error.code(), error.to_string()))?;
        let fee_sat = psbt.fee().map_or(0, |fee| fee.to_sat());
        let id = request.id;
        self.put_send(records::Send {
            id: id.clone(),
            psbt: psbt.serialize(),
            fee_sat,
            ..records::Send::default()
        });
        Ok(Outcome::Later(Wait::Sent(id)))
    }

    fn close(&mut self, request: &CloseChannel) -> Answer {
        let unknown = || {
            bad(
                "NO_SUCH_CHANNEL",
                "there is no open channel with this id: list them",
            )
        };
        let id = <[u8; 32]>::try_from(&request.channel_id[..]).map_err(|_| unknown())?;
        let id = ChannelId(id);
        let closing = |txid: &str| {
            let txid = txid.to_owned();
            Ok(Outcome::Now(Reply::ClosingChannel(ClosingChannel { txid })))
        };
        // Asked again, since the answer was lost: what was asked for is so.
        if let Some(closed) = self.closed.get(&id) {
            return closing(&closed.closing_txid);
        }
        let channels = self.manager.list_channels();
        let channel = channels
            .iter()
            .find(|channel| channel.channel_id == id)
            .ok_or_else(unknown)?;
        if !request.force && is_closing(channel) {
            return closing("");
        }
        let peer = channel.counterparty.node_id;
        let closed = if request.force {
            let reason = "closed by its owner".to_owned();
            self.manager
                .force_close_broadcasting_latest_txn(&id, &peer, reason)
        } else {
            self.manager.close_channel(&id, &peer)
        };
        closed.map_err(|error| {
            let message = format!("the channel cannot be closed now ({error:?}): try again later");
            self::error("CLOSE_REFUSED", Action::Retry, message)
        })?;
        closing("")
    }
}

/// True once both sides, or this one, have said that they want to close it.
fn is_closing(channel: &ChannelDetails) -> bool {
    use lightning::ln::channel_state::ChannelShutdownState::NotShuttingDown;
    let state = channel.channel_shutdown_state;
    state.is_some_and(|state| !matches!(state, NotShuttingDown))
}

fn hash(bytes: &[u8]) -> Result<PaymentHash, Error> {
    let bad_hash = |_| bad("BAD_PAYMENT_HASH", "a payment hash has 32 bytes: check it");
    <[u8; 32]>::try_from(bytes)
        .map(PaymentHash)
        .map_err(bad_hash)
}

fn no_such_open() -> Error {
    bad("NO_SUCH_CHANNEL", "no channel was opened with this id")
}

fn open_failure(open: &records::Open) -> Option<Error> {
    open.has_failed()
        .then(|| error(&open.failure_code, Action::Retry, open.failure.clone()))
}

fn opened(open: &records::Open) -> longhand_proto::command::OpenedChannel {
    longhand_proto::command::OpenedChannel {
        id: open
            .request
            .as_ref()
            .map(|request| request.id.clone())
            .unwrap_or_default(),
        channel_id: open.channel_id.clone(),
        funding_outpoint: open.funding_outpoint.clone(),
    }
}

fn send_failure(failure: &RetryableSendFailure) -> Error {
    match failure {
        RetryableSendFailure::PaymentExpired => bad(
            "INVOICE_EXPIRED",
            "the invoice has expired: ask for a new one",
        ),
        RetryableSendFailure::RouteNotFound => error(
            "NO_ROUTE",
            Action::Retry,
            "no route to the payee was found within the fee limit: try later or allow more fee",
        ),
        RetryableSendFailure::DuplicatePayment => bad(
            "ALREADY_PAID",
            "this invoice is being paid or was paid already",
        ),
        RetryableSendFailure::OnionPacketSizeExceeded => bad(
            "BAD_INVOICE",
            "the invoice asks for more than fits into a payment",
        ),
    }
}

fn currency(network: Network) -> Currency {
    match network {
        Network::Bitcoin => Currency::Bitcoin,
        Network::Testnet | Network::Testnet4 => Currency::BitcoinTestnet,
        Network::Signet => Currency::Signet,
        Network::Regtest => Currency::Regtest,
    }
}

fn split(raw: &RawBolt11Invoice) -> UnsignedInvoice {
    let (hrp, data) = raw.to_raw();
    UnsignedInvoice {
        hrp,
        data: data.iter().map(|group| group.to_u8()).collect(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// What a close on which both sides agreed pays goes to an address of the wallet, which has it from the first block on.
fn is_in_the_wallet(balance: &Claimable) -> bool {
    use lightning::chain::channelmonitor::BalanceSource::CoopClose;
    matches!(
        balance,
        Claimable::ClaimableAwaitingConfirmations { source, .. } if *source == CoopClose
    )
}

fn descriptor_sat(descriptor: &lightning::sign::SpendableOutputDescriptor) -> u64 {
    use lightning::sign::SpendableOutputDescriptor::{
        DelayedPaymentOutput, StaticOutput, StaticPaymentOutput,
    };
    match descriptor {
        StaticOutput { output, .. } => output.value.to_sat(),
        DelayedPaymentOutput(output) => output.output.value.to_sat(),
        StaticPaymentOutput(output) => output.output.value.to_sat(),
    }
}

/// A channel as its owner sees it.
fn describe(channel: &ChannelDetails, usable: bool) -> Channel {
    let outpoint = channel
        .funding_txo
        .map(|outpoint| outpoint.into_bitcoin_outpoint().to_string());
    let state = match (
        &channel.channel_shutdown_state,
        usable,
        channel.is_channel_ready,
    ) {
        (
            Some(lightning::ln::channel_state::ChannelShutdownState::NotShuttingDown) | None,
            true,
            _,
        ) => "usable",
        (
            Some(lightning::ln::channel_state::ChannelShutdownState::NotShuttingDown) | None,
            false,
            true,
        ) => "peer away",
        (
            Some(lightning::ln::channel_state::ChannelShutdownState::NotShuttingDown) | None,
            false,
            false,
        ) => "confirming",
        (Some(_), _, _) => "closing",
    };
    Channel {
        channel_id: channel.channel_id.0.to_vec(),
        user_channel_id: channel.user_channel_id.to_be_bytes().to_vec(),
        counterparty_node_id: channel.counterparty.node_id.serialize().to_vec(),
        funding_outpoint: outpoint.unwrap_or_default(),
        capacity_sat: channel.channel_value_satoshis,
        outbound_msat: channel.outbound_capacity_msat,
        inbound_msat: channel.inbound_capacity_msat,
        balance_msat: channel.outbound_capacity_msat,
        ready: channel.is_channel_ready,
        usable,
        outbound: channel.is_outbound,
        announced: channel.is_announced,
        state: state.to_owned(),
        pending_htlcs: count(
            channel.pending_inbound_htlcs.len() + channel.pending_outbound_htlcs.len(),
        ),
    }
}
