//! A phone at its node: one task for each owner, which gives the node its signer when the phone is there,
//! takes it away when the phone is gone, and passes commands on.
//!
//! The task looks at what is (a live link, a running node, a phone that has shown its keys) rather than
//! at what happened, so that no order of events can confuse it. Resuming requests, the grace after a
//! lost link, and the newest link winning are the link's own: see [`longhand_link::Peer`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use longhand_link::{CloseCode, CloseReason, Incoming, IncomingRequests, Link, LinkError, LinkKey};
use longhand_node::{Node, SignerAway, SignerTransport};
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{Command, CommandReply, Error, Registered};
use longhand_proto::signer::{SignerBatch, SignerReply};
use prost::Message;
use tokio::task::JoinSet;

use crate::metrics::{Metrics, seconds_since};
use crate::owners::OwnerError;
use crate::registration::Challenge;
use crate::shared::Shared;
use crate::tenant::{Phase, Tenant};

/// Kinds of requests on a link.
const SIGNER: &str = "signer";
pub(crate) const COMMAND: &str = "command";
/// How long a phone that takes no more is left alone before it is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// How long the other side may take to close a link that it asked to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs one owner's side of its links until the host stops.
pub(crate) async fn run(shared: Arc<Shared>, tenant: Arc<Tenant>, mut requests: IncomingRequests) {
    let mut phase = tenant.phase.subscribe();
    let mut commands = JoinSet::new();
    let mut attachment = Attachment {
        shared: shared.clone(),
        tenant: tenant.clone(),
        node: None,
        outages: 0,
    };
    loop {
        attachment.reconcile();
        let link = tenant.conversation.link();
        let is_attached = attachment.node.is_some();
        // What is seldom stands first, so that nothing of it waits behind what the phone asks. Commands that have ended
        // are taken away before others are begun, and those that were asked before the phone leaves are begun before it
        // may: only itself can it keep waiting by asking without an end.
        tokio::select! {
            biased;
            changed = phase.changed() => if changed.is_err() { return },
            () = tenant.nudge.notified() => {}
            reason = tenant.conversation.down(), if is_attached => attachment.lost(&reason),
            Some(ended) = commands.join_next() => if let Err(error) = ended {
                tracing::error!(owner = tenant.name, %error, "a command ended by a panic");
            },
            incoming = requests.next() => match incoming {
                Some(incoming) => {
                    commands.spawn(answer(shared.clone(), tenant.clone(), incoming));
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

/// What holds between a phone and its node.
struct Attachment {
    shared: Arc<Shared>,
    tenant: Arc<Tenant>,
    /// The node that has the phone as its signer.
    node: Option<Node>,
    /// The link's outages when the node was given its signer.
    outages: u64,
}

impl Attachment {
    /// Attaches when everything is there, and lets go when the phone may no longer sign.
    fn reconcile(&mut self) {
        let owner = self.tenant.owner();
        let phone = owner.phone.filter(|_| owner.is_confirmed());
        let outages = self.tenant.conversation.outages();
        if phone.is_none() {
            self.let_go("the pairing was renewed");
        } else if self.tenant.node().is_none() {
            self.let_go("its node does not run");
        } else if outages != self.outages {
            self.let_go("it was away for a moment");
        }
        self.outages = outages;
        if self.node.is_none()
            && self.tenant.is_linked()
            && let (Some(phone), Some(node)) = (phone, self.tenant.node())
        {
            node.attach(Arc::new(PhoneSigner::new(
                &self.shared,
                &self.tenant,
                phone,
            )));
            self.node = Some(node);
            self.tenant.attached.send_replace(true);
            self.shared.wakes.arrived(&self.tenant.id);
            tracing::info!(owner = self.tenant.name, "the phone is attached");
        }
    }

    /// The link is gone and the grace is over.
    fn lost(&mut self, reason: &CloseReason) {
        self.let_go(&reason.to_string());
    }

    fn let_go(&mut self, reason: &str) {
        if let Some(node) = self.node.take() {
            tracing::info!(owner = self.tenant.name, reason, "the phone is gone");
            node.signer_lost();
            self.tenant.attached.send_replace(false);
        }
    }

    /// Lets the node finish what it is at, then lets the phone go. When the phone goes before, it is lost.
    async fn detach(&mut self, link: Link) {
        if let Some(node) = self.node.take() {
            tokio::select! {
                // Detached and gone at once is detached.
                biased;
                () = node.detach() => tracing::info!(owner = self.tenant.name, "the phone has detached"),
                reason = self.tenant.conversation.down() => {
                    self.node = Some(node);
                    self.lost(&reason);
                }
            }
            self.tenant.attached.send_replace(false);
        }
        link.confirm_detach();
        // Until it is closed it would look like a phone that has just come.
        if tokio::time::timeout(CLOSE_TIMEOUT, link.closed())
            .await
            .is_err()
        {
            link.close(CloseCode::Detached, "detached");
        }
    }
}

/// The phone as its node's signer, over whichever link is live.
struct PhoneSigner {
    tenant: Arc<Tenant>,
    /// Nobody else is asked, whoever's link is live.
    phone: LinkKey,
    metrics: Metrics,
}

#[async_trait]
impl SignerTransport for PhoneSigner {
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        let payload = batch.encode_to_vec();
        let started = Instant::now();
        let answer = self.ask(payload).await?;
        self.metrics.signer_seconds.observe(seconds_since(started));
        self.metrics.signer_ops.inc_by(batch.ops.len() as u64);
        SignerReply::decode(&*answer)
            .map_err(|_| self.drop_link("its answer to a signer batch cannot be read"))
    }
}

impl PhoneSigner {
    fn new(shared: &Shared, tenant: &Arc<Tenant>, phone: LinkKey) -> PhoneSigner {
        PhoneSigner {
            tenant: tenant.clone(),
            phone,
            metrics: shared.metrics.clone(),
        }
    }

    /// Asks until there is an answer or no phone: the operations may be asked any number of times.
    async fn ask(&self, payload: Vec<u8>) -> Result<Vec<u8>, SignerAway> {
        loop {
            if !self.tenant.is_phone(&self.phone) {
                return Err(SignerAway);
            }
            match self
                .tenant
                .conversation
                .request(SIGNER, payload.clone())
                .await
            {
                Ok(answer) => return Ok(answer),
                Err(LinkError::Restarted) => {}
                Err(LinkError::Refused { code, .. }) if code == "BUSY" => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(LinkError::Down(_)) => return Err(SignerAway),
                Err(error) => return Err(self.drop_link(&error.to_string())),
            }
        }
    }

    /// A phone that does not do its part is as good as away; it may come back and do better.
    fn drop_link(&self, why: &str) -> SignerAway {
        tracing::warn!(why, "the phone did not sign; its link is closed");
        if self.tenant.is_phone(&self.phone) {
            self.tenant.conversation.give_up(CloseCode::Protocol, why);
        }
        SignerAway
    }
}

/// Answers one request of the phone.
async fn answer(shared: Arc<Shared>, tenant: Arc<Tenant>, incoming: Incoming) {
    let Incoming {
        from,
        kind,
        payload,
        responder,
    } = incoming;
    if kind != COMMAND {
        return responder.refuse("UNKNOWN_KIND", "the host takes commands only");
    }
    let Ok(command) = Command::decode(&*payload) else {
        return responder.refuse("BAD_REQUEST", "the command cannot be read");
    };
    // Only what merely waits ends with the phone's interest: the others act, and go on.
    let waits = matches!(
        command.command,
        Some(Body::AwaitPayment(_) | Body::AwaitChannel(_))
    );
    let reply = tokio::select! {
        biased;
        () = responder.cancelled(), if waits => None,
        reply = carry_out(&shared, &tenant, &from, command) => Some(reply),
    };
    if let Some(reply) = reply {
        responder.respond(reply.encode_to_vec());
    }
}

async fn carry_out(
    shared: &Arc<Shared>,
    tenant: &Arc<Tenant>,
    phone: &LinkKey,
    command: Command,
) -> CommandReply {
    let failed = |error: Error| CommandReply {
        reply: Some(Reply::Error(error)),
    };
    match command.command {
        None => failed(error(
            "UNKNOWN_COMMAND",
            "the host does not know this command: update it",
            Action::GiveUp,
        )),
        Some(Body::Register(registration)) => {
            match register(shared, tenant, phone, registration).await {
                Ok(registered) => CommandReply {
                    reply: Some(Reply::Registered(registered)),
                },
                Err(error) => failed(error),
            }
        }
        Some(_) => match ready(tenant, phone).await {
            Ok(node) => node.command(command).await,
            Err(error) => failed(error),
        },
    }
}

/// The node, once it has the phone that gives this command as its signer.
async fn ready(tenant: &Tenant, phone: &LinkKey) -> Result<Node, Error> {
    let pinned = || match tenant.is_phone(phone) {
        true => Ok(()),
        // It asked before it was shut out.
        false => Err(register_error(&OwnerError::ShutOut)),
    };
    pinned()?;
    if !tenant.owner().is_confirmed() {
        let message = "the phone has not registered its keys: send Register first";
        return Err(error("NOT_REGISTERED", message, Action::FixInput));
    }
    let node = running(&tenant.phase.borrow())?;
    // The command may have overtaken the news that its link is live.
    let mut attached = tenant.attached.subscribe();
    tokio::select! {
        biased;
        _ = attached.wait_for(|attached| *attached) => {}
        _ = tenant.conversation.down() => {}
    }
    pinned()?;
    Ok(node)
}

fn running(phase: &Phase) -> Result<Node, Error> {
    match phase {
        Phase::Running(node) => Ok(node.clone()),
        Phase::Failed(reason) => {
            let message =
                format!("the node does not run ({reason}): tell the operator of the host");
            Err(error("NODE_FAILED", message, Action::GiveUp))
        }
        Phase::Waiting | Phase::Unregistered => Err(chain_unavailable()),
    }
}

/// Stores what the phone says, and shows, of its keys, starts the node, and answers when it has its signer.
async fn register(
    shared: &Arc<Shared>,
    tenant: &Arc<Tenant>,
    phone: &LinkKey,
    registration: longhand_node::Registration,
) -> Result<Registered, Error> {
    let hub = shared.hub_node_id().ok_or_else(chain_unavailable)?;
    let node_id = registration.node_id.clone();
    let owners = &shared.owners;
    let known = owners.may_register(&tenant.id, &registration, &hub).await;
    if !known.map_err(|e| register_error(&e))?.is_confirmed() {
        prove_keys(PhoneSigner::new(shared, tenant, *phone), &node_id).await?;
    }
    let owner = owners.register(&tenant.id, phone, registration, &hub).await;
    owner.map_err(|e| register_error(&e))?;
    shared.start_node(tenant);
    let mut phase = tenant.phase.subscribe();
    let started = phase.wait_for(|phase| matches!(phase, Phase::Running(_) | Phase::Failed(_)));
    if let Ok(phase) = started.await {
        running(&phase)?;
    }
    ready(tenant, phone).await?;
    Ok(Registered {
        node_id,
        hub_node_id: hub.serialize().to_vec(),
    })
}

/// Lets the phone show that it has the key of the node id: to say one is no more than to have heard of it.
async fn prove_keys(phone: PhoneSigner, node_id: &[u8]) -> Result<(), Error> {
    let challenge =
        Challenge::new(node_id).map_err(|e| error("INTERNAL", e.to_string(), Action::Retry))?;
    let reply = phone.sign(challenge.batch()).await;
    let reply = reply.map_err(|SignerAway| {
        let message = "the phone left before it had shown its keys: register again";
        error("SIGNER_AWAY", message, Action::Retry)
    })?;
    match challenge.is_met_by(&reply) {
        true => Ok(()),
        false => {
            let message = "the phone has not shown that it has the node's key: use the phone, or the seed, of this node";
            Err(error("KEYS_NOT_SHOWN", message, Action::GiveUp))
        }
    }
}

fn register_error(failed: &OwnerError) -> Error {
    let (code, action) = match failed {
        OwnerError::KeysDiffer => ("OWNER_KEYS_DIFFER", Action::GiveUp),
        OwnerError::NodeTaken => ("NODE_TAKEN", Action::GiveUp),
        OwnerError::ShutOut => ("UNKNOWN_OWNER", Action::GiveUp),
        OwnerError::Registration(_) => ("BAD_REGISTRATION", Action::FixInput),
        _ => ("STORE_FAILED", Action::Retry),
    };
    error(code, failed.to_string(), action)
}

fn chain_unavailable() -> Error {
    let message = "the host has not reached its chain source yet: try again in a while";
    error("CHAIN_UNAVAILABLE", message, Action::Retry)
}

fn error(code: &str, message: impl Into<String>, action: Action) -> Error {
    Error {
        code: code.into(),
        message: message.into(),
        action: action.into(),
    }
}
