//! The search for the coins of restored words, in a chain that had them before the node was there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, transaction};
use longhand_chain::BLOCKS_PER_SCAN;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{GetBalance, GetInfo, NewAddress, SendOnchain};
use longhand_signer::{Seed, Signer};

use super::*;
use crate::machine::input::Input;
use crate::machine::testing::{Id, START_UNIX_S, World};
use crate::wallet::new_wallet_of;

const SEED: u8 = 5;

fn signer() -> Signer {
    let seed = Seed::from_entropy(&[SEED; 16]).unwrap();
    Signer::new(&seed, Network::Regtest, &[SEED; 32]).unwrap()
}

/// The script of the owner's wallet with this index, for payments of others.
fn script(index: u32) -> ScriptBuf {
    let registration = signer().register(0);
    let (external, internal) = (
        registration.external_descriptor,
        registration.internal_descriptor,
    );
    let mut wallet = new_wallet_of([external, internal]);
    loop {
        let (address, _, at) = wallet.new_address();
        if at == index {
            return address.script_pubkey();
        }
        // The gap limit counts from the last one that was paid.
        wallet.insert_package(vec![payment(at, &address.script_pubkey(), 1_000)], 1);
    }
}

/// A payment from somebody; `salt` makes it one of a kind.
fn payment(salt: u32, script: &ScriptBuf, amount_sat: u64) -> Transaction {
    let mut txid = [0xee; 32];
    txid[..4].copy_from_slice(&salt.to_be_bytes());
    spend(
        OutPoint::new(Txid::from_byte_array(txid), 0),
        script,
        amount_sat,
    )
}

fn spend(previous_output: OutPoint, script: &ScriptBuf, amount_sat: u64) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output,
            ..TxIn::default()
        }],
        output: vec![TxOut {
            value: Amount::from_sat(amount_sat),
            script_pubkey: script.clone(),
        }],
    }
}

/// Mines these transactions in one block.
fn mine(world: &mut World, txs: &[Transaction]) {
    world.mempool.extend_from_slice(txs);
    world.mine(1);
}

/// The node of the owner's words, restored.
fn restore(world: &mut World, birthday: impl FnOnce(&mut Registration)) -> Id {
    let signer = signer();
    let mut registration = signer.register(0);
    birthday(&mut registration);
    world.add_registered(signer, registration, None)
}

/// The same, from the first block on, and at the chain's tip.
fn restore_at_tip(world: &mut World) -> Id {
    let owner = restore(world, |registration| registration.birthday_height = 1);
    synced(world, owner);
    owner
}

/// The stream has come to the tip.
fn synced(world: &mut World, owner: Id) {
    let tip = world.tip();
    let synced = longhand_chain::ChainEvent::Synced { tip };
    world.input(owner, Input::Chain(synced));
}

fn balance(world: &mut World, owner: Id) -> Balance {
    match world.ask(owner, Kind::GetBalance(GetBalance {})) {
        Ok(Reply::Balance(balance)) => balance,
        other => panic!("no balance: {other:?}"),
    }
}

fn info(world: &mut World, owner: Id) -> Info {
    match world.ask(owner, Kind::GetInfo(GetInfo {})) {
        Ok(Reply::Info(info)) => info,
        other => panic!("no info: {other:?}"),
    }
}

fn is_complete(world: &mut World, owner: Id) -> bool {
    let info = info(world, owner);
    info.scanned_height == info.scan_target_height
}

#[test]
fn coins_from_before_the_node_are_found() {
    let mut world = World::new();
    world.mine(3);
    mine(&mut world, &[payment(1, &script(0), 499_844)]);
    world.mine(2);
    let owner = restore_at_tip(&mut world);
    let balance = balance(&mut world, owner);
    assert_eq!(balance.onchain_confirmed_sat, 499_844);
    assert_eq!((balance.scanned_height, balance.scan_target_height), (6, 6));
    let info = info(&mut world, owner);
    assert_eq!((info.scan_from_height, info.scanned_height), (1, 6));
}

#[test]
fn a_new_wallet_searches_nothing() {
    let mut world = World::new();
    mine(&mut world, &[payment(1, &script(0), 499_844)]);
    let owner = restore(&mut world, |_| {});
    synced(&mut world, owner);
    assert_eq!(balance(&mut world, owner), Balance::default());
    assert!(world.scans.from.is_empty());
}

#[test]
fn a_coin_that_was_spent_is_none() {
    let mut world = World::new();
    let paid = payment(1, &script(0), 50_000);
    let foreign = ScriptBuf::new_op_return([]);
    let spent = spend(OutPoint::new(paid.compute_txid(), 0), &foreign, 49_000);
    mine(&mut world, &[paid]);
    world.mine(1);
    mine(&mut world, &[spent]);
    let owner = restore_at_tip(&mut world);
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 0);
    assert!(is_complete(&mut world, owner));
}

