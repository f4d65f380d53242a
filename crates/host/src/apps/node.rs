//! Answers the calls of apps from the node's own data.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_chain::Chain;
use longhand_lnd::NodeError;
use longhand_lnd::node::*;
use longhand_node::Node as RunningNode;
use longhand_proto::command::app_reply::Reply as Answer;
use longhand_proto::command::app_request::Ask as AppAsk;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{self as proto, AppAddress, AppInvoice, AppSendOnchain, Command};

use super::Apps;
use super::questions::{phone_error, unreadable};
use crate::hosted::{HostedNode, Phase};

/// How long the phone may take for what its owner is not asked about, and for what the owner is.
const PHONE_WITHIN: Duration = Duration::from_secs(30);
const OWNER_WITHIN: Duration = Duration::from_secs(120);
/// How often subscriptions look for changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Invoices whose text is kept for each owner.
const MOST_TEXTS: usize = 1_000;
/// Satoshis per 1,000 weight units in one per virtual byte.
const SAT_PER_KW: u64 = 250;

/// The node of one owner, for one app.
#[derive(Clone)]
pub(super) struct AppNode {
    pub apps: Arc<Apps>,
    pub hosted: Arc<HostedNode>,
    /// The app's name.
    pub app: String,
    pub texts: Arc<Texts>,
}

/// Invoices that apps have made: the node does not keep their text, which is the phone's. The newest of this process.
#[derive(Default)]
pub(crate) struct Texts(Mutex<VecDeque<([u8; 32], String)>>);

impl Texts {
    fn put(&self, hash: [u8; 32], bolt11: String) {
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() >= MOST_TEXTS {
            texts.pop_front();
        }
        texts.push_back((hash, bolt11));
    }

    pub fn get(&self, hash: &[u8; 32]) -> String {
        let texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = texts.iter().find(|(known, _)| known == hash);
        found.map(|(_, bolt11)| bolt11.clone()).unwrap_or_default()
    }
}

/// Takes a reply of one kind.
macro_rules! reply_of {
    ($reply:expr, $kind:ident) => {
        match $reply {
            Reply::$kind(reply) => Ok(reply),
            _ => Err(NodeError::Internal(
                concat!("the node gave no ", stringify!($kind)).into(),
            )),
        }
    };
}
pub(super) use reply_of;

impl AppNode {
    /// A command to the node, which answers whether or not its phone is there.
    pub(super) async fn command(&self, ask: Ask) -> Result<Reply, NodeError> {
        let command = Command { command: Some(ask) };
        match self.running()?.command(command).await.reply {
            Some(Reply::Error(error)) => Err(phone_error(error)),
            Some(reply) => Ok(reply),
            None => Err(NodeError::Internal("the node gave no reply".into())),
        }
    }

    fn running(&self) -> Result<RunningNode, NodeError> {
        match &*self.hosted.phase.borrow() {
            Phase::Running(node) => Ok(node.clone()),
            Phase::Failed(_) => Err(NodeError::NotRunning(
                "the node does not run: its host's operator knows why".into(),
            )),
            Phase::Waiting | Phase::Unregistered => Err(NodeError::NotRunning(
                "the node does not run yet: try again in a while".into(),
            )),
        }
    }

    async fn list_channels(&self) -> Result<proto::Channels, NodeError> {
        let list = Ask::ListChannels(proto::ListChannels {});
        reply_of!(self.command(list).await?, Channels)
    }

    fn alias_of(&self, node_id: &[u8]) -> String {
        let node_id = PublicKey::from_slice(node_id).ok();
        let known = node_id.and_then(|id| self.apps.graph.node(&id));
        known.map(|known| known.alias).unwrap_or_default()
    }

    fn channel(&self, channel: proto::Channel) -> Channel {
        let state = match channel.state.as_str() {
            "closing" => ChannelState::Closing,
            _ if channel.ready => ChannelState::Open,
            _ => ChannelState::Opening,
        };
        Channel {
            state,
            is_usable: channel.usable,
            peer_alias: self.alias_of(&channel.counterparty_node_id),
            peer_node_id: channel.counterparty_node_id,
            funding_outpoint: channel.funding_outpoint,
            capacity_sat: channel.capacity_sat,
            local_msat: channel.balance_msat,
            remote_msat: channel.inbound_msat,
            is_private: !channel.announced,
            is_outbound: channel.outbound,
            ..Channel::default()
        }
    }
}

