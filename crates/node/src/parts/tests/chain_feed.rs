#![allow(clippy::unwrap_used)]

use super::*;
use crate::parts::testing::Pair;

/// A hub's turn after 7 blocks, of which the second has the funding of its channel, and those blocks.
struct Story {
    pair: Pair,
    blocks: Vec<Block>,
}

impl Story {
    fn new() -> Story {
        let pair = Pair::new();
        let blocks = (0..).zip(&pair.world.blocks);
        let blocks = blocks.map(|(height, (header, txs))| Block {
            height,
            header: *header,
            txs: txs
                .iter()
                .cloned()
                .map(Arc::new)
                .enumerate()
                .skip(1)
                .collect(),
        });
        let blocks: Vec<Block> = blocks.collect();
        assert_eq!(blocks.len(), 8);
        Story { pair, blocks }
    }

    fn turn(&mut self) -> &mut Turn {
        self.pair.world.turn(self.pair.hub)
    }

    /// A feed whose stream begins at this height.
    fn begin_at(&mut self, height: usize) -> ChainFeed {
        let from = self.blocks[height].reference();
        let mut feed = ChainFeed::default();
        feed.begin(self.turn(), from);
        feed
    }

    fn connect(&mut self, feed: &mut ChainFeed, height: usize) -> Vec<At> {
        let block = self.blocks[height].clone();
        heights(feed.steps(self.turn(), connected(block)))
    }

    /// The block at this height in another chain.
    fn connect_other(&mut self, feed: &mut ChainFeed, height: usize) -> Vec<At> {
        let mut block = self.blocks[height].clone();
        block.header.nonce += 1_000;
        heights(feed.steps(self.turn(), connected(block)))
    }
}

/// A step with its height.
#[derive(Debug, PartialEq, Eq)]
enum At {
    Connect(u32),
    Disconnect(u32),
    Synced(u32),
}

use At::{Connect, Disconnect, Synced};

fn heights(steps: Vec<Step>) -> Vec<At> {
    let steps = steps.into_iter().map(|step| match step {
        Step::Connect(block) => Connect(block.height),
        Step::Disconnect(fork) => Disconnect(fork.height),
        Step::Synced(tip) => Synced(tip.height),
    });
    steps.collect()
}

fn connected(block: Block) -> ChainEvent {
    ChainEvent::Connected {
        height: block.height,
        header: block.header,
        txs: block.txs,
    }
}

#[test]
fn no_part_gets_a_block_before_the_newest_known_one_is_found_in_the_chain() {
    let mut story = Story::new();
    let mut feed = story.begin_at(4);
    assert_eq!(story.connect(&mut feed, 5), []);
    assert_eq!(story.connect(&mut feed, 6), []);
    let all = [Connect(5), Connect(6), Connect(7)];
    assert_eq!(story.connect(&mut feed, 7), all);
    // From here on each block is passed on at once.
    assert_eq!(story.connect(&mut feed, 7), [Connect(7)]);
}

#[test]
fn after_a_reorganisation_all_parts_go_back_to_the_last_block_that_was_known() {
    let mut story = Story::new();
    let mut feed = story.begin_at(1);
    // The funding makes the second block known. Those after it are in the chain too, but the node skipped them.
    for height in 2..6 {
        assert_eq!(story.connect(&mut feed, height), []);
    }
    assert_eq!(story.connect_other(&mut feed, 6), []);
    let steps = story.connect_other(&mut feed, 7);
    assert_eq!(steps[0], Disconnect(2));
    let connected: Vec<At> = (2..8).map(Connect).collect();
    assert_eq!(steps[1..], connected);
}

#[test]
fn a_chain_that_is_shorter_than_before_is_replayed_at_its_tip() {
    let mut story = Story::new();
    let mut feed = story.begin_at(1);
    assert_eq!(story.connect(&mut feed, 2), []);
    assert_eq!(story.connect(&mut feed, 3), []);
    let tip = story.blocks[3].reference();
    let steps = feed.steps(story.turn(), ChainEvent::Synced { tip });
    let expected = [Disconnect(2), Connect(2), Connect(3), Synced(3)];
    assert_eq!(heights(steps), expected);
}

