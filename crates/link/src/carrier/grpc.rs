//! The gRPC carrier: `Carrier.Attach`, a bidirectional stream of records, over HTTP/2 with or without TLS.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;

use async_trait::async_trait;
use longhand_proto::link::Record;
use longhand_proto::link::carrier_client::CarrierClient;
use longhand_proto::link::carrier_server::{self, CarrierServer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::{Carrier, CarrierError, MAX_RECORD, RecordStream};
use crate::LinkError;

/// HTTP/2 flow control: enough that a full signer batch never waits for a window update.
const WINDOW: u32 = 1 << 20;
/// The largest gRPC message: a record and its protobuf head.
const MESSAGE: usize = MAX_RECORD + 16;
/// Records between the link's writer and HTTP/2.
const QUEUE: usize = 16;

/// Certificate chain and key of a host, in PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// The certificate, followed by those that lead to its root.
    pub certificate_pem: Vec<u8>,
    /// The private key.
    pub key_pem: zeroize::Zeroizing<Vec<u8>>,
}

/// Takes in connections of phones. Dropping it stops listening; links that are live go on.
pub struct GrpcListener {
    address: SocketAddr,
    carriers: mpsc::Receiver<Carrier>,
    _stop: oneshot::Sender<()>,
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
        let address = listener.local_addr().map_err(|e| LinkError::Listen {
            address: "the given socket".into(),
            reason: e.to_string(),
        })?;
        let mut server = Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        if let Some(ServerTls {
            certificate_pem,
            key_pem,
        }) = tls
        {
            let identity = Identity::from_pem(certificate_pem, key_pem.as_slice());
            let config = ServerTlsConfig::new().identity(identity);
            server = server
                .tls_config(config)
                .map_err(|e| LinkError::Tls(cause(&e)))?;
        }
        let (attached, carriers) = mpsc::channel(64);
        let (stop, stopped) = oneshot::channel::<()>();
        let service = CarrierServer::new(Service { attached }).max_decoding_message_size(MESSAGE);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
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
            carriers,
            _stop: stop,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, not authenticated yet: give it to [`crate::accept`], in a task of its own. `None`
    /// when the server ended.
    pub async fn accept(&mut self) -> Option<Carrier> {
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
        let (sink, leaving) = mpsc::channel::<Vec<u8>>(QUEUE);
        let carrier = Carrier::new(sink, request.into_inner());
        let attached = self.attached.send(carrier).await;
        attached.map_err(|_| Status::unavailable("the host takes no connections now"))?;
        let records = ReceiverStream::new(leaving).map(|data| Ok(Record { data }));
        Ok(Response::new(Box::pin(records)))
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

/// Dials `grpc://host:port` or `grpcs://host:port`. Without `ca_pem`, `grpcs` trusts the web's authorities.
///
/// # Errors
/// [`LinkError::Unreachable`], [`LinkError::UnknownCarrier`], or [`LinkError::Tls`] when `ca_pem` cannot be
/// used.
pub async fn dial(address: &str, ca_pem: Option<&[u8]>) -> Result<Carrier, LinkError> {
    let endpoint = endpoint(address, ca_pem)?;
    let unreachable = |reason| LinkError::Unreachable {
        address: address.into(),
        reason,
    };
    let channel = endpoint
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

fn endpoint(address: &str, ca_pem: Option<&[u8]>) -> Result<Endpoint, LinkError> {
    let unknown = || LinkError::UnknownCarrier(address.into());
    let (scheme, place) = address.split_once("://").ok_or_else(unknown)?;
    let (url, tls) = match scheme {
        "grpc" => (format!("http://{place}"), false),
        "grpcs" => (format!("https://{place}"), true),
        _ => return Err(unknown()),
    };
    let endpoint = Endpoint::from_shared(url).map_err(|_| unknown())?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    if !tls {
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
    innermost.to_string()
}
