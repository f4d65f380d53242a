//! The mailbox of Lightning Node Connect, as aperture serves it, so that stock clients and servers of LNC meet here: over gRPC, over
//! REST and over WebSockets, all on listeners of their own (`hashmail.listen`).
//!
//! - [`core`] is the boxes as a deterministic value. Begin there.
//! - `shared.rs` is the shell: the lock, the clock, waits, and who has to be woken. `body.rs` bounds what is read of messages before
//!   they are complete.
//! - `grpc.rs`, `rest.rs` and `websocket.rs` are the three faces, `json.rs` is what the latter two read and write.
//! - `embedded.rs` is the same for a client in this process. `refusal.rs` has the codes and texts that stock clients compare.
//!
//! Nobody proves anything: who knows the id of a box can read it, write it and delete it. So a new user of an end does not take it
//! from another who is alive; it is told that the end is occupied, as stock clients expect, and tries again. One of whose connection
//! nothing was heard for [`SILENCE`], though it was pinged, has to give the end up: a phone whose network has changed comes back
//! within that time. Ids are in no log.

mod body;
pub mod core;
mod embedded;
mod grpc;
pub mod json;
pub mod limits;
pub mod refusal;
mod rest;
mod shared;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use longhand_link::carrier::http::{Http2, HttpListener, HttpServer};
use longhand_link::{Address, LinkError};
use longhand_proto::hashmail::{CipherBoxAuth, CipherBoxDesc};

use self::core::BoxId;
pub use embedded::Connection;
use refusal::Refusal;
pub(crate) use shared::Shared;

/// Silence of a connection after which it is sent a ping. The ends of LNC send one of their own every 5 to 7 seconds while they
/// talk.
pub const PING_EVERY: Duration = Duration::from_secs(6);
/// Silence of a connection after which another may take the end that it uses: a ping was not answered for four seconds.
pub const SILENCE: Duration = Duration::from_secs(10);
/// Silence of a connection after which it is closed though nobody else wants its place: more than a slow network needs to deliver
/// what is on its way, and the answer.
pub const DEAD: Duration = Duration::from_secs(40);
/// Of a message that is not complete, in bytes: what each connection may have in memory besides what is counted.
const FREE_BYTES: usize = 64 << 10;
/// HTTP/2: a stock server has four requests at once, and more when it has several sessions over one connection. A writer that is
/// read no further, because its box is full, leaves room for the others.
const HTTP2: Http2 = Http2 {
    streams: 64,
    window: 512 << 10,
    stream_window: 256 << 10,
    stranger_bytes: 1 << 20,
    ping_every: PING_EVERY,
    ping_timeout: Duration::from_secs(34),
};

/// A listener that is bound, and not served yet.
pub(crate) struct Bound(HttpServer);

impl Bound {
    pub async fn to(address: &Address) -> Result<Bound, LinkError> {
        HttpServer::bind(address).await.map(Bound)
    }

    /// Serves until the listener is dropped.
    pub fn serve(self, shared: &Arc<Shared>) -> HttpListener {
        self.0.serve_only(routes(shared), HTTP2)
    }
}

fn routes(shared: &Arc<Shared>) -> Router {
    let (for_grpc, for_send, for_receive) = (shared.clone(), shared.clone(), shared.clone());
    Router::new()
        .route(
            grpc::PATH,
            any(move |request: Request| grpc::serve(for_grpc.clone(), request)),
        )
        .route(rest::PATH, rest::methods(shared))
        .route(
            websocket::SEND,
            any(move |request: Request| websocket::send(for_send.clone(), request)),
        )
        .route(
            websocket::RECEIVE,
            any(move |request: Request| websocket::receive(for_receive.clone(), request)),
        )
}

/// The box of a request to create or to delete one.
///
/// # Errors
/// A part is missing.
pub fn check_auth(request: &CipherBoxAuth) -> Result<BoxId, Refusal> {
    let id = check_desc(request.desc.as_ref())?;
    match request.auth {
        Some(_) => Ok(id),
        None => Err(Refusal::NoAuth),
    }
}

/// The box of a writer's first message.
///
/// # Errors
/// A part is missing.
pub fn check_desc(desc: Option<&CipherBoxDesc>) -> Result<BoxId, Refusal> {
    let desc = desc.ok_or(Refusal::NoDescriptor)?;
    match desc.stream_id.is_empty() {
        true => Err(Refusal::NoId),
        false => Ok(BoxId::new(&desc.stream_id)),
    }
}

/// As much of an id as counts, for answers that repeat it.
pub fn given_id(id: &[u8]) -> &[u8] {
    id.get(..64).unwrap_or(id)
}
