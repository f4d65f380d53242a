//! A devnet in this process alone: its source answers as one over RPC, and it starts from a prepared chain.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash as _;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::Builder;
use bitcoin::{Amount, Block, BlockHash, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use longhand_chain::{
    BlockReader, ChainError, Devnet, DevnetConfig, FeeRates, FeeSource, OutputLookup,
    PreparedChain, TransactionRelay,
};
use serde_json::json;

use crate::keys::{Coin, Key, coin};

/// All parts of a chain source.
trait Source: BlockReader + TransactionRelay + FeeSource + OutputLookup {}

impl<T: BlockReader + TransactionRelay + FeeSource + OutputLookup> Source for T {}

/// Two devnets with the same chain: one with a source over RPC, the other with a direct source.
struct Twins {
    over_rpc: Devnet,
    direct: Devnet,
}

impl Twins {
    async fn new(prepared: &PreparedChain) -> Twins {
        let config = DevnetConfig {
            premine: 0,
            ..DevnetConfig::default()
        };
        let twins = Twins {
            over_rpc: Devnet::start(config).await.unwrap(),
            direct: Devnet::in_process_from(prepared).unwrap(),
        };
        for block in &prepared.blocks {
            twins.give(block).await;
        }
        assert_eq!(twins.over_rpc.tip(), twins.direct.tip());
        twins
    }

    /// Submits a block to the one with RPC.
    async fn give(&self, block: &Block) {
        let params = [json!(serialize_hex(block))];
        let answer = self.over_rpc.source().call("submitblock", &params).await;
        assert_eq!(answer.unwrap(), json!(null));
    }

    /// Mines the mempool, the same block on both.
    async fn mine(&self) {
        let hashes = self.direct.mine_to_wallet(1).unwrap();
        self.give(&self.direct.block(&hashes[0]).unwrap()).await;
    }

    /// Calls both sources, and returns their common answer.
    async fn ask<T: Debug>(&self, what: &str, question: impl AsyncFn(&dyn Source) -> T) -> T {
        let answer = question(&self.over_rpc.source()).await;
        let direct = question(&self.direct.direct_source()).await;
        assert_eq!(format!("{direct:?}"), format!("{answer:?}"), "{what}");
        direct
    }

    async fn broadcast(&self, what: &str, package: &[Transaction]) -> Result<(), ChainError> {
        let answer = self.ask(what, async |source| source.broadcast(package).await);
        let answer = answer.await;
        assert_eq!(pool(&self.direct), pool(&self.over_rpc), "{what}");
        answer
    }
}

/// The mempool, by id: its own order depends on the second in which each transaction came.
fn pool(devnet: &Devnet) -> BTreeMap<Txid, Transaction> {
    let txs = devnet.mempool().into_iter();
    txs.map(|tx| (tx.compute_txid(), tx)).collect()
}

/// A chain with this number of coins of `key`.
fn funded(key: &Key, coins: usize) -> (PreparedChain, Vec<Coin>) {
    let devnet = Devnet::in_process(110).unwrap();
    let coins = (0..coins).map(|_| key.fund(&devnet, 5_000_000)).collect();
    (devnet.prepared(), coins)
}

#[tokio::test]
async fn answers_about_the_chain_are_those_of_rpc() {
    let key = Key::new(1);
    let (prepared, coins) = funded(&key, 1);
    let twins = Twins::new(&prepared).await;
    let tip = twins.ask("tip", async |s| s.tip().await).await.unwrap();
    assert_eq!(tip.height, 111);

    for height in [0, 1, 110, 111, 112, u32::MAX] {
        let hash = twins.ask("hash_at", async |s| s.hash_at(height).await);
        assert_eq!(hash.await.is_ok(), height <= 111);
        let txids = twins.ask("block_txids", async |s| s.block_txids(height).await);
        let count = txids.await.unwrap().map(|txids| txids.len());
        let expected = if height == 111 { 2 } else { 1 };
        assert_eq!(count, (height <= 111).then_some(expected), "{height}");
    }
    let genesis = twins.direct.hash_at(0).unwrap();
    for hash in [genesis, tip.hash, BlockHash::all_zeros()] {
        let header = twins.ask("header", async |s| s.header(&hash).await).await;
        let block = twins.ask("block", async |s| s.block(&hash).await).await;
        let filter = twins.ask("filter", async |s| s.filter(&hash).await).await;
        assert_eq!(filter.is_ok(), hash != BlockHash::all_zeros());
        assert_eq!(header.is_ok(), hash != BlockHash::all_zeros());
        assert_eq!(block.is_ok(), hash != BlockHash::all_zeros());
    }

    let spend = key.spend(&coins[0], 500);
    twins
        .broadcast("a spend", std::slice::from_ref(&spend))
        .await
        .unwrap();
    let change = coin(&spend, &key.script()).0;
    for (outpoint, is_there) in [
        (coins[0].0, true),
        (change, false),
        (OutPoint::null(), false),
    ] {
        let found = twins.ask("unspent", async |s| s.unspent(&outpoint).await);
        // Outputs of the mempool do not count.
        assert_eq!(found.await.unwrap().is_some(), is_there);
    }
    twins.mine().await;
    let found = twins.ask("unspent", async |s| s.unspent(&change).await);
    assert!(found.await.unwrap().is_some());
}

#[tokio::test]
async fn a_disconnected_block_is_known_as_over_rpc() {
    let (prepared, _) = funded(&Key::new(1), 0);
    let twins = Twins::new(&prepared).await;
    let old = twins.direct.tip();
    for hash in twins.direct.reorg(2, vec![]).unwrap() {
        twins.give(&twins.direct.block(&hash).unwrap()).await;
    }
    let header = twins.ask("header", async |s| s.header(&old.hash).await);
    assert_eq!(header.await.unwrap().1, old.height);
    let block = twins.ask("block", async |s| s.block(&old.hash).await);
    assert_eq!(block.await.unwrap().block_hash(), old.hash);
    let filter = twins.ask("filter", async |s| s.filter(&old.hash).await);
    assert!(matches!(filter.await, Err(ChainError::NotFound(_))));
    let at = twins.ask("hash_at", async |s| s.hash_at(old.height).await);
    assert_ne!(at.await.unwrap(), old.hash);
}

#[tokio::test]
async fn broadcasts_have_the_results_of_rpc() {
    let key = Key::new(1);
    let (prepared, coins) = funded(&key, 8);
    let twins = Twins::new(&prepared).await;
    let [a, b, c, d, e, f, g, h] = &coins[..] else {
        panic!("eight coins")
    };
    let one = std::slice::from_ref::<Transaction>;

    let parent = key.spend(a, 500);
    let child = key.spend(&coin(&parent, &key.script()), 500);
    let both = [parent.clone(), child.clone()];
    twins.broadcast("nothing", &[]).await.unwrap();
    twins.broadcast("one", one(&parent)).await.unwrap();
    twins.broadcast("once more", one(&parent)).await.unwrap();
    twins.broadcast("with its child", &both).await.unwrap();
    twins.broadcast("both again", &both).await.unwrap();

    let free = key.spend(b, 0);
    let payer = key.spend(&coin(&free, &key.script()), 1_000);
    let refused = twins.broadcast("pays nothing", one(&free)).await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("min relay fee"))
    );
    let paid_for = [free, payer];
    twins.broadcast("its child pays", &paid_for).await.unwrap();

    let free = key.spend(c, 0);
    let stingy = key.spend(&coin(&free, &key.script()), 20);
    let package = [free, stingy];
    let refused = twins.broadcast("both pay too little", &package).await;
    assert!(matches!(
        refused,
        Err(ChainError::Rejected {
            is_final: false,
            ..
        })
    ));

    let mut missing = key.spend(d, 500);
    missing.input[0].previous_output.vout += 7;
    let refused = twins.broadcast("no such coin", one(&missing)).await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("missingorspent"))
    );
    let mut forged = key.spend(d, 500);
    forged.output[0].value -= Amount::from_sat(1);
    let refused = twins.broadcast("another's signature", one(&forged)).await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: true }) if reason.contains("script"))
    );

    let burnt = key.build(std::slice::from_ref(e), 500, |tx| {
        tx.output[0].script_pubkey = Builder::new().push_opcode(OP_RETURN).into_script();
    });
    let refused = twins.broadcast("burns money", one(&burnt)).await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("maxburnamount"))
    );
    let refused = twins
        .broadcast("fee by mistake", one(&key.spend(e, 4_000_000)))
        .await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("Fee exceeds"))
    );
    let dust = key.build(std::slice::from_ref(e), 500, |tx| {
        tx.output.push(TxOut {
            value: Amount::from_sat(1),
            script_pubkey: key.script(),
        });
    });
    let refused = twins.broadcast("dust", one(&dust)).await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("dust"))
    );

    let first = key.spend(f, 500);
    twins
        .broadcast("to be replaced", one(&first))
        .await
        .unwrap();
    let refused = twins
        .broadcast("for too little more", one(&key.spend(f, 501)))
        .await;
    assert!(matches!(
        refused,
        Err(ChainError::Rejected {
            is_final: false,
            ..
        })
    ));
    twins
        .broadcast("for enough more", one(&key.spend(f, 1_000)))
        .await
        .unwrap();

    let unrelated = [key.spend(g, 500), key.spend(h, 500)];
    // Not a package, but each is accepted by itself.
    twins.broadcast("no relation", &unrelated).await.unwrap();
    let twice = [unrelated[0].clone(), unrelated[0].clone()];
    twins.broadcast("twice the same", &twice).await.unwrap();
    let mut empty = key.spend(c, 500);
    empty.input.clear();
    assert!(twins.broadcast("no inputs", one(&empty)).await.is_err());
    let many = vec![unrelated[0].clone(); 26];
    twins.broadcast("too many", &many).await.unwrap();

    twins.mine().await;
    assert_eq!(twins.direct.mempool(), []);
    // The parent's output is spent, the child's is not.
    twins.broadcast("mined", one(&parent)).await.unwrap();
    twins.broadcast("both mined", &both).await.unwrap();
    twins
        .broadcast("mined with its child", &paid_for)
        .await
        .unwrap();
}

