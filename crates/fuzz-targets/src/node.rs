//! A node for one input: of an owner whose phone's engine stands beside it, or a hub, on a chain that has only its first
//! block. It begins anew for every input, on a clock that stands still while there is something to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use longhand_chain::{
    BlockRef, Chain, ChainError, ChainEvent, ChainSource, FeeRates, Subscription, Watch, WatchList,
};
use longhand_node::{
    Dialer, Graph, Keys, Node, NodeConfig, NodeError, Parts, PeerStream, Registration, Signer,
    SignerAway,
};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerOp, SignerReply};
use longhand_store::MemoryStore;
use tokio::sync::mpsc;

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
    let keys = Keys::Remote(Box::new(registration));
    let config = NodeConfig {
        hub: Some(hub_id()),
        ..NodeConfig::new("owner", Network::Regtest, keys)
    };
    Node::start(config, parts()).await
}

/// A hub.
pub(crate) async fn hub() -> Node {
    let keys = Keys::Local([7; 32].into());
    let config = NodeConfig {
        is_hub: true,
        alias: "hub".into(),
        ..NodeConfig::new("hub", Network::Regtest, keys)
    };
    Node::start(config, parts()).await.expect("a hub starts")
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
fn hub_id() -> PublicKey {
    let generator = [&[2][..], &bitcoin::secp256k1::constants::GENERATOR_X].concat();
    PublicKey::from_slice(&generator).unwrap()
}

fn parts() -> Parts {
    Parts {
        store: Arc::new(MemoryStore::new()),
        chain: Arc::new(FirstBlock),
        graph: Arc::new(Graph::new(Network::Regtest)),
        dialer: Arc::new(Nowhere),
    }
}

/// The phone's engine, and nothing that lasts.
pub(crate) struct Phone(Mutex<longhand_signer::Signer>);

impl Phone {
    pub fn new() -> Phone {
        Phone(Mutex::new(engine()))
    }

    /// The answer to one operation.
    pub fn answer(&self, op: Op) -> Answer {
        let op = SignerOp {
            op: Some(op),
            ..SignerOp::default()
        };
        let mut signer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = signer.handle(&SignerBatch { ops: vec![op] }, NOW);
        let answer = outcome.reply.answers.into_iter().next();
        answer.and_then(|answer| answer.answer).expect("an answer")
    }
}

#[async_trait]
impl Signer for Phone {
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        let mut signer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(signer.handle(&batch, NOW).reply)
    }
}

struct Nowhere;

#[async_trait]
impl Dialer for Nowhere {
    async fn dial(&self, _: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
        Err(std::io::Error::other("there is nobody"))
    }
}

/// A regtest of which only the first block is known.
#[derive(Debug)]
struct FirstBlock;

fn first_block() -> Block {
    bitcoin::constants::genesis_block(Network::Regtest)
}

fn tip() -> BlockRef {
    BlockRef {
        height: 0,
        hash: first_block().block_hash(),
    }
}

#[async_trait]
impl Chain for FirstBlock {
    async fn subscribe(&self, _: BlockRef, _: WatchList) -> Result<Subscription, ChainError> {
        let (events, receiver) = mpsc::unbounded_channel();
        let _ = events.send(ChainEvent::Synced { tip: tip() });
        Ok(Subscription {
            events: receiver,
            watch: Arc::new(Watching { _events: events }),
        })
    }

    fn tip(&self) -> Option<BlockRef> {
        Some(tip())
    }

    fn fee_rates(&self) -> FeeRates {
        FeeRates::FLOOR
    }

    fn broadcast(&self, _: Vec<Transaction>) {}

    fn source(&self) -> Arc<dyn ChainSource> {
        Arc::new(FirstBlock)
    }
}

/// Nothing will ever happen to what is watched.
#[derive(Debug)]
struct Watching {
    /// As long as it is here, more events could come.
    _events: mpsc::UnboundedSender<ChainEvent>,
}

impl Watch for Watching {
    fn outpoint(&self, _: OutPoint) {}
    fn script(&self, _: ScriptBuf) {}
    fn txid(&self, _: Txid) {}
}

fn unknown<T>(what: impl ToString) -> Result<T, ChainError> {
    Err(ChainError::NotFound(what.to_string()))
}

#[async_trait]
impl ChainSource for FirstBlock {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Ok(tip())
    }

    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        match *hash == tip().hash {
            true => Ok((first_block().header, 0)),
            false => unknown(hash),
        }
    }

    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        match height {
            0 => Ok(tip().hash),
            _ => unknown(height),
        }
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        match *hash == tip().hash {
            true => Ok(first_block()),
            false => unknown(hash),
        }
    }

    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        Ok(FeeRates::FLOOR)
    }

    async fn broadcast(&self, _: &[Transaction]) -> Result<(), ChainError> {
        Ok(())
    }

    async fn unspent(&self, _: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        Ok(None)
    }

    async fn transaction_at(&self, _: u32, _: u32) -> Result<Option<Transaction>, ChainError> {
        Ok(None)
    }
}
