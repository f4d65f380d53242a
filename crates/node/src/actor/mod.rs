//! The loop of one node: it works in turns, and a turn is a transaction.
//!
//! 1. Take all input that is there.
//! 2. Run LDK on it until nothing more happens. Nothing leaves the node.
//! 3. Commit everything that is to be written as one batch.
//! 4. Let go what was held back: peers' bytes, operations for the signer, transactions, replies.
//!
//! A turn that panics, or cannot be committed, never happened: the node is loaded again from its store.
//!
//! - `due.rs`: when the next turn is due with nothing from outside; `pace.rs`: how often that is.
//! - `signing.rs`: the signer, there and away.
//! - `peers.rs`: dialling and peers' bytes.
//! - `telling.rs`: commands, and what is said of the node.

mod due;
mod pace;
mod peers;
mod signing;
mod telling;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use futures::FutureExt;
use lightning::events::{Event, EventsProvider};
use lightning::ln::msgs::SocketAddress;
use longhand_chain::{ChainEvent, Subscription};
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{Command, CommandReply};
use longhand_proto::signer::SignerReply;
use longhand_store::{Batch, StoreError, Write};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;

use self::pace::Pace;
use self::peers::Dial;
use crate::commands::{Wait, error, refused};
use crate::core::{Core, unix_s};
use crate::journal::lock;
use crate::keys::desk::OpKey;
use crate::{
    NodeConfig, NodeError, NodeEvent, Overview, PeerNeeded, PeerStream, Services, SignerAway,
    SignerTransport, State,
};

/// Inputs taken into one turn; more make a next one.
const INPUTS_PER_TURN: usize = 64;
/// A turn that has not come to rest by then goes on in the next.
const ROUNDS_PER_TURN: usize = 32;
/// LDK's own periods.
const PEER_TICK: Duration = Duration::from_secs(10);
const MANAGER_TICK: Duration = Duration::from_secs(60);
const ANNOUNCEMENT: Duration = Duration::from_secs(3600);
const REBROADCAST: Duration = Duration::from_secs(30);
/// A hub's colour in node announcements (BOLT 7).
const COLOR: [u8; 3] = [0x10, 0x4f, 0x9a];
/// How long a turn that nobody has heard of may stay unkept.
const KEPT_WITHIN: Duration = Duration::from_millis(100);
/// After a connection was lost, before who is connected is looked at: a peer that hangs up each time is not dialled without
/// a pause.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// Between the look into the chain for a piece of gossip and passing it on; any other turn does it too.
const GOSSIP_PAUSE: Duration = Duration::from_secs(2);
/// How long after an attach commands wait for the channels to be usable.
const WAKING_LIMIT: Duration = Duration::from_secs(10);
/// How long a detach waits for the step in hand.
const DETACH_LIMIT: Duration = Duration::from_secs(5);
/// Panics within this time of each other are one trouble: each makes the node wait longer before it is loaded again.
const PANICS_APART: Duration = Duration::from_secs(60);
/// Between attempts to reach a peer, and to load the node again.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// Written and deleted at once, see [`Actor::try_to_write`].
const PROBE: &str = "probe";

/// Everything that can happen to a node, but for the chain and the clock.
pub(crate) enum Input {
    /// In a box because the largest input decides what every node's empty inbox takes.
    Command(Box<Command>, oneshot::Sender<CommandReply>),
    Invoice {
        amount_msat: u64,
        description: String,
        expiry_s: u32,
        reply: oneshot::Sender<CommandReply>,
    },
    Attach(Arc<dyn SignerTransport>),
    Detach(oneshot::Sender<()>),
    SignerLost,
    SignerReply(SignerAnswer),
    Accept(Box<dyn PeerStream>),
    Dialed(PublicKey, std::io::Result<Box<dyn PeerStream>>),
    PeerBytes(u64, Vec<u8>),
    PeerClosed(u64),
    PeerWritable,
    /// Begin another turn.
    GoOn,
    Overview(oneshot::Sender<Overview>),
    ResetSignerChain,
    FailHeld(PublicKey),
    Stop(oneshot::Sender<()>),
    #[cfg(feature = "testing")]
    Panic,
    /// So many times when a signer is attached.
    #[cfg(feature = "testing")]
    PanicWhenAttached(u32),
}

