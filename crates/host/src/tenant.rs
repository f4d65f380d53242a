//! One owner at run time: the conversation with the phone, and the node, whether or not it runs yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bitcoin::secp256k1::PublicKey;
use longhand_link::{Conversation, OwnerId};
use longhand_node::{Node, State};
use tokio::sync::{Notify, watch};

use crate::owners::Owner;

/// Where a node is on its way to running.
#[derive(Clone)]
pub(crate) enum Phase {
    /// No phone has registered its keys.
    Unregistered,
    /// It starts as soon as the chain and the hub are there.
    Waiting,
    /// It runs.
    Running(Node),
    /// It cannot be loaded; an operator has to look.
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
}

/// One owner at run time.
pub(crate) struct Tenant {
    pub id: OwnerId,
    pub name: String,
    /// The phone, over all its links.
    pub conversation: Conversation,
    pub phase: watch::Sender<Phase>,
    /// Whether the node has the phone as its signer.
    pub attached: watch::Sender<bool>,
    /// Something changed that the owner's task should look at.
    pub nudge: Notify,
    /// As the node told last.
    state: Mutex<State>,
    /// As in the book.
    owner: Mutex<Owner>,
}

impl Tenant {
    pub fn new(owner: Owner, conversation: Conversation) -> Tenant {
        let phase = match owner.registration {
            Some(_) => Phase::Waiting,
            None => Phase::Unregistered,
        };
        conversation.admit(owner.phone);
        Tenant {
            id: owner.id,
            name: owner.name.clone(),
            conversation,
            phase: watch::Sender::new(phase),
            attached: watch::Sender::new(false),
            nudge: Notify::new(),
            state: Mutex::new(State::Dormant),
            owner: Mutex::new(owner),
        }
    }

    /// The owner as in the book.
    pub fn owner(&self) -> Owner {
        self.owner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether this is the phone that may attach.
    pub fn is_phone(&self, phone: &longhand_link::LinkKey) -> bool {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        owner.phone.as_ref() == Some(phone)
    }

    /// The book has changed. From now on no other phone's link is live.
    fn set_owner(&self, owner: Owner) {
        self.conversation.admit(owner.phone);
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
        self.nudge.notify_one();
    }

    /// The node, when it runs.
    pub fn node(&self) -> Option<Node> {
        self.phase.borrow().node().cloned()
    }

    pub fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The state that the node told last; `None` while it does not run.
    pub fn state(&self) -> Option<State> {
        self.node()?;
        Some(*self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn is_linked(&self) -> bool {
        self.conversation.link().is_some()
    }
}

/// All owners at run time. Few writes, many readers.
#[derive(Default)]
pub(crate) struct Tenants(RwLock<HashMap<OwnerId, Arc<Tenant>>>);

impl Tenants {
    pub fn add(&self, tenant: Arc<Tenant>) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(tenant.id, tenant);
    }

    pub fn all(&self) -> Vec<Arc<Tenant>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub fn get(&self, id: &OwnerId) -> Option<Arc<Tenant>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// The book has changed, perhaps for an owner that is not set up yet.
    pub fn set_owner(&self, owner: &Owner) {
        if let Some(tenant) = self.get(&owner.id) {
            tenant.set_owner(owner.clone());
        }
    }

    /// The owner whose node has this id.
    pub fn of_node(&self, node_id: &PublicKey) -> Option<Arc<Tenant>> {
        let node_id = node_id.serialize();
        self.all().into_iter().find(|tenant| {
            let owner = tenant.owner.lock().unwrap_or_else(PoisonError::into_inner);
            owner
                .registration
                .as_ref()
                .is_some_and(|r| r.node_id == node_id)
        })
    }
}
