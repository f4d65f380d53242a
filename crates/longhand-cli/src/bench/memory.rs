//! Memory of a dormant node with one channel: the resident memory of a host with 1,000 of them, against the same host
//! without.
//!
//! First all is built in this process: owners, phones, a channel from the hub to each. Then the host's store is copied
//! to two databases, one without the owners and their nodes, and a fresh process for each loads it and reports its own
//! size. The hub has all its channels in both.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures::future::try_join_all;
use longhand_host::Host;
use longhand_store::{Batch, MemoryStore, SqliteStore, Store, Write};
use longhand_testkit::host::{World, config, operator};
use longhand_testkit::operator::OperatorClient;
use longhand_testkit::{KitError, Patience};
use serde_json::{Value, json};

use super::figure::{Measured, Report, Target, median};
use super::resident::resident_at_rest;
use super::{say, temporary_directory};

/// Owners whose channels are opened together.
const WAVE: u32 = 50;
const CHANNEL_SAT: u64 = 100_000;
/// Coins of the hub: opening a channel takes one until its change confirms.
const HUB_COINS: u32 = 2 * WAVE;
/// Prefixes of the owners' keys in the host's namespace, and of nodes' namespaces.
const OWNER_PREFIX: &str = "owner/";
const NODE_PREFIX: &str = "node/";
/// How often each host is loaded: what the allocator keeps from loading differs from time to time.
const LOADS: usize = 5;
/// Long enough for the largest number of nodes.
const LOADING: Patience = Patience {
    longest: Duration::from_secs(120),
    ..Patience::REAL
};

#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// How many nodes
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    nodes: u32,
    /// Load the host in this directory and report the size of the process
    #[arg(long, hide = true, requires = "chain_url")]
    child: Option<PathBuf>,
    /// See `child`
    #[arg(long, hide = true)]
    chain_url: Option<String>,
}

impl MemoryArgs {
    pub fn is_child(&self) -> bool {
        self.child.is_some()
    }
}

pub async fn run(args: MemoryArgs) -> Result<Report, KitError> {
    let dir = temporary_directory()?;
    let built = MemoryStore::default();
    let world = World::on(dir, Arc::new(built.reopen())).await?;
    build(&world, args.nodes).await?;
    let chain_url = world.devnet.rpc_url();
    let (_devnet, dir) = world.stop().await?;
    let host_dir = dir.path().join("host");
    let mut resident = [0.0; 2];
    for (nodes, resident) in [0, args.nodes].into_iter().zip(&mut resident) {
        say(&format!("a fresh host with {nodes} nodes"));
        let copy = dir.path().join(format!("host-{nodes}"));
        copy_files(&host_dir, &copy)?;
        let database = SqliteStore::open(config(&copy).database_file())?;
        copy_store(&built, &database, nodes > 0).await?;
        database.close().await?;
        let mut loads = Vec::new();
        for _ in 0..LOADS {
            loads.push(measure_in_child(&copy, &chain_url, nodes).await? as f64);
        }
        *resident = median(loads);
    }
    Ok(report(args.nodes, resident))
}

fn report(nodes: u32, [without, with]: [f64; 2]) -> Report {
    let kb = |bytes: f64| bytes / 1e3;
    let figure = |what, key, measured, target| Measured {
        what,
        key,
        unit: "kB",
        measured,
        target,
    };
    Report {
        bench: "memory",
        figures: vec![
            figure(
                "resident memory of a dormant node",
                "kb_per_node",
                kb(with - without) / f64::from(nodes),
                Some(Target::AtMost(100.0)),
            ),
            figure("the host with its nodes", "host_with_kb", kb(with), None),
            figure("the host without", "host_without_kb", kb(without), None),
        ],
        notes: vec![format!(
            "{nodes} dormant nodes with one channel each, in one host that has just loaded them; without them it is \
             the same host, whose hub has the same {nodes} channels. Medians of {LOADS} loads by fresh processes."
        )],
    }
}

