//! The beginning of a link at a phone: it dials every way to the host that it knows, each a little later than the one before, and
//! the first over which the host answers becomes the link.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::core::handshake::{Established, Initiator};
use crate::key::{LinkKey, LinkKeypair};
use crate::pairing::PairingCode;
use crate::{Carrier, Conversation, DiscoverySeed, Link, LinkError, Rendezvous};

/// The time that a way has for itself before the next one is tried beside it, as in RFC 8305, 5: enough for two round trips to the
/// other end of the world.
pub const HEAD_START: Duration = Duration::from_millis(300);

/// The time for the handshake and the two `Hello`s.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The credentials by which a phone authenticates itself.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// For the first connection: the phone's new key and the code. The phone stores key, host and owner before.
    Pair {
        /// The phone's key; a pairing that broke off is tried again with the same.
        phone: LinkKeypair,
        /// The code.
        code: Box<PairingCode>,
    },
    /// For every later one.
    Attach {
        /// The phone's key.
        phone: LinkKeypair,
        /// The host's, from the code.
        host: LinkKey,
        /// Kept of the pairing; `None` of a phone that was paired by an earlier version.
        discovery: Option<DiscoverySeed>,
    },
}

impl Credentials {
    /// What the host knows of this phone, and nobody else.
    pub fn rendezvous(&self) -> Rendezvous {
        match self {
            Credentials::Pair { code, .. } => Rendezvous::of_pairing(&code.secret),
            Credentials::Attach {
                phone,
                host,
                discovery,
            } => Rendezvous::of_keys(phone, host).with_discovery(discovery.clone()),
        }
    }
}

/// Dials hosts. Programs of an operating system use `DialOptions`, which has the carriers of addresses; browsers and simulations have
/// their own.
#[async_trait]
pub trait Dial: Send + Sync {
    /// One attempt at one address, as it stands in the pairing code. `meeting` is what the host knows of this phone.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`]; [`LinkError::UnknownCarrier`] when the address is not one that can be dialled.
    async fn dial(&self, address: &str, meeting: &Rendezvous) -> Result<Carrier, LinkError>;

    /// The time that the addresses before this one have for themselves.
    fn head_start(&self, address: &str) -> Duration {
        let _ = address;
        HEAD_START
    }
}

/// Makes a link over the first of `addresses` over which the host answers: they are tried in their order, each beside those before
/// it when they have not answered within its [`Dial::head_start`]. Returns the link, and the index of its address. One attempt: the caller
/// decides when to try again.
///
/// # Errors
/// [`LinkError::Closed`] when the host refuses the phone, else the error of the address that came furthest.
pub async fn connect(
    addresses: &[String],
    credentials: &Credentials,
    dialer: &dyn Dial,
    conversation: &Conversation,
) -> Result<(Link, usize), LinkError> {
    let meeting = credentials.rendezvous();
    let runtime = &conversation.shared.runtime;
    let attempt = |way: usize| {
        let (address, meeting) = (addresses.get(way), &meeting);
        async move {
            let address = address.ok_or_else(|| LinkError::UnknownCarrier(way.to_string()));
            let answered = async {
                let carrier = dialer.dial(address?, meeting).await?;
                in_time(
                    conversation,
                    shake_hands(carrier, credentials, conversation),
                )
                .await
            };
            (way, answered.await)
        }
    };
    let mut waiting: VecDeque<usize> = (0..addresses.len()).collect();
    let mut tried: Vec<usize> = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut failures = Failures::default();
    loop {
        match waiting.pop_front() {
            Some(next) => {
                tried.push(next);
                running.push(attempt(next));
            }
            None if running.is_empty() => return Err(failures.into_error()),
            None => {}
        }
        let next = waiting.front().and_then(|way| addresses.get(*way));
        let head_start = next.map_or(HEAD_START, |address| dialer.head_start(address));
        let (way, answered) = tokio::select! {
            biased;
            Some(answered) = running.next() => answered,
            () = runtime.sleep(head_start), if !waiting.is_empty() => continue,
        };
        tried.retain(|it| *it != way);
        let answered = match answered {
            Ok(answered) => {
                // Before the phone shows over which way it comes, the others are closed.
                running.clear();
                in_time(conversation, answered.finish(conversation)).await
            }
            Err(error) => Err(error),
        };
        match answered {
            Ok(link) => return Ok((link, way)),
            // The host itself has refused the phone: it would do so over every way.
            Err(refused @ LinkError::Closed(_)) => return Err(refused),
            Err(error) => {
                let address = addresses.get(way).cloned().unwrap_or_default();
                tracing::debug!(%address, %error, "a way to the host failed");
                failures.add(address, error);
                // This one has answered and gone no further: those that were closed for it are dialled anew.
                if running.is_empty() {
                    tried.drain(..).rev().for_each(|it| waiting.push_front(it));
                }
            }
        }
    }
}

