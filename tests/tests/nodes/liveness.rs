//! A phone that goes away and comes back (promises 2 and 3), and a node that panics.

use std::collections::BTreeSet;

use longhand_node::{NodeEvent, State as Life};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{GetBalance, GetInfo, OpenChannel, Pay};
use longhand_testkit::nodes::{
    Owner, World, ask, await_payment, event, pay, refusal, settle, usable,
};
use longhand_testkit::until;
use tokio::sync::broadcast::Receiver;

async fn world_with_channels() -> (World, Owner, Owner) {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    let bob = world.owner("bob", 2).await;
    alice.attach();
    bob.attach();
    world
        .open(&world.hub, &alice.node, 1_000_000, 400_000_000)
        .await;
    world
        .open(&world.hub, &bob.node, 1_000_000, 400_000_000)
        .await;
    (world, alice, bob)
}

async fn is_usable(owner: &Owner) {
    until("the channel is usable again", async || {
        usable(&owner.node).await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_phone_a_node_has_no_peers_refuses_at_once_what_needs_it_and_answers_the_rest()
{
    let (world, alice, bob) = world_with_channels().await;
    let invoice = bob.invoice(1_000_000).await;

    alice.node.signer_lost();
    until("the peers are gone", async || {
        alice.overview().await.peers == 0
    })
    .await;

    assert_eq!(alice.overview().await.state, Life::Dormant);
    let pay = Pay {
        bolt11: invoice.clone(),
        ..Pay::default()
    };
    assert_eq!(refusal(&alice.node, Kind::Pay(pay)).await, Code::SignerAway);
    let open = Kind::OpenChannel(OpenChannel::default());
    assert_eq!(refusal(&alice.node, open).await, Code::SignerAway);
    let Reply::Balance(balance) = ask(&alice.node, Kind::GetBalance(GetBalance {})).await else {
        panic!("no balance")
    };
    assert!(balance.lightning_msat > 0);
    assert_eq!(alice.channels().await.channels.len(), 1);

    // The other nodes are not affected.
    assert_eq!(
        longhand_testkit::nodes::pay(&world.hub, &invoice)
            .await
            .state(),
        State::Succeeded
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_comes_back_pays_over_the_same_channel() {
    let (world, alice, bob) = world_with_channels().await;
    alice.node.signer_lost();
    world.mine(3).await;
    alice.attach();
    is_usable(&alice).await;
    let payment = alice.pay(&bob.invoice(1_000_000).await).await;
    assert_eq!(payment.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_asked_for_while_the_node_wakes_waits_for_its_channels() {
    let (_world, alice, bob) = world_with_channels().await;
    let invoice = bob.invoice(1_000_000).await;
    alice.node.signer_lost();
    alice.attach();
    assert_eq!(alice.pay(&invoice).await.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_payee_goes_away_in_the_middle_ends_when_it_comes_back() {
    let (world, alice, bob) = world_with_channels().await;
    let invoice = bob.invoice(5_000_000).await;
    let hash: lightning_invoice::Bolt11Invoice = invoice.parse().unwrap();
    let hash = hash.payment_hash().0.to_vec();

    bob.phone.leave();
    alice.phone.intend_pay(&invoice);
    let paying = tokio::spawn({
        let (node, invoice) = (alice.node.clone(), invoice.clone());
        async move { pay(&node, &invoice).await }
    });
    until("the payment is on its way", async || {
        pending_htlcs(&alice).await == 1
    })
    .await;
    bob.node.signer_lost();
    until("bob's peers are gone", async || {
        bob.overview().await.peers == 0
    })
    .await;
    assert!(!paying.is_finished());

    bob.phone.restart();
    bob.attach();
    assert_eq!(paying.await.unwrap().state(), State::Succeeded);
    assert_eq!(
        await_payment(&bob.node, &hash).await.state(),
        State::Succeeded
    );
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_payer_goes_away_in_the_middle_ends_when_it_comes_back() {
    let (_world, alice, bob) = world_with_channels().await;
    let invoice = bob.invoice(5_000_000).await;
    alice.phone.leave();
    alice.phone.intend_pay(&invoice);
    let paying = tokio::spawn({
        let (node, invoice) = (alice.node.clone(), invoice.clone());
        async move { pay(&node, &invoice).await }
    });
    until("the payment was taken", async || {
        pending_htlcs(&alice).await == 1
    })
    .await;
    alice.node.signer_lost();
    settle().await;
    alice.attach();
    assert_eq!(paying.await.unwrap().state(), State::Succeeded);
}

async fn pending_htlcs(owner: &Owner) -> u32 {
    let channels = owner.channels().await.channels;
    channels.iter().map(|channel| channel.pending_htlcs).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_started_again_from_its_store_has_its_channels_and_pays() {
    let (world, alice, bob) = world_with_channels().await;
    alice.node.stop().await;
    let node = world.start("alice", &alice.phone).await;
    alice.phone.restart();
    let alice = Owner { node, ..alice };
    assert_eq!(alice.overview().await.channels, 1);
    alice.attach();
    is_usable(&alice).await;
    let payment = alice.pay(&bob.invoice(2_000_000).await).await;
    assert_eq!(payment.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_one_node_loads_it_again_and_its_neighbours_do_not_notice() {
    let (_world, alice, bob) = world_with_channels().await;
    alice.node.panic_for_test();
    until("the node is back", async || {
        alice.overview().await.restarts == 1
    })
    .await;
    let info = ask(&bob.node, Kind::GetInfo(GetInfo {})).await;
    assert!(matches!(info, Reply::Info(info) if info.usable_channels == 1));
    is_usable(&alice).await;
    let payment = alice.pay(&bob.invoice(2_000_000).await).await;
    assert_eq!(payment.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_that_comes_again_when_the_node_is_loaded_does_not_end_it() {
    let (_world, alice, bob) = world_with_channels().await;
    alice.node.signer_lost();
    alice.node.panic_when_attached_for_test(3);
    alice.attach();
    until("the node is back", async || {
        alice.overview().await.restarts == 3
    })
    .await;
    is_usable(&alice).await;
    let payment = alice.pay(&bob.invoice(2_000_000).await).await;
    assert_eq!(payment.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_for_a_phone_that_is_away_is_held_until_it_comes() {
    let (world, alice, bob) = world_with_channels().await;
    let invoice = bob.invoice(3_000_000).await;
    bob.node.signer_lost();
    until("bob's peers are gone", async || {
        bob.overview().await.peers == 0
    })
    .await;
    let mut events = world.hub.events();
    alice.phone.intend_pay(&invoice);
    let paying = tokio::spawn({
        let node = alice.node.clone();
        async move { pay(&node, &invoice).await }
    });
    held_for(&mut events, &bob).await;
    bob.attach();
    assert_eq!(paying.await.unwrap().state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_starts_again_reports_the_payments_that_it_holds() {
    let (world, alice, bob) = world_with_channels().await;
    let invoice = bob.invoice(3_000_000).await;
    bob.node.signer_lost();
    until("bob's peers are gone", async || {
        bob.overview().await.peers == 0
    })
    .await;
    let mut events = world.hub.events();
    alice.phone.intend_pay(&invoice);
    let paying = tokio::spawn({
        let node = alice.node.clone();
        async move { pay(&node, &invoice).await }
    });
    held_for(&mut events, &bob).await;
    paying.abort();
    world.hub.stop().await;

    let hub = world.start_hub().await;
    let mut events = hub.events();
    world.mine(1).await;
    held_for(&mut events, &bob).await;
    hub.fail_held(bob.node.node_id());
    until("alice has her money back", async || {
        pending_htlcs(&alice).await == 0
    })
    .await;
}

/// More than a subscriber that is busy for a moment receives one by one.
const SLEEPERS: u8 = 18;

#[tokio::test(flavor = "multi_thread")]
async fn all_for_whom_payments_wait_are_told_of_however_many_they_are() {
    let world = World::new().await;
    let payer = world.owner("payer", 1).await;
    payer.attach();
    world
        .open(&world.hub, &payer.node, 2_000_000, 900_000_000)
        .await;
    let mut paying = tokio::task::JoinSet::new();
    let mut sleepers = Vec::new();
    for number in 0..SLEEPERS {
        let sleeper = world.owner(&format!("sleeper-{number}"), 2 + number).await;
        sleeper.attach();
        world.open(&world.hub, &sleeper.node, 100_000, 0).await;
        let invoice = sleeper.invoice(1_000_000).await;
        sleeper.node.signer_lost();
        until("the sleeper is gone", async || {
            sleeper.overview().await.peers == 0
        })
        .await;
        payer.phone.intend_pay(&invoice);
        let node = payer.node.clone();
        paying.spawn(async move { pay(&node, &invoice).await });
        sleepers.push(sleeper);
    }
    until("all payments wait", async || {
        pending_htlcs(&payer).await == u32::from(SLEEPERS)
    })
    .await;

    let mut events = world.hub.events();
    // No event is received while the hub processes the block and reports.
    world.mine_seen_by(&world.hub, 1).await;
    world.hub.overview().await.unwrap();
    let mut missing: BTreeSet<_> = sleepers.iter().map(|it| it.node.node_id()).collect();
    while !missing.is_empty() {
        // A payment that reaches the hub just now is reported by itself.
        let held = event(&mut events, "payments are held", |event| match event {
            NodeEvent::PaymentsHeld(peers) => Some(peers),
            _ => None,
        });
        for peer in held.await {
            missing.remove(&peer.node_id);
        }
    }
}

async fn held_for(events: &mut Receiver<NodeEvent>, owner: &Owner) {
    let held = event(events, "a payment is held", |event| match event {
        NodeEvent::PaymentsHeld(peers) => peers.first().map(|peer| peer.node_id),
        _ => None,
    });
    assert_eq!(held.await, owner.node.node_id());
}
