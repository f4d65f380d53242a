//! Requests without a network.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout;

/// A request as it comes from the network, to be answered without one.
pub struct Asked {
    /// Of HTTP, such as `GET`.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// Whether it is gRPC: the body is then a message, and gets gRPC's frame.
    pub is_grpc: bool,
    /// As hex.
    pub macaroon: String,
    /// See `is_grpc`.
    pub body: Vec<u8>,
}

/// The reply to [`Asked`].
#[derive(Debug)]
pub struct Told {
    /// Of HTTP.
    pub status: u16,
    /// gRPC's, where it is not a part of the body; 0 = no error.
    pub grpc_status: i32,
    /// gRPC's line.
    pub line: String,
    /// As much of the body as came at once.
    pub body: Vec<u8>,
}

/// Answers a request; `None` when it is none of HTTP's, or is not answered at once: a subscription to which nothing happens.
pub async fn answer(routes: &Router, asked: Asked) -> Option<Told> {
    let body = match asked.is_grpc {
        false => asked.body,
        true => {
            let length = u32::try_from(asked.body.len()).ok()?.to_be_bytes();
            [&[0][..], &length, &asked.body].concat()
        }
    };
    let kind = match asked.is_grpc {
        true => "application/grpc",
        false => "application/json",
    };
    let request = Request::builder()
        .method(&*asked.method)
        .uri(asked.path)
        .header("content-type", kind)
        .header("macaroon", asked.macaroon)
        .body(Body::from(body))
        .ok()?;
    let routes = TowerToHyperService::new(routes.clone());
    let Ok(reply) = timeout(AT_ONCE, routes.call(request)).await.ok()?;
    let text = |name| reply.headers().get(name).and_then(|it| it.to_str().ok());
    let grpc_status = text("grpc-status").and_then(|it| it.parse().ok());
    let line = text("grpc-message").unwrap_or_default().to_owned();
    let status = reply.status().as_u16();
    let mut chunks = reply.into_body().into_data_stream();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = timeout(AT_ONCE, chunks.next()).await {
        body.extend_from_slice(&chunk.ok()?);
    }
    Some(Told {
        status,
        grpc_status: grpc_status.unwrap_or(0),
        line,
        body,
    })
}

/// How long [`answer`] waits. On tokio's paused clock that costs no time.
const AT_ONCE: Duration = Duration::from_secs(1);
