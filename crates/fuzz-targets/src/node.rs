//! A node for one input: of an owner whose phone is in the same process, or a hub, on a chain that has only its first
//! block unless the input mines more. It is new for every input, on tokio's paused clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{
    Dialer, Graph, Keys, Node, NodeConfig, NodeError, PeerStream, Registration, Services,
};
use longhand_store::MemoryStore;
use longhand_testkit::phone::Phone;
use tokio::io::DuplexStream;

use crate::audited::PHONE;
use crate::bolt8::Dialled;
use crate::chain::SmallChain;

/// The longest that anything is waited for, in virtual time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const NOW: u64 = 1_800_000_000;

/// Runs `play` on a runtime of its own, whose clock is paused.
pub(crate) fn run<F: Future<Output = ()>>(play: impl FnOnce() -> F) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        play().await;
    });
}

/// The phone's node: its public keys.
pub(crate) fn registration() -> Registration {
    longhand_testkit::phone::registration(PHONE)
}

/// The phone, on a clock that stands still.
pub(crate) fn phone() -> Phone {
    Phone::at(PHONE, NOW)
}

/// The owner's node, without its phone.
pub(crate) async fn owner(registration: Registration) -> Result<Node, NodeError> {
    owner_with(registration, Line::default()).await
}

/// The same, which dials over this line.
pub(crate) async fn owner_with(registration: Registration, line: Line) -> Result<Node, NodeError> {
    let services = services(SmallChain::new(), line);
    owner_of(registration, hub_id(), services).await
}

/// The same, of this hub and made of these services.
pub(crate) async fn owner_of(
    registration: Registration,
    hub: PublicKey,
    services: Services,
) -> Result<Node, NodeError> {
    let keys = Keys::Remote(Box::new(registration));
    let config = NodeConfig {
        hub: Some(hub),
        ..NodeConfig::new("owner", Network::Regtest, keys)
    };
    Node::start(config, services).await
}

/// A hub.
pub(crate) async fn hub(services: Services) -> Node {
    let keys = Keys::Local([7; 32].into());
    let config = NodeConfig {
        is_hub: true,
        alias: "hub".into(),
        ..NodeConfig::new("hub", Network::Regtest, keys)
    };
    let hub = Node::start(config, services).await;
    hub.expect("a hub starts")
}

/// Gives the node its phone.
pub(crate) fn attach(node: &Node) {
    node.attach(Arc::new(phone()));
}

/// The node has not been loaded again.
pub(crate) async fn is_sound(node: &Node) {
    let overview = node.overview().await.expect("the node runs");
    assert_eq!(overview.restarts, 0, "the node panicked");
}

/// The id of a node that does not run.
pub(crate) fn hub_id() -> PublicKey {
    let generator = [&[2][..], &bitcoin::secp256k1::constants::GENERATOR_X].concat();
    PublicKey::from_slice(&generator).unwrap()
}

/// The services of a node on this chain.
pub(crate) fn services(chain: SmallChain, dialer: impl Dialer) -> Services {
    Services {
        store: Arc::new(MemoryStore::new()),
        chain: Arc::new(chain),
        graph: Arc::new(Graph::new(Network::Regtest)),
        dialer: Arc::new(dialer),
    }
}

/// The one connection that a node can have by dialling, with [`Dialled`].
#[derive(Clone, Default)]
pub(crate) struct Line(Arc<Mutex<Option<DuplexStream>>>);

impl Line {
    pub fn new(end: DuplexStream) -> Line {
        Line(Arc::new(Mutex::new(Some(end))))
    }

    pub fn take(&self) -> Option<DuplexStream> {
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        end.take()
    }
}

#[async_trait]
impl Dialer for Line {
    async fn dial(&self, to: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
        // A node dials its hub too.
        let is_it = to == Dialled::node_id();
        match is_it.then(|| self.take()).flatten() {
            Some(end) => Ok(Box::new(end)),
            None => Err(std::io::Error::other("no such peer")),
        }
    }
}
