//! devnet's Esplora REST, asked by clients that are not ours: `esplora-client`, and a wallet of BDK that `bdk_esplora`
//! synchronises.

use bdk_esplora::EsploraAsyncExt as _;
use bdk_esplora::esplora_client::{AsyncClient, Builder, MerkleProof};
use bdk_wallet::template::Bip84;
use bdk_wallet::{KeychainKind, SignOptions, Wallet};
use bitcoin::bip32::Xpriv;
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::{Amount, Network, OutPoint, TxMerkleNode, Txid};
use longhand_chain::{Devnet, FeeRates};

use crate::keys::{Key, coin, output};
use crate::kinds::Kind;

async fn devnet() -> (Devnet, AsyncClient) {
    let devnet = Kind::Esplora.devnet().await;
    let client = Builder::new(&devnet.esplora_url().unwrap()).build_async();
    (devnet, client.unwrap())
}

fn key() -> Xpriv {
    Xpriv::new_master(Network::Regtest, &[7; 32]).unwrap()
}

fn wallet() -> Wallet {
    let key = key();
    let external = Bip84(key, KeychainKind::External);
    let wallet = Wallet::create(external, Bip84(key, KeychainKind::Internal));
    wallet
        .network(Network::Regtest)
        .create_wallet_no_persist()
        .unwrap()
}

/// Synchronises, and compares the wallet's tip with the chain's.
async fn sync(wallet: &mut Wallet, client: &AsyncClient, devnet: &Devnet) {
    let found = client
        .sync(wallet.start_sync_with_revealed_spks(), 2)
        .await
        .unwrap();
    wallet.apply_update(found).unwrap();
    let tip = wallet.latest_checkpoint();
    assert_eq!(
        (tip.height(), tip.hash()),
        (devnet.tip().height, devnet.tip().hash)
    );
}

#[tokio::test]
async fn a_wallet_of_bdk_finds_sends_and_confirms() {
    let (devnet, client) = devnet().await;
    let mut wallet = wallet();
    let address = wallet.reveal_next_address(KeychainKind::External).address;
    devnet.faucet(&address, Amount::from_sat(100_000)).unwrap();
    let found = client
        .full_scan(wallet.start_full_scan(), 5, 2)
        .await
        .unwrap();
    wallet.apply_update(found).unwrap();
    assert_eq!(wallet.balance().untrusted_pending.to_sat(), 100_000);
    devnet.mine_to_wallet(1).unwrap();
    sync(&mut wallet, &client, &devnet).await;
    assert_eq!(wallet.balance().confirmed.to_sat(), 100_000);

    let mut builder = wallet.build_tx();
    builder.add_recipient(Key::new(1).script(), Amount::from_sat(40_000));
    let mut psbt = builder.finish().unwrap();
    psbt.sign(&key(), wallet.secp_ctx()).unwrap();
    assert!(
        wallet
            .finalize_psbt(&mut psbt, SignOptions::default())
            .unwrap()
    );
    let tx = psbt.extract_tx().unwrap();
    let txid = tx.compute_txid();
    client.broadcast(&tx).await.unwrap();
    assert_eq!(devnet.mempool(), std::slice::from_ref(&tx));
    sync(&mut wallet, &client, &devnet).await;
    assert!(wallet.get_tx(txid).unwrap().chain_position.is_unconfirmed());
    devnet.mine_to_wallet(1).unwrap();
    sync(&mut wallet, &client, &devnet).await;
    assert!(wallet.get_tx(txid).unwrap().chain_position.is_confirmed());

    // Out of the chain again, and back.
    devnet.reorg(1, vec![]).unwrap();
    sync(&mut wallet, &client, &devnet).await;
    assert!(wallet.get_tx(txid).unwrap().chain_position.is_unconfirmed());
    devnet.mine_to_wallet(1).unwrap();
    sync(&mut wallet, &client, &devnet).await;
    let height = wallet
        .get_tx(txid)
        .unwrap()
        .chain_position
        .confirmation_height_upper_bound();
    assert_eq!(height, Some(devnet.tip().height));
}

#[tokio::test]
async fn a_long_history_is_read_page_by_page() {
    let (devnet, client) = devnet().await;
    let mut wallet = wallet();
    let address = wallet.reveal_next_address(KeychainKind::External).address;
    for n in 1..=60 {
        devnet
            .faucet(&address, Amount::from_sat(1_000 + n))
            .unwrap();
        if n % 20 == 0 {
            devnet.mine_to_wallet(1).unwrap();
        }
    }
    sync(&mut wallet, &client, &devnet).await;
    let total = (1..=60).map(|n| 1_000 + n).sum::<u64>();
    assert_eq!(wallet.balance().confirmed.to_sat(), total);
    assert_eq!(wallet.transactions().count(), 60);
}

