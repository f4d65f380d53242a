//! Records `src/run.tape`: a phone that opens a channel, is paid through it, pays, and closes, on devnet.
//! `cargo run -p longhand-fuzz-targets --example record`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::BlockHash;
use longhand_fuzz_targets::tape::{Asked, Invoice, Tape};
use longhand_node::{SignerAway, SignerTransport};
use longhand_proto::signer::{SignerBatch, SignerReply};
use longhand_testkit::clock::unix_s;
use longhand_testkit::nodes::{World, pay, settle};
use longhand_testkit::phone::Phone;
use longhand_testkit::until;
use prost::Message;

/// A phone, and its recorded batches and replies.
struct Recorder {
    phone: Arc<Phone>,
    asked: Mutex<Vec<Asked>>,
}

#[async_trait]
impl SignerTransport for Recorder {
    fn known_blocks(&self) -> Vec<(u32, BlockHash)> {
        self.phone.known_blocks()
    }

    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        let after_records = self.phone.ledger().len() as u64;
        let reply = self.phone.sign(batch.clone()).await?;
        self.asked.lock().unwrap().push(Asked {
            after_records,
            batch: Some(batch),
            reply: Some(reply.clone()),
        });
        Ok(reply)
    }
}

/// Two payments to the phone and one from it, through its channel with the hub.
const RECEIVED_MSAT: [u64; 2] = [50_000_000, 7_000_000];
const SENT_MSAT: u64 = 20_000_000;

#[tokio::main]
async fn main() {
    let world = World::new().await;
    let owner = world.owner("alice", 1).await;
    let recorder = Arc::new(Recorder {
        phone: owner.phone.clone(),
        asked: Mutex::default(),
    });
    owner.node.attach(recorder.clone());
    world.fund(&owner.node, 2_000_000).await;
    let channel = world.owner_opens(&owner, &world.hub, 1_000_000).await;
    let invoice = world
        .hub
        .invoice(SENT_MSAT * 10, "tea", 3600)
        .await
        .unwrap();
    owner.pay(&invoice).await;
    let mut invoices = Vec::new();
    for amount_msat in RECEIVED_MSAT {
        let invoice = owner.invoice(amount_msat).await;
        let payment = pay(&world.hub, &invoice).await;
        let payment_hash = payment.payment_hash;
        invoices.push(Invoice {
            payment_hash,
            amount_msat,
        });
    }
    let invoice = world.hub.invoice(SENT_MSAT, "tea", 3600).await.unwrap();
    owner.pay(&invoice).await;
    owner.close(&channel, false).await;
    world
        .mine_until("the channel is closed", async || {
            settle().await;
            owner.overview().await.channels == 0
        })
        .await;
    // A second channel is left without the hub: its outputs are swept.
    let channel = world.owner_opens(&owner, &world.hub, 300_000).await;
    owner.close(&channel, true).await;
    world
        .mine_until("the money is back", async || {
            settle().await;
            owner.overview().await.closing_sat == 0
        })
        .await;
    until("all is written", async || {
        let asked = recorder.asked.lock().unwrap().len() as u64;
        owner.overview().await.signer_batches == asked
    })
    .await;
    let tape = Tape {
        ledger: owner.phone.ledger(),
        asked: recorder.asked.lock().unwrap().clone(),
        invoices,
        unix_s: unix_s(),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/run.tape");
    let bytes = tape.encode_to_vec();
    println!("{} batches, {} bytes", tape.asked.len(), bytes.len());
    std::fs::write(path, bytes).unwrap();
}
