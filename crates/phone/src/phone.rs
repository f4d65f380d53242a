//! The handle on a phone, and how it asks its host.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use longhand_link::{Config, Conversation, LinkError, LinkKeypair, Side, plain};
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{self as proto, Command, CommandReply};
use longhand_signer::rules::Refused;
use longhand_signer::{Recorded, Signer};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::attach::Dial;
use crate::durable_signer::DurableSigner;
use crate::error::{ErrorReport, PhoneError};
use crate::serve::{SIGNER, serve};
use crate::vault::Vault;

/// How long a command waits for a link that broke to come back.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The kind of request that a host answers.
const COMMAND: &str = "command";

/// The link's code for a request that was answered, and whose answer is no longer kept.
const FORGOTTEN: &str = "FORGOTTEN";

/// Takes one kind of reply; anything else is no answer to the question.
macro_rules! expect_reply {
    ($reply:expr, $kind:ident) => {
        match $reply {
            Reply::$kind(reply) => Ok(reply),
            _ => Err(PhoneError::Answer(concat!(
                "no ",
                stringify!($kind),
                " in it"
            ))),
        }
    };
}
pub(crate) use expect_reply;

/// A phone: its vault, its signer, and its side of the link. Clones are handles on the same one.
///
/// It answers its node whenever it is attached. Detach before the last handle is dropped: an attached phone stays.
#[derive(Clone)]
pub struct Phone {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) vault: Arc<Vault>,
    pub(crate) signer: Arc<DurableSigner>,
    pub(crate) node_id: PublicKey,
    pub(crate) conversation: Conversation,
    /// With its public half, which would be a multiplication on the curve for each attempt to reach the host.
    pub(crate) link_key: LinkKeypair,
    pub(crate) dialer: Box<dyn Dial>,
    pub(crate) attachment: watch::Sender<Attachment>,
    /// Dials again when a link breaks.
    pub(crate) supervisor: Mutex<Option<JoinHandle<()>>>,
    server: JoinHandle<()>,
    #[cfg(any(test, feature = "testing"))]
    pub(crate) lifeline: crate::testing::Lifeline,
}

/// Where the phone stands with its host.
#[derive(Clone)]
pub(crate) enum Attachment {
    /// No link now; why, for a person.
    Down(String),
    /// Since then.
    Up(Instant),
    /// No link any more, and none will be dialled.
    Ended(ErrorReport),
}

impl Phone {
    /// The phone of an opened vault. Reads the ledger; sends nothing. Must be called inside a tokio runtime.
    pub fn new(vault: Vault, dialer: impl Dial) -> Result<Phone, PhoneError> {
        let vault = Arc::new(vault);
        let signer = Arc::new(DurableSigner::open(Arc::clone(&vault))?);
        let node_id = signer.look(|signer| signer.keys().node_id())?;
        let agent = concat!("longhand-phone/", env!("CARGO_PKG_VERSION"));
        let (conversation, requests) =
            Conversation::new(Side::Phone, Config::new(agent, &[SIGNER]))?;
        let server = tokio::spawn(serve(requests, Arc::clone(&signer), conversation.clone()));
        let link_key = LinkKeypair::from_bytes(*vault.secrets().link_key);
        let inner = Inner {
            vault,
            link_key,
            signer,
            node_id,
            conversation,
            dialer: Box::new(dialer),
            attachment: watch::Sender::new(Attachment::Ended(never_attached())),
            supervisor: Mutex::new(None),
            server,
            #[cfg(any(test, feature = "testing"))]
            lifeline: crate::testing::Lifeline::new(),
        };
        Ok(Phone {
            inner: Arc::new(inner),
        })
    }

    /// The node's id, by the phone's own keys.
    pub fn node_id(&self) -> PublicKey {
        self.inner.node_id
    }

    /// The chain the phone was made for.
    pub fn network(&self) -> Network {
        self.inner.signer.network()
    }

    /// Returns when the phone is attached; fails when it will not be.
    pub async fn attached(&self) -> Result<(), PhoneError> {
        wait_for_link(&mut self.inner.attachment.subscribe(), None).await
    }

    /// Ends the phone as SIGKILL ends a process: in this moment nothing of it is written, sent or heard any more, and its
    /// vault may be opened again. Its tasks end as soon as the runtime comes to them; what its handles are asked fails.
    #[cfg(any(test, feature = "testing"))]
    pub fn kill(&self) {
        self.inner.vault.kill();
        self.inner.lifeline.cut();
        self.inner.server.abort();
        if let Some(supervisor) = self.lock_supervisor().take() {
            supervisor.abort();
        }
        let message = "the phone was killed";
        self.publish(Attachment::Ended(ErrorReport {
            code: "KILLED".into(),
            message: message.into(),
        }));
        // Ends the link's tasks. What it would say to the host stays in.
        let code = longhand_link::CloseCode::Shutdown;
        self.inner.conversation.give_up(code, message);
    }

