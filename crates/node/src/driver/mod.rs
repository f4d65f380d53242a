//! The shell around one node's machine: clock, store, chain, signer and sockets. It works in turns.
//!
//! 1. Take all messages that are there as the machine's inputs.
//! 2. Let the machine work a turn on them. Nothing leaves the node.
//!    When it needs records that are not in memory, read them and let it go on with the turn (`reads.rs`).
//! 3. Commit everything that is to be written as one batch.
//! 4. Send the machine's output: packages to the chain, replies, events, bytes to peers, a batch to the signer.
//!
//! A turn that panics, or cannot be committed, never happened: the node is loaded again from its store (`recovery.rs`).
//! `peers.rs` has the sockets' tasks, `pending.rs` the replies, `message.rs` the inbox.

pub(crate) mod message;
mod peers;
mod pending;
mod question;
mod reads;
mod recovery;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use longhand_chain::{BlockRef, ChainError, ChainEvent, Subscription};
use longhand_store::{Batch as StoreBatch, KeyRange, StoreError};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use self::message::{Message, PeerEvent};
use self::peers::Peers;
use self::pending::{Pending, ReplyTo};
use self::question::Question;
use self::recovery::Recovery;
use crate::api::{NodeConfig, NodeError, NodeEvent, Services, SignerTransport};
use crate::graph::GossipSync;
use crate::ldk::logger::Logger;
use crate::machine::input::{Input, NewConnection};
use crate::machine::output::{Batch, DialRequest, Output, RequestId};
use crate::machine::turn::Now;
use crate::machine::{Loading, NodeMachine};
use crate::store::history::Read;
use crate::store::schema::key;

/// Messages taken into one turn; more make a next one.
const INPUTS_PER_TURN: usize = 64;
/// Between the look-up of an announced channel in the chain and passing its gossip on: a peer that has not got the block
/// yet drops the gossip. Any other turn passes it on too.
const GOSSIP_PAUSE: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Driver {
    config: Arc<NodeConfig>,
    services: Services,
    /// Of a hub.
    gossip: Option<Arc<GossipSync>>,
    /// In a box: what an `async` function moves or keeps is part of its future, often twice, and each node has one.
    machine: Box<NodeMachine>,
    chain: Subscription,
    inbox: mpsc::UnboundedReceiver<Message>,
    own_inbox: mpsc::UnboundedSender<Message>,
    events: broadcast::Sender<NodeEvent>,
    /// Of the lease on the node's namespace.
    epoch: u64,
    signer: Option<Arc<dyn SignerTransport>>,
    /// The signer has asked to leave: it is not attached again after a turn that failed.
    signer_leaves: bool,
    /// To be answered once the node has ended.
    stopping: Option<oneshot::Sender<()>>,
    /// The node had to be loaded again while there was a signer: it is attached in the next turn, since it may panic again.
    signer_returns: bool,
    peers: Peers,
    pending: Pending,
    /// Requests of committed turns that the store answers.
    reads: Vec<(RequestId, Read)>,
    recovery: Recovery,
    questions: Questions,
}

/// What the machine has asked the chain.
#[derive(Default)]
struct Questions {
    scan: Question,
    headers: Question,
    proof: Question,
    filters: Question,
}

impl Questions {
    /// Drops all: they are those of a machine that is no more.
    fn cancel(&mut self) {
        self.scan.cancel();
        self.headers.cancel();
        self.proof.cancel();
        self.filters.cancel();
    }
}

/// The reason for the next turn.
enum Wake {
    Message(Message),
    Chain(ChainEvent),
    /// Announced channels were looked up in the chain, and their gossip waits to be taken in.
    GossipChecked,
    TimerExpired,
    End,
}

impl Driver {
    /// Loads the node and commits its beginning.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is written then but the lease.
    pub async fn new(
        config: NodeConfig,
        services: Services,
        inbox: mpsc::UnboundedReceiver<Message>,
        own_inbox: mpsc::UnboundedSender<Message>,
        events: broadcast::Sender<NodeEvent>,
    ) -> Result<Driver, NodeError> {
        let config = Arc::new(config);
        let epoch = services.store.take_lease(&config.namespace).await?;
        let gossip = gossip_sync(&config, &services);
        let (machine, chain) = load(&config, &services, gossip.clone(), 0).await?;
        let mut driver = Driver {
            config,
            services,
            gossip,
            machine,
            chain,
            inbox,
            peers: Peers::new(own_inbox.clone()),
            own_inbox,
            events,
            epoch,
            signer: None,
            signer_leaves: false,
            stopping: None,
            signer_returns: false,
            pending: Pending::default(),
            reads: Vec::new(),
            recovery: Recovery::default(),
            questions: Questions::default(),
        };
        driver.machine.begin();
        if !driver.read_for_turn().await? {
            let reason = "the first turn panicked: see the log, and start the host again";
            return Err(NodeError::Load(reason.into()));
        }
        if driver.machine.must_commit() {
            driver.commit().await?;
            driver.release();
        }
        Ok(driver)
    }

