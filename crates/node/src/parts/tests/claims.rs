#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use lightning::events::PaymentPurpose;
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lightning::routing::router::{PaymentParameters, RouteParameters};
use lightning::types::payment::PaymentSecret;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{ListPayments, Payment};

use super::*;
use crate::api::{Keys, NodeConfig};
use crate::machine::input::Input;
use crate::machine::testing::{Id, World};
use crate::parts::testing::Pair;

const PREIMAGE: PaymentPreimage = PaymentPreimage([5; 32]);

fn hash() -> PaymentHash {
    PREIMAGE.into()
}

/// A claim of 1,000 sat whose HTLC expires at block 190, in a channel that is closed.
fn a_claim() -> Claim {
    Claim {
        payment_hash: hash().0.to_vec(),
        amount_msat: 1_000_000,
        htlcs: vec![ClaimableHtlc {
            channel_keys_id: vec![1; 32],
            amount_msat: 1_000_000,
            cltv_expiry: 190,
        }],
        channel_ids: vec![vec![1; 32]],
        claim_deadline: 151,
        ..Claim::default()
    }
}

/// An owner whose phone is attached, with that claim and the record of its payment.
fn owner_with(claim: Claim) -> (World, Id, Claims, Payments) {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    world.attach(owner);
    let turn = world.turn(owner);
    let mut payments = Payments::default();
    payments.update(turn, hash(), false, |_| {});
    let claims = Claims {
        claims: HashMap::from([(hash(), claim)]),
    };
    turn.journal.take();
    (world, owner, claims, payments)
}

#[test]
fn a_preimage_that_the_phone_refuses_fails_the_payment_back() {
    let (mut world, owner, mut claims, mut payments) = owner_with(a_claim());
    claims.advance(world.turn(owner), &mut payments);
    assert!(claims.contains(&hash()), "the phone is asked first");
    assert!(world.turn(owner).journal.is_empty());

    world.input(owner, Input::TimerExpired);
    claims.advance(world.turn(owner), &mut payments);
    assert!(!claims.contains(&hash()));
    let payment = &payments.list()[0];
    assert_eq!(payment.state(), State::Failed);
    let reason = &payment.failure;
    assert!(reason.starts_with("the phone refuses it: "), "{reason}");
}

#[test]
fn a_claim_without_its_preimage_ends_at_its_deadline_and_not_before() {
    let (mut world, owner, mut claims, mut payments) = owner_with(a_claim());
    let turn = world.turn(owner);
    turn.height = 150;
    claims.fail_back_late(turn, &mut payments);
    assert!(claims.contains(&hash()));

    turn.height = 151;
    claims.fail_back_late(turn, &mut payments);
    assert!(!claims.contains(&hash()));
    let payment = &payments.list()[0];
    assert_eq!(payment.state(), State::Failed);
    let reason = &payment.failure;
    assert!(reason.contains("before block 151"), "{reason}");
}

#[test]
fn a_preimage_that_came_too_late_is_the_reason_of_the_failure() {
    let (mut world, owner, mut claims, mut payments) = owner_with(a_claim());
    let turn = world.turn(owner);
    payments.update(turn, hash(), false, |it| it.preimage = PREIMAGE.0.to_vec());
    claims.end(turn, &mut payments, hash(), ClaimEnd::FailedBack);
    assert_eq!(payments.list()[0].state(), State::Failed);
    assert_eq!(payments.list()[0].failure, GIVEN_TOO_LATE);
}

#[test]
fn a_claim_that_was_settled_leaves_its_payment_as_it_is() {
    let (mut world, owner, mut claims, mut payments) = owner_with(a_claim());
    let turn = world.turn(owner);
    payments.update(turn, hash(), false, |it| {
        it.state = State::Succeeded.into();
        it.preimage = PREIMAGE.0.to_vec();
    });
    claims.end(turn, &mut payments, hash(), ClaimEnd::Settled);
    assert!(!claims.contains(&hash()));
    assert_eq!(payments.list()[0].state(), State::Succeeded);
}

