//! Channels that are opened at once, and openings that fail.

use std::sync::Arc;

use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{NewAddress, OpenChannel, SendOnchain};
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_op::Op;
use longhand_store::testing::FailingStore;
use longhand_store::{MemoryStore, StoreError};
use longhand_testkit::nodes::{Owner, World, ask, ask_in_the_end, settle, try_ask, usable};
use longhand_testkit::phone::{Loss, Phone};
use longhand_testkit::until;

/// More writes, and more batches, than an opening has.
const STEPS: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn more_channels_at_once_than_there_are_keys_for_are_all_accepted() {
    let world = World::new().await;
    for _ in 0..4 {
        world.fund(&world.hub, 500_000).await;
    }
    let alice = world.owner("alice", 1).await;
    alice.attach();
    until("alice is connected", async || {
        alice.overview().await.peers == 1
    })
    .await;

    let opening: Vec<_> = (0..4)
        .map(|number| {
            let open = OpenChannel {
                id: vec![100 + number; 16],
                counterparty_node_id: alice.node.node_id().serialize().to_vec(),
                amount_sat: 300_000,
                ..OpenChannel::default()
            };
            let hub = world.hub.clone();
            tokio::spawn(async move { ask(&hub, Kind::OpenChannel(open)).await })
        })
        .collect();

    for opened in opening {
        assert!(matches!(opened.await.unwrap(), Reply::OpenedChannel(_)));
    }
    assert_eq!(alice.overview().await.channels, 4);
}

/// Opens, and repeats the command with the same id, as a phone does when its node could not store. True when there is
/// a channel.
async fn open_in_the_end(world: &World, alice: &Owner, id: u8) -> bool {
    loop {
        until("alice is connected", async || {
            alice.overview().await.peers == 1
        })
        .await;
        let open = OpenChannel {
            id: vec![id; 16],
            counterparty_node_id: world.hub.node_id().serialize().to_vec(),
            amount_sat: 50_000,
            ..OpenChannel::default()
        };
        alice.phone.intend_open(&open, world.hub.node_id());
        match try_ask(&alice.node, Kind::OpenChannel(open)).await {
            Reply::OpenedChannel(_) => return true,
            Reply::Error(error)
                if error.is_one_of(&[Code::DiskFull, Code::StoreFailed, Code::SignerAway]) => {}
            Reply::Error(error) => {
                let ended = [Code::Interrupted, Code::ChannelClosed, Code::ChannelRefused];
                assert!(error.is_one_of(&ended), "{error:?}");
                return false;
            }
            reply => panic!("{reply:?}"),
        }
    }
}

async fn every_write_of_an_opening(refused: bool) {
    let world = World::new().await;
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::default())));
    let phone = Phone::new(1);
    let node = world.start_on(store.clone(), "alice", &phone).await;
    let name = "alice".into();
    let alice = Owner { name, phone, node };
    alice.attach();
    every_step(&world, &alice, |write| {
        let at = store.commits() + write;
        match refused {
            true => store.refuse(at, StoreError::Full),
            false => store.lose_answer(at),
        }
    })
    .await;
}

async fn every_batch_of_an_opening(loss: Loss) {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    let _coming_back = alice.keep_coming_back();
    every_step(&world, &alice, |batch| alice.phone.lose(batch, loss)).await;
}

/// Opens again and again, each time with a fault that comes one step later.
async fn every_step(world: &World, alice: &Owner, arm: impl Fn(u64)) {
    world.fund(&alice.node, 2_000_000).await;
    let mut channels = 0;
    for step in 1..=STEPS {
        arm(step);
        channels += u32::from(open_in_the_end(world, alice, step as u8).await);
        world
            .mine_until("the change is confirmed", async || {
                settle().await;
                let overview = alice.overview().await;
                overview.onchain_sat > 0 && overview.onchain_pending_sat == 0
            })
            .await;
    }
    world
        .mine_until("the channels are usable", async || {
            settle().await;
            usable(&alice.node).await == channels
        })
        .await;
    assert_eq!(alice.overview().await.channels, channels);

    // No coin is left reserved for an opening that failed.
    all_coins_are_free(world, alice, 10_000).await;
}

