//! The gRPC carrier: `Carrier.Attach`, a bidirectional stream of records, over HTTP/2 (`grpc://host:port`) or over HTTP/2 with TLS
//! (`grpcs://host:port`).
//!
//! A host listens at `grpcs://ip:port?certificate=PATH&key=PATH`, two files in PEM.

use std::error::Error;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use longhand_proto::link::Record;
use longhand_proto::link::carrier_client::CarrierClient;
use longhand_proto::link::carrier_server::{self, CarrierServer};
use longhand_proto::utc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, TlsConnectInfo};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::admission::{Admission, Places};
use super::guest::{self, Attached, Guest, Visit};
use super::{
    Carrier, CarrierError, DialOptions, Dialer, Listen, Listener, RecordStream,
};
use crate::clock::now_unix_s;
use crate::{Address, LinkError, Rendezvous};

/// HTTP/2 flow control at a phone: enough that a full signer batch never waits for a window update.
const WINDOW: u32 = 1 << 20;
/// At a host, where strangers fill it: one record, or the answers to some thousand operations.
const HOST_WINDOW: u32 = 1 << 16;
/// HTTP/2 headers of one request, in bytes.
const HEADERS: u32 = 8 << 10;
/// HTTP/2 pings of the host, and the time for their answers.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// For the TLS handshake.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest gRPC message: a record and its protobuf head.
const MESSAGE: usize = super::MAX_MESSAGE + 16;
/// Records between the link's writer and HTTP/2.
const QUEUE: usize = 16;
/// The scheme with TLS.
const WITH_TLS: &str = "grpcs";

/// The kind of carrier, for [`super::Carriers`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Grpc;

#[async_trait]
impl Dialer for Grpc {
    async fn dial(
        &self,
        address: &Address,
        options: &DialOptions,
        _: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        let unreachable = |reason| LinkError::Unreachable {
            address: address.to_string(),
            reason,
        };
        let channel = endpoint(address, options.ca_pem.as_deref())?
            .connect()
            .await
            .map_err(|e| unreachable(cause(&e)))?;
        let (sink, leaving) = mpsc::channel::<Vec<u8>>(QUEUE);
        let records = ReceiverStream::new(leaving).map(|data| Record { data });
        let mut client = CarrierClient::new(channel).max_decoding_message_size(MESSAGE);
        let attached = client
            .attach(records)
            .await
            .map_err(|e| unreachable(cause(&e)))?;
        Ok(Carrier::new(sink, attached.into_inner()))
    }
}

#[async_trait]
impl Listen for Grpc {
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        let tls = tls_of(address)?;
        let listener = GrpcListener::bind(address.authority(), tls).await?;
        Ok(Box::new(listener))
    }
}

/// The files that the address of a listener names.
fn tls_of(address: &Address) -> Result<Option<ServerTls>, LinkError> {
    let refused = |reason: &str| LinkError::Address {
        address: address.to_string(),
        reason: reason.into(),
    };
    if address.scheme() != WITH_TLS {
        return match address.parameters().next() {
            None => Ok(None),
            Some(_) => Err(refused(
                "grpc has no parameters; with a certificate write grpcs",
            )),
        };
    }
    let known = ["certificate", "key"];
    if !address.parameters().all(|(name, _)| known.contains(&name)) {
        return Err(refused(
            "grpcs has the parameters certificate and key, and no other",
        ));
    }
    let [Some(certificate), Some(key)] = known.map(|name| address.parameter(name)) else {
        return Err(refused(
            "a certificate and its key are missing: add ?certificate=PATH&key=PATH",
        ));
    };
    Ok(Some(ServerTls {
        certificate_pem: read(certificate)?,
        key_pem: read(key)?.into(),
    }))
}

fn read(path: &str) -> Result<Vec<u8>, LinkError> {
    std::fs::read(path).map_err(|e| LinkError::Unreadable {
        path: path.into(),
        reason: e.to_string(),
    })
}

/// Certificate chain and key of a host, in PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// The certificate, followed by those that lead to its root.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: zeroize::Zeroizing<Vec<u8>>,
}

/// Takes in connections over gRPC.
pub struct GrpcListener {
    address: SocketAddr,
    has_tls: bool,
    carriers: mpsc::Receiver<Carrier>,
    _stop: oneshot::Sender<()>,
}

