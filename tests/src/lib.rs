//! A small world for scenario tests: a devnet, one follower, a hub and owners' nodes in this process.
//!
//! Everything is the real thing; only the link between a phone and its node is left out: the
//! phone's engine is attached to the node directly. Tests with real links and processes are in
//! `crates/longhand`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod valve;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Transaction};
use longhand_chain::devnet::Devnet;
use longhand_chain::{
    BlockRef, Chain, ChainError, FeeRates, Follower, FollowerConfig, OutputLookup, Subscription,
    WatchList,
};
use longhand_node::{
    Dialer, Graph, Keys, Node, NodeConfig, NodeEvent, Overview, PeerStream, Services, SignerAway,
    SignerTransport,
};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{
    self, AwaitChannel, AwaitPayment, Channels, CloseChannel, Command, CreateInvoice, GetInfo,
    ListChannels, OpenChannel, Pay, Payment,
};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerReply};
use longhand_signer::keys::Keys as SeedKeys;
use longhand_signer::{
    Account, InvoiceRequest, Keychain, LedgerRecord, Recorded, Refused, Seed, Signer,
};
use longhand_store::{MemoryStore, Store};
use tokio::sync::{Notify, broadcast};
use zeroize::Zeroizing;

pub use crate::valve::Valve;
use crate::valve::Valved;

/// Nothing in these tests takes this long; what does, hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

struct PhoneState {
    engine: Signer,
    /// What is durable of it.
    ledger: Vec<LedgerRecord>,
    /// Made with it.
    ledger_key: [u8; 32],
}

/// Where a phone dies.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// The batch never arrives.
    BeforeItIsRead,
    /// Its ledger is written, its answer is not sent; the phone starts again from the ledger.
    AfterItIsKept,
}

/// Tells one question from others.
pub type IsAsked = fn(&Op) -> bool;

pub type ThenDo = Box<dyn FnOnce(&Phone) + Send>;

/// The phone's engine with its ledger in memory.
pub struct Phone {
    seed: Seed,
    state: Mutex<PhoneState>,
    /// Answers nothing while set: batches fail as if the link had dropped.
    pub silent: AtomicBool,
    /// Counts batches; the one with this number (from 1) is lost with the link, see [`Loss`].
    loss: Mutex<Option<(u64, Loss)>>,
    asked: AtomicU64,
    lost: Notify,
    /// What is done once it has given a preimage, before anybody has it.
    at_a_preimage: Mutex<Option<ThenDo>>,
    /// What it goes at, once, without reading it.
    goes_before: Mutex<Option<IsAsked>>,
    /// How long an answer takes, in milliseconds: there and back.
    pub round_trip_ms: AtomicU64,
    /// Every batch that was answered.
    pub batches: Mutex<Vec<SignerBatch>>,
}

impl Phone {
    pub fn new(seed_byte: u8) -> Arc<Phone> {
        let seed = Seed::from_entropy(&[seed_byte; 16]).unwrap();
        let ledger_key = [7; 32];
        let engine = Signer::new(&seed, Network::Regtest, &ledger_key).unwrap();
        Arc::new(Phone {
            seed,
            state: Mutex::new(PhoneState {
                engine,
                ledger: Vec::new(),
                ledger_key,
            }),
            silent: AtomicBool::new(false),
            loss: Mutex::default(),
            asked: AtomicU64::new(0),
            lost: Notify::new(),
            at_a_preimage: Mutex::default(),
            goes_before: Mutex::default(),
            round_trip_ms: AtomicU64::new(0),
            batches: Mutex::default(),
        })
    }

