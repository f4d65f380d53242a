#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::HashMap;

use async_trait::async_trait;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::{Block, Network, TxMerkleNode};

use super::*;

/// Blocks without work or content and filters that are none, which count the requests for them.
struct Blocks {
    blocks: Vec<Block>,
    filters: HashMap<BlockHash, BlockFilter>,
    has_filters: bool,
    /// Bytes of a filter.
    size: usize,
    /// Requests for anything.
    questions: Mutex<u32>,
    /// The heights whose filters were asked for.
    asked: Mutex<Vec<u32>>,
}

impl Blocks {
    fn new(count: u32) -> Blocks {
        Blocks::with_filters_of(10, count)
    }

    fn with_filters_of(size: usize, count: u32) -> Blocks {
        let genesis = genesis_block(Network::Regtest);
        let mut blocks = Blocks {
            blocks: Vec::new(),
            filters: HashMap::new(),
            has_filters: true,
            size,
            questions: Mutex::default(),
            asked: Mutex::default(),
        };
        blocks.add(genesis, FilterHeader::all_zeros());
        blocks.extend(count, 0);
        blocks
    }

    /// Other blocks than those of another `name`.
    fn extend(&mut self, count: u32, name: u8) {
        for _ in 0..count {
            let last = self.blocks.last().unwrap();
            let mut block = last.clone();
            block.header.prev_blockhash = last.block_hash();
            block.header.merkle_root = TxMerkleNode::from_byte_array([name; 32]);
            let previous = self.filters[&last.block_hash()].header;
            self.add(block, previous);
        }
    }

    fn add(&mut self, block: Block, previous: FilterHeader) {
        let hash = block.block_hash();
        let mut filter = hash.as_byte_array().to_vec();
        filter.resize(self.size, 0);
        let header = filter_hash(&filter).filter_header(&previous);
        self.filters.insert(hash, BlockFilter { filter, header });
        self.blocks.push(block);
    }

    fn hash(&self, height: u32) -> BlockHash {
        self.blocks[height as usize].block_hash()
    }

    fn tip(&self) -> BlockRef {
        let height = u32::try_from(self.blocks.len() - 1).unwrap();
        BlockRef {
            height,
            hash: self.hash(height),
        }
    }

    /// The filters of the blocks at these heights.
    fn filters(&self, heights: std::ops::RangeInclusive<u32>) -> Vec<Vec<u8>> {
        let filters = heights.map(|height| self.filters[&self.hash(height)].filter.clone());
        filters.collect()
    }

    fn header(&self, height: u32) -> FilterHeader {
        self.filters[&self.hash(height)].header
    }

    fn asked(&self) -> Vec<u32> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn questions(&self) -> u32 {
        std::mem::take(&mut self.questions.lock().unwrap())
    }

    fn find(&self, hash: &BlockHash) -> Result<(u32, &Block), ChainError> {
        let mut all = (0..).zip(&self.blocks);
        let found = all.find(|(_, block)| block.block_hash() == *hash);
        found.ok_or_else(|| ChainError::NotFound(hash.to_string()))
    }

    fn count(&self) {
        *self.questions.lock().unwrap() += 1;
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
        self.count();
        let block = self.blocks.get(height as usize);
        let block = block.ok_or_else(|| ChainError::NotFound(height.to_string()))?;
        Ok(block.block_hash())
    }
    async fn headers(&self, from: u32, count: u32) -> Result<Vec<Header>, ChainError> {
        self.count();
        let blocks = self
            .blocks
            .get(from as usize..from as usize + count as usize);
        let blocks = blocks.ok_or_else(|| ChainError::NotFound(from.to_string()))?;
        Ok(blocks.iter().map(|block| block.header).collect())
    }
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        self.count();
        Ok(self.find(hash)?.1.clone())
    }
    async fn filter(&self, hash: &BlockHash) -> Result<BlockFilter, ChainError> {
        self.count();
        // Others may ask meanwhile.
        tokio::task::yield_now().await;
        if !self.has_filters {
            return Err(ChainError::NoFilters);
        }
        self.asked.lock().unwrap().push(self.find(hash)?.0);
        Ok(self.filters[hash].clone())
    }
}

/// As in a follower.
struct Servers {
    headers: HeaderServer,
    filters: FilterServer,
}

impl Servers {
    fn new() -> Servers {
        Servers::keeping(MOST_BYTES_KEPT)
    }