/// Makes the owners with their channels, a wave at a time.
async fn build(world: &World, nodes: u32) -> Result<(), KitError> {
    let amount_sat = CHANNEL_SAT * u64::from(nodes.div_ceil(HUB_COINS) + 3) + 1_000_000;
    world.fund_hub(HUB_COINS, amount_sat).await?;
    let since = Instant::now();
    for first in (0..nodes).step_by(WAVE as usize) {
        let last = nodes.min(first + WAVE);
        wave(world, first..last).await?;
        say(&format!(
            "{last} of {nodes} nodes after {} s",
            since.elapsed().as_secs()
        ));
    }
    Ok(())
}

async fn wave(world: &World, owners: std::ops::Range<u32>) -> Result<(), KitError> {
    let names: Vec<String> = owners.map(|number| format!("owner-{number}")).collect();
    let phones = names.iter().map(|name| world.phone(name, Duration::ZERO));
    let phones = try_join_all(phones).await?;
    try_join_all(
        names
            .iter()
            .map(|name| world.operator.hub_open(name, CHANNEL_SAT, 0)),
    )
    .await?;
    world.confirm_channels(names.len()).await?;
    for name in &names {
        world.operator.usable(name, 1).await?;
    }
    try_join_all(phones.iter().map(|phone| phone.detach())).await?;
    for name in &names {
        world.operator.dormant(name).await?;
    }
    Ok(())
}

/// The host's secrets, without its database.
fn copy_files(from: &Path, to: &Path) -> Result<(), KitError> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

async fn copy_store(from: &dyn Store, to: &dyn Store, owners: bool) -> Result<(), KitError> {
    for namespace in from.namespaces("").await? {
        if !owners && namespace.starts_with(NODE_PREFIX) {
            continue;
        }
        let entries = from.load(&namespace).await?.into_iter();
        let kept = entries.filter(|(key, _)| owners || !key.starts_with(OWNER_PREFIX));
        let writes = kept.map(|(key, value)| Write::Put(key, value)).collect();
        to.commit(Batch {
            namespace,
            epoch: 0,
            writes,
        })
        .await?;
    }
    Ok(())
}

/// The resident bytes of a fresh process that has loaded the host in `dir`.
async fn measure_in_child(dir: &Path, chain_url: &str, nodes: u32) -> Result<u64, KitError> {
    let child = tokio::process::Command::new(std::env::current_exe()?)
        .args(["bench", "memory", "--nodes", &nodes.max(1).to_string()])
        .arg("--child")
        .arg(dir)
        .args(["--chain-url", chain_url])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    let printed: Option<Value> = serde_json::from_slice(&child.stdout).ok();
    let field = |name: &str| printed.as_ref().and_then(|printed| printed[name].as_u64());
    match (field("resident_bytes"), field("nodes")) {
        (Some(resident), Some(loaded)) if loaded == u64::from(nodes) => Ok(resident),
        (_, loaded) => Err(KitError::Unexpected(format!(
            "the host did not load its {nodes} nodes ({loaded:?}, {})",
            child.status
        ))),
    }
}

/// Loads the host, reports the size that this process then has, and ends.
pub async fn run_child(args: MemoryArgs) -> ExitCode {
    match measure_here(args).await {
        Ok(measured) => {
            println!("{measured}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn measure_here(args: MemoryArgs) -> Result<Value, KitError> {
    let mut config = config(&args.child.unwrap_or_default());
    let bitcoind = &mut config.chain.bitcoind;
    bitcoind.url = args.chain_url.unwrap_or_default();
    bitcoind.user = "devnet".into();
    bitcoind.password = "devnet".to_owned().into();
    let host = Host::start(config.clone()).await?;
    let operator = OperatorClient::new(operator(&host, &config).await?);
    operator.hub_node_id().await?;
    let nodes = LOADING.until("all nodes run", async || {
        let status = operator.status().await?;
        Ok::<_, KitError>((status.nodes == status.owners).then_some(status.nodes))
    });
    let nodes = nodes.await?;
    let resident_bytes = resident_at_rest().await?;
    host.stop().await;
    Ok(json!({ "nodes": nodes, "resident_bytes": resident_bytes }))
}