#[async_trait]
impl Node for AppNode {
    async fn info(&self) -> Result<Info, NodeError> {
        let info = reply_of!(self.command(Ask::GetInfo(proto::GetInfo {})).await?, Info)?;
        let channels = self.list_channels().await?.channels;
        let of = |wanted: fn(&proto::Channel) -> bool| {
            u32::try_from(channels.iter().filter(|it| wanted(it)).count()).unwrap_or(u32::MAX)
        };
        let tip = self.apps.chain.tip();
        let is_synced = tip
            .as_ref()
            .is_some_and(|tip| tip.height <= info.block_height);
        let block = tip.filter(|tip| tip.height == info.block_height);
        Ok(Info {
            alias: self.hosted.name.clone(),
            node_id: info.node_id,
            network: self.apps.network.to_string(),
            block_height: info.block_height,
            block_hash: block.map(|tip| tip.hash.to_string()).unwrap_or_default(),
            synced_to_chain: is_synced && self.apps.chain.reachable(),
            synced_to_graph: true,
            peers: info.peers,
            active_channels: of(|it| it.usable),
            inactive_channels: of(|it| it.ready && !it.usable),
            pending_channels: of(|it| !it.ready),
            ..Info::default()
        })
    }

    async fn balance(&self) -> Result<Balance, NodeError> {
        let get = Ask::GetBalance(proto::GetBalance {});
        let balance = reply_of!(self.command(get).await?, Balance)?;
        let channels = self.list_channels().await?.channels;
        let (open, opening): (Vec<_>, Vec<_>) = channels.into_iter().partition(|it| it.ready);
        let local = |all: &[proto::Channel]| all.iter().map(|it| it.balance_msat).sum();
        let remote = |all: &[proto::Channel]| all.iter().map(|it| it.inbound_msat).sum();
        Ok(Balance {
            onchain_confirmed_sat: balance.onchain_confirmed_sat,
            onchain_unconfirmed_sat: balance.onchain_pending_sat,
            local_msat: local(&open),
            remote_msat: remote(&open),
            pending_local_msat: local(&opening),
            pending_remote_msat: remote(&opening),
            closing_sat: balance.closing_sat,
            ..Balance::default()
        })
    }

    async fn channels(&self) -> Result<Vec<Channel>, NodeError> {
        let listed = self.list_channels().await?;
        let open = listed.channels.into_iter().map(|it| self.channel(it));
        let waiting = listed.closed.into_iter().filter(waits_for_its_close);
        Ok(open.chain(waiting.map(closing_channel)).collect())
    }

    async fn closed_channels(&self) -> Result<Vec<ClosedChannel>, NodeError> {
        let closed = self.list_channels().await?.closed.into_iter();
        let closed = closed.filter(|it| !waits_for_its_close(it));
        Ok(closed.map(closed_channel).collect())
    }

    async fn lightning_node(&self, node_id: [u8; 33]) -> Result<Option<LightningNode>, NodeError> {
        let node_id = PublicKey::from_slice(&node_id);
        let node_id = node_id.map_err(|_| {
            NodeError::BadInput("this is no node id: it has 66 hexadecimal digits".into())
        })?;
        let known = self.apps.graph.node(&node_id);
        Ok(known.map(|known| LightningNode {
            alias: known.alias,
            color: known.color,
            addresses: known.addresses,
            last_update_unix_s: known.last_update_unix_s,
            channels: known.channels,
            capacity_sat: known.capacity_sat,
        }))
    }

    async fn invoices(&self, page: Page, open_only: bool) -> Result<Vec<Invoice>, NodeError> {
        let mut all: BTreeMap<u64, Invoice> = BTreeMap::new();
        let is_on = |index: &u64| *index > page.above && *index < page.below;
        let mut add = |invoice: Invoice| {
            let index = index_of(invoice.created_unix_s, &invoice.payment_hash);
            if is_on(&index) {
                all.insert(index, invoice);
            }
        };
        self.open_invoices().await?.into_iter().for_each(&mut add);
        if !open_only {
            let received = self.history(page, |it| !it.outbound).await?;
            received
                .into_iter()
                .map(|it| self.received(it))
                .for_each(&mut add);
        }
        let all = all.into_values();
        Ok(match page.newest_first {
            true => all.rev().take(page.limit).collect(),
            false => all.take(page.limit).collect(),
        })
    }

