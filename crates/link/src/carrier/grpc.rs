//! The gRPC carrier: `Carrier.Attach`, a bidirectional stream of records, over HTTP/2 (`grpc://host:port`) or over HTTP/2 with TLS
//! (`grpcs://host:port`). The dialer is here, and the service at [`super::http`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use hyper_util::rt::TokioIo;
use longhand_proto::link::Record;
use longhand_proto::link::carrier_client::CarrierClient;
use longhand_proto::link::carrier_server::{self, CarrierServer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use tower::service_fn;

use super::guest::{Attached, Visit};
use super::http::HttpServer;
use super::reason::cause;
use super::tcp;
use super::{
    Carrier, CarrierError, Connect, DialOptions, Dialer, Listen, Listener, MAX_MESSAGE, RecordSink,
    RecordStream,
};
use crate::{Address, LinkError, Rendezvous};

/// HTTP/2 flow control at a phone: enough that a full signer batch never waits for a window update.
const WINDOW: u32 = 1 << 20;
/// The largest gRPC message: one of a carrier with its protobuf head.
const MESSAGE: usize = MAX_MESSAGE + 16;
/// The metadata with the route of an address, see [`Address::route`].
const ROUTE: &str = "longhand-route";
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
        let channel = channel(address, options, None).await?;
        let (sink, leaving) = mpsc::channel::<Vec<u8>>(QUEUE);
        let records = ReceiverStream::new(leaving).map(|data| Record { data });
        let mut request = Request::new(records);
        if let Some(route) = address.route()? {
            let value = MetadataValue::try_from(route.to_string());
            let value = value.map_err(|e| unreachable(cause(&e)))?;
            request.metadata_mut().insert(ROUTE, value);
        }
        let mut client = CarrierClient::new(channel).max_decoding_message_size(MESSAGE);
        let attached = client
            .attach(request)
            .await
            .map_err(|e| unreachable(cause(&e)))?;
        Ok(Carrier::new(sink, attached.into_inner()))
    }
}

/// Pings of a client, for a connection whose users have none of their own.
pub(super) struct Pings {
    /// The silence after which one is sent.
    pub after: Duration,
    /// The time for an answer, and for the connection to be opened.
    pub within: Duration,
}

/// Connects to a gRPC server at the place of `address`, whose scheme is `grpc` or `grpcs`.
///
/// # Errors
/// As [`Dialer::dial`].
pub(super) async fn channel(
    address: &Address,
    options: &DialOptions,
    pings: Option<Pings>,
) -> Result<Channel, LinkError> {
    let unreachable = |reason| LinkError::Unreachable {
        address: address.to_string(),
        reason,
    };
    let mut endpoint = endpoint(address, options.ca_pem.as_deref())?;
    if let Some(pings) = pings {
        endpoint = endpoint
            .connect_timeout(pings.within)
            .http2_keep_alive_interval(pings.after)
            .keep_alive_timeout(pings.within)
            .keep_alive_while_idle(true);
    }
    let connected = match &options.connect {
        // With a head start for one of IPv4 and IPv6 before the other (RFC 8305).
        None => {
            let host = endpoint.uri().host().unwrap_or_default();
            tcp::check(host).map_err(|e| unreachable(cause(&e)))?;
            endpoint.connect().await
        }
        Some(connect) => {
            let connector = connector(Arc::clone(connect));
            endpoint.connect_with_connector(connector).await
        }
    };
    connected.map_err(|e| unreachable(cause(&e)))
}

#[async_trait]
impl Listen for Grpc {
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        Ok(Box::new(HttpServer::bind(address).await?.serve()))
    }
}

/// Takes in the streams of records at a listener; `attached` gets them.
pub(super) fn service(attached: mpsc::Sender<Carrier>) -> CarrierServer<Service> {
    CarrierServer::new(Service { attached }).max_decoding_message_size(MESSAGE)
}

/// The answer to a request that is refused because its client has no place left, when it is one of gRPC.
pub(super) fn no_place(headers: &HeaderMap, reason: &str) -> Option<axum::response::Response> {
    let kind = headers.get(CONTENT_TYPE)?.as_bytes();
    kind.starts_with(b"application/grpc")
        .then(|| Status::resource_exhausted(reason).into_http())
}

/// See [`service`].
pub(super) struct Service {
    attached: mpsc::Sender<Carrier>,
}

#[async_trait]
impl carrier_server::Carrier for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<Record, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<Record>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let visit = request.extensions().get::<Visit>();
        let mut guest = visit
            .and_then(Visit::attach)
            .ok_or_else(|| Status::resource_exhausted("one stream for each connection"))?;
        let (sink, leaving) = mpsc::channel(QUEUE);
        let sink = GrpcSink(sink);
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

/// The sink of a server: a queue before HTTP/2, which takes a record when the client has made room for it.
struct GrpcSink(mpsc::Sender<Vec<u8>>);

#[async_trait]
impl RecordSink for GrpcSink {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        RecordSink::send(&mut self.0, record).await
    }

    async fn flush(&mut self) -> Result<(), CarrierError> {
        // When the whole queue is free, all of it was taken.
        let taken = self.0.reserve_many(self.0.max_capacity()).await;
        taken
            .map(drop)
            .map_err(|_| CarrierError("the other end is gone".into()))
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

/// Opens the connection of an [`Endpoint`], which adds TLS itself.
fn connector(
    connect: Arc<dyn Connect>,
) -> impl tower::Service<Uri, Response = TokioIo<TcpStream>, Error = io::Error, Future: Send> + use<>
{
    service_fn(move |uri: Uri| {
        let connect = Arc::clone(&connect);
        async move {
            let no_host = || io::Error::from(io::ErrorKind::InvalidInput);
            let host = uri.host().ok_or_else(no_host)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = match uri.scheme_str() {
                Some("https") => 443,
                _ => 80,
            };
            let port = uri.port_u16().unwrap_or(port);
            connect.connect(host, port).await.map(TokioIo::new)
        }
    })
}

/// For fuzz targets: the URI that an address is dialled as.
#[cfg(feature = "fuzzing")]
pub(crate) fn place(address: &Address) -> Result<String, LinkError> {
    Ok(endpoint(address, None)?.uri().to_string())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_server_can_wait_until_http2_has_taken_all_records() {
        let (sink, mut leaving) = mpsc::channel(QUEUE);
        let mut sink = GrpcSink(sink);
        for record in [1, 2] {
            sink.send(vec![record]).now_or_never().unwrap().unwrap();
        }
        assert_eq!(sink.flush().now_or_never(), None);
        leaving.try_recv().unwrap();
        assert_eq!(sink.flush().now_or_never(), None);
        leaving.try_recv().unwrap();
        assert_eq!(sink.flush().now_or_never(), Some(Ok(())));
        drop(leaving);
        assert!(sink.flush().now_or_never().unwrap().is_err());
    }
}
