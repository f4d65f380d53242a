//! A node that is made up: it has one channel, signs invoices with a known key, and pays every invoice, when its phone is there. For
//! tests, for the example that stock clients are tried against, and for the fuzz target. No money is near it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ask;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use futures::{FutureExt, StreamExt, stream};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentHash, PaymentSecret};
use tokio::sync::{broadcast, watch};

use crate::node::{
    Account, AddressKind, Balance, Change, Channel, ChannelState, ClosedChannel, Closure, Htlc,
    Info, Invoice, InvoiceState, LightningNode, NewInvoice, Node, NodeError, Output, Page, Pay,
    Payment, PaymentState, SendCoins, Transaction, Updates, index_of,
};
pub use ask::{Asked, Told, answer};

use crate::{App, Apps, Grant, Macaroon, Rights, RootKey};

/// The name of the one app that is connected.
pub const APP: &[u8] = b"app-1";
/// The key of its macaroons.
pub const ROOT_KEY: [u8; 32] = [7; 32];
/// When the made-up data is from.
pub const BEGAN_UNIX_S: u64 = 1_790_000_000;
/// An address of nobody's, on regtest.
pub const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// What the phone does when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phone {
    /// It agrees.
    #[default]
    Here,
    /// It is not connected.
    Away,
    /// Its owner says no.
    Refuses,
    /// Its owner does not answer.
    Silent,
}

/// See the module.
pub struct FakeNode {
    phone: watch::Sender<Phone>,
    list: Mutex<Lists>,
    changes: broadcast::Sender<Change>,
    now: fn() -> u64,
}

#[derive(Default)]
struct Lists {
    invoices: Vec<Invoice>,
    payments: Vec<Payment>,
    transactions: Vec<Transaction>,
}

impl Default for FakeNode {
    fn default() -> FakeNode {
        FakeNode::new(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs()
        })
    }
}

impl FakeNode {
    /// With a clock of one's own, in seconds since 1970.
    pub fn new(now: fn() -> u64) -> FakeNode {
        let seen = Transaction {
            txid: "11".repeat(32),
            amount_sat: 2_000_000,
            block_height: 101,
            block_hash: "22".repeat(32),
            confirmations: 6,
            unix_s: BEGAN_UNIX_S,
            outputs: vec![Output {
                address: ADDRESS.into(),
                amount_sat: 2_000_000,
                is_own: true,
            }],
            ..Transaction::default()
        };
        let list = Lists {
            transactions: vec![seen],
            ..Lists::default()
        };
        FakeNode {
            phone: watch::Sender::default(),
            list: Mutex::new(list),
            changes: broadcast::Sender::new(64),
            now,
        }
    }

    /// What the phone does from now on.
    pub fn set_phone(&self, phone: Phone) {
        self.phone.send_replace(phone);
    }

    /// Questions that the phone has not answered.
    pub fn questions(&self) -> usize {
        self.phone.receiver_count()
    }

    /// Readers of changes.
    pub fn subscriptions(&self) -> usize {
        self.changes.receiver_count()
    }

    /// Somebody pays this invoice.
    pub fn receive(&self, payment_hash: [u8; 32]) {
        let mut list = self.list.lock().unwrap();
        let mut invoices = list.invoices.iter_mut();
        let invoice = invoices.find(|it| it.payment_hash == payment_hash).unwrap();
        invoice.state = InvoiceState::Paid;
        invoice.paid_msat = invoice.amount_msat;
        invoice.paid_unix_s = (self.now)();
        invoice.preimage = Some(preimage(invoice.created_unix_s));
        let _ = self
            .changes
            .send(Change::Invoice(Box::new(invoice.clone())));
    }

    /// An invoice of somebody else's, on regtest; without an amount when it is 0. One of another amount has another hash.
    pub fn foreign_invoice(amount_msat: u64, made_unix_s: u64) -> String {
        let new = NewInvoice {
            amount_msat,
            description: "coffee".into(),
            expiry_s: 3_600,
        };
        bolt11(&new, made_unix_s, preimage(u64::MAX - amount_msat), 9)
            .expect("an amount that an invoice can have")
    }