    async fn invoice(&self, payment_hash: [u8; 32]) -> Result<Option<Invoice>, NodeError> {
        let open = self.open_invoices().await?;
        if let Some(open) = open.into_iter().find(|it| it.payment_hash == payment_hash) {
            return Ok(Some(open));
        }
        let found = self.found(payment_hash).await?;
        let found = found.filter(|payment| !payment.outbound);
        Ok(found.map(|payment| self.received(payment)))
    }

    async fn add_invoice(&self, new: NewInvoice) -> Result<Invoice, NodeError> {
        let ask = AppAsk::Invoice(AppInvoice {
            amount_msat: new.amount_msat,
            description: new.description.clone(),
            expiry_s: new.expiry_s,
        });
        let Answer::Invoice(made) = self.ask_phone(ask, PHONE_WITHIN).await? else {
            return Err(unreadable());
        };
        let hash = made.payment_hash.try_into().map_err(|_| unreadable())?;
        self.texts.put(hash, made.bolt11.clone());
        let open = self.open_invoices().await?;
        let known = open.into_iter().find(|it| it.payment_hash == hash);
        Ok(known.unwrap_or(Invoice {
            payment_hash: hash,
            bolt11: made.bolt11,
            description: new.description,
            amount_msat: new.amount_msat,
            ..Invoice::default()
        }))
    }

    async fn payments(&self, page: Page, succeeded_only: bool) -> Result<Vec<Payment>, NodeError> {
        let is_wanted = |payment: &proto::Payment| {
            payment.outbound
                && (!succeeded_only || payment.state() == proto::payment::State::Succeeded)
        };
        let mut sent = self.history(page, is_wanted).await?;
        if !page.newest_first {
            sent.reverse();
        }
        Ok(sent
            .into_iter()
            .take(page.limit)
            .filter_map(super::payments::sent)
            .collect())
    }

    async fn pay(&self, pay: Pay) -> Result<Updates<Payment>, NodeError> {
        self.asked_to_pay(pay).await
    }

    async fn track(&self, payment_hash: [u8; 32]) -> Result<Option<Updates<Payment>>, NodeError> {
        let found = self.payment_of(payment_hash).await?;
        Ok(found.map(|payment| self.updates(payment)))
    }

    async fn transactions(&self) -> Result<Vec<Transaction>, NodeError> {
        let list = Ask::ListSends(proto::ListSends {});
        let sends = reply_of!(self.command(list).await?, Sends)?.sends;
        Ok(sends.into_iter().rev().filter_map(transaction).collect())
    }

    async fn new_address(&self, kind: AddressKind) -> Result<String, NodeError> {
        let has_taproot = self
            .hosted
            .record()
            .registration
            .is_some_and(|it| it.external_descriptor.starts_with("tr("));
        if has_taproot != (kind == AddressKind::Taproot) {
            let have = if has_taproot { "P2TR" } else { "P2WPKH" };
            return Err(NodeError::BadInput(format!(
                "this wallet has {have} addresses alone: ask for one of those"
            )));
        }
        // The phone compares it with its own keys.
        match self
            .ask_phone(AppAsk::Address(AppAddress {}), PHONE_WITHIN)
            .await?
        {
            Answer::Address(address) => Ok(address),
            _ => Err(unreadable()),
        }
    }

    async fn send_coins(&self, send: SendCoins) -> Result<String, NodeError> {
        if send.confirmation_target.is_some() {
            let line = "a confirmation target is not taken: give sat_per_vbyte, or neither";
            return Err(NodeError::BadInput(line.into()));
        }
        let feerate = send.sat_per_vbyte.unwrap_or(0).checked_mul(SAT_PER_KW);
        let feerate = feerate.and_then(|it| u32::try_from(it).ok());
        let feerate =
            feerate.ok_or_else(|| NodeError::BadInput("the fee rate is too high".into()))?;
        let ask = AppAsk::SendOnchain(AppSendOnchain {
            address: send.address,
            amount_sat: send.amount_sat.unwrap_or(0),
            all: send.amount_sat.is_none(),
            feerate_sat_per_kw: feerate,
        });
        match self.ask_phone(ask, OWNER_WITHIN).await? {
            Answer::Txid(txid) => Ok(txid),
            _ => Err(unreadable()),
        }
    }

