//! The follower, against a devnet over each kind of source.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Txid};
use longhand_chain::{
    BlockReader, BlockRef, Chain, ChainError, ChainEvent, ChainSource, Devnet, DevnetConfig,
    FeeRates, Follower, FollowerConfig, Subscription, WatchList,
};

use crate::keys::{Key, coin};
use crate::kinds::{Kind, is_unreachable, over_each_kind};

over_each_kind! {
    a_subscriber_receives_every_block_and_the_transactions_that_it_watches,
    an_output_added_to_the_watch_list_is_matched_from_then_on,
    a_spend_of_a_match_in_the_same_block_matches,
    spends_of_a_match_are_not_missed_before_its_subscriber_watches_them,
    a_reorganisation_disconnects_to_the_fork_and_connects_the_others,
    many_catch_up_together_and_each_block_is_fetched_once,
    a_subscriber_at_a_disconnected_block_is_disconnected_first,
    a_source_that_is_merely_behind_disconnects_nothing,
    a_source_that_is_down_is_waited_for,
    a_dropped_subscription_is_removed,
    a_broadcast_is_sent_again_until_it_is_accepted,
    a_source_without_an_estimate_keeps_the_last_one,
}

/// The blocks of a source, with a count of those that were fetched.
struct Counting {
    inner: Arc<dyn BlockReader>,
    fetched: AtomicUsize,
}

#[async_trait]
impl BlockReader for Counting {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        self.inner.tip().await
    }
    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        self.inner.header(hash).await
    }
    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        self.inner.hash_at(height).await
    }
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        self.fetched.fetch_add(1, Ordering::SeqCst);
        self.inner.block(hash).await
    }
}

/// A devnet and a follower of it. The follower polls only when poked, unless a test starts another one.
struct Setup {
    devnet: Devnet,
    blocks: Arc<Counting>,
    follower: Follower,
}

const SELDOM: FollowerConfig = FollowerConfig {
    poll_interval: Duration::from_secs(3_600),
    fallback_sat_per_kw: 2_500,
};

async fn setup(kind: Kind) -> Setup {
    let devnet = kind.devnet().await;
    let blocks = Arc::new(Counting {
        inner: kind.source(&devnet).blocks,
        fetched: AtomicUsize::new(0),
    });
    // Blocks from another place than the rest.
    let source = ChainSource {
        blocks: blocks.clone(),
        ..kind.source(&devnet)
    };
    let follower = Follower::start(source, SELDOM);
    Setup {
        devnet,
        blocks,
        follower,
    }
}

/// The events of a subscriber up to and including the next `Synced`.
#[derive(Debug, Default)]
struct Received {
    heights: Vec<u32>,
    txs: Vec<(u32, Txid)>,
    forks: Vec<BlockRef>,
    tip: Option<BlockRef>,
}

async fn receive(subscription: &mut Subscription) -> Received {
    let mut received = Received::default();
    loop {
        match subscription.events.recv().await.unwrap() {
            ChainEvent::Connected { height, txs, .. } => {
                received.heights.push(height);
                received
                    .txs
                    .extend(txs.iter().map(|(_, tx)| (height, tx.compute_txid())));
            }
            ChainEvent::Disconnected { fork } => received.forks.push(fork),
            ChainEvent::Synced { tip } => {
                received.tip = Some(tip);
                return received;
            }
        }
    }
}

async fn a_subscriber_receives_every_block_and_the_transactions_that_it_watches(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    let key = Key::new(1);
    let (outpoint, output) = key.fund(&devnet, 100_000);
    let start = devnet.tip();
    let watched = WatchList {
        outpoints: vec![outpoint],
        ..WatchList::default()
    };
    let mut watcher = follower.subscribe(start, watched).await.unwrap();
    let mut other = follower
        .subscribe(start, WatchList::default())
        .await
        .unwrap();
    assert_eq!(receive(&mut watcher).await.tip, Some(start));
    assert_eq!(receive(&mut other).await.tip, Some(start));
    assert_eq!(follower.tip(), Some(start));

    let spend = key.spend(&(outpoint, output), 500);
    devnet.submit(&spend).unwrap();
    devnet.mine_to_wallet(2).unwrap();
    follower.poke();
    let received = receive(&mut watcher).await;
    assert_eq!(received.heights, [start.height + 1, start.height + 2]);
    assert_eq!(received.txs, [(start.height + 1, spend.compute_txid())]);
    assert_eq!(received.tip, Some(devnet.tip()));
    let received = receive(&mut other).await;
    assert_eq!(received.heights, [start.height + 1, start.height + 2]);
    assert_eq!(received.txs, []);
}

