//! Closing channels, and where the coins end.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use longhand_chain::FeeRates;
use longhand_node::{Node, Services};
use longhand_proto::Code;
use longhand_proto::command::CloseChannel;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::signer::signer_op::Op;
use longhand_store::MemoryStore;
use longhand_store::testing::FailingStore;
use longhand_testkit::nodes::{Owner, RecordingChain, World, ask, pay, settle, try_ask, usable};
use longhand_testkit::until;

/// The key prefix of the record of an agreed close, which a node writes in the turn that ends the negotiation.
const COOP_CLOSE: &str = "agreed/";

/// An owner with a channel that it opened from its own wallet, and has paid with.
async fn owner_with_own_channel(world: &World) -> (Owner, Vec<u8>) {
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world.fund(&alice.node, 1_000_000).await;
    let channel = world.owner_opens(&alice, &world.hub, 500_000).await;
    let invoice = world.hub.invoice(100_000_000, "bread", 3600).await.unwrap();
    assert_eq!(alice.pay(&invoice).await.state(), State::Succeeded);
    (alice, channel)
}

async fn mine_until_settled(world: &World, owner: &Owner) {
    world
        .mine_until("everything is back on chain", async || {
            settle().await;
            let overview = owner.overview().await;
            overview.channels == 0 && overview.closing_sat == 0 && overview.onchain_pending_sat == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cooperative_close_pays_each_side_its_balance() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    let before = alice.overview().await;
    alice.close(&channel, false).await;
    until("the close is negotiated", async || {
        alice.overview().await.channels == 0
    })
    .await;
    mine_until_settled(&world, &alice).await;
    let after = alice.overview().await.onchain_sat;
    let balance = before.onchain_sat + 400_000;
    assert!(
        after <= balance && after > balance - 500,
        "{after} of {balance}"
    );
}

/// Found by `longhand-sim --scenario close --seed 1 --at store:8:after`: it was counted in the wallet and as closing,
/// until the transaction was six blocks deep.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_agreed_close_pays_is_counted_once_at_every_depth() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    let before = alice.overview().await;
    alice.close(&channel, false).await;
    until("the agreed transaction is sent", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    let all = before.onchain_sat + 400_000;
    for depth in 1..=8 {
        world.mine_seen_by(&alice.node, 1).await;
        let now = alice.overview().await;
        let counted = now.onchain_sat + now.onchain_pending_sat + now.closing_sat;
        assert!(
            counted <= all && counted > all - 500,
            "{counted} of {all} at {depth}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_closes_a_channel_and_leaves_at_once_has_closed_it() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    alice.close(&channel, false).await;
    alice.node.detach().await;
    assert_eq!(alice.overview().await.channels, 0);
    mine_until_settled(&world, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_close_is_swept_to_the_owners_wallet() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    let before = alice.overview().await.onchain_sat + 400_000;
    alice.close(&channel, true).await;
    mine_until_settled(&world, &alice).await;
    let after = alice.overview().await.onchain_sat;
    assert!(
        after <= before && after > before - 10_000,
        "{after} of {before}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_close_that_the_owner_did_not_ask_for_waits_for_the_owner() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    // Else it would close too, when it receives the error.
    world.hub.stop().await;
    let close = CloseChannel {
        channel_id: channel.clone(),
        force: true,
        ..CloseChannel::default()
    };
    ask(&alice.node, Kind::CloseChannel(close)).await;
    until("the phone was asked", async || {
        let asked = |op: &Op| matches!(op, Op::SignHolderCommitment(_));
        alice.phone.was_asked(asked)
    })
    .await;
    settle().await;
    assert_eq!(world.devnet.mempool(), []);

    alice.close(&channel, true).await;
    until("the commitment is sent", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    mine_until_settled(&world, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_peer_closes_while_the_phone_is_away_the_balance_is_swept_when_it_is_back() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    let before = alice.overview().await.onchain_sat + 400_000;
    alice.node.signer_lost();
    until("the peers are gone", async || {
        alice.overview().await.peers == 0
    })
    .await;
    let close = CloseChannel {
        channel_id: channel,
        force: true,
        ..CloseChannel::default()
    };
    ask(&world.hub, Kind::CloseChannel(close)).await;
    world
        .mine_until("the close is seen", async || {
            settle().await;
            alice.overview().await.closing_sat > 0 && alice.overview().await.channels == 0
        })
        .await;
    world.mine(10).await;
    alice.attach();
    mine_until_settled(&world, &alice).await;
    let after = alice.overview().await.onchain_sat;
    assert!(
        after <= before && after > before - 10_000,
        "{after} of {before}"
    );
}

/// BOLT 3: a commitment has these upper bits in its sequence and its lock time; a cooperative close has not.
fn is_commitment(tx: &Transaction) -> bool {
    let sequence = tx.input[0].sequence.to_consensus_u32();
    sequence >> 24 == 0x80 && tx.lock_time.to_consensus_u32() >> 24 == 0x20
}

fn commitments_in_blocks_since(world: &World, height: u32) -> Vec<Transaction> {
    let blocks = (height..=world.devnet.tip().height)
        .map(|height| world.devnet.hash_at(height).unwrap())
        .map(|hash| world.devnet.block(&hash).unwrap());
    let txs = blocks.flat_map(|block| block.txdata);
    txs.filter(is_commitment).collect()
}

/// Repeats the command, as a phone does when its node answers that it could not store.
async fn close_in_the_end(node: &Node, channel: &[u8]) {
    let close = CloseChannel {
        channel_id: channel.to_vec(),
        force: false,
        ..CloseChannel::default()
    };
    while let Reply::Error(error) = try_ask(node, Kind::CloseChannel(close.clone())).await {
        let is_again = error.is_one_of(&[Code::StoreFailed, Code::NodeRestarted]);
        assert!(is_again, "{}: {}", error.code, error.message);
    }
}

#[derive(Clone, Copy)]
enum OpenedBy {
    Hub,
    Owner,
}

async fn open(world: &World, owner: &Owner, opened_by: OpenedBy) -> Vec<u8> {
    match opened_by {
        OpenedBy::Hub => {
            let half_msat = 50_000_000;
            world
                .open(&world.hub, &owner.node, 100_000, half_msat)
                .await
        }
        OpenedBy::Owner => world.owner_opens(owner, &world.hub, 100_000).await,
    }
}

async fn mine_until_both_have_nothing_left_to_close(world: &World, node: &Node) {
    world
        .mine_until("both have closed it", async || {
            settle().await;
            let (hub, node) = (world.hub.overview().await, node.overview().await);
            let (hub, node) = (hub.unwrap(), node.unwrap());
            hub.channels == 0 && node.channels == 0 && hub.closing_sat + node.closing_sat == 0
        })
        .await;
    world.mine(6).await;
}

/// A node dies after a write is durable, and before it acts on it: at every write of the hub and of the owner's node.
async fn every_write_of_an_agreed_close(opened_by: OpenedBy) {
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::default())));
    let world = World::on(store.clone()).await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world.fund(&alice.node, 1_000_000).await;
    for write in 1.. {
        let channel = open(&world, &alice, opened_by).await;
        let height = world.devnet.tip().height;
        let dies_at = store.commits() + write;
        store.lose_answer(dies_at);
        close_in_the_end(&alice.node, &channel).await;
        until("the agreed transaction is sent", async || {
            !world.devnet.mempool().is_empty()
        })
        .await;
        let has_died = store.commits() >= dies_at;
        until("the peer is back", async || {
            alice.overview().await.peers == 1
        })
        .await;
        settle().await;
        let sent = world.devnet.mempool();
        assert!(!sent.iter().any(is_commitment), "write {write}: {sent:?}");
        mine_until_both_have_nothing_left_to_close(&world, &alice.node).await;
        let commitments = commitments_in_blocks_since(&world, height);
        assert_eq!(commitments, [], "write {write}");
        if !has_died {
            assert!(write > 4, "a close has more writes than {write}");
            return;
        }
    }
}

/// `longhand-sim --scenario close --seed 1 --at store:5:after`, and `store:5:unheard`.
#[tokio::test(flavor = "multi_thread")]
async fn an_agreed_close_is_sent_though_a_node_dies_at_any_write_and_nobody_closes_by_force() {
    every_write_of_an_agreed_close(OpenedBy::Owner).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_of_a_channel_that_the_hub_opened_is_sent_though_a_node_dies_at_any_write() {
    every_write_of_an_agreed_close(OpenedBy::Hub).await;
}

/// The hub is the first to have both signatures. It dies then, and the transaction that it broadcasts is lost, as is its
/// last message of the close.
#[tokio::test(flavor = "multi_thread")]
async fn when_a_peer_closes_by_force_after_an_agreed_close_the_balance_is_swept() {
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::default())));
    let mut world = World::on(store.clone()).await;
    let own_store = Services {
        store: Arc::new(MemoryStore::default()),
        ..world.services()
    };
    let shop = world.shop(own_store).await;
    world.fund(&shop, 1_000_000).await;
    let channel_id = world.open(&shop, &world.hub, 100_000, 0).await;
    let invoice = world.hub.invoice(50_000_000, "bread", 3600).await.unwrap();
    assert_eq!(pay(&shop, &invoice).await.state(), State::Succeeded);
    let onchain = async |node: &Node| node.overview().await.unwrap().onchain_sat;
    let expected = onchain(&world.hub).await + 50_000;
    world.hub.stop().await;
    world.hub = world
        .start_hub_on(RecordingChain::cut_off(&world.follower))
        .await;
    until("the channel is usable again", async || {
        usable(&world.hub).await == 1 && usable(&shop).await == 1
    })
    .await;

    store.lose_answer_of_put(COOP_CLOSE);
    close_in_the_end(&shop, &channel_id).await;
    until("the hub has died, and is done with it", async || {
        store.has_lost_put()
            && world
                .hub
                .overview()
                .await
                .is_some_and(|now| now.channels == 0)
    })
    .await;
    let close = CloseChannel {
        channel_id,
        force: true,
        ..CloseChannel::default()
    };
    ask(&shop, Kind::CloseChannel(close)).await;
    until("the shop's transaction is in the mempool", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    assert!(world.devnet.mempool().iter().any(is_commitment));
    world.mine(1).await;
    settle().await;
    world.hub.stop().await;
    world.hub = world.start_hub().await;
    mine_until_both_have_nothing_left_to_close(&world, &shop).await;
    let swept = onchain(&world.hub).await;
    assert!(
        swept <= expected && swept > expected - 1_000,
        "{swept} of {expected}"
    );
}

/// LDK stores a monitor up to fifty blocks after a block that changed it, and closes by force when it loads the
/// monitor of a channel that is gone and whose close the monitor has not seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_loaded_long_after_an_agreed_close_sends_no_commitment() {
    let world = World::new().await;
    let shop = world.shop(world.services()).await;
    world.fund(&shop, 1_000_000).await;
    let channel = world.open(&shop, &world.hub, 100_000, 0).await;
    close_in_the_end(&shop, &channel).await;
    mine_until_both_have_nothing_left_to_close(&world, &shop).await;
    shop.stop().await;

    let chain = RecordingChain::cut_off(&world.follower);
    let services = Services {
        chain: chain.clone(),
        ..world.services()
    };
    let shop = world.shop(services).await;
    world.mine(1).await;
    settle().await;
    assert_eq!(shop.overview().await.unwrap().closing_sat, 0);
    let commitments: Vec<_> = chain.sent().into_iter().filter(is_commitment).collect();
    assert_eq!(commitments, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_is_asked_for_again_is_answered_as_what_it_is() {
    let world = World::new().await;
    let bob = world.owner("bob", 2).await;
    bob.attach();
    let id = world.open(&world.hub, &bob.node, 1_000_000, 0).await;
    let close = || {
        Kind::CloseChannel(CloseChannel {
            channel_id: id.clone(),
            force: false,
            ..CloseChannel::default()
        })
    };
    ask(&bob.node, close()).await;
    // While it is negotiated, when it is done, and after a restart.
    ask(&bob.node, close()).await;
    until("it is closed", async || bob.overview().await.channels == 0).await;
    let txid = bob.channels().await.closed[0].closing_txid.clone();
    assert_eq!(txid.len(), 64);
    for restarted in [false, true] {
        let node = match restarted {
            true => {
                bob.node.stop().await;
                world.start(&bob.name, &bob.phone).await
            }
            false => bob.node.clone(),
        };
        node.attach(bob.phone.clone());
        let Reply::ClosingChannel(closing) = ask(&node, close()).await else {
            panic!("not closing")
        };
        assert_eq!(closing.txid, txid);
    }
}

/// BIP 44: a restored wallet looks at this many unused addresses in a row.
const GAP: usize = 20;

/// The hub closes a channel of this node by force, of which 400,000 sat are the node's.
async fn hub_closes(world: &World, node: &Node) {
    let channel_id = world.open(&world.hub, node, 1_000_000, 400_000_000).await;
    world.hub_closes(channel_id).await;
}

/// A sweep has the height at which it was made as lock time; no other transaction of a close has a height there.
fn is_sweep(tx: &Transaction) -> bool {
    tx.lock_time.is_block_height() && tx.lock_time != LockTime::ZERO
}

fn sweep_of(sent: Vec<Transaction>, height: u32) -> Option<Transaction> {
    let is_it = |tx: &Transaction| tx.lock_time.to_consensus_u32() == height;
    sent.into_iter().find(is_it)
}

async fn mine_until_swept(world: &World, chain: &RecordingChain) {
    world
        .mine_until("it is swept", async || {
            settle().await;
            chain.sent().iter().any(is_sweep)
        })
        .await;
}

/// The sweep that a node makes with the next block.
async fn swept_anew(world: &World, node: &Node, chain: &RecordingChain) -> Transaction {
    world.mine_seen_by(node, 1).await;
    let height = world.devnet.tip().height;
    until("it is swept anew", async || {
        sweep_of(chain.sent(), height).is_some()
    })
    .await;
    sweep_of(chain.sent(), height).unwrap()
}

/// The scripts of a node's sweeps, when none is mined for more blocks than there are addresses in a gap.
async fn swept_to(world: &World, node: &Node, chain: &RecordingChain) -> HashSet<ScriptBuf> {
    hub_closes(world, node).await;
    mine_until_swept(world, chain).await;
    let mut scripts = HashSet::new();
    for _ in 0..=GAP {
        let outputs = swept_anew(world, node, chain).await.output;
        scripts.extend(outputs.into_iter().map(|output| output.script_pubkey));
    }
    scripts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_no_block_takes_for_long_ends_where_the_words_find_it() {
    let world = World::new().await;
    let chain = RecordingChain::cut_off(&world.follower);
    let alice = world.owner_on(chain.clone(), "alice", 1).await;
    alice.attach();
    assert_eq!(swept_to(&world, &alice.node, &chain).await.len(), 1);

    chain.mend();
    mine_until_settled(&world, &alice).await;
    let swept_sat = alice.overview().await.onchain_sat;
    assert!(swept_sat > 390_000, "{swept_sat}");
    assert_eq!(alice.found_sat(&world.devnet), swept_sat);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_of_a_node_with_local_keys_that_no_block_takes_for_long_keeps_its_address() {
    let world = World::new().await;
    let chain = RecordingChain::cut_off(&world.follower);
    let services = Services {
        chain: chain.clone(),
        ..world.services()
    };
    let shop = world.shop(services).await;
    assert_eq!(swept_to(&world, &shop, &chain).await.len(), 1);
}

/// The second sweep replaces the first, which is in no block yet, and spends more outputs. Then a block has the first.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_sweep_in_whose_place_a_block_took_an_earlier_one_is_still_being_closed()
{
    let world = World::new().await;
    let chain = RecordingChain::cut_off(&world.follower);
    let alice = world.owner_on(chain.clone(), "alice", 1).await;
    alice.attach();
    let open = || world.open(&world.hub, &alice.node, 1_000_000, 400_000_000);
    let (first, second) = (open().await, open().await);
    world.hub_closes(first).await;
    mine_until_swept(&world, &chain).await;
    let of_first = chain.sent().into_iter().find(is_sweep).unwrap();
    world.hub_closes(second).await;
    while swept_anew(&world, &alice.node, &chain).await.input.len() == 1 {}
    alice.phone.leave();
    alice.node.signer_lost();
    assert_eq!(alice.overview().await.closing_sat, 0);

    world.devnet.submit(&of_first).unwrap();
    world.mine_seen_by(&alice.node, 1).await;
    let overview = alice.overview().await;
    assert_eq!(overview.onchain_pending_sat, 0);
    assert!(overview.onchain_sat > 390_000, "{}", overview.onchain_sat);
    assert!(overview.closing_sat > 390_000, "{}", overview.closing_sat);
}

/// A transaction that pays for a commitment: it spends its anchor and a coin.
fn pays_for_a_commitment(tx: &Transaction, commitments: &HashSet<Txid>) -> bool {
    let mut inputs = tx.input.iter().map(|input| input.previous_output.txid);
    inputs.any(|txid| commitments.contains(&txid))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_closes_that_share_a_coin_take_one_change_address_each_however_long_they_wait() {
    let world = World::new().await;
    let shop = world.shop(world.services()).await;
    world.fund(&shop, 1_000_000).await;
    let mut channels = Vec::new();
    for _ in 0..2 {
        channels.push(world.open(&shop, &world.hub, 100_000, 0).await);
    }
    shop.stop().await;
    world.hub.stop().await;
    let chain = RecordingChain::cut_off(&world.follower);
    let services = Services {
        chain: chain.clone(),
        ..world.services()
    };
    let shop = world.shop(services).await;
    // More than a commitment pays by itself.
    let urgent = 2_000;
    world.devnet.set_fee_rates(FeeRates {
        urgent,
        ..FeeRates::FLOOR
    });
    world.mine_seen_by(&shop, 1).await;

    for channel_id in channels {
        let force = true;
        ask(
            &shop,
            Kind::CloseChannel(CloseChannel {
                channel_id,
                force,
                ..CloseChannel::default()
            }),
        )
        .await;
    }
    for _ in 0..3 * GAP {
        world.mine_seen_by(&shop, 1).await;
    }

    let sent = chain.sent();
    let commitments = sent.iter().filter(|tx| is_commitment(tx));
    let commitments: HashSet<Txid> = commitments.map(Transaction::compute_txid).collect();
    assert_eq!(commitments.len(), 2);
    let paying: Vec<&Transaction> = sent
        .iter()
        .filter(|tx| pays_for_a_commitment(tx, &commitments))
        .collect();
    let coins: HashSet<OutPoint> = paying
        .iter()
        .map(|tx| tx.input[1].previous_output)
        .collect();
    assert_eq!(coins.len(), 1, "they share it");
    let txids: HashSet<Txid> = paying.iter().map(|tx| tx.compute_txid()).collect();
    assert!(txids.len() > 2, "they are made anew");
    let change: HashSet<&ScriptBuf> = paying
        .iter()
        .map(|tx| &tx.output[0].script_pubkey)
        .collect();
    assert!(change.len() <= 2, "{change:?}");
}
fn sweeps_asked(owner: &Owner) -> usize {
    let batches = owner.phone.batches.lock().unwrap();
    let ops = batches.iter().flat_map(|batch| &batch.ops);
    ops.filter(|op| matches!(op.op, Some(Op::SpendOutputs(_))))
        .count()
}

/// LDK stores its state of sweeps when it sweeps, which needs the phone.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_a_block_takes_while_the_phone_is_away_is_swept_no_more_after_a_restart() {
    let world = World::new().await;
    let chain = RecordingChain::cut_off(&world.follower);
    let alice = world.owner_on(chain.clone(), "alice", 1).await;
    alice.attach();
    hub_closes(&world, &alice.node).await;
    mine_until_swept(&world, &chain).await;
    alice.phone.leave();
    alice.node.signer_lost();
    let sent = chain.sent();
    let sweep = sent.iter().rfind(|tx| is_sweep(tx)).unwrap();
    world.devnet.submit(sweep).unwrap();
    world.mine_seen_by(&alice.node, 3).await;
    assert!(world.devnet.confirmed_at(&sweep.compute_txid()).is_some());
    let asked = sweeps_asked(&alice);
    alice.node.stop().await;

    let node = world.start(&alice.name, &alice.phone).await;
    let alice = Owner { node, ..alice };
    alice.attach();
    for _ in 0..3 {
        world.mine_seen_by(&alice.node, 1).await;
    }
    assert_eq!(sweeps_asked(&alice), asked);
}