/// The end of one batch.
pub(crate) struct SignerAnswer {
    generation: u64,
    keys: Vec<OpKey>,
    depth: u32,
    reply: Result<SignerReply, SignerAway>,
}

struct Attached {
    signer: Arc<dyn SignerTransport>,
    /// It failed a batch: nothing more is sent until a signer is attached anew.
    stalled: bool,
}

struct Detaching {
    done: Vec<oneshot::Sender<()>>,
    until: Instant,
}

/// How many signer batches had to wait for each other.
#[derive(Default)]
struct SignerCount {
    batches: u64,
    ops: u64,
    /// Longest run answered since the last reset.
    answered: u32,
}

pub(crate) struct Actor {
    core: Core,
    chain: Subscription,
    inbox: mpsc::UnboundedReceiver<Input>,
    own_inbox: mpsc::UnboundedSender<Input>,
    events: broadcast::Sender<NodeEvent>,
    epoch: u64,
    signer: Option<Attached>,
    /// Was there when the node had to be loaded again, and is to be attached in the next turn.
    returning: Option<Arc<dyn SignerTransport>>,
    generation: u64,
    count: SignerCount,
    waiters: Vec<(Wait, oneshot::Sender<CommandReply>)>,
    /// Commands that wait for the channels to be usable, until `awake_by`.
    deferred: Vec<(Command, oneshot::Sender<CommandReply>)>,
    awake_by: Instant,
    /// Asked in this turn; answered when it has come to rest.
    questions: Vec<(Command, oneshot::Sender<CommandReply>)>,
    overviews: Vec<oneshot::Sender<Overview>>,
    dials: HashMap<PublicKey, Dial>,
    detaching: Option<Detaching>,
    /// When to look who is connected, since something happened that may have changed it.
    look_around: Option<Instant>,
    /// The last turn ended before LDK had come to rest.
    is_restless: bool,
    state: State,
    restarts: Arc<AtomicU32>,
    /// Turns in a row that could not be kept.
    failures: u32,
    /// Panics since a while without any, and the last one.
    panics: u32,
    last_panic: Option<Instant>,
    #[cfg(feature = "testing")]
    panics_when_attached: u32,
    pace: Pace,
    next_peer_tick: Instant,
    next_manager_tick: Instant,
    next_announcement: Instant,
    /// A hub with announced channels has said so.
    is_announced: bool,
    next_rebroadcast: Instant,
    outgoing: Outgoing,
    /// When the turns since the last commit are kept at the latest; `None` when there are none.
    keep_by: Option<Instant>,
}

/// What a turn sets free once it is committed.
#[derive(Default)]
struct Outgoing {
    replies: Vec<(oneshot::Sender<CommandReply>, CommandReply)>,
    events: Vec<NodeEvent>,
    /// Peers for whom payments are held, and peers that are needed for what they were sent.
    held: Vec<PeerNeeded>,
    needed: Vec<PeerNeeded>,
    packages: Vec<Vec<Transaction>>,
    overviews: Vec<(oneshot::Sender<Overview>, Overview)>,
    detached: Vec<oneshot::Sender<()>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        let Outgoing {
            replies,
            events,
            held,
            needed,
            packages,
            overviews,
            detached,
            stop,
        } = self;
        replies.is_empty()
            && events.is_empty()
            && held.is_empty()
            && needed.is_empty()
            && packages.is_empty()
            && overviews.is_empty()
            && detached.is_empty()
            && stop.is_none()
    }
}

enum Wake {
    Input(Box<Input>),
    Chain(ChainEvent),
    /// Gossip was looked up in the chain, and waits to be taken in.
    GossipChecked,
    Tick,
    End,
}

impl Wake {
    /// Whether the node may have something to do for a while: after a look at it, or a block without anything of its own,
    /// it has not.
    fn is_news(&self) -> bool {
        match self {
            Wake::Input(input) => !matches!(**input, Input::Overview(_)),
            Wake::Chain(ChainEvent::Connected { txs, .. }) => !txs.is_empty(),
            Wake::Chain(ChainEvent::Disconnected { .. }) => true,
            Wake::Chain(ChainEvent::Synced { .. })
            | Wake::GossipChecked
            | Wake::Tick
            | Wake::End => false,
        }
    }
}