    fn payment(&self, payment_hash: [u8; 32]) -> Option<Payment> {
        let list = self.list.lock().unwrap();
        let mut payments = list.payments.iter();
        payments.find(|it| it.payment_hash == payment_hash).cloned()
    }

    async fn ask_phone(&self) -> Result<(), NodeError> {
        let mut phone = self.phone.subscribe();
        loop {
            match *phone.borrow_and_update() {
                Phone::Here => return Ok(()),
                Phone::Away => {
                    let advice = "open Longhand on the phone and try again";
                    return Err(NodeError::PhoneAway(advice.into()));
                }
                Phone::Refuses => return Err(NodeError::Refused("the owner said no".into())),
                Phone::Silent => {}
            }
            phone.changed().await.unwrap();
        }
    }
}

fn preimage(number: u64) -> [u8; 32] {
    sha256::Hash::hash(&number.to_be_bytes()).to_byte_array()
}

fn bolt11(
    new: &NewInvoice,
    made_unix_s: u64,
    preimage: [u8; 32],
    key: u8,
) -> Result<String, NodeError> {
    let key = SecretKey::from_slice(&[key; 32]).unwrap();
    let hash = sha256::Hash::hash(&preimage).to_byte_array();
    let builder = InvoiceBuilder::new(Currency::Regtest)
        .description(new.description.clone())
        .payment_hash(PaymentHash(hash))
        .payment_secret(PaymentSecret([5; 32]))
        .duration_since_epoch(Duration::from_secs(made_unix_s))
        .min_final_cltv_expiry_delta(144)
        .expiry_time(Duration::from_secs(new.expiry_s.into()))
        .basic_mpp();
    let builder = match new.amount_msat {
        0 => builder,
        amount_msat => builder.amount_milli_satoshis(amount_msat),
    };
    let secp = Secp256k1::new();
    let invoice = builder.build_signed(|hash| secp.sign_ecdsa_recoverable(hash, &key));
    let made = invoice.map(|it| it.to_string());
    made.map_err(|error| NodeError::BadInput(error.to_string()))
}

/// The page of a list that has an index for each entry.
fn page<T: Clone>(all: &[T], page: Page, index: impl Fn(&T) -> u64) -> Vec<T> {
    let mut found: Vec<T> = all.to_vec();
    found.retain(|it| index(it) > page.above && index(it) < page.below);
    found.sort_by_key(&index);
    if page.newest_first {
        found.reverse();
    }
    found.truncate(page.limit);
    found
}

#[async_trait]
impl Node for FakeNode {
    async fn info(&self) -> Result<Info, NodeError> {
        let key = SecretKey::from_slice(&[8; 32]).unwrap();
        Ok(Info {
            node_id: key.public_key(&Secp256k1::new()).serialize().to_vec(),
            alias: "alice".into(),
            network: "regtest".into(),
            block_height: 106,
            block_hash: "33".repeat(32),
            block_unix_s: BEGAN_UNIX_S,
            synced_to_chain: true,
            synced_to_graph: true,
            peers: 1,
            active_channels: 1,
            ..Info::default()
        })
    }

    async fn balance(&self) -> Result<Balance, NodeError> {
        Ok(Balance {
            onchain_confirmed_sat: 2_000_000,
            onchain_unconfirmed_sat: 5_000,
            onchain_reserved_sat: 10_000,
            local_msat: 600_000_500,
            remote_msat: 399_999_500,
            ..Balance::default()
        })
    }

    async fn channels(&self) -> Result<Vec<Channel>, NodeError> {
        let open = Channel {
            is_usable: true,
            peer_node_id: vec![2; 33],
            peer_alias: "hub".into(),
            funding_outpoint: format!("{}:1", "44".repeat(32)),
            short_channel_id: 113_249_697_792_001,
            capacity_sat: 1_000_000,
            local_msat: 600_000_500,
            remote_msat: 399_999_500,
            is_private: true,
            htlcs: vec![Htlc {
                is_incoming: true,
                amount_msat: 1_000,
                payment_hash: [6; 32],
                expiry_height: 200,
            }],
            ..Channel::default()
        };
        let opening = Channel {
            state: ChannelState::Opening,
            is_usable: false,
            htlcs: Vec::new(),
            ..open.clone()
        };
        Ok(vec![open, opening])
    }

