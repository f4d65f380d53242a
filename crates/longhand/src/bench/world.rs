//! What the figures are made with: a devnet, a host on it, and phones, in this process.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network};
use longhand_chain::Devnet;
use longhand_host::client::{self, Client};
use longhand_host::{Addresses, Host, HostConfig};
use longhand_link::Carriers;
use longhand_phone::{DialOptions, Phone, Secrets, Vault, Words};
use longhand_proto::operator::*;
use longhand_store::{SqliteStore, Store};
use tempfile::TempDir;

use super::BenchError;

/// Nothing takes this long; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(5);
/// scrypt's log2(N): the seeds are worth nothing.
const KDF_WORK_FACTOR: u8 = 1;
/// The hub opens a channel with a coin that is confirmed.
const HUB_COINS: u32 = 4;
const HUB_COIN_SAT: u64 = 50_000_000;
/// Blocks until a channel is ready at both ends, and one more.
const CHANNEL_BLOCKS: u32 = 4;

/// A chain and a host on it.
pub struct World {
    pub devnet: Devnet,
    pub operator: Client,
    pub addresses: Addresses,
    /// The host's, for what is measured beside it.
    pub store: Arc<dyn Store>,
    pub hub_node_id: Vec<u8>,
    host: Host,
    dir: TempDir,
}

impl World {
    /// A host on its own database, with a funded hub.
    pub async fn new() -> Result<World, BenchError> {
        let dir = temporary_directory()?;
        std::fs::create_dir_all(dir.path().join("host"))?;
        let database = host_config(&dir.path().join("host")).database_file();
        let store = Arc::new(SqliteStore::open(database)?);
        let world = World::on(dir, store).await?;
        world.fund_hub(HUB_COINS, HUB_COIN_SAT).await?;
        Ok(world)
    }