    /// What is durable of the phone, record by record.
    pub fn ledger(&self) -> Vec<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let records = state.ledger.iter();
        records.map(|record| record.as_bytes().to_vec()).collect()
    }

    /// The engine as it is after a restart: from its records.
    pub fn restart(&self) {
        let mut state = self.state.lock().unwrap();
        let records = state.ledger.iter().map(|record| record.as_bytes().to_vec());
        let key = state.ledger_key;
        state.engine = Signer::restore(&self.seed, Network::Regtest, &key, records).unwrap();
    }

    /// The phone is made again from its words: with an empty ledger.
    pub fn lose_its_ledger(&self) {
        let mut state = self.state.lock().unwrap();
        state.ledger = Vec::new();
        state.ledger_key[0] += 1;
        let key = state.ledger_key;
        state.engine = Signer::new(&self.seed, Network::Regtest, &key).unwrap();
    }

    /// The batch after the next `batches - 1` is lost, and the link with it.
    pub fn lose(&self, batches: u64, loss: Loss) {
        let at = self.asked.load(Ordering::SeqCst) + batches;
        *self.loss.lock().unwrap() = Some((at, loss));
    }

    /// A call of the owner, durable when it returns.
    fn own<T>(&self, call: impl FnOnce(&mut Signer) -> Result<Recorded<T>, Refused>) -> T {
        let mut state = self.state.lock().unwrap();
        let done = call(&mut state.engine).unwrap();
        state.ledger.extend(done.records);
        done.value
    }

    /// With its next preimage, before anybody has it.
    pub fn at_a_preimage(&self, then: ThenDo) {
        *self.at_a_preimage.lock().unwrap() = Some(then);
    }

    /// When it is next asked this, before it has read it.
    pub fn go_before(&self, asked: IsAsked) {
        *self.goes_before.lock().unwrap() = Some(asked);
    }

    fn goes_at(&self, batch: &SignerBatch) -> bool {
        let mut goes_before = self.goes_before.lock().unwrap();
        goes_before.take_if(|asked| is_in(batch, *asked)).is_some()
    }

    /// Whether it has read a question like this.
    pub fn was_asked(&self, asked: IsAsked) -> bool {
        let batches = self.batches.lock().unwrap();
        batches.iter().any(|batch| is_in(batch, asked))
    }

    /// What any wallet finds in the chain that is restored from its words: accounts of BIP 84, up to BIP 44's gap limit.
    pub fn found_sat(&self, devnet: &Devnet) -> u64 {
        const GAP: u32 = 20;
        let blocks = (0..=devnet.tip().height).filter_map(|height| devnet.hash_at(height));
        let mut paid: HashMap<ScriptBuf, Vec<OutPoint>> = HashMap::new();
        for tx in blocks.flat_map(|hash| devnet.block(&hash).unwrap().txdata) {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(tx.output) {
                let outpoints = paid.entry(output.script_pubkey).or_default();
                outpoints.push(OutPoint { txid, vout });
            }
        }
        let keys = SeedKeys::new(&self.seed, Network::Regtest).unwrap();
        let mut found_sat = 0;
        for keychain in [Keychain::External, Keychain::Internal] {
            let (mut index, mut end) = (0, GAP);
            while index < end {
                let script = keys.script(Account::Bip84, keychain, index).unwrap();
                index += 1;
                if let Some(outpoints) = paid.get(&script) {
                    end = index + GAP;
                    let unspent = outpoints.iter().filter_map(|it| devnet.unspent(it));
                    found_sat += unspent.map(|output| output.value.to_sat()).sum::<u64>();
                }
            }
        }
        found_sat
    }

    /// Answers nothing more.
    pub fn goes(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst)
    }

    pub fn refusals(&self) -> String {
        format!("{:?}", self.state.lock().unwrap().engine.refusals())
    }
}

fn is_in(batch: &SignerBatch, asked: IsAsked) -> bool {
    batch.ops.iter().filter_map(|op| op.op.as_ref()).any(asked)
}

#[async_trait]
impl SignerTransport for Phone {
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        if self.silent.load(Ordering::SeqCst) {
            return Err(SignerAway);
        }
        if self.goes_at(&batch) {
            self.goes();
            return Err(SignerAway);
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let loss = self.loss.lock().unwrap().take_if(|(at, _)| *at == number);
        if matches!(loss, Some((_, Loss::BeforeItIsRead))) {
            self.lost.notify_one();
            return Err(SignerAway);
        }
        let round_trip_ms = self.round_trip_ms.load(Ordering::SeqCst);
        if round_trip_ms > 0 {
            tokio::time::sleep(Duration::from_millis(round_trip_ms)).await;
        }
        let reply = {
            let mut state = self.state.lock().unwrap();
            let outcome = state.engine.handle(&batch, unix_s());
            state.ledger.extend(outcome.records);
            outcome.reply
        };
        if matches!(loss, Some((_, Loss::AfterItIsKept))) {
            self.restart();
            self.lost.notify_one();
            return Err(SignerAway);
        }
        self.batches.lock().unwrap().push(batch);
        let mut answers = reply.answers.iter();
        if answers.any(|answer| matches!(answer.answer, Some(Answer::Preimage(_))))
            && let Some(then) = self.at_a_preimage.lock().unwrap().take()
        {
            then(self);
        }
        Ok(reply)
    }
}

