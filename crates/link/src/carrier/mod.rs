//! Carriers move the records of links: opaque, at most 64 KiB each, both ways, whole and in order. A carrier is trusted with
//! nothing else.
//!
//! A kind of carrier is a [`Dialer`] for phones and a [`Listen`] for hosts, registered in [`Carriers`] for the schemes of its
//! addresses. To add one, write a file here and name it in [`Carriers::default`]; programs register their own with
//! [`Carriers::with`].

use async_trait::async_trait;
use tokio::sync::mpsc;

pub mod admission;
#[cfg(not(target_family = "wasm"))]
mod delayed;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "http")]
pub mod guest;
#[cfg(feature = "hashmail")]
pub mod hashmail;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "mailbox")]
pub mod mailbox;
#[cfg(feature = "http")]
pub mod proxies;
#[cfg(feature = "http")]
mod reason;
#[cfg(not(target_family = "wasm"))]
mod registry;
#[cfg(not(target_family = "wasm"))]
pub mod stream;
#[cfg(not(target_family = "wasm"))]
mod tcp;
#[cfg(feature = "http")]
pub mod tls;
#[cfg(feature = "tor")]
pub mod tor;
#[cfg(feature = "websocket")]
pub mod websocket;

use admission::{Place, SourceNetwork};
#[cfg(not(target_family = "wasm"))]
pub use registry::{Carriers, DialOptions, Dialer, Listen, Listener};
#[cfg(not(target_family = "wasm"))]
pub use tcp::{Connect, System};

/// The largest record: a Noise message, or a handshake record with its head.
pub const MAX_RECORD: usize = 65_535;

/// The largest message that a carrier moves: a record, or a record in a message to a mailbox.
pub const MAX_MESSAGE: usize = MAX_RECORD + 512;

/// A carrier failed, with the reason for a person. The link treats it as a lost connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CarrierError(pub String);

/// The half of a carrier that sends.
#[async_trait]
pub trait RecordSink: Send + 'static {
    /// Hands one record to the carrier; returns when the next can be handed over. After an error every call fails.
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError>;

    /// Returns when the transport below has taken all that was sent, so that nothing waits in a queue of the carrier. A carrier
    /// without a queue has done so when [`RecordSink::send`] returns.
    async fn flush(&mut self) -> Result<(), CarrierError> {
        Ok(())
    }
}

/// The half of a carrier that receives.
#[async_trait]
pub trait RecordStream: Send + 'static {
    /// The next record; `None` when the other side closed the connection. May be cancelled without losing a record.
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError>;
}

/// One connection, of any kind.
pub struct Carrier {
    /// Towards the other side. Dropping it closes the connection after all that was sent.
    pub sink: Box<dyn RecordSink>,
    /// From the other side.
    pub stream: Box<dyn RecordStream>,
    /// The place of a connection that has not shown yet whose phone it is.
    pub(crate) place: Option<Place<SourceNetwork>>,
    /// Where the connection comes from; `None` inside this process, and for connections that this side has dialled.
    pub source: Option<SourceNetwork>,
}

impl Carrier {
    /// A carrier of two halves.
    pub fn new(sink: impl RecordSink, stream: impl RecordStream) -> Carrier {
        Carrier {
            sink: Box::new(sink),
            stream: Box::new(stream),
            place: None,
            source: None,
        }
    }

    /// The same carrier with its place at the listener, which is free again once the phone is known.
    pub fn with_place(self, place: Option<Place<SourceNetwork>>) -> Carrier {
        let source = place.as_ref().and_then(Place::key);
        Carrier {
            place,
            source: source.or(self.source),
            ..self
        }
    }

    /// Takes the connection's place at the listener, which is free again once it is dropped: when the other side has shown who it
    /// is.
    pub fn take_place(&mut self) -> Option<Place<SourceNetwork>> {
        self.place.take()
    }

    /// The two ends of a connection inside this process.
    pub fn pair() -> (Carrier, Carrier) {
        let (to_b, from_a) = mpsc::channel(64);
        let (to_a, from_b) = mpsc::channel(64);
        (Carrier::new(to_b, from_b), Carrier::new(to_a, from_a))
    }
}

#[async_trait]
impl RecordSink for mpsc::Sender<Vec<u8>> {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        let sent = mpsc::Sender::send(self, record).await;
        sent.map_err(|_| CarrierError("the other end is gone".into()))
    }
}

#[async_trait]
impl RecordStream for mpsc::Receiver<Vec<u8>> {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        Ok(mpsc::Receiver::recv(self).await)
    }
}
