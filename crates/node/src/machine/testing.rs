//! A little world for unit tests: machines whose output is each other's input, a chain of made-up blocks, and a clock that
//! the test moves. No network, no tasks, no devnet: every step happens in [`World::settle`], in a fixed order.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod blocks;
mod scans;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, transaction};
use futures::executor::block_on;
use lightning::types::payment::PaymentHash;
use lightning_invoice::Bolt11Invoice;
use longhand_chain::{BlockRef, BroadcastAnswer, ChainError, ChainEvent, FeeRates, Watch};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Command, CommandReply, Error, NewAddress, OpenChannel};
use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_op::Op;
use longhand_store::{Batch as StoreBatch, MemoryStore, Store, Write};

use crate::api::{Keys, NodeConfig, NodeError, NodeEvent, Registration, SignerAway};
use crate::graph::Graph;
use crate::ldk::socket::ConnectionId;
use crate::machine::input::{HubRequest, Input, NewConnection};
use crate::machine::output::{Answer, Batch, HubAnswer, Output, PeerOutput, RequestId};
use crate::machine::turn::{Now, Turn};
use crate::machine::{Loading, NodeMachine};
use crate::store::history;
use crate::store::schema::key;

pub(crate) use blocks::WorldBlock;
pub(crate) use scans::Scans;

/// Index of a node in its world.
pub(crate) type Id = usize;

/// The start of every test's wall clock.
pub(crate) const START_UNIX_S: u64 = 1_800_000_000;
/// Turns of all nodes after which a world that is not at rest has a fault.
const MOST_ROUNDS: usize = 2_000;

/// A node, with everything that its driver would hold.
pub(crate) struct TestNode {
    pub machine: NodeMachine,
    pub config: Arc<NodeConfig>,
    graph: Arc<Graph>,
    /// The entries of its namespace, as committed.
    pub store: BTreeMap<String, Vec<u8>>,
    pub inputs: Vec<Input>,
    pub events: Vec<NodeEvent>,
    answers: BTreeMap<RequestId, Answer>,
    /// The phone; `None` for local keys.
    pub signer: Option<longhand_signer::Signer>,
    /// Batches are kept back instead of signed.
    pub signer_hangs: bool,
    /// The phone goes away with the batch after so many.
    pub batches_left: Option<usize>,
    /// Batches are kept back from the first one on that asks for a preimage.
    pub signer_hangs_at_preimage: bool,
    kept_batches: Vec<Batch>,
    /// The other end of each connection.
    pub links: BTreeMap<ConnectionId, (Id, ConnectionId)>,
}

/// See the module.
pub(crate) struct World {
    pub nodes: Vec<TestNode>,
    /// Every block with its transactions, the coinbase first; the first block is the genesis block.
    pub blocks: Vec<WorldBlock>,
    /// Broadcast, and in no block.
    pub mempool: Vec<Transaction>,
    /// Why the mempool takes nothing now.
    pub refusal: Option<String>,
    /// Everything that was ever broadcast, in a block or replaced meanwhile.
    pub sent: BTreeSet<Txid>,
    pub now: Now,
    pub fee_rates: FeeRates,
    /// No peer can be dialled.
    pub is_offline: bool,
    /// The chain source has compact filters.
    pub has_filters: bool,
    /// The chain source has the blocks of proofs.
    pub has_proofs: bool,
    /// A node that cannot be dialled.
    pub away: Option<Id>,
    /// A node that crashes with so many commits from here: its output is lost, and it is loaded again.
    pub crash: Option<(Id, usize)>,
    /// The chain's answers to searches of past blocks.
    pub scans: Scans,
    next_id: u64,
}

/// The follower's watch list, which a test has no use for: every node gets every transaction.
#[derive(Debug)]
struct WatchAll;

impl Watch for WatchAll {
    fn outpoint(&self, _: OutPoint) {}
    fn script(&self, _: ScriptBuf) {}
    fn txid(&self, _: Txid) {}
}

impl World {
    /// No nodes, and a chain of a genesis block.
    pub fn new() -> World {
        let genesis = bitcoin::constants::genesis_block(Network::Regtest);
        World {
            nodes: Vec::new(),
            blocks: vec![(genesis.header, Vec::new())],
            mempool: Vec::new(),
            refusal: None,
            sent: BTreeSet::new(),
            now: Now {
                instant: Instant::now(),
                since_1970: Duration::from_secs(START_UNIX_S),
            },
            fee_rates: FeeRates::FLOOR,
            is_offline: false,
            has_filters: true,
            has_proofs: true,
            away: None,
            crash: None,
            scans: Scans::default(),
            next_id: 0,
        }
    }

