//! One node as a deterministic value: inputs and the time go in, output comes out. It does no I/O.
//!
//! The driver gives a machine its inputs turn by turn. Nothing leaves during a turn. When [`NodeMachine::must_commit`], the
//! driver commits the turn's writes as one batch, and only then takes its output ([`NodeMachine::take_output`]). A turn that
//! panics or cannot be committed never happened: the driver loads another machine from the store.
//!
//! Here stands the order: which part gets an input, and which part is passed to another. `input.rs` and `output.rs` are the
//! two ends, `turn.rs` is lent to each part, `commands.rs` has the owner's commands, `chain.rs` the chain's events, `events.rs`
//! LDK's, `hub.rs` the requests of a hub's operator.

mod chain;
mod commands;
mod events;
mod hub;
pub(crate) mod input;
mod load;
pub(crate) mod output;
pub(crate) mod timers;
pub(crate) mod turn;
mod unread;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use lightning::events::Event;
use lightning::types::payment::PaymentHash;
use longhand_chain::{
    BlockRef, FeeRates, FiltersRequest, HeadersRequest, ScanRequest, Watch, WatchList,
};
use longhand_proto::Code;
use longhand_proto::command::{Command, Error};
use longhand_store::Write;

use crate::api::{NodeError, NodeEvent, State};
use crate::errors::signer_away;
use crate::ldk::socket::ConnectionId;
use crate::machine::chain::ChainEvents;
use crate::machine::commands::Commands;
use crate::machine::events::LdkEvents;
use crate::machine::input::Input;
use crate::machine::output::{Answer, Batch, DialRequest, Output, PeerOutput, RequestId};
use crate::machine::timers::*;
use crate::machine::turn::{Now, Turn};
use crate::machine::unread::{Unread, Waiting};
use crate::parts::acceptance::Acceptance;
use crate::parts::announcements::Announcements;
use crate::parts::block_filters::BlockFilters;
use crate::parts::chain_feed::ChainFeed;
use crate::parts::claims::Claims;
use crate::parts::closed_channels::{ClosedChannels, is_negotiating_a_close};
use crate::parts::connections::Connections;
use crate::parts::coop_closes::CoopCloses;
use crate::parts::dialing::{Dialing, Unreachable};
use crate::parts::fee_bumps::FeeBumps;
use crate::parts::forwarding::Forwarding;
use crate::parts::funding_proofs::{FundingProofs, ProofRequest};
use crate::parts::held_forwards::HeldForwards;
use crate::parts::in_flight::{InFlight, in_flight};
use crate::parts::onchain_sends::OnchainSends;
use crate::parts::openings::Openings;
use crate::parts::payments::Payments;
use crate::parts::requests::{self, Outcome, Requests, Wait};
use crate::parts::signer_headers::SignerHeaders;
use crate::parts::signer_session::SignerSession;
use crate::parts::sweeps::Sweeps;
use crate::parts::wallet_scan::WalletScan;
use crate::parts::{balances, deadlines, invoices, replacements};
use crate::wallet;

pub(crate) use load::Loading;

/// Rounds of LDK in one turn; more go on in the next.
const ROUNDS_PER_TURN: usize = 32;
/// Peer ticks for which a cooperative close may wait for the phone's signature on one connection.
const CLOSE_TICKS: u32 = 3;

/// See the module.
pub(crate) struct NodeMachine {
    turn: Turn,
    timers: TimerTable,
    state: State,
    /// Panics that were caught since the node was started.
    restarts: u32,
    /// The last turn ended before LDK had come to rest.
    is_restless: bool,
    /// Peer ticks since the phone was asked to sign a cooperative close.
    close_ticks: u32,
    dials: Vec<DialRequest>,
    acceptance: Acceptance,
    announcements: Announcements,
    chain_feed: ChainFeed,
    claims: Claims,
    closed_channels: ClosedChannels,
    connections: Connections,
    coop_closes: CoopCloses,
    dialing: Dialing,
    fee_bumps: FeeBumps,
    forwarding: Forwarding,
    block_filters: BlockFilters,
    funding_proofs: FundingProofs,
    held_forwards: HeldForwards,
    onchain_sends: OnchainSends,
    openings: Openings,
    payments: Payments,
    requests: Requests,
    session: SignerSession,
    signer_headers: SignerHeaders,
    sweeps: Sweeps,
    wallet_scan: WalletScan,
    unread: Unread,
    #[cfg(feature = "testing")]
    panics_when_attached: u32,
}

