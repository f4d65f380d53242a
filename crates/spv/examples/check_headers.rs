//! Checks a file of raw headers, 80 bytes each, as a phone does.
//!
//! ```text
//! cargo run --release -p longhand-spv --example check_headers -- bitcoin 0 headers.bin
//! ```
//! The arguments are the network (bitcoin, testnet, testnet4, signet, regtest), the height of the first header, which is the first of a
//! period of difficulty (a multiple of 2,016) and is taken for granted, and the file. A node writes one with
//! `bitcoin-cli getblockheader <hash> false | xxd -r -p` for each height. A signet's signatures are not checked.
#![allow(clippy::unwrap_used)]

use std::error::Error;
use std::time::Instant;

use bitcoin::consensus::deserialize;
use bitcoin::{Network, ScriptBuf, block::Header};
use longhand_spv::headers::MAX_BATCH;
use longhand_spv::{Checkpoint, Headers, Params};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [network, height, path] = &arguments[..] else {
        return Err("give a network, the height of the first header, and a file".into());
    };
    let network: Network = network.parse()?;
    let params = match network {
        Network::Signet => Params::custom_signet(ScriptBuf::from_bytes(vec![0x51])),
        _ => Params::of(network),
    };
    let bytes = std::fs::read(path)?;
    let headers: Result<Vec<Header>, _> = bytes.chunks(80).map(deserialize).collect();
    let headers = headers?;

    let first = Checkpoint::from_trusted_headers(&params, height.parse()?, &headers[..1])?;
    let mut chain = Headers::new(params.clone(), first.clone());
    let started = Instant::now();
    for batch in headers[1..].chunks(MAX_BATCH) {
        let _ = chain.extend(batch, u64::from(u32::MAX))?;
    }
    let extended = started.elapsed();
    let started = Instant::now();
    let restored = Headers::from_stored(params, first, &chain.stored())?;
    println!(
        "{} headers up to height {}, {}, are valid; work since the first: {:x}; {:.2} s, and {:.2} s to read them back",
        headers.len(),
        chain.height(),
        chain.tip_hash(),
        chain.work(),
        extended.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    assert_eq!(restored.headers.tip_hash(), chain.tip_hash());
    Ok(())
}
