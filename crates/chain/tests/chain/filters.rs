//! Compact filters of blocks, of a devnet over RPC and by the follower, as `longhand-spv` checks them.

use std::time::Duration;

use bitcoin::bip158::FilterHeader;
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash, Network, ScriptBuf};
use longhand_chain::{
    BitcoindSource, BlockReader as _, Chain as _, ChainError, Devnet, FiltersReply, FiltersRequest,
    Follower, FollowerConfig,
};
use longhand_spv::filter::filter_hash;
use longhand_spv::{Checkpoint, Filter, FilterChain, Headers, Params};

use crate::keys::Key;
use crate::kinds::Kind;

/// A clock ahead of all blocks.
const NOW_UNIX_S: u64 = 4_000_000_000;

/// What a phone knows: headers, and the chain of filter headers that it makes of filters.
struct Phone {
    headers: Headers,
    filters: FilterChain,
}

impl Phone {
    fn new() -> Phone {
        let params = Params::of(Network::Regtest);
        let checkpoint = Checkpoint::genesis(Network::Regtest);
        Phone {
            headers: Headers::new(params, checkpoint),
            filters: FilterChain::from_genesis(),
        }
    }

    /// Takes the headers of the best chain and the filters that are missing; each has to be that of the filter header
    /// that the source gives. Returns how many filters were missing.
    async fn follow(&mut self, source: &BitcoindSource) -> u32 {
        let tip = source.tip().await.unwrap();
        let headers = source.headers(1, tip.height).await.unwrap();
        // Nothing is stored.
        let _ = self.headers.extend(&headers, NOW_UNIX_S).unwrap();
        assert_eq!(self.headers.hash(tip.height), Some(tip.hash));
        self.filters.sync(&self.headers);
        let first = self.filters.next_height();
        for height in first..=tip.height {
            let hash = self.headers.hash(height).unwrap();
            let given = source.filter(&hash).await.unwrap();
            let hashes = [filter_hash(&given.filter)];
            self.filters.extend(&self.headers, &hashes).unwrap();
            assert_eq!(self.filters.header(height), Some(given.header));
            self.filters.check(height, &given.filter).unwrap();
        }
        tip.height + 1 - first
    }
}

/// All scripts that a block pays to or spends from.
fn scripts(devnet: &Devnet, block: &Block) -> Vec<ScriptBuf> {
    let paid = block.txdata.iter().flat_map(|tx| &tx.output).cloned();
    let inputs = block.txdata.iter().skip(1).flat_map(|tx| &tx.input);
    let spent = inputs.map(|input| {
        let outpoint = input.previous_output;
        let tx = devnet.transaction(&outpoint.txid).unwrap();
        tx.output[outpoint.vout as usize].clone()
    });
    let scripts = paid.chain(spent).map(|output| output.script_pubkey);
    scripts.filter(|script| !script.is_op_return()).collect()
}

async fn filter_of(source: &BitcoindSource, hash: BlockHash) -> Filter {
    Filter::parse(hash, &source.filter(&hash).await.unwrap().filter).unwrap()
}

#[tokio::test]
async fn a_filter_has_the_scripts_of_a_blocks_outputs_and_of_those_it_spends() {
    let devnet = Devnet::start_default().await.unwrap();
    let source = devnet.source();
    let (payer, other) = (Key::new(1), Key::new(2));
    let coin = payer.fund(&devnet, 100_000);
    let spend = payer.build(&[coin], 500, |tx| {
        tx.output[0].script_pubkey = other.script();
    });
    devnet.submit(&spend).unwrap();
    let hash = devnet.mine_to_wallet(1).unwrap()[0];
    let block = devnet.block(&hash).unwrap();
    assert_eq!(block.txdata.len(), 2);

    let filter = filter_of(&source, hash).await;
    let scripts = scripts(&devnet, &block);
    assert!(scripts.contains(&payer.script()) && scripts.contains(&other.script()));
    assert!(scripts.iter().all(|script| filter.matches(script)));
    assert!(filter.has_outputs_of(&block));
    assert_eq!(filter.count(), 3);
    assert!(!filter.matches(&Key::new(3).script()));

    let empty = devnet.mine_to_wallet(1).unwrap()[0];
    let filter = filter_of(&source, empty).await;
    assert!(!filter.matches(&payer.script()) && !filter.matches(&other.script()));
}

#[tokio::test]
async fn the_first_filter_header_follows_one_of_zeros() {
    let devnet = Devnet::start_default().await.unwrap();
    let genesis = devnet.hash_at(0).unwrap();
    let given = devnet.source().filter(&genesis).await.unwrap();
    let header = filter_hash(&given.filter).filter_header(&FilterHeader::all_zeros());
    assert_eq!(given.header, header);
    let script = &devnet.block(&genesis).unwrap().txdata[0].output[0].script_pubkey;
    let filter = Filter::parse(genesis, &given.filter).unwrap();
    assert!(filter.matches(script));
    assert_eq!(filter.count(), 1);
}