/// Connects the nodes of this world to each other.
#[derive(Default)]
pub struct Switchboard {
    nodes: Mutex<HashMap<PublicKey, Node>>,
    /// What those who dial hear.
    pub valve: Arc<Valve>,
}

#[async_trait]
impl Dialer for Switchboard {
    async fn dial(&self, node_id: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
        let node = self.nodes.lock().unwrap().get(&node_id).cloned();
        let node = node.ok_or_else(|| std::io::Error::other("no such node"))?;
        let (stream, theirs) = tokio::io::duplex(64 * 1024);
        node.accept(Box::new(theirs));
        let valve = self.valve.clone();
        Ok(Box::new(Valved { stream, valve }))
    }
}

/// The chain of one node, with all that the node sends kept.
pub struct Tapped {
    follower: Arc<Follower>,
    sent: Mutex<Vec<Transaction>>,
    is_cut: AtomicBool,
}

impl Tapped {
    pub fn new(follower: &Arc<Follower>) -> Arc<Tapped> {
        Tapped::with(follower, false)
    }

    /// Nothing arrives: the process ends between the commit and the broadcast.
    pub fn cut_off(follower: &Arc<Follower>) -> Arc<Tapped> {
        Tapped::with(follower, true)
    }

    fn with(follower: &Arc<Follower>, is_cut: bool) -> Arc<Tapped> {
        Arc::new(Tapped {
            follower: follower.clone(),
            sent: Mutex::default(),
            is_cut: is_cut.into(),
        })
    }

    /// From now on what is sent arrives.
    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }

    pub fn sent(&self) -> Vec<Transaction> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl Chain for Tapped {
    async fn subscribe(
        &self,
        from: BlockRef,
        initial: WatchList,
    ) -> Result<Subscription, ChainError> {
        self.follower.subscribe(from, initial).await
    }

    fn tip(&self) -> Option<BlockRef> {
        self.follower.tip()
    }

    fn fee_rates(&self) -> FeeRates {
        self.follower.fee_rates()
    }

    fn broadcast(&self, package: Vec<Transaction>) {
        self.sent.lock().unwrap().extend(package.clone());
        if !self.is_cut.load(Ordering::SeqCst) {
            self.follower.broadcast(package);
        }
    }

    fn outputs(&self) -> Arc<dyn OutputLookup> {
        self.follower.outputs()
    }
}

pub struct World {
    pub devnet: Devnet,
    pub follower: Arc<Follower>,
    pub store: Arc<dyn Store>,
    pub graph: Arc<Graph>,
    pub switchboard: Arc<Switchboard>,
    pub hub: Node,
}

/// A node with its phone.
pub struct Owner {
    pub name: String,
    pub phone: Arc<Phone>,
    pub node: Node,
}

impl World {
    /// A chain with a funded hub.
    pub async fn new() -> World {
        World::on(Arc::new(MemoryStore::default())).await
    }

    /// The same, with everything on this store.
    pub async fn on(store: Arc<dyn Store>) -> World {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let devnet = Devnet::start_default().await.unwrap();
        let source = Arc::new(devnet.source());
        let config = FollowerConfig {
            poll_interval: Duration::from_millis(50),
        };
        let follower = Arc::new(Follower::start(source, config));
        let mut tips = follower.tips();
        tips.wait_for(Option::is_some).await.unwrap();
        let graph = Arc::new(Graph::new(Network::Regtest));
        let switchboard = Arc::new(Switchboard::default());
        let chain: Arc<dyn Chain> = follower.clone();
        let services = Services {
            store: store.clone(),
            chain,
            graph: graph.clone(),
            dialer: switchboard.clone(),
        };
        let hub = start_hub(&switchboard, services).await;
        let world = World {
            devnet,
            follower,
            store,
            graph,
            switchboard,
            hub,
        };
        world.fund(&world.hub, 10_000_000).await;
        world
    }

