//! Payments between a hub and an owner, and what becomes of the money when their channel ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bitcoin::{OutPoint, Txid};
use lightning::chain::Confirm;
use longhand_chain::FeeRates;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{Balance, GetBalance};

use crate::machine::input::Input;
use crate::machine::testing::{Id, World};
use crate::parts::testing::{Pair, pay};

fn balance(world: &mut World, id: Id) -> Balance {
    match world.ask(id, Kind::GetBalance(GetBalance {})) {
        Ok(Reply::Balance(balance)) => balance,
        other => panic!("no balance: {other:?}"),
    }
}

#[test]
fn a_hub_pays_an_owners_invoice_and_both_sides_settle() {
    let mut pair = Pair::new();
    let invoice = pair.owner_invoice(1_000_000);
    // Without the fee of the commitment, which is the hub's to pay.
    let before_msat = pair.channel(pair.hub).balance_msat;
    let paying = pair.pay(pair.hub, &invoice);
    let paid = pair.world.answer(pair.hub, paying);
    let Some(Ok(Reply::Payment(paid))) = paid else {
        panic!("not paid: {paid:?}");
    };
    assert_eq!(paid.state(), State::Succeeded);

    let received = pair.payment(pair.owner, &invoice).unwrap();
    assert_eq!(received.state(), State::Succeeded);
    assert_eq!(received.preimage, paid.preimage);
    assert_eq!(received.amount_msat, 1_000_000);
    assert_eq!(pair.channel(pair.owner).balance_msat, 101_000_000);
    let after_msat = pair.channel(pair.hub).balance_msat;
    assert_eq!(after_msat, before_msat - 1_000_000);
    let store = &pair.world.nodes[pair.owner].store;
    assert!(!store.keys().any(|key| key.starts_with("claim/")));
}

/// The owner pays the hub; the world stops when the phone has the proof, in the middle of the step that removes the HTLC.
fn paid_and_not_settled() -> Pair {
    let mut pair = Pair::new();
    let invoice = pair.hub_invoice(1_000_000);
    let (owner, paying) = (pair.owner, pair.world.push(pair.owner, pay(&invoice)));
    let is_paid = |world: &World| world.has_answered(owner, paying);
    pair.world.settle_until(is_paid);
    assert!(pair.world.has_answered(owner, paying));
    pair
}

fn has_htlcs(pair: &mut Pair) -> [bool; 2] {
    [pair.hub, pair.owner].map(|id| pair.channel(id).pending_htlcs > 0)
}

#[test]
fn a_phone_that_leaves_with_the_proof_of_its_payment_leaves_no_htlc_behind() {
    let mut pair = paid_and_not_settled();
    let detach = pair.world.next_id();
    pair.world.input(pair.owner, Input::Detach(detach));
    pair.world.pass(Duration::from_millis(500));
    assert!(pair.world.has_answered(pair.owner, detach));
    assert_eq!(has_htlcs(&mut pair), [false, false]);
}

#[test]
fn a_phone_that_comes_for_a_moment_removes_an_htlc_that_was_left() {
    let mut pair = paid_and_not_settled();
    pair.phone_leaves();
    assert!(has_htlcs(&mut pair).contains(&true));
    let detach = pair.world.next_id();
    let attach = pair.world.attachment(pair.owner, b"");
    let owner = &mut pair.world.nodes[pair.owner];
    owner.inputs.extend([attach, Input::Detach(detach)]);
    pair.world.settle();
    pair.world.pass(Duration::from_secs(1));
    assert!(pair.world.has_answered(pair.owner, detach));
    assert_eq!(has_htlcs(&mut pair), [false, false]);
}

#[test]
fn an_owners_money_of_a_forced_close_is_swept_when_the_phone_is_back() {
    let mut pair = Pair::new();
    pair.phone_leaves();
    pair.force_close();
    pair.world.mine(10);
    let away = balance(&mut pair.world, pair.owner);
    assert_eq!((away.onchain_confirmed_sat, away.closing_sat), (0, 100_000));

    pair.world.attach(pair.owner);
    pair.world.mine(1);
    let back = balance(&mut pair.world, pair.owner);
    assert_eq!(back.closing_sat, 0);
    assert!(
        (99_000..100_000).contains(&back.onchain_confirmed_sat),
        "{back:?}"
    );
}

/// The transactions that the owner's monitors have as confirmed, with their heights.
fn confirmed(pair: &mut Pair) -> Vec<(Txid, u32)> {
    let owner = pair.owner;
    let monitors = &pair.world.turn(owner).ldk.chain_monitor;
    let known = monitors.get_relevant_txids().into_iter();
    known.map(|(txid, height, _)| (txid, height)).collect()
}