#[tokio::test]
async fn blocks_are_answered_as_esplora_does() {
    let (devnet, client) = devnet().await;
    let key = Key::new(1);
    key.fund(&devnet, 100_000);
    let tip = devnet.tip();
    let block = devnet.block(&tip.hash).unwrap();
    assert_eq!(client.get_height().await.unwrap(), tip.height);
    assert_eq!(client.get_tip_hash().await.unwrap(), tip.hash);
    assert_eq!(client.get_block_hash(tip.height).await.unwrap(), tip.hash);
    assert!(client.get_block_hash(tip.height + 1).await.is_err());
    assert_eq!(
        client.get_header_by_hash(&tip.hash).await.unwrap(),
        block.header
    );
    assert_eq!(
        client.get_block_by_hash(&tip.hash).await.unwrap().as_ref(),
        Some(&block)
    );
    let txids: Vec<Txid> = block.txdata.iter().map(|tx| tx.compute_txid()).collect();
    assert_eq!(client.get_block_txids(&tip.hash).await.unwrap(), txids);
    let second = client.get_txid_at_block_index(&tip.hash, 1).await.unwrap();
    assert_eq!(second, Some(txids[1]));
    assert_eq!(
        client.get_txid_at_block_index(&tip.hash, 2).await.unwrap(),
        None
    );
    let txs = client.get_block_txs(&tip.hash, None).await.unwrap();
    assert_eq!(
        txs.iter().map(|tx| tx.to_tx()).collect::<Vec<_>>(),
        block.txdata
    );

    let info = client.get_block_info(&tip.hash).await.unwrap();
    assert_eq!((info.height, info.tx_count), (tip.height, 2));
    assert_eq!(
        (info.merkle_root, info.bits),
        (block.header.merkle_root, block.header.bits)
    );
    assert_eq!(info.weight, block.weight().to_wu());
    let infos = client.get_block_infos(None).await.unwrap();
    let heights: Vec<u32> = infos.iter().map(|info| info.height).collect();
    assert_eq!(
        heights,
        (tip.height - 9..=tip.height).rev().collect::<Vec<_>>()
    );
    let first = client.get_block_infos(Some(0)).await.unwrap();
    assert_eq!((first.len(), first[0].previousblockhash), (1, None));

    let status = client.get_block_status(&tip.hash).await.unwrap();
    assert_eq!(
        (status.in_best_chain, status.height),
        (true, Some(tip.height))
    );
    devnet.reorg(1, vec![]).unwrap();
    let status = client.get_block_status(&tip.hash).await.unwrap();
    assert_eq!((status.in_best_chain, status.height), (false, None));
    assert_eq!(client.get_block_by_hash(&tip.hash).await.unwrap(), None);
}

#[tokio::test]
async fn transactions_and_spends_are_answered_as_esplora_does() {
    let (devnet, client) = devnet().await;
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let spend = key.spend(&funding, 500);
    let (txid, outpoint) = (spend.compute_txid(), funding.0);
    assert_eq!(client.get_tx(&txid).await.unwrap(), None);
    let spent = async |outpoint: &OutPoint| {
        let status = client
            .get_output_status(&outpoint.txid, outpoint.vout.into())
            .await;
        status.unwrap().unwrap()
    };
    assert!(!spent(&outpoint).await.spent);
    client.broadcast(&spend).await.unwrap();
    assert_eq!(client.get_tx(&txid).await.unwrap().as_ref(), Some(&spend));
    let status = spent(&outpoint).await;
    assert_eq!((status.txid, status.vin), (Some(txid), Some(0)));
    assert!(!status.status.unwrap().confirmed);
    assert!(!client.get_tx_status(&txid).await.unwrap().confirmed);
    assert_eq!(client.get_merkle_proof(&txid).await.unwrap(), None);
    let stats = client.get_mempool_stats().await.unwrap();
    assert_eq!((stats.count, stats.total_fee), (1, 500));
    assert_eq!(client.get_mempool_txids().await.unwrap(), [txid]);
    assert_eq!(
        client.get_mempool_recent_txs().await.unwrap()[0].value,
        99_500
    );

    devnet.mine_to_wallet(1).unwrap();
    let tip = devnet.tip();
    let info = client.get_tx_info(&txid).await.unwrap().unwrap();
    assert_eq!(
        (info.to_tx(), info.fee, info.weight),
        (spend.clone(), 500, spend.weight().to_wu())
    );
    assert_eq!(info.previous_outputs(), [Some(funding.1)]);
    assert_eq!(info.status.block_hash, Some(tip.hash));
    assert!(spent(&outpoint).await.status.unwrap().confirmed);
    let all = client.get_tx_outspends(&outpoint.txid).await.unwrap();
    assert!(all[outpoint.vout as usize].spent);
    assert!(!spent(&output(&spend, 0).0).await.spent);

    let again = client.broadcast(&spend).await.unwrap_err().to_string();
    assert!(again.contains("already in utxo set"), "{again}");
}

