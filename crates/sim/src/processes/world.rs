//! The processes and what is done to them.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bitcoin::{OutPoint, ScriptBuf, Txid};
use longhand::cast::{
    self, CastError, Chain, Host, HostSettings, Operator, Owner, Phone, Process, Stage, until,
};

use super::disk::Disk;
use super::payments::Party;
use super::plan::{Blow, Meanwhile, Who};

/// Each phone has one channel, which the hub opens and of which it gives the phone one half.
const CHANNEL_SAT: u64 = 10_000_000;
const GIFT_MSAT: u64 = CHANNEL_SAT / 2 * 1_000;
const HUB_COINS_SAT: u64 = 100_000_000;
/// Enough for any channel to be ready.
const CONFIRMATIONS: u32 = 6;
/// How far the phones are away, one way: far enough for something to be under way at most moments.
const DISTANCE: Duration = Duration::from_millis(10);

/// All processes, which end with it.
pub(super) struct World {
    pub chain: Chain,
    pub host: Host,
    pub phones: Vec<Phone>,
    /// The faucet's payments.
    pub given: Vec<(Txid, ScriptBuf)>,
    /// The funding output of each phone's channel.
    pub fundings: Vec<OutPoint>,
    /// What each phone could send at the beginning.
    pub began_msat: Vec<u64>,
    /// The host's, when it can be filled.
    pub disk: Option<Disk>,
}

impl World {
    /// Starts a chain, a host with a funded hub, and phones with a channel each.
    pub async fn set_up(
        stage: &Stage,
        phones: usize,
        disk: Option<Disk>,
    ) -> Result<World, CastError> {
        let chain = Chain::start(stage, free_address()?).await?;
        let settings = HostSettings {
            link_listen: format!("grpc://{}", free_address()?),
            ..HostSettings::default()
        };
        let host = Host::start(stage, &chain, settings).await?;
        let mut world = World {
            chain,
            host,
            phones: Vec::new(),
            given: Vec::new(),
            fundings: Vec::new(),
            began_msat: Vec::new(),
            disk,
        };
        world.fund_hub().await?;
        for number in 0..phones {
            world.add_phone(stage, &name(number)).await?;
        }
        // The last, so that every channel has seen its last block.
        for phone in &world.phones {
            let channels = phone.channels().await?;
            world
                .began_msat
                .push(channels.iter().map(|channel| channel.outbound_msat).sum());
        }
        Ok(world)
    }

    async fn fund_hub(&mut self) -> Result<(), CastError> {
        let address = self.host.hub_address().await?;
        let given = cast::give(&self.chain, &self.host, &address, HUB_COINS_SAT).await?;
        self.given.push(given);
        self.hub_can_spend().await
    }

    /// What the hub has is confirmed.
    async fn hub_can_spend(&self) -> Result<(), CastError> {
        until("the hub's coins are confirmed", async || {
            let balance = self.host.hub_balance().await?;
            let confirmed = balance.onchain_pending_sat == 0 && balance.onchain_confirmed_sat > 0;
            Ok(confirmed.then_some(()))
        })
        .await
    }

    async fn add_phone(&mut self, stage: &Stage, name: &str) -> Result<(), CastError> {
        let host = &self.host;
        let mut phone = Phone::new(stage, name, DISTANCE);
        host.take_in(&mut phone).await?;
        // Keys for channels are on their way when a phone has just come.
        until("the node has channel keys", async || {
            Ok((host.node(name).await?.signer_batches > 0).then_some(()))
        })
        .await?;
        let opened = host.hub_open(name, CHANNEL_SAT, GIFT_MSAT).await?;
        let funding: OutPoint = opened
            .funding_outpoint
            .parse()
            .map_err(|_| CastError::Off(format!("{} is no outpoint", opened.funding_outpoint)))?;
        self.chain.in_mempool(&funding.txid.to_string()).await?;
        cast::mine(&self.chain, host, CONFIRMATIONS).await?;
        host.usable(name, 1).await?;
        self.fundings.push(funding);
        self.phones.push(phone);
        self.hub_can_spend().await
    }

    /// Somebody who pays or is paid.
    pub fn party(&self, who: Who) -> Party {
        match who {
            Who::Hub => Party::Hub(Operator::clone(&self.host)),
            Who::Phone(number) => Party::Phone(Owner::clone(&self.phones[number])),
        }
    }

    /// Lets time pass. The host is asked by its operator as soon as it can be.
    pub async fn wait(&mut self, pause: Duration) -> Result<(), CastError> {
        let host = &mut self.host;
        let reach = async {
            if host.process().is_some() {
                host.wait_until_ready().await?;
            }
            std::future::pending().await
        };
        match tokio::time::timeout(pause, reach).await {
            Ok(failed) => failed,
            Err(_) => Ok(()),
        }
    }

