//! Commands to a node and events of a node.

use longhand_node::{Node, NodeEvent};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{AwaitPayment, Command, Pay, Payment};
use tokio::sync::broadcast;

use crate::Patience;

const PATIENCE: Patience = Patience::REAL;

/// Yields until all tasks that are ready have run.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// The number of channels that can carry a payment.
pub async fn usable(node: &Node) -> u32 {
    node.overview().await.unwrap().usable_channels
}

/// A command that must succeed.
pub async fn ask(node: &Node, command: Kind) -> Reply {
    match try_ask(node, command).await {
        Reply::Error(error) => panic!("{}: {}", error.code, error.message),
        reply => reply,
    }
}

/// A command that must succeed in the end: asked again, as a phone does, while a fault of a test makes it fail.
pub async fn ask_in_the_end(node: &Node, command: Kind) -> Reply {
    loop {
        match try_ask(node, command.clone()).await {
            Reply::Error(error) if error.is_one_of(&[Code::DiskFull, Code::StoreFailed]) => {}
            Reply::Error(error) => panic!("{}: {}", error.code, error.message),
            reply => return reply,
        }
    }
}

/// A command, and its answer or error.
pub async fn try_ask(node: &Node, command: Kind) -> Reply {
    let command = Command {
        command: Some(command),
    };
    let answering = node.command(command);
    let reply = PATIENCE.in_time("a command is answered", answering).await;
    reply.unwrap().reply.unwrap()
}

/// The code of a command that must fail.
pub async fn refusal(node: &Node, command: Kind) -> String {
    match try_ask(node, command).await {
        Reply::Error(error) => error.code,
        reply => panic!("not refused: {reply:?}"),
    }
}

/// Pays, and waits until the payment has succeeded or failed.
pub async fn pay(node: &Node, bolt11: &str) -> Payment {
    let pay = Pay {
        bolt11: bolt11.into(),
        ..Pay::default()
    };
    match ask(node, Kind::Pay(pay)).await {
        Reply::Payment(payment) => payment,
        reply => panic!("{reply:?}"),
    }
}

/// Waits until a payment has succeeded or failed.
pub async fn await_payment(node: &Node, payment_hash: &[u8]) -> Payment {
    let wait = AwaitPayment {
        payment_hash: payment_hash.to_vec(),
    };
    match ask(node, Kind::AwaitPayment(wait)).await {
        Reply::Payment(payment) => payment,
        reply => panic!("{reply:?}"),
    }
}

/// Waits for an event of a node's.
pub async fn event<T>(
    events: &mut broadcast::Receiver<NodeEvent>,
    what: &str,
    mut is_it: impl FnMut(NodeEvent) -> Option<T>,
) -> T {
    let received = PATIENCE.in_time(what, async {
        loop {
            if let Some(it) = is_it(events.recv().await.unwrap()) {
                return it;
            }
        }
    });
    received.await.unwrap()
}
