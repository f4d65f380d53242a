//! The handle on a phone, and its requests to the host.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use longhand_base::runtime::{Runtime, Task};
use longhand_base::text::plain;
use longhand_link::{Config, Conversation, Dial, LinkError, LinkKeypair, Side};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{self as proto, Command, CommandReply};
use longhand_signer::rules::Refused;
use longhand_signer::{Recorded, Signer};
use prost::Message;
use tokio::sync::{Notify, mpsc, watch};

use crate::approval::{Approve, Approver, Wish, no_apps};
use crate::apps;
use crate::attachment::Attachment;
use crate::durable_signer::{DurableSigner, blocking, known_blocks};
use crate::error::{ErrorReport, PhoneError};
use crate::events::Events;
use crate::lifeline::Lifeline;
use crate::roaming::NetworkNow;
use crate::serve::{APP, MOST_WAITING, SIGNER, serve};
use crate::source::Sources;
use crate::vault::Vault;
use crate::ways::Ways;

/// The time for which a command waits for a new link after one broke.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The kind of request that a host answers.
const COMMAND: &str = "command";

/// Takes a reply of one kind; any other does not fit the command.
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
    /// The app for which this handle acts; `None` = the owner.
    asker: Option<Arc<str>>,
}

pub(crate) struct Inner {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) signer: Arc<DurableSigner>,
    pub(crate) node_id: PublicKey,
    pub(crate) conversation: Conversation,
    /// The key pair, since deriving the public half would be a multiplication on the curve for each attempt to dial.
    pub(crate) link_key: LinkKeypair,
    pub(crate) dialer: Box<dyn Dial>,
    /// Those to the host that worked.
    pub(crate) ways: Mutex<Ways>,
    /// As the platform last reported it.
    pub(crate) network: watch::Sender<NetworkNow>,
    pub(crate) attachment: watch::Sender<Attachment>,
    /// A call has begun to wait for a link: the host is dialled at once.
    pub(crate) wanted: Notify,
    pub(crate) events: Arc<Events>,
    pub(crate) sources: Arc<Sources>,
    /// Dials again when a link breaks.
    pub(crate) supervisor: Mutex<Option<Task>>,
    server: Task,
    /// Answers what apps of the owner's ask for.
    apps: OnceLock<Task>,
    pub(crate) lifeline: Lifeline,
    pub(crate) approver: Approver,
}

impl Phone {
    /// The phone of an opened vault. Reads the ledger; sends nothing. Must be called inside a tokio runtime.
    #[cfg(not(target_family = "wasm"))]
    pub fn new(vault: Vault, dialer: impl Dial + 'static) -> Result<Phone, PhoneError> {
        Phone::on(longhand_base::runtime::tokio(), vault, dialer)
    }

    /// The same, with clocks, timers and tasks of `runtime`.
    pub fn on(
        runtime: Arc<dyn Runtime>,
        vault: Vault,
        dialer: impl Dial + 'static,
    ) -> Result<Phone, PhoneError> {
        let vault = Arc::new(vault);
        let signer = DurableSigner::open(Arc::clone(&vault), runtime.clone())?;
        let signer = Arc::new(signer);
        let node_id = signer.look(|signer| signer.keys().node_id())?;
        let agent = concat!("longhand-phone/", env!("CARGO_PKG_VERSION"));
        let (conversation, requests) = Conversation::new(
            Side::Phone,
            Config::new(agent, &[SIGNER, APP]),
            runtime.clone(),
        )?;
        conversation.set_greeting(signer.look(|signer| known_blocks(signer.headers()))?);
        let events = Arc::new(Events::new());
        let sources = Sources::new(
            Arc::clone(&signer),
            Arc::clone(&runtime),
            conversation.clone(),
        );
        let (asks, asked) = mpsc::channel(MOST_WAITING);
        let serving = serve(
            requests,
            asks,
            Arc::clone(&signer),
            conversation.clone(),
            events.clone(),
            sources.clone(),
        );
        let server = runtime.start(serving);
        let link_key = LinkKeypair::from_bytes(*vault.secrets().link_key);
        let ways = Mutex::new(Ways::from_bytes(&vault.ways()));
        let inner = Inner {
            runtime,
            vault,
            ways,
            network: watch::Sender::new(NetworkNow::unknown()),
            link_key,
            signer,
            node_id,
            conversation,
            dialer: Box::new(dialer),
            attachment: watch::Sender::new(Attachment::Ended(never_attached())),
            wanted: Notify::new(),
            events,
            sources,
            supervisor: Mutex::new(None),
            server,
            apps: OnceLock::new(),
            lifeline: Lifeline::new(),
            approver: Approver::default(),
        };
        let inner = Arc::new(inner);
        let apps = apps::serve(asked, Arc::downgrade(&inner));
        inner.apps.get_or_init(|| inner.runtime.start(apps));
        Ok(Phone::of(inner))
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
        self.wait_for_link(&mut self.inner.attachment.subscribe(), None)
            .await
    }

    /// Has `approver` decide about every wish from now on.
    ///
    /// ```
    /// # use longhand_phone::approval::{Allowances, Approve, Wish};
    /// let rules = Allowances { pay_sat: 10_000, ..Allowances::default() };
    /// # let wish = Wish::Pay { payment_hash: [1; 32], amount_msat: 10_000_001, max_fee_msat: 0 };
    /// # let denied = futures::executor::block_on(rules.approve(&wish)).unwrap_err();
    /// # assert!(denied.to_string().contains("10001 sat is above"));
    /// // phone.set_approver(rules);
    /// ```
    pub fn set_approver(&self, approver: impl Approve + 'static) {
        self.inner.approver.set(Arc::new(approver));
    }

