//! What a call is: its messages, its future, and its path of REST.

use std::future::Future;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures::stream::BoxStream;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use crate::node::Node;

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

/// Whether a request is gRPC's, by its type of content.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    kind.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"))
}
