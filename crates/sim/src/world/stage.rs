//! The processes of a simulated world: one host and its owners' phones. They die and are started again; what they wrote
//! stays.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, ScriptBuf, Txid};
use longhand_chain::Devnet;
use longhand_host::{Host, HostConfig, Operator};
use longhand_link::{Carrier, LinkError};
use longhand_phone::vault::Passphrase;
use longhand_phone::{Dial, Phone, PhoneError, Vault};
use longhand_proto::command::error::Action;
use longhand_signer::audit::Audit;
use longhand_store::{Batch, MemoryStore, Store, Write};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::check::Fault;
use crate::world::parts::{Life, Line, News, SimDisk, SimNetwork, SimSource, SimStore, lock};
use crate::world::plan::Plan;
use crate::world::scenario::Pace;
use crate::world::witness::Observer;

/// The owners, by the index of their phones.
pub const OWNERS: [&str; 2] = ["ann", "bob"];
pub const ANN: usize = 0;
pub const BOB: usize = 1;

/// What pairing codes say; nobody connects there.
pub const ADDRESS: &str = "grpc://simulated:1";
/// The hub's namespace in the host's store.
const HUB: &str = "hub";
/// In which whatever has nothing to wait for is done.
const SETTLED: Duration = Duration::from_secs(60);
/// More transactions than the host has a reason to make: those of a close, with more fees every few blocks.
const MOST_SENT: usize = 150;
/// For so long an owner has the phone at hand while nothing happens.
const AT_HAND: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);
/// While something lasts a day.
const BLOCKS_AN_HOUR: u32 = 4;
/// A process that died is started again after this.
const RESTART: Duration = Duration::from_millis(500);
/// The longest that anything may take: whoever comes back after a week has time left.
pub const PATIENCE: Duration = Duration::from_secs(21 * 24 * 3600);
/// Between two looks at something that others bring about; then ever longer, up to the second, which is also how
/// often a process is tried that cannot be started.
const LOOK: Duration = Duration::from_millis(200);
pub const LOOK_MOST: Duration = Duration::from_secs(300);

/// See the module.
pub struct Stage {
    pub devnet: Arc<Devnet>,
    pub plan: Plan,
    pub disk: Arc<MemoryStore>,
    pub dir: PathBuf,
    pub pace: Pace,
    news: mpsc::UnboundedSender<News>,
    host: Mutex<Option<(Host, Arc<Life>)>>,
    phones: [Slot; 2],
    /// Hear what the owners' phones say.
    observers: [Arc<Observer>; 2],
    /// Outputs of the faucet's, to the owners and the hub.
    given: Mutex<Vec<(Txid, ScriptBuf)>>,
    /// Transactions of the host's.
    sent: Arc<Mutex<HashSet<Txid>>>,
    /// How often the host has heard of another tip.
    tips: Arc<AtomicU32>,
    /// What must never happen, in words.
    troubles: Mutex<Vec<String>>,
    /// Cloned by all that is connected, see [`Stage::alive`].
    pub connected: Arc<()>,
}

/// What runs in a world, and is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Of the runtime.
    pub tasks: usize,
    /// Links, ends of connections between nodes, and hosts that can make some.
    pub connections: usize,
}

/// Where a phone's process runs.
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
    /// Until a long day is over, or it is called.
    PutAway,
    /// Until it is called.
    Dozes,
    /// Until [`Stage::come_back`]: no call wakes it.
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

