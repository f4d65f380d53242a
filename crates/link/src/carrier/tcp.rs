//! TCP below the other carriers.

use std::io::{Error, ErrorKind, Result};

use async_trait::async_trait;
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

fn is_onion(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host.ends_with(".onion")
}

/// The operating system, and its names.
pub(crate) struct System;

#[async_trait]
impl Connect for System {
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream> {
        // No name server is asked for it (RFC 7686).
        if is_onion(host) {
            let reason = "an onion service is dialled through Tor alone";
            return Err(Error::new(ErrorKind::Unsupported, reason));
        }
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
