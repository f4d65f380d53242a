//! A devnet, a host on it and phones, in this process: phones reach the host over gRPC on loopback, and the host reaches
//! the devnet as it would in another process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount};
use longhand_chain::Devnet;
use longhand_host::client::{self, Client};
use longhand_host::{Addresses, Host, HostConfig};
use longhand_link::Carriers;
use longhand_phone::{DialOptions, Phone};
use longhand_proto::operator::CreateOwnerRequest;
use longhand_store::{SqliteStore, Store};
use tempfile::TempDir;

use crate::operator::OperatorClient;
use crate::{KitError, Patience, vault};

const PATIENCE: Patience = Patience::REAL;
/// Coins of a hub that is to open some channels: opening one takes a confirmed coin.
const HUB_COINS: u32 = 4;
const HUB_COIN_SAT: u64 = 50_000_000;
/// Blocks until a channel is ready at both ends, and one more.
const CHANNEL_BLOCKS: u32 = 4;

/// The configuration of a host on free ports of loopback, without metrics, that keeps its files in `dir`.
pub fn config(dir: &Path) -> HostConfig {
    let mut config = HostConfig {
        data_dir: dir.to_owned(),
        ..HostConfig::default()
    };
    config.link.listen = vec!["grpc://127.0.0.1:0".into()];
    config.peer.listen.set_port(0);
    config.metrics.listen = String::new();
    config.chain.poll_ms = 50;
    config
}

/// The addresses of a host that was started with listeners.
///
/// # Errors
/// When it has none.
pub fn addresses(host: &Host) -> Result<&Addresses, KitError> {
    let none = || KitError::Unexpected("the host does not listen".into());
    host.addresses().ok_or_else(none)
}

/// The operator of a host that was started with listeners.
///
/// # Errors
/// When it cannot be reached.
pub async fn operator(host: &Host, config: &HostConfig) -> Result<Client, KitError> {
    let listens = &addresses(host)?.operator;
    Ok(client::connect(listens, &config.operator_token_file()).await?)
}

/// Sends coins from the faucet, without a block.
///
/// # Errors
/// When `address` is none, or the devnet refuses.
pub fn faucet(devnet: &Devnet, address: &str, amount_sat: u64) -> Result<(), KitError> {
    let wrong = |error| KitError::Unexpected(format!("{address} is not an address: {error}"));
    let address: Address<NetworkUnchecked> = address.parse().map_err(wrong)?;
    let amount = Amount::from_sat(amount_sat);
    devnet.faucet(&address.assume_checked(), amount)?;
    Ok(())
}

/// A chain, and a host on it whose hub runs.
pub struct World {
    /// Mined by its user.
    pub devnet: Devnet,
    /// Of the host.
    pub operator: OperatorClient,
    /// Of the host.
    pub addresses: Addresses,
    /// Of the host.
    pub store: Arc<dyn Store>,
    /// The hub's public key, 33 bytes.
    pub hub_node_id: Vec<u8>,
    /// Stopped by [`World::stop`].
    pub host: Host,
    dir: TempDir,
}

impl World {
    /// A host with a funded hub, on SQLite in a temporary directory.
    ///
    /// # Errors
    /// When any of it does not start.
    pub async fn new(dir: TempDir) -> Result<World, KitError> {
        World::with(dir, |_| ()).await
    }

    /// As [`World::new`], with the host's configuration changed by `set`.
    ///
    /// # Errors
    /// When any of it does not start.
    pub async fn with(dir: TempDir, set: impl FnOnce(&mut HostConfig)) -> Result<World, KitError> {
        let mut config = config(&dir.path().join("host"));
        set(&mut config);
        std::fs::create_dir_all(&config.data_dir)?;
        let store = Arc::new(SqliteStore::open(config.database_file())?);
        let world = World::start(dir, store, config).await?;
        world.fund_hub(HUB_COINS, HUB_COIN_SAT).await?;
        Ok(world)
    }

    /// A host on this store; its hub has no coins.
    ///
    /// # Errors
    /// When any of it does not start.
    pub async fn on(dir: TempDir, store: Arc<dyn Store>) -> Result<World, KitError> {
        let config = config(&dir.path().join("host"));
        World::start(dir, store, config).await
    }