    /// The node's id.
    pub fn node_id(&self) -> PublicKey {
        self.machine.node_id()
    }

    /// Runs until the node is stopped, its chain ends, or it fails for good.
    pub async fn run(mut self) {
        self.work().await;
        let stopping = self.stopping.take();
        drop(self);
        if let Some(stopping) = stopping {
            let _ = stopping.send(());
        }
    }

    async fn work(&mut self) {
        loop {
            let wakes = self.wakes().await;
            if wakes.iter().any(|wake| matches!(wake, Wake::End)) {
                return;
            }
            let inputs = self.inputs(wakes);
            if !self.catch_panic(|driver| driver.turn(inputs)) {
                if !self.recover_from_panic().await {
                    return;
                }
                continue;
            }
            let goes_on = match self.read_for_turn().await {
                Ok(true) => None,
                Ok(false) => Some(self.recover_from_panic().await),
                Err(failure) => Some(self.recover_from_store(failure).await),
            };
            match goes_on {
                None => {}
                Some(true) => continue,
                Some(false) => return,
            }
            if !self.machine.must_commit() {
                for (id, reads) in self.machine.take_reads() {
                    self.peers.allow_reads(id, reads);
                }
                continue;
            }
            match self.commit().await {
                Ok(has_written) => {
                    self.recovery.committed(has_written);
                    let mut has_stopped = false;
                    let released = self.catch_panic(|driver| has_stopped = driver.release());
                    if has_stopped || (!released && !self.recover_from_panic().await) {
                        return;
                    }
                    self.answer_reads().await;
                }
                Err(failure) => {
                    if !self.recover_from_store(failure).await {
                        return;
                    }
                }
            }
        }
    }

    /// The next reason for a turn, and all that are there with it. Blocks are rare, and a turn takes in of both blocks and
    /// messages what is there; its timers run in every turn.
    async fn wakes(&mut self) -> Vec<Wake> {
        let due = self.machine.next_due().map(Instant::from_std);
        let first = tokio::select! {
            biased;
            event = self.chain.events.recv() => event.map_or(Wake::End, Wake::Chain),
            message = self.inbox.recv() => message.map_or(Wake::End, Wake::Message),
            () = gossip_is_checked(self.gossip.as_deref()) => Wake::GossipChecked,
            () = sleep_until(due) => Wake::TimerExpired,
        };
        let mut wakes = vec![first];
        while wakes.len() < INPUTS_PER_TURN {
            if let Ok(message) = self.inbox.try_recv() {
                wakes.push(Wake::Message(message));
            } else if let Ok(event) = self.chain.events.try_recv() {
                wakes.push(Wake::Chain(event));
            } else {
                break;
            }
        }
        wakes
    }

    /// The machine's inputs.
    fn inputs(&mut self, wakes: Vec<Wake>) -> Vec<Input> {
        let dropped = self.pending.take_dropped().into_iter();
        let mut inputs: Vec<Input> = dropped.map(Input::RequestDropped).collect();
        if std::mem::take(&mut self.signer_returns)
            && let Some(signer) = &self.signer
        {
            inputs.push(attach(&**signer));
        }
        for wake in wakes {
            match wake {
                Wake::Message(message) => inputs.extend(self.input(message)),
                Wake::Chain(event) => inputs.push(Input::Chain(event)),
                Wake::GossipChecked => inputs.push(Input::GossipChecked),
                Wake::TimerExpired => inputs.push(Input::TimerExpired),
                Wake::End => {}
            }
        }
        inputs
    }