impl NodeMachine {
    // -- The driver's side.

    /// Reads a node back from the entries of its namespace, or begins it.
    ///
    /// # Errors
    /// [`NodeError::Load`]; nothing is to be written then.
    pub fn load(loading: Loading) -> Result<NodeMachine, NodeError> {
        load::load(loading)
    }

    /// Goes on with the counts and test settings of the machine in whose place this one was loaded after a panic or a
    /// failed commit.
    pub fn continue_from(&mut self, earlier: &NodeMachine, restarts: u32) {
        self.session.continue_counts(&earlier.session);
        self.timers.continue_from(&earlier.timers);
        self.announcements = earlier.announcements;
        self.restarts = restarts;
        #[cfg(feature = "testing")]
        {
            self.panics_when_attached = earlier.panics_when_attached;
        }
    }

    #[cfg(test)]
    pub fn is_hub(&self) -> bool {
        self.turn.config.is_hub
    }

    pub fn node_id(&self) -> PublicKey {
        self.turn.node_id()
    }

    /// Whether the chain source's answer to a broadcast of this transaction is an input to be given.
    pub fn awaits_answer(&self, txid: Txid) -> bool {
        self.onchain_sends.awaits_answer(&self.turn, txid)
            || self.openings.awaits_answer(&self.turn, txid)
    }

    /// The payments whose records this turn needs before it can go on: the driver reads them, and works a turn on
    /// [`Input::RecordsRead`].
    pub fn unread(&self) -> &[PaymentHash] {
        self.unread.hashes()
    }

    pub fn signer_is_attached(&self) -> bool {
        self.session.is_attached()
    }

    /// For the machine that is loaded next: it drops replies to this one's batches.
    pub fn next_generation(&self) -> u64 {
        self.session.next_generation()
    }

    /// The block after which the node's stream of the chain begins, the oldest that any part knows, and everything to be
    /// watched from there on.
    pub fn subscription(&mut self) -> (BlockRef, WatchList) {
        self.chain_feed.subscription(&self.turn)
    }

    /// The stream of [`NodeMachine::subscription`] has begun; `watch` adds to it.
    pub fn subscribed(&self, watch: Arc<dyn Watch>) {
        self.turn.ldk.filter.connect(watch);
    }

    /// The first turn after a start or a reload, which commits the node's beginning.
    pub fn begin(&mut self) {
        self.turn.ldk.manager.timer_tick_occurred();
        self.settle();
        self.collect_broadcasts();
        match self.unread.is_empty() {
            true => self.write_turn(),
            false => self.timers.set(Timer::Commit, self.turn.now.instant),
        }
    }

    /// Works one turn on `inputs`, at the time `now` with the fee rates of the chain source.
    pub fn turn(&mut self, now: Now, fee_rates: FeeRates, inputs: Vec<Input>) {
        self.turn.now = now;
        self.turn.ldk.fees.set(fee_rates);
        let instant = now.instant;
        if self.turn.journal.is_empty() {
            self.payments.forget_read();
        }
        self.timers
            .set_if_stopped(Timer::Commit, instant + COMMIT_WITHIN);
        let is_due = inputs.iter().any(|it| matches!(it, Input::TimerExpired))
            || self.timers.get(Timer::Commit) <= Some(instant);
        for input in inputs {
            if input.is_activity() {
                self.timers.activity(instant);
            }
            if input.may_change_peers() {
                self.timers.set(Timer::CheckPeers, instant);
            }
            self.input(input);
        }
        self.take_deferred();
        self.expire_timers();
        self.settle();
        let checks_peers =
            self.timers.expire(Timer::CheckPeers, instant) || self.state == State::Waking;
        if checks_peers && self.session.is_available() && self.wants_peers() {
            self.dial();
        }
        self.fail_unreachable();
        self.answer_waiting();
        self.finish_detach();
        if checks_peers {
            self.update_state();
        }
        self.is_restless |= self.requests.deferred().any(|it| !self.has_to_wait(it));
        self.collect_broadcasts();
        self.turn.watch_wallet();
        if !self.unread.is_empty() {
            return self.arm_timers();
        }
        self.answer_reading();
        if is_due || self.has_effect() || !self.turn.has_changed() {
            self.timers.stop(Timer::Commit);
            self.write_turn();
        }
        self.arm_timers();
    }

