//! Phones that are needed: for payments that the hub holds, and for HTLCs in flight whose deadline is near.
//!
//! A phone that is away is called at its owner's wake URLs (`calls`). The hub holds a payment for it (`held`) until the
//! phone is there, or for as long as `hub.hold_ms` and the deadline allow; then the payment is failed back. Calls for payments
//! have a budget (`budget`), those for deadlines have none.

mod budget;
mod calls;
mod held;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use longhand_link::OwnerId;
use longhand_node::PeerNeeded;

use self::calls::Calls;
use self::held::Held;
use crate::config::HostConfig;
use crate::hosted::{HostedNode, HostedNodes};
use crate::metrics::Metrics;
use crate::network::{Network, WakeCall, WakeReason};
use crate::tasks::Tasks;

/// Has the hub fail back what it holds for this node. The hub reports whether there was anything.
pub(crate) type FailHeld = Box<dyn Fn(PublicKey) + Send + Sync>;

/// Calls phones, and fails held payments back whose phone does not come.
pub(crate) struct Wakes {
    calls: Arc<Calls>,
    held: Held,
    fail_held: FailHeld,
    nodes: Arc<HostedNodes>,
    /// How many blocks before the deadline of an HTLC a phone is called.
    before_blocks: u32,
}

impl Wakes {
    pub fn new(
        config: &HostConfig,
        network: Arc<dyn Network>,
        fail_held: FailHeld,
        nodes: Arc<HostedNodes>,
        metrics: Metrics,
        tasks: Arc<Tasks>,
    ) -> Wakes {
        let calls = Calls::new(config.wake.clone(), network, metrics, tasks.clone());
        Wakes {
            calls: Arc::new(calls),
            held: Held::new(Duration::from_millis(config.hub.hold_ms), tasks),
            fail_held,
            nodes,
            before_blocks: config.wake.before_blocks,
        }
    }

    /// The hub holds payments for these nodes: their phones are called.
    pub fn payments_held(self: &Arc<Self>, peers: &[PeerNeeded]) {
        for &PeerNeeded {
            node_id,
            deadline_height,
        } in peers
        {
            if let Some(node) = self.nodes.of_node(&node_id) {
                self.call(&node, WakeReason::Payment, deadline_height);
            }
            let wakes = self.clone();
            let give_up = move || wakes.fail_back(node_id);
            self.held.hold(node_id, deadline_height, give_up);
        }
    }

    /// An HTLC in flight needs the node's phone: it is called when the deadline is near and has not passed.
    pub fn htlc_in_flight(&self, node: &HostedNode, height: u32, deadline_height: u32) {
        let near = height.saturating_add(self.before_blocks);
        if deadline_height > height && deadline_height <= near {
            self.call(node, WakeReason::Deadline, deadline_height);
        }
    }

    /// The phone is its node's signer: it is no longer called.
    pub fn attached(&self, owner: &OwnerId) {
        self.calls.arrived(owner);
    }

    /// The hub has forwarded what it held for these nodes. Without it a limit that has begun would end the next payment.
    pub fn forwarded(&self, node_ids: &[PublicKey]) {
        for node_id in node_ids {
            self.held.release(node_id);
        }
    }

    /// Ends the calls, and fails the held payments back, whose deadline this height has reached.
    pub fn at_height(&self, height: u32) {
        self.calls.at_height(height);
        for node_id in self.held.due(height) {
            self.fail_back(node_id);
        }
    }

    /// Ends all calls. Held payments stay held.
    pub fn stop(&self) {
        self.calls.stop();
        self.held.stop();
    }

    fn call(&self, node: &HostedNode, reason: WakeReason, deadline_height: u32) {
        let record = node.record();
        let Some(node_id) = record.node_id() else {
            return;
        };
        if !record.wake_urls().is_empty() && !*node.attached.borrow() {
            let call = WakeCall {
                owner: record.name,
                node_id,
                reason,
                deadline_height,
            };
            let (nodes, id) = (self.nodes.clone(), node.id);
            let urls = move || {
                nodes
                    .get(&id)
                    .map_or_else(Vec::new, |it| it.record().wake_urls())
            };
            self.calls.begin(id, urls, call);
        }
    }

    fn fail_back(&self, node_id: PublicKey) {
        (self.fail_held)(node_id);
        if let Some(node) = self.nodes.of_node(&node_id) {
            self.calls.payments_failed(&node.id);
        }
    }
}

#[cfg(test)]
mod tests;