    /// SIGKILL, or no room on the disk.
    pub async fn strike(&mut self, blow: Blow) -> Result<(), CastError> {
        match blow {
            Blow::Host => self.host.kill().await,
            Blow::Phone(number) => self.phones[number].kill().await,
            Blow::Both(number) => {
                let (host, phone) = (&mut self.host, &mut self.phones[number]);
                let (host, phone) = tokio::join!(host.kill(), phone.kill());
                host.and(phone)
            }
            Blow::Devnet => self.chain.kill().await,
            Blow::Disk(meanwhile) => {
                // An orderly end leaves no log of the database's behind, in which there would be room for a while.
                // Before it is ready it may not listen to being asked yet.
                self.host.wait_until_ready().await?;
                self.host.stop().await?;
                self.host.start_again().await?;
                self.nodes_run().await?;
                self.disk()?.fill()?;
                match meanwhile {
                    Meanwhile::Starts => self.start_without_room().await,
                    Meanwhile::Runs | Meanwhile::IsKilled => Ok(()),
                }
            }
        }
    }

    /// Starts what was struck again, and does not wait for it.
    pub async fn recover(&mut self, blow: Blow) -> Result<(), CastError> {
        match blow {
            Blow::Host => self.host.spawn_again(),
            Blow::Phone(number) => self.phones[number].spawn(),
            Blow::Both(number) => {
                self.host.spawn_again()?;
                self.phones[number].spawn()
            }
            Blow::Devnet => self.chain.spawn_again(),
            Blow::Disk(Meanwhile::IsKilled) => {
                self.host.kill().await?;
                self.disk()?.free()?;
                self.host.spawn_again()
            }
            Blow::Disk(Meanwhile::Runs | Meanwhile::Starts) => {
                self.disk()?.free()?;
                match self.host.process() {
                    Some(_) => Ok(()),
                    None => self.host.spawn_again(),
                }
            }
        }
    }

    /// Kills the host and starts it again. It may run, and wait for room, or end with an error: one that speaks of
    /// anything else is found in its log.
    async fn start_without_room(&mut self) -> Result<(), CastError> {
        self.host.kill().await?;
        self.host.spawn_again()?;
        match self.host.wait_until_ready().await {
            Err(_) => self.host.kill().await,
            Ok(()) => Ok(()),
        }
    }

    /// Waits until the hub and the owners' nodes are loaded.
    async fn nodes_run(&self) -> Result<(), CastError> {
        until("the nodes run", async || {
            let status = self.host.status().await?;
            let all = usize::try_from(status.nodes) == Ok(self.phones.len());
            Ok((all && !status.hub_node_id.is_empty()).then_some(()))
        })
        .await
    }

    fn disk(&self) -> Result<&Disk, CastError> {
        let missing = || CastError::Off("the host has no disk of its own to be filled".into());
        self.disk.as_ref().ok_or_else(missing)
    }

    /// Waits until all processes are ready.
    pub async fn all_back(&mut self) -> Result<(), CastError> {
        self.chain.wait_until_ready().await?;
        self.host.wait_until_ready().await?;
        for phone in &mut self.phones {
            phone.wait_until_ready().await?;
        }
        Ok(())
    }

    /// Processes that have ended although nobody killed them, and how.
    pub fn died(&mut self) -> Result<Vec<String>, CastError> {
        let mut died = Vec::new();
        let phones = self.phones.iter_mut().map(|phone| {
            let name = phone.name.clone();
            (name, phone.process())
        });
        let all = [
            ("devnet".to_owned(), self.chain.process()),
            ("host".to_owned(), self.host.process()),
        ];
        for (name, process) in all.into_iter().chain(phones) {
            if let Some(status) = process.map(Process::has_ended).transpose()?.flatten() {
                died.push(format!("{name} has ended by itself: {status}"));
            }
        }
        Ok(died)
    }

    /// Ends all processes in order. Returns what did not end well.
    pub async fn stop(&mut self) -> Vec<CastError> {
        let mut off = Vec::new();
        for phone in &mut self.phones {
            off.extend(phone.stop().await.err());
        }
        off.extend(self.host.stop().await.err());
        off.extend(self.chain.stop().await.err());
        off
    }
}

fn name(number: usize) -> String {
    match number {
        0 => "alice".into(),
        1 => "bob".into(),
        2 => "carol".into(),
        more => format!("phone{more}"),
    }
}

/// A free port outside of the range from which the system takes ports for outgoing connections: one of those could
/// take it while the process that listens there is down.
fn free_address() -> Result<SocketAddr, CastError> {
    let first = 20_000 + u16::try_from(std::process::id() * 16 % 10_000).unwrap_or(0);
    (first..30_000)
        .chain(20_000..first)
        .find_map(|port| {
            TcpListener::bind(("127.0.0.1", port))
                .ok()?
                .local_addr()
                .ok()
        })
        .ok_or_else(|| CastError::Off("no port is free from 20000 to 29999".into()))
}