#[test]
fn nobody_is_paid_twice_for_one_invoice() {
    let (mut world, owner, _, mut payments) = owner_with(a_claim());
    let turn = world.turn(owner);
    payments.update(turn, hash(), false, |it| {
        it.preimage = PREIMAGE.0.to_vec();
        it.amount_msat = 7;
    });
    turn.journal.take();
    let mut claims = Claims::default();
    let again = Event::PaymentClaimable {
        receiver_node_id: None,
        payment_hash: hash(),
        onion_fields: None,
        amount_msat: 1_000_000,
        counterparty_skimmed_fee_msat: 0,
        purpose: PaymentPurpose::Bolt11InvoicePayment {
            payment_preimage: None,
            payment_secret: PaymentSecret([8; 32]),
        },
        receiving_channel_ids: vec![(ChannelId([1; 32]), None)],
        claim_deadline: Some(151),
        payment_id: None,
    };
    claims.claimable(turn, &mut payments, again);
    assert!(!claims.contains(&hash()));
    assert!(turn.journal.is_empty());
    assert_eq!(payments.list()[0].amount_msat, 7);
}

#[test]
fn an_htlc_that_the_peer_took_back_is_lost_until_a_reorganisation_gives_it_to_the_owner() {
    let claimed = Claim {
        claimed: true,
        ..a_claim()
    };
    let (mut world, owner, mut claims, mut payments) = owner_with(claimed);
    let turn = world.turn(owner);
    claims.htlc_spent(turn, &mut payments, hash(), "outpoint", true);
    let [NodeEvent::HtlcLost { amount_msat, .. }] = turn.output.events[..] else {
        panic!("no loss: {:?}", turn.output.events);
    };
    assert_eq!(amount_msat, 1_000_000);
    let failed = payments.list().remove(0);
    assert_eq!(failed.state(), State::Failed);
    let code = failed.failure.split(':').next().unwrap();
    assert_eq!(code, Code::DeadlineMissed);

    claims.htlc_spent(turn, &mut payments, hash(), "outpoint", false);
    let found = payments.list().remove(0);
    assert_eq!(found.state(), State::Succeeded);
    assert_eq!(found.failure, "");
}

#[test]
fn an_htlc_whose_preimage_never_came_was_not_the_owners_to_lose() {
    let (mut world, owner, mut claims, mut payments) = owner_with(a_claim());
    let turn = world.turn(owner);
    claims.htlc_spent(turn, &mut payments, hash(), "outpoint", true);
    assert!(turn.output.events.is_empty());
    assert!(turn.journal.is_empty());
}

#[test]
fn only_the_preimage_of_its_hash_is_taken() {
    let right = Answer::Preimage(PREIMAGE.0.to_vec());
    assert_eq!(preimage_of(&right, &hash()), Some(PREIMAGE));
    let of_another = Answer::Preimage(vec![6; 32]);
    assert_eq!(preimage_of(&of_another, &hash()), None);
    let too_short = Answer::Preimage(vec![5; 31]);
    assert_eq!(preimage_of(&too_short, &hash()), None);
    assert_eq!(preimage_of(&Answer::Psbt(vec![5; 32]), &hash()), None);
}

#[test]
fn a_claim_is_read_back_and_an_unreadable_one_stops_the_load() {
    let entry = (a_claim().key(), a_claim().encode_to_vec());
    let read = Claims::load(&Journal::loading(vec![entry])).unwrap();
    assert!(read.contains(&hash()));

    let no_hash = ("claim/01".to_owned(), Claim::default().encode_to_vec());
    let loaded = Claims::load(&Journal::loading(vec![no_hash]));
    assert!(matches!(loaded, Err(NodeError::Load(_))));
}

/// A hub pays an owner whose phone went away before it gave the preimage. Returns the invoice too.
fn unclaimed_payment() -> (Pair, String) {
    let mut pair = Pair::new();
    let invoice = pair.owner_invoice(1_000_000);
    pair.world.nodes[pair.owner].signer_hangs_at_preimage = true;
    pair.pay(pair.hub, &invoice);
    pair.phone_leaves();
    pair.world.nodes[pair.owner].signer_hangs_at_preimage = false;
    let store = &pair.world.nodes[pair.owner].store;
    assert!(store.keys().any(|it| it.starts_with(key::CLAIM)));
    (pair, invoice)
}

/// The heights before which the owner's node has reported that it needs the phone.
fn signer_needed(pair: &Pair) -> Vec<u32> {
    let events = pair.world.nodes[pair.owner].events.iter();
    let needed = events.filter_map(|event| match event {
        NodeEvent::SignerNeeded { deadline_height } => Some(*deadline_height),
        _ => None,
    });
    needed.collect()
}