    fn keeping(most_bytes: usize) -> Servers {
        Servers {
            headers: HeaderServer::new(),
            filters: FilterServer::keeping(most_bytes),
        }
    }

    async fn from(&self, blocks: &Blocks, from: u32) -> Result<FiltersReply, ChainError> {
        self.ask(blocks, blocks.tip(), from, false).await
    }

    async fn ask(
        &self,
        blocks: &Blocks,
        tip: BlockRef,
        from: u32,
        with_block: bool,
    ) -> Result<FiltersReply, ChainError> {
        let request = FiltersRequest { from, with_block };
        let Servers { headers, filters } = self;
        filters.from(blocks, headers, tip, &request).await
    }
}

#[tokio::test]
async fn filters_are_in_order_from_a_height_up_to_the_tip() {
    let blocks = Blocks::new(30);
    let servers = Servers::new();
    let reply = servers.from(&blocks, 11).await.unwrap();
    let expected = FiltersReply {
        first_height: 11,
        previous: blocks.header(10),
        filters: blocks.filters(11..=30),
        blocks: (11..=30).map(|height| blocks.hash(height)).collect(),
        block: None,
        tip: blocks.tip(),
    };
    assert_eq!(reply, expected);

    let reply = servers.from(&blocks, 30).await.unwrap();
    assert_eq!(reply.previous, blocks.header(29));
    assert_eq!(reply.filters, blocks.filters(30..=30));
    let reply = servers.from(&blocks, 1).await.unwrap();
    assert_eq!(reply.previous, blocks.header(0));
    assert_eq!(reply.filters, blocks.filters(1..=30));
}

#[tokio::test]
async fn what_is_not_in_the_chain_is_not_asked_for() {
    let blocks = Blocks::new(30);
    let servers = Servers::new();
    for height in [0, 31, u32::MAX] {
        let refused = servers.from(&blocks, height).await;
        assert!(
            matches!(refused, Err(ChainError::NotFound(_))),
            "{refused:?}"
        );
    }
    assert_eq!(blocks.questions(), 0);
}

#[tokio::test]
async fn a_reply_has_a_thousand_filters_or_256_kib_and_always_one() {
    let blocks = Blocks::new(1_500);
    let servers = Servers::new();
    let reply = servers.from(&blocks, 101).await.unwrap();
    assert_eq!(reply.filters, blocks.filters(101..=1_100));
    let reply = servers.from(&blocks, 1_101).await.unwrap();
    assert_eq!(reply.filters, blocks.filters(1_101..=1_500));

    for (size, count) in [(75_000, 3), (1 << 17, 2), (1 << 18, 1), (2 << 18, 1)] {
        let blocks = Blocks::with_filters_of(size, 5);
        let reply = Servers::new().from(&blocks, 2).await.unwrap();
        assert_eq!(reply.filters, blocks.filters(2..=count + 1));
        // One more may have been fetched, for the next reply.
        assert!(blocks.asked().len() <= count as usize + 3);
    }
}

#[tokio::test]
async fn a_block_comes_with_its_filter_alone() {
    let blocks = Blocks::new(30);
    let reply = Servers::new().ask(&blocks, blocks.tip(), 12, true).await;
    let reply = reply.unwrap();
    assert_eq!(reply.block.as_ref(), Some(&blocks.blocks[12]));
    assert_eq!(reply.previous, blocks.header(11));
    assert_eq!(reply.filters, blocks.filters(12..=12));
    // That of the tip shows that there are filters.
    assert_eq!(blocks.asked(), [30, 11, 12]);
}

/// Each height from `first` to the tip once, that of the tip before the others.
fn once(first: u32, tip: u32) -> Vec<u32> {
    [tip].into_iter().chain(first..tip).collect()
}

#[tokio::test]
async fn filters_that_one_signer_got_are_not_fetched_again_for_the_next() {
    let mut blocks = Blocks::new(30);
    let servers = Servers::new();
    servers.from(&blocks, 11).await.unwrap();
    assert_eq!(blocks.asked(), once(10, 30));
    blocks.questions();
    let again = servers.from(&blocks, 15).await.unwrap();
    assert_eq!(again.filters, blocks.filters(15..=30));
    assert_eq!(blocks.questions(), 0);

    blocks.extend(1, 0);
    let next = servers.from(&blocks, 31).await.unwrap();
    assert_eq!(next.filters, blocks.filters(31..=31));
    assert_eq!(blocks.asked(), [31]);
}