    async fn closed_channels(&self) -> Result<Vec<ClosedChannel>, NodeError> {
        Ok(vec![ClosedChannel {
            peer_node_id: vec![2; 33],
            funding_outpoint: format!("{}:0", "55".repeat(32)),
            capacity_sat: 50_000,
            closure: Closure::RemoteForce,
            closing_txid: "66".repeat(32),
            ..ClosedChannel::default()
        }])
    }

    async fn lightning_node(&self, node_id: [u8; 33]) -> Result<Option<LightningNode>, NodeError> {
        let hub = LightningNode {
            alias: "hub".into(),
            channels: 3,
            ..LightningNode::default()
        };
        Ok((node_id == [2; 33]).then_some(hub))
    }

    async fn invoices(&self, wanted: Page, open_only: bool) -> Result<Vec<Invoice>, NodeError> {
        let mut all = self.list.lock().unwrap().invoices.clone();
        all.retain(|it| !open_only || it.state == InvoiceState::Open);
        let index = |it: &Invoice| index_of(it.created_unix_s, &it.payment_hash);
        Ok(page(&all, wanted, index))
    }

    async fn invoice(&self, payment_hash: [u8; 32]) -> Result<Option<Invoice>, NodeError> {
        let list = self.list.lock().unwrap();
        let mut invoices = list.invoices.iter();
        Ok(invoices.find(|it| it.payment_hash == payment_hash).cloned())
    }

    async fn add_invoice(&self, new: NewInvoice) -> Result<Invoice, NodeError> {
        self.ask_phone().await?;
        let mut list = self.list.lock().unwrap();
        // One a second, so that their order is known.
        let made_unix_s = (self.now)() + list.invoices.len() as u64;
        let preimage = preimage(made_unix_s);
        let invoice = Invoice {
            payment_hash: sha256::Hash::hash(&preimage).to_byte_array(),
            bolt11: bolt11(&new, made_unix_s, preimage, 8)?,
            description: new.description,
            amount_msat: new.amount_msat,
            created_unix_s: made_unix_s,
            expires_unix_s: made_unix_s + u64::from(new.expiry_s),
            payment_secret: Some([5; 32]),
            ..Invoice::default()
        };
        list.invoices.push(invoice.clone());
        let _ = self
            .changes
            .send(Change::Invoice(Box::new(invoice.clone())));
        Ok(invoice)
    }

    async fn payments(
        &self,
        wanted: Page,
        succeeded_only: bool,
    ) -> Result<Vec<Payment>, NodeError> {
        let mut all = self.list.lock().unwrap().payments.clone();
        all.retain(|it| !succeeded_only || it.state == PaymentState::Succeeded);
        let index = |it: &Payment| index_of(it.created_unix_s, &it.payment_hash);
        Ok(page(&all, wanted, index))
    }

    async fn pay(&self, pay: Pay) -> Result<Updates<Payment>, NodeError> {
        if self.payment(pay.payment_hash).is_some() {
            return Err(NodeError::AlreadyPaid);
        }
        self.ask_phone().await?;
        let invoice: Bolt11Invoice = pay.bolt11.parse().unwrap();
        let amount_msat = invoice.amount_milli_satoshis().or(pay.amount_msat).unwrap();
        let begun = Payment {
            payment_hash: pay.payment_hash,
            amount_msat,
            created_unix_s: (self.now)(),
            bolt11: pay.bolt11,
            ..Payment::default()
        };
        let ended = Payment {
            state: PaymentState::Succeeded,
            preimage: Some(preimage(
                u64::MAX - invoice.amount_milli_satoshis().unwrap_or(0),
            )),
            fee_msat: pay.max_fee_msat.min(1_000),
            ..begun.clone()
        };
        self.list.lock().unwrap().payments.push(ended.clone());
        Ok(stream::iter([Ok(begun), Ok(ended)]).boxed())
    }