impl Actor {
    /// Loads the node and commits its beginning.
    pub async fn new(
        config: Arc<NodeConfig>,
        services: Services,
        inbox: mpsc::UnboundedReceiver<Input>,
        own_inbox: mpsc::UnboundedSender<Input>,
        events: broadcast::Sender<NodeEvent>,
        restarts: Arc<AtomicU32>,
    ) -> Result<Actor, NodeError> {
        let epoch = services.store.take_lease(&config.namespace).await?;
        let (core, chain) = load(config, services, own_inbox.clone(), 0).await?;
        let now = Instant::now();
        let mut actor = Actor {
            core,
            chain,
            inbox,
            own_inbox,
            events,
            epoch,
            signer: None,
            returning: None,
            generation: 0,
            count: SignerCount::default(),
            waiters: Vec::new(),
            deferred: Vec::new(),
            awake_by: now,
            questions: Vec::new(),
            overviews: Vec::new(),
            dials: HashMap::new(),
            detaching: None,
            look_around: Some(now),
            is_restless: false,
            state: State::Dormant,
            restarts,
            failures: 0,
            panics: 0,
            last_panic: None,
            #[cfg(feature = "testing")]
            panics_when_attached: 0,
            pace: Pace::new(now),
            next_peer_tick: now + PEER_TICK,
            next_manager_tick: now + MANAGER_TICK,
            next_announcement: now,
            is_announced: false,
            next_rebroadcast: now + REBROADCAST,
            outgoing: Outgoing::default(),
            keep_by: None,
        };
        actor.core.manager.timer_tick_occurred();
        actor.settle();
        actor.collect_broadcasts();
        actor.core.write_turn();
        actor.commit().await?;
        actor.release();
        Ok(actor)
    }

    /// The node's id.
    pub fn node_id(&self) -> PublicKey {
        self.core.keys.node_id()
    }

    /// Runs until the node is stopped or its store fails for good.
    pub async fn run(mut self) {
        loop {
            let mut wakes = vec![self.next().await];
            while wakes.len() < INPUTS_PER_TURN {
                if let Ok(input) = self.inbox.try_recv() {
                    wakes.push(Wake::Input(Box::new(input)));
                } else if let Ok(event) = self.chain.events.try_recv() {
                    wakes.push(Wake::Chain(event));
                } else {
                    break;
                }
            }
            if wakes.iter().any(|wake| matches!(wake, Wake::End)) {
                return;
            }
            if !self.goes_well(|actor| actor.turn(wakes)) {
                if !self.begin_anew().await {
                    return;
                }
                continue;
            }
            if !self.keeps() {
                self.core.peers.allow_reads();
                continue;
            }
            match self.commit().await {
                Ok(wrote) => {
                    // A full disk takes the turns that write nothing.
                    if wrote {
                        self.failures = 0;
                    }
                    if !self.goes_well(Actor::release) && !self.begin_anew().await {
                        return;
                    }
                }
                Err(failure) if !failure.is_transient() => return self.report_failure(&failure),
                Err(failure) => {
                    tracing::error!(node = %self.core.config.namespace, "{failure}");
                    let code = match failure {
                        NodeError::Store(StoreError::Full) => "DISK_FULL",
                        _ => "STORE_FAILED",
                    };
                    if !self.reload(code, &failure.to_string()).await {
                        return;
                    }
                }
            }
            if let Some(stopped) = self.outgoing.stop.take() {
                drop(self);
                let _ = stopped.send(());
                return;
            }
        }
    }

    /// Does a part of a turn. False when it panicked.
    fn goes_well(&mut self, part: impl FnOnce(&mut Actor)) -> bool {
        catch_unwind(AssertUnwindSafe(|| part(self))).is_ok()
    }