/// Makes a link of a connection that the caller dialled.
///
/// # Errors
/// The error of the handshake.
pub async fn connect_over(
    carrier: Carrier,
    credentials: &Credentials,
    conversation: &Conversation,
) -> Result<Link, LinkError> {
    in_time(conversation, async {
        let answered = shake_hands(carrier, credentials, conversation).await?;
        answered.finish(conversation).await
    })
    .await
}

/// A connection over which the host has answered, and proved its key.
struct Answered {
    carrier: Carrier,
    established: Established,
    /// In a pairing the record that shows the phone's key.
    last: Option<Vec<u8>>,
}

impl Answered {
    async fn finish(mut self, conversation: &Conversation) -> Result<Link, LinkError> {
        if let Some(last) = self.last {
            send(&mut self.carrier, last).await?;
        }
        conversation.establish(self.carrier, self.established).await
    }
}

/// The handshake up to the host's answer: nothing has changed at the host yet.
async fn shake_hands(
    mut carrier: Carrier,
    credentials: &Credentials,
    conversation: &Conversation,
) -> Result<Answered, LinkError> {
    let (initiator, first) = match credentials {
        Credentials::Pair { phone, code } => {
            Initiator::pair(phone, &code.host, &code.secret, conversation.instance())?
        }
        Credentials::Attach { phone, host, .. } => {
            Initiator::attach(phone, host, conversation.instance())?
        }
    };
    send(&mut carrier, first).await?;
    let answer = recv(&mut carrier).await?;
    let (established, last) = initiator.receive(&answer)?;
    Ok(Answered {
        carrier,
        established,
        last,
    })
}

async fn in_time<T>(
    conversation: &Conversation,
    begin: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let runtime = &conversation.shared.runtime;
    let begun = runtime.timeout(HANDSHAKE_TIMEOUT, begin).await;
    begun.unwrap_or(Err(LinkError::HandshakeTimeout))
}

/// Why no way led to the host.
#[derive(Default)]
struct Failures(Vec<(String, LinkError)>);

impl Failures {
    fn add(&mut self, address: String, error: LinkError) {
        self.0.push((address, error));
    }

    /// An answer that was wrong says more than no answer; an address that cannot be dialled by this program says least. When no
    /// address answers, the reason of each is named.
    fn into_error(self) -> LinkError {
        let unknown = |error: &LinkError| matches!(error, LinkError::UnknownCarrier(_));
        let (mut away, mut rest) = (Vec::new(), None);
        for (address, error) in self.0 {
            match error {
                LinkError::Unreachable { reason, .. } => away.push((address, reason)),
                error if rest.as_ref().is_none_or(unknown) => rest = Some(error),
                _ => {}
            }
        }
        match (rest, away.len()) {
            (Some(error), _) if !unknown(&error) => error,
            (Some(error), 0) => error,
            (None, 0) => LinkError::UnknownCarrier("(none was given)".into()),
            (_, 1) => {
                let (address, reason) = away.remove(0);
                LinkError::Unreachable { address, reason }
            }
            _ => {
                let addresses: Vec<_> = away.iter().map(|(address, _)| address.clone()).collect();
                let reasons: Vec<_> = away.into_iter().map(|(_, reason)| reason).collect();
                LinkError::Unreachable {
                    address: addresses.join(", "),
                    reason: reasons.join("; "),
                }
            }
        }
    }
}

pub(crate) async fn send(carrier: &mut Carrier, record: Vec<u8>) -> Result<(), LinkError> {
    let sent = carrier.sink.send(record).await;
    sent.map_err(|e| LinkError::Carrier(e.to_string()))
}

pub(crate) async fn recv(carrier: &mut Carrier) -> Result<Vec<u8>, LinkError> {
    let received = carrier.stream.recv().await;
    let received = received.map_err(|e| LinkError::Carrier(e.to_string()))?;
    received.ok_or_else(|| LinkError::Carrier("the other side hung up".into()))
}
