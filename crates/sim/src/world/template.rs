//! A world with channels, made once: the content of its disks and its chain. Every run begins from it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use longhand_chain::Devnet;
use longhand_chain::devnet::PreparedChain;
use longhand_phone::Phone;
use longhand_proto::operator::{CreateOwnerRequest, HubOpenChannelRequest};
use longhand_signer::audit::Audit;
use longhand_store::{Batch, MemoryStore, Store, Write};
use longhand_testkit::vault::{self, WORDS};

use crate::world::coins::Coins;
use crate::world::plan::Plan;
use crate::world::route::Route;
use crate::world::scenario::{Pace, Scenario};
use crate::world::simulator::{ANN, Alive, OWNERS, Simulator, text};

pub const CHANNEL_SAT: u64 = 2_000_000;
/// Less than half, so that the hub can forward as much as an owner can send.
const PUSHED_MSAT: u64 = 900_000_000;
/// On chain, of each owner.
const WALLET_SAT: u64 = 3_000_000;
/// Coins of the hub.
const HUB_COINS: u32 = 4;
const HUB_COIN_SAT: u64 = 10_000_000;
/// Confirmations until a channel is ready, and a few more.
pub const CONFIRMATIONS: u32 = 6;

/// Entries of one namespace of the store.
type Entries = Vec<(String, Vec<u8>)>;

/// See the module.
pub struct Template {
    /// How its phones reach the host.
    pub route: Route,
    chain: PreparedChain,
    /// Every coin of the owners and the hub, as the chain has them.
    pub coins: Coins,
    namespaces: Vec<(String, Entries)>,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Audits of the owners' phones.
    pub audits: [Audit; 2],
    /// Tasks and connections when all processes are there.
    pub alive: Alive,
    /// When it was made, in simulated time.
    pub unix: Duration,
}

impl Template {
    /// Makes the world: a hub with coins, two owners with coins, and so many channels of the hub's to each. Must run on
    /// a simulated thread.
    pub async fn make(dir: PathBuf, channels: usize, route: Route) -> Result<Template, String> {
        let devnet = Devnet::in_process(110).map_err(text)?;
        let (sim, mut tasks) = Simulator::new(
            devnet,
            MemoryStore::new(),
            dir,
            Pace::of(Scenario::OpenByHub, 0),
            route,
            Plan::new(&[]),
            Default::default(),
        );
        sim.start_host().await?;
        fund_hub(&sim).await?;
        for owner in 0..OWNERS.len() {
            pair(&sim, owner).await?;
            sim.start_phone(owner).map_err(text)?;
            let address = sim.owner(owner, async |phone| phone.address().await).await;
            sim.fund(&address.map_err(text)?.address, WALLET_SAT)
                .await?;
            // Ann's host punishes alone; Bob keeps the key of his channels with the hub, and wants filters for each payment.
            let (name, value) = match owner {
                ANN => ("withhold", "none"),
                _ => ("filters_from_sat", "0"),
            };
            let set = async |phone: Phone| phone.set_limit(name.to_owned(), value.to_owned()).await;
            sim.owner(owner, set).await.map_err(text)?;
            for _ in 0..channels {
                open(&sim, owner).await?;
            }
        }
        sim.mine(CONFIRMATIONS).await?;
        all_usable(&sim, channels * OWNERS.len()).await?;
        sim.quiet().await?;
        let alive = sim.alive();
        sim.stop().await;
        tasks.shutdown().await;
        if let Some(fault) = sim.overheard().first() {
            return Err(fault.what.clone());
        }
        Template::take(&sim, alive, route).await
    }

    async fn take(sim: &Arc<Simulator>, alive: Alive, route: Route) -> Result<Template, String> {
        let mut namespaces = Vec::new();
        for namespace in sim.disk.namespaces("").await.map_err(text)? {
            let values = sim.disk.load(&namespace).await.map_err(text)?;
            namespaces.push((namespace, values));
        }
        let mut files = Vec::new();
        read_all(&sim.dir, Path::new(""), &mut files).map_err(text)?;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_err(text)?;
        Ok(Template {
            route,
            chain: sim.devnet.prepared(),
            coins: Coins::of_chain(sim)?,
            namespaces,
            files,
            audits: sim.audits(),
            alive,
            unix,
        })
    }