    /// Adds a hub with keys of its own.
    pub fn add_hub(&mut self, seed: u8) -> Id {
        self.add_hub_with_reserve(seed, 0)
    }

    /// Adds a hub that keeps so many coins for each of its channels.
    pub fn add_hub_with_reserve(&mut self, seed: u8, reserve_sat_per_channel: u64) -> Id {
        let keys = Keys::Local([seed; 32].into());
        self.add(
            NodeConfig {
                is_hub: true,
                alias: "hub".into(),
                reserve_sat_per_channel,
                ..NodeConfig::new("hub", Network::Regtest, keys)
            },
            None,
        )
    }

    /// Adds an owner's node whose keys are on a phone. The phone is not attached.
    pub fn add_owner(&mut self, seed: u8, hub: Option<Id>) -> Id {
        let entropy = longhand_signer::Seed::from_entropy(&[seed; 16]).unwrap();
        let signer = longhand_signer::Signer::new(&entropy, Network::Regtest, &[seed; 32]).unwrap();
        let registration = signer.register(0);
        self.add_registered(signer, registration, hub)
    }

    /// The same, with a registration that the test has made.
    pub fn add_registered(
        &mut self,
        signer: longhand_signer::Signer,
        registration: Registration,
        hub: Option<Id>,
    ) -> Id {
        let keys = Keys::Remote(Box::new(registration));
        let hub = hub.map(|hub| self.nodes[hub].machine.node_id());
        self.add(
            NodeConfig {
                hub,
                ..NodeConfig::new("owner", Network::Regtest, keys)
            },
            Some(signer),
        )
    }

    fn add(&mut self, config: NodeConfig, signer: Option<longhand_signer::Signer>) -> Id {
        let config = Arc::new(config);
        let graph = Arc::new(Graph::new(Network::Regtest));
        let (mut machine, _) = self.load(&config, &graph, BTreeMap::new(), 0).unwrap();
        machine.begin();
        self.nodes.push(TestNode {
            machine,
            config,
            graph,
            store: BTreeMap::new(),
            inputs: Vec::new(),
            events: Vec::new(),
            answers: BTreeMap::new(),
            signer,
            signer_hangs: false,
            batches_left: None,
            signer_hangs_at_preimage: false,
            kept_batches: Vec::new(),
            links: BTreeMap::new(),
        });
        let id = self.nodes.len() - 1;
        self.commit(id);
        self.settle();
        id
    }

    /// Loads a machine, and the block after which its stream begins.
    fn load(
        &self,
        config: &Arc<NodeConfig>,
        graph: &Arc<Graph>,
        entries: BTreeMap<String, Vec<u8>>,
        generation: u64,
    ) -> Result<(NodeMachine, BlockRef), NodeError> {
        let mut machine = NodeMachine::load(Loading {
            config: Arc::clone(config),
            graph: Arc::clone(graph),
            gossip: None,
            entries: entries.into_iter().collect(),
            tip: self.tip(),
            fee_rates: self.fee_rates,
            now: self.now,
            generation,
        })?;
        let (from, _) = machine.subscription();
        machine.subscribed(Arc::new(WatchAll));
        assert!(from.height <= self.height(), "a node is ahead of the chain");
        Ok((machine, from))
    }

    /// Loads a node again from what it has committed, as after a crash: connections and requests are gone, and the phone
    /// is not attached.
    pub fn reload(&mut self, id: Id) {
        let loaded = self.try_reload(id);
        loaded.expect("the node can be loaded");
    }

    /// The same, for a store that may not be readable.
    pub fn try_reload(&mut self, id: Id) -> Result<(), NodeError> {
        let node = &self.nodes[id];
        let (config, graph) = (Arc::clone(&node.config), Arc::clone(&node.graph));
        let generation = node.machine.next_generation();
        let mut entries = node.store.clone();
        entries.split_off(key::HISTORY);
        let (machine, from) = self.load(&config, &graph, entries, generation)?;
        for connection in std::mem::take(&mut self.nodes[id].links).into_values() {
            let (peer, other) = connection;
            self.nodes[peer].links.remove(&other);
            self.nodes[peer].inputs.push(Input::PeerClosed(other));
        }
        let node = &mut self.nodes[id];
        node.machine = machine;
        node.inputs.clear();
        node.answers.clear();
        node.kept_batches.clear();
        node.machine.begin();
        self.read_for_turn(id);
        self.commit(id);
        self.feed(id, from.height);
        self.settle();
        Ok(())
    }

