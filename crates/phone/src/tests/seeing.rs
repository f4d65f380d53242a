//! Headers from the host and from a second source, in the phone's files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::constants::genesis_block;
use bitcoin::{Network, OutPoint};
use longhand_link::DialOptions;
use longhand_proto::signer::ExtendHeaders;
use longhand_proto::signer::signer_op::Op;
use longhand_testkit::Patience;

use super::signing::{ask, batch};
use super::*;
use crate::source::{OutputState, SecondSource};

/// So many blocks of regtest without transactions, the genesis block first; `name` makes others.
fn mined(blocks: u32, name: u32) -> Vec<Header> {
    let mut headers = vec![genesis_block(Network::Regtest).header];
    for _ in 0..blocks {
        let last = headers[headers.len() - 1];
        let mut next = Header {
            prev_blockhash: last.block_hash(),
            time: last.time + 600 + name,
            ..last
        };
        while next.validate_pow(next.target()).is_err() {
            next.nonce += 1;
        }
        headers.push(next);
    }
    headers
}

#[derive(Clone, Default)]
struct Source {
    headers: Arc<Mutex<Vec<Header>>>,
    is_away: Arc<AtomicBool>,
}

#[async_trait]
impl SecondSource for Source {
    fn place(&self) -> String {
        "https://source.example".into()
    }
    async fn height(&self) -> Result<u32, String> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err("it is away".into()),
            false => Ok(u32::try_from(self.headers.lock().unwrap().len() - 1).unwrap()),
        }
    }
    async fn header_at(&self, height: u32) -> Result<Header, String> {
        let headers = self.headers.lock().unwrap();
        let header = headers.get(height as usize);
        header.copied().ok_or_else(|| "no such block".into())
    }
    async fn state_of(&self, _: OutPoint) -> Result<OutputState, String> {
        Ok(OutputState::Unspent)
    }
}

fn reopen(dir: &Path) -> Vault {
    Vault::open(dir, &passphrase()).unwrap()
}

async fn height(phone: &Phone) -> u32 {
    phone.chain().await.unwrap().height
}

async fn with_source(phone: &Phone, source: &Source) {
    let value = "https://source.example/api".to_owned();
    phone
        .set_limit("second_source".into(), value)
        .await
        .unwrap();
    let source = source.clone();
    let make = move |_: &str, _| Ok(Arc::new(source.clone()) as Arc<dyn SecondSource>);
    phone.make_sources_with(make).await.unwrap();
}

#[tokio::test]
async fn headers_of_the_host_are_there_after_a_restart_and_a_damaged_file_begins_anew() {
    let (dir, phone, host) = attached().await;
    let headers = mined(5, 0);
    let op = ExtendHeaders {
        headers: headers[1..].iter().flat_map(serialize).collect(),
        solutions: Vec::new(),
    };
    ask(&host, &batch([Op::ExtendHeaders(op)])).await.unwrap();
    assert_eq!(height(&phone).await, 5);
    phone.stop_now();
    drop((phone, host));

    let path = dir.path().join("headers");
    let phone = start(reopen(dir.path()), DialOptions::default()).unwrap();
    assert_eq!(height(&phone).await, 5);
    phone.stop_now();
    drop(phone);

    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let phone = start(reopen(dir.path()), DialOptions::default()).unwrap();
    assert_eq!(height(&phone).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_source_shows_blocks_that_the_host_keeps_back() {
    let dir = tempfile::tempdir().unwrap();
    let phone = start(new_vault(dir.path(), WORDS), DialOptions::default()).unwrap();
    let source = Source::default();
    *source.headers.lock().unwrap() = mined(3, 0);
    with_source(&phone, &source).await;
    Patience::VIRTUAL
        .expect("the source is asked", async || height(&phone).await == 3)
        .await;

    // A reorganisation that the host says nothing about.
    *source.headers.lock().unwrap() = mined(4, 7);
    let tip = mined(4, 7)[4].block_hash().to_string();
    Patience::VIRTUAL
        .expect("the source is asked", async || {
            phone.chain().await.unwrap().block_hash == tip
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_second_source_that_is_away_or_behind_is_shown_to_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let phone = start(new_vault(dir.path(), WORDS), DialOptions::default()).unwrap();
    let source = Source::default();
    *source.headers.lock().unwrap() = mined(3, 0);
    with_source(&phone, &source).await;
    let error = async || {
        let source = phone.chain().await.unwrap().second_source;
        source.map_or_else(|| "not asked".into(), |it| it.error)
    };
    Patience::VIRTUAL
        .expect("the source is asked", async || error().await.is_empty())
        .await;
    source.headers.lock().unwrap().pop();
    Patience::VIRTUAL
        .expect("the source is asked", async || {
            error().await.contains("at block 2")
        })
        .await;
    source.is_away.store(true, Ordering::SeqCst);
    Patience::VIRTUAL
        .expect("the source is asked", async || {
            error().await.contains("away")
        })
        .await;

    phone
        .set_limit("second_source".into(), "none".into())
        .await
        .unwrap();
    assert_eq!(error().await, "not asked");
}