    fn input(&mut self, message: Message) -> Option<Input> {
        let input = match message {
            Message::Command(command, sender) => {
                Input::Command(self.pending.insert(ReplyTo::Command(sender)), command)
            }
            Message::Invoice(request, sender) => {
                Input::Invoice(self.pending.insert(ReplyTo::Command(sender)), request)
            }
            Message::Overview(sender) => {
                Input::Overview(self.pending.insert(ReplyTo::Overview(sender)))
            }
            Message::Hub(request, sender) => {
                Input::Hub(self.pending.insert(ReplyTo::Hub(sender)), request)
            }
            Message::Attach(signer) => {
                let input = attach(&*signer);
                self.signer = Some(signer);
                self.signer_leaves = false;
                input
            }
            Message::Detach(sender) => {
                self.signer_leaves = true;
                Input::Detach(self.pending.insert(ReplyTo::Done(sender)))
            }
            Message::SignerLost => {
                self.signer = None;
                Input::SignerLost
            }
            Message::SignerReply(ticket, reply) => Input::SignerReply(ticket, reply),
            // Of a machine that is no more.
            Message::Scanned(number, _) if !self.questions.scan.is_last(number) => return None,
            Message::Headers(number, _) if !self.questions.headers.is_last(number) => return None,
            Message::Proof(number, _) if !self.questions.proof.is_last(number) => return None,
            Message::Filters(number, _) if !self.questions.filters.is_last(number) => return None,
            Message::Scanned(_, answer) => Input::Scanned(answer),
            Message::Headers(_, answer) => Input::Headers(answer),
            Message::Proof(_, answer) => Input::Proof(answer),
            Message::Filters(_, answer) => Input::Filters(answer),
            Message::Broadcast(txid, answer) => Input::Broadcast(txid, answer),
            Message::Accept(stream, hosted) => Input::PeerAccepted(NewConnection {
                hosted,
                ..self.peers.add(stream)
            }),
            Message::Dialed(node_id, Ok(stream)) => {
                Input::PeerDialed(node_id, self.peers.add(stream))
            }
            Message::Dialed(node_id, Err(error)) => Input::DialFailed(node_id, error.to_string()),
            // Of a connection that was closed meanwhile.
            Message::Peer(id, _) if !self.peers.contains(id) => return None,
            Message::Peer(id, PeerEvent::Bytes(bytes)) => Input::PeerBytes(id, bytes),
            Message::Peer(_, PeerEvent::Writable) => Input::PeerWritable,
            Message::Peer(id, PeerEvent::Closed) => {
                self.peers.remove(id);
                Input::PeerClosed(id)
            }
            Message::ResetSignerChain => Input::ResetSignerChain,
            Message::FailHeld(node_id) => Input::FailHeld(node_id),
            Message::Stop(sender) => {
                self.stopping = Some(sender);
                Input::Stop
            }
            #[cfg(feature = "testing")]
            Message::Panic => Input::Panic,
            #[cfg(feature = "testing")]
            Message::PanicWhenAttached(times) => Input::PanicWhenAttached(times),
        };
        Some(input)
    }

    fn turn(&mut self, inputs: Vec<Input>) {
        let fee_rates = self.services.chain.fee_rates();
        self.machine.turn(now(), fee_rates, inputs);
        for request in self.machine.take_dials() {
            self.dial(request);
        }
        self.ask_chain();
    }

    /// Has the chain answer the machine's questions.
    fn ask_chain(&mut self) {
        let Questions {
            scan,
            headers,
            proof,
            filters,
        } = &mut self.questions;
        if let Some(request) = self.machine.take_scan() {
            let chain = Arc::clone(&self.services.chain);
            let answer = async move { Box::new(chain.scan(request).await) };
            scan.ask(answer, Message::Scanned, self.own_inbox.clone());
        }
        if let Some(request) = self.machine.take_headers_request() {
            let chain = Arc::clone(&self.services.chain);
            let answer = async move { Box::new(chain.headers(request).await) };
            headers.ask(answer, Message::Headers, self.own_inbox.clone());
        }
        if let Some(request) = self.machine.take_proof_request() {
            let chain = Arc::clone(&self.services.chain);
            let answer = async move { Box::new(chain.proof(request.block, request.txid).await) };
            proof.ask(answer, Message::Proof, self.own_inbox.clone());
        }
        if let Some(request) = self.machine.take_filters_request() {
            let chain = Arc::clone(&self.services.chain);
            let answer = async move { Box::new(chain.filters(request).await) };
            filters.ask(answer, Message::Filters, self.own_inbox.clone());
        }
    }

    /// Does a part of a turn. False when it panicked.
    fn catch_panic(&mut self, part: impl FnOnce(&mut Driver)) -> bool {
        catch_unwind(AssertUnwindSafe(|| part(self))).is_ok()
    }

    fn dial(&self, request: DialRequest) {
        let DialRequest { node_id, address } = request;
        let (dialer, inbox) = (Arc::clone(&self.services.dialer), self.own_inbox.clone());
        tokio::spawn(async move {
            let stream = dialer.dial(node_id, &address).await;
            let _ = inbox.send(Message::Dialed(node_id, stream));
        });
    }

    // -- Commit and release.