    /// The phone's directory and what is in it.
    pub fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    /// Asks the host; across a link that breaks, asks again, and so when the host keeps the answer no longer. Every command
    /// may be asked twice.
    ///
    /// Without a link it waits for one for `patience`; for ever without that.
    pub(crate) async fn ask(
        &self,
        command: Ask,
        patience: Option<Duration>,
    ) -> Result<Reply, PhoneError> {
        let mut attachment = self.inner.attachment.subscribe();
        let mut is_asked_anew = false;
        loop {
            wait_for_link(&mut attachment, patience).await?;
            match self.ask_now(command.clone()).await {
                Err(PhoneError::Link(LinkError::Down(reason))) => {
                    tracing::info!(%reason, "the link broke before the answer");
                    // It ends when the phone does, and then there is nothing to wait for.
                    let _ = attachment.changed().await;
                }
                Err(PhoneError::Link(LinkError::Restarted)) => {}
                // It was answered, and a link broke before the answer came. A host that says so of what it was just asked for
                // the first time would say so for ever.
                Err(PhoneError::Link(LinkError::Refused { code, .. }))
                    if code == FORGOTTEN && !is_asked_anew =>
                {
                    is_asked_anew = true;
                    continue;
                }
                answer => return answer,
            }
            is_asked_anew = false;
        }
    }

    /// Asks the host once.
    pub(crate) async fn ask_now(&self, command: Ask) -> Result<Reply, PhoneError> {
        let command = Command {
            command: Some(command),
        }
        .encode_to_vec();
        let answer = self.inner.conversation.request(COMMAND, command).await?;
        match CommandReply::decode(answer.as_slice())
            .ok()
            .and_then(|answer| answer.reply)
        {
            Some(Reply::Error(error)) => Err(PhoneError::Host(proto::Error {
                code: plain(&error.code),
                message: plain(&error.message),
                ..error
            })),
            Some(reply) => Ok(reply),
            None => Err(PhoneError::Answer("it cannot be read")),
        }
    }

    /// Lets `call` change the signer's state, durably, before it returns.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Signer) -> Result<Recorded<T>, Refused> + Send + 'static,
    ) -> Result<T, PhoneError> {
        blocking(&self.inner.signer, |signer| signer.call(call)).await
    }

    /// Lets `look` see the signer.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Signer) -> T + Send + 'static,
    ) -> Result<T, PhoneError> {
        blocking(&self.inner.signer, |signer| signer.look(look)).await
    }
}

async fn wait_for_link(
    attachment: &mut watch::Receiver<Attachment>,
    patience: Option<Duration>,
) -> Result<(), PhoneError> {
    let settled = attachment.wait_for(|now| !matches!(now, Attachment::Down(_)));
    let settled = async { settled.await.map(|now| now.clone()) };
    let settled = match patience {
        Some(patience) => tokio::time::timeout(patience, settled).await.ok(),
        None => Some(settled.await),
    };
    match settled {
        Some(Ok(Attachment::Up(_))) => Ok(()),
        Some(Ok(Attachment::Ended(report))) => Err(PhoneError::Reported(report)),
        _ => match &*attachment.borrow() {
            Attachment::Down(last) => Err(PhoneError::HostAway { last: last.clone() }),
            _ => Err(PhoneError::HostAway {
                last: "the link broke".into(),
            }),
        },
    }
}

fn never_attached() -> ErrorReport {
    let message = "the phone is not attached: attach it first";
    ErrorReport {
        code: "NOT_ATTACHED".into(),
        message: message.into(),
    }
}

/// Runs what writes to the disk where that does not hold up the link.
pub(crate) async fn blocking<T: Send + 'static>(
    signer: &Arc<DurableSigner>,
    work: impl FnOnce(&DurableSigner) -> Result<T, PhoneError> + Send + 'static,
) -> Result<T, PhoneError> {
    #[cfg(any(test, feature = "testing"))]
    if crate::testing::is_on_one_thread() {
        let done = work(signer);
        signer.disk_is_free().await;
        return done;
    }
    let signer = Arc::clone(signer);
    let done = tokio::task::spawn_blocking(move || work(&signer)).await;
    done.map_err(|error| PhoneError::Stopped(error.to_string()))?
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phone({})", self.inner.node_id)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.server.abort();
    }
}
