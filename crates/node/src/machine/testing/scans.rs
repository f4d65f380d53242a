//! The chain's answers to searches of past blocks.

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction};
use longhand_chain::{
    BlockReader, BlockRef, ChainError, ScanError, ScanReply, ScanRequest, ScanStep, scan,
};

/// See the module.
#[derive(Default)]
pub(crate) struct Scans {
    /// The heights from which blocks were asked for, in order.
    pub from: Vec<u32>,
    /// Blocks below this height have no content any more.
    pub pruned_below: u32,
    /// The answer is kept back.
    pub is_held: bool,
    pub held: Option<Result<ScanReply, ScanError>>,
}

impl Scans {
    pub(super) fn answer(
        &mut self,
        blocks: &[(Header, Vec<Transaction>)],
        request: ScanRequest,
    ) -> Option<Result<ScanReply, ScanError>> {
        if let ScanStep::FindBlock { from, .. } = &request.step {
            self.from.push(*from);
        }
        let reader = Reader {
            blocks: blocks.to_vec(),
            pruned_below: self.pruned_below,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let answer = runtime.unwrap().block_on(scan(&reader, &request));
        if self.is_held {
            self.held = Some(answer);
            return None;
        }
        Some(answer)
    }
}

struct Reader {
    blocks: Vec<(Header, Vec<Transaction>)>,
    pruned_below: u32,
}

impl Reader {
    fn find(&self, hash: &BlockHash) -> Result<(u32, &(Header, Vec<Transaction>)), ChainError> {
        let mut blocks = (0..).zip(&self.blocks);
        let found = blocks.find(|(_, (header, _))| header.block_hash() == *hash);
        found.ok_or_else(|| ChainError::NotFound(hash.to_string()))
    }
}

#[async_trait]
impl BlockReader for Reader {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        let height = u32::try_from(self.blocks.len() - 1).unwrap();
        let hash = self.hash_at(height).await?;
        Ok(BlockRef { height, hash })
    }

    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        let (height, (header, _)) = self.find(hash)?;
        Ok((*header, height))
    }

    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        let block = self.blocks.get(height as usize);
        let hash = block.map(|(header, _)| header.block_hash());
        hash.ok_or_else(|| ChainError::NotFound(height.to_string()))
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let (height, (header, txs)) = self.find(hash)?;
        match height < self.pruned_below {
            true => Err(ChainError::Pruned),
            false => Ok(Block {
                header: *header,
                txdata: txs.clone(),
            }),
        }
    }
}
