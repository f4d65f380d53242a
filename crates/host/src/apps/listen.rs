//! The listener for tools on the operator's network: the same calls, by gRPC and REST, without Lightning Node Connect.

use std::sync::Arc;
use std::time::Duration;

use longhand_link::Address;
use longhand_link::carrier::tls::ServerTls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{AppDoor, Apps};
use crate::HostError;
use crate::config::ConfigError;

/// Connections at once.
const MOST_CONNECTIONS: usize = 256;
/// For a client's TLS handshake.
const TLS_WITHIN: Duration = Duration::from_secs(10);
/// The protocols above TLS (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A port that is bound, and not served yet.
pub(crate) struct AppListener {
    listener: TcpListener,
    tls: Option<ServerTls>,
}

impl AppListener {
    /// Binds `grpc://ip:port`, or `grpcs://ip:port?certificate=PATH&key=PATH`. Without TLS macaroons can be read on the way: only on
    /// loopback.
    pub async fn bind(address: &Address) -> Result<AppListener, HostError> {
        let invalid = |reason: String| ConfigError::Invalid(format!("apps.listen: {reason}"));
        let files = (address.parameter("certificate"), address.parameter("key"));
        let tls = match (address.scheme(), files) {
            ("grpc", (None, None)) => None,
            ("grpcs", (Some(certificate), Some(key))) => {
                let tls = ServerTls::open(certificate, key, &ALPN).await;
                Some(tls.map_err(|error| invalid(error.to_string()))?)
            }
            _ => {
                let reason = "write it as grpc://127.0.0.1:port, or as grpcs://ip:port?certificate=PATH&key=PATH";
                return Err(invalid(reason.into()).into());
            }
        };
        let failed = |error: std::io::Error| HostError::Listen {
            key: "apps.listen",
            address: address.to_string(),
            reason: error.to_string(),
        };
        let listener = TcpListener::bind(address.authority())
            .await
            .map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        if tls.is_none() && !bound.ip().is_loopback() {
            let reason = "without TLS an app's macaroon can be read on the way: listen on loopback, or give grpcs:// a certificate and a key";
            return Err(invalid(reason.into()).into());
        }
        Ok(AppListener { listener, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until the host ends.
    pub async fn serve(self, apps: Arc<Apps>) {
        let routes = longhand_lnd::routes(Arc::new(AppDoor(apps.clone())));
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let tls = self.tls.map(Arc::new);
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors, say.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (tls, routes) = (tls.clone(), routes.clone());
            apps.tasks.spawn(async move {
                serve_one(stream, tls, routes).await;
                drop(place);
            });
        }
    }
}

async fn serve_one(stream: TcpStream, tls: Option<Arc<ServerTls>>, routes: axum::Router) {
    // Small replies must not wait for more.
    let _ = stream.set_nodelay(true);
    match tls {
        None => longhand_lnd::serve(stream, routes).await,
        Some(tls) => {
            let accepted = tokio::time::timeout(TLS_WITHIN, tls.accept(stream)).await;
            if let Ok(Some(stream)) = accepted {
                longhand_lnd::serve(stream, routes).await;
            }
        }
    }
}
