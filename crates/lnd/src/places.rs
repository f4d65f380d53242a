//! Where each call is found: its path of gRPC, and its method and path of REST.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{get, post};
use futures::stream::BoxStream;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use crate::calls;
use crate::door::{Apps, Door};
use crate::node::Node;
use crate::rights::Op;
use crate::status::unimplemented;
use crate::{grpc, rest};

/// The longest request, in bytes. The longest that apps send is one invoice.
pub const MOST_REQUEST_BYTES: usize = 64 << 10;

/// The messages of a reply that is a stream.
pub(crate) type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// A message of a request.
pub(crate) trait Asked: Message + Default + DeserializeOwned + 'static {}
impl<T: Message + Default + DeserializeOwned + 'static> Asked for T {}

/// A message of a reply.
pub(crate) trait Told: Message + Default + Serialize + 'static {}
impl<T: Message + Default + Serialize + 'static> Told for T {}

/// A call with one reply, or with a stream of them.
pub(crate) trait Call<Q, T>:
    Fn(Arc<dyn Node>, Q) -> Self::Future + Clone + Send + Sync + 'static
{
    type Future: Future<Output = Result<T, Status>> + Send;
}
impl<Q, T, C, F> Call<Q, T> for C
where
    C: Fn(Arc<dyn Node>, Q) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<T, Status>> + Send,
{
    type Future = F;
}

/// The path of REST, and whether the request is in the body.
#[derive(Clone, Copy)]
pub(crate) enum Path {
    Get(&'static str),
    Post(&'static str),
}

/// Answers lnd's gRPC and REST for these apps: one router for both.
///
/// It has a fallback of its own, which names what is not answered, so it is served by itself ([`serve`](crate::serve)) and not
/// merged with other routes. It is as safe without TLS as its way is: macaroons are sent as they are.
pub fn routes(apps: Arc<dyn Apps>) -> Router {
    let door = Door::new(apps);
    let router = Router::new();
    let places = calls::all(Places { router, door });
    let (door, other) = (places.door.clone(), places.door);
    places
        .router
        .fallback(move |request| not_answered(door, request))
        .method_not_allowed_fallback(move |request| not_answered(other, request))
}

pub(crate) struct Places {
    router: Router,
    door: Door,
}

impl Places {
    /// Adds a call by its name in gRPC (`lnrpc.Lightning/GetInfo`), the permission that it needs, and its path of REST.
    pub fn one<Q: Asked, T: Told>(
        mut self,
        name: &str,
        needed: Op,
        path: Path,
        call: impl Call<Q, T>,
    ) -> Places {
        let (door, its) = (self.door.clone(), call.clone());
        let answer = move |request| grpc::one(door.clone(), needed, its.clone(), request);
        self.router = self.router.route(&format!("/{name}"), post(answer));
        let door = self.door.clone();
        let answer = move |params, request| {
            rest::one(door.clone(), needed, path, call.clone(), params, request)
        };
        self.router = match path {
            Path::Get(path) => self.router.route(path, get(answer)),
            Path::Post(path) => self.router.route(path, post(answer)),
        };
        self
    }

    /// Adds a call whose reply is a stream.
    pub fn many<Q: Asked, T: Told>(
        mut self,
        name: &str,
        needed: Op,
        path: Path,
        call: impl Call<Q, Messages<T>>,
    ) -> Places {
        let (door, its) = (self.door.clone(), call.clone());
        let answer = move |request| grpc::many(door.clone(), needed, its.clone(), request);
        self.router = self.router.route(&format!("/{name}"), post(answer));
        let door = self.door.clone();
        let answer = move |params, request| {
            rest::many(door.clone(), needed, path, call.clone(), params, request)
        };
        self.router = match path {
            Path::Get(path) => self.router.route(path, get(answer)),
            Path::Post(path) => self.router.route(path, post(answer)),
        };
        self
    }
}

/// Whether a request is gRPC's, by its type of content.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
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