#[test]
fn a_reorganisation_during_the_replay_may_go_below_its_beginning() {
    let mut story = Story::new();
    let mut feed = story.begin_at(4);
    assert_eq!(story.connect(&mut feed, 5), []);
    let fork = story.blocks[3].reference();
    let steps = feed.steps(story.turn(), ChainEvent::Disconnected { fork });
    assert_eq!(heights(steps), []);
    for height in 4..7 {
        assert_eq!(story.connect_other(&mut feed, height), []);
    }
    let steps = story.connect_other(&mut feed, 7);
    assert_eq!(steps[0], Disconnect(3));
    assert_eq!(steps[1..], [Connect(4), Connect(5), Connect(6), Connect(7)]);
}

#[test]
fn a_stream_that_begins_at_the_newest_block_has_nothing_to_replay() {
    let mut story = Story::new();
    let mut feed = story.begin_at(7);
    let fork = story.blocks[6].reference();
    let steps = feed.steps(story.turn(), ChainEvent::Disconnected { fork });
    assert_eq!(heights(steps), [Disconnect(6)]);
    assert_eq!(story.connect_other(&mut feed, 7), [Connect(7)]);
}

/// A block above the node's, with or without a transaction.
fn above(story: &Story, height: u32, with_tx: bool) -> Block {
    let mut block = story.blocks[7].clone();
    block.height = height;
    block.header.nonce = height;
    if with_tx {
        block.txs = story.blocks[2].txs.clone();
    }
    block
}

fn best(story: &mut Story) -> u32 {
    story.turn().ldk.manager.current_best_block().height
}

#[test]
fn of_blocks_without_transactions_ldk_gets_the_last_when_the_stream_is_at_the_tip() {
    let mut story = Story::new();
    let mut feed = ChainFeed::default();
    for height in [8, 9] {
        let block = above(&story, height, false);
        feed.new_best(story.turn(), &block);
        assert_eq!(best(&mut story), 7);
    }
    feed.report_tip(story.turn());
    assert_eq!(best(&mut story), 9);
}

#[test]
fn ldk_gets_a_block_with_a_transaction_at_once() {
    let mut story = Story::new();
    let block = above(&story, 8, true);
    ChainFeed::default().new_best(story.turn(), &block);
    assert_eq!(best(&mut story), 8);
}

#[test]
fn ldk_gets_one_in_a_hundred_blocks_at_least() {
    let mut story = Story::new();
    let mut feed = ChainFeed::default();
    let block = above(&story, 106, false);
    feed.new_best(story.turn(), &block);
    assert_eq!(best(&mut story), 7);
    let block = above(&story, 107, false);
    feed.new_best(story.turn(), &block);
    assert_eq!(best(&mut story), 107);
}

#[test]
fn blocks_that_the_wallet_knows_already_do_not_take_it_back() {
    let mut story = Story::new();
    let mut feed = ChainFeed::default();
    for height in [5, 6, 7] {
        let block = story.blocks[height].clone();
        feed.connect_wallet(story.turn(), &block);
        assert_eq!(story.turn().wallet().best_block().height, 7);
    }
    assert!(feed.before_wallet.is_empty());
}

#[test]
fn after_a_reorganisation_height_and_wallet_are_at_the_fork_and_ldk_gets_the_next_block_at_once() {
    let mut story = Story::new();
    let mut feed = ChainFeed::default();
    let fork = story.blocks[5].reference();
    feed.disconnect(story.turn(), fork);
    assert_eq!(story.turn().height, 5);
    assert_eq!(story.turn().wallet().best_block().height, 5);
    let block = above(&story, 6, false);
    feed.new_best(story.turn(), &block);
    assert_eq!(best(&mut story), 6);
}