    /// Whether the turn is to be committed now, with those before it that were not.
    pub fn must_commit(&self) -> bool {
        self.timers.get(Timer::Commit).is_none()
    }

    /// The writes to commit as one batch; none when nothing has changed.
    pub fn take_writes(&self) -> Vec<Write> {
        self.turn.journal.take()
    }

    /// The peers to dial. Not held back until the commit.
    pub fn take_dials(&mut self) -> Vec<DialRequest> {
        std::mem::take(&mut self.dials)
    }

    /// A step of the search for the wallet's coins, to be answered with [`Input::Scanned`]. Not held back until the commit: it
    /// only reads.
    pub fn take_scan(&mut self) -> Option<ScanRequest> {
        self.wallet_scan.request(&self.turn)
    }

    /// A request for headers that the signer lacks, to be answered with [`Input::Headers`]. Not held back until the commit: it only reads.
    pub fn take_headers_request(&mut self) -> Option<HeadersRequest> {
        self.signer_headers.request(self.turn.config.network)
    }

    /// A request for the proof of a transaction of a channel, to be answered with [`Input::Proof`]. Not held back either.
    pub fn take_proof_request(&mut self) -> Option<ProofRequest> {
        // The header of its block goes first.
        match self.signer_headers.is_behind() {
            true => None,
            false => self.funding_proofs.request(),
        }
    }

    /// A request for filters that the signer wants, to be answered with [`Input::Filters`]. Not held back either.
    pub fn take_filters_request(&mut self) -> Option<FiltersRequest> {
        match self.signer_headers.is_behind() {
            true => None,
            false => self.block_filters.request(),
        }
    }

    /// Reads that may come though the turn is not committed.
    pub fn take_reads(&mut self) -> Vec<(ConnectionId, usize)> {
        self.connections.take_reads()
    }

    /// Replies, events and packages of the committed turns. Peers and signer come after: LDK writes for them.
    pub fn take_output(&mut self) -> Output {
        self.turn.output.gather_events();
        std::mem::take(&mut self.turn.output)
    }

    /// Bytes for peers, and connections to close.
    pub fn take_peer_output(&mut self) -> Vec<PeerOutput> {
        let output = self.connections.take_output(&self.turn);
        self.arm_timers();
        output
    }

    /// The next batch for the signer.
    pub fn next_batch(&mut self) -> Option<Batch> {
        match self.signer_headers.holds_batches(self.turn.now.instant) {
            true => None,
            false => self.session.next_batch(&self.turn),
        }
    }

    /// When the next turn is due at the latest, with no input. Every turn moves on, or stops, the timer that made it due.
    pub fn next_due(&self) -> Option<Instant> {
        match self.is_restless {
            true => Some(self.turn.now.instant),
            false => self.timers.next(),
        }
    }

    // -- One turn.

