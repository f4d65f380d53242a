//! A host that waits for its phones at a mailbox, and listens nowhere.

use std::time::Duration;

use longhand_host::HostConfig;
use longhand_link::Carriers;
use longhand_mailbox::{Mailbox, MailboxConfig};
use longhand_phone::Phone;
use longhand_proto::operator::RenewPairingRequest;
use longhand_testkit::Patience;
use longhand_testkit::host::World;

const CHANNEL_SAT: u64 = 1_000_000;

/// A mailbox at `listen`.
async fn mailbox(listen: &str) -> Mailbox {
    let mut config = MailboxConfig::default();
    config.link.listen = vec![listen.to_owned()];
    config.metrics.listen = String::new();
    Mailbox::start(config, Carriers::default()).await.unwrap()
}

/// A host whose phones reach it at this mailbox only.
async fn world(mailbox: &Mailbox) -> World {
    let at = format!("mailbox+{}", mailbox.addresses()[0]);
    let set = |config: &mut HostConfig| {
        config.link.listen = Vec::new();
        config.link.mailboxes = vec![at];
    };
    World::with(tempfile::tempdir().unwrap(), set)
        .await
        .unwrap()
}

async fn phone_with_channel(world: &World) -> Phone {
    let phone = world.phone("ann", Duration::ZERO).await.unwrap();
    let opened = world
        .operator
        .hub_open("ann", CHANNEL_SAT, CHANNEL_SAT * 500);
    opened.await.unwrap();
    world.confirm_channels(1).await.unwrap();
    world.operator.usable("ann", 1).await.unwrap();
    phone
}

async fn pay_each_way(world: &World, phone: &Phone) {
    let invoice = world.operator.hub_invoice(10_000).await.unwrap();
    phone.pay(&invoice, None, None).await.unwrap();
    let invoice = phone.invoice(Some(10_000), "back", 3_600).await.unwrap();
    world.operator.hub_pay(invoice.bolt11).await.unwrap();
}

#[tokio::test]
async fn a_phone_pairs_pays_and_is_paid_through_a_mailbox_alone() {
    let mailbox = mailbox("ws://127.0.0.1:0").await;
    let world = world(&mailbox).await;
    let links = &world.addresses.link;
    assert_eq!(links.len(), 1, "no port is open for phones: {links:?}");
    assert_eq!(links[0].scheme(), "mailbox+ws");
    let phone = phone_with_channel(&world).await;
    pay_each_way(&world, &phone).await;
    phone.detach().await.unwrap();
    world.operator.dormant("ann").await.unwrap();
    phone.attach().await.unwrap();
    pay_each_way(&world, &phone).await;
    phone.detach().await.unwrap();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn host_and_phone_meet_again_after_the_mailbox_was_away() {
    let first = mailbox("ws://127.0.0.1:0").await;
    let at = first.addresses()[0].to_string();
    let world = world(&first).await;
    let phone = phone_with_channel(&world).await;
    first.stop().await;
    world.operator.dormant("ann").await.unwrap();
    let again = mailbox(&at).await;
    let back = Patience::REAL.until("the phone is back", async || {
        Ok::<_, longhand_testkit::KitError>(phone.attach().await.ok())
    });
    back.await.unwrap();
    pay_each_way(&world, &phone).await;
    phone.detach().await.unwrap();
    world.stop().await.unwrap();
    again.stop().await;
}

#[tokio::test]
async fn a_phone_that_was_shut_out_meets_nobody_at_the_mailbox() {
    let mailbox = mailbox("ws://127.0.0.1:0").await;
    let world = world(&mailbox).await;
    let phone = world.phone("ann", Duration::ZERO).await.unwrap();
    phone.detach().await.unwrap();
    let request = RenewPairingRequest {
        owner: "ann".into(),
        ..RenewPairingRequest::default()
    };
    let mut operator = world.operator.client().unwrap();
    operator.renew_pairing(request).await.unwrap();
    let line = phone.attach().await.unwrap_err().to_string();
    assert!(line.contains("has paired another phone"), "{line}");
    assert!(!line.contains('\n'), "{line:?} is one line");
    world.stop().await.unwrap();
}
