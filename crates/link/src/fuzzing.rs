//! Entries for fuzz targets, which reach code that a program only reaches by the network.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::carrier::{grpc, mailbox, websocket};
use crate::{Address, Carrier};

/// A carrier over a connection on which the WebSocket handshake is done: that of the side that took it, or that dialled it.
pub async fn websocket<S>(stream: S, took_it: bool) -> Carrier
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    websocket::over(stream, took_it).await
}

/// Reads an address as each carrier does before it dials; nothing is dialled. Returns the places, as the carriers name them.
pub fn places(address: &Address) -> Vec<String> {
    let websocket = websocket::place(address).ok();
    let grpc = grpc::place(address).ok();
    let mailbox = mailbox::MailboxListener::check(address).ok();
    let mailbox = mailbox.map(|it| it.to_string());
    websocket.into_iter().chain(grpc).chain(mailbox).collect()
}