#[tokio::test]
async fn a_hundred_that_ask_at_once_cost_the_source_one() {
    let blocks = Arc::new(Blocks::new(30));
    let servers = Arc::new(Servers::new());
    let ask = |_| {
        let (blocks, servers) = (blocks.clone(), servers.clone());
        tokio::spawn(async move { servers.from(&blocks, 11).await })
    };
    let asking: Vec<_> = (0..100).map(ask).collect();
    for asked in asking {
        let reply = asked.await.unwrap().unwrap();
        assert_eq!(reply.filters, blocks.filters(11..=30));
    }
    assert_eq!(blocks.asked(), once(10, 30));
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let blocks = Blocks::with_filters_of(1_000, 30);
    let most_bytes = 10 * (1_000 + ENTRY_BYTES);
    let servers = Servers::keeping(most_bytes);
    let reply = servers.from(&blocks, 1).await.unwrap();
    assert_eq!(reply.filters, blocks.filters(1..=30));
    {
        let kept = servers.filters.kept();
        assert_eq!(kept.bytes, most_bytes);
        assert_eq!((kept.order.len(), kept.by_block.len()), (10, 10));
    }
    blocks.asked();
    servers.from(&blocks, 22).await.unwrap();
    assert!(blocks.asked().is_empty());
    servers.from(&blocks, 20).await.unwrap();
    assert_eq!(blocks.asked()[..2], [19, 20]);
}

#[tokio::test]
async fn filters_of_another_chain_take_the_place_of_those_that_left_it() {
    let mut blocks = Blocks::new(30);
    let servers = Servers::new();
    let before = servers.from(&blocks, 25).await.unwrap();
    let old_tip = blocks.tip();
    blocks.blocks.truncate(29);
    blocks.extend(3, 1);
    blocks.asked();

    let reply = servers.from(&blocks, 25).await.unwrap();
    assert_eq!(reply.tip, blocks.tip());
    assert_eq!(reply.previous, before.previous);
    assert_eq!(reply.filters, blocks.filters(25..=31));
    assert_eq!(reply.filters[..4], before.filters[..4]);
    assert_ne!(reply.filters[4..6], before.filters[4..]);
    assert_eq!(blocks.asked(), [31, 29, 30]);

    // The follower has not seen it yet.
    let moved = Servers::new().ask(&blocks, old_tip, 25, false).await;
    assert!(matches!(moved, Err(ChainError::NotFound(_))), "{moved:?}");
}

#[tokio::test]
async fn a_source_without_filters_is_told_from_one_without_the_block() {
    let blocks = Blocks {
        has_filters: false,
        ..Blocks::new(30)
    };
    blocks.questions();
    let refused = Servers::new().from(&blocks, 11).await;
    assert_eq!(blocks.questions(), 1);
    assert!(matches!(refused, Err(ChainError::NoFilters)), "{refused:?}");
}

#[tokio::test]
async fn a_filter_that_is_not_that_of_its_header_is_refused_and_not_kept() {
    let change_filter: fn(&mut BlockFilter) = |it| it.filter[0] ^= 1;
    let change_header: fn(&mut BlockFilter) = |it| it.header = FilterHeader::all_zeros();
    // The filter of the block at 10 is not shown, but its header is.
    for (height, lie) in [
        (10, change_header),
        (11, change_filter),
        (15, change_header),
        (30, change_filter),
        (30, change_header),
    ] {
        let mut blocks = Blocks::new(30);
        let servers = Servers::new();
        let truth = blocks.filters.clone();
        let hash = blocks.hash(height);
        lie(blocks.filters.get_mut(&hash).unwrap());
        for _ in 0..2 {
            let refused = servers.from(&blocks, 11).await;
            assert!(
                matches!(refused, Err(ChainError::False(_))),
                "{height}: {refused:?}"
            );
        }
        blocks.filters = truth;
        let reply = servers.from(&blocks, 11).await.unwrap();
        assert_eq!(reply.filters, blocks.filters(11..=30));
        let kept = servers.filters.kept();
        assert_eq!(kept.order.len(), kept.by_block.len());
        assert_eq!(kept.bytes, 21 * (10 + ENTRY_BYTES));
    }
}
