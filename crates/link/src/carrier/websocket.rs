//! The WebSocket carrier (RFC 6455): one binary message for each record, over HTTP/1.1 (`ws://host:port/path`) or over HTTP/1.1
//! with TLS (`wss://host:port/path`), for browsers and networks that let nothing else through.
//!
//! The dialer is here, and the upgrade of a request at [`super::http`]; the two halves of a connection are in `socket.rs`.

mod socket;

use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::uri::Uri;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, client::IntoClientRequest};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::guest::{Attached, Visit};
use super::reason::cause;
use super::{Carrier, DialOptions, Dialer, Listen, Listener, http, tls};
use crate::{Address, LinkError, Rendezvous};

/// The scheme with TLS.
const WITH_TLS: &str = "wss";
/// From the answer to an upgrade until the connection is one of WebSocket.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// The answer to a request that is none for a WebSocket.
const NO_UPGRADE: &str = "this is a Longhand server: connect to it by WebSocket, or by gRPC\n";

/// The kind of carrier, for [`super::Carriers`].
#[derive(Clone, Copy, Debug, Default)]
pub struct WebSocket;

#[async_trait]
impl Dialer for WebSocket {
    async fn dial(
        &self,
        address: &Address,
        options: &DialOptions,
        _: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        let target = Target::of(address)?;
        let unreachable = |reason| LinkError::Unreachable {
            address: address.to_string(),
            reason,
        };
        let connected = options.tcp(&target.host, target.port).await;
        let stream = connected.map_err(|e| unreachable(cause(&e)))?;
        if address.scheme() != WITH_TLS {
            return open(target.uri, stream).await.map_err(unreachable);
        }
        let name = ServerName::try_from(target.host);
        let name = name.map_err(|_| LinkError::UnknownCarrier(address.to_string()))?;
        let config = tls::client_config(options.ca_pem.as_deref())?;
        let connector = TlsConnector::from(std::sync::Arc::new(config));
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|e| unreachable(tls_cause(&e)))?;
        open(target.uri, stream).await.map_err(unreachable)
    }
}

#[async_trait]
impl Listen for WebSocket {
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        Ok(Box::new(http::HttpServer::bind(address).await?.serve()))
    }
}

/// For fuzz targets: a carrier after the handshake.
#[cfg(feature = "fuzzing")]
pub(crate) async fn over<S>(stream: S, took_it: bool) -> Carrier
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let role = if took_it { Role::Server } else { Role::Client };
    let config = Some(socket::config());
    socket::carrier(
        WebSocketStream::from_raw_socket(stream, role, config).await,
        None,
    )
}

/// For fuzz targets: the URI that an address is dialled as.
#[cfg(feature = "fuzzing")]
pub(crate) fn place(address: &Address) -> Result<String, LinkError> {
    Ok(Target::of(address)?.uri.to_string())
}

/// The place that an address names.
struct Target {
    host: String,
    port: u16,
    uri: Uri,
}

impl Target {
    fn of(address: &Address) -> Result<Target, LinkError> {
        let unknown = || LinkError::UnknownCarrier(address.to_string());
        let uri: Uri = address.websocket_url()?.parse().map_err(|_| unknown())?;
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(unknown)?;
        // An IPv6 address is in brackets (RFC 3986, 3.2.2).
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = if address.scheme() == WITH_TLS {
            443
        } else {
            80
        };
        Ok(Target {
            host,
            port: uri.port_u16().unwrap_or(port),
            uri,
        })
    }
}

/// The WebSocket handshake of a client. The reason is for a person when it fails.
async fn open<S>(uri: Uri, stream: S) -> Result<Carrier, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request = uri.into_client_request().map_err(|e| cause(&e))?;
    let opened = client_async_with_config(request, stream, Some(socket::config())).await;
    let (socket, _) = opened.map_err(|error| match error {
        Error::Http(answer) => format!("it answers with HTTP status {}", answer.status()),
        error => cause(&error),
    })?;
    Ok(socket::carrier(socket, None))
}

/// The error of TLS is inside the one of the socket, where it is no source of it.
fn tls_cause(error: &std::io::Error) -> String {
    match error.get_ref() {
        Some(inner) => cause(inner),
        None => cause(error),
    }
}

/// Answers a request at a listener: its connection becomes a carrier, which `attaching` gets.
pub(super) async fn upgrade(attaching: mpsc::Sender<Carrier>, mut request: Request) -> Response {
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else {
        return no_upgrade();
    };
    let Ok(response) = create_response_with_body(&request, Body::empty) else {
        return no_upgrade();
    };
    let attached = request.extensions().get().and_then(Visit::attach);
    let Some(guest) = attached else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "one use for each connection\n",
        )
            .into_response();
    };
    tokio::spawn(attach(attaching, upgraded, guest));
    response
}

async fn attach(attaching: mpsc::Sender<Carrier>, upgraded: OnUpgrade, mut guest: Attached) {
    let Ok(Ok(stream)) = tokio::time::timeout(UPGRADE_TIMEOUT, upgraded).await else {
        return;
    };
    let place = guest.place.take();
    let stream = TokioIo::new(stream);
    let config = Some(socket::config());
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, config).await;
    let carrier = socket::carrier(socket, Some(guest)).with_place(place);
    // Fails when the listener is dropped: then it takes no connections.
    let _ = attaching.send(carrier).await;
}

fn no_upgrade() -> Response {
    let headers = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
    ];
    (StatusCode::UPGRADE_REQUIRED, headers, NO_UPGRADE).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_names_host_port_path_and_route() {
        for (address, expected) in [
            (
                "ws://a.example:9750",
                ("a.example", 9750, "ws://a.example:9750/"),
            ),
            ("wss://a.example", ("a.example", 443, "wss://a.example/")),
            ("ws://a.example/", ("a.example", 80, "ws://a.example/")),
            (
                "wss://[::1]:1/deep/down?route=f&later=x",
                ("::1", 1, "wss://[::1]:1/deep/down?route=f"),
            ),
            ("ws://a?route=0", ("a", 80, "ws://a/?route=0")),
        ] {
            let target = Target::of(&address.parse().unwrap()).unwrap();
            let uri = target.uri.to_string();
            let found = (target.host.as_str(), target.port, uri.as_str());
            assert_eq!(found, expected);
        }
        for address in ["ws://:9750", "ws://a?route=1f", "ws://a?route=g"] {
            let target = Target::of(&address.parse().unwrap());
            let unknown = matches!(target, Err(LinkError::UnknownCarrier(_)));
            assert!(unknown, "{address}");
        }
    }
}
