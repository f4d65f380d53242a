//! The processes of a simulated world: one host and its owners' phones, and a relay where they meet at one. They die and are
//! started again on what they wrote to their disks; the relay has none.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Amount, ScriptBuf, Txid};
use longhand_chain::Devnet;
use longhand_host::{Host, HostConfig, Operator};
use longhand_link::carrier::hashmail::Hashmail;
use longhand_link::carrier::mailbox::Mailbox;
use longhand_link::{
    Address, Carrier, Carriers, DialOptions, Dialer, LinkError, Listen, Listener, Rendezvous,
};
use longhand_phone::testing::{FaultyDirectory, OneThread, open_once};
use longhand_phone::{Dial, Phone, PhoneError};
use longhand_proto::command::error::Action;
use longhand_signer::audit::Audit;
use longhand_store::{Batch, MemoryStore, Store, Write};
use longhand_testkit::vault::passphrase;
use longhand_testkit::{Late, Patience};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::fault::Fault;
use crate::world::parts::{
    Client, DialHashmail, Life, Line, LineEnd, News, SimDisk, SimNetwork, SimRelay, SimSource,
    SimStore, ToHashmail, lock,
};
use crate::world::plan::Plan;
use crate::world::route::Route;
use crate::world::scenario::Pace;
use crate::world::witness::Observer;

/// The owners, by the index of their phones.
pub const OWNERS: [&str; 2] = ["ann", "bob"];
pub const ANN: usize = 0;
pub const BOB: usize = 1;

/// The hub's namespace in the host's store.
const HUB: &str = "hub";
/// Time in which all work that waits for nothing is done.
const SETTLED: Duration = Duration::from_secs(60);
/// Limit of the host's transactions: more than it has a reason to make for a close, with more fees every few blocks.
const MOST_SENT: usize = 150;
/// Time for which an owner has the phone at hand while nothing happens.
const AT_HAND: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);
/// While something lasts a day.
const BLOCKS_AN_HOUR: u32 = 4;
/// A process that died is started again after this.
const RESTART: Duration = Duration::from_millis(500);
/// Longer than a phone is ever away, which is a week. The pauses are also those between two attempts to start a process.
pub const PATIENCE: Patience = Patience {
    longest: Duration::from_secs(21 * 24 * 3600),
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(300),
};

/// See the module.
pub struct Simulator {
    pub devnet: Arc<Devnet>,
    pub plan: Plan,
    pub disk: Arc<MemoryStore>,
    pub dir: PathBuf,
    pub pace: Pace,
    route: Route,
    news: mpsc::UnboundedSender<News>,
    host: Mutex<Option<(Host, Arc<Life>)>>,
    phones: [Slot; 2],
    /// Where host and phones meet, while it runs.
    relay: Mutex<Option<Arc<SimRelay>>>,
    /// The host is without a network until then.
    host_away_until: Mutex<Instant>,
    /// Witnesses of what the owners' phones send.
    observers: [Arc<Observer>; 2],
    /// Outputs of the faucet to the owners and the hub.
    given: Mutex<Vec<(Txid, ScriptBuf)>>,
    /// Transactions that the host has broadcast.
    sent: Arc<Mutex<HashSet<Txid>>>,
    /// How often the tip that the host has read was another one.
    tips: Arc<AtomicU32>,
    /// Events that must never happen, in words.
    troubles: Mutex<Vec<String>>,
    /// Cloned by all that is connected, see [`Simulator::alive`].
    pub connected: Arc<()>,
}

/// Numbers of tasks and connections of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Of the runtime.
    pub tasks: usize,
    /// Links, ends of connections between nodes, and hosts that can make some.
    pub connections: usize,
}

/// The process of a phone, and its owner's use of it.
struct Slot {
    running: Mutex<Option<(Phone, Arc<Life>)>>,
    /// Without a network until then.
    away_until: Mutex<Instant>,
    rest: watch::Sender<Rest>,
}

/// Whether a phone's owner has it at hand. Otherwise it does nothing at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    AtHand,
    /// Until an interruption of a day is over, or a wake call.
    PutAway,
    /// Until a wake call.
    Dozes,
    /// Until [`Simulator::come_back`]: no wake call has an effect.
    Sleeps,
}

