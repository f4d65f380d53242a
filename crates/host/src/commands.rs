//! Commands of owners: `Register` and those of wake URLs and apps are the host's own, all others are carried out by the owner's node.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey as NodeId;
use longhand_chain::{Chain, Follower};
use longhand_link::{Incoming, LinkKey};
use longhand_node::{Node, SignerAway, SignerTransport};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{
    Command, CommandReply, ConnectApp, ConnectedApp, Error, Registered, WakeUrls,
};
use prost::Message;

use crate::apps::{self, Apps, By};
use crate::changes::{Changes, Kind};
use crate::hosted::{HostedNode, Phase};
use crate::metrics::Metrics;
use crate::owners::{OwnerBook, OwnerError, OwnerRecord};
use crate::phone_signer::PhoneSigner;
use crate::registration::Challenge;
use crate::starter::NodeStarter;

/// The kind of an owner's requests on a link.
pub(crate) const COMMAND: &str = "command";

/// The longest command that is decoded, in bytes: those of an owner are far shorter, and many short items in a long one would
/// take many times its memory.
const MOST_COMMAND_BYTES: usize = 64 * 1024;

/// Carries out the commands of all owners.
pub(crate) struct Commands {
    pub hub: NodeId,
    pub book: Arc<OwnerBook>,
    pub starter: Arc<NodeStarter>,
    pub chain: Arc<Follower>,
    pub metrics: Metrics,
    pub changes: Arc<Changes>,
    pub apps: Arc<Apps>,
}

impl Commands {
    /// Answers one request of the phone.
    pub async fn answer(&self, hosted: &Arc<HostedNode>, incoming: Incoming) {
        let Incoming {
            from,
            kind,
            payload,
            responder,
        } = incoming;
        if kind != COMMAND {
            return responder.refuse(Code::UnknownKind, "the host takes commands only");
        }
        if payload.len() > MOST_COMMAND_BYTES {
            return responder.refuse(Code::BadRequest, "the command is too long");
        }
        let Ok(command) = Command::decode(&*payload) else {
            return responder.refuse(Code::BadRequest, "the command cannot be read");
        };
        // A command may wait long.
        drop(payload);
        // Commands that merely wait end when the phone cancels them: the others act, and go on.
        let waits = matches!(
            command.command,
            Some(Body::AwaitPayment(_) | Body::AwaitChannel(_))
        );
        let reply = tokio::select! {
            biased;
            () = responder.cancelled(), if waits => None,
            reply = self.carry_out(hosted, &from, command) => Some(reply),
        };
        if let Some(reply) = reply {
            responder.respond(reply.encode_to_vec());
        }
    }

    async fn carry_out(
        &self,
        hosted: &Arc<HostedNode>,
        phone: &LinkKey,
        command: Command,
    ) -> CommandReply {
        let own = match command.command {
            None => Err(Error::new(
                Code::UnknownCommand,
                "the host does not know this command: update it",
            )),
            Some(Body::Register(registration)) => {
                let registered = self.register(hosted, phone, registration).await;
                registered.map(Reply::Registered)
            }
            Some(Body::SetWakeUrls(set)) => {
                let set = self.set_wake_urls(hosted, phone, &set.urls).await;
                set.map(Reply::WakeUrls)
            }
            Some(Body::ListWakeUrls(_)) => {
                let is_pinned = pinned(hosted, phone);
                is_pinned.map(|()| Reply::WakeUrls(wake_urls(hosted.record())))
            }
            Some(Body::ConnectApp(connect)) => {
                let connected = self.connect_app(hosted, phone, connect).await;
                connected.map(Reply::ConnectedApp)
            }
            Some(Body::ListApps(_)) => {
                let is_pinned = pinned(hosted, phone);
                is_pinned.map(|()| Reply::Apps(apps::shown(&hosted.record())))
            }
            Some(Body::DisconnectApp(disconnect)) => {
                let by = By::Phone(phone);
                let left = self.apps.disconnect(&hosted.id, by, &disconnect.name).await;
                left.map(Reply::Apps)
            }
            Some(_) => match ready(hosted, phone).await {
                Ok(node) => return node.command(command).await,
                Err(error) => Err(error),
            },
        };
        CommandReply {
            reply: Some(own.unwrap_or_else(Reply::Error)),
        }
    }

    async fn connect_app(
        &self,
        hosted: &HostedNode,
        phone: &LinkKey,
        connect: ConnectApp,
    ) -> Result<ConnectedApp, Error> {
        let ConnectApp {
            name,
            rights,
            expires_unix_s,
        } = connect;
        let rights = rights.unwrap_or_default();
        let by = By::Phone(phone);
        let connected = self
            .apps
            .connect(&hosted.id, by, &name, rights, expires_unix_s);
        connected.await
    }