    /// Loads the node again after a panic. False when it is to end.
    async fn begin_anew(&mut self) -> bool {
        tracing::error!(node = %self.core.config.namespace, "a panic was caught: loading the node again");
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.count_panic();
        let reason = "the node met an internal error and was loaded again";
        let goes_on = self.reload("NODE_RESTARTED", reason).await;
        if goes_on {
            let _ = self.events.send(NodeEvent::Restarted);
        }
        goes_on
    }

    /// What makes a node panic may be there again once it is loaded, and its peer with it.
    fn count_panic(&mut self) {
        let now = Instant::now();
        let again = self
            .last_panic
            .is_some_and(|last| now.duration_since(last) < PANICS_APART);
        self.panics = if again {
            self.panics.saturating_add(1)
        } else {
            0
        };
        self.last_panic = Some(now);
        self.failures = self.failures.max(self.panics);
    }

    async fn next(&mut self) -> Wake {
        let due = self.next_due();
        // Blocks are rare, and a turn takes in of both what is there; its timers run in every turn.
        tokio::select! {
            biased;
            event = self.chain.events.recv() => match event {
                Some(event) => Wake::Chain(event),
                None => Wake::End,
            },
            input = self.inbox.recv() => match input {
                Some(input) => Wake::Input(Box::new(input)),
                None => Wake::End,
            },
            () = gossip_is_checked(&self.core) => Wake::GossipChecked,
            () = tokio::time::sleep_until(due) => Wake::Tick,
        }
    }

    // -- One turn.

    fn turn(&mut self, wakes: Vec<Wake>) {
        let now = Instant::now();
        let ticks = wakes.iter().any(|wake| matches!(wake, Wake::Tick));
        let keep_by = self.keep_by.get_or_insert(now + KEPT_WITHIN);
        let is_due = ticks || now >= *keep_by;
        if let Some(signer) = self.returning.take() {
            self.attach(signer);
        }
        for wake in wakes {
            if wake.is_news() {
                self.pace.busy(now);
            }
            match wake {
                Wake::Input(input) => {
                    // Bytes and signatures are most of what happens, and seldom change it.
                    if !matches!(*input, Input::PeerBytes(..) | Input::SignerReply(_)) {
                        self.look_around = Some(now);
                    }
                    self.input(*input);
                }
                Wake::Chain(event) => {
                    self.look_around = Some(now);
                    self.chain_event(event);
                }
                Wake::Tick | Wake::End => self.look_around = Some(now),
                Wake::GossipChecked => {}
            }
        }
        self.take_deferred();
        self.timers();
        self.settle();
        self.answer_waiters();
        self.finish_detach();
        let now = Instant::now();
        if self.look_around.take_if(|at| *at <= now).is_some() || self.state == State::Waking {
            self.connect_peers();
            self.update_state();
        }
        if !self.deferred.is_empty() && self.state == State::Active {
            let _ = self.own_inbox.send(Input::GoOn);
        }
        self.collect_broadcasts();
        self.answer_questions();
        self.core.watch_wallet();
        if is_due || self.has_consequences() || !self.core.has_changed() {
            self.keep_by = None;
            self.core.write_turn();
        }
    }

    /// Whether the turn is committed now, with those before it that were not.
    fn keeps(&self) -> bool {
        self.keep_by.is_none()
    }

