//! The hub, as its operator uses it: coins out, forwarding fees, payments, and the reserve for its channels.

use std::sync::{Arc, Mutex};

use longhand_node::Overview;
use longhand_node::typed::CommandError;
use longhand_proto::Code;
use longhand_proto::operator::*;
use longhand_testkit::embedded::{Door, World, phone_with_channel, until};
use longhand_testkit::host::faucet;

const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
/// The default of `hub.reserve_sat_per_channel`.
const RESERVE_SAT: u64 = 10_000;

fn send(amount_sat: u64, all: bool) -> HubSendRequest {
    HubSendRequest {
        address: ADDRESS.into(),
        amount_sat,
        all,
        feerate_sat_per_kw: 1_000,
        ..HubSendRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_operator_takes_coins_out_of_the_hub_and_its_reserve_stays() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    world.fund_hub(&operator).await;
    let door = Door(Arc::new(Mutex::new(Some(host))));
    let _ann = phone_with_channel(&world, &operator, &door, "ann", "").await;

    let sent = operator.hub_send(send(100_000, false)).await.unwrap();
    assert!(sent.fee_sat > 0);
    let in_mempool = async || {
        let mempool = world.devnet.mempool();
        mempool
            .iter()
            .any(|tx| tx.compute_txid().to_string() == sent.txid)
    };
    until("the transaction is in the mempool", in_mempool).await;
    let bump = HubReplaceRequest {
        txid: sent.txid.clone(),
        feerate_sat_per_kw: 2_000,
    };
    let bumped = operator.hub_bump(bump).await.unwrap();
    assert!(bumped.fee_sat > sent.fee_sat);
    let listed = operator.hub_sends().await.unwrap().sends;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&*listed[0].state, &listed[0].txid),
        ("pending", &bumped.txid)
    );
    assert_eq!(listed[0].replaced_txids, [sent.txid]);
    world.mine(&operator, 1).await;

    operator.hub_send(send(0, true)).await.unwrap();
    until("it is in the mempool", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    world.mine(&operator, 1).await;
    let left = async || operator.hub_balance().await.unwrap().onchain_confirmed_sat == RESERVE_SAT;
    until("only the reserve is left", left).await;
    let reserve = operator.status().await.unwrap().hub_reserve.unwrap();
    assert_eq!(
        (reserve.wanted_sat, reserve.wanted_for_next_sat),
        (RESERVE_SAT, 2 * RESERVE_SAT)
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_for_an_amount_and_for_all_is_refused() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let refused = host.operator().hub_send(send(1, true)).await.unwrap_err();
    assert_eq!(refused.code, Code::OperatorInput, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_payment_earns_the_fees_that_were_set_and_is_listed() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    world.fund_hub(&operator).await;
    let set = HubFeesRequest {
        base_msat: Some(2_000),
        proportional_millionths: Some(1_000),
    };
    let fees = operator.hub_fees(set).await.unwrap();
    assert_eq!(
        (fees.base_msat, fees.proportional_millionths),
        (2_000, 1_000)
    );
    let only_base = HubFeesRequest {
        base_msat: Some(3_000),
        proportional_millionths: None,
    };
    operator.hub_fees(only_base).await.unwrap();

    let door = Door(Arc::new(Mutex::new(Some(host))));
    let ann = phone_with_channel(&world, &operator, &door, "ann", "").await;
    let bob = phone_with_channel(&world, &operator, &door, "bob", "").await;
    let invoice = ann.invoice(Some(20_000_000), "tea", 3_600).await.unwrap();
    let paid = bob.pay(&invoice.bolt11, None, None).await.unwrap();
    assert_eq!(paid.fee_msat, 23_000);

    let forwards = async || {
        let asked = HubForwardsRequest::default();
        operator.hub_forwards(asked).await.unwrap()
    };
    until("the hub has its fee", async || forwards().await.count == 1).await;
    let reply = forwards().await;
    assert_eq!((reply.amount_msat, reply.fee_msat), (20_000_000, 23_000));
    let [forward] = &reply.forwards[..] else {
        panic!("not one payment: {reply:?}");
    };
    assert_eq!(forward.from_node_id, bob.node_id().serialize());
    assert_eq!(forward.to_node_id, ann.node_id().serialize());
    assert_eq!(forward.fee_msat, Some(23_000));
    // It was neither made nor received by the hub.
    let own = HubPaymentsRequest::default();
    assert!(
        operator
            .hub_payments(own)
            .await
            .unwrap()
            .payments
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn payments_of_the_hub_are_listed_with_the_newest_first() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    world.fund_hub(&operator).await;
    let door = Door(Arc::new(Mutex::new(Some(host))));
    let ann = phone_with_channel(&world, &operator, &door, "ann", "").await;
    for amount_msat in [1_000_000, 2_000_000] {
        let invoice = ann.invoice(Some(amount_msat), "tea", 3_600).await.unwrap();
        let pay = HubPayRequest {
            bolt11: invoice.bolt11,
            ..HubPayRequest::default()
        };
        operator.hub_pay(pay).await.unwrap();
    }
    let reply = operator
        .hub_payments(HubPaymentsRequest { limit: 1 })
        .await
        .unwrap();
    assert_eq!((reply.has_more, reply.payments.len()), (true, 1));
    let payment = &reply.payments[0];
    assert_eq!(
        (payment.state.as_str(), payment.outbound),
        ("succeeded", true)
    );
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_hub_without_coins_has_the_reserve_that_it_wants() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let reserve = host.operator().status().await.unwrap().hub_reserve.unwrap();
    assert_eq!((reserve.onchain_sat, reserve.wanted_sat), (0, 0));
    assert_eq!(reserve.wanted_for_next_sat, RESERVE_SAT);
}

#[tokio::test(start_paused = true)]
async fn a_program_commands_the_hub_of_its_own_host_with_types() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let (operator, hub) = (host.operator(), host.hub().await.unwrap());
    assert_eq!(
        operator.status().await.unwrap().hub_node_id,
        hub.id().serialize()
    );
    world.fund_hub(&operator).await;
    let address = hub.new_address().await.unwrap().to_string();
    faucet(&world.devnet, &address, 1_000_000).unwrap();
    world.mine(&operator, 1).await;
    let is_funded = |now: &Overview| now.onchain_sat == 21_000_000;
    hub.wait_until(is_funded).await.unwrap();

    let door = Door(Arc::new(Mutex::new(Some(host))));
    let ann = phone_with_channel(&world, &operator, &door, "ann", "").await;
    let invoice = ann.invoice(Some(20_000_000), "tea", 3_600).await.unwrap();
    let paid = hub.pay(&invoice.bolt11, None, None).await.unwrap();
    assert_eq!(paid.payment_hash.to_string(), invoice.payment_hash);
    let again = hub.pay(&invoice.bolt11, None, None).await.unwrap();
    assert_eq!(again, paid);

    let own = hub.invoice(Some(5_000_000), "coffee", 3_600).await.unwrap();
    ann.pay(&own.bolt11, None, None).await.unwrap();
    let [channel] = &hub.channels().await.unwrap()[..] else {
        panic!("the hub has one channel");
    };
    assert_eq!(
        (channel.peer, channel.capacity_sat),
        (ann.node_id(), 1_000_000)
    );
    assert_eq!(
        ann.channels().await.unwrap().channels[0].inbound_msat,
        channel.outbound_msat
    );
    let refused = hub.pay("lnbc1", None, None).await.unwrap_err();
    assert!(matches!(refused, CommandError::FixInput(_)), "{refused:?}");
    let closing = hub.close_channel(&channel.id, false).await.unwrap();
    let is_closed = |now: &Overview| now.channels == 0;
    hub.wait_until(is_closed).await.unwrap();
    assert_eq!(closing, None);
}
