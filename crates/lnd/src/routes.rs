//! All calls at one router, and the answer to any other path.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;

use crate::call::is_grpc;
use crate::calls;
use crate::door::{Apps, Door};
use crate::places::Places;
use crate::rest;
use crate::status::unimplemented;

/// Answers lnd's gRPC and REST for these apps: one router for both.
///
/// It has a fallback of its own, which names what is not answered, so it is served by itself ([`serve`](crate::serve)) and not
/// merged with other routes. It is as safe without TLS as its way is: macaroons are sent as they are.
pub fn routes(apps: Arc<dyn Apps>) -> Router {
    let door = Door::new(apps);
    let places = calls::all(Places {
        router: Router::new(),
        door,
    });
    let (door, other) = (places.door.clone(), places.door);
    places
        .router
        .fallback(move |request| not_answered(door, request))
        .method_not_allowed_fallback(move |request| not_answered(other, request))
}

/// Any other path. Strangers do not learn what there is.
async fn not_answered(door: Door, request: Request) -> Response {
    let (headers, path) = (request.headers(), request.uri().path());
    let is_grpc = is_grpc(headers);
    let name = match is_grpc {
        true => path.trim_start_matches('/').to_owned(),
        false => format!("{} {path}", request.method()),
    };
    let entered = door.enter(headers, None);
    let status = entered.map_or_else(|status| status, |_| unimplemented(&name));
    match is_grpc {
        true => status.into_http(),
        false => rest::error(&status),
    }
}