    /// Whether anybody will hear of this turn. One that nobody hears of, such as taking up a payment that has to wait for
    /// the peer, is kept with the next, and is as if it had never been when the host dies before: who asked asks again.
    fn has_consequences(&self) -> bool {
        !self.outgoing.is_empty() || self.core.peers.have_output() || self.has_batch()
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Command(command, reply) => self.command(*command, reply),
            Input::Invoice {
                amount_msat,
                description,
                expiry_s,
                reply,
            } => {
                let invoice = self.core.local_invoice(amount_msat, &description, expiry_s);
                let answer = match invoice {
                    Ok(bolt11) => {
                        use longhand_proto::command::UnsignedInvoice;
                        let invoice = UnsignedInvoice {
                            hrp: bolt11,
                            data: Vec::new(),
                        };
                        CommandReply {
                            reply: Some(Reply::UnsignedInvoice(invoice)),
                        }
                    }
                    Err(error) => refused(error),
                };
                self.outgoing.replies.push((reply, answer));
            }
            Input::Attach(signer) => self.attach(signer),
            // Local keys are always there.
            Input::Detach(done) if self.core.remote().is_none() => {
                let _ = done.send(());
            }
            Input::Detach(done) => {
                let until = Instant::now() + DETACH_LIMIT;
                let detaching = self.detaching.get_or_insert_with(|| Detaching {
                    done: Vec::new(),
                    until,
                });
                detaching.done.push(done);
            }
            Input::SignerLost => self.signer_gone(),
            Input::SignerReply(answer) => self.signer_answered(answer),
            Input::Accept(stream) => self.accept(stream),
            Input::Dialed(node_id, stream) => self.dialed(node_id, stream),
            Input::PeerBytes(id, bytes) => self.peer_bytes(id, bytes),
            Input::PeerClosed(id) => self.peer_closed(id),
            Input::PeerWritable | Input::GoOn => {}
            Input::Overview(reply) => self.overviews.push(reply),
            Input::ResetSignerChain => self.count.answered = 0,
            Input::FailHeld(node_id) => self.core.fail_held(&node_id),
            Input::Stop(stopped) => {
                self.signer_gone();
                self.core.peer_manager.disconnect_all_peers();
                self.outgoing.stop = Some(stopped);
            }
            #[cfg(feature = "testing")]
            Input::Panic => panic!("asked for by a test"),
            #[cfg(feature = "testing")]
            Input::PanicWhenAttached(times) => self.panics_when_attached = times,
        }
    }

    /// Runs LDK until nothing more happens.
    fn settle(&mut self) {
        self.is_restless = true;
        for _ in 0..ROUNDS_PER_TURN {
            self.feed_handshakes();
            self.core.peer_manager.process_events();
            if self.core.manager.needs_pending_htlc_processing()
                && self
                    .core
                    .remote()
                    .is_none_or(|remote| !remote.peels_pending())
            {
                self.core.manager.process_pending_htlc_forwards();
            }
            let events = self.take_events();
            let quiet = events.is_empty();
            if !quiet {
                self.look_around = Some(Instant::now());
            }
            for event in events {
                self.core.on_event(event, &mut self.outgoing.held);
            }
            if self.signer_is_there() {
                self.core.advance();
            }
            let released = self.core.release_held();
            self.core.peer_manager.process_events();
            if quiet && !released {
                self.is_restless = false;
                break;
            }
        }
    }

    fn take_events(&self) -> Vec<Event> {
        let events = std::sync::Mutex::new(Vec::new());
        let take = |event: Event| {
            lock(&events).push(event);
            Ok(())
        };
        self.core.manager.process_pending_events(&take);
        self.core.chain_monitor.process_pending_events(&take);
        events.into_inner().unwrap_or_default()
    }

    fn chain_event(&mut self, event: ChainEvent) {
        let synced = matches!(event, ChainEvent::Synced { .. });
        self.core.on_chain(event);
        self.outgoing.events.append(&mut self.core.losses);
        if synced {
            self.outgoing.held.extend(self.core.still_held());
        }
        if synced && self.core.config.is_hub {
            self.outgoing.needed.extend(self.core.peers_needed());
        }
        if synced && self.signer_is_there() {
            self.core.sweep();
        }
        if synced
            && let Some(deadline_height) = self.core.earliest_deadline()
            && !self.signer_is_there()
        {
            self.outgoing
                .events
                .push(NodeEvent::SignerNeeded { deadline_height });
        }
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if now >= self.next_peer_tick {
            self.next_peer_tick = now + PEER_TICK;
            self.core.peer_manager.timer_tick_occurred();
        }
        if !self.core.peers.is_empty() {
            self.pace.busy(now);
        }
        let pace = &self.pace;
        if pace.is_due(&mut self.next_manager_tick, now, MANAGER_TICK) {
            self.core.manager.timer_tick_occurred();
        }
        let usual = match self.is_announced {
            true => ANNOUNCEMENT,
            false => MANAGER_TICK,
        };
        if self.core.config.is_hub && pace.is_due(&mut self.next_announcement, now, usual) {
            self.announce(now);
        }
        if self.signer_is_there()
            && self
                .pace
                .is_due(&mut self.next_rebroadcast, now, REBROADCAST)
        {
            self.core.chain_monitor.rebroadcast_pending_claims();
            if let Some(remote) = self.core.remote() {
                remote.clear_retries();
                self.unblock();
            }
        }
    }

    /// Announces a hub that has announced channels (BOLT 7): peers pass on no more than one an hour or so.
    fn announce(&mut self, now: Instant) {
        // Usable, a channel is not yet announced: that takes both sides' signatures, and peers drop what a node says of
        // itself before they know of a channel of its.
        let is_known = |scid| self.core.services.graph.knows(scid);
        let mut channels = self.core.manager.list_channels();
        channels.retain(|channel| channel.is_announced);
        let mut announced = channels.iter();
        if !announced.any(|channel| channel.short_channel_id.is_some_and(is_known)) {
            self.is_announced = false;
            if !channels.is_empty() {
                self.next_announcement = now + PEER_TICK;
            }
            return;
        }
        self.is_announced = true;
        self.next_announcement = now + ANNOUNCEMENT;
        let mut alias = [0; 32];
        let name = self.core.config.alias.as_bytes();
        let length = name.len().min(32);
        alias[..length].copy_from_slice(&name[..length]);
        let announced = self.core.config.announce.iter();
        let addresses = announced
            .filter_map(|text| text.parse::<SocketAddress>().ok())
            .collect();
        self.core
            .peer_manager
            .broadcast_node_announcement(COLOR, alias, addresses);
    }

    /// Own transactions are in the wallet from the moment they are sent.
    fn collect_broadcasts(&mut self) {
        self.core.keep_agreed();
        for package in self.core.broadcaster.take() {
            lock(&self.core.wallet).insert_package(package.clone(), unix_s());
            self.core.see_closings(package.iter());
            self.outgoing.packages.push(package);
        }
    }

    // -- Commit and release.

    /// False when there was nothing to write.
    async fn commit(&mut self) -> Result<bool, NodeError> {
        let writes = self.core.journal.take();
        if writes.is_empty() {
            return Ok(false);
        }
        let namespace = self.core.config.namespace.clone();
        let batch = Batch {
            namespace,
            epoch: self.epoch,
            writes,
        };
        self.core.services.store.commit(batch).await?;
        Ok(true)
    }

    fn release(&mut self) {
        let outgoing = &mut self.outgoing;
        for package in outgoing.packages.drain(..) {
            self.core.services.chain.broadcast(package);
        }
        for (reply, answer) in outgoing.replies.drain(..) {
            let _ = reply.send(answer);
        }
        for (reply, overview) in outgoing.overviews.drain(..) {
            let _ = reply.send(overview);
        }
        for done in outgoing.detached.drain(..) {
            let _ = done.send(());
        }
        // In one event for all: whoever listens may not keep up with hundreds.
        let held = first_of_each(&mut outgoing.held);
        if !held.is_empty() {
            outgoing.events.push(NodeEvent::PaymentsHeld(held));
        }
        let needed = first_of_each(&mut outgoing.needed);
        if !needed.is_empty() {
            outgoing.events.push(NodeEvent::PeersNeeded(needed));
        }
        for event in outgoing.events.drain(..) {
            let _ = self.events.send(event);
        }
        for mut socket in self.core.peers.flush() {
            // What LDK writes now it had queued in a turn that is committed.
            if self
                .core
                .peer_manager
                .write_buffer_space_avail(&mut socket)
                .is_err()
            {
                self.core.peers.remove(socket.id);
            }
        }
        self.core.peers.flush();
        self.send_batch();
    }

    /// The turn never happened: peers are gone, and the node is what the store says. False when the node
    /// is to end.
    async fn reload(&mut self, code: &str, reason: &str) -> bool {
        let failure = error(code, Action::Retry, reason);
        let waiting = std::mem::take(&mut self.waiters)
            .into_iter()
            .map(|(_, reply)| reply)
            .chain(
                std::mem::take(&mut self.deferred)
                    .into_iter()
                    .map(|(_, reply)| reply),
            );
        let answered = std::mem::take(&mut self.outgoing.replies)
            .into_iter()
            .map(|(reply, _)| reply);
        for reply in waiting.chain(answered) {
            let _ = reply.send(refused(failure.clone()));
        }
        let stop = self.outgoing.stop.take();
        self.outgoing = Outgoing {
            stop,
            ..Outgoing::default()
        };
        if let Some(stop) = self.outgoing.stop.take() {
            let _ = stop.send(());
            return false;
        }
        self.generation += 1;
        self.look_around = Some(Instant::now());
        self.keep_by = None;
        self.dials.clear();
        self.questions.clear();
        self.overviews.clear();
        let (config, services) = (Arc::clone(&self.core.config), self.core.services.clone());
        let next_id = self.core.peers.next_id();
        loop {
            tokio::time::sleep(reload_delay(self.failures)).await;
            self.failures = self.failures.saturating_add(1);
            match self.try_to_write().await {
                Ok(()) => {}
                Err(error) if !error.is_transient() => {
                    self.report_failure(&error.into());
                    return false;
                }
                Err(error) => {
                    tracing::error!(node = %config.namespace, "{error}");
                    continue;
                }
            }
            let inbox = self.own_inbox.clone();
            let loading = load(Arc::clone(&config), services.clone(), inbox, next_id);
            match AssertUnwindSafe(loading).catch_unwind().await {
                Ok(Ok((core, chain))) => {
                    self.core = core;
                    self.chain = chain;
                    break;
                }
                Ok(Err(error)) if !error.is_transient() => {
                    self.report_failure(&error);
                    return false;
                }
                Ok(Err(error)) => tracing::error!(node = %config.namespace, "{error}"),
                Err(_) => {
                    tracing::error!(node = %config.namespace, "a panic was caught while the node was loaded")
                }
            }
        }
        // In a turn, since what panicked may do so again.
        self.returning = self.signer.take().map(|attached| attached.signer);
        true
    }

    /// The node ends by itself, since another attempt would fail too: the host reports it to the operator.
    fn report_failure(&self, failure: &NodeError) {
        tracing::error!(node = %self.core.config.namespace, "the node ends: {failure}");
        let _ = self.events.send(NodeEvent::Failed(failure.to_string()));
    }

    /// A node that is loaded while the disk is full would fail at its first turn. A little that is written and taken back
    /// says so at less cost.
    async fn try_to_write(&self) -> Result<(), StoreError> {
        let batch = Batch {
            namespace: self.core.config.namespace.clone(),
            epoch: self.epoch,
            writes: vec![
                Write::Put(PROBE.into(), vec![0]),
                Write::Delete(PROBE.into()),
            ],
        };
        self.core.services.store.commit(batch).await
    }
}