    /// The same world again, with its files in `dir`. Nothing runs in it yet.
    pub async fn unpack(&self, dir: &Path) -> Result<(Devnet, MemoryStore), String> {
        for (path, bytes) in &self.files {
            let path = dir.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(text)?;
            }
            let mut file = OpenOptions::new();
            let file = file.write(true).create(true).truncate(true).mode(0o600);
            let mut file = file.open(path).map_err(text)?;
            file.write_all(bytes).map_err(text)?;
        }
        let disk = MemoryStore::new();
        for (namespace, values) in &self.namespaces {
            let writes = values
                .iter()
                .map(|(key, value)| Write::Put(key.clone(), value.clone()));
            let batch = Batch {
                namespace: namespace.clone(),
                epoch: 0,
                writes: writes.collect(),
            };
            disk.commit(batch).await.map_err(text)?;
        }
        let devnet = Devnet::in_process_trusting(&self.chain).map_err(text)?;
        Ok((devnet, disk))
    }
}

async fn fund_hub(sim: &Arc<Simulator>) -> Result<(), String> {
    sim.until("the hub runs", async |operator| {
        Some(operator.hub_balance().await.is_ok())
    })
    .await?;
    for _ in 0..HUB_COINS {
        let operator = sim.operator().ok_or("the host is gone")?;
        let address = operator.hub_address().await.map_err(text)?.address;
        sim.fund(&address, HUB_COIN_SAT).await?;
    }
    sim.until("the hub has its coins", async |operator| {
        let balance = operator.hub_balance().await.ok()?;
        Some(balance.onchain_confirmed_sat == u64::from(HUB_COINS) * HUB_COIN_SAT)
    })
    .await
}

async fn pair(sim: &Arc<Simulator>, owner: usize) -> Result<(), String> {
    let vault = vault::restore(&sim.phone_dir(owner), WORDS[owner]);
    drop(vault.map_err(text)?);
    let create = CreateOwnerRequest {
        name: OWNERS[owner].into(),
        wake_url: format!("https://push.simulated/{}", OWNERS[owner]),
        ..CreateOwnerRequest::default()
    };
    let operator = sim.operator().ok_or("the host is gone")?;
    let code = operator.create_owner(create).await.map_err(text)?.code;
    let phone = sim.open_phone(owner).map_err(text)?;
    phone.pair(&code).await.map_err(text)?;
    phone.detach().await.map_err(text)?;
    phone.stop_now();
    Ok(())
}

async fn open(sim: &Arc<Simulator>, owner: usize) -> Result<(), String> {
    all_attached(sim, owner).await?;
    let open = HubOpenChannelRequest {
        owner: OWNERS[owner].into(),
        amount_sat: CHANNEL_SAT,
        push_msat: PUSHED_MSAT,
        ..HubOpenChannelRequest::default()
    };
    let operator = sim.operator().ok_or("the host is gone")?;
    operator.hub_open_channel(open).await.map_err(text)?;
    sim.mine(1).await
}

async fn all_attached(sim: &Arc<Simulator>, last: usize) -> Result<(), String> {
    sim.until("the phones are attached", async |operator| {
        let nodes = operator.list_nodes().await.ok()?.nodes;
        Some(nodes.len() > last && nodes.iter().all(|node| node.state == "active"))
    })
    .await
}

/// Waits until there are so many channels, and every one can carry a payment.
pub async fn all_usable(sim: &Arc<Simulator>, channels: usize) -> Result<(), String> {
    let what = format!("{channels} channels are usable");
    sim.until(&what, async |operator| {
        let nodes = operator.list_nodes().await.ok()?.nodes;
        let usable: u32 = nodes.iter().map(|node| node.usable_channels).sum();
        let hub = operator.hub_channels().await.ok()?.channels;
        let all_are = hub.iter().all(|channel| channel.usable);
        Some(all_are && hub.len() == channels && usable as usize == channels)
    })
    .await
}

fn read_all(root: &Path, under: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(under))? {
        let path = under.join(entry?.file_name());
        match root.join(&path).is_dir() {
            true => read_all(root, &path, files)?,
            false => files.push((path.clone(), fs::read(root.join(&path))?)),
        }
    }
    Ok(())
}