    // -- Asking.

    /// Gives a node an input, and lets the world come to rest.
    pub fn input(&mut self, id: Id, input: Input) {
        self.nodes[id].inputs.push(input);
        self.settle();
    }

    /// Attaches the owner's phone.
    pub fn attach(&mut self, id: Id) {
        self.nodes[id].signer_hangs = false;
        let input = self.attachment(id, b"");
        self.input(id, input);
    }

    /// The input by which the owner's phone is attached, as the signer with this identity.
    pub fn attachment(&self, id: Id, identity: &[u8]) -> Input {
        let signer = self.nodes[id].signer.as_ref();
        let known = signer.map_or_else(Vec::new, |signer| signer.headers().locator());
        let known = known.into_iter();
        let known = known.map(|(height, hash)| BlockRef { height, hash });
        Input::Attach(identity.to_vec(), known.collect())
    }

    /// Gives a node a command.
    pub fn begin(&mut self, id: Id, command: Kind) -> RequestId {
        let request = self.push(id, command);
        self.settle();
        request
    }

    /// Gives a node a command, which it takes in with its next turn.
    pub fn push(&mut self, id: Id, command: Kind) -> RequestId {
        let hub = self.nodes.iter().find(|node| node.machine.is_hub());
        let hub = hub.map(|hub| hub.machine.node_id());
        if let Some(signer) = &mut self.nodes[id].signer {
            record_intent(signer, &command, hub);
        }
        let request = self.next_id();
        let command = Command {
            command: Some(command),
        };
        let input = Input::Command(request, Box::new(command));
        self.nodes[id].inputs.push(input);
        request
    }

    /// The answer to a command, once it is there.
    pub fn answer(&mut self, id: Id, request: RequestId) -> Option<Result<Reply, Error>> {
        match self.nodes[id].answers.remove(&request)? {
            Answer::Command(reply) => Some(match reply.reply.expect("a reply") {
                Reply::Error(error) => Err(error),
                reply => Ok(reply),
            }),
            _ => panic!("the request was no command"),
        }
    }

    /// Gives a node a command that is answered at once.
    pub fn ask(&mut self, id: Id, command: Kind) -> Result<Reply, Error> {
        let request = self.begin(id, command);
        self.answer(id, request).expect("an answer")
    }

    /// Gives a hub a request of its operator.
    pub fn ask_hub(&mut self, id: Id, request: HubRequest) -> Result<HubAnswer, Error> {
        let number = self.next_id();
        self.input(id, Input::Hub(number, request));
        match self.nodes[id].answers.remove(&number) {
            Some(Answer::Hub(answer)) => answer,
            _ => panic!("no answer of a hub"),
        }
    }

    /// Whether a request was answered.
    pub fn has_answered(&self, id: Id, request: RequestId) -> bool {
        self.nodes[id].answers.contains_key(&request)
    }

    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A part's view of a node.
    pub fn turn(&mut self, id: Id) -> &mut Turn {
        &mut self.nodes[id].machine.turn
    }

    // -- The chain.

    pub fn height(&self) -> u32 {
        u32::try_from(self.blocks.len() - 1).unwrap()
    }

    pub fn tip(&self) -> BlockRef {
        BlockRef {
            height: self.height(),
            hash: self.blocks.last().unwrap().0.block_hash(),
        }
    }

    /// Mines the mempool, and more blocks without transactions.
    pub fn mine(&mut self, blocks: u32) {
        let from = self.height();
        for _ in 0..blocks {
            let txs = std::mem::take(&mut self.mempool);
            self.push_block(txs);
        }
        for id in 0..self.nodes.len() {
            self.feed(id, from);
        }
        self.settle();
    }

    /// Takes the last blocks out of the chain; their transactions are in the mempool again.
    pub fn disconnect(&mut self, blocks: usize) {
        let kept = self.blocks.len() - blocks;
        for (_, txs) in self.blocks.split_off(kept) {
            self.mempool.extend(txs.into_iter().skip(1));
        }
        let fork = self.tip();
        for node in &mut self.nodes {
            let event = ChainEvent::Disconnected { fork };
            node.inputs.push(Input::Chain(event));
        }
    }

