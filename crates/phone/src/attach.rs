//! Attaching to the host and detaching: pairing, the first link, and its registration. [`crate::roaming`] keeps the link.

use std::time::Duration;

use longhand_base::runtime::Task;
use longhand_link::{
    CloseCode, Credentials, DiscoverySeed, LinkError, LinkKey, PairingCode, connect,
};
use longhand_proto::Code;
use longhand_proto::command::Register;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;

use crate::attachment::Attachment;
use crate::birthday::Birthday;
use crate::error::{ErrorReport, PhoneError};
use crate::phone::Phone;
use crate::roaming::{Live, Reach};
use crate::vault::PairedHost;

/// The time that the host may take to finish the step in hand.
const DETACH_TIMEOUT: Duration = Duration::from_secs(15);

impl Phone {
    /// Connects to the host of a pairing code for the first time, and registers the node there. Detach when done.
    ///
    /// When the host refuses, the phone is as before. A pairing that broke off may be tried again with the same code. Once a
    /// phone was registered it stays with its host, whatever the result of a later pairing there. Any other host is
    /// [`PhoneError::PairedElsewhere`].
    pub async fn pair(&self, code: &str) -> Result<(), PhoneError> {
        let code: PairingCode = code.parse()?;
        let (expires_unix_s, now_unix_s) = (code.expires_unix_s, self.now_unix_s());
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
            discovery: Some(DiscoverySeed::of(&code.secret)),
        };
        vault.set_host(&host)?;
        let credentials = Credentials::Pair {
            phone: self.inner.link_key.clone(),
            code: Box::new(code),
        };
        match self.begin(&host, &credentials, Reach::All).await {
            Ok(live) => {
                self.stay(live);
                Ok(())
            }
            Err(error) => {
                if is_no_pairing(&error) {
                    match before {
                        Some(before) => vault.set_host(&before)?,
                        None => vault.forget_host()?,
                    }
                }
                Err(self.with_clock(error))
            }
        }
    }

    /// Attaches once; from then on a link that breaks is dialled again until [`Phone::detach`].
    pub async fn attach(&self) -> Result<(), PhoneError> {
        let live = self.connect(Reach::All).await?;
        self.stay(live);
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
                () = self.watch_deadlines() => Ok(()),
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
            task.ended().await;
        }
        let left = ErrorReport {
            code: Code::Detached.into(),
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
        match self.inner.runtime.timeout(DETACH_TIMEOUT, leave).await {
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

    /// One attempt, which begins anew when the phone comes to another network meanwhile.
    pub(crate) async fn connect(&self, reach: Reach) -> Result<Live, PhoneError> {
        let host = self.inner.vault.host()?.ok_or(PhoneError::NotPaired)?;
        let credentials = Credentials::Attach {
            phone: self.inner.link_key.clone(),
            host: LinkKey(host.key),
            discovery: host.discovery.clone(),
        };
        let mut network = self.inner.network.subscribe();
        loop {
            let seen = network.borrow_and_update().clone();
            tokio::select! {
                biased;
                begun = self.begin(&host, &credentials, reach) => return begun,
                Ok(_) = network.wait_for(|now| now.is_newer_than(&seen)) => {}
            }
        }
    }

    /// One attempt, up to a live link whose host knows the node.
    async fn begin(
        &self,
        host: &PairedHost,
        credentials: &Credentials,
        reach: Reach,
    ) -> Result<Live, PhoneError> {
        let network = self.inner.network.borrow().clone();
        let order = self.ways_to(host, &network, reach);
        let addresses: Vec<_> = order
            .iter()
            .map(|way| host.addresses[*way].clone())
            .collect();
        let dialer = self.inner.dialer.as_ref();
        let dialer = &self.inner.lifeline.hold_all(dialer);
        let conversation = &self.inner.conversation;
        let (link, place) = connect(&addresses, credentials, dialer, conversation).await?;
        if !host.registered
            && let Err(error) = self.register(host).await
        {
            // Best effort: the error of the registration is returned.
            let _ = self
                .inner
                .runtime
                .timeout(DETACH_TIMEOUT, link.detach())
                .await;
            return Err(error);
        }
        self.learn(&network, &addresses, place);
        let way = order[place];
        Ok(Live { link, way, network })
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
        let mut before = None;
        // Under the channel's lock: a phone that is stopped meanwhile stays stopped.
        self.inner.attachment.send_if_modified(|current| {
            if !self.inner.lifeline.is_cut() {
                before = Some(std::mem::replace(current, attachment.clone()));
            }
            before.is_some()
        });
        if let Some(before) = before {
            self.inner.events.link_changed(&before, &attachment);
        }
    }

    pub(crate) fn lock_supervisor(&self) -> std::sync::MutexGuard<'_, Option<Task>> {
        self.inner
            .supervisor
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A code that has expired at the host only: one of the two clocks is wrong.
    fn with_clock(&self, error: PhoneError) -> PhoneError {
        match error {
            PhoneError::Link(LinkError::Closed(reason))
                if reason.code == CloseCode::PairingExpired =>
            {
                PhoneError::PairingExpiredAtHost {
                    reason: reason.message,
                    now_unix_s: self.now_unix_s(),
                }
            }
            error => error,
        }
    }
}

const DETACHED: &str = "the phone has detached: start it again";

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
