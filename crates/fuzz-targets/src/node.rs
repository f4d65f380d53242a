//! A node for one input: of an owner whose phone's engine stands beside it, or a hub, on a chain that has only its first
//! block unless the input has it grow. It begins anew for every input, on a clock that stands still while there is
//! something to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{
    Dialer, Graph, Keys, Node, NodeConfig, NodeError, PeerStream, Registration, Services,
    SignerAway, SignerTransport,
};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerOp, SignerReply};
use longhand_store::MemoryStore;
use tokio::io::DuplexStream;

use crate::bolt8::Dialled;
use crate::chain::SmallChain;
use crate::phone::{LEDGER_KEY, seed};

/// Virtual time after which nobody waits any more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const NOW: u64 = 1_800_000_000;

/// Runs `play` in a world of its own.
pub(crate) fn run<F: Future<Output = ()>>(play: impl FnOnce() -> F) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        play().await;
    });
}

/// What the phone tells a host of its keys.
pub(crate) fn registration() -> Registration {
    let signer = engine();
    signer.register(0)
}

fn engine() -> longhand_signer::Signer {
    longhand_signer::Signer::new(&seed(), Network::Regtest, &LEDGER_KEY).unwrap()
}

/// The owner's node, without its phone.
pub(crate) async fn owner(registration: Registration) -> Result<Node, NodeError> {
    owner_with(registration, Line::default()).await
}

/// The same, that dials by this line.
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
    node.attach(Arc::new(Phone::new()));
}

/// The node did what it did without being loaded again.
pub(crate) async fn is_sound(node: &Node) {
    let overview = node.overview().await.expect("the node runs");
    assert_eq!(overview.restarts, 0, "the node panicked");
}

/// Some node: nobody has its keys.
pub(crate) fn hub_id() -> PublicKey {
    let generator = [&[2][..], &bitcoin::secp256k1::constants::GENERATOR_X].concat();
    PublicKey::from_slice(&generator).unwrap()
}

/// What a node on this chain is made of.
pub(crate) fn services(chain: SmallChain, dialer: impl Dialer) -> Services {
    Services {
        store: Arc::new(MemoryStore::new()),
        chain: Arc::new(chain),
        graph: Arc::new(Graph::new(Network::Regtest)),
        dialer: Arc::new(dialer),
    }
}

/// The phone's engine, and nothing that lasts.
pub(crate) struct Phone {
    engine: Mutex<longhand_signer::Signer>,
    now_unix_s: u64,
}

impl Phone {
    pub fn new() -> Phone {
        Phone::at(NOW)
    }

    /// One whose clock stands there.
    pub fn at(now_unix_s: u64) -> Phone {
        Phone {
            engine: Mutex::new(engine()),
            now_unix_s,
        }
    }

    /// The engine, for the owner's own calls.
    pub fn engine(&self) -> MutexGuard<'_, longhand_signer::Signer> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to one operation.
    pub fn answer(&self, op: Op) -> Answer {
        let op = SignerOp {
            op: Some(op),
            ..SignerOp::default()
        };
        let batch = SignerBatch { ops: vec![op] };
        let outcome = self.engine().handle(&batch, self.now_unix_s);
        let answer = outcome.reply.answers.into_iter().next();
        answer.and_then(|answer| answer.answer).expect("an answer")
    }
}

#[async_trait]
impl SignerTransport for Phone {
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        Ok(self.engine().handle(&batch, self.now_unix_s).reply)
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
            None => Err(std::io::Error::other("there is nobody")),
        }
    }
}