#[tokio::test]
async fn fee_rates_are_those_that_were_set_and_the_mempool_keeps_to_them() {
    let key = Key::new(1);
    let (prepared, coins) = funded(&key, 2);
    let twins = Twins::new(&prepared).await;
    let rates = async || {
        let rates = twins.ask("fee_rates", async |s| s.fee_rates().await);
        rates.await.unwrap()
    };
    let set = |rates| [&twins.over_rpc, &twins.direct].map(|devnet| devnet.set_fee_rates(rates));
    assert_eq!(rates().await, FeeRates::FLOOR);

    let spike = FeeRates {
        urgent: 50_000,
        normal: 25_001,
        background: 10_000,
        minimum: 2_500,
        is_estimate: true,
    };
    set(spike);
    assert_eq!(rates().await, spike);
    let cheap = [key.spend(&coins[0], 500)];
    let refused = twins.broadcast("at 5 sat/vB", &cheap).await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("mempool min fee"))
    );
    let dear = [key.spend(&coins[1], 1_500)];
    twins.broadcast("at 14 sat/vB", &dear).await.unwrap();

    // Rates in the wrong order are corrected in the same way.
    set(FeeRates {
        urgent: 1,
        normal: 7_000,
        background: 300,
        minimum: 1,
        is_estimate: true,
    });
    let odd = rates().await;
    assert_eq!((odd.urgent, odd.normal), (7_000, 7_000));
    assert_eq!((odd.background, odd.minimum), (300, 253));

    set(FeeRates::FLOOR);
    assert_eq!(rates().await, FeeRates::FLOOR);
    twins.broadcast("at 5 sat/vB", &cheap).await.unwrap();
}