    fn push_block(&mut self, txs: Vec<Transaction>) {
        self.blocks.push(blocks::mine(self.tip(), txs));
    }

    /// Gives a node the blocks after `from`.
    fn feed(&mut self, id: Id, from: u32) {
        for height in from + 1..=self.height() {
            let (header, txs) = &self.blocks[usize::try_from(height).unwrap()];
            // No node watches a coinbase.
            let txs = txs.iter().cloned().map(Arc::new).enumerate().skip(1);
            let event = ChainEvent::Connected {
                height,
                header: *header,
                txs: txs.collect(),
            };
            self.nodes[id].inputs.push(Input::Chain(event));
        }
        let event = ChainEvent::Synced { tip: self.tip() };
        self.nodes[id].inputs.push(Input::Chain(event));
    }

    /// Pays a node's on-chain wallet, in a block of its own.
    pub fn fund(&mut self, id: Id, amount_sat: u64) {
        let address = match self.ask(id, Kind::NewAddress(NewAddress {})) {
            Ok(Reply::Address(address)) => address.address,
            other => panic!("no address: {other:?}"),
        };
        let address = address.parse::<bitcoin::Address<_>>().unwrap();
        let coin = self.next_id();
        let mut txid = [0; 32];
        txid[..8].copy_from_slice(&coin.to_be_bytes());
        let previous_output = OutPoint::new(Txid::from_byte_array(txid), 0);
        self.mempool.push(Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output,
                ..TxIn::default()
            }],
            output: vec![TxOut {
                value: Amount::from_sat(amount_sat),
                script_pubkey: address.assume_checked().script_pubkey(),
            }],
        });
        self.mine(1);
    }

    // -- Time.

    /// Moves the clock, and lets every timer that has expired act.
    pub fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.since_1970 += time;
        self.settle();
    }

    /// Works turns until no node has anything to do now.
    pub fn settle(&mut self) {
        self.settle_until(|_| false);
    }

    /// The same, until `is_there` at the latest.
    pub fn settle_until(&mut self, is_there: impl Fn(&World) -> bool) {
        for _ in 0..MOST_ROUNDS {
            let is_busy = |node: &TestNode| {
                let due = node.machine.next_due();
                !node.inputs.is_empty() || due.is_some_and(|due| due <= self.now.instant)
            };
            let Some(id) = self
                .nodes
                .iter()
                .position(is_busy)
                .filter(|_| !is_there(self))
            else {
                return;
            };
            self.turn_of(id);
        }
        panic!("the world does not come to rest");
    }

    fn turn_of(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        let mut inputs = std::mem::take(&mut node.inputs);
        if inputs.is_empty() {
            inputs.push(Input::TimerExpired);
        }
        node.machine.turn(self.now, self.fee_rates, inputs);
        self.read_for_turn(id);
        for dial in self.nodes[id].machine.take_dials() {
            let input = match self.connect(id, dial.node_id) {
                Some(new) => Input::PeerDialed(dial.node_id, new),
                None => Input::DialFailed(dial.node_id, "nobody is there".into()),
            };
            self.nodes[id].inputs.push(input);
        }
        if let Some(request) = self.nodes[id].machine.take_scan() {
            let answer = self.scans.answer(&self.blocks, request);
            let answer = answer.map(|answer| Input::Scanned(Box::new(answer)));
            self.nodes[id].inputs.extend(answer);
        }
        if let Some(request) = self.nodes[id].machine.take_headers_request() {
            let answer = Box::new(blocks::headers(&self.blocks, &request));
            self.nodes[id].inputs.push(Input::Headers(answer));
        }
        if let Some(request) = self.nodes[id].machine.take_proof_request() {
            let answer = match self.has_proofs {
                true => blocks::proof(&self.blocks, &request),
                false => Err(ChainError::Pruned),
            };
            let answer = Box::new(answer);
            self.nodes[id].inputs.push(Input::Proof(answer));
        }
        if let Some(request) = self.nodes[id].machine.take_filters_request() {
            let answer = match self.has_filters {
                true => blocks::filters(&self.blocks, &request),
                false => Err(ChainError::NoFilters),
            };
            let answer = Box::new(answer);
            self.nodes[id].inputs.push(Input::Filters(answer));
        }
        // A turn without effect waits for the next, or for its timer: here the next step of the clock.
        if self.nodes[id].machine.must_commit() {
            self.commit(id);
        }
    }

    /// Gives a node the records that its turn needs.
    fn read_for_turn(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        while !node.machine.unread().is_empty() {
            let store = node.history();
            let read = |hash: &PaymentHash| {
                let found = block_on(history::find(&store, "node", hash));
                (*hash, found.expect("a readable record"))
            };
            let records = node.machine.unread().iter().map(read).collect();
            let inputs = vec![Input::RecordsRead(records)];
            node.machine.turn(self.now, self.fee_rates, inputs);
        }
    }

    /// Commits a node's turns, and delivers their output.
    fn commit(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        let writes = node.machine.take_writes();
        let is_crash = !writes.is_empty() && crashes(&mut self.crash, id);
        for write in writes {
            match write {
                Write::Put(key, value) => drop(node.store.insert(key, value)),
                Write::Delete(key) => drop(node.store.remove(&key)),
            }
        }
        if is_crash {
            return self.reload(id);
        }
        let output = node.machine.take_output();
        let peers = node.machine.take_peer_output();
        let batch = node.machine.next_batch();
        self.deliver(id, output, peers, batch);
    }

    fn deliver(&mut self, id: Id, output: Output, peers: Vec<PeerOutput>, batch: Option<Batch>) {
        let node = &mut self.nodes[id];
        node.answers.extend(output.replies);
        for (request, read) in output.reads {
            let reply = block_on(history::answer(&node.history(), "node", read));
            let reply = CommandReply {
                reply: Some(reply.expect("a readable record")),
            };
            node.answers.insert(request, Answer::Command(reply));
        }
        node.events.extend(output.events);
        if let Some(batch) = batch {
            node.sign(batch, self.now.unix_s());
        }
        for package in output.packages {
            self.relay(id, package);
        }
        for output in peers {
            let Some((peer, other)) = self.nodes[id].links.get(&output.id).copied() else {
                continue;
            };
            let messages = output.messages.into_iter();
            let bytes = messages.map(|message| Input::PeerBytes(other, message));
            self.nodes[peer].inputs.extend(bytes);
            if output.is_closed {
                self.nodes[id].links.remove(&output.id);
                self.nodes[peer].links.remove(&other);
                self.nodes[peer].inputs.push(Input::PeerClosed(other));
            }
        }
    }

    /// The chain source takes a package, or refuses it with the world's reason.
    fn relay(&mut self, id: Id, package: Vec<Transaction>) {
        let txid = package.last().expect("a transaction").compute_txid();
        let answer = match &self.refusal {
            Some(reason) => BroadcastAnswer::Refused(reason.clone()),
            None => BroadcastAnswer::Accepted,
        };
        if self.nodes[id].machine.awaits_answer(txid) {
            self.nodes[id].inputs.push(Input::Broadcast(txid, answer));
        }
        if self.refusal.is_none() {
            package.into_iter().for_each(|tx| self.broadcast(tx));
        }
    }

    /// A mempool that takes everything: a newer transaction replaces those that spend the same.
    fn broadcast(&mut self, tx: Transaction) {
        self.sent.insert(tx.compute_txid());
        let is_mined = |known: &Transaction| known.compute_txid() == tx.compute_txid();
        if self.blocks.iter().any(|(_, txs)| txs.iter().any(is_mined)) {
            return;
        }
        let spends_same = |other: &Transaction| {
            let mut inputs = other.input.iter();
            inputs.any(|one| {
                let mut ours = tx.input.iter();
                ours.any(|it| it.previous_output == one.previous_output)
            })
        };
        self.mempool.retain(|other| !spends_same(other));
        self.mempool.push(tx);
    }

    fn connect(&mut self, from: Id, to: PublicKey) -> Option<NewConnection> {
        if self.is_offline {
            return None;
        }
        let mut nodes = self.nodes.iter();
        let to = nodes.position(|node| node.machine.node_id() == to)?;
        if self.away == Some(to) {
            return None;
        }
        let (near, far) = (self.next_id(), self.next_id());
        self.nodes[from].links.insert(near, (to, far));
        self.nodes[to].links.insert(far, (from, near));
        let accepted = Input::PeerAccepted(new_connection(far));
        self.nodes[to].inputs.push(accepted);
        Some(new_connection(near))
    }
}

