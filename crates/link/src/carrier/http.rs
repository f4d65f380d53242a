//! The listener of carriers over HTTP: gRPC (HTTP/2) and WebSocket (HTTP/1.1) on one port, without TLS (`grpc://ip:port`,
//! `ws://ip:port`) or with it (`grpcs://ip:port?certificate=PATH&key=PATH`, `wss://…`; two files in PEM).
//!
//! Strangers reach it, so that all they can use is limited: places, time and bytes by [`super::guest`], and the requests of a
//! connection here. Behind reverse proxies, `proxies=10.0.0.0/8,127.0.0.1/32` names their networks: see [`super::proxies`].

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::admission::{Admission, Places};
use super::guest::{self, Guest, Visit};
use super::proxies::Proxies;
use super::tls::{Certificate, ServerTls};
use super::{Carrier, Listener};
use crate::{Address, LinkError};

/// HTTP/2 flow control, which strangers fill: one record, or the answers to some thousand operations.
const WINDOW: u32 = 1 << 16;
/// Headers of one request, in bytes. The buffer of HTTP/1.1 has the same size, the smallest that hyper allows.
const HEADERS: u32 = 8 << 10;
/// Headers of a request over HTTP/1.1, and the time for them.
const MAX_HEADERS: usize = 64;
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);
/// Carriers that wait for the user of the listener.
const WAITING: usize = 64;
/// The schemes without TLS. With an `s` they have it.
const SCHEMES: [&str; 2] = ["grpc", "ws"];
/// The protocols above TLS (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// For an address of which a proxy has too many connections open.
const NO_PLACE: &str = "too many connections of your address have not finished their handshakes";

/// What a connection of HTTP/2 may use, and when it is dead.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// Requests at once.
    pub streams: u32,
    /// Bytes that the other side may send in all requests together before they are read.
    pub window: u32,
    /// Bytes that it may send in one of them.
    pub stream_window: u32,
    /// Bytes that are read of a stranger: more than one request that is refused may have on its way.
    pub stranger_bytes: usize,
    /// Silence after which a ping is sent.
    pub ping_every: Duration,
    /// For its answer.
    pub ping_timeout: Duration,
}

impl Http2 {
    /// For carriers: each has a connection of its own.
    const CARRIER: Http2 = Http2 {
        streams: 1,
        window: WINDOW,
        stream_window: WINDOW,
        stranger_bytes: guest::STRANGER_BYTES,
        ping_every: Duration::from_secs(60),
        ping_timeout: Duration::from_secs(20),
    };
}

/// A port that is bound, and not served yet.
pub struct HttpServer {
    listener: TcpListener,
    addresses: Vec<Address>,
    tls: Option<ServerTls>,
    proxies: Proxies,
    routes: Router,
    http2: Http2,
}

impl HttpServer {
    /// Binds the port of an address of `grpc`, `grpcs`, `ws` or `wss`.
    ///
    /// # Errors
    /// [`LinkError::Listen`] when the port is taken; [`LinkError::Address`], [`LinkError::Unreadable`] or [`LinkError::Tls`] when
    /// a parameter cannot be used; [`LinkError::UnknownCarrier`].
    pub async fn bind(address: &Address) -> Result<HttpServer, LinkError> {
        let settings = Settings::of(address)?;
        let tls = match &settings.files {
            Some([certificate, key]) => Some(ServerTls::open(certificate, key, &ALPN).await?),
            None => None,
        };
        let place = address.authority();
        let failed = |e: std::io::Error| LinkError::Listen {
            address: place.into(),
            reason: match e.kind() {
                ErrorKind::AddrInUse => "it is in use".into(),
                _ => e.to_string(),
            },
        };
        let listener = TcpListener::bind(place).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok(HttpServer {
            listener,
            addresses: addresses(address.scheme(), bound),
            tls,
            proxies: settings.proxies,
            routes: Router::new(),
            http2: Http2::CARRIER,
        })
    }

    /// Serves these routes too. They take precedence over WebSockets, which are served at every other path, and have no fallback
    /// of their own. Their requests have a [`Visit`] as an extension: a service that goes on for longer than the time of a
    /// stranger calls [`Visit::attach`].
    pub fn with_routes(mut self, routes: Router) -> HttpServer {
        self.routes = self.routes.merge(routes);
        self
    }

    /// Begins to take in connections.
    pub fn serve(mut self) -> HttpListener {
        let (attached, carriers) = mpsc::channel(WAITING);
        self.routes = routes(self.routes, &attached);
        self.begin(attached, carriers)
    }

    /// Begins to serve these routes alone, and no carriers: the listener takes none in, and serves for as long as it is kept. The
    /// requests have a [`Visit`] too; those that go on for longer than the time of a stranger call [`Visit::share`].
    pub fn serve_only(mut self, routes: Router, http2: Http2) -> HttpListener {
        let (attached, carriers) = mpsc::channel(WAITING);
        self.routes = routes;
        self.http2 = http2;
        self.begin(attached, carriers)
    }

