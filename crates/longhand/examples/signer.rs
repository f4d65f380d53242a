//! A signer of one's own: keys in this process, and a log of all that they sign (`cargo run -p longhand --example signer`).
#![allow(clippy::unwrap_used)]
use async_trait::async_trait;
use longhand::bitcoin::{BlockHash, Network::Regtest};
use longhand::messages::signer::{SignerBatch, SignerReply};
use longhand::node::{self, Keys, NodeConfig, Services, SignerAway, SignerTransport};
use longhand::signer::{Seed, Signer};
use longhand::{Node, OpenChannel, store::MemoryStore};
use longhand_testkit::host::World;
use std::sync::{Arc, Mutex};

/// The engine of the phone. One with coins makes `outcome.records` durable before it answers.
struct MySigner(Mutex<Signer>);
#[async_trait]
impl SignerTransport for MySigner {
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        // The place for rules of one's own: an operation is refused by a `Refusal` as its answer.
        println!("signs {} operations", batch.ops.len());
        Ok(self.0.lock().unwrap().handle(&batch, 0).reply)
    }
    fn known_blocks(&self) -> Vec<(u32, BlockHash)> {
        self.0.lock().unwrap().headers().locator()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A chain, and somebody's host on it: its hub has coins, and opens a channel to the node.
    let world = World::new(tempfile::tempdir()?).await?;
    let hub = world.host.hub().await?;
    // The node has the public keys of its signer alone.
    let engine = Signer::new(&Seed::from_entropy(&[1; 16])?, Regtest, &[2; 32])?;
    let keys = Keys::Remote(Box::new(engine.register(0)));
    let (store, source) = (MemoryStore::new(), world.devnet.source());
    let services = Services::alone(Arc::new(store), Arc::new(source), Regtest).await;
    let running = node::Node::start(NodeConfig::new("mine", Regtest, keys), services).await?;
    let signer = Arc::new(MySigner(Mutex::new(engine)));
    running.attach(signer.clone());
    let (node, at) = (
        Node::from(running.clone()),
        world.addresses.peer.to_string(),
    );
    node.connect(hub.id(), &at).await?;
    let opened = hub
        .open_channel(OpenChannel::to(node.id(), 500_000).push(100_000_000))
        .await?;
    world.mine(6).await?;
    hub.usable(&opened).await?;
    node.wait_until(|now| now.usable_channels == 1).await?;
    let invoice = hub.invoice(Some(42_000_000), "tea", 3_600).await?;
    // An HTLC is offered only for a payment that the owner asked for. One with coins makes these records durable too.
    let hash = invoice.payment_hash.0;
    let intent = |engine: &mut Signer| engine.add_intent(hash, 42_000_000, 0, u64::MAX, 0);
    let _ = intent(&mut signer.0.lock().unwrap())?;
    let paid = node.pay(&invoice.bolt11, None, None).await?;
    println!("paid {} msat, proof {}", paid.amount_msat, paid.preimage);
    running.stop().await;
    Ok(())
}