#[test]
fn a_close_that_a_reorganisation_moved_while_the_node_was_not_loaded_is_found_in_its_new_block() {
    let mut pair = Pair::new();
    pair.phone_leaves();
    pair.force_close();
    let height = pair.world.height();
    let closing = pair.world.mempool.clone();
    let [commitment, ..] = &closing[..] else {
        panic!("no commitment");
    };
    let txid = commitment.compute_txid();
    pair.world.mine(3);
    assert!(confirmed(&mut pair).contains(&(txid, height + 1)));

    // The host of the owner's node ends here, and the chain goes on without it.
    let stored = pair.world.nodes[pair.owner].store.clone();
    pair.world.disconnect(3);
    pair.world.mempool.clear();
    pair.world.mine(1);
    pair.world.mempool = closing;
    pair.world.mine(4);
    pair.world.nodes[pair.owner].store = stored;
    pair.world.reload(pair.owner);

    let found = confirmed(&mut pair);
    assert!(found.contains(&(txid, height + 2)), "{found:?}");
    assert!(!found.contains(&(txid, height + 1)), "{found:?}");
}

#[test]
fn a_sweep_in_a_block_is_not_made_again_after_a_restart() {
    let mut pair = Pair::new();
    pair.phone_leaves();
    pair.force_close();
    pair.world.mine(10);
    pair.world.attach(pair.owner);
    assert_eq!(pair.world.mempool.len(), 1, "the sweep");
    pair.phone_leaves();
    pair.world.mine(60);
    // Nothing has left the node: its turn is committed a little later.
    pair.world.pass(Duration::from_secs(1));

    pair.world.reload(pair.owner);
    pair.world.attach(pair.owner);
    pair.world.mine(1);
    assert!(pair.world.mempool.is_empty(), "{:?}", pair.world.mempool);
}

#[test]
fn a_sweep_whose_block_left_the_chain_is_broadcast_again_and_counted_once() {
    let mut pair = Pair::new();
    pair.phone_leaves();
    pair.force_close();
    pair.world.mine(10);
    pair.world.attach(pair.owner);
    let before = spent(&pair.world);
    assert_eq!(pair.world.mempool.len(), 1, "the sweep");
    pair.world.mine(1);
    let swept = balance(&mut pair.world, pair.owner);
    assert_eq!(swept.closing_sat, 0, "{swept:?}");

    // The block that takes its place has no sweep, and neither has any mempool.
    pair.world.disconnect(1);
    pair.world.mempool.clear();
    pair.world.mine(1);
    let back = balance(&mut pair.world, pair.owner);
    assert_eq!(back.onchain_confirmed_sat, 0, "{back:?}");
    // At another height it has another locktime, and so another id.
    assert_eq!(spent(&pair.world), before);

    pair.world.mine(1);
    assert_eq!(balance(&mut pair.world, pair.owner), swept);
    assert!(pair.world.mempool.is_empty(), "{:?}", pair.world.mempool);
}

/// The outputs that transactions in the mempool spend.
fn spent(world: &World) -> Vec<OutPoint> {
    let inputs = world.mempool.iter().flat_map(|tx| &tx.input);
    inputs.map(|input| input.previous_output).collect()
}

/// The ids of the transactions in the mempool.
fn waiting(world: &World) -> Vec<Txid> {
    world.mempool.iter().map(|tx| tx.compute_txid()).collect()
}

#[test]
fn a_forced_close_is_bumped_once_and_again_when_fees_rise() {
    let mut pair = Pair::new();
    pair.phone_leaves();
    pair.world.fee_rates = rates(2_000);
    pair.force_close();
    let first = waiting(&pair.world);
    let [commitment, bump] = first[..] else {
        panic!("no commitment with its bump: {first:?}");
    };
    let inputs = &pair.world.mempool[1].input;
    assert!(
        inputs
            .iter()
            .any(|it| it.previous_output.txid == commitment)
    );

    // LDK asks again, for the same fee rate.
    pair.world.pass(Duration::from_secs(31));
    assert_eq!(waiting(&pair.world), first);

    pair.world.fee_rates = rates(8_000);
    // A block without them: the hub broadcasts both again.
    pair.world.mempool.clear();
    pair.world.mine(1);
    pair.world.pass(Duration::from_secs(31));
    let later = waiting(&pair.world);
    assert!(later.contains(&commitment), "{later:?}");
    assert!(!later.contains(&bump), "{later:?}");
    assert_eq!(later.len(), 2);
}

fn rates(sat_per_kw: u32) -> FeeRates {
    FeeRates {
        urgent: sat_per_kw,
        normal: sat_per_kw,
        background: sat_per_kw,
        minimum: 253,
        is_estimate: true,
    }
}