    /// False when there was nothing to write.
    async fn commit(&mut self) -> Result<bool, StoreError> {
        let writes = self.machine.take_writes();
        if writes.is_empty() {
            return Ok(false);
        }
        let batch = StoreBatch {
            namespace: self.config.namespace.clone(),
            epoch: self.epoch,
            writes,
        };
        self.services.store.commit(batch).await?;
        Ok(true)
    }

    /// Sends the machine's output. True when it has stopped.
    fn release(&mut self) -> bool {
        let Output {
            replies,
            reads,
            events,
            packages,
            has_stopped,
            ..
        } = self.machine.take_output();
        let node_id = self.machine.node_id();
        for package in packages {
            self.await_answer(&package);
            self.services.chain.broadcast(node_id, package);
        }
        for (id, answer) in replies {
            self.pending.answer(id, answer);
        }
        self.reads.extend(reads);
        for event in events {
            let _ = self.events.send(event);
        }
        // LDK may panic here: everything else that is committed has been sent.
        for output in self.machine.take_peer_output() {
            self.peers.send(output);
        }
        if let Some(batch) = self.machine.next_batch() {
            self.sign(batch);
        }
        if !self.machine.signer_is_attached() {
            self.signer = None;
            self.signer_leaves = false;
        }
        has_stopped
    }

    /// Passes the chain source's answer to a package on to the machine, when that wants it.
    fn await_answer(&self, package: &[Transaction]) {
        let txid = package.last().map(Transaction::compute_txid);
        let Some(txid) = txid.filter(|txid| self.machine.awaits_answer(*txid)) else {
            return;
        };
        let node_id = self.machine.node_id();
        let answer = self.services.chain.broadcast_answer(node_id, txid);
        let inbox = self.own_inbox.clone();
        tokio::spawn(async move {
            if let Ok(answer) = answer.await {
                let _ = inbox.send(Message::Broadcast(txid, answer));
            }
        });
    }

    fn sign(&self, batch: Batch) {
        let Some(signer) = self.signer.clone() else {
            return;
        };
        let Batch { ops, ticket } = batch;
        let inbox = self.own_inbox.clone();
        let mut signing = Box::pin(async move { signer.sign(ops).await });
        // Polled here, so that batches leave in the order of the turns that made them, whatever order their tasks run in.
        let at_once = signing
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        tokio::spawn(async move {
            let reply = match at_once {
                Poll::Ready(reply) => reply,
                Poll::Pending => signing.await,
            };
            let _ = inbox.send(Message::SignerReply(ticket, reply));
        });
    }
}

fn attach(signer: &dyn SignerTransport) -> Input {
    let known = signer.known_blocks().into_iter();
    let known = known.map(|(height, hash)| BlockRef { height, hash });
    Input::Attach(signer.identity(), known.collect())
}

/// The clocks, read in this one place.
fn now() -> Now {
    Now {
        instant: Instant::now().into_std(),
        since_1970: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Returns a moment after gossip that a hub looks up in the chain is there to be taken in.
async fn gossip_is_checked(gossip: Option<&GossipSync>) {
    match gossip {
        Some(gossip) => {
            gossip.validation_completion_future().await;
            tokio::time::sleep(GOSSIP_PAUSE).await;
        }
        None => std::future::pending().await,
    }
}

/// Takes in gossip for a hub.
fn gossip_sync(config: &NodeConfig, services: &Services) -> Option<Arc<GossipSync>> {
    let logger = Arc::new(Logger {
        node: config.namespace.clone(),
    });
    let chain = Arc::clone(&services.chain);
    config
        .is_hub
        .then(|| services.graph.gossip_sync(chain, logger))
}

/// Loads a machine from the store, and begins its stream of the chain.
async fn load(
    config: &Arc<NodeConfig>,
    services: &Services,
    gossip: Option<Arc<GossipSync>>,
    generation: u64,
) -> Result<(Box<NodeMachine>, Subscription), NodeError> {
    let live = KeyRange {
        from: String::new(),
        to: key::HISTORY.into(),
        limit: None,
    };
    let entries = services.store.range(&config.namespace, live).await?;
    let tip = services.chain.tip().ok_or_else(|| {
        NodeError::Chain(ChainError::NotFound(
            "its own tip yet: waiting for it".into(),
        ))
    })?;
    let mut machine = Box::new(NodeMachine::load(Loading {
        config: Arc::clone(config),
        graph: Arc::clone(&services.graph),
        gossip,
        entries,
        tip,
        fee_rates: services.chain.fee_rates(),
        now: now(),
        generation,
    })?);
    let (from, watch) = machine.subscription();
    let subscription = services.chain.subscribe(from, watch).await?;
    machine.subscribed(Arc::clone(&subscription.watch));
    Ok((machine, subscription))
}