    async fn accounts(&self) -> Result<Vec<Account>, NodeError> {
        let registration = self.hosted.record().registration;
        let descriptor = registration.map(|it| it.external_descriptor);
        Ok(descriptor
            .as_deref()
            .and_then(account)
            .into_iter()
            .collect())
    }

    fn changes(&self) -> Updates<Change> {
        let changes = futures::stream::unfold(Looking::of(self.clone()), |mut looking| async {
            let next = looking.next().await;
            Some((next, looking))
        });
        Box::pin(changes)
    }
}

impl AppNode {
    async fn open_invoices(&self) -> Result<Vec<Invoice>, NodeError> {
        let list = Ask::ListInvoices(proto::ListInvoices {});
        let open = reply_of!(self.command(list).await?, Invoices)?.invoices;
        let now = crate::clock::now_unix_s();
        let open = open.into_iter().filter_map(|invoice| {
            let payment_hash = invoice.payment_hash.try_into().ok()?;
            Some(Invoice {
                payment_hash,
                bolt11: self.texts.get(&payment_hash),
                description: invoice.description,
                amount_msat: invoice.amount_msat,
                state: match invoice.expires_unix_s <= now {
                    true => InvoiceState::Canceled,
                    false => InvoiceState::Open,
                },
                created_unix_s: invoice.created_unix_s,
                expires_unix_s: invoice.expires_unix_s,
                is_private: true,
                ..Invoice::default()
            })
        });
        Ok(open.collect())
    }

    /// A payment that has come, or comes, as its invoice.
    fn received(&self, payment: proto::Payment) -> Invoice {
        let payment_hash = payment.payment_hash.clone().try_into().unwrap_or_default();
        let state = match payment.state() {
            proto::payment::State::Succeeded => InvoiceState::Paid,
            proto::payment::State::Failed => InvoiceState::Canceled,
            _ => InvoiceState::Accepted,
        };
        let is_paid = state == InvoiceState::Paid;
        Invoice {
            payment_hash,
            preimage: payment.preimage.try_into().ok().filter(|_| is_paid),
            bolt11: self.texts.get(&payment_hash),
            description: payment.description,
            amount_msat: payment.amount_msat,
            state,
            paid_msat: if is_paid { payment.amount_msat } else { 0 },
            created_unix_s: payment.created_unix_s,
            expires_unix_s: payment.expires_unix_s,
            paid_unix_s: if is_paid { payment.ended_unix_s } else { 0 },
            is_private: true,
            ..Invoice::default()
        }
    }
}

/// A subscription: what has changed since the last look.
struct Looking {
    node: AppNode,
    /// `None` before the first look, which reports nothing.
    invoices: Option<BTreeMap<[u8; 32], Invoice>>,
    transactions: BTreeMap<String, Transaction>,
    changed: VecDeque<Change>,
}

