//! What ten years of headers take: bytes, and the time to check them all.
//!
//! ```text
//! cargo run --release -p longhand-spv --example ten_years
//! ```
//! The headers have regtest's difficulty, so that they can be made here, and mainnet's rules about time. A real chain costs as much to check,
//! and 261 divisions for its retargets.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{Network, TxMerkleNode};
use longhand_spv::headers::MAX_BATCH;
use longhand_spv::{Checkpoint, Extended, Headers, Params};

/// Ten years of 144 blocks a day.
const BLOCKS: u32 = 525_960;

fn mine(previous: &Header, height: u32) -> Header {
    let mut root = [0; 32];
    root[..4].copy_from_slice(&height.to_le_bytes());
    let mut header = Header {
        version: Version::NO_SOFT_FORK_SIGNALLING,
        prev_blockhash: previous.block_hash(),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: previous.time + 600,
        bits: previous.bits,
        nonce: 0,
    };
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

fn main() {
    let params = Params::of(Network::Regtest).with_time_rules(true);
    let checkpoint = Checkpoint::genesis(Network::Regtest);
    let mut last = *checkpoint.header();
    let all: Vec<Header> = (1..=BLOCKS)
        .map(|height| {
            last = mine(&last, height);
            last
        })
        .collect();

    let started = Instant::now();
    let mut headers = Headers::new(params.clone(), checkpoint.clone());
    let mut file = headers.stored();
    for batch in all.chunks(MAX_BATCH) {
        let Extended::Appended { change, .. } =
            headers.extend(batch, u64::from(last.time)).unwrap()
        else {
            unreachable!("the chain only grows");
        };
        file.extend(change.append);
    }
    println!(
        "extended by {BLOCKS} headers in {:.2} s",
        started.elapsed().as_secs_f64()
    );
    println!(
        "stored: {} bytes, {:.1} MB",
        file.len(),
        file.len() as f64 / 1e6
    );

    let started = Instant::now();
    let restored = Headers::from_stored(params, checkpoint, &file).unwrap();
    println!(
        "read back and checked in {:.2} s",
        started.elapsed().as_secs_f64()
    );
    assert_eq!(restored.headers.tip_hash(), headers.tip_hash());

    let started = Instant::now();
    assert_eq!(headers.height_of(all[0].block_hash()), Some(1));
    println!(
        "the oldest found by its hash in {:.1} ms",
        started.elapsed().as_secs_f64() * 1e3
    );
}
