//! The processes: created, struck, and started again.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bitcoin::OutPoint;
use longhand_testkit::operator::OperatorClient;
use longhand_testkit::processes::{
    ChainProcess, HostProcess, HostSettings, Launcher, PhoneClient, Process, World,
};
use longhand_testkit::{KitError, Patience};

use super::disk::Disk;
use super::payments::Party;
use super::plan::{Blow, Meanwhile, Who};

/// Each phone has one channel, which the hub opens and of which it gives the phone one half.
const CHANNEL_SAT: u64 = 10_000_000;
const GIFT_MSAT: u64 = CHANNEL_SAT / 2 * 1_000;
const HUB_COINS_SAT: u64 = 100_000_000;
/// Latency of the phones, one way: enough for messages to be under way at most moments.
const DISTANCE: Duration = Duration::from_millis(10);

/// All processes, which are killed when it is dropped.
pub(super) struct Setup {
    pub world: World,
    /// The funding output of each phone's channel.
    pub fundings: Vec<OutPoint>,
    /// Outbound amount of each phone at the beginning.
    pub began_msat: Vec<u64>,
    /// The host's, when it can be filled.
    pub disk: Option<Disk>,
}

impl Setup {
    /// Starts a chain, a host with a funded hub, and phones with a channel each.
    pub async fn start(
        launcher: &Launcher,
        phones: usize,
        disk: Option<Disk>,
    ) -> Result<Setup, KitError> {
        let chain = ChainProcess::start(launcher, free_address()?).await?;
        let settings = HostSettings {
            link_listen: format!("grpc://{}", free_address()?),
            ..HostSettings::default()
        };
        let host = HostProcess::start(launcher, &chain, settings).await?;
        let mut setup = Setup {
            world: World::new(chain, host),
            fundings: Vec::new(),
            began_msat: Vec::new(),
            disk,
        };
        setup.world.fund_hub(HUB_COINS_SAT).await?;
        for number in 0..phones {
            setup.add_phone(&name(number)).await?;
        }
        // Read last, so that every channel has seen its last block.
        for phone in &setup.world.phones {
            let channels = phone.channels().await?;
            setup
                .began_msat
                .push(channels.iter().map(|channel| channel.outbound_msat).sum());
        }
        Ok(setup)
    }

    /// Waits until the hub's coins are confirmed.
    async fn hub_can_spend(&self) -> Result<(), KitError> {
        Patience::REAL
            .until("the hub's coins are confirmed", async || {
                let balance = self.world.host.hub_balance().await?;
                let confirmed =
                    balance.onchain_pending_sat == 0 && balance.onchain_confirmed_sat > 0;
                Ok(confirmed.then_some(()))
            })
            .await
    }

    async fn add_phone(&mut self, name: &str) -> Result<(), KitError> {
        self.world.add_phone(name, DISTANCE).await?;
        let host = &self.world.host;
        let opened = host.hub_open(name, CHANNEL_SAT, GIFT_MSAT).await?;
        let funding: OutPoint = opened.funding_outpoint.parse().map_err(|_| {
            KitError::Unexpected(format!("{} is no outpoint", opened.funding_outpoint))
        })?;
        self.world.confirm(funding).await?;
        host.usable(name, 1).await?;
        self.fundings.push(funding);
        self.hub_can_spend().await
    }

    /// The client of a payer or payee.
    pub fn party(&self, who: Who) -> Party {
        match who {
            Who::Hub => Party::Hub(OperatorClient::clone(&self.world.host)),
            Who::Phone(number) => Party::Phone(PhoneClient::clone(&self.world.phones[number])),
        }
    }

