//! An opening from the command to a usable channel, whatever comes between.

use std::time::Duration;

use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{
    AwaitChannel, Balance, BumpTransaction, Channel, CloseChannel, Error, GetBalance, ListChannels,
    OpenChannel,
};

use super::recover;
use crate::machine::input::Input;
use crate::machine::testing::{Id, World, world_with_channel};

/// With the owner's `coins_sat` confirmed, and its phone attached.
fn world_of(coins_sat: u64) -> (World, Id, Id) {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(owner, coins_sat);
    world.attach(owner);
    (world, hub, owner)
}

/// An opening of 500,000 sat with the hub.
fn open(id: u8) -> Kind {
    Kind::OpenChannel(OpenChannel {
        id: vec![id; 16],
        amount_sat: 500_000,
        ..OpenChannel::default()
    })
}

#[test]
fn the_funding_pays_the_fee_rate_that_the_owner_gives() {
    let (mut world, _, owner) = world_of(1_000_000);
    let Kind::OpenChannel(asked) = open(1) else {
        panic!("another command");
    };
    let opened = world.ask(
        owner,
        Kind::OpenChannel(OpenChannel {
            feerate_sat_per_kw: 4_000,
            ..asked
        }),
    );
    assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    let [funding] = &world.mempool[..] else {
        panic!("not one transaction: {:?}", world.mempool);
    };
    let paid: u64 = funding.output.iter().map(|it| it.value.to_sat()).sum();
    let per_kw = (1_000_000 - paid) * 1_000 / funding.weight().to_wu();
    assert!((3_900..4_100).contains(&per_kw), "{per_kw} sat/kw");
}

#[test]
fn an_opening_whose_funding_the_mempool_refuses_is_no_success_and_can_be_bumped() {
    let (mut world, _, owner) = world_of(1_000_000);
    world.refusal = Some("mempool min fee not met".into());
    let refused = world.ask(owner, open(1)).unwrap_err();
    assert_eq!(refused.code, Code::RefusedByNetwork);
    world.refusal = None;
    let channels = channels_of(&mut world, owner);
    let (txid, _) = channels[0].funding_outpoint.split_once(':').unwrap();
    let bump = Kind::BumpTransaction(BumpTransaction {
        txid: txid.into(),
        feerate_sat_per_kw: 5_000,
    });
    let bumped = world.ask(owner, bump).unwrap();
    assert!(matches!(bumped, Reply::SentOnchain(_)), "{bumped:?}");
    assert_eq!(world.mempool.len(), 2, "the funding and its child");
    let again = world.ask(owner, open(1)).unwrap();
    assert!(matches!(again, Reply::OpenedChannel(_)), "{again:?}");
}

#[test]
fn a_child_that_the_phone_does_not_sign_is_a_failure_and_another_may_follow() {
    let (mut world, _, owner) = world_of(1_000_000);
    world.refusal = Some("mempool min fee not met".into());
    let _ = world.ask(owner, open(1));
    world.refusal = None;
    let channels = channels_of(&mut world, owner);
    let (txid, _) = channels[0].funding_outpoint.split_once(':').unwrap();
    let bump = |feerate_sat_per_kw| {
        let txid = txid.into();
        Kind::BumpTransaction(BumpTransaction {
            txid,
            feerate_sat_per_kw,
        })
    };
    // The limit of the test's phone is 100,000 sat.
    let refused = world.ask(owner, bump(200_000)).unwrap_err();
    assert_eq!(refused.code, Code::SignerRefused);
    assert!(refused.message.contains("cost more than"), "{refused:?}");
    let bumped = world.ask(owner, bump(5_000)).unwrap();
    assert!(matches!(bumped, Reply::SentOnchain(_)), "{bumped:?}");
    assert_eq!(world.mempool.len(), 2, "the funding and its child");
}

