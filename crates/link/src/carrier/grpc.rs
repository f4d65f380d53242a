//! The gRPC carrier: `Carrier.Attach`, a bidirectional stream of records, over HTTP/2 with or without TLS.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Carrier;
use crate::LinkError;

/// Certificate chain and key of a host, in PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// The certificate, followed by those that lead to its root.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: zeroize::Zeroizing<Vec<u8>>,
}

/// Takes in connections of phones. Dropping it stops listening and ends its connections.
pub struct GrpcListener {
    address: SocketAddr,
    carriers: mpsc::Receiver<Carrier>,
}

impl GrpcListener {
    /// Listens on `address`, such as `127.0.0.1:0`.
    ///
    /// # Errors
    /// [`LinkError::Listen`] when the port is taken, [`LinkError::Tls`] when the PEM cannot be used.
    pub async fn bind(address: &str, tls: Option<ServerTls>) -> Result<GrpcListener, LinkError> {
        let failed = |e: std::io::Error| LinkError::Listen {
            address: address.into(),
            reason: e.to_string(),
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        GrpcListener::serve(listener, tls)
    }

    /// Serves on a bound listener.
    ///
    /// # Errors
    /// As [`GrpcListener::bind`].
    pub fn serve(listener: TcpListener, tls: Option<ServerTls>) -> Result<GrpcListener, LinkError> {
        let _ = (listener, tls);
        Err(LinkError::Tls("not yet".into()))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, not authenticated yet: give it to [`crate::accept`]. `None` when the server ended.
    pub async fn accept(&mut self) -> Option<Carrier> {
        self.carriers.recv().await
    }
}

/// Dials `grpc://host:port` or `grpcs://host:port`.
///
/// # Errors
/// [`LinkError::Unreachable`], or [`LinkError::Tls`] when `ca_pem` cannot be used.
pub async fn dial(address: &str, ca_pem: Option<&[u8]>) -> Result<Carrier, LinkError> {
    let _ = ca_pem;
    Err(LinkError::UnknownCarrier(address.into()))
}
