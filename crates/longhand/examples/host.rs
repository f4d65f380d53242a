//! A host inside one's own program: it makes an owner, whose phone pairs with it, and its hub pays the owner.
//!
//! `cargo run -p longhand --example host`
use std::{error::Error, sync::Arc, time::Duration};

use futures::StreamExt;
use longhand::bitcoin::{Amount, Network};
use longhand::chain::Devnet;
use longhand::store::MemoryStore;
use longhand::{DialOptions, Host, OpenChannel, Phone, PhoneEvent, Secrets, Vault, Words};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // A chain of this process: a block every half second.
    let devnet = Devnet::start_default().await?;
    devnet.set_block_interval(Some(Duration::from_millis(500)));

    // The host's store and chain are this program's choice; without them: a database, and Bitcoin Core.
    let host = Host::builder()
        .directory(dir.path().join("host"))
        .store(Arc::new(MemoryStore::new()))
        .chain(Arc::new(devnet.source()))
        .on_free_ports()
        .start()
        .await?;

    // The host's own node. It gets coins, to open channels with.
    let hub = host.hub().await?;
    devnet.faucet(&hub.new_address().await?, Amount::from_sat(2_000_000))?;
    hub.wait_until(|now| now.onchain_sat > 0).await?;

    // An owner shows the pairing code to the phone, whose node then runs on this host.
    let code = host.create_owner("alice").await?.code;
    let phone = phone(&dir.path().join("alice"))?;
    let mut events = phone.events();
    phone.pair(&code).await?;
    hub.open_channel(OpenChannel::to(phone.node_id(), 500_000))
        .await?;
    while !matches!(events.next().await, Some(PhoneEvent::ChannelReady(_))) {}

    // The invoice is signed on the phone, and the preimage stays there until the payment has come.
    let invoice = phone.invoice(Some(42_000_000), "for alice", 3_600).await?;
    let payment = hub.pay(&invoice.bolt11, None, None).await?;
    println!("paid {} sat to alice", payment.amount_msat / 1_000);

    phone.detach().await?;
    host.stop().await;
    Ok(())
}

/// A new phone. Its words are the backup of its coins; the passphrase protects its files.
fn phone(dir: &std::path::Path) -> Result<Phone, Box<dyn Error>> {
    let secrets = Secrets::generate(Network::Regtest, Words::Twelve)?;
    let vault = Vault::create(dir, secrets, &"passphrase".to_owned().into(), None)?;
    Ok(Phone::new(vault, DialOptions::default())?)
}