#[test]
fn an_opening_whose_coins_another_transaction_spends_does_not_succeed_any_more() {
    let (mut world, _, owner) = world_of(1_000_000);
    let opened = world.ask(owner, open(1));
    assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    // As by another wallet of the same words.
    let [funding] = &mut world.mempool[..] else {
        panic!("not one transaction: {:?}", world.mempool);
    };
    funding.output.truncate(1);
    world.mine(1);
    let conflicted = world.ask(owner, open(1)).unwrap_err();
    assert_eq!(conflicted.code, Code::FundingConflicted);
    assert_eq!(conflicted.action, i32::from(Action::GiveUp));
}

fn balance_of(world: &mut World, id: Id) -> Balance {
    match world.ask(id, Kind::GetBalance(GetBalance {})) {
        Ok(Reply::Balance(balance)) => balance,
        other => panic!("no balance: {other:?}"),
    }
}

fn channels_of(world: &mut World, id: Id) -> Vec<Channel> {
    match world.ask(id, Kind::ListChannels(ListChannels {})) {
        Ok(Reply::Channels(list)) => list.channels,
        other => panic!("no list: {other:?}"),
    }
}

/// The result of an opening, asked for again with its id when the answer was lost.
fn result(world: &mut World, owner: Id, id: u8) -> Result<Reply, Error> {
    let first = world.begin(owner, open(id));
    recover(world, owner);
    if let Some(result) = world.answer(owner, first) {
        return result;
    }
    let again = world.begin(owner, open(id));
    recover(world, owner);
    world
        .answer(owner, again)
        .expect("the opening has a result")
}

/// An opening of the owner's, until the channel is usable, though something comes between. Nothing is lost.
fn open_in_spite_of(world: &mut World, hub: Id, owner: Id) {
    let mut id = 1;
    if let Err(failure) = result(world, owner, id) {
        // LDK keeps no channel that is not funded, over a restart or a lost connection.
        let codes = [Code::Interrupted, Code::ChannelClosed];
        assert!(failure.is_one_of(&codes), "{failure:?}");
        let balance = balance_of(world, owner);
        assert_eq!(balance.onchain_confirmed_sat, 1_000_000, "{failure:?}");
        id = 2;
        let opened = result(world, owner, id);
        assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    }
    world.mine(6);
    recover(world, owner);
    let wait = AwaitChannel { id: vec![id; 16] };
    let usable = world.ask(owner, Kind::AwaitChannel(wait));
    assert!(matches!(usable, Ok(Reply::Channel(_))), "{usable:?}");
    for node in [hub, owner] {
        let channels = channels_of(world, node);
        let states: Vec<&str> = channels.iter().map(|it| &it.state[..]).collect();
        assert_eq!(states, ["usable"]);
    }
    let balance = balance_of(world, owner);
    let total = balance.lightning_msat / 1000 + balance.onchain_confirmed_sat;
    assert!(total > 998_000, "{balance:?}");
}

/// Opens a channel again and again, with an interruption at step 1, 2, ... that `prepare` arranges, until there are no more
/// steps. Returns how many there were.
fn survived(
    prepare: impl Fn(&mut World, Id, Id, usize),
    has_happened: impl Fn(&World, Id) -> bool,
) -> usize {
    let survives = |step: &usize| {
        let (mut world, hub, owner) = world_of(1_000_000);
        prepare(&mut world, hub, owner, *step);
        open_in_spite_of(&mut world, hub, owner);
        has_happened(&world, owner)
    };
    let survived = (1..200).take_while(survives).count();
    assert!(survived < 199, "it happened each time");
    survived
}

#[test]
fn an_opener_loaded_again_after_each_of_its_commits_loses_nothing() {
    let crash = |world: &mut World, _, owner, step| world.crash = Some((owner, step));
    let commits = survived(crash, |world, _| world.crash.is_none());
    assert!(commits > 5, "{commits} commits");
}

#[test]
fn an_opener_loses_nothing_though_its_peer_is_loaded_again_after_each_of_its_commits() {
    let crash = |world: &mut World, hub, _, step| world.crash = Some((hub, step));
    let commits = survived(crash, |world, _| world.crash.is_none());
    assert!(commits > 3, "{commits} commits");
}

