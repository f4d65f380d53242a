//! A node inside a process of one's own: with a store, a chain and a signer of one's own.
//!
//! `cargo run -p longhand-node --example embed`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bitcoin::{Network, secp256k1::PublicKey};
use longhand_chain::{Follower, FollowerConfig, devnet::Devnet};
use longhand_node::*;
use longhand_proto::command::{Command, GetInfo, command::Command as Kind};
use longhand_proto::signer::{SignerBatch, SignerReply};
use longhand_store::{Batch, Store, StoreError, Write};

/// A store of one's own; this one forgets when the process ends.
#[derive(Default)]
struct MyStore(Mutex<BTreeMap<(String, String), Vec<u8>>>);

#[async_trait]
impl Store for MyStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = map.iter().filter(|((space, _), _)| space == namespace);
        Ok(mine
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }
    async fn namespaces(&self, _: &str) -> Result<Vec<String>, StoreError> {
        Ok(vec!["mine".into()])
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in batch.writes {
            match write {
                Write::Put(key, value) => map.insert((batch.namespace.clone(), key), value),
                Write::Delete(key) => map.remove(&(batch.namespace.clone(), key)),
            };
        }
        Ok(())
    }
    async fn take_lease(&self, _: &str) -> Result<u64, StoreError> {
        Ok(1)
    }
}

/// The engine of the phone, in this process. One with coins keeps `outcome.records` before it answers.
struct MySigner(Mutex<longhand_signer::Signer>);

#[async_trait]
impl Signer for MySigner {
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        let mut engine = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(engine.handle(&batch, 0).reply)
    }
}

struct MyDialer;

#[async_trait]
impl Dialer for MyDialer {
    async fn dial(&self, _: PublicKey, address: &str) -> std::io::Result<Box<dyn PeerStream>> {
        Ok(Box::new(tokio::net::TcpStream::connect(address).await?))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let devnet = Devnet::start_default().await?;
    let chain = Arc::new(Follower::start(
        Arc::new(devnet.source()),
        FollowerConfig::default(),
    ));
    chain.tips().wait_for(Option::is_some).await?;
    let engine = longhand_signer::Signer::new(
        &longhand_signer::Seed::from_entropy(&[1; 16])?,
        Network::Regtest,
    )?;
    let keys = Keys::Remote(Box::new(engine.register(0)));
    let (graph, store) = (
        Arc::new(Graph::new(Network::Regtest)),
        Arc::new(MyStore::default()),
    );
    let parts = Parts {
        store,
        chain,
        graph,
        dialer: Arc::new(MyDialer),
    };
    let node = Node::start(NodeConfig::new("mine", Network::Regtest, keys), parts).await?;
    node.attach(Arc::new(MySigner(Mutex::new(engine))));
    println!(
        "{:#?}",
        node.command(Command {
            command: Some(Kind::GetInfo(GetInfo {}))
        })
        .await
    );
    node.stop().await;
    Ok(())
}