    async fn track(&self, payment_hash: [u8; 32]) -> Result<Option<Updates<Payment>>, NodeError> {
        let payment = self.payment(payment_hash);
        Ok(payment.map(|it| stream::iter([Ok(it)]).boxed()))
    }

    async fn transactions(&self) -> Result<Vec<Transaction>, NodeError> {
        Ok(self.list.lock().unwrap().transactions.clone())
    }

    async fn new_address(&self, kind: AddressKind) -> Result<String, NodeError> {
        match kind {
            AddressKind::Segwit => Ok(ADDRESS.into()),
            AddressKind::Taproot => Err(NodeError::BadInput("the wallet has no taproot".into())),
        }
    }

    async fn send_coins(&self, send: SendCoins) -> Result<String, NodeError> {
        self.ask_phone().await?;
        let amount_sat = send.amount_sat.unwrap_or(2_000_000);
        let sent = Transaction {
            txid: "77".repeat(32),
            amount_sat: -i64::try_from(amount_sat).unwrap_or(i64::MAX),
            fee_sat: 200,
            unix_s: (self.now)(),
            outputs: vec![Output {
                address: send.address,
                amount_sat,
                is_own: false,
            }],
            ..Transaction::default()
        };
        let _ = self
            .changes
            .send(Change::Transaction(Box::new(sent.clone())));
        let mut list = self.list.lock().unwrap();
        list.transactions.push(sent);
        Ok("77".repeat(32))
    }

    async fn accounts(&self) -> Result<Vec<Account>, NodeError> {
        Ok(vec![Account {
            name: "default".into(),
            kind: AddressKind::Segwit,
            xpub: "tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M".into(),
            derivation_path: "m/84'/1'/0'".into(),
            external_keys: 1,
            internal_keys: 0,
        }])
    }

    fn changes(&self) -> Updates<Change> {
        let receiver = self.changes.subscribe();
        let next = |mut receiver: broadcast::Receiver<Change>| async {
            match receiver.recv().await {
                Ok(change) => Some((Ok(change), receiver)),
                Err(broadcast::error::RecvError::Closed) => None,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let slow = "the app reads too slowly: subscribe again".into();
                    Some((Err(NodeError::Busy(slow)), receiver))
                }
            }
        };
        stream::unfold(receiver, move |receiver| next(receiver).boxed()).boxed()
    }
}

/// The one app of a node, until it is disconnected.
pub struct OneApp {
    node: Mutex<Option<Arc<dyn Node>>>,
}

impl OneApp {
    /// For this node.
    pub fn new(node: Arc<dyn Node>) -> Arc<OneApp> {
        let node = Mutex::new(Some(node));
        Arc::new(OneApp { node })
    }

    /// The app is not connected any more.
    pub fn disconnect(&self) {
        *self.node.lock().unwrap() = None;
    }
}

impl Apps for OneApp {
    fn app(&self, name: &[u8]) -> Option<App> {
        let node = self.node.lock().unwrap().clone()?;
        let root_key = RootKey::new(ROOT_KEY);
        (name == APP).then_some(App { root_key, node })
    }
}

/// A macaroon of [`OneApp`]'s app.
pub fn macaroon(rights: Rights, expires_unix_s: Option<u64>) -> Macaroon {
    macaroon_of(ROOT_KEY, rights, expires_unix_s)
}

/// A macaroon of another key.
pub fn macaroon_of(key: [u8; 32], rights: Rights, expires_unix_s: Option<u64>) -> Macaroon {
    let grant = Grant {
        app: APP,
        nonce: [1; 16],
        ops: &rights.ops(),
        expires_unix_s,
    };
    Macaroon::mint(&RootKey::new(key), &grant).unwrap()
}

/// All rights.
pub const ALL: Rights = Rights {
    read: true,
    invoices: true,
    pay: true,
};