impl GrpcListener {
    /// Listens on a port, such as `127.0.0.1:0`.
    ///
    /// # Errors
    /// [`LinkError::Listen`] when the port is taken, [`LinkError::Tls`] when the PEM cannot be used.
    pub async fn bind(place: &str, tls: Option<ServerTls>) -> Result<GrpcListener, LinkError> {
        let failed = |e: std::io::Error| LinkError::Listen {
            address: place.into(),
            reason: match e.kind() {
                ErrorKind::AddrInUse => "it is in use".into(),
                _ => e.to_string(),
            },
        };
        let listener = TcpListener::bind(place).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let has_tls = tls.is_some();
        let mut server = Server::builder()
            .max_concurrent_streams(1)
            .initial_stream_window_size(HOST_WINDOW)
            .initial_connection_window_size(HOST_WINDOW)
            .http2_max_header_list_size(HEADERS)
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_TIMEOUT));
        if let Some(ServerTls {
            certificate_pem,
            key_pem,
        }) = tls
        {
            let identity = Identity::from_pem(certificate_pem, key_pem.as_slice());
            let config = ServerTlsConfig::new()
                .identity(identity)
                .timeout(TLS_TIMEOUT);
            server = server
                .tls_config(config)
                .map_err(|e| LinkError::Tls(cause(&e)))?;
        }
        let (attached, carriers) = mpsc::channel(64);
        let (stop, stopped) = oneshot::channel::<()>();
        let service = CarrierServer::new(Service { attached }).max_decoding_message_size(MESSAGE);
        let (guests, incoming) = mpsc::channel(1);
        let admission = Admission::new(Places::STRANGERS);
        tokio::spawn(guest::accept(listener, admission, guests));
        let incoming = ReceiverStream::new(incoming);
        let serving = server
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async {
                // Fails when the listener is dropped, which is how it stops.
                let _ = stopped.await;
            });
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!("the gRPC carrier stopped: {}", cause(&error));
            }
        });
        Ok(GrpcListener {
            address,
            has_tls,
            carriers,
            _stop: stop,
        })
    }

    /// The port, with the number that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl Listener for GrpcListener {
    fn addresses(&self) -> Vec<Address> {
        let scheme = if self.has_tls { WITH_TLS } else { "grpc" };
        let address = Address::new(scheme, &self.address.to_string());
        address.into_iter().collect()
    }

    async fn accept(&mut self) -> Option<Carrier> {
        self.carriers.recv().await
    }
}

struct Service {
    attached: mpsc::Sender<Carrier>,
}

#[async_trait]
impl carrier_server::Carrier for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<Record, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<Record>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut guest = visit(&request)
            .and_then(Visit::attach)
            .ok_or_else(|| Status::resource_exhausted("one stream for each connection"))?;
        let (sink, leaving) = mpsc::channel::<Vec<u8>>(QUEUE);
        let place = guest.place.take();
        let stream = GuestStream {
            records: request.into_inner(),
            _guest: guest,
        };
        let carrier = Carrier::new(sink, stream).with_place(place);
        let attached = self.attached.send(carrier).await;
        attached.map_err(|_| Status::unavailable("the host takes no connections now"))?;
        let records = ReceiverStream::new(leaving).map(|data| Ok(Record { data }));
        Ok(Response::new(Box::pin(records)))
    }
}

/// The connection that a request came on.
fn visit(request: &Request<Streaming<Record>>) -> Option<&Visit> {
    let extensions = request.extensions();
    let with_tls = || extensions.get::<TlsConnectInfo<Visit>>();
    let plain = extensions.get::<Visit>();
    plain.or_else(|| with_tls().map(TlsConnectInfo::get_ref))
}

impl Connected for Guest {
    type ConnectInfo = Visit;

    fn connect_info(&self) -> Visit {
        self.visit()
    }
}

/// The records of a connection that the host took, which ends with them.
struct GuestStream {
    records: Streaming<Record>,
    _guest: Attached,
}

#[async_trait]
impl RecordStream for GuestStream {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        self.records.recv().await
    }
}

#[async_trait]
impl RecordStream for Streaming<Record> {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        match self.message().await {
            Ok(record) => Ok(record.map(|record| record.data)),
            Err(status) => Err(CarrierError(cause(&status))),
        }
    }
}

/// Without `ca_pem`, `grpcs` trusts the web's authorities.
fn endpoint(address: &Address, ca_pem: Option<&[u8]>) -> Result<Endpoint, LinkError> {
    let has_tls = address.scheme() == WITH_TLS;
    let http = if has_tls { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{http}://{}", address.authority()));
    let endpoint = endpoint.map_err(|_| LinkError::UnknownCarrier(address.to_string()))?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    if !has_tls {
        return Ok(endpoint);
    }
    let config = match ca_pem {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_webpki_roots(),
    };
    endpoint
        .tls_config(config)
        .map_err(|e| LinkError::Tls(cause(&e)))
}

/// The innermost reason, which is the one a person can act on.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    with_clock(innermost.to_string())
}

/// A certificate is valid for a span of time: when that is the reason, it may be this machine's clock that is wrong.
fn with_clock(reason: String) -> String {
    let is_about_time = ["certificate expired", "certificate not valid yet"];
    match is_about_time.iter().any(|text| reason.contains(text)) {
        true => {
            let now = utc(now_unix_s());
            format!("{reason}; this machine's clock shows {now}: set it if it is wrong")
        }
        false => reason,
    }
}