impl TestNode {
    /// The operations that were kept back from the phone.
    pub fn kept_ops(&self) -> Vec<SignerOp> {
        let kept = self.kept_batches.iter();
        kept.flat_map(|batch| batch.ops.ops.clone()).collect()
    }

    /// The part of its store that is not read when it is loaded.
    fn history(&self) -> MemoryStore {
        let entries = self.store.range(key::HISTORY.to_owned()..);
        let writes = entries.map(|(key, value)| Write::Put(key.clone(), value.clone()));
        let store = MemoryStore::new();
        let batch = StoreBatch {
            namespace: "node".into(),
            epoch: 0,
            writes: writes.collect(),
        };
        block_on(store.commit(batch)).expect("a store in memory");
        store
    }

    fn sign(&mut self, batch: Batch, now_unix_s: u64) {
        let asks_for_preimage = |op: &SignerOp| matches!(op.op, Some(Op::GetPreimage(_)));
        self.signer_hangs |=
            self.signer_hangs_at_preimage && batch.ops.ops.iter().any(asks_for_preimage);
        if self.signer_hangs {
            return self.kept_batches.push(batch);
        }
        match self.batches_left {
            Some(0) => {
                self.batches_left = None;
                return self.inputs.push(Input::SignerLost);
            }
            left => self.batches_left = left.map(|left| left - 1),
        }
        let Batch { ops, ticket } = batch;
        let reply = match &mut self.signer {
            Some(signer) => Ok(signer.handle(&ops, now_unix_s).reply),
            None => Err(SignerAway),
        };
        self.inputs.push(Input::SignerReply(ticket, reply));
    }
}

