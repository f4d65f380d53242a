//! devnet: its chain, its mempool's rules, its RPC.

use bitcoin::Amount;
use longhand_chain::{BlockRef, Devnet, DevnetConfig, OutputLookup as _};

use crate::keys::{Key, coin};

#[tokio::test]
async fn the_faucet_pays_and_a_block_confirms() {
    let devnet = Devnet::start_default().await.unwrap();
    let key = Key::new(1);
    let txid = devnet
        .faucet(&key.address(), Amount::from_sat(100_000))
        .unwrap();
    assert_eq!(devnet.mempool().len(), 1);
    assert_eq!(devnet.confirmed_at(&txid), None);

    let height = devnet.tip().height;
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(devnet.mempool().len(), 0);
    assert_eq!(devnet.confirmed_at(&txid), Some(height + 1));
    let (outpoint, output) = coin(&devnet.transaction(&txid).unwrap(), &key.script());
    assert_eq!(devnet.unspent(&outpoint), Some(output.clone()));
    assert_eq!(
        devnet.source().unspent(&outpoint).await.unwrap(),
        Some(output)
    );
}

#[tokio::test]
async fn the_faucet_goes_on_through_many_payments() {
    let devnet = Devnet::start_default().await.unwrap();
    let key = Key::new(1);
    for _ in 0..60 {
        devnet
            .faucet(&key.address(), Amount::from_btc(1.0).unwrap())
            .unwrap();
    }
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(devnet.mempool().len(), 0);
    devnet
        .faucet(&key.address(), Amount::from_btc(900.0).unwrap())
        .unwrap();
    let too_much = devnet.faucet(&key.address(), Amount::from_btc(1_000_000.0).unwrap());
    assert!(
        too_much
            .unwrap_err()
            .to_string()
            .contains("cannot send 1000000 BTC")
    );
}

#[tokio::test]
async fn a_reorg_returns_transactions_to_the_mempool() {
    let devnet = Devnet::start_default().await.unwrap();
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let tx = key.spend(&funding, 500);
    devnet.submit(&tx).unwrap();
    devnet.mine_to_wallet(3).unwrap();
    let BlockRef { height, hash } = devnet.tip();

    devnet.reorg(3, vec![]).unwrap();
    assert_eq!(devnet.tip().height, height + 1);
    assert_ne!(devnet.hash_at(height), Some(hash));
    assert_eq!(devnet.mempool(), vec![tx.clone()]);
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(devnet.confirmed_at(&tx.compute_txid()), Some(height + 2));
}

#[tokio::test]
async fn a_reorg_can_confirm_a_double_spend() {
    let devnet = Devnet::start_default().await.unwrap();
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let first = key.spend(&funding, 500);
    let second = key.spend(&funding, 700);
    devnet.submit(&first).unwrap();
    devnet.mine_to_wallet(1).unwrap();

    devnet.reorg(1, vec![second.clone()]).unwrap();
    assert_eq!(devnet.mempool(), vec![]);
    assert_eq!(devnet.confirmed_at(&first.compute_txid()), None);
    assert!(devnet.confirmed_at(&second.compute_txid()).is_some());
}

#[tokio::test]
async fn a_devnet_with_a_directory_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = || DevnetConfig {
        data_dir: Some(dir.path().into()),
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(config()).await.unwrap();
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    devnet.reorg(1, vec![]).unwrap();
    devnet.mine_to_wallet(2).unwrap();
    let tip = devnet.tip();
    assert!(
        Devnet::start(config())
            .await
            .err()
            .unwrap()
            .to_string()
            .contains("in use by another process")
    );
    devnet.shutdown().await;

    let devnet = Devnet::start(config()).await.unwrap();
    assert_eq!(devnet.tip(), tip);
    assert_eq!(devnet.unspent(&funding.0), Some(funding.1));
    // The wallet still has its coins.
    devnet
        .faucet(&key.address(), Amount::from_btc(100.0).unwrap())
        .unwrap();
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(devnet.tip().height, tip.height + 1);
}

#[tokio::test]
async fn it_starts_again_from_the_files_of_a_killed_process() {
    let dir = tempfile::tempdir().unwrap();
    let config = DevnetConfig {
        data_dir: Some(dir.path().into()),
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(config.clone()).await.unwrap();
    let funding = Key::new(1).fund(&devnet, 100_000);
    let tip = devnet.tip();
    // A copy of the files while the devnet still runs, with half a record at the end.
    let copy = tempfile::tempdir().unwrap();
    for file in ["blocks.log", "miner.key"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let mut log = std::fs::OpenOptions::new()
        .append(true)
        .open(copy.path().join("blocks.log"))
        .unwrap();
    std::io::Write::write_all(&mut log, b"B\xff\x00").unwrap();
    drop(log);

    let config = DevnetConfig {
        data_dir: Some(copy.path().into()),
        ..config
    };
    let again = Devnet::start(config).await.unwrap();
    assert_eq!(again.tip(), tip);
    assert_eq!(again.unspent(&funding.0), Some(funding.1));
    again
        .faucet(&Key::new(1).address(), Amount::ONE_BTC)
        .unwrap();
    again.mine_to_wallet(1).unwrap();
}

#[tokio::test]
async fn an_invalidated_block_stays_invalid_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = DevnetConfig {
        data_dir: Some(dir.path().into()),
        ..DevnetConfig::default()
    };
    let devnet = Devnet::start(config.clone()).await.unwrap();
    let old = devnet.tip();
    let invalidated = devnet.mine_to_wallet(3).unwrap()[0];
    devnet
        .source()
        .call("invalidateblock", &[invalidated.to_string().into()])
        .await
        .unwrap();
    assert_eq!(devnet.tip(), old);
    devnet.shutdown().await;
    let devnet = Devnet::start(config).await.unwrap();
    assert_eq!(devnet.tip(), old);
    devnet.mine_to_wallet(1).unwrap();
    assert_eq!(devnet.tip().height, old.height + 1);
}

#[tokio::test]
async fn the_timer_mines() {
    let devnet = Devnet::start_default().await.unwrap();
    let height = devnet.tip().height;
    devnet.set_block_interval(Some(std::time::Duration::from_millis(1)));
    while devnet.tip().height < height + 3 {
        tokio::task::yield_now().await;
    }
    devnet.set_block_interval(None);
}

#[tokio::test]
async fn a_dropped_devnet_leaves_no_files() {
    let devnet = Devnet::start_default().await.unwrap();
    let addr = devnet.rpc_addr();
    let taken = Devnet::start(DevnetConfig {
        rpc_bind: addr,
        ..DevnetConfig::default()
    })
    .await;
    assert!(matches!(
        taken,
        Err(longhand_chain::DevnetError::Bind { .. })
    ));
    devnet.shutdown().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