async fn an_output_added_to_the_watch_list_is_matched_from_then_on(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    let key = Key::new(1);
    let mut watcher = follower
        .subscribe(devnet.tip(), WatchList::default())
        .await
        .unwrap();
    receive(&mut watcher).await;

    watcher.watch.script(key.script());
    let (outpoint, output) = key.fund(&devnet, 100_000);
    follower.poke();
    let height = devnet.tip().height;
    assert_eq!(receive(&mut watcher).await.txs, [(height, outpoint.txid)]);

    let other = Key::new(2);
    let spend = key.build(&[(outpoint, output)], 500, |tx| {
        tx.output[0].script_pubkey = other.script()
    });
    watcher.watch.txid(spend.compute_txid());
    devnet.submit(&spend).unwrap();
    devnet.mine_to_wallet(1).unwrap();
    follower.poke();
    assert_eq!(
        receive(&mut watcher).await.txs,
        [(height + 1, spend.compute_txid())]
    );
}

async fn a_spend_of_a_match_in_the_same_block_matches(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    let key = Key::new(1);
    let (outpoint, output) = key.fund(&devnet, 100_000);
    let watched = WatchList {
        outpoints: vec![outpoint],
        ..WatchList::default()
    };
    let mut watcher = follower.subscribe(devnet.tip(), watched).await.unwrap();
    receive(&mut watcher).await;

    let first = key.spend(&(outpoint, output), 500);
    let second = key.spend(&coin(&first, &key.script()), 500);
    devnet.submit(&first).unwrap();
    devnet.submit(&second).unwrap();
    devnet.mine_to_wallet(1).unwrap();
    follower.poke();
    let txids: Vec<Txid> = receive(&mut watcher)
        .await
        .txs
        .into_iter()
        .map(|(_, txid)| txid)
        .collect();
    assert_eq!(txids, [first.compute_txid(), second.compute_txid()]);
}

async fn spends_of_a_match_are_not_missed_before_its_subscriber_watches_them(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let from = devnet.tip();
    let first = key.spend(&funding, 500);
    let second = key.spend(&coin(&first, &key.script()), 500);
    for tx in [&first, &second] {
        devnet.submit(tx).unwrap();
        devnet.mine_to_wallet(1).unwrap();
    }
    // Both blocks are matched before the subscriber can watch an output of the first.
    let watched = WatchList {
        outpoints: vec![funding.0],
        ..WatchList::default()
    };
    let mut watcher = follower.subscribe(from, watched).await.unwrap();
    let received = receive(&mut watcher).await;
    let expected = [
        (from.height + 1, first.compute_txid()),
        (from.height + 2, second.compute_txid()),
    ];
    assert_eq!(received.txs, expected);
}

async fn a_reorganisation_disconnects_to_the_fork_and_connects_the_others(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let fork = devnet.tip();
    let watched = WatchList {
        outpoints: vec![funding.0],
        ..WatchList::default()
    };
    let mut watcher = follower.subscribe(fork, watched).await.unwrap();
    receive(&mut watcher).await;
    let spend = key.spend(&funding, 500);
    devnet.submit(&spend).unwrap();
    devnet.mine_to_wallet(3).unwrap();
    follower.poke();
    assert_eq!(
        receive(&mut watcher).await.txs,
        [(fork.height + 1, spend.compute_txid())]
    );

    devnet.reorg(3, vec![]).unwrap();
    follower.poke();
    let received = receive(&mut watcher).await;
    assert_eq!(received.forks, [fork]);
    assert_eq!(
        received.heights,
        (fork.height + 1..=fork.height + 4).collect::<Vec<_>>()
    );
    assert_eq!(received.txs, []);
    assert_eq!(received.tip, Some(devnet.tip()));

    devnet.mine_to_wallet(1).unwrap();
    follower.poke();
    assert_eq!(
        receive(&mut watcher).await.txs,
        [(fork.height + 5, spend.compute_txid())]
    );
}