    fn begin(
        self,
        attached: mpsc::Sender<Carrier>,
        carriers: mpsc::Receiver<Carrier>,
    ) -> HttpListener {
        let (guests, arriving) = mpsc::channel(1);
        let certificate = self.tls.as_ref().map(ServerTls::certificate);
        let admission = Admission::new(Places::STRANGERS);
        let accepting =
            guest::accept_behind(self.proxies.clone(), self.listener, admission, guests);
        tokio::spawn(accepting);
        let served = Served {
            tls: self.tls,
            proxies: self.proxies,
            routes: self.routes,
            http2: self.http2,
        };
        tokio::spawn(served.all(arriving, attached));
        HttpListener {
            addresses: self.addresses,
            certificate,
            carriers,
        }
    }
}

/// Takes in connections over HTTP.
pub struct HttpListener {
    addresses: Vec<Address>,
    certificate: Option<Certificate>,
    carriers: mpsc::Receiver<Carrier>,
}

#[async_trait]
impl Listener for HttpListener {
    fn addresses(&self) -> Vec<Address> {
        self.addresses.clone()
    }

    async fn accept(&mut self) -> Option<Carrier> {
        self.carriers.recv().await
    }

    fn certificate(&self) -> Option<Certificate> {
        self.certificate.clone()
    }
}

/// The parameters of a listener's address.
struct Settings {
    /// Certificate and key.
    files: Option<[String; 2]>,
    proxies: Proxies,
}

impl Settings {
    fn of(address: &Address) -> Result<Settings, LinkError> {
        let refused = |reason: String| LinkError::Address {
            address: address.to_string(),
            reason,
        };
        let scheme = address.scheme();
        let has_tls = has_tls(scheme).ok_or(LinkError::UnknownCarrier(address.to_string()))?;
        let known: &[&str] = match has_tls {
            true => &["certificate", "key", "proxies"],
            false => &["proxies"],
        };
        if let Some((name, _)) = address.parameters().find(|(name, _)| !known.contains(name)) {
            let reason = match name {
                "certificate" | "key" => {
                    format!(
                        "{scheme} has no parameters certificate and key: with them write {scheme}s"
                    )
                }
                _ => format!(
                    "{scheme} has the parameters {}, and no other",
                    known.join(", ")
                ),
            };
            return Err(refused(reason));
        }
        let proxies = address.parameter("proxies").map(Proxies::parse);
        let proxies = proxies.transpose().map_err(refused)?.unwrap_or_default();
        let files = ["certificate", "key"].map(|name| address.parameter(name));
        let files = match files {
            [Some(certificate), Some(key)] => Some([certificate, key].map(str::to_owned)),
            _ if has_tls => {
                let reason =
                    "a certificate and its key are missing: add ?certificate=PATH&key=PATH";
                return Err(refused(reason.into()));
            }
            _ => None,
        };
        Ok(Settings { files, proxies })
    }
}

/// `None` of another scheme.
fn has_tls(scheme: &str) -> Option<bool> {
    let plain = scheme.strip_suffix('s').filter(|it| SCHEMES.contains(it));
    match plain {
        Some(_) => Some(true),
        None => SCHEMES.contains(&scheme).then_some(false),
    }
}

/// With the scheme of the listener, then with those of the other carriers on its port.
fn addresses(scheme: &str, bound: SocketAddr) -> Vec<Address> {
    let tls = if has_tls(scheme) == Some(true) {
        "s"
    } else {
        ""
    };
    let served = [cfg!(feature = "grpc"), cfg!(feature = "websocket")];
    let all = SCHEMES
        .iter()
        .zip(served)
        .filter(|(_, is_served)| *is_served);
    let mut all: Vec<String> = all.map(|(plain, _)| format!("{plain}{tls}")).collect();
    all.sort_by_key(|one| one != scheme);
    let place = bound.to_string();
    let addresses = all.iter().map(|scheme| Address::new(scheme, &place));
    addresses.flatten().collect()
}

/// gRPC at its path, and WebSocket at every path that is not in `routes`.
fn routes(routes: Router, attached: &mpsc::Sender<Carrier>) -> Router {
    #[cfg(feature = "grpc")]
    let routes = routes.route_service(
        "/longhand.link.v1.Carrier/{*method}",
        super::grpc::service(attached.clone()),
    );
    #[cfg(feature = "websocket")]
    let routes = {
        let attached = attached.clone();
        routes.fallback(move |request| super::websocket::upgrade(attached.clone(), request))
    };
    routes
}

/// Shared by all connections of a listener.
#[derive(Clone)]
struct Served {
    tls: Option<ServerTls>,
    proxies: Proxies,
    routes: Router,
    http2: Http2,
}

