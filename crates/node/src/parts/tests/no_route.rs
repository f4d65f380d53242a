#![allow(clippy::unwrap_used)]

use std::time::Duration;

use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::payment::State;
use longhand_proto::command::{Pay, Payment};

use super::*;
use crate::machine::testing::{Id, World};
use crate::parts::testing::{Pair, open, pay, payable, payment};

/// A payer who reaches the owner through the hub, for its fee.
fn with_payer() -> (Pair, Id) {
    let mut pair = Pair::new();
    let payer = pair.world.add_hub(3);
    pair.world.fund(payer, 1_000_000);
    // Less than the owner can receive.
    open(&mut pair.world, payer, pair.hub, 2, 200_000_000, false);
    (pair, payer)
}

fn refused(world: &mut World, payer: Id, pay: Pay) -> Error {
    world.ask(payer, Kind::Pay(pay)).unwrap_err()
}

#[test]
fn a_fee_limit_below_the_cheapest_route_is_named_with_its_fee() {
    let (mut pair, payer) = with_payer();
    let invoice = pair.owner_invoice(1_000_000);
    let pay = |max_fee_msat| Pay {
        bolt11: invoice.clone(),
        max_fee_msat: Some(max_fee_msat),
        ..Pay::default()
    };
    let error = refused(&mut pair.world, payer, pay(0));
    assert_eq!(
        (error.code.parse(), error.action()),
        (Ok(Code::FeeLimit), Action::FixInput)
    );
    assert!(
        error.message.contains("the fee limit is 0 msat"),
        "{}",
        error.message
    );

    let words: Vec<&str> = error.message.split(' ').collect();
    let at = words.iter().position(|word| *word == "costs").unwrap();
    let fee_msat: u64 = words[at + 1].parse().unwrap();
    let paid = pair.world.ask(payer, Kind::Pay(pay(fee_msat)));
    let Ok(Reply::Payment(Payment { fee_msat: cost, .. })) = paid else {
        panic!("not paid: {paid:?}");
    };
    assert_eq!(cost, fee_msat);
}

#[test]
fn a_payee_whom_no_route_can_pay_that_much_is_told_from_one_whom_none_reaches() {
    let (mut pair, payer) = with_payer();
    let can_send = pair.world.turn(payer).channels()[0].outbound_capacity_msat;
    // Nothing is left for the hub's fee.
    let invoice = pair.owner_invoice(can_send);
    let little = Pay {
        bolt11: invoice,
        max_fee_msat: Some(u64::MAX),
        ..Pay::default()
    };
    let error = refused(&mut pair.world, payer, little);
    assert_eq!(
        (error.code.parse(), error.action()),
        (Ok(Code::NoRoute), Action::Retry)
    );
    assert!(
        error.message.contains("can be reached"),
        "{}",
        error.message
    );

    let unknown = Pay {
        bolt11: payable(),
        ..Pay::default()
    };
    let error = refused(&mut pair.world, payer, unknown);
    assert_eq!(error.code, Code::NoRoute);
    assert!(
        error.message.contains("no route to the payee is known"),
        "{}",
        error.message
    );
}

/// An owner with two channels, the one with more money to a peer that is away.
fn with_a_peer_that_is_away() -> Pair {
    let mut pair = Pair::new();
    let other = pair.world.add_hub(3);
    pair.world.fund(pair.owner, 1_000_000);
    open(&mut pair.world, pair.owner, other, 2, 0, false);
    pair.phone_leaves();
    pair.world.away = Some(other);
    pair.world.attach(pair.owner);
    pair
}

#[test]
fn a_payment_is_made_at_once_beside_a_channel_whose_peer_is_away() {
    let mut pair = with_a_peer_that_is_away();
    let invoice = pair.hub_invoice(1_000_000);
    let before = pair.world.now;
    let paid = pair.world.ask(pair.owner, pay(&invoice));
    let Ok(Reply::Payment(paid)) = paid else {
        panic!("not paid: {paid:?}");
    };
    assert_eq!(paid.state(), State::Succeeded);
    assert_eq!(pair.world.now, before);
}

#[test]
fn a_payment_that_needs_a_peer_that_is_away_waits_for_it_and_is_refused_as_such() {
    let mut pair = with_a_peer_that_is_away();
    let other = pair.world.away.unwrap();
    let invoice = pair.invoice_of(other, 200_000_000);
    let paying = pair.pay(pair.owner, &invoice);
    assert!(!pair.world.has_answered(pair.owner, paying));
    // A node that has just got its phone waits for its peers so long.
    pair.world.pass(Duration::from_secs(10));
    let answer = pair.world.answer(pair.owner, paying);
    let Some(Err(error)) = answer else {
        panic!("not refused: {answer:?}");
    };
    assert_eq!(error.code, Code::PeerAway);
}

#[test]
fn a_payment_whose_route_begins_at_a_peer_that_is_away_is_refused_as_such() {
    let (mut pair, payer) = with_payer();
    let invoice = pair.owner_invoice(1_000_000);
    pair.world.is_offline = true;
    pair.world.reload(payer);
    let paying = pair.world.begin(payer, pay(&invoice));
    pair.world.pass(Duration::from_secs(10));
    let error = pair.world.answer(payer, paying).unwrap().unwrap_err();
    assert_eq!(
        (error.code.parse(), error.action()),
        (Ok(Code::PeerAway), Action::Retry)
    );
}

#[test]
fn a_payment_that_its_payee_refuses_has_failed_in_plain_words() {
    let (mut pair, payer) = with_payer();
    let invoice = pair.owner_invoice(1_000_000);
    let paid = pair.world.ask(payer, pay(&invoice));
    assert!(paid.is_ok());
    let reason = |turn: &Turn, reason| failure(turn, 1_000_000, Some(reason));
    let turn = pair.world.turn(payer);
    use PaymentFailureReason as Reason;
    for (given, code) in [
        (Reason::RecipientRejected, Code::PayeeRefused),
        (Reason::RouteNotFound, Code::NoRoute),
        (Reason::RetriesExhausted, Code::NoRoute),
        (Reason::PaymentExpired, Code::InvoiceExpired),
        (Reason::UnknownRequiredFeatures, Code::UnknownFeatures),
        (Reason::UnexpectedError, Code::PaymentFailed),
    ] {
        let text = reason(turn, given);
        assert_eq!(text.split(':').next().unwrap(), code, "{given:?}: {text}");
    }
}

#[test]
fn a_payment_that_fails_on_its_way_says_that_every_route_failed() {
    let (mut pair, payer) = with_payer();
    let invoice = pair.owner_invoice(1_000_000);
    pair.phone_leaves();
    let paying = pair.world.begin(payer, pay(&invoice));
    let owner = pair.world.nodes[pair.owner].machine.node_id();
    let give_up = crate::machine::input::Input::FailHeld(owner);
    pair.world.input(pair.hub, give_up);
    let failed = pair.world.answer(payer, paying);
    let Some(Ok(Reply::Payment(failed))) = failed else {
        panic!("not ended: {failed:?}");
    };
    assert_eq!(failed.state(), State::Failed);
    assert!(
        failed.failure.starts_with("NO_ROUTE: every route"),
        "{}",
        failed.failure
    );
    let recorded = payment(&mut pair.world, payer, &invoice).unwrap();
    assert_eq!(recorded.failure, failed.failure);
}
