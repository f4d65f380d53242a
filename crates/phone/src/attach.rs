//! Attaching to the host: pairing, dialling, dialling again after a link broke, and detaching.

use std::time::Duration;

use async_trait::async_trait;
use longhand_link::{
    Carrier, CloseCode, CloseReason, Credentials, DialOptions, Link, LinkError, LinkKey,
    PairingCode, connect_over, dial,
};
use longhand_proto::command::Register;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use tokio::time::Instant;

use crate::backoff::{Backoff, GOOD_AFTER};
use crate::birthday::Birthday;
use crate::clock::now_unix_s;
use crate::error::{ErrorReport, PhoneError};
use crate::phone::{Attachment, Phone};
use crate::vault::{PairedHost, VaultError, fill_random};

/// The time that the host may take to finish the step in hand.
const DETACH_TIMEOUT: Duration = Duration::from_secs(15);

/// Dials a host. Programs use [`DialOptions`], which has the carriers of addresses; simulations have their own.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A connection to the first of `addresses` that answers.
    async fn dial(&self, addresses: &[String]) -> Result<Carrier, LinkError>;
}

#[async_trait]
impl Dial for DialOptions {
    async fn dial(&self, addresses: &[String]) -> Result<Carrier, LinkError> {
        dial(addresses, self).await
    }
}

impl Phone {
    /// Connects to the host of a pairing code for the first time, and registers the node there. Detach when done.
    ///
    /// When the host refuses, the phone is as before. A pairing that broke off may be tried again with the same code. Once a
    /// phone was registered it stays with its host, whatever the result of a later pairing there. Any other host is
    /// [`PhoneError::PairedElsewhere`].
    pub async fn pair(&self, code: &str) -> Result<(), PhoneError> {
        let code: PairingCode = code.parse()?;
        let (expires_unix_s, now_unix_s) = (code.expires_unix_s, now_unix_s());
        if expires_unix_s <= now_unix_s {
            return Err(PhoneError::PairingExpired {
                expires_unix_s,
                now_unix_s,
            });
        }
        let vault = &self.inner.vault;
        let before = vault.host()?;
        let was_registered = |host: &PairedHost| host.registered || host.was_registered;
        let home = before.as_ref().filter(|host| was_registered(host));
        if home.is_some_and(|host| host.key != code.host.0) {
            return Err(PhoneError::PairedElsewhere);
        }
        // Written before the first byte is sent: when the link breaks, the host may have pinned the phone.
        let host = PairedHost {
            key: code.host.0,
            addresses: code.addresses.clone(),
            registered: false,
            hub_node_id: Vec::new(),
            was_registered: home.is_some(),
        };
        vault.set_host(&host)?;
        let credentials = Credentials::Pair {
            phone: self.inner.link_key.clone(),
            code: Box::new(code),
        };
        match self.begin(&host, &credentials).await {
            Ok(link) => {
                self.stay(link);
                Ok(())
            }
            Err(error) => {
                if is_no_pairing(&error) {
                    match before {
                        Some(before) => vault.set_host(&before)?,
                        None => vault.forget_host()?,
                    }
                }
                Err(with_clock(error))
            }
        }
    }

    /// Attaches once; from then on a link that breaks is dialled again until [`Phone::detach`].
    pub async fn attach(&self) -> Result<(), PhoneError> {
        let link = self.connect().await?;
        self.stay(link);
        Ok(())
    }

    /// Attaches and stays, whatever the network does, until `stop` is ready; then detaches cleanly.
    ///
    /// Fails when dialling again is of no use: another process took over, or the host does not know the phone.
    pub fn run(
        &self,
        stop: impl Future<Output = ()>,
    ) -> impl Future<Output = Result<(), PhoneError>> {
        // Published before the first poll, so that [`Phone::attached`] waits from now on.
        self.publish(Attachment::Down("not attached yet".into()));
        async {
            tokio::select! {
                biased;
                () = stop => self.detach().await,
                error = self.keep_attached(None) => Err(error),
            }
        }
    }

