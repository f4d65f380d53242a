#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::Mutex;

use async_trait::async_trait;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Block, Network, TxMerkleNode};

use super::*;

/// Blocks without work or content, which count the requests for them.
struct Blocks {
    headers: Vec<Header>,
    asked: Mutex<Vec<(u32, u32)>>,
}

impl Blocks {
    fn new(count: u32) -> Blocks {
        let mut blocks = Blocks {
            headers: vec![genesis_block(Network::Regtest).header],
            asked: Mutex::default(),
        };
        blocks.extend(count, 0);
        blocks
    }

    /// Other blocks than those of another `name`.
    fn extend(&mut self, count: u32, name: u8) {
        for _ in 0..count {
            let last = self.headers.last().unwrap();
            self.headers.push(Header {
                prev_blockhash: last.block_hash(),
                merkle_root: TxMerkleNode::from_byte_array([name; 32]),
                ..*last
            });
        }
    }

    fn reference(&self, height: u32) -> BlockRef {
        BlockRef {
            height,
            hash: self.headers[height as usize].block_hash(),
        }
    }

    fn tip(&self) -> BlockRef {
        self.reference(u32::try_from(self.headers.len() - 1).unwrap())
    }

    fn asked(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

#[async_trait]
impl BlockReader for Blocks {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(Blocks::tip(self))
    }
    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        Err(ChainError::NotFound(hash.to_string()))
    }
    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        let header = self.headers.get(height as usize);
        let header = header.ok_or_else(|| ChainError::NotFound(height.to_string()))?;
        Ok(header.block_hash())
    }
    async fn headers(&self, from: u32, count: u32) -> Result<Vec<Header>, ChainError> {
        self.asked.lock().unwrap().push((from, count));
        let headers = self
            .headers
            .get(from as usize..from as usize + count as usize);
        let headers = headers.ok_or_else(|| ChainError::NotFound(from.to_string()))?;
        Ok(headers.to_vec())
    }
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        Err(ChainError::NotFound(hash.to_string()))
    }
}

async fn after(
    known: &HeaderServer,
    blocks: &Blocks,
    after: Vec<BlockRef>,
) -> Result<HeadersReply, ChainError> {
    let request = HeadersRequest {
        after,
        with_solutions: false,
    };
    known.after(blocks, blocks.tip(), &request).await
}

#[tokio::test]
async fn headers_that_one_signer_got_are_not_fetched_again_for_the_next() {
    let mut blocks = Blocks::new(5_000);
    let known = HeaderServer::new();
    let reply = after(&known, &blocks, vec![blocks.reference(100)]);
    let reply = reply.await.unwrap();
    assert_eq!(reply.after, blocks.reference(100));
    assert_eq!(reply.headers, blocks.headers[101..]);
    assert_eq!(reply.tip, blocks.tip());
    assert_eq!(
        blocks.asked(),
        [(5_000, 1), (2_984, 2_016), (968, 2_016), (100, 868)]
    );

    let reply = after(&known, &blocks, vec![blocks.reference(4_000)]);
    assert_eq!(reply.await.unwrap().headers, blocks.headers[4_001..]);
    assert_eq!(blocks.asked(), []);

    blocks.extend(1, 0);
    let reply = after(&known, &blocks, vec![blocks.reference(5_000)]);
    assert_eq!(reply.await.unwrap().headers, blocks.headers[5_001..]);
    assert_eq!(blocks.asked(), [(5_001, 1)]);
}

#[tokio::test]
async fn headers_of_another_chain_take_the_place_of_those_that_left_it() {
    let mut blocks = Blocks::new(30);
    let known = HeaderServer::new();
    let signer = vec![
        blocks.reference(30),
        blocks.reference(28),
        blocks.reference(0),
    ];
    after(&known, &blocks, signer.clone()).await.unwrap();

    blocks.headers.truncate(30);
    blocks.extend(2, 1);
    let reply = after(&known, &blocks, signer).await.unwrap();
    assert_eq!(reply.after, blocks.reference(28));
    assert_eq!(reply.headers, blocks.headers[29..]);
}

#[tokio::test]
async fn a_signer_of_another_network_gets_nothing_and_costs_one_question() {
    let blocks = Blocks::new(3_000);
    let known = HeaderServer::new();
    let hash = BlockHash::from_byte_array([7; 32]);
    let foreign = vec![BlockRef { height: 10, hash }];
    let refused = after(&known, &blocks, foreign).await;
    assert!(matches!(refused, Err(ChainError::NotFound(_))));
    assert_eq!(blocks.asked(), [(3_000, 1)]);
}

#[tokio::test]
async fn headers_of_blocks_that_the_follower_has_come_to_are_not_fetched() {
    let mut blocks = Blocks::new(10);
    let known = HeaderServer::new();
    let signer = vec![blocks.reference(10)];
    after(&known, &blocks, signer.clone()).await.unwrap();
    blocks.extend(1_008, 0);
    blocks.asked();
    for height in 11..=1_018 {
        let header = blocks.headers[height as usize];
        known.connected(blocks.reference(height), &header).await;
    }
    // Of a subscriber that is behind.
    known
        .connected(blocks.reference(5), &blocks.headers[5])
        .await;
    let reply = after(&known, &blocks, signer).await.unwrap();
    assert_eq!(reply.headers, blocks.headers[11..]);
    assert_eq!(blocks.asked(), []);
}