    fn input(&mut self, input: Input) {
        match input {
            Input::Command(id, command) => self.command(id, *command),
            Input::Invoice(id, request) => {
                let invoice = invoices::signed_locally(&self.turn, request);
                self.turn.output.reply(id, invoice);
            }
            Input::Overview(id) => self.requests.overview(id),
            Input::Hub(id, request) => {
                let answer = hub::carry_out(&self.turn, &mut self.forwarding, request);
                self.turn.output.replies.push((id, Answer::Hub(answer)));
            }
            Input::RequestDropped(id) => self.requests.dropped(id),
            Input::Attach(identity, known) => self.attach(identity, known),
            Input::Detach(id) => self.session.detach(&mut self.turn, id),
            Input::SignerLost => self.signer_lost(),
            Input::SignerReply(ticket, reply) => {
                if self.session.replied(&self.turn, ticket, reply) {
                    self.funding_proofs.take_accepted(&self.turn);
                    self.block_filters.take_answers(&self.turn);
                    let remote = self.turn.remote();
                    if remote.is_some_and(|it| it.take_refused_headers()) {
                        self.signer_headers.refused();
                    }
                    self.unblock();
                }
            }
            Input::PeerAccepted(new) => match self.is_reachable() {
                true => self.connections.accept(&self.turn, new),
                false => self.connections.refuse(new.id),
            },
            Input::PeerDialed(node_id, new) => {
                if !self.session.is_available() {
                    return self.connections.refuse(new.id);
                }
                let (id, now) = (new.id, self.turn.now.instant);
                self.connections.dialed(&self.turn, node_id, new);
                self.dialing.dialed(&node_id, id, now);
            }
            Input::DialFailed(node_id, reason) => {
                self.dialing.dial_failed(&self.turn, node_id, &reason);
            }
            Input::PeerBytes(id, bytes) => self.connections.bytes(&self.turn, id, bytes),
            Input::PeerClosed(id) => self.connections.closed(&self.turn, id),
            Input::Broadcast(txid, answer) => {
                let (sends, openings) = (&mut self.onchain_sends, &mut self.openings);
                replacements::answered(&self.turn, sends, openings, txid, &answer);
            }
            Input::Chain(event) => self.chain_events().handle(event),
            Input::Scanned(answer) => self.wallet_scan.answered(&self.turn, *answer),
            Input::Headers(answer) => self.signer_headers.answered(&self.turn, *answer),
            Input::Proof(answer) => self.funding_proofs.answered(&self.turn, *answer),
            Input::Filters(answer) => self.block_filters.answered(&self.turn, *answer),
            Input::ResetSignerChain => self.session.reset_chain(),
            Input::FailHeld(node_id) => self.held_forwards.fail(&mut self.turn, &node_id),
            Input::RecordsRead(records) => {
                self.payments.read(records);
                for waiting in self.unread.take() {
                    match waiting {
                        Waiting::Event(event) => self.ldk_event(*event),
                        Waiting::Command(id, command) => self.carry_out(id, command),
                    }
                }
            }
            Input::Stop => {
                self.signer_lost();
                self.turn.ldk.peer_manager.disconnect_all_peers();
                self.turn.output.has_stopped = true;
            }
            Input::PeerWritable | Input::GossipChecked | Input::TimerExpired => {}
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
            for (id, refusal) in self.connections.advance_handshakes(&self.turn) {
                self.dialing.handshake_refused(id, &refusal);
            }
            self.turn.ldk.peer_manager.process_events();
            let peels_pending = self.turn.remote().is_some_and(|it| it.peels_pending());
            if self.turn.ldk.manager.needs_pending_htlc_processing() && !peels_pending {
                self.turn.ldk.manager.process_pending_htlc_forwards();
            }
            let events = self.turn.ldk.take_events();
            let is_quiet = events.is_empty();
            if !is_quiet {
                let now = self.turn.now.instant;
                self.timers.set(Timer::CheckPeers, now);
            }
            for event in events {
                self.ldk_event(event);
            }
            if self.session.is_available() {
                self.advance();
            }
            let forwarded = self.held_forwards.forward_ready(&mut self.turn);
            self.turn.ldk.peer_manager.process_events();
            if is_quiet && !forwarded {
                self.is_restless = false;
                break;
            }
        }
    }

    /// Each part does what can be done now with the signer.
    fn advance(&mut self) {
        let turn = &self.turn;
        self.acceptance.advance(turn);
        self.openings.advance(turn);
        self.onchain_sends.advance(turn);
        self.claims.advance(turn, &mut self.payments);
        self.fee_bumps.advance(turn);
    }

    /// Whether the turn has an effect that others see. One without, such as taking up a payment that has to wait for the
    /// peer, is committed with the next, and is as if it had never been when the host dies before: who asked asks again.
    fn has_effect(&self) -> bool {
        !self.turn.output.is_empty() || self.connections.have_output() || self.has_batch()
    }

    fn has_batch(&self) -> bool {
        let now = self.turn.now.instant;
        !self.signer_headers.holds_batches(now) && self.session.has_batch(&self.turn)
    }