#[test]
fn a_prepared_chain_is_loaded_with_its_wallet() {
    let devnet = Devnet::in_process(110).unwrap();
    let key = Key::new(1);
    let (outpoint, output) = key.fund(&devnet, 1_000_000);
    let prepared = devnet.prepared();
    drop(devnet);

    let devnet = Devnet::in_process_from(&prepared).unwrap();
    assert_eq!(devnet.tip().height, 111);
    assert_eq!(devnet.unspent(&outpoint), Some(output));
    assert_eq!(devnet.prepared().blocks, prepared.blocks);
    let txid = devnet
        .faucet(&key.address(), Amount::from_sat(5_000_000))
        .unwrap();
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(devnet.confirmed_at(&txid), Some(112));
}

#[test]
fn a_trusted_chain_is_continued_and_validated_on_request() {
    let devnet = Devnet::in_process(110).unwrap();
    let key = Key::new(1);
    let (outpoint, output) = key.fund(&devnet, 1_000_000);
    let prepared = devnet.prepared();

    let devnet = Devnet::in_process_trusting(&prepared).unwrap();
    assert_eq!(devnet.tip().height, 111);
    let spend = key.spend(&(outpoint, output), 500);
    devnet.submit(&spend).unwrap();
    devnet.mine_to_wallet(2).unwrap();
    assert_eq!(devnet.confirmed_at(&spend.compute_txid()), Some(112));
    assert_eq!(devnet.prepared().blocks[..111], prepared.blocks);
    let tip = devnet.tip();
    devnet.validate().unwrap();
    assert_eq!(devnet.tip(), tip);
    devnet.mine_to_wallet(1).unwrap();
    devnet.reorg(2, vec![]).unwrap();
    assert_eq!(devnet.tip().height, 115);

    let mut bad = prepared;
    bad.blocks.remove(2);
    assert!(Devnet::in_process_trusting(&bad).is_err());
}