#[test]
fn a_phone_that_went_away_is_called_and_claims_after_a_restart_of_its_node() {
    let (mut pair, invoice) = unclaimed_payment();
    pair.world.reload(pair.owner);
    pair.world.mine(1);
    assert!(!signer_needed(&pair).is_empty());

    pair.world.attach(pair.owner);
    let received = pair.payment(pair.owner, &invoice).unwrap();
    assert_eq!(received.state(), State::Succeeded);
    let paid = pair.payment(pair.hub, &invoice).unwrap();
    assert_eq!(paid.state(), State::Succeeded);
}

#[test]
fn a_payment_that_was_not_claimed_before_its_deadline_goes_back_to_its_payer() {
    let (mut pair, invoice) = unclaimed_payment();
    pair.world.mine(1);
    let deadline = signer_needed(&pair)[0];
    let left = deadline - pair.world.height();
    pair.world.mine(left);
    let received = pair.payment(pair.owner, &invoice).unwrap();
    assert_eq!(received.state(), State::Failed);

    pair.world.attach(pair.owner);
    let paid = pair.payment(pair.hub, &invoice).unwrap();
    assert_eq!(paid.state(), State::Failed);
    assert_eq!(pair.channel(pair.owner).balance_msat, 100_000_000);
}

#[test]
fn a_claim_ends_once_its_htlc_is_claimed_on_chain() {
    let (mut pair, invoice) = unclaimed_payment();
    pair.force_close();
    pair.world.mine(1);
    pair.world.fund(pair.owner, 1_000_000);

    // The phone gives the preimage, and signs the claim of the HTLC's output.
    pair.world.attach(pair.owner);
    pair.world.mine(10);
    let paid = pair.payment(pair.hub, &invoice).unwrap();
    assert_eq!(paid.state(), State::Succeeded);
    let received = pair.payment(pair.owner, &invoice).unwrap();
    assert_eq!(received.state(), State::Succeeded);
    pair.world.mine(200);
    let store = &pair.world.nodes[pair.owner].store;
    assert!(!store.keys().any(|it| it.starts_with(key::CLAIM)));
}

/// The hub pays the owner 1,000 sat that no invoice asks for.
fn keysend(pair: &mut Pair) {
    let payee = pair.world.nodes[pair.owner].machine.node_id();
    let (amount_msat, final_delta) = (1_000_000, 144);
    let params = PaymentParameters::for_keysend(payee, final_delta, false);
    let sent = pair
        .world
        .turn(pair.hub)
        .ldk
        .manager
        .send_spontaneous_payment(
            Some(PaymentPreimage([7; 32])),
            RecipientOnionFields::spontaneous_empty(amount_msat),
            PaymentId([7; 32]),
            RouteParameters::from_payment_params_and_value(params, amount_msat),
            Retry::Attempts(0),
        );
    sent.unwrap();
    pair.world.mine(1);
}

fn received(pair: &mut Pair) -> Vec<Payment> {
    let list = Kind::ListPayments(ListPayments::default());
    match pair.world.ask(pair.owner, list) {
        Ok(Reply::Payments(list)) => list.payments,
        other => panic!("no list: {other:?}"),
    }
}

#[test]
fn a_payment_that_no_invoice_asks_for_is_failed_back_and_leaves_no_record() {
    let mut pair = Pair::new();
    let before_msat = pair.channel(pair.hub).balance_msat;
    keysend(&mut pair);
    assert!(received(&mut pair).is_empty());
    let channel = pair.channel(pair.hub);
    assert_eq!(
        (channel.balance_msat, channel.pending_htlcs),
        (before_msat, 0)
    );
}

#[test]
fn a_payment_that_no_invoice_asks_for_is_received_when_the_host_accepts_them() {
    let mut pair = Pair::new();
    let before_msat = pair.channel(pair.hub).balance_msat;
    let turn = pair.world.turn(pair.owner);
    turn.config = Arc::new(NodeConfig {
        accepts_keysend: true,
        hub: turn.config.hub,
        // Those of the machine were taken when it was loaded.
        ..NodeConfig::new("owner", turn.config.network, Keys::Local([0; 32].into()))
    });
    keysend(&mut pair);
    let [payment] = &received(&mut pair)[..] else {
        panic!("no payment");
    };
    assert_eq!(payment.state(), State::Succeeded);
    assert_eq!((payment.amount_msat, payment.outbound), (1_000_000, false));
    assert_eq!(pair.channel(pair.hub).balance_msat, before_msat - 1_000_000);
}
