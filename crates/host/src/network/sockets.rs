//! TCP to peers, HTTP to phones' push services.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_base::wake::{HttpWake, WakeHook};
use longhand_link::carrier::admission::{Admission, Place, Places};
use longhand_node::PeerStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::names::{Names, NamesWithin};
use super::{DialFrom, Network, PeerDial, Reach, WakeCall, WakeError, WakeFrom, WakeUrl};
use longhand_base::system::descriptors;

use crate::HostError;

/// Connections of one owner that are dialled or open, through [`Sockets`].
const OWNER_SOCKETS: usize = 32;
/// Of all owners: this part of the file descriptors, so that the others are left for phones, and no more than these.
const OWNERS_PART: usize = 4;
const OWNERS_SOCKETS: usize = 8_192;

/// TCP to peers, and wake calls as HTTP POSTs with [`WakeCall`] as JSON.
///
/// For owners it dials within its [`Reach`] only, peers as well as the wake URLs that their phones gave, and an owner has no more
/// than 32 connections to peers at a time.
pub struct Sockets {
    /// For wake URLs of the operator.
    operators: HttpWake,
    /// For wake URLs of phones.
    phones: HttpWake,
    peers: Names,
    reach: Reach,
    owners: Admission<PublicKey>,
}

impl Sockets {
    /// Opens nothing yet. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`HostError::Tls`] when the TLS library cannot be set up.
    pub fn new(reach: Reach) -> std::result::Result<Sockets, HostError> {
        Sockets::with(reach, Names::of_system)
    }

    fn with(reach: Reach, names: impl Fn() -> Names) -> std::result::Result<Sockets, HostError> {
        // A resolver for each purpose: the names that owners give do not delay a wake call to the operator's push service.
        let client = || reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let operators = client().dns_resolver(Arc::new(names()));
        let phones = NamesWithin {
            names: names(),
            reach: reach.clone(),
        };
        // A proxy would resolve the names itself, and connections that stay open would be as many as the hosts that owners name.
        let phones = client()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(phones));
        let tls = |error: reqwest::Error| HostError::Tls(error.to_string());
        Ok(Sockets {
            operators: HttpWake::with(operators.build().map_err(tls)?),
            phones: HttpWake::with(phones.build().map_err(tls)?),
            peers: names(),
            reach,
            owners: Admission::new(Places {
                all: (descriptors() / OWNERS_PART).min(OWNERS_SOCKETS),
                each: OWNER_SOCKETS,
            }),
        })
    }

    /// Connects to the first address that answers.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream> {
        let mut failure = Error::from(ErrorKind::HostUnreachable);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Connects for an owner. A name without an address, and one whose addresses are out of reach, get the same answer: what
    /// only this machine can resolve is not for strangers either.
    async fn connect_for_owner(&self, owner: PublicKey, address: &str) -> Result<OwnerSocket> {
        let place = self.owners.enter(owner).ok_or_else(|| {
            let reason = "too many connections of this node are open: wait until some are closed";
            Error::new(ErrorKind::QuotaExceeded, reason)
        })?;
        let mut addresses = match self.peers.resolve(address).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            resolved => resolved?,
        };
        addresses.retain(|address| self.reach.allows(address.ip()));
        if addresses.is_empty() {
            let reason = format!(
                "{address} has no address, or no public address, and this host dials no other for owners"
            );
            return Err(Error::new(ErrorKind::PermissionDenied, reason));
        }
        let stream = self.connect(&addresses).await?;
        Ok(OwnerSocket {
            stream,
            _place: place,
        })
    }
}

#[async_trait]
impl Network for Sockets {
    async fn dial(&self, peer: PeerDial<'_>) -> Result<Box<dyn PeerStream>> {
        if peer.address.is_empty() {
            let unknown = "no address is known: give host:port";
            return Err(Error::new(ErrorKind::InvalidInput, unknown));
        }
        match peer.from {
            DialFrom::Hub => {
                let addresses = self.peers.resolve(peer.address).await?;
                Ok(Box::new(self.connect(&addresses).await?))
            }
            DialFrom::Owner(owner) => {
                Ok(Box::new(self.connect_for_owner(owner, peer.address).await?))
            }
        }
    }

    async fn wake(&self, url: &WakeUrl, call: &WakeCall) -> std::result::Result<(), WakeError> {
        let hook = match url.from {
            WakeFrom::Operator => &self.operators,
            WakeFrom::Phone => {
                check_literal(&self.reach, &url.url)?;
                &self.phones
            }
        };
        let body = serde_json::to_vec(call).map_err(|e| WakeError(e.to_string()))?;
        hook.call(&url.url, body).await
    }
}

/// Refuses a URL whose host is an IP address out of reach: the HTTP client connects to it without its resolver.
fn check_literal(reach: &Reach, url: &str) -> std::result::Result<(), WakeError> {
    let url = reqwest::Url::parse(url).map_err(|e| WakeError(e.to_string()))?;
    // An IPv6 address stands in brackets. Other forms of an IPv4 address, such as 0x7f.1, are gone after parsing.
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(address) if !reach.allows(address) => {
            let reason = "its host is no public address, and this host calls no other for a phone";
            Err(WakeError(reason.into()))
        }
        _ => Ok(()),
    }
}

/// A connection of an owner's node. Its place is free again once it is closed.
struct OwnerSocket {
    stream: TcpStream,
    _place: Place<PublicKey>,
}

