//! Searches of past blocks by the follower, against a devnet over RPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash};
use longhand_chain::{
    BitcoindSource, BlockReader, BlockRef, Chain, ChainError, ChainSource, Devnet, Follower,
    FollowerConfig, ScanReply, ScanRequest, ScanStep, WatchList,
};

use crate::keys::Key;

/// The blocks of a source, with the most that were read at once.
struct Reading {
    inner: BitcoindSource,
    now: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl BlockReader for Reading {
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
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let block = self.inner.block(hash).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        block
    }
}

/// A follower that has no subscriber, and so reads no blocks by itself.
fn follower(devnet: &Devnet) -> (Follower, Arc<Reading>) {
    let blocks = Arc::new(Reading {
        inner: devnet.source(),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let source = ChainSource {
        blocks: blocks.clone(),
        ..ChainSource::from(Arc::new(devnet.source()))
    };
    (Follower::start(source, FollowerConfig::default()), blocks)
}

fn request(tip: BlockRef, from: u32, watch: WatchList) -> ScanRequest {
    let step = ScanStep::FindBlock {
        from,
        parent: None,
        watch,
    };
    ScanRequest { tip, step }
}

#[tokio::test]
async fn a_payment_and_its_spend_are_found_in_the_past() {
    let devnet = Devnet::start_default().await.unwrap();
    let (follower, _) = follower(&devnet);
    let key = Key::new(1);
    let (outpoint, output) = key.fund(&devnet, 100_000);
    let paid_at = devnet.tip();
    devnet.mine_to_wallet(3).unwrap();
    devnet
        .submit(&key.spend(&(outpoint, output.clone()), 500))
        .unwrap();
    devnet.mine_to_wallet(1).unwrap();
    let spent_at = devnet.tip();
    devnet.mine_to_wallet(2).unwrap();

    let watched = [
        (
            paid_at,
            WatchList {
                scripts: vec![output.script_pubkey],
                ..WatchList::default()
            },
        ),
        (
            spent_at,
            WatchList {
                outpoints: vec![outpoint],
                ..WatchList::default()
            },
        ),
    ];
    for (at, watch) in watched {
        let asked = request(devnet.tip(), paid_at.height, watch);
        let ScanReply::Searched(searched) = follower.scan(asked).await.unwrap() else {
            panic!("nothing searched")
        };
        assert_eq!(searched.reached, Some(at));
        assert_eq!(searched.found.expect("a match").txs.len(), 1);
    }
}

#[tokio::test]
async fn searches_of_several_wallets_read_one_block_at_a_time() {
    let devnet = Devnet::start_default().await.unwrap();
    let (follower, blocks) = follower(&devnet);
    let tip = devnet.tip();
    let search = || follower.scan(request(tip, tip.height - 20, WatchList::default()));
    let (a, b, c) = tokio::join!(search(), search(), search());
    for reply in [a, b, c] {
        assert!(matches!(reply, Ok(ScanReply::Searched(_))), "{reply:?}");
    }
    assert_eq!(blocks.most.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_tip_that_was_reorganised_out_is_not_searched_up_to() {
    let devnet = Devnet::start_default().await.unwrap();
    let (follower, _) = follower(&devnet);
    let tip = devnet.tip();
    devnet.reorg(2, Vec::new()).unwrap();
    let asked = request(tip, tip.height - 5, WatchList::default());
    let reply = follower.scan(asked).await.unwrap();
    assert!(matches!(reply, ScanReply::OtherTip), "{reply:?}");
}
