//! The wiring of a host: each of its parts, made once, with the parts that it uses.
//!
//! ```text
//! Operator ──> Phones ──> Commands ──> OwnerBook
//!                │            └──────> NodeStarter ──> Switchboard ──> Network
//!                │                        └─────────> NodeWatcher ──> Wakes ──> Network
//! LinkServer ──> HostedNodes, OwnerBook
//! ```
//!
//! All of them run their tasks on the same [`Tasks`]. A node holds its dialler, and so the [`Switchboard`], whose
//! lines hold nodes: [`Services::abort`] removes the lines.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::future::{join, join_all};
use longhand_chain::{Chain as _, ChainSource, Follower, FollowerConfig};
use longhand_link::{Address, CloseCode, LinkKeypair};
use longhand_store::Store;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::apps::{Apps, KnownApps};
use crate::changes::Changes;
use crate::commands::Commands;
use crate::config::HostConfig;
use crate::graph::GraphKeeper;
use crate::health::{Health, Problem};
use crate::hosted::HostedNodes;
use crate::hub::{self, Hub};
use crate::links::{LinkServer, STOPPING};
use crate::meetings::OwnerMeetings;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::operator::{Operator, OperatorServices};
use crate::owners::{OwnerBook, OwnerRecord};
use crate::pairing_codes::PairingCodes;
use crate::phones::{self, Phones};
use crate::starter::NodeStarter;
use crate::switchboard::Switchboard;
use crate::tasks::Tasks;
use crate::tor::Tor;
use crate::tor::clients::TorClients;
use crate::wake::Wakes;
use crate::watcher::NodeWatcher;
use crate::{Addresses, HostError, files};

/// How long the nodes may take to stop.
const NODES_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to send the phones that the host stops.
const LINKS_LIMIT: Duration = Duration::from_secs(1);

/// The parts of a host that its start, its end and its listeners use.
pub(crate) struct Services {
    pub config: Arc<HostConfig>,
    pub addresses: Arc<OnceLock<Addresses>>,
    pub metrics: Metrics,
    pub tasks: Arc<Tasks>,
    pub chain: Arc<Follower>,
    pub book: Arc<OwnerBook>,
    pub nodes: Arc<HostedNodes>,
    pub hub: Arc<Hub>,
    pub switchboard: Arc<Switchboard>,
    pub wakes: Arc<Wakes>,
    pub watcher: Arc<NodeWatcher>,
    pub starter: Arc<NodeStarter>,
    pub phones: Arc<Phones>,
    pub links: Arc<LinkServer>,
    pub meetings: Arc<OwnerMeetings>,
    pub graph: Arc<GraphKeeper>,
    pub health: Arc<Health>,
    pub tor: Option<Arc<Tor>>,
    pub apps: Arc<Apps>,
    operator: Arc<OperatorServices>,
}

/// The mailboxes' authorities, as apps are given them.
fn app_mailboxes(words_at: &[String]) -> Vec<String> {
    let authority = |text: &String| Some(text.parse::<Address>().ok()?.authority().to_owned());
    words_at.iter().filter_map(authority).collect()
}