    /// Lets time pass. The operator is connected to the host as soon as that is ready.
    pub async fn wait(&mut self, pause: Duration) -> Result<(), KitError> {
        let host = &mut self.world.host;
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
    pub async fn strike(&mut self, blow: Blow) -> Result<(), KitError> {
        let World {
            chain,
            host,
            phones,
            ..
        } = &mut self.world;
        match blow {
            Blow::Host => host.kill().await,
            Blow::Phone(number) => phones[number].process.kill().await,
            Blow::Both(number) => {
                let (host, phone) = tokio::join!(host.kill(), phones[number].process.kill());
                host.and(phone)
            }
            Blow::Devnet => chain.process.kill().await,
            Blow::Disk(meanwhile) => {
                // An orderly exit leaves no write-ahead log of the database, which would have room for a while. SIGTERM
                // is handled only once the host is ready.
                host.wait_until_ready().await?;
                host.stop().await?;
                host.start_again().await?;
                self.nodes_run().await?;
                self.disk()?.fill()?;
                match meanwhile {
                    Meanwhile::Starts => self.start_without_room().await,
                    Meanwhile::Runs | Meanwhile::IsKilled => Ok(()),
                }
            }
        }
    }

    /// Starts again the processes that were struck, and does not wait for them.
    pub async fn recover(&mut self, blow: Blow) -> Result<(), KitError> {
        let World {
            chain,
            host,
            phones,
            ..
        } = &mut self.world;
        match blow {
            Blow::Host => host.spawn_again(),
            Blow::Phone(number) => phones[number].spawn(),
            Blow::Both(number) => {
                host.spawn_again()?;
                phones[number].spawn()
            }
            Blow::Devnet => chain.spawn_again(),
            Blow::Disk(Meanwhile::IsKilled) => {
                host.kill().await?;
                self.disk()?.free()?;
                self.world.host.spawn_again()
            }
            Blow::Disk(Meanwhile::Runs | Meanwhile::Starts) => {
                self.disk()?.free()?;
                match self.world.host.process() {
                    Some(_) => Ok(()),
                    None => self.world.host.spawn_again(),
                }
            }
        }
    }

    /// Kills the host and starts it again. It may run and wait for room, or exit with an error: one that is not about the
    /// disk is found in its log.
    async fn start_without_room(&mut self) -> Result<(), KitError> {
        let host = &mut self.world.host;
        host.kill().await?;
        host.spawn_again()?;
        match host.wait_until_ready().await {
            Err(_) => host.kill().await,
            Ok(()) => Ok(()),
        }
    }

    /// Waits until the hub and the owners' nodes are loaded.
    async fn nodes_run(&self) -> Result<(), KitError> {
        Patience::REAL
            .until("the nodes run", async || {
                let status = self.world.host.status().await?;
                let all = usize::try_from(status.nodes) == Ok(self.world.phones.len());
                Ok((all && !status.hub_node_id.is_empty()).then_some(()))
            })
            .await
    }

    fn disk(&self) -> Result<&Disk, KitError> {
        let missing =
            || KitError::Unexpected("the host has no disk of its own to be filled".into());
        self.disk.as_ref().ok_or_else(missing)
    }

    /// Waits until all processes are ready.
    pub async fn all_back(&mut self) -> Result<(), KitError> {
        self.world.chain.process.wait_until_ready().await?;
        self.world.host.wait_until_ready().await?;
        for phone in &mut self.world.phones {
            phone.process.wait_until_ready().await?;
        }
        Ok(())
    }

    /// Processes that have exited by themselves, and how.
    pub fn died(&mut self) -> Result<Vec<String>, KitError> {
        let mut died = Vec::new();
        let phones = self.world.phones.iter_mut().map(|phone| {
            let name = phone.name.clone();
            (name, phone.process.running())
        });
        let all = [
            ("devnet".to_owned(), self.world.chain.process.running()),
            ("host".to_owned(), self.world.host.process()),
        ];
        for (name, process) in all.into_iter().chain(phones) {
            if let Some(status) = process.map(Process::has_exited).transpose()?.flatten() {
                died.push(format!("{name} has ended by itself: {status}"));
            }
        }
        Ok(died)
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
fn free_address() -> Result<SocketAddr, KitError> {
    let first = 20_000 + u16::try_from(std::process::id() * 16 % 10_000).unwrap_or(0);
    (first..30_000)
        .chain(20_000..first)
        .find_map(|port| {
            TcpListener::bind(("127.0.0.1", port))
                .ok()?
                .local_addr()
                .ok()
        })
        .ok_or_else(|| KitError::Unexpected("no port is free from 20000 to 29999".into()))
}
