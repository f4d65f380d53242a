#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use longhand_store::MemoryStore;
use tokio::sync::mpsc;

use super::*;

fn node(n: u8) -> PublicKey {
    SecretKey::from_slice(&[n; 32])
        .unwrap()
        .public_key(&Secp256k1::new())
}

/// A hub's held payments, and those that were given up.
fn held() -> (Held, impl Fn(&Held, u8, u32), mpsc::UnboundedReceiver<u8>) {
    let (given_up, failed) = mpsc::unbounded_channel();
    let hold = move |held: &Held, n: u8, deadline: u32| {
        let given_up = given_up.clone();
        held.hold(node(n), deadline, move || {
            let _ = given_up.send(n);
        });
    };
    (Held::new(Duration::from_secs(60)), hold, failed)
}

#[tokio::test(start_paused = true)]
async fn a_payment_is_given_up_when_the_first_has_waited_for_the_limit() {
    let (held, hold, mut failed) = held();
    let start = tokio::time::Instant::now();
    hold(&held, 1, 100);
    tokio::time::sleep(Duration::from_secs(50)).await;
    hold(&held, 1, 100);
    assert_eq!(failed.recv().await, Some(1));
    assert_eq!(start.elapsed().as_secs(), 60);

    hold(&held, 1, 100);
    assert_eq!(failed.recv().await, Some(1));
    assert_eq!(start.elapsed().as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_comes_ends_the_limit() {
    let (held, hold, mut failed) = held();
    hold(&held, 1, 100);
    hold(&held, 2, 100);
    held.release(&node(1));
    assert_eq!(failed.recv().await, Some(2));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(failed.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_comes_before_the_limit() {
    let (held, hold, mut failed) = held();
    hold(&held, 1, 100);
    hold(&held, 1, 90);
    hold(&held, 2, 200);
    assert_eq!(held.due(89), []);
    assert_eq!(held.due(90), [node(1)]);
    assert_eq!(held.due(90), []);
    assert_eq!(
        failed.recv().await,
        Some(2),
        "the timer of the first ended with it"
    );
}

async fn fresh() -> (tempfile::TempDir, HostConfig, Arc<dyn Store>) {
    let dir = tempfile::tempdir().unwrap();
    let config = HostConfig {
        data_dir: dir.path().into(),
        ..HostConfig::default()
    };
    (dir, config, Arc::new(MemoryStore::new()))
}

#[tokio::test]
async fn the_seed_is_made_once() {
    let (_dir, config, store) = fresh().await;
    let first = seed(&config, &store, 0).await.unwrap();
    assert_eq!(seed(&config, &store, 0).await.unwrap(), first);
}

#[tokio::test]
async fn a_lost_seed_is_not_replaced() {
    let (_dir, config, store) = fresh().await;
    seed(&config, &store, 0).await.unwrap();
    std::fs::remove_file(config.hub_seed_file()).unwrap();
    let refused = seed(&config, &store, 0).await;
    assert!(matches!(refused, Err(HostError::SeedMissing(_))));
    assert!(!config.hub_seed_file().exists());
}

#[tokio::test]
async fn another_seed_is_refused() {
    let (_dir, config, store) = fresh().await;
    seed(&config, &store, 0).await.unwrap();
    std::fs::remove_file(config.hub_seed_file()).unwrap();
    files::write_secret(&config.hub_seed_file(), &[7; 32]).unwrap();
    let refused = seed(&config, &store, 0).await;
    assert!(matches!(refused, Err(HostError::SeedDiffers(_))));
}

#[tokio::test]
async fn a_seed_from_a_backup_starts_an_empty_database() {
    let (_dir, config, store) = fresh().await;
    files::write_secret(&config.hub_seed_file(), &[7; 32]).unwrap();
    assert_eq!(*seed(&config, &store, 0).await.unwrap(), [7; 32]);
}