/// A coinbase of one satoshi too much is found.
#[test]
fn validation_of_a_trusted_chain_finds_an_invalid_block() {
    let mut prepared = Devnet::in_process(3).unwrap().prepared();
    let greedy = prepared.blocks.last_mut().unwrap();
    greedy.txdata[0].output[0].value += Amount::from_sat(1);
    greedy.header.merkle_root = greedy.compute_merkle_root().unwrap();
    let target = greedy.header.target();
    while greedy.header.validate_pow(target).is_err() {
        greedy.header.nonce += 1;
    }

    let devnet = Devnet::in_process_trusting(&prepared).unwrap();
    devnet.mine_to_wallet(1).unwrap();
    let refusal = devnet.validate().unwrap_err().to_string();
    assert!(refusal.contains("Consensus"), "{refusal}");
    // From then on no block is trusted.
    assert!(devnet.mine_to_wallet(1).is_err());
    assert!(devnet.validate().is_err());
}

#[test]
fn the_same_steps_on_a_prepared_chain_make_the_same_transactions() {
    let prepared = Devnet::in_process(101).unwrap().prepared();
    let steps = || {
        let devnet = Devnet::in_process_from(&prepared).unwrap();
        let key = Key::new(1);
        let coin = key.fund(&devnet, 1_000_000);
        devnet.submit(&key.spend(&coin, 500)).unwrap();
        devnet.mine_to_wallet(1).unwrap();
        let blocks = devnet.prepared().blocks;
        let txids = blocks.iter().flat_map(|block| &block.txdata);
        txids.map(Transaction::compute_txid).collect::<Vec<_>>()
    };
    assert_eq!(steps(), steps());
}

#[test]
fn blocks_that_do_not_form_a_valid_chain_are_refused() {
    let good = Devnet::in_process(5).unwrap().prepared();
    let refused = |change: fn(&mut Vec<Block>)| {
        let mut bad = good.clone();
        change(&mut bad.blocks);
        Devnet::in_process_from(&bad).err().expect("is refused")
    };
    let error = refused(|blocks| drop(blocks.remove(2)));
    assert!(error.to_string().contains("not one chain"), "{error}");
    // Real validation: the coinbase of a block may not pay too much.
    let error = refused(|blocks| {
        let block = &mut blocks[4];
        block.txdata[0].output[0].value += Amount::from_sat(1);
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        while block.header.validate_pow(block.header.target()).is_err() {
            block.header.nonce += 1;
        }
    });
    assert!(
        matches!(error, longhand_chain::DevnetError::Block(_)),
        "{error}"
    );
}

#[tokio::test]
async fn there_is_no_rpc() {
    let devnet = Devnet::in_process(1).unwrap();
    assert_eq!(devnet.rpc_addr().port(), 0);
    let error = devnet.source().tip().await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable { .. }), "{error}");
    devnet.shutdown().await;
}

#[test]
fn no_method_needs_a_runtime() {
    let devnet = Devnet::in_process(1).unwrap();
    devnet.mine(1, ScriptBuf::new()).unwrap();
    let source = devnet.direct_source();
    let tip = source.tip();
    let ready =
        std::pin::pin!(tip).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(matches!(ready, std::task::Poll::Ready(Ok(tip)) if tip.height == 2));
}