/// The owner's intent, as a phone records it before it sends the command. A command that is refused needs none.
fn record_intent(signer: &mut longhand_signer::Signer, command: &Kind, hub: Option<PublicKey>) {
    let _ = match command {
        Kind::SendOnchain(send) => {
            signer.add_onchain_intent(&send.id, &send.address, send.amount_sat, 100_000, 1)
        }
        Kind::BumpTransaction(bump) => match bump.txid.parse() {
            Ok(txid) => signer.want_acceleration(txid, 100_000),
            Err(_) => return,
        },
        Kind::CloseChannel(close) => {
            let intent = longhand_signer::ChannelIntent::Close {
                channel_id: close.channel_id.clone(),
                force: close.force,
                address: close.address.clone(),
            };
            signer.add_channel_intent(intent, 1)
        }
        Kind::OpenChannel(open) => {
            let named = PublicKey::from_slice(&open.counterparty_node_id).ok();
            let Some(counterparty_node_id) = named.or(hub) else {
                return;
            };
            let intent = longhand_signer::ChannelIntent::Open {
                id: open.id.clone(),
                counterparty_node_id,
                amount_sat: open.amount_sat,
                announced: open.announced,
                max_fee_sat: 100_000,
            };
            signer.add_channel_intent(intent, 1)
        }
        Kind::Pay(pay) => {
            let Ok(invoice) = pay.bolt11.parse::<Bolt11Invoice>() else {
                return;
            };
            let amount_msat = invoice.amount_milli_satoshis().unwrap_or(pay.amount_msat);
            let max_fee_msat = pay.max_fee_msat.unwrap_or(amount_msat);
            signer.add_intent(
                invoice.payment_hash().0,
                amount_msat,
                max_fee_msat,
                u64::MAX,
                1,
            )
        }
        _ => return,
    };
}

/// A hub with a channel of 500,000 sat to an owner whose phone is attached.
pub(crate) fn world_with_channel() -> (World, Id, Id) {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(hub, 1_000_000);
    world.attach(owner);
    let open = OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: world.nodes[owner].machine.node_id().serialize().to_vec(),
        amount_sat: 500_000,
        ..OpenChannel::default()
    };
    let opening = world.begin(hub, Kind::OpenChannel(open));
    let opened = world
        .answer(hub, opening)
        .expect("the funding is broadcast");
    assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    world.mine(6);
    // What has no effect is committed too.
    world.pass(Duration::from_secs(1));
    (world, hub, owner)
}

/// Counts a commit of `id`; true for the one with which it crashes.
fn crashes(crash: &mut Option<(Id, usize)>, id: Id) -> bool {
    let Some((_, left)) = crash.as_mut().filter(|(crashing, _)| *crashing == id) else {
        return false;
    };
    *left -= 1;
    let is_last = *left == 0;
    if is_last {
        *crash = None;
    }
    is_last
}

fn new_connection(id: ConnectionId) -> NewConnection {
    NewConnection {
        id,
        unwritten: Arc::new(AtomicUsize::new(0)),
        hosted: None,
    }
}