async fn many_catch_up_together_and_each_block_is_fetched_once(kind: Kind) {
    let Setup {
        devnet,
        blocks,
        follower,
    } = setup(kind).await;
    let key = Key::new(1);
    let from = devnet.tip();
    let funding = key.fund(&devnet, 100_000);
    devnet.mine_to_wallet(30).unwrap();
    let watched = WatchList {
        scripts: vec![key.script()],
        ..WatchList::default()
    };
    let mut subscriptions = vec![];
    for n in 0..20u32 {
        // From three different heights.
        let height = from.height + n % 3;
        let from = BlockRef {
            height,
            hash: devnet.hash_at(height).unwrap(),
        };
        subscriptions.push(follower.subscribe(from, watched.clone()).await.unwrap());
    }
    for (n, subscription) in (0..20u32).zip(&mut subscriptions) {
        let received = receive(subscription).await;
        let first = from.height + n % 3 + 1;
        assert_eq!(
            received.heights,
            (first..=devnet.tip().height).collect::<Vec<_>>()
        );
        assert_eq!(received.txs.len(), usize::from(n % 3 == 0));
        assert!(
            received
                .txs
                .iter()
                .all(|(height, txid)| { (*height, *txid) == (from.height + 1, funding.0.txid) })
        );
        assert_eq!(received.tip, Some(devnet.tip()));
    }
    assert_eq!(blocks.fetched.load(Ordering::SeqCst), 31);
}

async fn a_subscriber_at_a_disconnected_block_is_disconnected_first(kind: Kind) {
    let Setup {
        devnet,
        blocks,
        follower,
    } = setup(kind).await;
    let fork = devnet.tip();
    let mined = devnet.mine_to_wallet(2).unwrap();
    let stale = devnet.tip();
    // The subscriber has its last block from the same source.
    blocks.tip().await.unwrap();
    for hash in &mined {
        blocks.block(hash).await.unwrap();
    }
    devnet.reorg(2, vec![]).unwrap();

    let mut late = follower
        .subscribe(stale, WatchList::default())
        .await
        .unwrap();
    let mut first = late.events.recv().await.unwrap();
    // The follower may have seen that block as the tip before.
    if matches!(first, ChainEvent::Synced { tip } if tip == stale) {
        first = late.events.recv().await.unwrap();
    }
    assert!(matches!(first, ChainEvent::Disconnected { fork: at } if at == fork));
    let received = receive(&mut late).await;
    assert_eq!(
        received.heights,
        [fork.height + 1, fork.height + 2, fork.height + 3]
    );
    assert_eq!(received.tip, Some(devnet.tip()));
}

async fn a_source_that_is_merely_behind_disconnects_nothing(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    devnet.mine_to_wallet(2).unwrap();
    let known = devnet.tip();
    let mut watcher = follower
        .subscribe(known, WatchList::default())
        .await
        .unwrap();
    receive(&mut watcher).await;
    let parent = devnet.block(&known.hash).unwrap().header.prev_blockhash;
    let behind = BlockRef {
        height: known.height - 1,
        hash: parent,
    };
    let mut tips = follower.tips();
    devnet
        .source()
        .call("invalidateblock", &[known.hash.to_string().into()])
        .await
        .unwrap();
    follower.poke();
    tips.wait_for(|tip| *tip == Some(behind)).await.unwrap();
    assert!(watcher.events.is_empty());

    // Only a block that replaces it disconnects it.
    devnet.mine_to_wallet(1).unwrap();
    follower.poke();
    let received = receive(&mut watcher).await;
    assert_eq!(received.forks, [behind]);
    assert_eq!(received.heights, [known.height]);
}

