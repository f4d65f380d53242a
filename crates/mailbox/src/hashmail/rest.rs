//! REST: creating a box (POST) and deleting it (DELETE), over HTTP/1.1 and HTTP/2.

use std::sync::Arc;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Query, Request};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    CONTENT_TYPE,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use longhand_link::carrier::guest::Visit;

use super::core::BoxId;
use super::json::{self, CREATED, DELETED};
use super::refusal::Refusal;
use super::shared::Shared;
use super::{check_auth, check_desc};

/// Where boxes are created and deleted.
pub(super) const PATH: &str = "/v1/lightning-node-connect/hashmail";
/// The longest request, in bytes.
const MAX_BODY: usize = 4 << 10;

/// What is served at [`PATH`].
pub(super) fn methods(shared: &Arc<Shared>) -> MethodRouter {
    let (creating, deleting) = (shared.clone(), shared.clone());
    post(move |request: Request| async move {
        let created = create(&creating, request).await;
        answer(&creating, created, CREATED)
    })
    .delete(move |request: Request| async move {
        let deleted = delete(&deleting, request).await;
        answer(&deleting, deleted, DELETED)
    })
    .options(|| async { with_headers(StatusCode::OK, String::new()) })
}

async fn create(shared: &Shared, request: Request) -> Result<(), Refusal> {
    let by = request.extensions().get().and_then(Visit::source);
    let body = read(request).await?;
    let id = check_auth(&json::read_auth(&body)?)?;
    shared.create(id, by)
}

/// The id is in the body, as when the box was created, or in the query: not all clients send a body with this method.
async fn delete(shared: &Shared, request: Request) -> Result<(), Refusal> {
    let from_query = id_of(request.uri())?;
    let body = read(request).await?;
    let id = match from_query {
        Some(id) => id,
        None if body.is_empty() => return Err(Refusal::NoDescriptor),
        None => check_auth(&json::read_auth(&body)?)?,
    };
    shared.delete(id)
}

fn id_of(uri: &Uri) -> Result<Option<BoxId>, Refusal> {
    let fields = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let Query(fields) = fields.map_err(|_| Refusal::Malformed)?;
    let desc = json::read_query(&fields);
    desc.map(|desc| check_desc(Some(&desc))).transpose()
}

async fn read(request: Request) -> Result<Bytes, Refusal> {
    let read = to_bytes(request.into_body(), MAX_BODY).await;
    read.map_err(|_| Refusal::Malformed)
}

fn answer(shared: &Shared, result: Result<(), Refusal>, done: &str) -> Response {
    let refusal = match result {
        Ok(()) => return with_headers(StatusCode::OK, done.to_owned()),
        Err(refusal) => refusal,
    };
    shared.refused(refusal);
    let status = StatusCode::from_u16(refusal.http_status());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_headers(status, json::write_error(refusal))
}

/// Pages of any origin may ask: nothing of a browser's user is sent along.
fn with_headers(status: StatusCode, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type, Accept"),
        (ACCESS_CONTROL_ALLOW_METHODS, "POST, DELETE"),
    ];
    (status, headers, body).into_response()
}