#[tokio::test]
async fn every_transaction_of_a_block_is_proven() {
    let (devnet, client) = devnet().await;
    let key = Key::new(1);
    // With the coinbase: one transaction, an even number, an odd one.
    for count in [0_u64, 3, 6] {
        for n in 0..count {
            devnet
                .faucet(&key.address(), Amount::from_sat(10_000 + n))
                .unwrap();
        }
        devnet.mine_to_wallet(1).unwrap();
        let tip = devnet.tip();
        let block = devnet.block(&tip.hash).unwrap();
        for (position, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            let proof = client.get_merkle_proof(&txid).await.unwrap().unwrap();
            assert_eq!((proof.pos, proof.block_height), (position, tip.height));
            assert_eq!(root(&txid, &proof), block.header.merkle_root);
            let proof = client.get_merkle_block(&txid).await.unwrap().unwrap();
            let (mut found, mut at) = (vec![], vec![]);
            proof.extract_matches(&mut found, &mut at).unwrap();
            assert_eq!(proof.header, block.header);
            assert_eq!((found, at), (vec![txid], vec![position as u32]));
        }
    }
}

/// The merkle root to which a proof leads.
fn root(txid: &Txid, proof: &MerkleProof) -> TxMerkleNode {
    let (mut hash, mut at) = (txid.to_byte_array(), proof.pos);
    for other in &proof.merkle {
        let other = other.to_byte_array();
        let pair = if at % 2 == 0 {
            [hash, other]
        } else {
            [other, hash]
        };
        hash = sha256d::Hash::hash(&pair.concat()).to_byte_array();
        at /= 2;
    }
    TxMerkleNode::from_byte_array(hash)
}

#[tokio::test]
async fn scripts_and_addresses_are_answered_as_esplora_does() {
    let (devnet, client) = devnet().await;
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let spend = key.spend(&funding, 500);
    devnet.submit(&spend).unwrap();
    let (script, address) = (key.script(), key.address());

    let stats = client.get_address_stats(&address).await.unwrap();
    assert_eq!(stats.address, address.to_string());
    let chain = stats.chain_stats;
    assert_eq!(
        (chain.tx_count, chain.funded_txo_sum, chain.spent_txo_sum),
        (1, 100_000, 0)
    );
    let pool = stats.mempool_stats;
    assert_eq!(
        (pool.tx_count, pool.funded_txo_sum, pool.spent_txo_sum),
        (1, 99_500, 100_000)
    );
    let by_script = client.get_scripthash_stats(&script).await.unwrap();
    assert_eq!(
        (by_script.chain_stats, by_script.mempool_stats),
        (chain, pool)
    );

    let txids = |txs: Vec<bdk_esplora::esplora_client::Tx>| {
        txs.into_iter().map(|tx| tx.txid).collect::<Vec<_>>()
    };
    let both = [spend.compute_txid(), funding.0.txid];
    assert_eq!(
        txids(client.get_address_txs(&address, None).await.unwrap()),
        both
    );
    assert_eq!(
        txids(client.scripthash_txs(&script, None).await.unwrap()),
        both
    );
    assert_eq!(
        txids(client.get_mempool_address_txs(&address).await.unwrap()),
        both[..1]
    );
    assert_eq!(
        txids(client.get_mempool_scripthash_txs(&script).await.unwrap()),
        both[..1]
    );
    let after = client
        .scripthash_txs(&script, Some(funding.0.txid))
        .await
        .unwrap();
    assert_eq!(txids(after), []);

    let utxos = client.get_address_utxos(&address).await.unwrap();
    let unspent = output(&spend, 0).0;
    assert_eq!(utxos.len(), 1);
    assert_eq!(OutPoint::new(utxos[0].txid, utxos[0].vout), unspent);
    assert_eq!(
        (utxos[0].value.to_sat(), utxos[0].status.confirmed),
        (99_500, false)
    );
    devnet.mine_to_wallet(1).unwrap();
    let utxos = client.get_scripthash_utxos(&script).await.unwrap();
    assert_eq!(utxos[0].status.block_hash, Some(devnet.tip().hash));
}

#[tokio::test]
async fn packages_and_fee_estimates_are_answered_as_esplora_does() {
    let (devnet, client) = devnet().await;
    let key = Key::new(1);
    let parent = key.spend(&key.fund(&devnet, 100_000), 0);
    let child = key.spend(&coin(&parent, &key.script()), 1_000);
    let refused = client.broadcast(&parent).await.unwrap_err().to_string();
    assert!(refused.contains("min relay fee not met"), "{refused}");
    let package = [parent, child];
    let result = client.submit_package(&package, None, None).await.unwrap();
    assert_eq!(
        (result.package_msg.as_str(), result.tx_results.len()),
        ("success", 2)
    );
    assert_eq!(devnet.mempool(), package);

    devnet.set_fee_rates(FeeRates {
        urgent: 10_000,
        normal: 5_000,
        ..FeeRates::FLOOR
    });
    let estimates = client.get_fee_estimates().await.unwrap();
    assert_eq!(
        (estimates[&2], estimates[&6], estimates[&144]),
        (40.0, 20.0, 1.012)
    );
    devnet.set_fee_rates(FeeRates {
        is_estimate: false,
        ..FeeRates::FLOOR
    });
    assert!(client.get_fee_estimates().await.unwrap().is_empty());
}
