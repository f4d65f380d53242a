//! TCP to peers, HTTP to phones' push services.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_base::wake::{HttpWake, WakeHook};
use longhand_link::carrier::admission::{Admission, Place, Places};
use longhand_node::PeerStream;
use reqwest::redirect::Policy;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::names::{Names, NamesWithin};
use super::{DialFrom, Network, PeerDial, Reach, WakeCall, WakeError, WakeFrom, WakeUrl};
use longhand_base::system::descriptors;
use longhand_link::Connect;

use crate::HostError;
use crate::config::HostConfig;
use crate::tor::Tor;

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
    tor: Option<Arc<Tor>>,
}

impl Sockets {
    /// Opens nothing yet. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`HostError::Tls`] when the TLS library cannot be set up.
    pub fn new(reach: Reach) -> std::result::Result<Sockets, HostError> {
        Sockets::with(reach, Names::of_system, None)
    }

    /// Through Tor where it is configured so.
    pub(crate) fn through(
        config: &HostConfig,
        tor: Option<Arc<Tor>>,
    ) -> std::result::Result<Sockets, HostError> {
        Sockets::with(Reach::of(config), Names::of_system, tor)
    }

    fn with(
        reach: Reach,
        names: impl Fn() -> Names,
        tor: Option<Arc<Tor>>,
    ) -> std::result::Result<Sockets, HostError> {
        // A resolver for each purpose: the names that owners give do not delay a wake call to the operator's push service.
        let client = || reqwest::Client::builder().redirect(Policy::none());
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
            tor,
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

    /// A connection through Tor; `None` when the address is dialled directly. An exit reaches public addresses alone, and an onion
    /// service is none of this machine's network: owners need no further check. Connections of different owners, and of the hub, have
    /// circuits of their own.
    async fn through_tor(&self, address: &str, isolation: &str) -> Option<Result<TcpStream>> {
        let (host, port) = address.rsplit_once(':')?;
        let tor = self.tor.as_ref().filter(|tor| tor.carries(host))?;
        let invalid = || Error::new(ErrorKind::InvalidInput, "it is not host:port");
        let Ok(port) = port.parse() else {
            return Some(Err(invalid()));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(tor.connector(isolation).connect(host, port).await)
    }

    /// A client for one wake call through Tor; `None` when its host is called directly. Each owner's calls have circuits of their own,
    /// also to the same push service.
    fn wake_through_tor(
        &self,
        url: &str,
        call: &WakeCall,
    ) -> std::result::Result<Option<HttpWake>, WakeError> {
        let failed = |error: &dyn std::fmt::Display| WakeError(error.to_string());
        let url = reqwest::Url::parse(url).map_err(|e| failed(&e))?;
        let host = url.host_str().unwrap_or_default();
        let Some(tor) = self.tor.as_ref().filter(|tor| tor.carries(host)) else {
            return Ok(None);
        };
        let proxy = reqwest::Proxy::all(tor.proxy_url(&call.node_id.to_string()));
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .proxy(proxy.map_err(|e| failed(&e.without_url()))?)
            .build();
        let client = client.map_err(|e| failed(&e.without_url()))?;
        Ok(Some(HttpWake::with(client)))
    }

    /// Connects for an owner. A name without an address, and one whose addresses are out of reach, get the same answer: what
    /// only this machine can resolve is not for strangers either.
    async fn connect_for_owner(&self, owner: PublicKey, address: &str) -> Result<OwnerSocket> {
        let place = self.owners.enter(owner).ok_or_else(|| {
            let reason = "too many connections of this node are open: wait until some are closed";
            Error::new(ErrorKind::QuotaExceeded, reason)
        })?;
        if let Some(stream) = self.through_tor(address, &owner.to_string()).await {
            return Ok(OwnerSocket {
                stream: stream?,
                _place: place,
            });
        }
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
    fn limit(&self, peer: PeerDial<'_>) -> Option<Duration> {
        let host = peer.address.rsplit_once(':').map(|(host, _)| host)?;
        let tor = self.tor.as_ref()?;
        tor.carries(host).then(|| tor.limit())
    }

    async fn dial(&self, peer: PeerDial<'_>) -> Result<Box<dyn PeerStream>> {
        if peer.address.is_empty() {
            let unknown = "no address is known: give host:port";
            return Err(Error::new(ErrorKind::InvalidInput, unknown));
        }
        match peer.from {
            DialFrom::Hub => {
                if let Some(stream) = self.through_tor(peer.address, "hub").await {
                    return Ok(Box::new(stream?));
                }
                let addresses = self.peers.resolve(peer.address).await?;
                Ok(Box::new(self.connect(&addresses).await?))
            }
            DialFrom::Owner(owner) => {
                Ok(Box::new(self.connect_for_owner(owner, peer.address).await?))
            }
        }
    }

    async fn wake(&self, url: &WakeUrl, call: &WakeCall) -> std::result::Result<(), WakeError> {
        let through_tor = self.wake_through_tor(&url.url, call)?;
        let hook = match (&through_tor, url.from) {
            (Some(hook), _) => hook,
            (None, WakeFrom::Operator) => &self.operators,
            (None, WakeFrom::Phone) => {
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
    use crate::tor::testing::{FakeProcess, World as TorWorld, asked};
    use tokio::net::TcpListener;

    /// Without name servers.
    fn sockets_within(reach: Reach) -> std::result::Result<Sockets, HostError> {
        Sockets::with(reach, Names::none, None)
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

    const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    /// Sockets with a Tor process of the test's own, and where its SOCKS is.
    async fn sockets_through_tor(
        all_outgoing: bool,
    ) -> (Sockets, TcpListener, FakeProcess, TorWorld) {
        let mut world = TorWorld::new(|config| config.tor.all_outgoing = all_outgoing).await;
        let mut process = world.process().await;
        let socks = process.listen().await;
        world.ready().await;
        let tor = Some(world.tor.clone());
        let sockets = Sockets::with(Reach::Public(Vec::new()), Names::none, tor).unwrap();
        (sockets, socks, process, world)
    }

    #[tokio::test]
    async fn onion_services_are_dialled_through_tor_by_each_node_with_circuits_of_its_own() {
        let (sockets, socks, _process, _world) = sockets_through_tor(false).await;
        let address = format!("{ONION}:9735");
        let owner = DialFrom::Owner(call().node_id);
        for (from, expected) in [
            (DialFrom::Hub, "hub".into()),
            (owner, call().node_id.to_string()),
        ] {
            assert_eq!(
                sockets.limit(dial(from, &address)),
                Some(sockets.tor.as_ref().unwrap().limit())
            );
            let (dialled, asked) =
                tokio::join!(sockets.dial(dial(from, &address)), asked(&socks, 0));
            dialled.unwrap();
            let (_, [isolation, _, host], port) = asked;
            assert_eq!((isolation, host.as_str(), port), (expected, ONION, 9735));
        }
        assert_eq!(sockets.limit(dial(owner, "peer.example:9735")), None);
    }

    #[tokio::test]
    async fn with_all_outgoing_through_tor_no_name_is_looked_up_here_and_private_addresses_are_refused_to_owners()
     {
        let (sockets, socks, _process, _world) = sockets_through_tor(true).await;
        let owner = DialFrom::Owner(call().node_id);
        let (dialled, asked) = tokio::join!(
            sockets.dial(dial(owner, "peer.example:9735")),
            asked(&socks, 0)
        );
        dialled.unwrap();
        assert_eq!(asked.1[2], "peer.example");
        for private in ["127.0.0.1:9735", "10.1.2.3:9735", "localhost:9735"] {
            let refused = sockets.dial(dial(owner, private)).await.err().unwrap();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{private}");
        }
    }

    #[tokio::test]
    async fn a_wake_call_goes_through_tor_with_circuits_of_its_owner() {
        let (sockets, socks, _process, _world) = sockets_through_tor(true).await;
        for from in [WakeFrom::Phone, WakeFrom::Operator] {
            let (to, call) = (url(from, "http://push.example/wake"), call());
            let (refused, asked) = tokio::join!(sockets.wake(&to, &call), asked(&socks, 4));
            let refused = refused.unwrap_err().to_string();
            assert!(!refused.contains("push.example"), "{refused}");
            let [isolation, _, host] = asked.1;
            assert_eq!(
                (isolation, host.as_str()),
                (call.node_id.to_string(), "push.example")
            );
        }
    }

    #[tokio::test]
    async fn without_a_tor_process_nothing_goes_past_tor() {
        let (sockets, socks, process, _world) = sockets_through_tor(true).await;
        drop((socks, process));
        let dialled = sockets.dial(dial(DialFrom::Hub, "peer.example:9735")).await;
        assert!(dialled.err().unwrap().to_string().contains("over Tor"));
    }
}