impl Services {
    /// Loads the host's own state from the store, and wires its parts. No task is begun but the chain's follower. `epoch` is
    /// the lease on [`crate::owners::NAMESPACE`].
    pub async fn load(
        config: HostConfig,
        store: Arc<dyn Store>,
        epoch: u64,
        source: ChainSource,
        network: Arc<dyn Network>,
        metrics: Metrics,
        tor: Option<Arc<Tor>>,
    ) -> Result<Services, HostError> {
        let nodes = Arc::new(HostedNodes::default());
        let changes = Arc::new(Changes::default());
        let link_key =
            LinkKeypair::from_bytes(*files::read_or_make_secret(&config.link_key_file())?);
        let restricted = tor.clone().filter(|tor| tor.is_restricted());
        let clients = restricted.map(TorClients::new);
        let has_mailboxes = !config.link.mailboxes.is_empty();
        let config = Arc::new(config);
        let codes = Arc::new(PairingCodes {
            config: config.clone(),
            link_key: link_key.public(),
            tor: tor.clone(),
        });
        let words = (!codes.words_at().is_empty()).then(|| codes.clone());
        let meetings = OwnerMeetings::new(has_mailboxes.then(|| link_key.clone()), clients, words);
        let meetings = Arc::new(meetings);
        let known_apps = KnownApps::default();
        let on_change = Box::new({
            let (nodes, meetings, apps) = (nodes.clone(), meetings.clone(), known_apps.clone());
            move |record: &OwnerRecord| {
                nodes.set_record(record);
                meetings.set_record(record);
                apps.set_record(record);
            }
        });
        let book = OwnerBook::load(store.clone(), epoch, config.network, on_change).await?;
        let hub = Hub::new(hub::seed(&config, &store, epoch).await?);
        let (no_owner, _) = phones::conversation(&config.link)?;
        let graph = GraphKeeper::load(&config.data_dir, store.as_ref(), config.network).await?;
        let follower = FollowerConfig {
            poll_interval: Duration::from_millis(config.chain.poll_ms),
            fallback_sat_per_kw: config.chain.fallback_sat_per_kw(config.network),
        };

        let (book, hub, graph) = (Arc::new(book), Arc::new(hub), Arc::new(graph));
        let tasks = Arc::new(Tasks::new());
        let addresses = Arc::new(OnceLock::new());
        let chain = Arc::new(Follower::start(source, follower));
        let switchboard = Arc::new(Switchboard::new(
            hub.node_id(),
            network.clone(),
            Duration::from_millis(config.peer.connect_timeout_ms),
            tasks.clone(),
        ));
        let holding = hub.clone();
        let fail_held = move |node_id| {
            if let Some(hub) = holding.node() {
                hub.fail_held(node_id);
            }
        };
        let wakes = Arc::new(Wakes::new(
            &config,
            network,
            Box::new(fail_held),
            nodes.clone(),
            metrics.clone(),
            tasks.clone(),
        ));
        let watcher = Arc::new(NodeWatcher {
            chain: chain.clone(),
            hub: hub.clone(),
            switchboard: switchboard.clone(),
            nodes: nodes.clone(),
            wakes: wakes.clone(),
            metrics: metrics.clone(),
            changes: changes.clone(),
            tasks: tasks.clone(),
        });
        let starter = Arc::new(NodeStarter::new(
            config.clone(),
            store,
            graph.graph(),
            hub.clone(),
            switchboard.clone(),
            watcher.clone(),
            tasks.clone(),
        ));
        let apps = Arc::new(Apps {
            network: config.network,
            known: known_apps,
            mailboxes: app_mailboxes(&codes.words_at()),
            book: book.clone(),
            nodes: nodes.clone(),
            chain: chain.clone(),
            graph: graph.graph(),
            tasks: tasks.clone(),
            texts: Mutex::default(),
            in_use: watch::Sender::new(()),
        });
        let commands = Arc::new(Commands {
            hub: hub.node_id(),
            book: book.clone(),
            starter: starter.clone(),
            chain: chain.clone(),
            metrics: metrics.clone(),
            changes: changes.clone(),
            apps: apps.clone(),
        });
        let phones = Arc::new(Phones {
            link: config.link.clone(),
            nodes: nodes.clone(),
            starter: starter.clone(),
            commands,
            switchboard: switchboard.clone(),
            wakes: wakes.clone(),
            metrics: metrics.clone(),
            changes: changes.clone(),
            tasks: tasks.clone(),
        });
        let health = Arc::new(Health {
            network: config.network,
            chain: chain.clone(),
            hub: hub.clone(),
            metrics: metrics.clone(),
            changes: changes.clone(),
            reserve: Mutex::default(),
            mailboxes: Mutex::default(),
            certificates: OnceLock::new(),
            tor: tor.as_ref().map(|tor| tor.state()),
        });
        let operator = Arc::new(OperatorServices {
            config: config.clone(),
            codes,
            apps: apps.clone(),
            book: book.clone(),
            nodes: nodes.clone(),
            phones: phones.clone(),
            hub: hub.clone(),
            chain: chain.clone(),
            health: health.clone(),
            changes,
            addresses: addresses.clone(),
            tasks: tasks.clone(),
        });
        let links = Arc::new(LinkServer::new(
            link_key,
            book.clone(),
            nodes.clone(),
            metrics.clone(),
            tasks.clone(),
            no_owner,
        ));
        Ok(Services {
            config,
            addresses,
            metrics,
            tasks,
            chain,
            book,
            nodes,
            hub,
            switchboard,
            wakes,
            watcher,
            starter,
            phones,
            links,
            meetings,
            graph,
            health,
            tor,
            apps,
            operator,
        })
    }

