//! The hub: its seed, what it does for the operator, and the payments it holds for phones that are away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use longhand_node::Node;
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State as PaymentState;
use longhand_proto::command::{self, AwaitPayment, Command, Payment};
use longhand_store::{Batch, Store, Write};
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use crate::HostError;
use crate::config::HostConfig;
use crate::files;
use crate::operator::OperatorError;
use crate::owners;
use crate::shared::Shared;
use crate::tenant::Phase;

/// The hub's namespace in the store.
pub(crate) const NAMESPACE: &str = "hub";
/// In the host's own namespace: which seed the hub's state belongs to.
const SEED_MARK: &str = "hub-seed-mark";

/// The hub's seed, which is made at the first start and belongs to the database from then on: the state of
/// one hub must never run with another's keys.
pub(crate) async fn seed(
    config: &HostConfig,
    store: &Arc<dyn Store>,
    epoch: u64,
) -> Result<Zeroizing<[u8; 32]>, HostError> {
    let path = config.hub_seed_file();
    let marked = store.get(owners::NAMESPACE, SEED_MARK).await?;
    let seed = match (files::read_secret(&path)?, &marked) {
        (Some(seed), _) => seed,
        (None, None) => files::read_or_make_secret(&path)?,
        (None, Some(_)) => return Err(HostError::SeedMissing(path)),
    };
    let mark = mark(&seed);
    match marked {
        Some(marked) if marked == mark => {}
        Some(_) => return Err(HostError::SeedDiffers(path)),
        None => {
            let writes = vec![Write::Put(SEED_MARK.into(), mark)];
            let namespace = owners::NAMESPACE.into();
            store
                .commit(Batch {
                    namespace,
                    epoch,
                    writes,
                })
                .await?;
        }
    }
    Ok(seed)
}

/// Tells seeds apart without giving them away.
fn mark(seed: &[u8; 32]) -> Vec<u8> {
    let mut engine = sha256::Hash::engine();
    engine.input(b"longhand hub seed mark");
    engine.input(seed);
    sha256::Hash::from_engine(engine).to_byte_array().to_vec()
}

/// Gives a payment for `node_id` up when the phone has not come within the limit.
pub(crate) fn hold(shared: &Arc<Shared>, node_id: PublicKey, deadline_height: u32) {
    let weak = Arc::downgrade(shared);
    shared.held.hold(node_id, deadline_height, move || {
        if let Some(shared) = weak.upgrade() {
            give_up(&shared, node_id);
        }
    });
}

/// Gives up what must be given up at this height.
pub(crate) fn fail_due(shared: &Shared, height: u32) {
    for node_id in shared.held.due(height) {
        give_up(shared, node_id);
    }
}

fn give_up(shared: &Shared, node_id: PublicKey) {
    tracing::info!(%node_id, "payments that waited for a phone are failed back");
    shared.metrics.held_failed.inc();
    if let Some(hub) = shared.hub() {
        hub.fail_held(node_id);
    }
    if let Some(tenant) = shared.tenants.of_node(&node_id) {
        shared.wakes.given_back(&tenant.id);
    }
}

/// For whom the hub holds payments, and until when.
pub(crate) struct Held {
    limit: Duration,
    waiting: Mutex<HashMap<PublicKey, Waiting>>,
}

struct Waiting {
    deadline_height: u32,
    timer: AbortHandle,
}

impl Held {
    pub fn new(limit: Duration) -> Held {
        Held {
            limit,
            waiting: Mutex::default(),
        }
    }

    /// A payment waits. The limit counts from the first that does; `give_up` is called when it is over.
    pub fn hold(
        &self,
        node_id: PublicKey,
        deadline_height: u32,
        give_up: impl FnOnce() + Send + 'static,
    ) {
        let mut waiting = self.lock();
        match waiting
            .get_mut(&node_id)
            .filter(|waiting| !waiting.timer.is_finished())
        {
            Some(known) => known.deadline_height = known.deadline_height.min(deadline_height),
            None => {
                let limit = self.limit;
                let timer = tokio::spawn(async move {
                    tokio::time::sleep(limit).await;
                    give_up();
                });
                let timer = timer.abort_handle();
                waiting.insert(
                    node_id,
                    Waiting {
                        deadline_height,
                        timer,
                    },
                );
            }
        }
    }

    /// The phone is there: nothing waits for it any more.
    pub fn release(&self, node_id: &PublicKey) {
        if let Some(waiting) = self.lock().remove(node_id) {
            waiting.timer.abort();
        }
    }

    /// Removes and returns those whose deadline has come.
    pub fn due(&self, height: u32) -> Vec<PublicKey> {
        let mut waiting = self.lock();
        let due = waiting.extract_if(|_, waiting| waiting.deadline_height <= height);
        due.filter(|(_, waiting)| !waiting.timer.is_finished())
            .map(|(node_id, waiting)| {
                waiting.timer.abort();
                node_id
            })
            .collect()
    }

    /// Nothing is given up any more.
    pub fn stop(&self) {
        for (_, waiting) in self.lock().drain() {
            waiting.timer.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the hub a command for the operator.
pub(crate) async fn ask(hub: &Node, body: Body) -> Result<Reply, OperatorError> {
    let command = Command {
        command: Some(body),
    };
    match hub.command(command).await.reply {
        Some(Reply::Error(error)) => Err(OperatorError::of_command(error)),
        Some(reply) => Ok(reply),
        None => Err(unexpected()),
    }
}

/// The hub, or why it does not run.
pub(crate) fn running(shared: &Shared) -> Result<Node, OperatorError> {
    match &*shared.hub.borrow() {
        Phase::Running(node) => Ok(node.clone()),
        Phase::Failed(reason) => Err(OperatorError::NotNow(format!(
            "the hub does not run: {reason}"
        ))),
        Phase::Waiting | Phase::Unregistered => Err(OperatorError::Unavailable(
            "CHAIN_UNAVAILABLE: the host has not reached its chain source yet: try again in a while"
                .into(),
        )),
    }
}

/// Pays, and waits for the payment's end.
pub(crate) async fn pay(hub: &Node, pay: command::Pay) -> Result<Payment, OperatorError> {
    let mut reply = ask(hub, Body::Pay(pay)).await?;
    loop {
        let Reply::Payment(payment) = reply else {
            return Err(unexpected());
        };
        match payment.state() {
            PaymentState::Succeeded => return Ok(payment),
            PaymentState::Failed => {
                return Err(OperatorError::Failed(format!(
                    "the payment failed: {}",
                    payment.failure
                )));
            }
            PaymentState::Pending | PaymentState::Unknown => {
                let wait = AwaitPayment {
                    payment_hash: payment.payment_hash,
                };
                reply = ask(hub, Body::AwaitPayment(wait)).await?;
            }
        }
    }
}

/// The reply was of another kind than the command asks for.
pub(crate) fn unexpected() -> OperatorError {
    OperatorError::Internal("the hub gave an answer of another kind: report this".into())
}

#[cfg(test)]
mod tests;