    pub fn services(&self) -> Services {
        Services {
            store: self.store.clone(),
            chain: self.follower.clone(),
            graph: self.graph.clone(),
            dialer: self.switchboard.clone(),
        }
    }

    /// The hub again, from what it has stored.
    pub async fn start_hub(&self) -> Node {
        start_hub(&self.switchboard, self.services()).await
    }

    /// The hub again, with a chain of its own.
    pub async fn start_hub_on(&self, chain: Arc<dyn Chain>) -> Node {
        let services = Services {
            chain,
            ..self.services()
        };
        start_hub(&self.switchboard, services).await
    }

    /// A node for a new phone, dormant.
    pub async fn owner(&self, name: &str, seed_byte: u8) -> Owner {
        let phone = Phone::new(seed_byte);
        let node = self.start(name, &phone).await;
        Owner {
            name: name.into(),
            phone,
            node,
        }
    }

    /// The same, with a chain of its own.
    pub async fn owner_on(&self, chain: Arc<dyn Chain>, name: &str, seed_byte: u8) -> Owner {
        let phone = Phone::new(seed_byte);
        let services = Services {
            chain,
            ..self.services()
        };
        let node = self.start_with(services, name, &phone).await;
        Owner {
            name: name.into(),
            phone,
            node,
        }
    }

    /// Starts the node of `phone` from the store.
    pub async fn start(&self, name: &str, phone: &Phone) -> Node {
        self.start_on(self.store.clone(), name, phone).await
    }

    /// Starts the node of `phone` from a store of its own.
    pub async fn start_on(&self, store: Arc<dyn Store>, name: &str, phone: &Phone) -> Node {
        let services = Services {
            store,
            ..self.services()
        };
        self.start_with(services, name, phone).await
    }

    /// Starts the node of `phone` with services of its own.
    pub async fn start_with(&self, services: Services, name: &str, phone: &Phone) -> Node {
        let registration = phone.state.lock().unwrap().engine.register(0);
        let keys = Keys::Remote(Box::new(registration));
        let config = NodeConfig {
            hub: Some(self.hub.node_id()),
            alias: name.into(),
            ..NodeConfig::new(format!("node/{name}"), Network::Regtest, keys)
        };
        let node = Node::start(config, services).await.unwrap();
        self.switchboard
            .nodes
            .lock()
            .unwrap()
            .insert(node.node_id(), node.clone());
        node
    }

    /// A node with its keys beside it, and the hub as its peer.
    pub async fn shop(&self, services: Services) -> Node {
        let keys = Keys::Local(Zeroizing::new([9; 32]));
        let config = NodeConfig {
            hub: Some(self.hub.node_id()),
            ..NodeConfig::new("shop", Network::Regtest, keys)
        };
        let shop = Node::start(config, services).await.unwrap();
        let mut nodes = self.switchboard.nodes.lock().unwrap();
        nodes.insert(shop.node_id(), shop.clone());
        shop
    }

    /// Mines, and waits until the follower has seen it.
    pub async fn mine(&self, blocks: u32) {
        self.devnet.mine_to_wallet(blocks).unwrap();
        let tip = self.devnet.tip();
        self.follower.poke();
        self.follower
            .tips()
            .wait_for(|seen| *seen == Some(tip))
            .await
            .unwrap();
    }

    /// Mines, and waits until a node has seen it.
    pub async fn mine_seen_by(&self, node: &Node, blocks: u32) {
        self.mine(blocks).await;
        let height = self.devnet.tip().height;
        until("the node has seen the last block", async || {
            let info = ask(node, Kind::GetInfo(GetInfo {})).await;
            matches!(info, Reply::Info(info) if info.block_height == height)
        })
        .await;
    }

    /// Mines until `done`.
    pub async fn mine_until<F: AsyncFnMut() -> bool>(&self, what: &str, mut done: F) {
        for _ in 0..200 {
            if done().await {
                return;
            }
            self.mine(1).await;
            tokio::task::yield_now().await;
        }
        panic!("after 200 blocks still not: {what}");
    }

