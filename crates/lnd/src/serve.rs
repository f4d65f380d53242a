//! One connection.

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::MOST_CALLS;

/// HTTP/2 flow control, which the client fills: one request.
const WINDOW: u32 = 1 << 16;
/// Headers of one request, in bytes: the longest macaroon as hex, and as much again.
const HEADERS: u32 = 16 << 10;
const MAX_HEADERS: usize = 64;
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves one connection until it ends: HTTP/2 (gRPC needs it) or HTTP/1.1, whichever the client begins with. The stream is a socket,
/// or TLS, or Lightning Node Connect's; how long a stranger may stay on it without a call is up to the caller.
pub async fn serve<S>(stream: S, routes: Router)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let request: Request = request.map(axum::body::Body::new);
        routes.call(request)
    });
    let serving = builder();
    let serving = serving.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(error, "a connection of an app broke");
    }
}

fn builder() -> Builder<TokioExecutor> {
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
        .max_concurrent_streams(MOST_CALLS as u32)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