    /// A host on `store`; its hub has nothing.
    pub async fn on(dir: TempDir, store: Arc<dyn Store>) -> Result<World, BenchError> {
        let devnet = Devnet::start_default().await?;
        let config = host_config(&dir.path().join("host"));
        let source = Arc::new(devnet.source());
        let carriers = Carriers::default();
        let host = Host::start_with(config.clone(), store.clone(), source, &carriers).await?;
        let addresses = listening(&host)?.clone();
        let operator = client::connect(&addresses.operator, &config.operator_token_file()).await?;
        let hub_node_id = hub_runs(&operator).await?;
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

    /// Ends everything; the directory stays until the returned value is dropped.
    pub async fn stop(self) -> Result<(Devnet, TempDir), BenchError> {
        self.host.stop().await;
        self.store.close().await?;
        Ok((self.devnet, self.dir))
    }

    /// A new owner's phone, `distance` away one way, paired and attached.
    pub async fn phone(&self, name: &str, distance: Duration) -> Result<Phone, BenchError> {
        let request = CreateOwnerRequest {
            name: name.into(),
            ..CreateOwnerRequest::default()
        };
        let code = self.operator.clone().create_owner(request).await?;
        let secrets = Secrets::generate(Network::Regtest, Words::Twelve)?;
        let dir = self.dir.path().join("phones").join(name);
        let passphrase = "bench".to_owned().into();
        let vault = Vault::create(&dir, secrets, &passphrase, Some(KDF_WORK_FACTOR));
        let vault = vault.map_err(longhand_phone::PhoneError::from)?;
        let delay = (!distance.is_zero()).then_some(distance);
        let options = DialOptions {
            delay,
            ..DialOptions::default()
        };
        let phone = Phone::new(vault, options)?;
        phone.pair(&code.into_inner().code).await?;
        Ok(phone)
    }

    /// Mines, and waits until the host has seen it.
    pub async fn mine(&self, blocks: u32) -> Result<(), BenchError> {
        self.devnet.mine_to_wallet(blocks)?;
        let height = self.devnet.tip().height;
        until("the host has seen the new blocks", async || {
            Ok(self.status().await?.block_height >= height)
        })
        .await
    }

    /// Waits until the funding transactions of `channels` channels are in the mempool, and mines until the channels
    /// are ready.
    pub async fn confirm_channels(&self, channels: usize) -> Result<(), BenchError> {
        until("the funding transactions are in the mempool", async || {
            Ok(self.devnet.mempool().len() >= channels)
        })
        .await?;
        self.mine(CHANNEL_BLOCKS).await
    }

    /// Coins for the hub's wallet, `outputs` of `amount_sat` each.
    pub async fn fund_hub(&self, outputs: u32, amount_sat: u64) -> Result<(), BenchError> {
        let before = self.hub_onchain_sat().await?;
        for _ in 0..outputs {
            let address = self
                .operator
                .clone()
                .hub_address(HubAddressRequest {})
                .await?;
            self.faucet(&address.into_inner().address, amount_sat)?;
        }
        self.mine(1).await?;
        let wanted = before + u64::from(outputs) * amount_sat;
        until("the hub has its coins", async || {
            Ok(self.hub_onchain_sat().await? >= wanted)
        })
        .await
    }

    /// Coins for a phone's wallet.
    pub async fn fund_phone(&self, phone: &Phone, amount_sat: u64) -> Result<(), BenchError> {
        self.faucet(&phone.address().await?.address, amount_sat)?;
        self.mine(1).await?;
        until("the phone has its coins", async || {
            Ok(phone.balance().await?.onchain_confirmed_sat >= amount_sat)
        })
        .await
    }

    /// Sends coins, without a block.
    pub fn faucet(&self, address: &str, amount_sat: u64) -> Result<(), BenchError> {
        let address = Address::<NetworkUnchecked>::from_str(address)
            .map_err(|error| BenchError::Off(format!("not an address: {error}")))?;
        let amount = Amount::from_sat(amount_sat);
        self.devnet.faucet(&address.assume_checked(), amount)?;
        Ok(())
    }

    /// Lets the hub fund a channel to an owner whose phone is attached; it is not confirmed then.
    pub async fn hub_opens(
        &self,
        owner: &str,
        amount_sat: u64,
        push_msat: u64,
    ) -> Result<(), BenchError> {
        let request = HubOpenChannelRequest {
            owner: owner.into(),
            amount_sat,
            push_msat,
            ..HubOpenChannelRequest::default()
        };
        self.operator.clone().hub_open_channel(request).await?;
        Ok(())
    }

    /// Waits until an owner's node is active with as many usable channels.
    pub async fn usable(&self, owner: &str, channels: u32) -> Result<(), BenchError> {
        until(
            &format!("{owner} has {channels} usable channels"),
            async || {
                let node = self.node(owner).await?;
                Ok(node.state == "active" && node.usable_channels == channels)
            },
        )
        .await
    }

    /// Waits until an owner's node is dormant.
    pub async fn dormant(&self, owner: &str) -> Result<(), BenchError> {
        until(&format!("{owner} is dormant"), async || {
            let node = self.node(owner).await?;
            Ok(node.state == "dormant" && node.peers == 0)
        })
        .await
    }

    pub async fn node(&self, owner: &str) -> Result<NodeView, BenchError> {
        let request = GetNodeRequest {
            owner: owner.into(),
        };
        Ok(self.operator.clone().get_node(request).await?.into_inner())
    }

    pub async fn status(&self) -> Result<StatusReply, BenchError> {
        let status = self.operator.clone().status(StatusRequest {}).await?;
        Ok(status.into_inner())
    }

    /// An invoice of the hub.
    pub async fn hub_invoice(&self, amount_msat: u64) -> Result<String, BenchError> {
        let request = HubInvoiceRequest {
            amount_msat,
            description: "bench".into(),
            expiry_s: 3_600,
        };
        let invoice = self.operator.clone().hub_invoice(request).await?;
        Ok(invoice.into_inner().bolt11)
    }

    async fn hub_onchain_sat(&self) -> Result<u64, BenchError> {
        let balance = self
            .operator
            .clone()
            .hub_balance(HubBalanceRequest {})
            .await?;
        Ok(balance.into_inner().onchain_confirmed_sat)
    }
}

/// A host on free ports, in `dir`.
pub fn host_config(dir: &Path) -> HostConfig {
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

pub fn temporary_directory() -> Result<TempDir, BenchError> {
    Ok(tempfile::Builder::new()
        .prefix("longhand-bench-")
        .tempdir()?)
}

/// Where a host that was started listens.
pub fn listening(host: &Host) -> Result<&Addresses, BenchError> {
    let nowhere = || BenchError::Off("the host listens nowhere".into());
    host.addresses().ok_or_else(nowhere)
}

/// Waits for the hub; returns its node id.
pub async fn hub_runs(operator: &Client) -> Result<Vec<u8>, BenchError> {
    let mut node_id = Vec::new();
    until("the hub runs", async || {
        let status = operator
            .clone()
            .status(StatusRequest {})
            .await?
            .into_inner();
        node_id = status.hub_node_id;
        Ok(!node_id.is_empty())
    })
    .await?;
    Ok(node_id)
}

/// Asks again and again until it is so.
pub async fn until(
    what: &str,
    mut is_so: impl AsyncFnMut() -> Result<bool, BenchError>,
) -> Result<(), BenchError> {
    let since = Instant::now();
    while !is_so().await? {
        if since.elapsed() > PATIENCE {
            return Err(BenchError::Late {
                what: what.to_owned(),
                seconds: PATIENCE.as_secs(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Tells a person how far it is.
pub fn say(line: &str) {
    eprintln!("{line}");
}
