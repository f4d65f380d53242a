//! HTLCs in flight whose phone is away, and channels that are closed for them.

use bitcoin::{OutPoint, Transaction};
use lightning_invoice::Bolt11Invoice;
use longhand_node::{Node, NodeEvent};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{ListChannels, ListPayments, Pay, Payment};
use longhand_proto::signer::signer_op::Op;
use longhand_testkit::nodes::{
    Owner, RecordingChain, World, ask, await_payment, event, settle, usable,
};
use longhand_testkit::phone::{Action, Phone};
use longhand_testkit::until;

const AMOUNT_SAT: u64 = 50_000;
const CHANNEL_SAT: u64 = 1_000_000;
const PUSHED_SAT: u64 = 400_000;

async fn payment(owner: &Owner) -> Payment {
    match ask(&owner.node, Kind::ListPayments(ListPayments::default())).await {
        Reply::Payments(mut payments) => payments.payments.remove(0),
        _ => panic!("no payments"),
    }
}

async fn has_preimage(owner: &Owner) -> bool {
    let list = ask(&owner.node, Kind::ListPayments(ListPayments::default())).await;
    let Reply::Payments(list) = list else {
        panic!("no payments")
    };
    list.payments.iter().any(|known| !known.preimage.is_empty())
}

/// A host calls a phone this many blocks before a deadline.
const CALLED_BLOCKS: u32 = 72;
const FEW: u32 = 5;
/// More blocks than an HTLC lasts.
const BLOCKS_OF_AN_HTLC: u32 = 300;
/// A `revoke_and_ack` on the wire: 99 bytes (BOLT 2), its length and two tags (BOLT 8).
const REVOKE_AND_ACK: u64 = 99 + 18 + 16;

/// The hub pays Bob, whose phone gives the preimage. The action is run at that moment.
async fn world_with_a_payment(
    at_the_preimage: impl FnOnce(&World) -> Action,
) -> (World, Owner, Bolt11Invoice) {
    let world = World::new().await;
    let bob = world.owner("bob", 2).await;
    bob.attach();
    let pushed_msat = PUSHED_SAT * 1000;
    world
        .open(&world.hub, &bob.node, CHANNEL_SAT, pushed_msat)
        .await;
    let bolt11 = bob.invoice(AMOUNT_SAT * 1000).await;
    settle().await;
    bob.phone.at_a_preimage(at_the_preimage(&world));
    begin_to_pay(&world.hub, &bolt11);
    until("the preimage is here", async || has_preimage(&bob).await).await;
    (world, bob, bolt11.parse().unwrap())
}

/// Pays, and does not wait for the result.
fn begin_to_pay(node: &Node, bolt11: &str) {
    let pay = Pay {
        bolt11: bolt11.into(),
        ..Pay::default()
    };
    let node = node.clone();
    tokio::spawn(async move { ask(&node, Kind::Pay(pay)).await });
}

/// Nothing waits for Bob's phone; after more blocks than an HTLC has left, nothing is closed and all is Bob's.
async fn is_settled(world: &World, bob: &Owner) {
    until("nothing waits for the phone", async || {
        bob.overview().await.earliest_deadline.is_none() && usable(&bob.node).await == 1
    })
    .await;
    world.mine(60).await;
    assert_eq!(
        bob.overview().await.lightning_msat,
        (PUSHED_SAT + AMOUNT_SAT) * 1000
    );
}

/// BOLT 3: only an HTLC's own transaction has an input with so many parts.
fn claims_an_htlc(tx: &Transaction) -> bool {
    tx.input.iter().any(|input| input.witness.len() == 5)
}

async fn goes_away(bob: &Owner) {
    bob.phone.leave();
    bob.node.signer_lost();
    until("the peers are gone", async || {
        bob.overview().await.peers == 0
    })
    .await;
}

/// Bob's phone has given the preimage of a payment, and has gone before the HTLC was settled.
async fn world_with_an_htlc() -> (World, Owner, Bolt11Invoice) {
    let (world, bob, invoice) = world_with_a_payment(|_| Box::new(Phone::leave)).await;
    goes_away(&bob).await;
    assert_eq!(bob.channels().await.channels[0].pending_htlcs, 1);
    (world, bob, invoice)
}

