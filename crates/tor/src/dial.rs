//! What opens streams to onion services.

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::onion::{DiscoverySecret, OnionAddress};
use crate::progress::Progress;

/// A stream of bytes to an onion service.
pub trait OnionStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> OnionStream for T {}

/// Opens streams to onion services: Tor in this process, or a stand-in for tests.
#[async_trait]
pub trait OnionDialer: Send + Sync + 'static {
    /// One attempt, which may never end: the caller limits its time. `discovery` is for a service that only its clients find; another one ignores it.
    ///
    /// # Errors
    /// [`DialError`].
    async fn connect(
        &self,
        service: &OnionAddress,
        port: u16,
        discovery: Option<&DiscoverySecret>,
    ) -> Result<Box<dyn OnionStream>, DialError>;

    /// How far the client is that the attempt goes through.
    fn progress(&self) -> Progress;
}

/// Why there is no stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The service has restricted discovery, and the secret is none of its clients'. Another attempt helps only after the service
    /// has got this client.
    #[error("the onion service does not know this client")]
    NotAClient,
    /// No attempt can succeed: this program has no Tor.
    #[error("{0}")]
    Never(String),
    /// Another attempt may succeed.
    #[error("{0}")]
    Failed(String),
}