#[test]
fn coins_far_beyond_the_first_look_ahead_are_found_in_one_block_and_in_later_ones() {
    let mut world = World::new();
    mine(
        &mut world,
        &[
            // Before the payment that lets the wallet derive its script.
            payment(1, &script(35), 1_000),
            payment(2, &script(19), 20_000),
        ],
    );
    mine(&mut world, &[payment(3, &script(50), 300_000)]);
    let owner = restore_at_tip(&mut world);
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 321_000);
}

#[test]
fn the_search_goes_on_where_it_was_after_a_restart() {
    let mut world = World::new();
    mine(&mut world, &[payment(1, &script(0), 7_000)]);
    world.mine(2 * BLOCKS_PER_SCAN);
    mine(&mut world, &[payment(2, &script(1), 50_000)]);
    let owner = restore(&mut world, |registration| registration.birthday_height = 1);
    world.scans.is_held = true;
    synced(&mut world, owner);
    for _ in 0..3 {
        let answer = world.scans.held.take().expect("a request");
        world.input(owner, Input::Scanned(Box::new(answer)));
    }
    world.pass(std::time::Duration::from_secs(1));
    let reached = *world.scans.from.last().unwrap();
    assert!(reached > BLOCKS_PER_SCAN, "{reached}");
    assert!(!is_complete(&mut world, owner));

    world.scans = Default::default();
    world.reload(owner);
    assert_eq!(world.scans.from.first(), Some(&reached));
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 57_000);
    assert!(is_complete(&mut world, owner));

    world.scans = Default::default();
    world.reload(owner);
    assert!(
        world.scans.from.is_empty(),
        "a complete search is not repeated"
    );
}

#[test]
fn a_pruned_block_is_named_and_the_search_goes_on_when_the_source_has_it() {
    let mut world = World::new();
    world.mine(4);
    mine(&mut world, &[payment(1, &script(0), 60_000)]);
    world.scans.pruned_below = 3;
    let owner = restore_at_tip(&mut world);
    let problem = info(&mut world, owner).scan_problem;
    assert!(problem.starts_with("BLOCK_PRUNED: "), "{problem}");
    assert!(problem.contains("block 1:"), "{problem}");
    assert_eq!(balance(&mut world, owner).scan_problem, problem);
    assert!(!is_complete(&mut world, owner));
    // The node works meanwhile.
    let address = world.ask(owner, Kind::NewAddress(NewAddress {}));
    assert!(matches!(address, Ok(Reply::Address(_))), "{address:?}");

    world.scans.pruned_below = 0;
    world.pass(BLOCK_PAUSE);
    assert_eq!(info(&mut world, owner).scan_problem, "");
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 60_000);
    assert!(is_complete(&mut world, owner));
}

#[test]
fn an_answer_from_before_a_reorganisation_is_not_used() {
    let mut world = World::new();
    world.mine(4);
    mine(&mut world, &[payment(1, &script(0), 60_000)]);
    world.scans.is_held = true;
    let owner = restore_at_tip(&mut world);
    let stale = world.scans.held.take().expect("a request");

    world.disconnect(1);
    world.mempool.clear();
    mine(&mut world, &[payment(2, &script(1), 5_000)]);
    world.scans.is_held = false;
    world.input(owner, Input::Scanned(Box::new(stale)));
    world.pass(REORG_PAUSE);
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 5_000);
    assert!(is_complete(&mut world, owner));
}

#[test]
fn blocks_that_replace_searched_ones_are_searched_again() {
    let mut world = World::new();
    world.mine(4);
    mine(&mut world, &[payment(1, &script(0), 60_000)]);
    world.scans.is_held = true;
    let owner = restore_at_tip(&mut world);
    let found = world.scans.held.take().expect("a request");
    world.input(owner, Input::Scanned(Box::new(found)));
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 60_000);

    world.disconnect(2);
    world.mempool.clear();
    world.scans = Default::default();
    world.mine(3);
    world.input(owner, Input::TimerExpired);
    let asked = &world.scans.from;
    assert!(
        asked.is_empty(),
        "the other chain's request is not answered: {asked:?}"
    );
    let answer = Ok(ScanReply::OtherTip);
    world.input(owner, Input::Scanned(Box::new(answer)));
    world.pass(REORG_PAUSE);
    assert_eq!(world.scans.from.first(), Some(&4));
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 0);
    assert!(is_complete(&mut world, owner));
}