/// The same, but the hub has revoked its commitment with the HTLC, and holds back the signature that removes it from
/// Bob's.
async fn world_with_an_htlc_in_bobs_commitment_only() -> (World, Owner, Bolt11Invoice) {
    let (world, bob, invoice) = world_with_a_payment(|world| {
        let valve = world.switchboard.valve.clone();
        Box::new(move |_| valve.close_after(REVOKE_AND_ACK))
    })
    .await;
    until("the HTLC is listed no more", async || {
        let channel = &bob.channels().await.channels[0];
        channel.pending_htlcs == 0 && world.switchboard.valve.is_shut()
    })
    .await;
    goes_away(&bob).await;
    world.switchboard.valve.open();
    (world, bob, invoice)
}

fn is_for_a_preimage(op: &Op) -> bool {
    matches!(op, Op::GetPreimage(_))
}

/// A payment by the hub has reached Bob's node, and his phone has gone before it gave the preimage. With the channel's
/// id.
async fn world_with_a_preimage_not_given() -> (World, Owner, Bolt11Invoice, Vec<u8>) {
    let world = World::new().await;
    let bob = world.owner("bob", 2).await;
    bob.attach();
    let pushed_msat = PUSHED_SAT * 1000;
    let channel_id = world
        .open(&world.hub, &bob.node, CHANNEL_SAT, pushed_msat)
        .await;
    let bolt11 = bob.invoice(AMOUNT_SAT * 1000).await;
    settle().await;
    bob.phone.leave_before(is_for_a_preimage);
    begin_to_pay(&world.hub, &bolt11);
    until("the phone is asked for the preimage", async || {
        bob.phone.is_away()
    })
    .await;
    goes_away(&bob).await;
    assert_eq!(bob.channels().await.channels[0].pending_htlcs, 1);
    (world, bob, bolt11.parse().unwrap(), channel_id)
}

/// The same, and the hub has closed the channel by force. With the deadline from before that.
async fn world_with_a_preimage_not_given_in_a_closed_channel() -> (World, Owner, Bolt11Invoice, u32)
{
    let (world, bob, invoice, channel_id) = world_with_a_preimage_not_given().await;
    let deadline = bob.overview().await.earliest_deadline.unwrap();
    world.hub_closes(channel_id).await;
    world.mine_seen_by(&bob.node, 1).await;
    assert_eq!(bob.overview().await.channels, 0);
    (world, bob, invoice, deadline)
}

async fn mine_to(world: &World, bob: &Owner, height: u32) {
    let blocks = height - world.devnet.tip().height;
    world.mine_seen_by(&bob.node, blocks).await;
}

/// LDK takes a preimage until 39 blocks before the expiry, whether the channel is open or closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_called_in_time_to_give_a_preimage_though_the_channel_is_closed() {
    let (world, bob, invoice, deadline) =
        world_with_a_preimage_not_given_in_a_closed_channel().await;
    let before = bob.overview().await;
    assert_eq!(before.earliest_deadline, Some(deadline));

    mine_to(&world, &bob, deadline - 1).await;
    bob.attach();
    until("the HTLC is claimed", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    all_is_the_owners(&world, &bob, before.onchain_sat).await;
    let hash = invoice.payment_hash().0;
    assert_eq!(
        await_payment(&bob.node, &hash).await.state(),
        State::Succeeded
    );
}