    /// The owner's handle on a phone.
    pub(crate) fn of(inner: Arc<Inner>) -> Phone {
        Phone { inner, asker: None }
    }

    /// The same phone, acting for an app of the owner's: what it wants is the app's wish.
    pub(crate) fn for_app(&self, name: &str) -> Phone {
        Phone {
            inner: Arc::clone(&self.inner),
            asker: Some(name.into()),
        }
    }

    /// Asks the approver. Without one, whoever may give the phone commands decides for the owner, and nobody for an app.
    pub(crate) async fn approved(&self, wish: Wish) -> Result<(), PhoneError> {
        match (self.inner.approver.get(), &self.asker) {
            (Some(approver), None) => Ok(approver.approve(&wish).await?),
            (Some(approver), Some(app)) => Ok(approver.approve_for_app(app, &wish).await?),
            (None, None) => Ok(()),
            (None, Some(_)) => Err(no_apps().into()),
        }
    }

    /// Stops the phone at once, as SIGKILL ends a process: from this moment on it writes, sends and receives nothing, and its vault may be
    /// opened again, here or elsewhere. Its tasks end as soon as the runtime polls them; calls on its handles fail.
    ///
    /// For a program that must not use the vault any longer, such as a web page whose lock another page has taken.
    /// [`Phone::detach`] leaves in order.
    pub fn stop_now(&self) {
        let stopped = stopped();
        // First: nothing else is published from here on.
        self.inner.lifeline.cut();
        let ended = Attachment::Ended(stopped.clone());
        let before = self.inner.attachment.send_replace(ended.clone());
        self.inner.events.link_changed(&before, &ended);
        self.inner.server.abort();
        self.inner.sources.stop();
        if let Some(apps) = self.inner.apps.get() {
            apps.abort();
        }
        if let Some(supervisor) = self.lock_supervisor().take() {
            supervisor.abort();
        }
        // Ends the link's tasks. Its `Close` is not sent.
        let code = longhand_link::CloseCode::Shutdown;
        self.inner.conversation.give_up(code, &stopped.message);
        // Last, when nothing can be sent any more: another process may write from here on.
        self.inner.vault.release();
    }

    /// The phone's files.
    pub fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    /// Sends a command to the host. Sends it again after a link broke, and when the host no longer keeps the response, since every
    /// command may be sent twice.
    ///
    /// Without a link it has the host dialled at once, and waits for `patience`, without a limit if that is `None`.
    pub(crate) async fn ask(
        &self,
        command: Ask,
        patience: Option<Duration>,
    ) -> Result<Reply, PhoneError> {
        let mut attachment = self.inner.attachment.subscribe();
        let mut is_asked_anew = false;
        loop {
            self.wait_for_link(&mut attachment, patience).await?;
            match self.ask_now(command.clone()).await {
                Err(PhoneError::Link(LinkError::Down(reason))) => {
                    tracing::info!(%reason, "the link broke before the answer");
                    // Fails when the phone has ended, which the next loop finds out.
                    let _ = attachment.changed().await;
                }
                Err(PhoneError::Link(LinkError::Restarted)) => {}
                // The response was sent, and a link broke before it arrived. It is sent anew once only: a host that answers
                // `FORGOTTEN` to a new request would do so for ever.
                Err(PhoneError::Link(LinkError::Refused { code, .. }))
                    if code == Code::Forgotten && !is_asked_anew =>
                {
                    is_asked_anew = true;
                    continue;
                }
                answer => return answer,
            }
            is_asked_anew = false;
        }
    }

    /// Sends a command to the host once.
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

    /// Calls `call`, which changes the signer's state. Returns when the change is durable.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Signer) -> Result<Recorded<T>, Refused> + Send + 'static,
    ) -> Result<T, PhoneError> {
        blocking(&self.inner.signer, |signer| signer.call(call)).await
    }

    /// Calls `look` with the signer.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Signer) -> T + Send + 'static,
    ) -> Result<T, PhoneError> {
        blocking(&self.inner.signer, |signer| signer.look(look)).await
    }

    pub(crate) fn now_unix_s(&self) -> u64 {
        self.inner.runtime.now_unix_s()
    }

    async fn wait_for_link(
        &self,
        attachment: &mut watch::Receiver<Attachment>,
        patience: Option<Duration>,
    ) -> Result<(), PhoneError> {
        if matches!(&*attachment.borrow(), Attachment::Down(_)) {
            self.inner.wanted.notify_one();
        }
        let settled = attachment.wait_for(|now| !matches!(now, Attachment::Down(_)));
        let settled = async { settled.await.map(|now| now.clone()) };
        let settled = match patience {
            Some(patience) => self.inner.runtime.timeout(patience, settled).await.ok(),
            None => Some(settled.await),
        };
        match settled {
            Some(Ok(Attachment::Up)) => Ok(()),
            Some(Ok(Attachment::Ended(report))) => Err(PhoneError::Reported(report)),
            _ => match &*attachment.borrow() {
                Attachment::Down(last) => Err(PhoneError::HostAway { last: last.clone() }),
                _ => Err(PhoneError::HostAway {
                    last: "the link broke".into(),
                }),
            },
        }
    }
}

/// The error of a phone after [`Phone::stop_now`].
pub(crate) fn stopped() -> ErrorReport {
    ErrorReport {
        code: Code::PhoneStopped.into(),
        message: "this phone was stopped: open it again to go on".into(),
    }
}

fn never_attached() -> ErrorReport {
    let message = "the phone is not attached: attach it first";
    ErrorReport {
        code: Code::NotAttached.into(),
        message: message.into(),
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phone({})", self.inner.node_id)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sources.stop();
        self.server.abort();
        if let Some(apps) = self.apps.get() {
            apps.abort();
        }
    }
}