impl Stage {
    /// A stage with nobody on it. The tasks that start again what died end with the returned set.
    pub fn new(
        devnet: Devnet,
        disk: MemoryStore,
        dir: PathBuf,
        pace: Pace,
        plan: Plan,
        audits: [Audit; 2],
    ) -> (Arc<Stage>, JoinSet<()>) {
        let (news, heard) = mpsc::unbounded_channel();
        let stage = Arc::new(Stage {
            devnet: Arc::new(devnet),
            plan,
            disk: Arc::new(disk),
            dir,
            pace,
            news,
            host: Mutex::default(),
            phones: [Slot::new(), Slot::new()],
            observers: audits.map(|audit| Arc::new(Observer::new(audit))),
            given: Mutex::default(),
            sent: Arc::default(),
            tips: Arc::default(),
            troubles: Mutex::default(),
            connected: Arc::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(supervise(stage.clone(), heard));
        tasks.spawn(put_away(stage.clone()));
        (stage, tasks)
    }

    pub async fn start_host(&self) -> Result<(), String> {
        let life = Life::begin(News::HostDied, self.news.clone());
        let mut config = HostConfig {
            data_dir: self.dir.join("host"),
            ..HostConfig::default()
        };
        config.link.addresses = vec![ADDRESS.into()];
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
        // Killed while it starts, it would never be done.
        let host = tokio::select! {
            biased;
            () = life.over() => return Ok(()),
            host = embedding => host.map_err(text)?,
        };
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
        let stage = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = life.over() => {}
                ran = phone.run(std::future::pending()) => {
                    if let (Err(error), Some(stage)) = (ran, stage.upgrade()) {
                        stage.trouble(format!("a phone gave up: {error}"));
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
        let vault = Vault::open(&self.phone_dir(owner), &passphrase())?.with_disk_faults(disk);
        let vault = vault.with_witness(self.observers[owner].clone());
        let dialer = SimDial {
            stage: Arc::downgrade(self),
            owner,
            life: life.clone(),
        };
        let phone = Phone::new(vault, dialer)?;
        *lock(&self.phones[owner].running) = Some((phone.clone(), life.clone()));
        Ok(phone)
    }

    pub fn phone_dir(&self, owner: usize) -> PathBuf {
        self.dir.join(OWNERS[owner])
    }

    /// The phone that runs, if one does.
    pub fn phone(&self, owner: usize) -> Option<Phone> {
        let running = lock(&self.phones[owner].running);
        let alive = running.as_ref().filter(|(_, life)| !life.has_ended());
        alive.map(|(phone, _)| phone.clone())
    }

    /// The operator's hand on the host that runs, if one does.
    pub fn operator(&self) -> Option<Operator> {
        let host = lock(&self.host);
        let alive = host.as_ref().filter(|(_, life)| !life.has_ended());
        alive.map(|(host, _)| host.operator())
    }

    /// An owner's phone is without a network for so long. No call reaches it before.
    fn send_away(&self, owner: usize, time: Duration) {
        let mut away_until = lock(&self.phones[owner].away_until);
        *away_until = (*away_until).max(Instant::now() + time);
    }

    /// Suspends an owner's phone, with no way to call it, until [`Stage::come_back`].
    pub fn put_to_sleep(&self, owner: usize) {
        self.suspend(owner, Rest::Sleeps);
    }

    fn suspend(&self, owner: usize, rest: Rest) {
        self.phones[owner].rest.send_replace(rest);
        if let Some((_, life)) = &*lock(&self.phones[owner].running) {
            life.break_lines();
        }
    }

    /// The phone sleeps on, until it is called.
    pub fn can_be_called(&self, owner: usize) {
        self.phones[owner].rest.send_replace(Rest::Dozes);
    }

    fn hears_calls(&self, owner: usize) -> bool {
        let slot = &self.phones[owner];
        *slot.rest.borrow() != Rest::Sleeps && !self.is_away(owner)
    }

    /// Without a network.
    fn is_away(&self, owner: usize) -> bool {
        Instant::now() < *lock(&self.phones[owner].away_until)
    }

    /// The phone is at hand. If it has no network, it still has none.
    pub fn come_back(&self, owner: usize) {
        self.phones[owner].rest.send_replace(Rest::AtHand);
    }

    /// What an owner does, across phones and hosts that die: again, until there is an answer that stays.
    pub async fn owner<T>(
        &self,
        owner: usize,
        what: impl AsyncFn(Phone) -> Result<T, PhoneError>,
    ) -> Result<T, PhoneError> {
        let mut look = LOOK;
        loop {
            if let Some(phone) = self.phone(owner) {
                match what(phone).await {
                    Err(error) if is_passing(&error) => {}
                    outcome => return outcome,
                }
            }
            pause(&mut look).await;
        }
    }

    /// Waits until something is so, with the operator of the host that runs.
    pub async fn until(
        &self,
        what: &str,
        is_so: impl AsyncFn(&Operator) -> Option<bool>,
    ) -> Result<(), String> {
        let waiting = async {
            let mut look = LOOK;
            loop {
                if let Some(operator) = self.operator()
                    && is_so(&operator).await == Some(true)
                {
                    return;
                }
                pause(&mut look).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.map_err(|_| format!("still not: {what}"))
    }

    /// Waits until no payment is in flight, and what can be done at once is done.
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

    /// Sends coins that are there at once.
    pub async fn fund(&self, address: &str, amount_sat: u64) -> Result<(), String> {
        let address: Address<NetworkUnchecked> = address.parse().map_err(text)?;
        let (address, amount) = (address.assume_checked(), Amount::from_sat(amount_sat));
        let txid = self.devnet.faucet(&address, amount).map_err(text)?;
        lock(&self.given).push((txid, address.script_pubkey()));
        self.mine(1).await
    }

    /// Outputs of the faucet's, to the owners and the hub.
    pub fn given(&self) -> Vec<(Txid, ScriptBuf)> {
        lock(&self.given).clone()
    }

    /// What was heard of the owners' phones so far.
    pub fn audits(&self) -> [Audit; 2] {
        self.observers.each_ref().map(|observer| observer.audit())
    }

    /// An owner's phone is heard to give away a preimage for which there is no invoice.
    pub fn sell_preimage(&self, owner: usize) {
        self.observers[owner].hear_a_sale();
    }

    /// What the owners' phones said and must never say.
    pub fn overheard(&self) -> Vec<Fault> {
        let observers = self.observers.iter().zip(OWNERS);
        observers
            .flat_map(|(observer, owner)| observer.faults(owner))
            .collect()
    }

    /// What the hub's part of the host's store holds.
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

    /// How often the host has heard of another tip so far.
    pub fn tips(&self) -> u32 {
        self.tips.load(Ordering::Relaxed)
    }

    /// What runs and is connected now. At a quiet moment with everybody there it is always the same, whatever died before.
    pub fn alive(&self) -> Alive {
        Alive {
            tasks: Handle::current().metrics().num_alive_tasks(),
            connections: Arc::strong_count(&self.connected) - 1,
        }
    }

    /// Remembers what must never happen.
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

    /// Starts the host, or a phone, in a moment.
    async fn restart(self: Arc<Self>, phone: Option<usize>) {
        tokio::time::sleep(RESTART).await;
        if let Err(error) = self.start_in_the_end(phone).await {
            self.trouble(error);
        }
    }

    /// Starts the host, or a phone. While a disk fails it may not start: then again, as whoever watches it does.
    async fn start_in_the_end(self: &Arc<Self>, phone: Option<usize>) -> Result<(), String> {
        let mut look = LOOK;
        loop {
            let (is_in_a_spell, happened) = (self.plan.is_in_a_spell(), self.plan.happened());
            let started = match phone {
                None => self.start_host().await,
                Some(owner) => self.start_phone(owner).map_err(text),
            };
            match started {
                Ok(()) => return Ok(()),
                Err(_) if is_in_a_spell || self.plan.happened() > happened => {
                    pause(&mut look).await;
                }
                Err(error) => return Err(format!("a process does not start: {error}")),
            }
        }
    }

    /// Ends every process politely.
    pub async fn stop(&self) {
        for slot in &self.phones {
            let running = lock(&slot.running).take();
            if let Some((phone, life)) = running {
                let _ = phone.detach().await;
                phone.kill();
                life.retire();
            }
        }
        let host = lock(&self.host).take();
        if let Some((host, life)) = host {
            host.stop().await;
            life.retire();
        }
    }
}

async fn pause(look: &mut Duration) {
    tokio::time::sleep(*look).await;
    *look = (*look * 3 / 2).min(LOOK_MOST);
}

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub fn passphrase() -> Passphrase {
    "simulated".to_owned().into()
}

/// Whether the owner would try again: the process, the link or the host was away, or will be able to later.
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

/// Starts again what died.
async fn supervise(stage: Arc<Stage>, mut news: mpsc::UnboundedReceiver<News>) {
    let mut starting = JoinSet::new();
    while let Some(news) = news.recv().await {
        match news {
            News::HostDied => {
                drop(lock(&stage.host).take());
                starting.spawn(stage.clone().restart(None));
            }
            News::PhoneDied(owner) => {
                let running = lock(&stage.phones[owner].running).take();
                if let Some((phone, _)) = running {
                    phone.kill();
                }
                starting.spawn(stage.clone().restart(Some(owner)));
            }
            News::LinkDropped { phone, away } => stage.send_away(phone, away),
            News::Woken(name) => {
                let owner = OWNERS.iter().position(|owner| *owner == name);
                if let Some(owner) = owner.filter(|owner| stage.hears_calls(*owner)) {
                    stage.come_back(owner);
                }
            }
        }
    }
}

/// When something lasts a day, owners put their phones away after a while, and have them at hand when it is over. Meanwhile
/// the chain goes on.
async fn put_away(stage: Arc<Stage>) {
    let mut blocks = stage.pace.blocks_of_days;
    loop {
        stage.plan.day_begins().await;
        tokio::time::sleep(AT_HAND).await;
        for owner in [ANN, BOB] {
            if *stage.phones[owner].rest.borrow() == Rest::AtHand {
                stage.suspend(owner, Rest::PutAway);
            }
        }
        let mining = async {
            while blocks > 0 {
                tokio::time::sleep(HOUR).await;
                blocks = blocks.saturating_sub(BLOCKS_AN_HOUR);
                if let Err(error) = stage.devnet.mine_to_wallet(BLOCKS_AN_HOUR) {
                    stage.trouble(format!("no blocks: {error}"));
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            () = stage.plan.is_over() => {}
            () = mining => {}
        }
        for slot in &stage.phones {
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

/// A phone's way to the host.
struct SimDial {
    stage: Weak<Stage>,
    owner: usize,
    life: Arc<Life>,
}

#[async_trait]
impl Dial for SimDial {
    async fn dial(&self, _: &[String]) -> Result<Carrier, LinkError> {
        let unreachable = |reason: &str| LinkError::Unreachable {
            address: ADDRESS.into(),
            reason: reason.into(),
        };
        let stage = || {
            let stage = self.stage.upgrade();
            stage.ok_or_else(|| unreachable("it is over"))
        };
        let mut rest = stage()?.phones[self.owner].rest.subscribe();
        // The stage is gone when this fails.
        let _ = rest.wait_for(|rest| *rest == Rest::AtHand).await;
        let stage = stage()?;
        if self.life.has_ended() || stage.is_away(self.owner) {
            return Err(unreachable("there is no network"));
        }
        let host = lock(&stage.host);
        let Some((host, life)) = host.as_ref().filter(|(_, life)| !life.has_ended()) else {
            return Err(unreachable("the host is down"));
        };
        let lives = [self.life.clone(), life.clone()];
        let (near, far) = Line::lay(
            self.owner,
            lives,
            stage.pace.distance,
            &stage.plan,
            &stage.news,
            &stage.connected,
        );
        host.accept_link(far);
        Ok(near)
    }
}
