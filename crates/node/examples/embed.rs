//! A node inside a process of one's own: with a store, a chain and a signer of one's own.
//!
//! `cargo run -p longhand-node --example embed`

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bitcoin::Network::Regtest;
use longhand_chain::devnet::Devnet;
use longhand_node::{Keys, Node, NodeConfig, Services, SignerAway, SignerTransport};
use longhand_proto::command::{Command, GetInfo, command::Command::GetInfo as Info};
use longhand_proto::signer::{SignerBatch, SignerReply};
use longhand_signer::{Seed, Signer as Engine};
use longhand_store::{Batch, KeyRange, Store, StoreError, Write};
use tokio::sync::Mutex;

/// A store for one node; this one forgets when the process ends.
#[derive(Default)]
struct MyStore(Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait]
impl Store for MyStore {
    async fn load(&self, _: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(self.0.lock().await.clone().into_iter().collect())
    }
    async fn range(&self, _: &str, range: KeyRange) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let map = self.0.lock().await.clone();
        let keys = range.from..range.to;
        let entries = map.into_iter().rev().filter(|(key, _)| keys.contains(key));
        let limit = range.limit.map_or(usize::MAX, |limit| limit as usize);
        Ok(entries.take(limit).collect())
    }
    async fn get(&self, _: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().await.get(key).cloned())
    }
    async fn namespaces(&self, _: &str) -> Result<Vec<String>, StoreError> {
        Ok(vec!["mine".into()])
    }
    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut map = self.0.lock().await;
        for write in batch.writes {
            match write {
                Write::Put(key, value) => map.insert(key, value),
                Write::Delete(key) => map.remove(&key),
            };
        }
        Ok(())
    }
    async fn take_lease(&self, _: &str) -> Result<u64, StoreError> {
        Ok(1)
    }
    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The engine of the phone. One with coins makes `outcome.records` durable before it answers.
struct MySigner(Mutex<Engine>);

#[async_trait]
impl SignerTransport for MySigner {
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        Ok(self.0.lock().await.handle(&batch, 0).reply)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let devnet = Devnet::start_default().await?;
    let source = Arc::new(devnet.source());
    let engine = Engine::new(&Seed::from_entropy(&[1; 16])?, Regtest, &[2; 32])?;
    let keys = Keys::Remote(Box::new(engine.register(0)));
    let services = Services::alone(Arc::new(MyStore::default()), source, Regtest).await;
    let node = Node::start(NodeConfig::new("mine", Regtest, keys), services).await?;
    node.attach(Arc::new(MySigner(Mutex::new(engine))));
    let command = Some(Info(GetInfo {}));
    println!("{:#?}", node.command(Command { command }).await);
    node.stop().await;
    Ok(())
}