    pub async fn fund(&self, node: &Node, amount_sat: u64) {
        let before = node.overview().await.unwrap().onchain_sat;
        let Reply::Address(address) = ask(node, Kind::NewAddress(command::NewAddress {})).await
        else {
            panic!("no address")
        };
        let address = Address::from_str(&address.address)
            .unwrap()
            .assume_checked();
        self.devnet
            .faucet(&address, Amount::from_sat(amount_sat))
            .unwrap();
        self.mine(1).await;
        until("the funds are there", async || {
            node.overview().await.unwrap().onchain_sat >= before + amount_sat
        })
        .await;
    }

    /// A channel whose funding is in the mempool: the ids that the opener chose and that it has.
    pub async fn begin_to_open(
        &self,
        from: &Node,
        to: &Node,
        amount_sat: u64,
        push_msat: u64,
    ) -> (Vec<u8>, Vec<u8>) {
        let id = rand_id();
        let open = OpenChannel {
            id: id.clone(),
            counterparty_node_id: to.node_id().serialize().to_vec(),
            amount_sat,
            push_msat,
            ..OpenChannel::default()
        };
        let Reply::OpenedChannel(opened) = ask(from, Kind::OpenChannel(open)).await else {
            panic!("not opened")
        };
        until("the funding is in the mempool", async || {
            !self.devnet.mempool().is_empty()
        })
        .await;
        (id, opened.channel_id)
    }

    /// Opens a channel from `from` to `to` and waits until both can use it. Returns the channel's id.
    pub async fn open(&self, from: &Node, to: &Node, amount_sat: u64, push_msat: u64) -> Vec<u8> {
        let (id, channel_id) = self.begin_to_open(from, to, amount_sat, push_msat).await;
        let (from_usable, to_usable) = (usable(from).await, usable(to).await);
        self.mine_until("the channel is usable", async || {
            settle().await;
            usable(from).await > from_usable && usable(to).await > to_usable
        })
        .await;
        let Reply::Channel(_) = ask(from, Kind::AwaitChannel(AwaitChannel { id })).await else {
            panic!("not usable")
        };
        channel_id
    }
}

/// Channels of the hub's that end.
impl World {
    /// The hub closes one of its channels by force, and its commitment is sent.
    pub async fn hub_closes(&self, channel_id: Vec<u8>) {
        let force = true;
        let close = CloseChannel { channel_id, force };
        ask(&self.hub, Kind::CloseChannel(close)).await;
        until("the hub's commitment is sent", async || {
            !self.devnet.mempool().is_empty()
        })
        .await;
    }
}

async fn start_hub(switchboard: &Switchboard, services: Services) -> Node {
    let config = NodeConfig {
        is_hub: true,
        alias: "hub".into(),
        ..NodeConfig::new(
            "hub",
            Network::Regtest,
            Keys::Local(Zeroizing::new([7; 32])),
        )
    };
    let hub = Node::start(config, services).await.unwrap();
    let mut nodes = switchboard.nodes.lock().unwrap();
    nodes.insert(hub.node_id(), hub.clone());
    hub
}

/// Lets tasks run that are ready.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

pub async fn usable(node: &Node) -> u32 {
    node.overview().await.unwrap().usable_channels
}

fn rand_id() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
        .to_be_bytes()
        .to_vec()
}

/// A command that must succeed.
pub async fn ask(node: &Node, command: Kind) -> Reply {
    match try_ask(node, command).await {
        Reply::Error(error) => panic!("{}: {}", error.code, error.message),
        reply => reply,
    }
}

/// A command that must succeed in the end: asked again, as a phone does, while a fault of a test makes it fail.
pub async fn ask_in_the_end(node: &Node, command: Kind) -> Reply {
    loop {
        match try_ask(node, command.clone()).await {
            Reply::Error(error) if ["DISK_FULL", "STORE_FAILED"].contains(&&*error.code) => {}
            Reply::Error(error) => panic!("{}: {}", error.code, error.message),
            reply => return reply,
        }
    }
}

