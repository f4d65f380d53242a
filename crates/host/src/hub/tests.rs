#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_store::MemoryStore;

use super::*;

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