/// Of each peer the height that comes first.
fn first_of_each(peers: &mut Vec<PeerNeeded>) -> Vec<PeerNeeded> {
    let mut first = std::mem::take(peers);
    first.sort_by_key(|peer| (peer.node_id, peer.deadline_height));
    first.dedup_by_key(|peer| peer.node_id);
    first
}

/// The first time at once; then ever longer, so that a full disk is not asked all the time.
fn reload_delay(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        more => BACKOFF_FIRST
            .saturating_mul(1 << more.min(8))
            .min(BACKOFF_MOST),
    }
}

/// Returns a moment after something of the gossip that a hub looks up in the chain is there to be taken in. Taken in, it is
/// passed on, and a peer that has not seen the block yet drops what it is told of the nodes.
async fn gossip_is_checked(core: &Core) {
    match &core.gossip {
        Some(gossip) => {
            gossip.validation_completion_future().await;
            tokio::time::sleep(GOSSIP_PAUSE).await;
        }
        None => std::future::pending().await,
    }
}

async fn load(
    config: Arc<NodeConfig>,
    services: Services,
    inbox: mpsc::UnboundedSender<Input>,
    next_connection: u64,
) -> Result<(Core, Subscription), NodeError> {
    let chain = Arc::clone(&services.chain);
    let mut core = Core::load(config, services, inbox, next_connection).await?;
    let (from, watch) = core.subscription();
    core.begin_replay(from);
    let subscription = chain.subscribe(from, watch).await?;
    core.filter.connect(Arc::clone(&subscription.watch));
    Ok((core, subscription))
}