    /// Stores the phone's wake URLs in place of those before.
    async fn set_wake_urls(
        &self,
        hosted: &HostedNode,
        phone: &LinkKey,
        urls: &[String],
    ) -> Result<WakeUrls, Error> {
        let set = self.book.set_phone_wake_urls(&hosted.id, phone, urls).await;
        set.map(wake_urls).map_err(|e| owner_error(&e))
    }

    /// Stores the keys that the phone has proved to have, starts the node, and answers when it has its signer.
    async fn register(
        &self,
        hosted: &Arc<HostedNode>,
        phone: &LinkKey,
        registration: longhand_node::Registration,
    ) -> Result<Registered, Error> {
        // Without a chain the node would not start, and the phone would wait for it.
        self.chain.tip().ok_or_else(chain_unavailable)?;
        let (book, hub) = (&self.book, &self.hub);
        let node_id = registration.node_id.clone();
        let known = book.may_register(&hosted.id, &registration, hub).await;
        let is_new = !known.map_err(|e| owner_error(&e))?.is_confirmed();
        if is_new {
            prove_keys(PhoneSigner::new(hosted, *phone, &self.metrics), &node_id).await?;
        }
        let owner = book.register(&hosted.id, phone, registration, hub).await;
        owner.map_err(|e| owner_error(&e))?;
        if is_new {
            self.changes.report(Kind::PhoneRegistered, &hosted.name, "");
        }
        self.starter.start(hosted);
        let mut phase = hosted.phase.subscribe();
        let started = phase.wait_for(|phase| matches!(phase, Phase::Running(_) | Phase::Failed(_)));
        if let Ok(phase) = started.await {
            running(&phase)?;
        }
        ready(hosted, phone).await?;
        Ok(Registered {
            node_id,
            hub_node_id: hub.serialize().to_vec(),
        })
    }
}

/// The node, as soon as its signer is the phone that gives this command.
async fn ready(hosted: &HostedNode, phone: &LinkKey) -> Result<Node, Error> {
    pinned(hosted, phone)?;
    if !hosted.record().is_confirmed() {
        let message = "the phone has not registered its keys: send Register first";
        return Err(Error::new(Code::NotRegistered, message));
    }
    let node = running(&hosted.phase.borrow())?;
    // The command may be here before the owner's task has seen that the link is live.
    let mut attached = hosted.attached.subscribe();
    tokio::select! {
        biased;
        _ = attached.wait_for(|attached| *attached) => {}
        _ = hosted.conversation.down() => {}
    }
    pinned(hosted, phone)?;
    Ok(node)
}

/// Refuses a command that the phone sent before it was shut out.
fn pinned(hosted: &HostedNode, phone: &LinkKey) -> Result<(), Error> {
    match hosted.is_phone(phone) {
        true => Ok(()),
        false => Err(owner_error(&OwnerError::ShutOut)),
    }
}

/// The wake URLs as the phone is shown them.
fn wake_urls(owner: OwnerRecord) -> WakeUrls {
    WakeUrls {
        urls: owner.phone_wake_urls,
        operator_has_one: owner.wake_url.is_some(),
    }
}

fn running(phase: &Phase) -> Result<Node, Error> {
    match phase {
        Phase::Running(node) => Ok(node.clone()),
        Phase::Failed(reason) => {
            let message =
                format!("the node does not run ({reason}): tell the operator of the host");
            Err(Error::new(Code::NodeFailed, message))
        }
        Phase::Waiting | Phase::Unregistered => Err(chain_unavailable()),
    }
}

/// Asks the phone to prove that it has the secret key of the node id: the id alone is public, and may be a peer's.
async fn prove_keys(phone: PhoneSigner, node_id: &[u8]) -> Result<(), Error> {
    let challenge =
        Challenge::new(node_id).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
    let reply = phone.sign(challenge.batch()).await;
    let reply = reply.map_err(|SignerAway| {
        let message = "the phone left before it had shown its keys: register again";
        Error::new(Code::SignerAway, message)
    })?;
    match challenge.is_met_by(&reply) {
        true => Ok(()),
        false => {
            let message = "the phone has not shown that it has the node's key: use the phone, or the seed, of this node";
            Err(Error::new(Code::KeysNotShown, message))
        }
    }
}

fn owner_error(failed: &OwnerError) -> Error {
    let code = match failed {
        // Which database, and what is wrong with it, is the operator's business: to a phone it may pass.
        OwnerError::Store(_) => Code::StoreFailed,
        failed => failed.code(),
    };
    Error::new(code, failed.to_string())
}

fn chain_unavailable() -> Error {
    let message = "the host has not reached its chain source yet: try again in a while";
    Error::new(Code::ChainUnavailable, message)
}