    /// Puts into the journal what has changed since the last commit and is not there yet.
    fn write_turn(&mut self) {
        wallet::write_changes(&mut **self.turn.wallet(), &self.turn.journal);
        self.sweeps.write(&self.turn);
        self.claims.end_settled(&self.turn, &mut self.payments);
        let has_claim = |hash: &_| self.claims.contains(hash);
        self.payments.archive(&self.turn, has_claim);
        self.turn.ldk.write_monitors();
        self.turn.ldk.write_manager();
    }

    fn collect_broadcasts(&mut self) {
        self.coop_closes.collect(&self.turn);
        self.closed_channels.collect_broadcasts(&mut self.turn);
    }

    fn chain_events(&mut self) -> ChainEvents<'_> {
        ChainEvents {
            turn: &mut self.turn,
            chain_feed: &mut self.chain_feed,
            claims: &mut self.claims,
            closed_channels: &mut self.closed_channels,
            coop_closes: &mut self.coop_closes,
            fee_bumps: &mut self.fee_bumps,
            funding_proofs: &mut self.funding_proofs,
            held_forwards: &mut self.held_forwards,
            onchain_sends: &self.onchain_sends,
            payments: &mut self.payments,
            session: &self.session,
            signer_headers: &mut self.signer_headers,
            sweeps: &mut self.sweeps,
            wallet_scan: &mut self.wallet_scan,
        }
    }

    // -- Time.

    /// Sets and pauses the timers that depend on the node's state.
    fn arm_timers(&mut self) {
        let is_available = self.session.is_available();
        let dials = is_available && self.wants_peers();
        let timers = &mut self.timers;
        timers.pause(Timer::Announcement, !self.turn.config.is_hub);
        timers.pause(Timer::Rebroadcast, !is_available);
        timers.pause(Timer::Waking, !self.requests.has_deferred());
        timers.set_or_stop(Timer::Detach, self.session.detach_until());
        let next_dial = self.dialing.next(&self.connections).filter(|_| dials);
        timers.set_or_stop(Timer::Dial, next_dial);
        timers.set_or_stop(Timer::WalletScan, self.wallet_scan.retry_at());
        timers.set_or_stop(Timer::Headers, self.signer_headers.held_until());
        let awaited = self.funding_proofs.awaited_until();
        timers.set_or_stop(
            Timer::Proofs,
            awaited.filter(|_| self.requests.has_deferred()),
        );
        let now = self.turn.now.instant;
        match self.connections.is_empty() {
            true => timers.stop(Timer::PeerTick),
            false => timers.set_if_stopped(Timer::PeerTick, now + PEER_TICK),
        }
        if self.connections.take_lost() {
            timers.set_if_stopped(Timer::CheckPeers, now + LOST_PAUSE);
        }
    }

    fn expire_timers(&mut self) {
        let now = self.turn.now.instant;
        self.timers
            .pause(Timer::Rebroadcast, !self.session.is_available());
        if self.timers.expire(Timer::WalletScan, now) {
            self.wallet_scan.retry();
        }
        if self.timers.expire(Timer::Headers, now) {
            self.signer_headers.hold_no_longer();
        }
        if self.timers.expire(Timer::Proofs, now) {
            self.funding_proofs.wait_no_longer();
        }
        if self.timers.expire(Timer::PeerTick, now) {
            self.turn.ldk.peer_manager.timer_tick_occurred();
            self.give_closes_time();
        }
        if !self.connections.is_empty() {
            self.timers.activity(now);
        }
        if self
            .timers
            .expire_every(Timer::ManagerTick, now, MANAGER_TICK)
        {
            self.turn.ldk.manager.timer_tick_occurred();
        }
        if self.turn.config.is_hub {
            self.announcements.advance(&self.turn, &mut self.timers);
        }
        if self
            .timers
            .expire_every(Timer::Rebroadcast, now, REBROADCAST)
        {
            self.turn.ldk.chain_monitor.rebroadcast_pending_claims();
            self.signer_headers.retry();
            if let Some(remote) = self.turn.remote() {
                remote.clear_retries();
                self.unblock();
            }
        }
    }

    /// LDK closes by force when the two sides of a cooperative close do not agree within a minute or two. While the phone takes its time
    /// to sign one, its node meets its peers again and again: they begin anew then.
    fn give_closes_time(&mut self) {
        let is_awaited = self.turn.remote().is_some_and(|it| it.is_signing_close());
        self.close_ticks = match is_awaited {
            true => self.close_ticks + 1,
            false => 0,
        };
        if self.close_ticks >= CLOSE_TICKS {
            self.close_ticks = 0;
            self.turn.ldk.peer_manager.disconnect_all_peers();
        }
    }

    // -- The signer.

    fn attach(&mut self, identity: Vec<u8>, known: Vec<BlockRef>) {
        if !self.session.attach(&mut self.turn, identity) {
            return;
        }
        self.signer_headers.attached(&self.turn, known);
        self.block_filters.signer_changed();
        if self.session.is_another() {
            self.funding_proofs.forget(&self.turn.journal);
        }
        if self.signer_headers.follows() {
            self.funding_proofs.look(&self.turn);
        }
        if self.session.is_another() {
            self.payments.abandon(&self.turn);
            self.requests.fail_deferred(&mut self.turn);
        }
        let signer = self.session.identity();
        self.openings.fail_of_others(&self.turn, signer);
        self.onchain_sends.fail_of_others(&self.turn, signer);
        let until = self.turn.now.instant + WAKING_LIMIT;
        self.timers.set(Timer::Waking, until);
        self.set_state(State::Waking);
        self.dialing.clear();
        #[cfg(feature = "testing")]
        if let Some(left) = self.panics_when_attached.checked_sub(1) {
            self.panics_when_attached = left;
            panic!("asked for by a test");
        }
        self.unblock();
    }

    /// LDK tries again what waits for its signer.
    fn unblock(&mut self) {
        let (turn, manager) = (&self.turn, &self.turn.ldk.manager);
        match turn.remote().filter(|it| it.has_interrupted_close()) {
            None => manager.signer_unblocked(None),
            Some(remote) => {
                for it in remote.without_interrupted_closes(turn.channels()) {
                    manager.signer_unblocked(Some((it.counterparty.node_id, it.channel_id)));
                }
            }
        }
        self.turn.ldk.chain_monitor.signer_unblocked(None);
        self.sweeps.sweep(&self.turn);
    }

    /// The signer is gone: so are the peers (promise 3), at once.
    fn signer_lost(&mut self) {
        if !self.session.lost(&mut self.turn) {
            return;
        }
        self.signer_headers.lost();
        self.funding_proofs.signer_lost();
        self.block_filters.signer_changed();
        self.set_state(State::Dormant);
        self.turn.ldk.peer_manager.disconnect_all_peers();
        self.acceptance.clear();
        self.dialing.clear();
    }

    fn finish_detach(&mut self) {
        if !self.session.is_detaching() {
            return;
        }
        let turn = &self.turn;
        let (is_closing, htlcs) = (is_negotiating_a_close(turn), in_flight(turn));
        if self.session.detach_is_due(turn, is_closing, htlcs) {
            self.signer_lost();
        }
    }

    // -- Peers.

    /// Whether peers are dialled: the signer stays, or stays until an HTLC has moved.
    fn wants_peers(&self) -> bool {
        !self.session.is_detaching() || in_flight(&self.turn) == InFlight::Moving
    }

    /// Whether peers are taken in and commands begun: the signer is there, and stays.
    fn is_reachable(&self) -> bool {
        self.session.is_available() && !self.session.is_detaching()
    }

    fn dial(&mut self) {
        let (openings, commands) = (self.openings.peers(), self.requests.peers());
        let dials = self
            .dialing
            .advance(&self.turn, &self.connections, openings, commands);
        self.dials.extend(dials);
    }

    /// Commands and openings that wait for a peer which no address reaches fail.
    fn fail_unreachable(&mut self) {
        for Unreachable { node_id, message } in self.dialing.take_unreachable() {
            let turn = &mut self.turn;
            self.openings.peer_unreachable(turn, node_id, &message);
            let error = Error::new(Code::PeerUnreachable, message);
            let is_for_peer = |wait: &Wait| (*wait == Wait::Peer(node_id)).then(|| error.clone());
            for (id, error) in self.requests.take_results(is_for_peer) {
                turn.output.reply(id, Err(error));
            }
        }
    }

    // -- The node's state.

    fn update_state(&mut self) {
        let state = match self.session.is_available() {
            true => balances::state_with_signer(&self.turn),
            false => State::Dormant,
        };
        self.set_state(state);
    }

    fn set_state(&mut self, state: State) {
        if state != self.state {
            self.state = state;
            self.turn.output.events.push(NodeEvent::State(state));
        }
    }

    // -- Commands.

    fn command(&mut self, id: RequestId, command: Command) {
        if requests::only_reads(&command) {
            return self.requests.read(id, command);
        }
        if !self.is_reachable() && requests::needs_signer(&command) {
            return self.turn.output.reply(id, Err(signer_away()));
        }
        if self.has_to_wait(&command) {
            return self.requests.defer(id, command);
        }
        self.carry_out(id, command);
    }

    /// Whether a command would fail now, and not in a moment.
    fn has_to_wait(&self, command: &Command) -> bool {
        let now = self.turn.now.instant;
        let awaits_proof = || {
            let until = self.funding_proofs.awaited_until();
            until.is_some_and(|until| now < until)
        };
        (requests::lists_channels(command) && awaits_proof())
            || (self.is_waking() && requests::lacks_channels(&self.turn, command))
    }

    /// Whether the channels' peers may still be connected in time for a command.
    fn is_waking(&self) -> bool {
        let until = self.timers.get(Timer::Waking);
        until.is_some_and(|until| self.turn.now.instant < until)
    }

    /// Goes on with the commands that waited for a channel, when it is usable or it takes too long.
    fn take_deferred(&mut self) {
        let is_available = self.session.is_available();
        for (id, command) in self.requests.take_deferred() {
            if !is_available {
                self.turn.output.reply(id, Err(signer_away()));
            } else if self.has_to_wait(&command) {
                self.requests.defer(id, command);
            } else {
                self.carry_out(id, command);
            }
        }
    }

    /// Commands that read get the turn's end, never its middle.
    fn answer_reading(&mut self) {
        for (id, command) in self.requests.take_reading() {
            self.carry_out(id, command);
        }
        for id in self.requests.take_overviews() {
            let overview = balances::overview(
                &self.turn,
                self.state,
                &self.session,
                &self.openings,
                deadlines::earliest(&self.turn, &self.claims, &self.payments),
                self.restarts,
            );
            let overview = Answer::Overview(overview);
            self.turn.output.replies.push((id, overview));
        }
    }

    fn carry_out(&mut self, id: RequestId, command: Command) {
        let Some(command) = self.unread.command(&self.payments, id, command) else {
            return;
        };
        match self.commands().carry_out(command) {
            Ok(Outcome::Now(reply)) => self.turn.output.reply(id, Ok(reply)),
            Ok(Outcome::Later(wait)) => self.requests.wait(wait, id),
            Ok(Outcome::Stored(read)) => self.turn.output.reads.push((id, read)),
            Err(error) => self.turn.output.reply(id, Err(error)),
        }
    }

    fn commands(&mut self) -> Commands<'_> {
        Commands {
            turn: &self.turn,
            state: self.state,
            session: &self.session,
            closed_channels: &self.closed_channels,
            dialing: &mut self.dialing,
            funding_proofs: &self.funding_proofs,
            signer_headers: &self.signer_headers,
            onchain_sends: &mut self.onchain_sends,
            openings: &mut self.openings,
            payments: &mut self.payments,
            wallet_scan: &self.wallet_scan,
        }
    }

    fn answer_waiting(&mut self) {
        let mut requests = std::mem::take(&mut self.requests);
        let results = requests.take_results(|wait| self.commands().result(wait));
        self.requests = requests;
        for (id, result) in results {
            self.turn.output.reply(id, result);
        }
    }

    // -- LDK's events.

    /// Gives an event to its part, once the record that it needs is there.
    fn ldk_event(&mut self, event: Event) {
        let Some(event) = self.unread.event(&self.payments, event) else {
            return;
        };
        let events = LdkEvents {
            turn: &mut self.turn,
            acceptance: &mut self.acceptance,
            claims: &mut self.claims,
            closed_channels: &mut self.closed_channels,
            fee_bumps: &mut self.fee_bumps,
            forwarding: &mut self.forwarding,
            held_forwards: &mut self.held_forwards,
            openings: &mut self.openings,
            payments: &mut self.payments,
            sweeps: &mut self.sweeps,
        };
        events.handle(event);
    }
}