async fn a_source_that_is_down_is_waited_for(kind: Kind) {
    let dir = tempfile::tempdir().unwrap();
    let first = DevnetConfig {
        data_dir: Some(dir.path().into()),
        esplora_bind: Some(([127, 0, 0, 1], 0).into()),
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(first.clone()).await.unwrap();
    let from = devnet.tip();
    let source = kind.source(&devnet);
    // On the same ports from now on.
    let esplora_url = devnet.esplora_url().unwrap();
    let config = DevnetConfig {
        rpc_bind: devnet.rpc_addr(),
        esplora_bind: esplora_url.trim_start_matches("http://").parse().ok(),
        ..first
    };
    devnet.mine_to_wallet(1).unwrap();
    devnet.shutdown().await;
    assert!(is_unreachable(source.blocks.tip().await));

    let config_fast = FollowerConfig {
        poll_interval: Duration::from_millis(20),
        ..FollowerConfig::default()
    };
    let follower = Follower::start(source, config_fast);
    let mut watcher = follower
        .subscribe(from, WatchList::default())
        .await
        .unwrap();
    assert!(!follower.reachable());
    let devnet = Devnet::start(config.clone()).await.unwrap();
    assert_eq!(receive(&mut watcher).await.heights, [from.height + 1]);

    // And again, later.
    devnet.shutdown().await;
    let devnet = Devnet::start(config).await.unwrap();
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(receive(&mut watcher).await.heights, [from.height + 2]);
    assert!(follower.reachable());
}

async fn a_dropped_subscription_is_removed(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    let from = devnet.tip();
    let mut stays = follower
        .subscribe(from, WatchList::default())
        .await
        .unwrap();
    let goes = follower
        .subscribe(from, WatchList::default())
        .await
        .unwrap();
    let watch = goes.watch.clone();
    drop(goes);
    devnet.mine_to_wallet(1).unwrap();
    follower.poke();
    assert_eq!(receive(&mut stays).await.tip, Some(devnet.tip()));
    // No effect after the subscription.
    watch.script(Key::new(1).script());

    drop(follower);
    assert!(stays.events.recv().await.is_none());
}

async fn a_broadcast_is_sent_again_until_it_is_accepted(kind: Kind) {
    let Setup {
        devnet, follower, ..
    } = setup(kind).await;
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let mut watcher = follower
        .subscribe(
            devnet.tip(),
            WatchList {
                scripts: vec![key.script()],
                ..WatchList::default()
            },
        )
        .await
        .unwrap();
    receive(&mut watcher).await;
    let unlock = devnet.tip().height + 1;
    let early = key.build(&[funding], 500, |tx| {
        tx.lock_time = bitcoin::absolute::LockTime::from_height(unlock).unwrap();
    });
    assert!(devnet.submit(&early).is_err());
    follower.broadcast(key.public_key(), vec![early.clone()]);
    // Blocks until one contains it: the first makes it final, then it is sent again.
    loop {
        devnet.mine_to_wallet(1).unwrap();
        follower.poke();
        if receive(&mut watcher)
            .await
            .txs
            .iter()
            .any(|(_, txid)| *txid == early.compute_txid())
        {
            break;
        }
    }
}

async fn a_source_without_an_estimate_keeps_the_last_one(kind: Kind) {
    let devnet = kind.devnet().await;
    let config = FollowerConfig {
        poll_interval: Duration::from_millis(20),
        fallback_sat_per_kw: 2_500,
    };
    let none = FeeRates {
        is_estimate: false,
        ..FeeRates::FLOOR
    };
    devnet.set_fee_rates(none);
    let follower = Follower::start(kind.source(&devnet), config);
    let mut tips = follower.tips();
    tips.wait_for(Option::is_some).await.unwrap();
    let rates = follower.fee_rates();
    assert_eq!((rates.normal, rates.is_estimate), (2_500, false));

    let estimate = FeeRates {
        urgent: 9_000,
        normal: 8_000,
        ..FeeRates::FLOOR
    };
    devnet.set_fee_rates(estimate);
    devnet.mine_to_wallet(1).unwrap();
    while follower.fee_rates() != estimate {
        tokio::task::yield_now().await;
    }
    devnet.set_fee_rates(none);
    // With each block the source is asked, after the block is known: at the second it has been asked.
    for _ in 0..2 {
        devnet.mine_to_wallet(1).unwrap();
        let tip = devnet.tip();
        tips.wait_for(|known| *known == Some(tip)).await.unwrap();
    }
    assert_eq!(follower.fee_rates(), estimate);
}
