//! A transaction that was promised is broadcast, though the process ended before it could be.

use longhand_node::Services;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{self, SendOnchain};
use longhand_testkit::nodes::{RecordingChain, World, ask, settle};
use longhand_testkit::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_broadcast_was_lost_with_the_process_is_sent_after_the_restart() {
    let world = World::new().await;
    let cut = Services {
        chain: RecordingChain::cut_off(&world.follower),
        ..world.services()
    };
    let node = world.shop(cut).await;
    world.fund(&node, 100_000).await;
    let Reply::Address(to) = ask(&world.hub, Kind::NewAddress(command::NewAddress {})).await else {
        panic!("no address")
    };
    let send = SendOnchain {
        id: vec![1],
        address: to.address,
        amount_sat: 50_000,
        ..SendOnchain::default()
    };
    let Reply::SentOnchain(sent) = ask(&node, Kind::SendOnchain(send)).await else {
        panic!("not sent")
    };
    settle().await;
    assert!(world.devnet.mempool().is_empty());
    node.stop().await;

    let _node = world.shop(world.services()).await;

    until("the transaction is in the mempool", async || {
        let mempool = world.devnet.mempool();
        mempool
            .iter()
            .any(|tx| tx.compute_txid().to_string() == sent.txid)
    })
    .await;
}