#[tokio::test]
async fn filters_make_the_chain_of_filter_headers_also_after_a_reorganisation() {
    let devnet = Devnet::start_default().await.unwrap();
    let source = devnet.source();
    let key = Key::new(1);
    let coin = key.fund(&devnet, 100_000);
    let mut phone = Phone::new();
    assert_eq!(phone.follow(&source).await, 112);

    // The spend leaves the chain, and comes back in another block.
    let spend = key.spend(&coin, 500);
    devnet.submit(&spend).unwrap();
    let old = devnet.mine_to_wallet(2).unwrap();
    assert_eq!(phone.follow(&source).await, 2);
    let before = phone.filters.header(112);
    devnet.reorg(2, vec![]).unwrap();
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(phone.follow(&source).await, 4);
    assert_ne!(phone.filters.header(112), before);
    let stale = source.filter(&old[0]).await;
    assert!(matches!(stale, Err(ChainError::NotFound(_))), "{stale:?}");
    let at = devnet.confirmed_at(&spend.compute_txid()).unwrap();
    let filter = filter_of(&source, devnet.hash_at(at).unwrap()).await;
    assert!(filter.matches(&key.script()));

    // Back to the old chain.
    let params = [serde_json::json!(devnet.hash_at(112).unwrap())];
    source.call("invalidateblock", &params).await.unwrap();
    assert_eq!(devnet.hash_at(113), Some(old[1]));
    let mut anew = Phone::new();
    assert_eq!(anew.follow(&source).await, 114);
    assert_eq!(anew.filters.header(112), before);
}

#[tokio::test]
async fn an_esplora_server_has_no_filters() {
    let devnet = Kind::Esplora.devnet().await;
    let blocks = Kind::Esplora.source(&devnet).blocks;
    let error = blocks.filter(&devnet.tip().hash).await.unwrap_err();
    assert!(matches!(error, ChainError::NoFilters));
    assert!(!error.is_source_unavailable());
    assert_eq!(
        error.to_string(),
        "the chain source has no compact filters of blocks: start Bitcoin Core with blockfilterindex=1"
    );
    let asked = follower(&devnet, Kind::Esplora)
        .await
        .filters(from(1))
        .await;
    assert!(matches!(asked, Err(ChainError::NoFilters)), "{asked:?}");
}

fn from(height: u32) -> FiltersRequest {
    FiltersRequest {
        from: height,
        with_block: false,
    }
}

/// A follower at the devnet's tip.
async fn follower(devnet: &Devnet, kind: Kind) -> Follower {
    let config = FollowerConfig {
        poll_interval: Duration::from_millis(5),
        ..FollowerConfig::default()
    };
    let follower = Follower::start(kind.source(devnet), config);
    reach_tip(&follower, devnet).await;
    follower
}

async fn reach_tip(follower: &Follower, devnet: &Devnet) {
    let tip = Some(devnet.tip());
    let mut tips = follower.tips();
    tips.wait_for(|at| *at == tip).await.unwrap();
}

/// The filter headers of a reply have to be those of the phone.
fn check(phone: &Phone, reply: &FiltersReply) {
    let below = reply.first_height - 1;
    assert_eq!(phone.filters.header(below), Some(reply.previous));
    for (height, filter) in (reply.first_height..).zip(&reply.filters) {
        phone.filters.check(height, filter).unwrap();
    }
}

#[tokio::test]
async fn a_follower_gives_the_filters_of_its_source_up_to_the_tip() {
    let devnet = Kind::Rpc.devnet().await;
    let follower = follower(&devnet, Kind::Rpc).await;
    let mut phone = Phone::new();
    phone.follow(&devnet.source()).await;
    let reply = follower.filters(from(1)).await.unwrap();
    assert_eq!((reply.filters.len(), reply.tip), (110, devnet.tip()));
    check(&phone, &reply);

    devnet.reorg(3, vec![]).unwrap();
    reach_tip(&follower, &devnet).await;
    phone.follow(&devnet.source()).await;
    let reply = follower.filters(from(107)).await.unwrap();
    assert_eq!((reply.filters.len(), reply.tip), (5, devnet.tip()));
    check(&phone, &reply);

    let request = FiltersRequest {
        from: 109,
        with_block: true,
    };
    let reply = follower.filters(request).await.unwrap();
    assert_eq!(reply.filters.len(), 1);
    check(&phone, &reply);
    let block = devnet.block(&devnet.hash_at(109).unwrap());
    assert_eq!(reply.block, block);
}