impl Slot {
    fn new() -> Slot {
        Slot {
            running: Mutex::default(),
            away_until: Mutex::new(Instant::now()),
            rest: watch::Sender::new(Rest::AtHand),
        }
    }
}

impl Simulator {
    /// A world without processes, but for the relay. The tasks that start again what died end with the returned set.
    pub fn new(
        devnet: Devnet,
        disk: MemoryStore,
        dir: PathBuf,
        pace: Pace,
        route: Route,
        plan: Plan,
        audits: [Audit; 2],
    ) -> (Arc<Simulator>, JoinSet<()>) {
        let (news, received) = mpsc::unbounded_channel();
        let sim = Arc::new(Simulator {
            devnet: Arc::new(devnet),
            plan,
            disk: Arc::new(disk),
            dir,
            pace,
            route,
            news,
            host: Mutex::default(),
            phones: [Slot::new(), Slot::new()],
            relay: Mutex::default(),
            host_away_until: Mutex::new(Instant::now()),
            observers: audits.map(|audit| Arc::new(Observer::new(audit))),
            given: Mutex::default(),
            sent: Arc::default(),
            tips: Arc::default(),
            troubles: Mutex::default(),
            connected: Arc::default(),
        });
        sim.start_relay();
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(sim.clone(), received));
        tasks.spawn(put_away(sim.clone()));
        (sim, tasks)
    }

    /// Starts the relay, in a world that has one. It has forgotten all.
    fn start_relay(&self) {
        if self.route.has_relay() {
            let relay = SimRelay::start(&self.plan, &self.news);
            *lock(&self.relay) = Some(relay);
        }
    }

    pub async fn start_host(self: &Arc<Self>) -> Result<(), String> {
        let life = Life::begin(News::HostDied, self.news.clone());
        let mut config = HostConfig {
            data_dir: self.dir.join("host"),
            ..HostConfig::default()
        };
        config.link.addresses = vec![self.route.address().into()];
        if let Some(mailbox) = self.route.mailbox() {
            config.link.mailboxes = vec![mailbox.into()];
        }
        config.chain.poll_ms = u64::try_from(self.pace.chain_poll.as_millis()).map_err(text)?;
        let (disk, devnet, plan) = (&self.disk, &self.devnet, &self.plan);
        let store = SimStore::new(disk, life.clone(), plan.clone());
        let source = SimSource::new(
            devnet.clone(),
            life.clone(),
            plan.clone(),
            self.sent.clone(),
            self.tips.clone(),
        );
        let network = Arc::new(SimNetwork {
            life: life.clone(),
            plan: self.plan.clone(),
            news: self.news.clone(),
            connected: self.connected.clone(),
        });
        let embedding = Host::embed(config, Arc::new(store), Arc::new(source), network);
        // A host that is killed while it starts would never return from this.
        let host = tokio::select! {
            biased;
            () = life.over() => return Ok(()),
            host = embedding => host.map_err(text)?,
        };
        if self.route.has_relay() {
            let mailbox: Address = self.route.address().parse().map_err(text)?;
            let options = to_relay(Arc::downgrade(self), Client::Host, &life);
            host.wait_at(&mailbox, options).map_err(text)?;
        }
        *lock(&self.host) = Some((host, life));
        Ok(())
    }

    /// Starts a phone's process from its files; it attaches and stays.
    pub fn start_phone(self: &Arc<Self>, owner: usize) -> Result<(), PhoneError> {
        let life = Life::begin(News::PhoneDied(owner), self.news.clone());
        let phone = match self.open(owner, &life) {
            // It died while it started, and is started again.
            Err(_) if life.has_ended() => return Ok(()),
            opened => opened?,
        };
        let sim = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = life.over() => {}
                ran = phone.run(std::future::pending()) => {
                    if let (Err(error), Some(sim)) = (ran, sim.upgrade()) {
                        sim.trouble(format!("a phone gave up: {error}"));
                    }
                }
            }
        });
        Ok(())
    }

    /// A phone's process that does nothing by itself yet.
    pub fn open_phone(self: &Arc<Self>, owner: usize) -> Result<Phone, PhoneError> {
        let life = Life::begin(News::PhoneDied(owner), self.news.clone());
        self.open(owner, &life)
    }

    fn open(self: &Arc<Self>, owner: usize, life: &Arc<Life>) -> Result<Phone, PhoneError> {
        let disk = Arc::new(SimDisk::new(owner, life.clone(), self.plan.clone()));
        let directory = FaultyDirectory::lock(&self.phone_dir(owner), disk.clone())?;
        let vault = open_once(directory.vault()?, &passphrase())?;
        let vault = vault.with_witness(directory.witness(self.observers[owner].clone()));
        let dialer = SimDial {
            sim: Arc::downgrade(self),
            owner,
            life: life.clone(),
        };
        let phone = Phone::on(OneThread::with_disk(disk), vault, dialer)?;
        *lock(&self.phones[owner].running) = Some((phone.clone(), life.clone()));
        Ok(phone)
    }

    pub fn phone_dir(&self, owner: usize) -> PathBuf {
        self.dir.join(OWNERS[owner])
    }

    /// The running phone, if there is one.
    pub fn phone(&self, owner: usize) -> Option<Phone> {
        let running = lock(&self.phones[owner].running);
        let alive = running.as_ref().filter(|(_, life)| !life.has_ended());
        alive.map(|(phone, _)| phone.clone())
    }

    /// Operator interface of the running host, if there is one.
    pub fn operator(&self) -> Option<Operator> {
        let host = lock(&self.host);
        let alive = host.as_ref().filter(|(_, life)| !life.has_ended());
        alive.map(|(host, _)| host.operator())
    }

    /// A process is without a network for so long. No wake call reaches a phone before.
    fn send_away(&self, client: Client, time: Duration) {
        let mut away_until = lock(self.away_until(client));
        *away_until = (*away_until).max(Instant::now() + time);
    }

    fn away_until(&self, client: Client) -> &Mutex<Instant> {
        match client {
            Client::Phone(owner) => &self.phones[owner].away_until,
            Client::Host => &self.host_away_until,
        }
    }

    /// Suspends an owner's phone, out of reach of wake calls, until [`Simulator::come_back`].
    pub fn put_to_sleep(&self, owner: usize) {
        self.suspend(owner, Rest::Sleeps);
    }

    fn suspend(&self, owner: usize, rest: Rest) {
        self.phones[owner].rest.send_replace(rest);
        if let Some((_, life)) = &*lock(&self.phones[owner].running) {
            life.break_lines();
        }
    }

    /// The phone sleeps on, until a wake call.
    pub fn can_be_called(&self, owner: usize) {
        self.phones[owner].rest.send_replace(Rest::Dozes);
    }

    fn gets_calls(&self, owner: usize) -> bool {
        let slot = &self.phones[owner];
        *slot.rest.borrow() != Rest::Sleeps && !self.is_away(Client::Phone(owner))
    }

    /// Whether it is a phone that its owner has put away: what would open a connection again below a link does not.
    fn rests(&self, client: Client) -> bool {
        match client {
            Client::Phone(owner) => *self.phones[owner].rest.borrow() != Rest::AtHand,
            Client::Host => false,
        }
    }

    /// Whether the process is without a network.
    fn is_away(&self, client: Client) -> bool {
        Instant::now() < *lock(self.away_until(client))
    }

    /// The owner has the phone at hand. If it has no network, it still has none.
    pub fn come_back(&self, owner: usize) {
        self.phones[owner].rest.send_replace(Rest::AtHand);
    }

    /// A command of an owner, across phones and hosts that die: repeated until the answer is final.
    pub async fn owner<T>(
        &self,
        owner: usize,
        what: impl AsyncFn(Phone) -> Result<T, PhoneError>,
    ) -> Result<T, PhoneError> {
        let mut pauses = PATIENCE.pauses();
        loop {
            if let Some(phone) = self.phone(owner) {
                match what(phone).await {
                    Err(error) if is_passing(&error) => {}
                    outcome => return outcome,
                }
            }
            pauses.pass().await;
        }
    }

    /// Waits until a condition is met, with the operator of the running host.
    pub async fn until(
        &self,
        what: &str,
        is_so: impl AsyncFn(&Operator) -> Option<bool>,
    ) -> Result<(), String> {
        let waited = PATIENCE.until(what, async || {
            let is_met = match self.operator() {
                Some(operator) => is_so(&operator).await == Some(true),
                None => false,
            };
            Ok::<_, Late>(is_met.then_some(()))
        });
        waited.await.map_err(text)
    }

    /// Waits until no payment is in flight, and all work that waits for nothing is done.
    pub async fn quiet(&self) -> Result<(), String> {
        self.quiet_for(SETTLED).await
    }

    /// Waits until no payment is in flight, and then for so long.
    pub async fn quiet_for(&self, time: Duration) -> Result<(), String> {
        self.until("no payment is in flight", async |operator| {
            let channels = operator.hub_channels().await.ok()?.channels;
            Some(channels.iter().all(|channel| channel.pending_htlcs == 0))
        })
        .await?;
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// Mines, and waits until the host has seen it.
    pub async fn mine(&self, blocks: u32) -> Result<(), String> {
        let mined = self.devnet.mine_to_wallet(blocks);
        mined.map_err(|error| error.to_string())?;
        let height = self.devnet.tip().height;
        self.until("the host is at the tip", async |operator| {
            Some(operator.status().await.ok()?.block_height >= height)
        })
        .await
    }

    /// Sends coins, and confirms them.
    pub async fn fund(&self, address: &str, amount_sat: u64) -> Result<(), String> {
        let address: bitcoin::Address<NetworkUnchecked> = address.parse().map_err(text)?;
        let (address, amount) = (address.assume_checked(), Amount::from_sat(amount_sat));
        let txid = self.devnet.faucet(&address, amount).map_err(text)?;
        lock(&self.given).push((txid, address.script_pubkey()));
        self.mine(1).await
    }

    /// Outputs of the faucet to the owners and the hub.
    pub fn given(&self) -> Vec<(Txid, ScriptBuf)> {
        lock(&self.given).clone()
    }

    /// The audits of all that the owners' phones have sent so far.
    pub fn audits(&self) -> [Audit; 2] {
        self.observers.each_ref().map(|observer| observer.audit())
    }

    /// A seeded fault: an owner's phone gives away a preimage for which there is no invoice.
    pub fn sell_preimage(&self, owner: usize) {
        self.observers[owner].hear_a_sale();
    }

    /// All that the owners' phones sent and must never send.
    pub fn overheard(&self) -> Vec<Fault> {
        let observers = self.observers.iter().zip(OWNERS);
        observers
            .flat_map(|(observer, owner)| observer.faults(owner))
            .collect()
    }

    /// The hub's namespace of the host's store.
    pub async fn copy_hub(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        self.disk.load(HUB).await.map_err(text)
    }

    /// Starts the host again, with a hub that has forgotten all since `copy` was made.
    pub async fn roll_back_hub(
        self: &Arc<Self>,
        copy: Vec<(String, Vec<u8>)>,
    ) -> Result<(), String> {
        self.until("the host runs", async |_| Some(true)).await?;
        let stopped = lock(&self.host).take();
        if let Some((host, life)) = stopped {
            life.retire();
            drop(host);
        }
        let epoch = self.disk.take_lease(HUB).await.map_err(text)?;
        let now = self.copy_hub().await?;
        let gone = now.into_iter().map(|(key, _)| Write::Delete(key));
        let old = copy.into_iter().map(|(key, value)| Write::Put(key, value));
        let batch = Batch {
            namespace: HUB.into(),
            epoch,
            writes: gone.chain(old).collect(),
        };
        self.disk.commit(batch).await.map_err(text)?;
        self.start_in_the_end(None).await
    }

    /// How often the tip that the host has read was another one so far.
    pub fn tips(&self) -> u32 {
        self.tips.load(Ordering::Relaxed)
    }

    /// The tasks and connections now: always the same at a quiet moment with all processes there, whatever died before.
    pub fn alive(&self) -> Alive {
        Alive {
            tasks: Handle::current().metrics().num_alive_tasks(),
            connections: Arc::strong_count(&self.connected) - 1,
        }
    }

    /// Records an event that must never happen.
    pub fn trouble(&self, what: String) {
        lock(&self.troubles).push(what);
    }

    pub fn take_troubles(&self) -> Vec<String> {
        let sent = lock(&self.sent).len();
        if sent > MOST_SENT {
            self.trouble(format!("{sent} transactions were sent"));
        }
        std::mem::take(&mut *lock(&self.troubles))
    }

    /// Starts the relay after its time without one.
    async fn restart_relay(self: Arc<Self>, away: Duration) {
        tokio::time::sleep(away.max(RESTART)).await;
        self.start_relay();
    }

    /// A seeded fault: the relay ends, and nobody starts it again.
    pub fn end_relay(&self) {
        if let Some(relay) = lock(&self.relay).take() {
            relay.life.retire();
        }
    }

    /// Starts the host, or a phone, in a moment.
    async fn restart(self: Arc<Self>, phone: Option<usize>) {
        tokio::time::sleep(RESTART).await;
        if let Err(error) = self.start_in_the_end(phone).await {
            self.trouble(error);
        }
    }

    /// Starts the host, or a phone. While a disk fails it may not start: then it is tried again, as a supervisor does.
    async fn start_in_the_end(self: &Arc<Self>, phone: Option<usize>) -> Result<(), String> {
        let mut pauses = PATIENCE.pauses();
        loop {
            let (is_in_a_spell, happened) = (self.plan.is_in_a_spell(), self.plan.happened());
            let started = match phone {
                None => self.start_host().await,
                Some(owner) => self.start_phone(owner).map_err(text),
            };
            match started {
                Ok(()) => return Ok(()),
                Err(_) if is_in_a_spell || self.plan.happened() > happened => {
                    pauses.pass().await;
                }
                Err(error) => return Err(format!("a process does not start: {error}")),
            }
        }
    }

    /// Stops every process in order.
    pub async fn stop(&self) {
        for slot in &self.phones {
            let running = lock(&slot.running).take();
            if let Some((phone, life)) = running {
                let _ = phone.detach().await;
                phone.stop_now();
                life.retire();
            }
        }
        let host = lock(&self.host).take();
        if let Some((host, life)) = host {
            host.stop().await;
            life.retire();
        }
        self.end_relay();
    }
}

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Whether the owner would try again: the process, the link or the host was away, or asks for a retry.
fn is_passing(error: &PhoneError) -> bool {
    match error {
        PhoneError::Input(_)
        | PhoneError::Refused(_)
        | PhoneError::PaymentFailed(_)
        | PhoneError::ProofInvalid
        | PhoneError::Answer(_)
        | PhoneError::Foreign(_) => false,
        PhoneError::Host(error) => matches!(error.action(), Action::Retry | Action::WaitForPhone),
        _ => true,
    }
}