    async fn start(
        dir: TempDir,
        store: Arc<dyn Store>,
        config: HostConfig,
    ) -> Result<World, KitError> {
        let devnet = Devnet::start_default().await?;
        let source = Arc::new(devnet.source());
        let carriers = Carriers::default();
        let host = Host::start_with(config.clone(), store.clone(), source, &carriers).await?;
        let addresses = addresses(&host)?.clone();
        let operator = OperatorClient::new(operator(&host, &config).await?);
        let hub_node_id = operator.hub_node_id().await?;
        Ok(World {
            devnet,
            operator,
            addresses,
            store,
            hub_node_id,
            host,
            dir,
        })
    }

    /// Stops the host and closes its store. The directory stays until the returned value is dropped.
    ///
    /// # Errors
    /// When the store cannot write what it still has.
    pub async fn stop(self) -> Result<(Devnet, TempDir), KitError> {
        self.host.stop().await;
        self.store.close().await?;
        Ok((self.devnet, self.dir))
    }

    /// A new owner's phone, `distance` away one way, paired and attached.
    ///
    /// # Errors
    /// When any of it fails.
    pub async fn phone(&self, name: &str, distance: Duration) -> Result<Phone, KitError> {
        let delay = (!distance.is_zero()).then_some(distance);
        let options = DialOptions {
            delay,
            ..DialOptions::default()
        };
        self.phone_with(name, options).await
    }

    /// A new owner's phone, paired and attached.
    ///
    /// # Errors
    /// When any of it fails.
    pub async fn phone_with(&self, name: &str, options: DialOptions) -> Result<Phone, KitError> {
        let request = CreateOwnerRequest {
            name: name.into(),
            ..CreateOwnerRequest::default()
        };
        let code = self.operator.client()?.create_owner(request).await?;
        let vault = vault::create(&self.dir.path().join("phones").join(name))?;
        let phone = Phone::new(vault, options)?;
        phone.pair(&code.into_inner().code).await?;
        Ok(phone)
    }

    /// Mines, and waits until the host has seen it.
    ///
    /// # Errors
    /// When the host does not get there.
    pub async fn mine(&self, blocks: u32) -> Result<(), KitError> {
        self.devnet.mine_to_wallet(blocks)?;
        self.operator.at_height(self.devnet.tip().height).await
    }

    /// Waits until the funding transactions of so many channels are in the mempool, and mines until the channels are
    /// ready.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn confirm_channels(&self, channels: usize) -> Result<(), KitError> {
        let broadcast = PATIENCE.until("the funding transactions are in the mempool", async || {
            let all = self.devnet.mempool().len() >= channels;
            Ok::<_, KitError>(all.then_some(()))
        });
        broadcast.await?;
        self.mine(CHANNEL_BLOCKS).await
    }

    /// Coins for the hub's wallet, `outputs` of `amount_sat` each, confirmed.
    ///
    /// # Errors
    /// When the host does not get there.
    pub async fn fund_hub(&self, outputs: u32, amount_sat: u64) -> Result<(), KitError> {
        let before = self.operator.hub_balance().await?.onchain_confirmed_sat;
        for _ in 0..outputs {
            let address = self.operator.hub_address().await?;
            faucet(&self.devnet, &address, amount_sat)?;
        }
        self.mine(1).await?;
        let wanted = before + u64::from(outputs) * amount_sat;
        self.operator.hub_has_coins(wanted).await
    }

    /// Coins for a phone's wallet, confirmed.
    ///
    /// # Errors
    /// When the phone does not get there.
    pub async fn fund_phone(&self, phone: &Phone, amount_sat: u64) -> Result<(), KitError> {
        faucet(&self.devnet, &phone.address().await?.address, amount_sat)?;
        self.mine(1).await?;
        let funded = PATIENCE.until("the phone has its coins", async || {
            let has = phone.balance().await?.onchain_confirmed_sat >= amount_sat;
            Ok::<_, KitError>(has.then_some(()))
        });
        funded.await
    }
}