impl AsyncRead for OwnerSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for OwnerSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use axum::{Json, Router};
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::network::WakeReason;

    /// Without name servers.
    fn sockets_within(reach: Reach) -> std::result::Result<Sockets, HostError> {
        Sockets::with(reach, Names::none)
    }

    fn call() -> WakeCall {
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        WakeCall {
            owner: "ann".into(),
            node_id: secret.public_key(&Secp256k1::new()),
            reason: WakeReason::Payment,
            deadline_height: 100,
        }
    }

    /// A push service that answers with `status`, and the bodies of its calls.
    async fn push_service(status: StatusCode) -> (String, mpsc::UnboundedReceiver<Value>) {
        type Service = (mpsc::UnboundedSender<Value>, StatusCode);
        async fn push(
            State((calls, status)): State<Service>,
            Json(body): Json<Value>,
        ) -> StatusCode {
            calls.send(body).unwrap();
            status
        }
        let (calls, called) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/wake", post(push))
            .with_state((calls, status));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/wake?token=t", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, called)
    }

    fn url(from: WakeFrom, url: &str) -> WakeUrl {
        WakeUrl {
            from,
            url: url.into(),
        }
    }

    #[tokio::test]
    async fn a_wake_call_is_posted_as_json() {
        let (push, mut called) = push_service(StatusCode::NO_CONTENT).await;
        let sockets = sockets_within(Reach::Everywhere).unwrap();
        let expected = json!({
            "owner": "ann",
            "node_id": call().node_id.to_string(),
            "reason": "payment",
            "deadline_height": 100,
        });
        for from in [WakeFrom::Operator, WakeFrom::Phone] {
            assert_eq!(sockets.wake(&url(from, &push), &call()).await, Ok(()));
            assert_eq!(called.recv().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_failed_wake_call_says_why_and_not_where() {
        let (refusing, _called) = push_service(StatusCode::SERVICE_UNAVAILABLE).await;
        let sockets = sockets_within(Reach::Everywhere).unwrap();
        let wake = async |to: &str| {
            let called = sockets.wake(&url(WakeFrom::Operator, to), &call()).await;
            called.unwrap_err().to_string()
        };
        let refused = wake(&refusing).await;
        assert_eq!(refused, "HTTP status 503 Service Unavailable");
        let failed = wake("http://127.0.0.1:1/wake?token=t").await;
        assert!(!failed.contains("token"), "{failed}");
    }

    #[tokio::test]
    async fn a_phones_wake_url_does_not_reach_this_machine_and_the_operators_does() {
        let (push, mut called) = push_service(StatusCode::NO_CONTENT).await;
        let sockets = sockets_within(Reach::Public(Vec::new())).unwrap();
        for host in [
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "localhost",
            "nowhere.invalid",
        ] {
            let to = push.replace("127.0.0.1", host);
            let refused = sockets.wake(&url(WakeFrom::Phone, &to), &call()).await;
            assert!(refused.is_err(), "{host}");
        }
        assert!(called.try_recv().is_err(), "a phone's URL was called");
        let operators = url(WakeFrom::Operator, &push);
        assert_eq!(sockets.wake(&operators, &call()).await, Ok(()));
        let allowed = Reach::Public(vec!["127.0.0.0/8".parse().unwrap()]);
        let sockets = sockets_within(allowed).unwrap();
        let phones = url(WakeFrom::Phone, &push);
        assert_eq!(sockets.wake(&phones, &call()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_redirect_of_a_push_service_is_not_followed() {
        let (push, mut called) = push_service(StatusCode::NO_CONTENT).await;
        let away = axum::response::Redirect::temporary(&push);
        let router = Router::new().route("/", post(async move || away));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redirecting = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let sockets = sockets_within(Reach::Everywhere).unwrap();
        let refused = sockets
            .wake(&url(WakeFrom::Phone, &redirecting), &call())
            .await;
        assert!(refused.unwrap_err().to_string().contains("307"));
        assert!(called.try_recv().is_err());
    }

    fn dial(from: DialFrom, address: &str) -> PeerDial<'_> {
        PeerDial {
            from,
            node_id: call().node_id,
            address,
        }
    }

    #[tokio::test]
    async fn a_peer_without_an_address_is_not_dialled() {
        let sockets = sockets_within(Reach::Everywhere).unwrap();
        let dialled = sockets.dial(dial(DialFrom::Hub, "")).await;
        assert_eq!(dialled.err().unwrap().kind(), ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn an_owner_does_not_reach_this_machine_and_its_operator_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = sockets_within(Reach::Public(Vec::new())).unwrap();
        let owner = DialFrom::Owner(call().node_id);
        for host in [
            "127.0.0.1",
            "[::ffff:127.0.0.1]",
            "localhost",
            "nowhere.invalid",
        ] {
            let address = format!("{host}:{port}");
            let refused = sockets.dial(dial(owner, &address)).await.err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{address}");
            assert!(
                refused.to_string().contains("no public address"),
                "{refused}"
            );
        }
        let address = format!("127.0.0.1:{port}");
        sockets.dial(dial(DialFrom::Hub, &address)).await.unwrap();
        let allowed = Reach::Public(vec!["127.0.0.0/8".parse().unwrap()]);
        let sockets = sockets_within(allowed).unwrap();
        sockets.dial(dial(owner, &address)).await.unwrap();
    }

    #[tokio::test]
    async fn one_owner_takes_no_more_than_its_own_connections() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sockets = sockets_within(Reach::Everywhere).unwrap();
        let secret = |n| SecretKey::from_slice(&[n; 32]).unwrap();
        let owner = |n| DialFrom::Owner(secret(n).public_key(&Secp256k1::new()));
        let mut open = Vec::new();
        for _ in 0..OWNER_SOCKETS {
            open.push(sockets.dial(dial(owner(1), &address)).await.unwrap());
        }
        let refused = sockets.dial(dial(owner(1), &address)).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
        sockets.dial(dial(owner(2), &address)).await.unwrap();
        open.pop();
        sockets.dial(dial(owner(1), &address)).await.unwrap();
    }
}