/// Bob's phone comes too late for the preimage: it is not asked, and the payment has failed for its payer too.
async fn goes_back_to_its_payer(
    world: &World,
    bob: &Owner,
    invoice: &Bolt11Invoice,
    deadline: u32,
    late: u32,
) {
    mine_to(world, bob, deadline + late).await;
    let hash = invoice.payment_hash().0;
    bob.attach();
    let payment = await_payment(&bob.node, &hash).await;
    assert_eq!(payment.state(), State::Failed);
    let reason = format!("did not give its preimage before block {deadline}");
    assert!(payment.failure.contains(&reason), "{}", payment.failure);
    world
        .mine_until("it has failed for its payer", async || {
            settle().await;
            let payments = ask(&world.hub, Kind::ListPayments(ListPayments::default())).await;
            let Reply::Payments(payments) = payments else {
                panic!("no payments")
            };
            payments.payments[0].state() == State::Failed
        })
        .await;
    assert!(!bob.phone.was_asked(is_for_a_preimage));
    assert!(!has_preimage(bob).await);
    assert_eq!(bob.overview().await.earliest_deadline, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_that_would_come_too_late_in_a_closed_channel_is_not_asked_for() {
    let (world, bob, invoice, deadline) =
        world_with_a_preimage_not_given_in_a_closed_channel().await;
    goes_back_to_its_payer(&world, &bob, &invoice, deadline, FEW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_that_would_come_in_the_very_block_of_its_deadline_is_not_asked_for() {
    let (world, bob, invoice, _) = world_with_a_preimage_not_given().await;
    let deadline = bob.overview().await.earliest_deadline.unwrap();
    goes_back_to_its_payer(&world, &bob, &invoice, deadline, 0).await;
    assert_eq!(usable(&bob.node).await, 1);
    assert_eq!(bob.overview().await.lightning_msat, PUSHED_SAT * 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_comes_before_the_deadline_settles_its_htlc_and_nothing_is_closed() {
    let (world, bob, invoice) = world_with_an_htlc().await;
    let deadline = bob.overview().await.earliest_deadline.unwrap();
    let height = world.devnet.tip().height;
    // A day, less the 39 blocks that LDK wants for the chain.
    assert!(deadline >= height + 144 - 39, "{deadline} at {height}");
    world.mine(deadline - 1 - height).await;
    bob.attach();
    let hash = invoice.payment_hash().0;
    assert_eq!(
        await_payment(&bob.node, &hash).await.state(),
        State::Succeeded
    );
    until("the HTLC is settled", async || {
        let channel = &bob.channels().await.channels[0];
        channel.pending_htlcs == 0 && channel.usable
    })
    .await;
    is_settled(&world, &bob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_htlc_that_the_peer_keeps_in_our_commitment_has_a_deadline_until_it_is_out_of_it() {
    let (world, bob, _) = world_with_an_htlc_in_bobs_commitment_only().await;
    let height = world.devnet.tip().height;
    let deadline = bob.overview().await.earliest_deadline;
    let deadline = deadline.expect("a deadline: the peer can take the HTLC back");
    assert!(deadline >= height + 144 - 39, "{deadline} at {height}");

    // After a restart only the store has it.
    bob.node.stop().await;
    let bob = Owner {
        node: world.start(&bob.name, &bob.phone).await,
        ..bob
    };
    settle().await;
    assert_eq!(bob.overview().await.earliest_deadline, Some(deadline));

    world.mine(deadline - 1 - height).await;
    bob.attach();
    is_settled(&world, &bob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_htlc_that_the_peer_keeps_in_our_commitment_is_claimed_on_chain_by_a_phone_that_is_called()
 {
    let (world, bob, _) = world_with_an_htlc_in_bobs_commitment_only().await;
    // An HTLC's own transaction takes its fee from the wallet.
    world.fund(&bob.node, 100_000).await;
    let before = bob.overview().await;
    let in_channel = before.earliest_deadline.unwrap();
    let mine_to = async |height: u32| world.mine(height - world.devnet.tip().height).await;

    mine_to(in_channel + 25).await;
    settle().await;
    let overview = bob.overview().await;
    assert_eq!(
        (overview.channels, overview.earliest_deadline),
        (0, Some(in_channel + 39)),
        "closed by force, and the phone is called to claim the HTLC"
    );
    bob.attach();
    until("its commitment is sent", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    world.mine(1).await;
    until("the HTLC is claimed", async || {
        world.devnet.mempool().iter().any(claims_an_htlc)
    })
    .await;
    world.mine(1).await;
    all_is_the_owners(&world, &bob, before.onchain_sat).await;
    assert_eq!(payment(&bob).await.state(), State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_htlc_whose_phone_did_not_come_is_lost_and_only_that_and_its_owner_is_told() {
    let (world, bob, _) = world_with_an_htlc().await;
    let mut events = bob.node.events();
    let in_channel = bob.overview().await.earliest_deadline.unwrap();
    let expiry = in_channel + 39;
    let before = bob.overview().await;
    let mine_to = async |height: u32| world.mine(height - world.devnet.tip().height).await;

    // Past the first deadline the phone can still claim it, on chain.
    mine_to(in_channel + 4).await;
    settle().await;
    let overview = bob.overview().await;
    assert_eq!(
        (overview.channels, overview.earliest_deadline),
        (0, Some(expiry))
    );
    mine_to(expiry + 3).await;
    world
        .mine_until("the peer has taken it back", async || {
            settle().await;
            payment(&bob).await.state() == State::Failed
        })
        .await;
    let failure = payment(&bob).await.failure;
    let loss = format!("DEADLINE_MISSED: {AMOUNT_SAT} sat of this payment were lost");
    assert!(failure.starts_with(&loss), "{failure}");
    assert!(
        failure.contains(&format!("before block {expiry}")),
        "{failure}"
    );
    assert_eq!(bob.overview().await.earliest_deadline, None);
    let lost = event(&mut events, "an HTLC is lost", |event| match event {
        NodeEvent::HtlcLost { amount_msat, .. } => Some(amount_msat),
        _ => None,
    })
    .await;
    assert_eq!(lost, AMOUNT_SAT * 1000);

    // Loaded again while the channel is closing, LDK reports again that the payment was claimed
    // (`longhand-sim --scenario deadline-missed --seed 23 --at frame:168:late:grace --at store:46:fails:now`).
    bob.node.stop().await;
    let bob = Owner {
        node: world.start(&bob.name, &bob.phone).await,
        ..bob
    };
    settle().await;
    assert_eq!(payment(&bob).await.state(), State::Failed);

    bob.attach();
    world
        .mine_until("the rest is the owner's", async || {
            settle().await;
            let overview = bob.overview().await;
            overview.closing_sat == 0 && overview.onchain_pending_sat == 0
        })
        .await;
    let (after, least) = (bob.overview().await.onchain_sat, PUSHED_SAT - 10_000);
    assert!(after > before.onchain_sat + least, "{after}");
    assert_eq!(payment(&bob).await.failure, failure);
    let closed = &bob.channels().await.closed;
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].closing_txid.len(), 64);
}

/// Found by `longhand-sim --scenario fail --seed 122061 --at peer:6:silent:now --at ledger:4:late:20s`: the hub had sent an
/// HTLC to a node that was no longer there, and its phone was not called before the hub closed the channel for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_is_called_for_an_htlc_that_its_node_has_not_heard_of() {
    let world = World::new().await;
    let bob = world.owner("bob", 2).await;
    bob.attach();
    world.open(&world.hub, &bob.node, CHANNEL_SAT, 0).await;
    let bolt11 = bob.invoice(AMOUNT_SAT * 1000).await;
    settle().await;
    world.switchboard.valve.close_after(0);
    begin_to_pay(&world.hub, &bolt11);
    until("the hub has sent the HTLC", async || {
        let channels = ask(&world.hub, Kind::ListChannels(ListChannels {})).await;
        matches!(channels, Reply::Channels(channels) if channels.channels[0].pending_htlcs == 1)
    })
    .await;
    goes_away(&bob).await;
    until("the hub has seen it go", async || {
        usable(&world.hub).await == 0
    })
    .await;
    world.switchboard.valve.open();
    assert_eq!(bob.overview().await.earliest_deadline, None);

    let mut events = world.hub.events();
    world.mine(1).await;
    let deadline = event(&mut events, "bob is needed", |event| match event {
        NodeEvent::PeersNeeded(peers) => {
            let mut peers = peers.into_iter();
            let bob = peers.find(|peer| peer.node_id == bob.node.node_id());
            bob.map(|bob| bob.deadline_height)
        }
        _ => None,
    })
    .await;
    let height = world.devnet.tip().height;
    assert!(deadline > height + CALLED_BLOCKS, "{deadline} at {height}");
    world.mine(deadline - CALLED_BLOCKS - height).await;
    bob.attach();
    let invoice: Bolt11Invoice = bolt11.parse().unwrap();
    let paid = await_payment(&bob.node, &invoice.payment_hash().0).await;
    assert_eq!(paid.state(), State::Succeeded);
}

/// The outputs that the hub's transactions spend.
fn taken(hub: &RecordingChain) -> Vec<OutPoint> {
    let sent = hub.sent();
    let inputs = sent.iter().flat_map(|tx| &tx.input);
    inputs.map(|input| input.previous_output).collect()
}

/// LDK forgets a claim that waits for its timeout when the HTLC is spent, and begins it anew when it learns the preimage of
/// another in the same commitment (`longhand-sim --scenario force-close-by-hub --seed 118346 --at frame:300:after:day --at
/// ledger:21:fails:grace`, with the schedule of its day).
#[tokio::test(flavor = "multi_thread")]
async fn an_htlc_that_the_peer_has_claimed_is_not_claimed_again_with_the_preimage_of_another() {
    let mut world = World::new().await;
    world.hub.stop().await;
    let chain = RecordingChain::new(&world.follower);
    world.hub = world.start_hub_on(chain.clone()).await;
    let (ann, bob) = (world.owner("ann", 1).await, world.owner("bob", 2).await);
    let pushed_msat = PUSHED_SAT * 1000;
    let mut channels = Vec::new();
    for owner in [&ann, &bob] {
        owner.attach();
        let channel = world.open(&world.hub, &owner.node, CHANNEL_SAT, pushed_msat);
        channels.push(channel.await);
    }

    // One HTLC each way in Ann's channel: Bob's phone is away, and Ann's goes after it gave the preimage.
    let (to_ann, to_bob) = (ann.invoice(50_000_000).await, bob.invoice(60_000_000).await);
    goes_away(&bob).await;
    ann.phone.intend_pay(&to_bob);
    begin_to_pay(&ann.node, &to_bob);
    until("Ann's HTLC is in the channel", async || {
        ann.channels().await.channels[0].pending_htlcs == 1
    })
    .await;
    ann.phone.at_a_preimage(Box::new(Phone::leave));
    begin_to_pay(&world.hub, &to_ann);
    until("the preimage is here", async || has_preimage(&ann).await).await;
    goes_away(&ann).await;
    assert_eq!(ann.channels().await.channels[0].pending_htlcs, 2);

    // The hub closes by force, and Ann claims her HTLC from its commitment.
    world.hub_closes(channels.remove(0)).await;
    let in_mempool = async |what: &str| {
        until(what, async || !world.devnet.mempool().is_empty()).await;
        world.devnet.mempool()
    };
    world.mine(1).await;
    ann.attach();
    let claim = in_mempool("Ann claims hers").await;
    let hers = claim[0].input[0].previous_output;
    assert!(!taken(&chain).contains(&hers));
    world.mine_seen_by(&world.hub, 6).await;

    // The hub learns the preimage of the other HTLC, and claims that one.
    bob.attach();
    until("the hub claims the other", async || {
        world.devnet.mempool().iter().any(claims_an_htlc)
    })
    .await;
    world.mine(BLOCKS_OF_AN_HTLC).await;
    for _ in 0..3 {
        world.mine_seen_by(&world.hub, 1).await;
    }
    assert!(!taken(&chain).contains(&hers));
}

/// Found by `longhand-sim --scenario force-close-by-phone --seed 320393 --at frame:5:late:grace --at store:96:fails:grace`: LDK
/// pays a quarter more for a claim with each block near its expiry, and received 48 blocks at once. All but 1,490 sat
/// of the HTLC went to miners.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_does_not_cost_more_because_many_blocks_come_at_once() {
    let (world, bob, _) = world_with_an_htlc().await;
    let before = bob.overview().await;
    let expiry = before.earliest_deadline.unwrap() + 39;
    let channel_id = bob.channels().await.channels[0].channel_id.clone();
    world.hub_closes(channel_id).await;
    // The hub would settle the HTLC, or take it back.
    world.hub.stop().await;
    bob.attach();
    world.mine(expiry + 40 - world.devnet.tip().height).await;
    until("his node sweeps", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    all_is_the_owners(&world, &bob, before.onchain_sat).await;
    let (after, should) = (
        bob.overview().await.onchain_sat,
        before.onchain_sat + PUSHED_SAT + AMOUNT_SAT,
    );
    assert!(after + 5_000 > should, "{after} of {should}");
}

/// The pushed amount and the payment end in the owner's on-chain wallet, less fees.
async fn all_is_the_owners(world: &World, owner: &Owner, before_sat: u64) {
    world
        .mine_until("all of it is the owner's", async || {
            settle().await;
            let overview = owner.overview().await;
            overview.closing_sat == 0 && overview.onchain_pending_sat == 0
        })
        .await;
    let (after, least) = (
        owner.overview().await.onchain_sat,
        PUSHED_SAT + AMOUNT_SAT - 10_000,
    );
    assert!(after > before_sat + least, "{after}");
}
