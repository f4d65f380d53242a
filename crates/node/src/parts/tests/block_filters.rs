#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::time::Duration;

use longhand_proto::command::payment::State;

use crate::machine::testing::{Id, World};
use crate::parts::testing::Pair;

const AMOUNT_MSAT: u64 = 1_000_000;

/// A hub and an owner whose phone wants filters for every payment.
fn filtering() -> Pair {
    let mut pair = Pair::new();
    set_limit(&mut pair.world, pair.owner, "filters_from_sat", "0");
    pair
}

fn set_limit(world: &mut World, owner: Id, name: &str, value: &str) {
    let signer = world.nodes[owner].signer.as_mut().unwrap();
    let limits = signer.limits().with(name, value).unwrap();
    let _ = signer.set_limits(&limits).unwrap();
}

/// Up to which block the phone has seen its channel open by filters.
fn seen_up_to(pair: &Pair) -> Option<u32> {
    let signer = pair.world.nodes[pair.owner].signer.as_ref().unwrap();
    signer.seen_channels().next().unwrap().shown_open_up_to
}

fn state(pair: &mut Pair, invoice: &str) -> Option<State> {
    let owner = pair.owner;
    pair.payment(owner, invoice).map(|payment| payment.state())
}

#[test]
fn a_payment_that_wants_filters_is_claimed_when_they_were_shown() {
    let mut pair = filtering();
    assert_eq!(seen_up_to(&pair), None);
    let invoice = pair.owner_invoice(AMOUNT_MSAT);
    pair.pay(pair.hub, &invoice);
    assert_eq!(state(&mut pair, &invoice), Some(State::Succeeded));
    assert_eq!(seen_up_to(&pair), Some(pair.world.height()));

    // The next ones begin where these ended, many blocks later.
    pair.world.mine(250);
    let invoice = pair.owner_invoice(AMOUNT_MSAT);
    pair.pay(pair.hub, &invoice);
    assert_eq!(state(&mut pair, &invoice), Some(State::Succeeded));
    assert_eq!(seen_up_to(&pair), Some(pair.world.height()));
}

#[test]
fn a_small_payment_has_no_filters_shown() {
    let mut pair = filtering();
    set_limit(&mut pair.world, pair.owner, "filters_from_sat", "1001");
    let invoice = pair.owner_invoice(AMOUNT_MSAT);
    pair.pay(pair.hub, &invoice);
    assert_eq!(state(&mut pair, &invoice), Some(State::Succeeded));
    assert_eq!(seen_up_to(&pair), None);
}

#[test]
fn without_filters_of_its_source_a_host_leaves_the_payment_waiting_until_it_has_some() {
    let mut pair = filtering();
    pair.world.has_filters = false;
    let invoice = pair.owner_invoice(AMOUNT_MSAT);
    pair.pay(pair.hub, &invoice);
    pair.world.pass(Duration::from_secs(120));
    assert_eq!(state(&mut pair, &invoice), Some(State::Pending));

    pair.world.has_filters = true;
    pair.world.mine(1);
    pair.world.pass(Duration::from_secs(60));
    assert_eq!(state(&mut pair, &invoice), Some(State::Succeeded));
}

#[test]
fn a_phone_that_leaves_meanwhile_is_shown_the_filters_when_it_is_back() {
    let mut pair = filtering();
    pair.world.has_filters = false;
    let invoice = pair.owner_invoice(AMOUNT_MSAT);
    pair.pay(pair.hub, &invoice);
    pair.phone_leaves();
    pair.world.has_filters = true;
    pair.world.mine(3);
    pair.world.attach(pair.owner);
    pair.world.pass(Duration::from_secs(60));
    assert_eq!(state(&mut pair, &invoice), Some(State::Succeeded));
}

#[test]
fn a_payment_that_waits_for_a_second_source_has_no_filters_shown() {
    let mut pair = filtering();
    set_limit(
        &mut pair.world,
        pair.owner,
        "second_source",
        "https://source.example",
    );
    let invoice = pair.owner_invoice(AMOUNT_MSAT);
    pair.pay(pair.hub, &invoice);
    pair.world.pass(Duration::from_secs(10));
    assert_eq!(state(&mut pair, &invoice), Some(State::Pending));
    assert_eq!(seen_up_to(&pair), None);
}