/// The follower may have matched that block before it got the last script to watch.
#[test]
fn the_search_is_not_complete_before_a_block_that_the_source_has_already() {
    let mut world = World::new();
    world.mine(3);
    world.scans.is_held = true;
    let owner = restore_at_tip(&mut world);
    world.scans.is_held = false;
    let tip = world.tip();
    let searched = Searched {
        reached: Some(tip),
        found: None,
        source_height: tip.height + 1,
    };
    let answer = Ok(ScanReply::Searched(searched));
    world.input(owner, Input::Scanned(Box::new(answer)));
    let info = info(&mut world, owner);
    assert_eq!((info.scanned_height, info.scan_target_height), (3, 4));

    world.scans = Default::default();
    world.mine(1);
    assert_eq!(world.scans.from, [4]);
    assert!(is_complete(&mut world, owner));
}

/// A node that was restored before there was a search: its wallet has only the coins that its stream has brought.
#[test]
fn a_node_from_before_the_search_existed_begins_it_and_holds_no_coin_of_its_stream() {
    let mut world = World::new();
    mine(&mut world, &[payment(1, &script(0), 60_000)]);
    world.scans.is_held = true;
    let owner = restore_at_tip(&mut world);
    mine(&mut world, &[payment(2, &script(1), 50_000)]);
    world.pass(std::time::Duration::from_secs(1));
    world.nodes[owner].store.remove(key::WALLET_SCAN).unwrap();
    world.scans = Default::default();
    world.scans.is_held = true;
    world.reload(owner);
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 50_000);
    assert_eq!(world.turn(owner).wallet().confirmed_utxos().len(), 1);

    let found = world.scans.held.take().expect("a request");
    world.input(owner, Input::Scanned(Box::new(found)));
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 110_000);
    assert_eq!(world.turn(owner).wallet().confirmed_utxos().len(), 1);
}

#[test]
fn a_date_becomes_a_height_with_a_margin() {
    let mut world = World::new();
    world.mine(2);
    mine(&mut world, &[payment(1, &script(0), 60_000)]);
    let owner = restore(&mut world, |registration| {
        registration.birthday_unix_s = START_UNIX_S;
    });
    assert_eq!(info(&mut world, owner).scanned_height, 0);
    synced(&mut world, owner);
    assert_eq!(info(&mut world, owner).scan_from_height, 1);
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 60_000);

    let later = restore(&mut world, |registration| {
        registration.birthday_unix_s = START_UNIX_S + 2 * 86_400;
    });
    synced(&mut world, later);
    assert_eq!(info(&mut world, later).scan_from_height, 4);
    assert_eq!(balance(&mut world, later).onchain_confirmed_sat, 0);
    assert!(is_complete(&mut world, later));
}

#[test]
fn coins_are_not_spent_before_the_search_is_complete() {
    let mut world = World::new();
    mine(&mut world, &[payment(1, &script(0), 60_000)]);
    world.mine(1);
    world.scans.is_held = true;
    let owner = restore_at_tip(&mut world);
    let found = world.scans.held.take().expect("a request");
    world.input(owner, Input::Scanned(Box::new(found)));
    assert_eq!(balance(&mut world, owner).onchain_confirmed_sat, 60_000);
    world.attach(owner);
    let send = |id: u8| {
        Kind::SendOnchain(SendOnchain {
            id: vec![id; 16],
            address: bitcoin::Address::from_script(&script(3), Network::Regtest)
                .unwrap()
                .to_string(),
            amount_sat: 10_000,
            ..SendOnchain::default()
        })
    };
    let refused = world.ask(owner, send(1)).unwrap_err();
    assert_eq!(refused.code, Code::WalletSearching);

    world.scans.is_held = false;
    let answer = world.scans.held.take().expect("a request");
    world.input(owner, Input::Scanned(Box::new(answer)));
    assert!(is_complete(&mut world, owner));
    let sent = world.ask(owner, send(2));
    assert!(matches!(sent, Ok(Reply::SentOnchain(_))), "{sent:?}");
}

#[test]
fn the_first_block_that_can_matter_is_that_of_the_deployment_that_the_descriptors_need() {
    let first = |network, descriptor: &str| {
        let registration = Registration {
            external_descriptor: descriptor.into(),
            ..Registration::default()
        };
        first_height(network, &registration)
    };
    assert_eq!(first(Network::Bitcoin, "wpkh(xpub/0/*)"), 481_824);
    assert_eq!(first(Network::Bitcoin, "tr(xpub/0/*)"), 709_632);
    assert_eq!(first(Network::Testnet, "wpkh(tpub/0/*)"), 834_624);
    assert_eq!(first(Network::Signet, "tr(tpub/0/*)"), 1);
    assert_eq!(first(Network::Regtest, "wpkh(tpub/0/*)"), 1);
}
