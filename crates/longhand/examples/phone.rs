//! A phone: it pairs with a host, opens a channel with its own coins, and pays.
//!
//! `cargo run -p longhand --example phone`
use std::{error::Error, time::Duration};

use futures::StreamExt;
use longhand::bitcoin::Network;
use longhand::{DialOptions, Phone, Secrets, Vault, Words};
use longhand_testkit::host::{World, faucet};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A chain with a block every half second, and somebody's host on it.
    let dir = tempfile::tempdir()?;
    let world = World::new(tempfile::tempdir()?).await?;
    let interval = Some(Duration::from_millis(500));
    world.devnet.set_block_interval(interval);
    let code = world.host.create_owner("alice").await?.code;

    // A new phone. Its words are the backup of its coins; the passphrase protects its files.
    let passphrase = "correct horse battery staple".to_owned().into();
    let secrets = Secrets::generate(Network::Regtest, Words::Twelve)?;
    println!("words: {}", secrets.mnemonic.as_str());
    let vault = Vault::create(dir.path(), secrets, &passphrase, None)?;
    let phone = Phone::new(vault, DialOptions::default())?;

    // What happens is printed.
    let events = phone.events();
    tokio::spawn(events.for_each(async |event| println!("{event:?}")));

    // From now on it is attached, and dials again whenever the network fails.
    phone.pair(&code).await?;

    // Coins for the phone's wallet. The phone has derived the address too, and compared.
    let address = phone.address().await?.address;
    faucet(&world.devnet, &address, 1_000_000)?;
    phone
        .wait_until(|now| now.onchain_confirmed_sat > 0)
        .await?;

    // A channel to the host's hub. `true`: returns when it can carry payments.
    phone.open(500_000, None, false, true, None).await?;

    let hub = world.host.hub().await?;
    let invoice = hub.invoice(Some(42_000_000), "tea", 3_600).await?;
    let paid = phone.pay(&invoice.bolt11, None, None).await?;
    println!("paid {} msat, proof {}", paid.amount_msat, paid.preimage);

    // Away is normal: the node goes on watching the chain without its phone.
    phone.detach().await?;
    world.stop().await?;
    Ok(())
}