/// All can be sent but for the reserve, which a node with channels keeps.
async fn all_coins_are_free(world: &World, alice: &Owner, reserve_sat: u64) {
    let Reply::Address(to) = ask(&world.hub, Kind::NewAddress(NewAddress {})).await else {
        panic!("no address")
    };
    let send = SendOnchain {
        id: vec![1],
        address: to.address,
        all: true,
        ..SendOnchain::default()
    };
    alice.phone.intend_send(&send);
    ask_in_the_end(&alice.node, Kind::SendOnchain(send)).await;
    world
        .mine_until("only the reserve is left", async || {
            settle().await;
            alice.overview().await.onchain_sat == reserve_sat
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_any_write_of_an_opening_leaves_a_channel_or_the_coins() {
    every_write_of_an_opening(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_at_any_point_of_an_opening_leaves_a_channel_or_the_coins() {
    every_write_of_an_opening(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_lost_before_any_batch_of_an_opening_leaves_a_channel_or_the_coins() {
    every_batch_of_an_opening(Loss::BeforeItIsRead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_dies_after_any_ledger_write_of_an_opening_leaves_a_channel_or_the_coins() {
    every_batch_of_an_opening(Loss::AfterItIsKept).await;
}

fn is_for_the_funding(op: &Op) -> bool {
    matches!(op, Op::SignPsbt(psbt) if psbt.purpose() == Purpose::Funding)
}

/// Alice's phone goes away when it is to sign the funding of her channel, and comes back `blocks` blocks later.
async fn a_funding_that_is_signed_after(blocks: u32) -> (World, Owner, Reply) {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world.fund(&alice.node, 2_000_000).await;
    until("alice is connected", async || {
        alice.overview().await.peers == 1
    })
    .await;
    let open = OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: world.hub.node_id().serialize().to_vec(),
        amount_sat: 500_000,
        ..OpenChannel::default()
    };
    alice.phone.intend_open(&open, world.hub.node_id());
    let open = Kind::OpenChannel(open);
    alice.phone.leave_before(is_for_the_funding);
    let (node, first) = (alice.node.clone(), open.clone());
    tokio::spawn(async move { try_ask(&node, first).await });
    until("the phone is to sign", async || alice.phone.is_away()).await;
    alice.node.signer_lost();
    world.mine_seen_by(&alice.node, blocks).await;
    alice.attach();
    let reply = try_ask(&alice.node, open).await;
    (world, alice, reply)
}

/// The peer forgets a channel whose funding it has not seen for 2,016 blocks: a funding that is mined later would be
/// in a channel that only its owner has.
#[tokio::test(flavor = "multi_thread")]
async fn a_funding_for_which_the_phone_comes_after_a_week_is_not_signed_and_its_coins_are_free() {
    let (world, alice, reply) = a_funding_that_is_signed_after(1_009).await;
    let Reply::Error(error) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(error.code, Code::Expired, "{error:?}");
    assert!(!alice.phone.was_asked(is_for_the_funding));
    until("neither has the channel", async || {
        alice.overview().await.channels == 0 && world.hub.overview().await.unwrap().channels == 0
    })
    .await;
    assert_eq!(alice.overview().await.closing_sat, 0);
    all_coins_are_free(&world, &alice, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_funding_for_which_the_phone_comes_within_a_week_is_signed() {
    let (world, alice, reply) = a_funding_that_is_signed_after(1_000).await;
    assert!(matches!(reply, Reply::OpenedChannel(_)), "{reply:?}");
    world
        .mine_until("the channel is usable", async || {
            settle().await;
            usable(&alice.node).await == 1
        })
        .await;
}
