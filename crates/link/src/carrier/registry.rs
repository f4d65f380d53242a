//! The kinds of carriers that a program knows, chosen by the scheme of an address.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;

use super::Carrier;
use super::tcp::{Connect, System};
use crate::connect::{Dial, HEAD_START};
use crate::{Address, LinkError, Rendezvous};

/// The time for an attempt at one address.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of a phone's dialling.
#[derive(Clone, Default)]
pub struct DialOptions {
    /// The kinds of carriers that it can dial.
    pub carriers: Carriers,
    /// Certificates (PEM) to trust below a carrier with TLS, rather than the web's authorities.
    pub ca_pem: Option<Vec<u8>>,
    /// The schemes that are dialled, of those that `carriers` can dial; `None` = all of them.
    pub schemes: Option<Vec<String>>,
    /// Simulated one-way distance, for benchmarks.
    pub delay: Option<Duration>,
    /// Opens the connections below the carriers over HTTP; `None` = the operating system.
    pub connect: Option<Arc<dyn Connect>>,
    /// Connects to hashmail mailboxes; `None` = gRPC. For simulations.
    #[cfg(feature = "hashmail")]
    pub hashmail: Option<Arc<dyn super::hashmail::ConnectMailbox>>,
}

impl DialOptions {
    /// Opens a TCP connection.
    pub(crate) async fn tcp(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        match &self.connect {
            Some(connect) => connect.connect(host, port).await,
            None => System.connect(host, port).await,
        }
    }
}

impl fmt::Debug for DialOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialOptions")
            .field("carriers", &self.carriers)
            .field("schemes", &self.schemes)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Dial for DialOptions {
    async fn dial(&self, address: &str, meeting: &Rendezvous) -> Result<Carrier, LinkError> {
        let unknown = |_| LinkError::UnknownCarrier(address.into());
        let parsed: Address = address.parse().map_err(unknown)?;
        let is_chosen = |schemes: &Vec<String>| schemes.iter().any(|it| it == parsed.scheme());
        if !self.schemes.as_ref().is_none_or(is_chosen) {
            return Err(LinkError::Unreachable {
                address: address.into(),
                reason: "another kind of carrier was chosen".into(),
            });
        }
        let dialled = self.carriers.dial(&parsed, self, meeting);
        let patience = self.carriers.patience(&parsed);
        let Ok(dialled) = tokio::time::timeout(patience, dialled).await else {
            return Err(LinkError::Unreachable {
                address: address.into(),
                reason: "it does not answer".into(),
            });
        };
        let carrier = dialled?;
        Ok(match self.delay {
            Some(delay) => carrier.delayed(delay),
            None => carrier,
        })
    }

    fn head_start(&self, address: &str) -> Duration {
        let address = address.parse();
        address.map_or(HEAD_START, |address| self.carriers.head_start(&address))
    }
}

/// Opens connections to hosts, at addresses of the schemes that it is registered for.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// One attempt; the caller limits its time to [`Dialer::patience`]. Parameters that this version does not know are ignored: the
    /// host may be newer. `meeting` is what the host knows of this phone, for carriers by which the two meet at a third place.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`]; [`LinkError::UnknownCarrier`] when the address cannot be read; [`LinkError::Tls`] when the
    /// options cannot be used.
    async fn dial(
        &self,
        address: &Address,
        options: &DialOptions,
        meeting: &Rendezvous,
    ) -> Result<Carrier, LinkError>;

    /// The time that one attempt may take.
    fn patience(&self) -> Duration {
        DIAL_TIMEOUT
    }

    /// The time that the ways before this one have for themselves, before it is tried beside them.
    fn head_start(&self) -> Duration {
        HEAD_START
    }
}

/// Opens a host's listeners, at addresses of the schemes that it is registered for.
#[async_trait]
pub trait Listen: Send + Sync + 'static {
    /// Begins to take in connections at `address`: a port of this machine, or a mailbox elsewhere to which the listener keeps a
    /// connection. A parameter that is not known is an error: it may be one that protects the host.
    ///
    /// # Errors
    /// [`LinkError::Listen`], [`LinkError::Address`], [`LinkError::Unreadable`] or [`LinkError::Tls`].
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError>;
}