impl Looking {
    fn of(node: AppNode) -> Looking {
        Looking {
            node,
            invoices: None,
            transactions: BTreeMap::new(),
            changed: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Result<Change, NodeError> {
        loop {
            if let Some(change) = self.changed.pop_front() {
                return Ok(change);
            }
            if self.invoices.is_some() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            self.look().await?;
        }
    }

    async fn look(&mut self) -> Result<(), NodeError> {
        const LOOKED_AT: usize = 100;
        let newest = Page {
            above: 0,
            below: u64::MAX,
            newest_first: true,
            limit: LOOKED_AT,
        };
        let invoices = self.node.invoices(newest, false).await?;
        let transactions = self.node.transactions().await?;
        let is_first = self.invoices.is_none();
        let known = self.invoices.get_or_insert_default();
        for invoice in invoices.into_iter().rev() {
            let before = known.insert(invoice.payment_hash, invoice.clone());
            if !is_first && before.as_ref() != Some(&invoice) {
                self.changed.push_back(Change::Invoice(Box::new(invoice)));
            }
        }
        for transaction in transactions {
            let before = self
                .transactions
                .insert(transaction.txid.clone(), transaction.clone());
            if !is_first && before.as_ref() != Some(&transaction) {
                self.changed
                    .push_back(Change::Transaction(Box::new(transaction)));
            }
        }
        Ok(())
    }
}

/// Whether no transaction has closed it yet, such as when the phone waits for its owner before it signs one.
fn waits_for_its_close(closed: &proto::ClosedChannel) -> bool {
    !closed.funding_outpoint.is_empty() && closed.closing_txid.is_empty()
}

fn closing_channel(closed: proto::ClosedChannel) -> Channel {
    Channel {
        state: ChannelState::Closing,
        peer_node_id: closed.counterparty_node_id,
        funding_outpoint: closed.funding_outpoint,
        capacity_sat: closed.capacity_sat,
        ..Channel::default()
    }
}

fn closed_channel(closed: proto::ClosedChannel) -> ClosedChannel {
    let says = |what: &str| closed.reason.to_ascii_lowercase().contains(what);
    let closure = match () {
        () if closed.funding_outpoint.is_empty() => Closure::NeverFunded,
        () if says("cooperative") || says("mutual") => Closure::Cooperative,
        () if says("counterparty force") || says("commitment transaction was confirmed") => {
            Closure::RemoteForce
        }
        () => Closure::LocalForce,
    };
    ClosedChannel {
        peer_node_id: closed.counterparty_node_id,
        funding_outpoint: closed.funding_outpoint,
        capacity_sat: closed.capacity_sat,
        closure,
        closing_txid: closed.closing_txid,
        ..ClosedChannel::default()
    }
}

/// What the owner has sent on chain; `None` while it is not signed.
fn transaction(send: proto::Send) -> Option<Transaction> {
    if send.txid.is_empty() {
        return None;
    }
    let spent = send.amount_sat.saturating_add(send.fee_sat);
    let is_confirmed = send.state() == proto::send::State::Confirmed;
    Some(Transaction {
        amount_sat: i64::try_from(spent).map_or(i64::MIN, |spent| -spent),
        fee_sat: send.fee_sat,
        confirmations: is_confirmed.into(),
        unix_s: send.created_unix_s,
        outputs: vec![Output {
            address: send.address,
            amount_sat: send.amount_sat,
            is_own: false,
        }],
        txid: send.txid,
        ..Transaction::default()
    })
}

/// The account of a descriptor such as `wpkh([00000000/84'/1'/0']tpub…/0/*)#checksum`.
fn account(descriptor: &str) -> Option<Account> {
    let kind = match descriptor.starts_with("tr(") {
        true => AddressKind::Taproot,
        false => AddressKind::Segwit,
    };
    let (origin, rest) = descriptor.split_once('[')?.1.split_once(']')?;
    let path = origin.split_once('/').map_or("", |(_, path)| path);
    let xpub = rest.split(['/', ')']).next()?;
    Some(Account {
        name: "default".into(),
        kind,
        xpub: xpub.to_owned(),
        derivation_path: format!("m/{path}"),
        external_keys: 0,
        internal_keys: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_from_its_descriptor() {
        let account = account("wpkh([73c5da0a/84'/1'/0']tpubD6/0/*)#checksum");
        let account = account
            .as_ref()
            .map(|it| (it.derivation_path.as_str(), it.xpub.as_str(), it.kind));
        assert_eq!(
            account,
            Some(("m/84'/1'/0'", "tpubD6", AddressKind::Segwit))
        );
        assert_eq!(super::account("wpkh(02)"), None);
    }

    #[test]
    fn a_channel_is_closed_when_a_transaction_has_closed_it() {
        let funded = proto::ClosedChannel {
            funding_outpoint: "a:0".into(),
            ..proto::ClosedChannel::default()
        };
        let closed = proto::ClosedChannel {
            closing_txid: "b".into(),
            ..funded.clone()
        };
        assert!(waits_for_its_close(&funded));
        assert!(!waits_for_its_close(&closed));
        assert!(!waits_for_its_close(&proto::ClosedChannel::default()));
        assert_eq!(closing_channel(funded).state, ChannelState::Closing);
    }

    #[test]
    fn a_text_is_forgotten_after_a_thousand_others() {
        let texts = Texts::default();
        for number in 0..=1_000_u32 {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&number.to_be_bytes());
            texts.put(hash, number.to_string());
        }
        assert_eq!(texts.get(&[0; 32]), "");
        let mut last = [0; 32];
        last[..4].copy_from_slice(&1_000_u32.to_be_bytes());
        assert_eq!(texts.get(&last), "1000");
    }
}
