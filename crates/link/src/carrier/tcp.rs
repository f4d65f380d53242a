//! TCP below the other carriers.

use std::io::{Error, ErrorKind, Result};

use async_trait::async_trait;
use longhand_base::text::is_onion;
use tokio::net::TcpStream;

/// Opens TCP connections in place of the operating system: through a proxy, say.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// Connects to `host:port`, a name or an IP address without brackets. The caller limits the time.
    ///
    /// # Errors
    /// Why there is no connection.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream>;
}

/// The operating system, and its names.
pub struct System;

#[async_trait]
impl Connect for System {
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream> {
        check(host)?;
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Refuses a host that the operating system must not look up: no name server is asked for an onion service (RFC 7686).
pub(crate) fn check(host: &str) -> Result<()> {
    match is_onion(host) {
        true => {
            let reason = "an onion service is dialled through Tor alone";
            Err(Error::new(ErrorKind::Unsupported, reason))
        }
        false => Ok(()),
    }
}

#[cfg(all(test, feature = "grpc", feature = "websocket"))]
mod tests {
    use crate::{DialOptions, PairingSecret, Rendezvous};

    #[tokio::test]
    async fn no_carrier_over_tcp_has_an_onion_service_looked_up() {
        let meeting = Rendezvous::of_pairing(&PairingSecret::from_bytes([1; 16]));
        let options = DialOptions::default();
        for address in [
            "grpc://a.onion:1",
            "grpcs://a.onion:1",
            "ws://a.onion.:1",
            "wss://a.ONION:1",
        ] {
            let dialled = crate::Dial::dial(&options, address, &meeting).await;
            let error = dialled.err().map(|error| error.to_string());
            let error = error.unwrap_or_default();
            assert!(error.contains("through Tor alone"), "{address}: {error}");
        }
    }
}