/// Takes in connections of phones at a host. Dropping it stops that; links that are live go on.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The addresses for pairing codes at which phones reach this listener, best first. They have what the system chose, such as
    /// a port, and nothing that only the host may know.
    fn addresses(&self) -> Vec<Address>;

    /// The next connection, not authenticated yet: give it to [`crate::accept`], in a task of its own. `None` when the listener
    /// has ended for good. May be cancelled without losing a connection.
    async fn accept(&mut self) -> Option<Carrier>;

    /// The certificate by which phones recognise this listener below a carrier with TLS; `None` without one.
    #[cfg(feature = "http")]
    fn certificate(&self) -> Option<super::tls::Certificate> {
        None
    }
}

/// Kinds of carriers by scheme. The default has those of this crate.
#[derive(Clone)]
pub struct Carriers {
    kinds: Vec<Kind>,
}

#[derive(Clone)]
struct Kind {
    schemes: Vec<String>,
    dialer: Arc<dyn Dialer>,
    listen: Arc<dyn Listen>,
}

impl Default for Carriers {
    fn default() -> Carriers {
        let carriers = Carriers::none();
        #[cfg(feature = "grpc")]
        let carriers = carriers.with(&["grpc", "grpcs"], super::grpc::Grpc);
        #[cfg(feature = "websocket")]
        let carriers = carriers.with(&["ws", "wss"], super::websocket::WebSocket);
        #[cfg(feature = "mailbox")]
        let carriers = carriers.with(
            &["mailbox+ws", "mailbox+wss", "mailbox+grpc", "mailbox+grpcs"],
            super::mailbox::Mailbox,
        );
        #[cfg(feature = "hashmail")]
        let carriers = carriers.with(
            &["hashmail+grpc", "hashmail+grpcs", "lnc+grpc", "lnc+grpcs"],
            super::hashmail::Hashmail,
        );
        carriers
    }
}

impl Carriers {
    /// A registry without carriers.
    pub fn none() -> Carriers {
        Carriers { kinds: Vec::new() }
    }

    /// Registers a kind of carrier for these schemes, written in lower case. It takes precedence over those registered before.
    pub fn with(mut self, schemes: &[&str], kind: impl Dialer + Listen) -> Carriers {
        let kind = Arc::new(kind);
        let kind = Kind {
            schemes: schemes.iter().map(|scheme| (*scheme).to_owned()).collect(),
            dialer: kind.clone(),
            listen: kind,
        };
        self.kinds.insert(0, kind);
        self
    }

    /// Dials `address` once. See [`crate::connect`] for a host with several, and for the time that an attempt may take.
    ///
    /// # Errors
    /// As [`Dialer::dial`], and [`LinkError::UnknownCarrier`] when no kind has the scheme.
    pub async fn dial(
        &self,
        address: &Address,
        options: &DialOptions,
        meeting: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        self.kind(address)?
            .dialer
            .dial(address, options, meeting)
            .await
    }

    /// The time that one attempt at `address` may take.
    pub(crate) fn patience(&self, address: &Address) -> Duration {
        let kind = self.kind(address);
        kind.map_or(DIAL_TIMEOUT, |kind| kind.dialer.patience())
    }

    /// The time that other ways have for themselves before `address` is tried beside them.
    pub(crate) fn head_start(&self, address: &Address) -> Duration {
        let kind = self.kind(address);
        kind.map_or(HEAD_START, |kind| kind.dialer.head_start())
    }

    /// Listens at `address`.
    ///
    /// # Errors
    /// As [`Listen::listen`], and [`LinkError::UnknownCarrier`] when no kind has the scheme.
    pub async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        self.kind(address)?.listen.listen(address).await
    }

    fn kind(&self, address: &Address) -> Result<&Kind, LinkError> {
        let is_of = |kind: &&Kind| kind.schemes.iter().any(|known| known == address.scheme());
        let kind = self.kinds.iter().find(is_of);
        kind.ok_or_else(|| LinkError::UnknownCarrier(address.to_string()))
    }
}

impl fmt::Debug for Carriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schemes = self.kinds.iter().flat_map(|kind| &kind.schemes);
        f.debug_set().entries(schemes).finish()
    }
}