impl Served {
    /// Serves connections until the listener is dropped. Those that are attached go on.
    async fn all(
        self,
        mut arriving: mpsc::Receiver<std::io::Result<Guest>>,
        attached: mpsc::Sender<Carrier>,
    ) {
        loop {
            let arrived = tokio::select! {
                biased;
                () = attached.closed() => return,
                arrived = arriving.recv() => arrived,
            };
            match arrived {
                Some(Ok(guest)) => drop(tokio::spawn(self.clone().one(guest))),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }

    async fn one(self, mut guest: Guest) {
        guest.read_at_most(self.http2.stranger_bytes);
        let visit = guest.visit();
        match &self.tls {
            // Boxed: else each connection would have room for the largest of these futures.
            None => Box::pin(self.serve(guest, visit)).await,
            Some(tls) => {
                if let Some(stream) = Box::pin(tls.accept(guest)).await {
                    Box::pin(self.serve(stream, visit)).await;
                }
            }
        }
    }

    async fn serve<S>(&self, stream: S, visit: Visit)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let routes = TowerToHyperService::new(self.routes.clone());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (visit, routes) = (visit.clone(), routes.clone());
            let refused = self.refusal(&visit, request.headers());
            async move {
                let version = request.version();
                let mut response = match refused {
                    Some(refused) => refused,
                    None => {
                        let mut request: Request = request.map(axum::body::Body::new);
                        request.extensions_mut().insert(visit);
                        let Ok(response) = routes.call(request).await;
                        response
                    }
                };
                if version < Version::HTTP_2 {
                    close_after(&mut response);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let serving = builder(self.http2);
        let serving = serving.serve_connection_with_upgrades(TokioIo::new(stream), service);
        if let Err(error) = serving.await {
            tracing::debug!(error, "an HTTP connection broke");
        }
    }

    /// The answer to a request through a proxy, when the address that it is for has no place left.
    fn refusal(&self, visit: &Visit, headers: &HeaderMap) -> Option<Response> {
        let proxy = visit.proxy()?;
        let forwarded = headers.get_all("x-forwarded-for").iter();
        // A value that is no text is no address either.
        let values: Vec<&str> = forwarded.map(|it| it.to_str().unwrap_or("?")).collect();
        let source = self.proxies.source(proxy, values.into_iter());
        if visit.came_from(source) {
            return None;
        }
        #[cfg(feature = "grpc")]
        if let Some(response) = super::grpc::no_place(headers, NO_PLACE) {
            return Some(response);
        }
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Some((status, format!("{NO_PLACE}\n")).into_response())
    }
}

/// One request of a connection of HTTP/1.1. The setting of hyper for that would close a connection that is upgraded, too.
fn close_after(response: &mut Response) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().append(CONNECTION, close);
    }
}

/// Of one HTTP/2 stream, in bytes: what a client that makes no room for data can leave in this process.
const SEND_BUFFER: usize = 64 << 10;

fn builder(http2: Http2) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(http2.streams)
        .initial_stream_window_size(http2.stream_window)
        .initial_connection_window_size(http2.window)
        .max_send_buf_size(SEND_BUFFER)
        // A stranger who opens streams without end is read as far as its allowance goes, and keeps its place until its time is
        // over. If such a connection were ended at once, the next would take its place, and the handshakes of both cost more.
        .max_local_error_reset_streams(None)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(http2.ping_every)
        .keep_alive_timeout(http2.ping_timeout);
    builder
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(text: &str) -> Result<Settings, String> {
        let settings = Settings::of(&text.parse().unwrap());
        settings.map_err(|error| error.to_string())
    }

    #[test]
    fn a_listener_has_the_parameters_of_its_scheme_and_no_other() {
        for (address, part) in [
            ("grpc://a:1?certificate=b&key=c", "write grpcs"),
            ("ws://a:1?key=c", "write wss"),
            ("wss://a:1?certificate=b", "key are missing"),
            ("grpcs://a:1?certificate=b&key=c&later=d", "no other"),
            ("ws://a:1?route=f", "no other"),
            ("ws://a:1?proxies=everywhere", "\"everywhere\""),
            ("http://a:1", "http://a:1"),
        ] {
            let refused = settings(address).err().unwrap();
            assert!(refused.contains(part), "{refused}");
        }
        let with = settings("wss://a:1?certificate=b&key=c&proxies=10.0.0.0/8%2C::1").unwrap();
        assert_eq!(with.files, Some(["b".into(), "c".into()]));
        assert_eq!(with.proxies, Proxies::parse("10.0.0.0/8,::1").unwrap());
    }

    #[test]
    fn the_scheme_of_the_listener_is_advertised_first() {
        let bound = "127.0.0.1:1".parse().unwrap();
        for (scheme, expected) in [
            ("grpc", ["grpc://127.0.0.1:1", "ws://127.0.0.1:1"]),
            ("wss", ["wss://127.0.0.1:1", "grpcs://127.0.0.1:1"]),
        ] {
            let found = addresses(scheme, bound);
            assert_eq!(
                found.iter().map(Address::to_string).collect::<Vec<_>>(),
                expected
            );
        }
    }
}
