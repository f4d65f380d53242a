//! Requests to a chain in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use async_trait::async_trait;
use bitcoin::constants::genesis_block;
use bitcoin::{Amount, Network, ScriptBuf, TxOut};
use longhand_proto::Code;

use super::*;

const DAY: u32 = 86_400;

/// A chain with a block every hour, each of which pays a script of its own.
struct Hours {
    blocks: Vec<Block>,
    pruned_below: u32,
    /// From here on the source says that it has no such blocks.
    lost_from: u32,
}

impl Hours {
    fn new(blocks: u32) -> Hours {
        let mut all = vec![genesis_block(Network::Regtest)];
        for height in 1..=blocks {
            let mut block = genesis_block(Network::Regtest);
            block.header.prev_blockhash = all[all.len() - 1].block_hash();
            block.header.time = time(height);
            block.txdata[0].output[0] = TxOut {
                value: Amount::from_sat(1_000),
                script_pubkey: script(height),
            };
            block.header.merkle_root = block.compute_merkle_root().unwrap();
            all.push(block);
        }
        Hours {
            blocks: all,
            pruned_below: 0,
            lost_from: u32::MAX,
        }
    }

    fn at(&self, height: u32) -> BlockRef {
        let hash = self.blocks[height as usize].block_hash();
        BlockRef { height, hash }
    }

    fn tip(&self) -> BlockRef {
        self.at(u32::try_from(self.blocks.len() - 1).unwrap())
    }

    async fn find(&self, from: u32, parent: Option<BlockHash>, paid_at: u32) -> ScanReply {
        self.try_find(from, parent, paid_at).await.unwrap()
    }

    async fn try_find(
        &self,
        from: u32,
        parent: Option<BlockHash>,
        paid_at: u32,
    ) -> Result<ScanReply, ScanError> {
        let watch = WatchList {
            scripts: vec![script(paid_at)],
            ..WatchList::default()
        };
        let request = ScanRequest {
            tip: self.tip(),
            step: ScanStep::FindBlock {
                from,
                parent,
                watch,
            },
        };
        scan(self, &request).await
    }

    async fn height_of(&self, unix_s: u32) -> u32 {
        let request = ScanRequest {
            tip: self.tip(),
            step: ScanStep::FindHeight {
                unix_s: unix_s.into(),
            },
        };
        match scan(self, &request).await.unwrap() {
            ScanReply::Height(height) => height,
            other => panic!("no height: {other:?}"),
        }
    }
}

fn time(height: u32) -> u32 {
    1_700_000_000 + height * 3_600
}

fn script(height: u32) -> ScriptBuf {
    ScriptBuf::from_bytes(height.to_be_bytes().to_vec())
}

fn searched(reply: ScanReply) -> (Option<u32>, bool) {
    match reply {
        ScanReply::Searched(searched) => (
            searched.reached.map(|block| block.height),
            searched.found.is_some(),
        ),
        other => panic!("nothing searched: {other:?}"),
    }
}

#[async_trait]
impl BlockReader for Hours {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(Hours::tip(self))
    }

    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        let mut all = (0..).zip(&self.blocks);
        let found = all.find(|(_, block)| block.block_hash() == *hash);
        let (height, block) = found.ok_or_else(|| ChainError::NotFound(hash.to_string()))?;
        Ok((block.header, height))
    }

    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        let block = self.blocks.get(height as usize);
        let hash = block.map(Block::block_hash);
        hash.ok_or_else(|| ChainError::NotFound(height.to_string()))
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let (_, height) = self.header(hash).await?;
        match height < self.pruned_below {
            true => Err(ChainError::Pruned),
            false if height >= self.lost_from => Err(ChainError::NotFound(hash.to_string())),
            false => Ok(self.blocks[height as usize].clone()),
        }
    }
}

#[tokio::test]
async fn a_request_ends_at_the_first_match_or_after_its_share_of_blocks() {
    let chain = Hours::new(250);
    assert_eq!(searched(chain.find(1, None, 40).await), (Some(40), true));
    assert_eq!(searched(chain.find(41, None, 40).await), (Some(140), false));
    assert_eq!(
        searched(chain.find(241, None, 40).await),
        (Some(250), false)
    );
    assert_eq!(searched(chain.find(251, None, 40).await), (None, false));
}

#[tokio::test]
async fn blocks_of_another_chain_are_not_searched() {
    let chain = Hours::new(20);
    let parent = Some(chain.at(9).hash);
    assert_eq!(searched(chain.find(10, parent, 12).await), (Some(12), true));
    let other = Some(chain.at(8).hash);
    let reply = chain.find(10, other, 12).await;
    assert!(matches!(reply, ScanReply::OtherParent), "{reply:?}");

    let request = ScanRequest {
        tip: BlockRef {
            height: 20,
            hash: chain.at(19).hash,
        },
        step: ScanStep::FindHeight { unix_s: 0 },
    };
    let reply = scan(&chain, &request).await.unwrap();
    assert!(matches!(reply, ScanReply::OtherTip), "{reply:?}");
}

#[tokio::test]
async fn a_block_that_the_source_does_not_give_is_named_by_its_height() {
    let chain = Hours {
        lost_from: 150,
        ..Hours::new(250)
    };
    let refused = chain.try_find(149, None, 200).await.unwrap_err();
    assert_eq!(refused.code(), Code::BlockUnavailable);
    assert!(refused.to_string().contains("block 150"), "{refused}");
}

#[tokio::test]
async fn a_pruned_block_is_named_by_its_height() {
    let chain = Hours {
        pruned_below: 150,
        ..Hours::new(250)
    };
    let refused = chain.try_find(149, None, 200).await.unwrap_err();
    assert_eq!(refused.code(), Code::BlockPruned);
    assert!(refused.to_string().contains("block 149"), "{refused}");
    assert_eq!(
        searched(chain.find(150, None, 200).await),
        (Some(200), true)
    );
}

#[tokio::test]
async fn a_date_is_found_with_a_margin_of_a_day() {
    let chain = Hours::new(250);
    assert_eq!(chain.height_of(time(100)).await, 76);
    assert_eq!(chain.height_of(time(100) + 1).await, 77);
    // The genesis block is older than all others.
    assert_eq!(chain.height_of(time(1)).await, 1);
    assert_eq!(chain.height_of(0).await, 0);
    assert_eq!(chain.height_of(time(250) + 2 * DAY).await, 251);
}
