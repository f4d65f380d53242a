//! A node's way to its peers.

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to a peer, over anything that carries bytes.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> PeerStream for T {}

/// Reaches peers for nodes.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Opens a byte stream to `node_id`. `address` is `host:port`; empty when the dialer should know (the hub).
    async fn dial(&self, node_id: PublicKey, address: &str)
    -> std::io::Result<Box<dyn PeerStream>>;
}

/// Reaches peers by TCP at the given address.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

#[async_trait]
impl Dialer for TcpDialer {
    async fn dial(&self, _: PublicKey, address: &str) -> std::io::Result<Box<dyn PeerStream>> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
