#![allow(clippy::unwrap_used)]

use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;

use super::*;
use crate::machine::input::Input;
use crate::machine::output::RequestId;
use crate::machine::testing::{Id, World};
use crate::parts::testing::{Pair, open, pay, payment};

/// A payer's payment to an owner whose phone is away: the hub between them holds it.
struct Story {
    pair: Pair,
    payer: Id,
    invoice: String,
    paying: RequestId,
}

impl Story {
    fn new() -> Story {
        let mut pair = Pair::new();
        let payer = pair.world.add_hub(3);
        pair.world.fund(payer, 1_000_000);
        open(&mut pair.world, payer, pair.hub, 2, 0, false);
        let invoice = pair.owner_invoice(1_000_000);
        pair.phone_leaves();
        pair.world.nodes[pair.hub].events.clear();
        let paying = pair.world.begin(payer, pay(&invoice));
        let story = Story {
            pair,
            payer,
            invoice,
            paying,
        };
        assert!(story.is_held(), "the hub holds the payment");
        story
    }

    fn is_held(&self) -> bool {
        let mut keys = self.pair.world.nodes[self.pair.hub].store.keys();
        keys.any(|it| it.starts_with(key::HELD))
    }

    /// The peers that the hub has reported as needed.
    fn reported(&self) -> Vec<PeerNeeded> {
        let events = self.pair.world.nodes[self.pair.hub].events.iter();
        let held = events.filter_map(|event| match event {
            NodeEvent::PaymentsHeld(peers) => Some(peers.clone()),
            _ => None,
        });
        held.flatten().collect()
    }

    /// How often the hub has reported that it forwarded, and that it failed back, what it held for the owner.
    fn ends(&self) -> (usize, usize) {
        let owner = self.owner_id();
        let events = &self.pair.world.nodes[self.pair.hub].events;
        let is_forwarded = |event: &&NodeEvent| matches!(event, NodeEvent::HeldForwarded(peers) if *peers == [owner]);
        let is_failed =
            |event: &&NodeEvent| matches!(event, NodeEvent::HeldFailed(peer) if *peer == owner);
        (
            events.iter().filter(is_forwarded).count(),
            events.iter().filter(is_failed).count(),
        )
    }

    fn owner_id(&self) -> PublicKey {
        self.pair.world.nodes[self.pair.owner].machine.node_id()
    }

    fn payer_state(&mut self) -> State {
        let record = payment(&mut self.pair.world, self.payer, &self.invoice);
        record.unwrap().state()
    }
}

#[test]
fn a_payment_waits_at_the_hub_until_its_owner_is_back() {
    let mut story = Story::new();
    let [needed] = &story.reported()[..] else {
        panic!("one report: {:?}", story.reported());
    };
    assert_eq!(needed.node_id, story.owner_id());
    assert_eq!(story.payer_state(), State::Pending);

    story.pair.world.attach(story.pair.owner);
    let paid = story.pair.world.answer(story.payer, story.paying);
    let Some(Ok(Reply::Payment(paid))) = paid else {
        panic!("not paid: {paid:?}");
    };
    assert_eq!(paid.state(), State::Succeeded);
    assert!(!story.is_held());
    assert_eq!(story.ends(), (1, 0));
}

#[test]
fn a_host_that_gives_up_too_late_is_not_told_of_a_failure() {
    let mut story = Story::new();
    story.pair.world.attach(story.pair.owner);
    let (hub, owner) = (story.pair.hub, story.owner_id());
    story.pair.world.input(hub, Input::FailHeld(owner));
    assert_eq!(story.payer_state(), State::Succeeded);
    assert_eq!(story.ends(), (1, 0));
}

#[test]
fn a_host_that_gives_up_fails_the_payment_back() {
    let mut story = Story::new();
    let owner = story.owner_id();
    let hub = story.pair.hub;
    story.pair.world.input(hub, Input::FailHeld(owner));
    assert_eq!(story.payer_state(), State::Failed);
    assert!(!story.is_held());
    assert_eq!(story.ends(), (0, 1));
}

#[test]
fn a_payment_of_another_peer_stays_held_when_the_host_gives_up_one() {
    let mut story = Story::new();
    let (hub, payer) = (story.pair.hub, story.payer);
    let other = story.pair.world.nodes[payer].machine.node_id();
    story.pair.world.input(hub, Input::FailHeld(other));
    assert!(story.is_held());
    assert_eq!(story.payer_state(), State::Pending);
}

#[test]
fn a_payment_that_is_held_until_its_deadline_is_failed_back() {
    let mut story = Story::new();
    let deadline = story.reported()[0].deadline_height;
    let left = deadline - story.pair.world.height();
    story.pair.world.mine(left - 1);
    assert!(story.is_held());
    story.pair.world.mine(1);
    assert!(!story.is_held());
    assert_eq!(story.payer_state(), State::Failed);
}

#[test]
fn a_held_payment_is_reported_again_with_the_next_block_after_a_restart() {
    let mut story = Story::new();
    let hub = story.pair.hub;
    let first = story.reported();
    story.pair.world.reload(hub);
    story.pair.world.nodes[hub].events.clear();
    story.pair.world.mine(1);
    assert_eq!(story.reported(), first);
}

#[test]
fn a_payment_for_an_unknown_channel_is_not_held() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let turn = world.turn(hub);
    turn.journal.take();
    let event = Event::HTLCIntercepted {
        intercept_id: lightning::ln::channelmanager::InterceptId([1; 32]),
        requested_next_hop_scid: 42,
        payment_hash: lightning::types::payment::PaymentHash([1; 32]),
        inbound_amount_msat: 1_000,
        expected_outbound_amount_msat: 1_000,
        outgoing_htlc_expiry_block_height: Some(200),
    };
    HeldForwards::default().hold(turn, event);
    assert!(turn.journal.is_empty());
    assert!(turn.output.payments_held.is_empty());
}

#[test]
fn an_unreadable_record_is_left_to_ldk() {
    let entries = vec![("hold/01".to_owned(), vec![0xff])];
    let loaded = HeldForwards::load(&Journal::loading(entries));
    assert!(loaded.held.is_empty());
}
