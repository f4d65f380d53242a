//! Commands that a node refuses, with which code, and that nothing changed.

use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{
    CloseChannel, ConnectPeer, CreateInvoice, GetBalance, ListPayments, OpenChannel, Pay,
    SendOnchain,
};
use longhand_testkit::nodes::{Owner, World, ask, refusal};

/// A mainnet invoice (BOLT 11's own example, 2,500 micro-bitcoin).
const MAINNET: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";

async fn world_with_an_owner() -> (World, Owner) {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world
        .open(&world.hub, &alice.node, 1_000_000, 400_000_000)
        .await;
    (world, alice)
}

fn pay(bolt11: &str, amount_msat: u64) -> Kind {
    Kind::Pay(Pay {
        bolt11: bolt11.into(),
        amount_msat,
        max_fee_msat: None,
    })
}

async fn balance(owner: &Owner) -> Reply {
    ask(&owner.node, Kind::GetBalance(GetBalance {})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn invoices_that_cannot_be_paid_are_refused_by_name_and_nothing_changes() {
    let (world, alice) = world_with_an_owner().await;
    // With both channels the hub can receive more than Alice has.
    let bob = world.owner("bob", 2).await;
    bob.attach();
    world
        .open(&world.hub, &bob.node, 1_000_000, 600_000_000)
        .await;
    let before = balance(&alice).await;
    let of_the_hub = |amount_msat, expiry_s| world.hub.invoice(amount_msat, "tea", expiry_s);
    let huge = of_the_hub(500_000_000, 3600).await.unwrap();
    let open = of_the_hub(0, 3600).await.unwrap();
    let expired = of_the_hub(1_000, 0).await.unwrap();
    let own = alice.invoice(1_000).await;

    let refused = async |bolt11: &str| refusal(&alice.node, pay(bolt11, 0)).await;
    assert_eq!(refused("lnbcrt1notaninvoice").await, Code::InvoiceMalformed);
    assert_eq!(refused("").await, Code::InvoiceMalformed);
    assert_eq!(
        refused(&huge[..huge.len() - 1]).await,
        Code::InvoiceMalformed
    );
    assert_eq!(refused(MAINNET).await, Code::WrongNetwork);
    assert_eq!(refused(&huge).await, Code::InsufficientFunds);
    assert_eq!(refused(&open).await, Code::AmountMissing);
    assert_eq!(refused(&own).await, Code::InvoiceOwn);
    longhand_testkit::until("the invoice expires", async || {
        refused(&expired).await == Code::InvoiceExpired
    })
    .await;

    assert_eq!(balance(&alice).await, before);
    let Reply::Payments(payments) =
        ask(&alice.node, Kind::ListPayments(ListPayments::default())).await
    else {
        panic!("no payments")
    };
    assert!(payments.payments.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn paying_twice_pays_once() {
    let (world, alice) = world_with_an_owner().await;
    let invoice = world.hub.invoice(1_000_000, "tea", 3600).await.unwrap();
    let first = alice.pay(&invoice).await;
    let again = alice.pay(&invoice).await;
    assert_eq!(first.state(), State::Succeeded);
    assert_eq!(first, again);
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_cannot_be_are_refused_by_name() {
    let (world, alice) = world_with_an_owner().await;
    let open = |id: Vec<u8>, amount_sat, peer: Vec<u8>, push_msat| {
        Kind::OpenChannel(OpenChannel {
            id,
            amount_sat,
            counterparty_node_id: peer,
            push_msat,
            ..OpenChannel::default()
        })
    };
    let id = || vec![9; 16];
    let own = alice.node.node_id().serialize().to_vec();
    let refused = async |command| refusal(&alice.node, command).await;
    assert_eq!(
        refused(open(vec![1, 2, 3], 100_000, vec![], 0)).await,
        Code::BadId
    );
    assert_eq!(
        refused(open(id(), 0, vec![], 0)).await,
        Code::ChannelTooSmall
    );
    assert_eq!(
        refused(open(id(), 100_000, vec![], 0)).await,
        Code::InsufficientFunds
    );
    assert_eq!(
        refused(open(id(), u64::MAX, vec![], 0)).await,
        Code::InsufficientFunds
    );
    assert_eq!(
        refused(open(id(), 100_000, vec![1; 33], 0)).await,
        Code::PeerMalformed
    );
    assert_eq!(
        refused(open(id(), 100_000, own, 0)).await,
        Code::PeerMalformed
    );
    assert_eq!(
        refused(open(id(), 100_000, vec![], 1)).await,
        Code::PushRefused
    );
    let close = CloseChannel {
        channel_id: vec![3; 32],
        force: false,
        ..CloseChannel::default()
    };
    assert_eq!(
        refused(Kind::CloseChannel(close)).await,
        Code::NoSuchChannel
    );
    let no_point = ConnectPeer {
        node_id: world
            .hub
            .node_id()
            .serialize()
            .iter()
            .rev()
            .copied()
            .collect(),
        address: String::new(),
    };
    assert_eq!(
        refused(Kind::ConnectPeer(no_point)).await,
        Code::PeerMalformed
    );
    assert_eq!(alice.overview().await.channels, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_chain_payments_that_cannot_be_are_refused_by_name() {
    let (world, alice) = world_with_an_owner().await;
    world.fund(&alice.node, 100_000).await;
    let before = balance(&alice).await;
    let send = |address: &str, amount_sat| {
        let (id, address) = (vec![1], address.to_owned());
        Kind::SendOnchain(SendOnchain {
            id,
            address,
            amount_sat,
            ..SendOnchain::default()
        })
    };
    let regtest = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    let mainnet = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let refused = async |command| refusal(&alice.node, command).await;
    assert_eq!(
        refused(send("nonsense", 1_000)).await,
        Code::AddressMalformed
    );
    assert_eq!(refused(send(mainnet, 1_000)).await, Code::WrongNetwork);
    assert_eq!(refused(send(regtest, 0)).await, Code::AmountZero);
    assert_eq!(refused(send(regtest, 100)).await, Code::AmountDust);
    assert_eq!(
        refused(send(regtest, 1_000_000)).await,
        Code::InsufficientFunds
    );
    assert_eq!(
        refused(send(regtest, u64::MAX)).await,
        Code::InsufficientFunds
    );
    assert_eq!(balance(&alice).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn invoices_that_cannot_be_made_are_refused_by_name() {
    let (_world, alice) = world_with_an_owner().await;
    let create = |payment_hash: Vec<u8>, amount_msat, description: String| {
        let expiry_s = 60;
        Kind::CreateInvoice(CreateInvoice {
            payment_hash,
            amount_msat,
            description,
            expiry_s,
            payment_secret: vec![7; 32],
        })
    };
    let refused = async |command| refusal(&alice.node, command).await;
    assert_eq!(
        refused(create(vec![1], 1, String::new())).await,
        Code::PaymentHashMalformed
    );
    assert_eq!(
        refused(create(vec![1; 32], u64::MAX, String::new())).await,
        Code::AmountTooLarge
    );
    assert_eq!(
        refused(create(vec![1; 32], 1, "x".repeat(640))).await,
        Code::DescriptionTooLong
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_stopped_carries_out_nothing() {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.node.stop().await;
    let balance = Kind::GetBalance(GetBalance {});
    assert_eq!(refusal(&alice.node, balance).await, Code::NodeStopped);
}
