//! What every source has to answer, against a devnet; and the credentials of Bitcoin Core.

use bitcoin::{Amount, Network, OutPoint};
use longhand_chain::{
    BitcoindAuth, BitcoindSource, BlockReader as _, ChainError, Devnet, FeeRates,
};

use crate::keys::{Key, coin};
use crate::kinds::{Kind, over_each_kind};

over_each_kind! {
    it_reads_the_chain,
    a_known_transaction_is_no_error,
    a_package_is_accepted_when_its_child_pays,
    a_rejected_transaction_has_a_reason,
    unspent_outputs_are_those_of_the_chain,
    another_network_is_refused,
    it_knows_headers_of_disconnected_blocks,
}

async fn it_reads_the_chain(kind: Kind) {
    let devnet = kind.devnet().await;
    let source = kind.source(&devnet);
    let tip = source.blocks.tip().await.unwrap();
    assert_eq!(tip, devnet.tip());
    assert_eq!(source.blocks.hash_at(tip.height).await.unwrap(), tip.hash);
    let block = source.blocks.block(&tip.hash).await.unwrap();
    assert_eq!(Some(&block), devnet.block(&tip.hash).as_ref());
    assert_eq!(
        source.blocks.header(&tip.hash).await.unwrap(),
        (block.header, tip.height)
    );
    assert_eq!(source.fees.fee_rates().await.unwrap(), FeeRates::FLOOR);
    let txids = block.txdata.iter().map(|tx| tx.compute_txid()).collect();
    assert_eq!(
        source.outputs.block_txids(tip.height).await.unwrap(),
        Some(txids)
    );
    assert_eq!(
        source.outputs.block_txids(tip.height + 1).await.unwrap(),
        None
    );
    assert!(matches!(
        source.blocks.hash_at(tip.height + 1).await,
        Err(ChainError::NotFound(_))
    ));
    let nothing = bitcoin::hashes::Hash::all_zeros();
    assert!(matches!(
        source.blocks.block(&nothing).await,
        Err(ChainError::NotFound(_))
    ));
    assert!(matches!(
        source.blocks.header(&nothing).await,
        Err(ChainError::NotFound(_))
    ));
}

async fn it_knows_headers_of_disconnected_blocks(kind: Kind) {
    let devnet = kind.devnet().await;
    let source = kind.source(&devnet);
    let old = source.blocks.tip().await.unwrap();
    // A block that was read.
    source.blocks.block(&old.hash).await.unwrap();
    devnet.reorg(1, vec![]).unwrap();
    let (header, height) = source.blocks.header(&old.hash).await.unwrap();
    assert_eq!((header.block_hash(), height), (old.hash, old.height));
}

async fn a_known_transaction_is_no_error(kind: Kind) {
    let devnet = kind.devnet().await;
    let source = kind.source(&devnet);
    let key = Key::new(1);
    let parent = key.spend(&key.fund(&devnet, 100_000), 500);
    let child = key.spend(&coin(&parent, &key.script()), 500);
    source
        .relay
        .broadcast(std::slice::from_ref(&parent))
        .await
        .unwrap();
    source
        .relay
        .broadcast(std::slice::from_ref(&parent))
        .await
        .unwrap();
    source
        .relay
        .broadcast(&[parent.clone(), child.clone()])
        .await
        .unwrap();
    assert_eq!(devnet.mempool().len(), 2);
    devnet.mine_to_wallet(1).unwrap();
    // The parent's output is spent, the child's is not.
    source
        .relay
        .broadcast(std::slice::from_ref(&parent))
        .await
        .unwrap();
    source.relay.broadcast(&[parent, child]).await.unwrap();
    source.relay.broadcast(&[]).await.unwrap();
}

async fn a_package_is_accepted_when_its_child_pays(kind: Kind) {
    let devnet = kind.devnet().await;
    let key = Key::new(1);
    let parent = key.spend(&key.fund(&devnet, 100_000), 0);
    let child = key.spend(&coin(&parent, &key.script()), 1_000);
    let source = kind.source(&devnet);
    let alone = source.relay.broadcast(std::slice::from_ref(&parent)).await;
    assert!(
        matches!(alone, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("min relay fee"))
    );
    source
        .relay
        .broadcast(&[parent.clone(), child.clone()])
        .await
        .unwrap();
    assert_eq!(devnet.mempool(), [parent, child]);
}

async fn a_rejected_transaction_has_a_reason(kind: Kind) {
    let devnet = kind.devnet().await;
    let source = kind.source(&devnet);
    let key = Key::new(1);
    let tx = key.spend(&(OutPoint::null(), key.fund(&devnet, 100_000).1), 500);
    assert!(matches!(
        source.relay.broadcast(&[tx]).await,
        Err(ChainError::Rejected { is_final: true, .. })
    ));
    let mut tx = key.spend(&key.fund(&devnet, 100_000), 500);
    tx.input[0].previous_output.vout += 7;
    let refused = source.relay.broadcast(&[tx]).await;
    assert!(
        matches!(refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("missingorspent"))
    );
}

async fn unspent_outputs_are_those_of_the_chain(kind: Kind) {
    let devnet = kind.devnet().await;
    let source = kind.source(&devnet);
    let key = Key::new(1);
    let funding = key.fund(&devnet, 123_456_789);
    let spend = key.spend(&funding, 500);
    devnet.submit(&spend).unwrap();
    let output = source.outputs.unspent(&funding.0).await.unwrap().unwrap();
    assert_eq!(output.value, Amount::from_sat(123_456_789));
    assert_eq!(output, funding.1);
    assert_eq!(
        source
            .outputs
            .unspent(&coin(&spend, &key.script()).0)
            .await
            .unwrap(),
        None
    );
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(source.outputs.unspent(&funding.0).await.unwrap(), None);
}

async fn another_network_is_refused(kind: Kind) {
    let devnet = kind.devnet().await;
    let source = kind.source_for(&devnet, Network::Bitcoin);
    let error = source.blocks.tip().await.unwrap_err();
    assert!(matches!(error, ChainError::WrongNetwork { .. }));
    assert_eq!(
        error.to_string(),
        "the chain source is on regtest, this host is configured for main"
    );
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_a_new_cookie_is_read() {
    let devnet = Devnet::start_default().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cookie = dir.path().join(".cookie");
    let auth = BitcoindAuth::CookieFile(cookie.clone());
    let source = BitcoindSource::new(devnet.rpc_url(), auth, Network::Regtest);
    assert!(matches!(
        source.tip().await,
        Err(ChainError::Unreachable { .. })
    ));
    std::fs::write(&cookie, "__cookie__:stale").unwrap();
    assert!(matches!(source.tip().await, Err(ChainError::Unauthorized)));
    std::fs::write(&cookie, "devnet:devnet").unwrap();
    assert_eq!(source.tip().await.unwrap(), devnet.tip());
}
