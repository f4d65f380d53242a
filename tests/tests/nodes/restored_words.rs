//! Words whose coins are in the chain already, at a host that has never seen them.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::{Address, Amount};
use longhand_node::{Node, Registration, Services};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Balance, GetBalance, NewAddress};
use longhand_store::MemoryStore;
use longhand_testkit::nodes::{World, ask};
use longhand_testkit::until;

const COINS_SAT: u64 = 499_844;
const PHONE: u8 = 2;

async fn balance(node: &Node) -> Balance {
    match ask(node, Kind::GetBalance(GetBalance {})).await {
        Reply::Balance(balance) => balance,
        other => panic!("no balance: {other:?}"),
    }
}

async fn address(node: &Node) -> Address {
    let Reply::Address(address) = ask(node, Kind::NewAddress(NewAddress {})).await else {
        panic!("no address")
    };
    Address::from_str(&address.address)
        .unwrap()
        .assume_checked()
}

/// A world in which the owner's first node got coins, and is gone. With the height of the coins' block.
async fn world_with_coins() -> (World, u32) {
    let world = World::new().await;
    let bob = world.owner("bob", PHONE).await;
    let to = address(&bob.node).await;
    world
        .devnet
        .faucet(&to, Amount::from_sat(COINS_SAT))
        .unwrap();
    world.mine(1).await;
    let height = world.devnet.tip().height;
    world.mine(10).await;
    bob.node.stop().await;
    (world, height)
}

/// The node of the owner's words at another host, with this birthday.
async fn restored(world: &World, birthday: impl FnOnce(&mut Registration)) -> Node {
    let mut registration = longhand_testkit::phone::registration(PHONE);
    birthday(&mut registration);
    let services = Services {
        store: Arc::new(MemoryStore::default()),
        ..world.services()
    };
    world.start_registered(services, "bob", registration).await
}

async fn is_back(node: &Node) -> bool {
    let balance = balance(node).await;
    balance.scan_target_height > 0 && balance.scanned_height == balance.scan_target_height
}

#[tokio::test(flavor = "multi_thread")]
async fn words_at_another_host_have_their_coins_back() {
    let (world, _) = world_with_coins().await;
    let node = restored(&world, |registration| registration.birthday_height = 1).await;
    until("the search is complete", async || is_back(&node).await).await;
    assert_eq!(balance(&node).await.onchain_confirmed_sat, COINS_SAT);

    // The next address is one that was never paid.
    let paid = balance(&node).await.onchain_confirmed_sat;
    world.fund(&node, 10_000).await;
    let all = balance(&node).await;
    assert_eq!(all.onchain_confirmed_sat, paid + 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_birthday_leaves_the_blocks_before_it_out() {
    let (world, height) = world_with_coins().await;
    let node = restored(&world, |it| it.birthday_height = height).await;
    until("the search is complete", async || is_back(&node).await).await;
    assert_eq!(balance(&node).await.onchain_confirmed_sat, COINS_SAT);
    node.stop().await;

    let too_late = restored(&world, |it| it.birthday_height = height + 1).await;
    until("the search is complete", async || is_back(&too_late).await).await;
    assert_eq!(balance(&too_late).await.onchain_confirmed_sat, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_is_a_birthday() {
    let (world, _) = world_with_coins().await;
    let today = longhand_testkit::clock::unix_s() / 86_400 * 86_400;
    let node = restored(&world, |it| it.birthday_unix_s = today).await;
    until("the search is complete", async || is_back(&node).await).await;
    assert_eq!(balance(&node).await.onchain_confirmed_sat, COINS_SAT);
}

/// A block that the source has while the search goes on belongs to it too.
#[tokio::test(flavor = "multi_thread")]
async fn coins_that_come_during_the_search_are_found() {
    let (world, _) = world_with_coins().await;
    let node = restored(&world, |registration| registration.birthday_height = 1).await;
    let to = address(&node).await;
    world.devnet.faucet(&to, Amount::from_sat(20_000)).unwrap();
    world.mine(1).await;
    until("the search is complete", async || is_back(&node).await).await;
    until("all coins are there", async || {
        balance(&node).await.onchain_confirmed_sat == COINS_SAT + 20_000
    })
    .await;
}
