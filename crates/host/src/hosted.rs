//! The owners' nodes at run time: each with its phase, and the conversation with its owner's phone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use longhand_link::{Conversation, OwnerId};
use longhand_node::{Node, Overview, State};
use tokio::sync::{Notify, watch};

use crate::owners::OwnerRecord;

/// Timeout of a node's overview: a node that is being loaded again may take long, and must not delay the others.
const OVERVIEW_LIMIT: Duration = Duration::from_secs(2);

/// The phase of a node's start.
#[derive(Clone)]
pub(crate) enum Phase {
    /// No start was begun: no phone has registered its keys.
    Unregistered,
    /// It starts as soon as the chain source is reached.
    Waiting,
    /// It runs.
    Running(Node),
    /// It cannot be loaded, for this reason: an operator has to act.
    Failed(String),
}

impl Phase {
    /// The node, when it runs.
    pub fn node(&self) -> Option<&Node> {
        match self {
            Phase::Running(node) => Some(node),
            _ => None,
        }
    }

    /// Becomes `next`, the end of a start, unless the node has failed since. Returns whether it did.
    pub fn start_with(&mut self, next: Phase) -> bool {
        let has_failed = matches!(self, Phase::Failed(_));
        if !has_failed {
            *self = next;
        }
        !has_failed
    }
}

/// One owner's node on this host, whether or not it runs.
pub(crate) struct HostedNode {
    pub id: OwnerId,
    /// The owner's name.
    pub name: String,
    /// With the owner's phone, over all its links.
    pub conversation: Conversation,
    pub phase: watch::Sender<Phase>,
    /// Whether the node has the phone as its signer.
    pub attached: watch::Sender<bool>,
    /// Notified when something changed that the owner's task should look at.
    pub nudge: Notify,
    /// As the node reported last.
    state: Mutex<State>,
    /// As in the book.
    record: Mutex<OwnerRecord>,
}

impl HostedNode {
    pub fn new(record: OwnerRecord, conversation: Conversation) -> HostedNode {
        conversation.admit(record.phone);
        HostedNode {
            id: record.id,
            name: record.name.clone(),
            conversation,
            phase: watch::Sender::new(Phase::Unregistered),
            attached: watch::Sender::new(false),
            nudge: Notify::new(),
            state: Mutex::new(State::Dormant),
            record: Mutex::new(record),
        }
    }

    /// The owner's record, as in the book.
    pub fn record(&self) -> OwnerRecord {
        self.lock_record().clone()
    }

    /// Whether this is the phone that may attach.
    pub fn is_phone(&self, phone: &longhand_link::LinkKey) -> bool {
        self.lock_record().phone.as_ref() == Some(phone)
    }

    /// The book has changed. From now on no other phone's link is live.
    fn set_record(&self, record: OwnerRecord) {
        self.conversation.admit(record.phone);
        *self.lock_record() = record;
        self.nudge.notify_one();
    }

    /// Begins the start; false when it was begun before.
    pub fn begin(&self) -> bool {
        self.phase.send_if_modified(|phase| {
            let is_first = matches!(phase, Phase::Unregistered);
            if is_first {
                *phase = Phase::Waiting;
            }
            is_first
        })
    }

    /// Sets the phase that a start has ended in; a node that has failed since stays failed, and false is returned.
    pub fn started(&self, phase: Phase) -> bool {
        self.phase
            .send_if_modified(|current| current.start_with(phase))
    }

    /// The node has ended by itself, for this reason.
    pub fn fail(&self, reason: String) {
        self.phase.send_replace(Phase::Failed(reason));
    }

    /// The node, when it runs.
    pub fn node(&self) -> Option<Node> {
        self.phase.borrow().node().cloned()
    }

    /// The node's overview; `None` when it does not run, or does not answer in time.
    pub async fn overview(&self) -> Option<Overview> {
        let node = self.node()?;
        overview_in_time(&node).await
    }

    /// Why the node cannot run.
    pub fn failure(&self) -> Option<String> {
        match &*self.phase.borrow() {
            Phase::Failed(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    pub fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The state that the node reported last; `None` while it does not run.
    pub fn state(&self) -> Option<State> {
        self.node()?;
        Some(*self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the phone has a live link.
    pub fn is_linked(&self) -> bool {
        self.conversation.link().is_some()
    }

    fn lock_record(&self) -> MutexGuard<'_, OwnerRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An overview, unless it takes too long.
pub(crate) async fn overview_in_time(node: &Node) -> Option<Overview> {
    let overview = tokio::time::timeout(OVERVIEW_LIMIT, node.overview()).await;
    overview.ok().flatten()
}

/// The nodes of all owners whose records can be read. Few writes, many readers.
#[derive(Default)]
pub(crate) struct HostedNodes(RwLock<HashMap<OwnerId, Arc<HostedNode>>>);

impl HostedNodes {
    pub fn add(&self, node: Arc<HostedNode>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.id, node);
    }

    pub fn all(&self) -> Vec<Arc<HostedNode>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub fn get(&self, id: &OwnerId) -> Option<Arc<HostedNode>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// The book has changed, perhaps for an owner whose node is not added yet.
    pub fn set_record(&self, record: &OwnerRecord) {
        if let Some(node) = self.get(&record.id) {
            node.set_record(record.clone());
        }
    }

    /// The node with this id.
    pub fn of_node(&self, node_id: &PublicKey) -> Option<Arc<HostedNode>> {
        let node_id = node_id.serialize();
        self.all().into_iter().find(|node| {
            let record = node.lock_record();
            let registration = record.registration.as_ref();
            registration.is_some_and(|r| r.node_id == node_id)
        })
    }
}