pub async fn try_ask(node: &Node, command: Kind) -> Reply {
    let command = Command {
        command: Some(command),
    };
    let reply = tokio::time::timeout(PATIENCE, node.command(command)).await;
    reply.expect("a command was not answered").reply.unwrap()
}

/// The code of a command that must fail.
pub async fn refusal(node: &Node, command: Kind) -> String {
    match try_ask(node, command).await {
        Reply::Error(error) => error.code,
        reply => panic!("not refused: {reply:?}"),
    }
}

/// Waits for a condition that other tasks bring about.
pub async fn until<F: AsyncFnMut() -> bool>(what: &str, mut done: F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("still not: {what}"));
}

/// Waits for an event that a node tells.
pub async fn hear<T>(
    told: &mut broadcast::Receiver<NodeEvent>,
    what: &str,
    mut is_it: impl FnMut(NodeEvent) -> Option<T>,
) -> T {
    let heard = async {
        loop {
            if let Some(it) = is_it(told.recv().await.unwrap()) {
                return it;
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await;
    heard.unwrap_or_else(|_| panic!("not told: {what}"))
}

impl Owner {
    pub fn attach(&self) {
        self.phone.silent.store(false, Ordering::SeqCst);
        self.node.attach(self.phone.clone());
    }

    /// Comes back each time its link is lost, until the returned task is dropped.
    pub fn keep_coming_back(&self) -> tokio::task::JoinSet<()> {
        let (phone, node) = (self.phone.clone(), self.node.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            loop {
                phone.lost.notified().await;
                node.signer_lost();
                node.attach(phone.clone());
            }
        });
        tasks
    }

    pub async fn overview(&self) -> Overview {
        self.node.overview().await.unwrap()
    }

    pub async fn channels(&self) -> Channels {
        match ask(&self.node, Kind::ListChannels(ListChannels {})).await {
            Reply::Channels(channels) => channels,
            reply => panic!("{reply:?}"),
        }
    }

    /// A signed invoice of this owner's phone.
    pub async fn invoice(&self, amount_msat: u64) -> String {
        let mut entropy = [0; 32];
        entropy[..16].copy_from_slice(&rand_id());
        entropy[16..].fill(self.name.len() as u8);
        let payment_hash = self
            .phone
            .own(|engine| engine.new_payment(amount_msat, entropy, unix_s()));
        let create = CreateInvoice {
            payment_hash: payment_hash.to_vec(),
            amount_msat,
            description: "coffee".into(),
            expiry_s: 3600,
        };
        let unsigned = loop {
            match try_ask(&self.node, Kind::CreateInvoice(create.clone())).await {
                Reply::UnsignedInvoice(unsigned) => break unsigned,
                Reply::Error(error) if error.action() == Action::Retry => {}
                reply => panic!("{reply:?}"),
            }
        };
        let asked = InvoiceRequest {
            payment_hash,
            amount_msat,
            description: "coffee".into(),
            expiry_s: 3600,
        };
        let signed = self
            .phone
            .own(|engine| engine.finish_invoice(&unsigned, &asked, unix_s()));
        signed.to_string()
    }

    pub async fn pay(&self, bolt11: &str) -> Payment {
        pay(&self.node, bolt11).await
    }

    pub async fn close(&self, channel_id: &[u8], force: bool) {
        let close = CloseChannel {
            channel_id: channel_id.to_vec(),
            force,
        };
        ask(&self.node, Kind::CloseChannel(close)).await;
    }
}

/// Pays and waits for the end.
pub async fn pay(node: &Node, bolt11: &str) -> Payment {
    let pay = Pay {
        bolt11: bolt11.into(),
        ..Pay::default()
    };
    match ask(node, Kind::Pay(pay)).await {
        Reply::Payment(payment) => payment,
        reply => panic!("{reply:?}"),
    }
}

/// Waits for the end of a payment.
pub async fn await_payment(node: &Node, payment_hash: &[u8]) -> Payment {
    let wait = AwaitPayment {
        payment_hash: payment_hash.to_vec(),
    };
    match ask(node, Kind::AwaitPayment(wait)).await {
        Reply::Payment(payment) => payment,
        reply => panic!("{reply:?}"),
    }
}
