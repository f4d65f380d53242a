//! Runs a devnet until it is interrupted: `cargo run -p longhand-chain --example devnet -- 127.0.0.1:18443 DIR`.
//! Without a directory the chain ends with the process.

use longhand_chain::{Devnet, DevnetConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = DevnetConfig::default();
    let mut args = std::env::args().skip(1);
    if let Some(rpc_bind) = args.next() {
        config.rpc_bind = rpc_bind.parse()?;
    }
    config.data_dir = args.next().map(Into::into);
    let devnet = Devnet::start(config).await?;
    println!("{} is at height {}", devnet.rpc_url(), devnet.tip().height);
    tokio::signal::ctrl_c().await?;
    devnet.shutdown().await;
    Ok(())
}