/// Starts again the processes that died.
async fn supervise(sim: Arc<Simulator>, mut news: mpsc::UnboundedReceiver<News>) {
    let mut starting = JoinSet::new();
    while let Some(news) = news.recv().await {
        match news {
            News::HostDied => {
                drop(lock(&sim.host).take());
                starting.spawn(sim.clone().restart(None));
            }
            News::PhoneDied(owner) => {
                let running = lock(&sim.phones[owner].running).take();
                if let Some((phone, _)) = running {
                    phone.stop_now();
                }
                starting.spawn(sim.clone().restart(Some(owner)));
            }
            News::LinkDropped { client, away } => sim.send_away(client, away),
            News::RelayDied => {
                let died = lock(&sim.relay).take();
                let away = died.map(|relay| relay.away()).unwrap_or_default();
                starting.spawn(sim.clone().restart_relay(away));
            }
            News::Woken(name) => {
                let owner = OWNERS.iter().position(|owner| *owner == name);
                if let Some(owner) = owner.filter(|owner| sim.gets_calls(*owner)) {
                    sim.come_back(owner);
                }
            }
        }
    }
}

/// When something lasts a day, owners put their phones away after a while, and have them at hand when it is over. Meanwhile
/// the chain goes on.
async fn put_away(sim: Arc<Simulator>) {
    let mut blocks = sim.pace.blocks_of_days;
    loop {
        sim.plan.day_begins().await;
        tokio::time::sleep(AT_HAND).await;
        for owner in [ANN, BOB] {
            if *sim.phones[owner].rest.borrow() == Rest::AtHand {
                sim.suspend(owner, Rest::PutAway);
            }
        }
        let mining = async {
            while blocks > 0 {
                tokio::time::sleep(HOUR).await;
                blocks = blocks.saturating_sub(BLOCKS_AN_HOUR);
                if let Err(error) = sim.devnet.mine_to_wallet(BLOCKS_AN_HOUR) {
                    sim.trouble(format!("no blocks: {error}"));
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = sim.plan.is_over() => {}
            () = mining => {}
        }
        for slot in &sim.phones {
            slot.rest.send_if_modified(|rest| {
                let is_put_away = *rest == Rest::PutAway;
                if is_put_away {
                    *rest = Rest::AtHand;
                }
                is_put_away
            });
        }
    }
}

/// A phone's connections to the host.
struct SimDial {
    sim: Weak<Simulator>,
    owner: usize,
    life: Arc<Life>,
}

#[async_trait]
impl Dial for SimDial {
    async fn dial(&self, address: &str, meeting: &Rendezvous) -> Result<Carrier, LinkError> {
        let mut rest = running(&self.sim)?.phones[self.owner].rest.subscribe();
        // The simulator is gone when this fails.
        let _ = rest.wait_for(|rest| *rest == Rest::AtHand).await;
        let sim = running(&self.sim)?;
        let client = Client::Phone(self.owner);
        if sim.route.has_relay() {
            let options = to_relay(self.sim.clone(), client, &self.life);
            return options.dial(address, meeting).await;
        }
        if self.life.has_ended() || sim.is_away(client) {
            return Err(unreachable("there is no network"));
        }
        let host = lock(&sim.host);
        let Some((host, life)) = host.as_ref().filter(|(_, life)| !life.has_ended()) else {
            return Err(unreachable("the host is down"));
        };
        let lives = [self.life.clone(), life.clone()];
        let [near, far] = Line::lay(
            client,
            lives,
            sim.pace.distance,
            &sim.plan,
            |_, _| true,
            &sim.news,
            &sim.connected,
        );
        host.accept_link(far.into_carrier());
        Ok(near.into_carrier())
    }
}

fn running(sim: &Weak<Simulator>) -> Result<Arc<Simulator>, LinkError> {
    sim.upgrade().ok_or_else(|| unreachable("the run is over"))
}

fn unreachable(reason: &str) -> LinkError {
    LinkError::Unreachable {
        address: "simulated".into(),
        reason: reason.into(),
    }
}

/// By which a process dials the relay: the real carriers of mailboxes over connections of the simulation.
fn to_relay(sim: Weak<Simulator>, client: Client, life: &Arc<Life>) -> DialOptions {
    let to_relay = ToRelay {
        sim,
        client,
        life: life.clone(),
    };
    let hashmail = to_relay.clone();
    let carriers = Carriers::none()
        .with(&["mailbox+sim"], Mailbox)
        .with(&["hashmail+grpc", "lnc+grpc"], Hashmail)
        .with(&["sim"], to_relay);
    DialOptions {
        carriers,
        hashmail: Some(Arc::new(ToHashmail(hashmail))),
        ..DialOptions::default()
    }
}

/// The connections of one process to the relay.
#[derive(Clone)]
struct ToRelay {
    sim: Weak<Simulator>,
    client: Client,
    life: Arc<Life>,
}

impl ToRelay {
    fn reach(&self) -> Result<(Arc<Simulator>, Arc<SimRelay>), LinkError> {
        let sim = running(&self.sim)?;
        if self.life.has_ended() || sim.is_away(self.client) || sim.rests(self.client) {
            return Err(unreachable("there is no network"));
        }
        let relay = lock(&sim.relay).clone();
        let relay = relay.filter(|relay| !relay.life.has_ended());
        let relay = relay.ok_or_else(|| unreachable("the relay is down"))?;
        Ok((sim, relay))
    }
}

#[async_trait]
impl Dialer for ToRelay {
    async fn dial(
        &self,
        _: &Address,
        _: &DialOptions,
        _: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        let (sim, relay) = self.reach()?;
        // It is half way between a phone and its host.
        let distance = sim.pace.distance / 2;
        Ok(relay.connect(self.client, &self.life, distance, &sim.connected))
    }
}

impl DialHashmail for ToRelay {
    fn dial(&self) -> Result<LineEnd, LinkError> {
        let (sim, relay) = self.reach()?;
        let distance = sim.pace.distance / 2;
        let line = relay.connect_hashmail(self.client, &self.life, distance, &sim.connected);
        line.ok_or_else(|| unreachable("the relay serves no hashmail"))
    }
}

#[async_trait]
impl Listen for ToRelay {
    async fn listen(&self, _: &Address) -> Result<Box<dyn Listener>, LinkError> {
        Err(unreachable("nobody listens in a simulated world"))
    }
}