    /// Lets the host finish the step in hand and disconnect the node's peers, then ends the link. It is no
    /// error when there is none.
    pub async fn detach(&self) -> Result<(), PhoneError> {
        let supervisor = self.lock_supervisor().take();
        if let Some(task) = supervisor {
            task.abort();
            // The task is cancelled; no new link is dialled from here on.
            let _ = task.await;
        }
        let left = ErrorReport {
            code: "DETACHED".into(),
            message: DETACHED.into(),
        };
        self.publish(Attachment::Ended(left));
        let Some(link) = self.inner.conversation.link() else {
            return Ok(());
        };
        let leave = async {
            let left = link.detach().await;
            // The process may exit after this, so that the last bytes must have been sent.
            link.ended().await;
            left
        };
        match tokio::time::timeout(DETACH_TIMEOUT, leave).await {
            Ok(Ok(())) | Ok(Err(LinkError::Down(_))) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                link.close(
                    CloseCode::Detached,
                    "the phone leaves without waiting any longer",
                );
                Ok(())
            }
        }
    }

    fn stay(&self, link: Link) {
        self.publish(Attachment::Up);
        let phone = self.clone();
        let task = tokio::spawn(async move {
            phone.keep_attached(Some(link)).await;
        });
        if let Some(old) = self.lock_supervisor().replace(task) {
            old.abort();
        }
    }

    /// Keeps a link alive. Returns the error for which dialling again is of no use.
    async fn keep_attached(&self, mut link: Option<Link>) -> PhoneError {
        let mut backoff = Backoff::new();
        loop {
            let since = Instant::now();
            let error = match self.live(link.take()).await {
                Ok(reason) => PhoneError::Ended(reason),
                Err(error) => error,
            };
            if since.elapsed() >= GOOD_AFTER {
                backoff = Backoff::new();
            }
            if !is_passing(&error) {
                self.publish(Attachment::Ended(error.report()));
                return error;
            }
            let wait = backoff.next(random());
            tracing::info!(last = %error, ?wait, "not attached, dialling again");
            self.publish(Attachment::Down(error.to_string()));
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for the end of a link, which is dialled if there is none. Returns the reason of the end.
    async fn live(&self, link: Option<Link>) -> Result<CloseReason, PhoneError> {
        let link = match link {
            Some(link) => link,
            None => self.connect().await?,
        };
        self.publish(Attachment::Up);
        tracing::info!(node_id = %self.inner.node_id, "attached");
        Ok(link.closed().await)
    }

    async fn connect(&self) -> Result<Link, PhoneError> {
        let host = self.inner.vault.host()?.ok_or(PhoneError::NotPaired)?;
        let credentials = Credentials::Attach {
            phone: self.inner.link_key.clone(),
            host: LinkKey(host.key),
        };
        self.begin(&host, &credentials).await
    }

    /// One attempt, up to a live link whose host knows the node.
    async fn begin(
        &self,
        host: &PairedHost,
        credentials: &Credentials,
    ) -> Result<Link, PhoneError> {
        let carrier = self.inner.dialer.dial(&host.addresses).await?;
        #[cfg(any(test, feature = "testing"))]
        let carrier = self.inner.lifeline.hold(carrier);
        let link = connect_over(carrier, credentials, &self.inner.conversation).await?;
        if !host.registered
            && let Err(error) = self.register(host).await
        {
            // Best effort: the error of the registration is returned.
            let _ = tokio::time::timeout(DETACH_TIMEOUT, link.detach()).await;
            return Err(error);
        }
        Ok(link)
    }

    async fn register(&self, host: &PairedHost) -> Result<(), PhoneError> {
        let (height, unix_s) = match self.inner.vault.secrets().birthday {
            Birthday::New => (0, 0),
            Birthday::Height(height) => (height, 0),
            Birthday::UnixS(unix_s) => (0, unix_s),
        };
        let register = Register {
            birthday_unix_s: unix_s,
            ..self.look(move |signer| signer.register(height)).await?
        };
        match self.ask_now(Ask::Register(register)).await? {
            Reply::Registered(registered) => {
                if registered.node_id != self.inner.node_id.serialize() {
                    return Err(PhoneError::Foreign("a node id"));
                }
                let host = PairedHost {
                    registered: true,
                    hub_node_id: registered.hub_node_id,
                    ..host.clone()
                };
                Ok(self.inner.vault.set_host(&host)?)
            }
            _ => Err(PhoneError::Answer("to Register")),
        }
    }

    pub(crate) fn publish(&self, attachment: Attachment) {
        self.inner.attachment.send_replace(attachment);
    }

    pub(crate) fn lock_supervisor(
        &self,
    ) -> std::sync::MutexGuard<'_, Option<tokio::task::JoinHandle<()>>> {
        self.inner
            .supervisor
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

const DETACHED: &str = "the phone has detached: start it again";

/// Whether the next attempt may succeed after this error.
fn is_passing(error: &PhoneError) -> bool {
    use CloseCode::{Replaced, UnknownOwner, Version};
    match error {
        PhoneError::Ended(reason)
        | PhoneError::Link(LinkError::Closed(reason) | LinkError::Down(reason)) => {
            !matches!(reason.code, Replaced | UnknownOwner | Version)
        }
        PhoneError::Link(LinkError::UnknownCarrier(_)) => false,
        // Errors from before the host was authenticated: anybody on the network can send "another version".
        PhoneError::Link(_) => true,
        PhoneError::Host(error) => error.action() == Action::Retry,
        // A disk that is full, or fails, may recover.
        PhoneError::Vault(VaultError::Full | VaultError::Io(_) | VaultError::NeedsReopening) => {
            true
        }
        _ => false,
    }
}

/// A code that has expired at the host only: one of the two clocks is wrong.
fn with_clock(error: PhoneError) -> PhoneError {
    match error {
        PhoneError::Link(LinkError::Closed(reason)) if reason.code == CloseCode::PairingExpired => {
            PhoneError::PairingExpiredAtHost {
                reason: reason.message,
                now_unix_s: now_unix_s(),
            }
        }
        error => error,
    }
}

/// Whether it is certain that a pairing failed: the host has not pinned the phone.
fn is_no_pairing(error: &PhoneError) -> bool {
    use CloseCode::{PairingExpired, PairingUnknown, PairingUsed};
    match error {
        PhoneError::Link(LinkError::Closed(reason)) => {
            matches!(reason.code, PairingUnknown | PairingExpired | PairingUsed)
        }
        PhoneError::Link(error) => matches!(
            error,
            LinkError::WrongHost
                | LinkError::Handshake
                | LinkError::Unreachable { .. }
                | LinkError::UnknownCarrier(_)
        ),
        _ => false,
    }
}

/// A random number for the backoff; no secret depends on it.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Zero without randomness: the waits are the shortest then, which is safe.
    let _ = fill_random(&mut bytes);
    u32::from_be_bytes(bytes)
}