    /// Begins the host's work: nodes start, and the phones of these owners are served.
    pub fn begin(&self, records: Vec<OwnerRecord>) -> Result<(), HostError> {
        self.starter.start_hub();
        for record in records {
            self.meetings.set_record(&record);
            self.apps.known.set_record(&record);
            self.phones.add(record)?;
        }
        self.tasks.spawn(self.watcher.clone().follow_chain());
        self.tasks.spawn(self.graph.clone().keep());
        self.tasks.spawn(self.health.clone().watch());
        Ok(())
    }

    /// The operator's requests.
    pub fn operator(&self) -> Operator {
        Operator::new(&self.operator)
    }

    /// Sets the metrics that are not counted as they happen.
    pub fn refresh_metrics(&self) {
        let nodes = self.nodes.all();
        let stopped = self.book.unreadable().iter().map(|_| None);
        self.metrics
            .set_nodes(nodes.iter().map(|node| node.state()).chain(stopped));
        let links = nodes.iter().filter(|node| node.is_linked()).count();
        self.metrics
            .links
            .set(i64::try_from(links).unwrap_or(i64::MAX));
        self.metrics
            .chain_reachable
            .set(self.chain.reachable().into());
        let tip_age_s = self.health.tip_age_s().unwrap_or(0);
        self.metrics
            .chain_tip_age_seconds
            .set(i64::try_from(tip_age_s).unwrap_or(i64::MAX));
        let problems = self.health.problems();
        self.metrics
            .set_problems(problems.iter().map(Problem::name));
        for (listener, days) in self.health.certificate_days_left() {
            self.metrics.set_certificate_days_left(&listener, days);
        }
        if let Some(tor) = &self.tor {
            self.metrics.set_tor(&tor.state().borrow());
        }
        let rates = self.chain.fee_rates();
        self.metrics.feerate_sat_per_kw.set(rates.normal.into());
        self.metrics
            .feerate_is_estimate
            .set(rates.is_estimate.into());
    }

    /// Closes all links with `SHUTDOWN`, stops the nodes, and ends all tasks.
    pub async fn stop(&self) {
        self.tasks.begin_stop();
        self.wakes.stop();
        let hosted = self.nodes.all();
        let links: Vec<_> = hosted
            .iter()
            .filter_map(|it| it.conversation.link())
            .collect();
        for node in &hosted {
            node.conversation.give_up(CloseCode::Shutdown, STOPPING);
        }
        let nodes = hosted
            .iter()
            .filter_map(|it| it.node())
            .chain(self.hub.node());
        let stopped = join_all(nodes.map(|node| async move { node.stop().await }));
        if timeout(NODES_LIMIT, stopped).await.is_err() {
            tracing::warn!(
                "some nodes did not stop in time; all that they have sent is in the store"
            );
        }
        // The process may end with this: the reason has to be sent before.
        let closed = join_all(links.iter().map(|link| link.ended()));
        let _ = join(timeout(LINKS_LIMIT, closed), self.apps.leave()).await;
        self.tasks.shutdown().await;
        if let Some(tor) = &self.tor {
            tor.stop().await;
        }
        self.graph.save().await;
    }

    /// Ends everything at once and sends nothing, as if the process was killed.
    pub fn abort(&self) {
        self.tasks.begin_stop();
        self.wakes.stop();
        // Nodes and links before the tasks: a task that is aborted drops what would otherwise still send.
        let owners_nodes = self.nodes.all().into_iter().filter_map(|it| it.node());
        owners_nodes
            .chain(self.hub.node())
            .for_each(|node| node.kill());
        self.links.abandon();
        self.tasks.abort();
        self.switchboard.close();
    }
}
