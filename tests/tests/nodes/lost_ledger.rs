//! A phone that was made again from its words, and a node that still has what the old one gave it.

use longhand_proto::Code;
use longhand_proto::command::OpenChannel;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::signer::signer_op::Op;
use longhand_testkit::nodes::{World, refusal};
use longhand_testkit::until;

#[tokio::test(flavor = "multi_thread")]
async fn the_node_of_a_phone_that_lost_its_ledger_opens_channels_with_new_keys() {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world.fund(&alice.node, 2_000_000).await;
    until("the pool is filled", async || {
        let batches = alice.phone.batches.lock().unwrap();
        let mut ops = batches.iter().flat_map(|batch| &batch.ops);
        ops.any(|op| matches!(op.op, Some(Op::NewChannelKeys(_))))
    })
    .await;

    alice.phone.lose_its_ledger();
    let open = OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: world.hub.node_id().serialize().to_vec(),
        amount_sat: 500_000,
        ..OpenChannel::default()
    };
    // The phone cannot know that these keys are of no old channel, and refuses them. So the node gets others.
    assert_eq!(
        refusal(&alice.node, Kind::OpenChannel(open)).await,
        Code::SignerRefused
    );
    world.owner_opens(&alice, &world.hub, 500_000).await;
}
