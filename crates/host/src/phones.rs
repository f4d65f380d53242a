//! The owners' phones: one task for each owner, which gives the node its signer when the phone is there, takes it away when
//! the phone is gone, and passes commands on.
//!
//! The task reads the current state (a live link, a running node, a phone that has proved its keys), not the events
//! before, so that it is right in any order of events. Resuming requests, the grace after a lost link, and the newest
//! link winning are the link's own: see [`longhand_link::Conversation`].

use std::sync::Arc;
use std::time::Duration;

use longhand_link::{
    CloseCode, CloseReason, Config, Conversation, IncomingRequests, Link, LinkError, Side,
};
use longhand_node::Node;
use tokio::task::JoinSet;

use crate::changes::{Changes, Kind};
use crate::commands::{COMMAND, Commands};
use crate::config::LinkConfig;
use crate::hosted::{HostedNode, HostedNodes};
use crate::metrics::Metrics;
use crate::owners::OwnerRecord;
use crate::phone_signer::PhoneSigner;
use crate::starter::NodeStarter;
use crate::switchboard::Switchboard;
use crate::tasks::Tasks;
use crate::wake::Wakes;

/// How long the phone may take to close a link that it asked to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the phones of all owners.
pub(crate) struct Phones {
    pub link: LinkConfig,
    pub nodes: Arc<HostedNodes>,
    pub starter: Arc<NodeStarter>,
    pub commands: Arc<Commands>,
    pub switchboard: Arc<Switchboard>,
    pub wakes: Arc<Wakes>,
    pub metrics: Metrics,
    pub changes: Arc<Changes>,
    pub tasks: Arc<Tasks>,
}

impl Phones {
    /// Serves an owner's phone from now on, and starts the owner's node when its keys are registered.
    pub fn add(self: &Arc<Self>, record: OwnerRecord) -> Result<(), LinkError> {
        let (conversation, requests) = conversation(&self.link)?;
        let hosted = Arc::new(HostedNode::new(record, conversation));
        self.nodes.add(hosted.clone());
        self.starter.start(&hosted);
        self.tasks.spawn(serve(self.clone(), hosted, requests));
        Ok(())
    }
}

/// The host's side of the conversation with one owner's phone, as configured.
pub(crate) fn conversation(
    config: &LinkConfig,
) -> Result<(Conversation, IncomingRequests), LinkError> {
    let agent = concat!("longhand-host/", env!("CARGO_PKG_VERSION"));
    let mut link = Config::new(agent, &[COMMAND]);
    link.heartbeat = Duration::from_millis(config.heartbeat_ms.into());
    link.grace = Duration::from_millis(config.grace_ms);
    Conversation::new(Side::Host, link, longhand_link::runtime::tokio())
}

/// Serves one owner's phone until the host ends.
async fn serve(phones: Arc<Phones>, hosted: Arc<HostedNode>, mut requests: IncomingRequests) {
    let mut phase = hosted.phase.subscribe();
    let mut running = JoinSet::new();
    let mut attachment = Attachment {
        phones: phones.clone(),
        hosted: hosted.clone(),
        node: None,
        outages: 0,
    };
    loop {
        attachment.reconcile();
        let link = hosted.conversation.link();
        let is_attached = attachment.node.is_some();
        // Rare events stand first, so that none of them waits behind the phone's requests. Commands that have ended are
        // removed before others are begun, and requests sent before a detach are begun before it: a phone that sends
        // requests without an end delays only itself.
        tokio::select! {
            biased;
            changed = phase.changed() => if changed.is_err() { return },
            () = hosted.nudge.notified() => {}
            reason = hosted.conversation.down(), if is_attached => attachment.lost(&reason),
            Some(ended) = running.join_next() => if let Err(error) = ended {
                tracing::error!(owner = hosted.name, %error, "a command ended by a panic");
            },
            incoming = requests.next() => match incoming {
                Some(incoming) => {
                    let (commands, hosted) = (phones.commands.clone(), hosted.clone());
                    running.spawn(async move { commands.answer(&hosted, incoming).await });
                }
                None => return,
            },
            () = detach_requested(link.as_ref()) => {
                if let Some(link) = link {
                    attachment.detach(link).await;
                }
            }
        }
    }
}

async fn detach_requested(link: Option<&Link>) {
    match link {
        Some(link) => link.detach_requested().await,
        None => std::future::pending().await,
    }
}

/// The state between a phone and its node.
struct Attachment {
    phones: Arc<Phones>,
    hosted: Arc<HostedNode>,
    /// The node that has the phone as its signer.
    node: Option<Node>,
    /// The link's outages when the node was given its signer.
    outages: u64,
}

impl Attachment {
    /// Attaches when phone and node are there, and takes the signer away when the phone may no longer sign.
    fn reconcile(&mut self) {
        let owner = self.hosted.record();
        let phone = owner.phone.filter(|_| owner.is_confirmed());
        let outages = self.hosted.conversation.outages();
        if phone.is_none() {
            self.let_go("the pairing was renewed");
        } else if self.hosted.node().is_none() {
            self.let_go("its node does not run");
        } else if outages != self.outages {
            self.let_go("it was away for a moment");
        }
        self.outages = outages;
        if self.node.is_none()
            && self.hosted.is_linked()
            && let (Some(phone), Some(node)) = (phone, self.hosted.node())
        {
            let Phones {
                metrics,
                changes,
                switchboard,
                wakes,
                ..
            } = &*self.phones;
            node.attach(Arc::new(PhoneSigner::new(&self.hosted, phone, metrics)));
            let accepting = node.clone();
            let accept = Arc::new(move |from, stream| accepting.accept_hosted(from, stream));
            switchboard.open(node.node_id(), accept);
            self.node = Some(node);
            self.hosted.attached.send_replace(true);
            wakes.attached(&self.hosted.id);
            changes.report(Kind::PhoneAttached, &self.hosted.name, "");
            tracing::info!(owner = self.hosted.name, "the phone is attached");
        }
    }

    /// The link is gone and the grace is over.
    fn lost(&mut self, reason: &CloseReason) {
        self.let_go(&reason.to_string());
    }

    fn let_go(&mut self, reason: &str) {
        if let Some(node) = self.node.take() {
            tracing::info!(owner = self.hosted.name, reason, "the phone is gone");
            node.signer_lost();
            self.detached(&node, reason);
        }
    }

    /// Lets the node finish its step, then confirms the detach. When the link is down before, the signer is lost.
    async fn detach(&mut self, link: Link) {
        if let Some(node) = self.node.take() {
            tokio::select! {
                // A phone that has detached and is gone at the same moment has detached.
                biased;
                () = node.detach() => {
                    tracing::info!(owner = self.hosted.name, "the phone has detached");
                    self.detached(&node, "the phone has detached");
                }
                reason = self.hosted.conversation.down() => {
                    self.node = Some(node);
                    self.lost(&reason);
                }
            }
        }
        link.confirm_detach();
        // Until the link is closed, it would look like a phone that has just come.
        if tokio::time::timeout(CLOSE_TIMEOUT, link.closed())
            .await
            .is_err()
        {
            link.close(CloseCode::Detached, "detached");
        }
    }

    fn detached(&self, node: &Node, reason: &str) {
        self.phones.switchboard.hang_up(node.node_id());
        self.hosted.attached.send_replace(false);
        let changes = &self.phones.changes;
        changes.report(Kind::PhoneDetached, &self.hosted.name, reason);
    }
}