#[test]
fn an_opening_loses_nothing_though_the_phone_goes_away_instead_of_signing_each_of_its_batches() {
    let leave = |world: &mut World, _, owner: Id, step: usize| {
        world.nodes[owner].batches_left = Some(step - 1);
    };
    let batches = survived(leave, |world, owner| {
        world.nodes[owner].batches_left.is_none()
    });
    assert!(batches > 3, "{batches} batches");
}

#[test]
fn an_opening_without_coins_for_its_fee_fails_and_a_new_one_succeeds_once_coins_have_come() {
    let (mut world, _, owner) = world_of(510_000);
    let failure = world.ask(owner, open(1)).unwrap_err();
    assert_eq!(failure.code, Code::InsufficientFunds);
    assert_eq!(failure.action, i32::from(Action::FixInput));
    let balance = balance_of(&mut world, owner);
    assert_eq!(balance.onchain_confirmed_sat, 510_000);
    assert!(channels_of(&mut world, owner).is_empty());

    world.fund(owner, 100_000);
    let opened = world.ask(owner, open(2));
    assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    let again = world.ask(owner, open(1)).unwrap_err();
    assert_eq!(again, failure, "the first opening is over");
}

#[test]
fn an_opening_whose_peer_goes_before_the_funding_fails_and_gives_its_coins_back() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(hub, 600_000);
    world.attach(owner);
    let open_to_owner = |world: &World, id| match open(id) {
        Kind::OpenChannel(open) => Kind::OpenChannel(OpenChannel {
            counterparty_node_id: world.nodes[owner].machine.node_id().serialize().to_vec(),
            ..open
        }),
        other => other,
    };
    world.nodes[owner].signer_hangs = true;
    let command = open_to_owner(&world, 1);
    let opening = world.begin(hub, command);
    assert!(!world.has_answered(hub, opening));
    world.input(owner, Input::SignerLost);
    let failure = world.answer(hub, opening).expect("an answer").unwrap_err();
    assert_eq!(failure.code, Code::ChannelClosed);
    assert_eq!(failure.action, i32::from(Action::Retry));

    world.attach(owner);
    let command = open_to_owner(&world, 2);
    let opened = world.ask(hub, command);
    assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
}

#[test]
fn a_cooperative_close_whose_broadcast_was_lost_with_the_process_is_broadcast_again() {
    let (mut world, hub, owner) = world_with_channel();
    let channel_id = channels_of(&mut world, hub)[0].channel_id.clone();
    let close = CloseChannel {
        channel_id,
        force: false,
        ..CloseChannel::default()
    };
    world.ask(hub, Kind::CloseChannel(close)).unwrap();
    let closing = std::mem::take(&mut world.mempool);
    assert_eq!(closing.len(), 1);
    // The close pays nothing to the owner: its wallet does not know the transaction.
    world.reload(owner);
    assert_eq!(world.mempool, closing);
    world.mempool.clear();
    world.reload(hub);
    assert_eq!(world.mempool, closing);
    let records = |world: &World, id: Id| {
        let keys = world.nodes[id].store.keys();
        keys.filter(|key| key.starts_with("agreed/")).count()
    };
    assert_eq!((records(&world, hub), records(&world, owner)), (1, 1));
    world.mine(6);
    assert!(world.mempool.is_empty(), "something else was broadcast");
    // Turns that only forget are committed a moment later.
    world.pass(Duration::from_secs(1));
    assert_eq!((records(&world, hub), records(&world, owner)), (0, 0));
}

#[test]
fn a_cooperative_close_whose_block_left_the_chain_is_broadcast_again() {
    let (mut world, hub, _) = world_with_channel();
    let channel_id = channels_of(&mut world, hub)[0].channel_id.clone();
    let close = CloseChannel {
        channel_id,
        force: false,
        ..CloseChannel::default()
    };
    world.ask(hub, Kind::CloseChannel(close)).unwrap();
    let closing = world.mempool.clone();
    world.mine(1);
    world.disconnect(1);
    world.mempool.clear();
    world.mine(2);
    assert_eq!(world.mempool, closing);
}
