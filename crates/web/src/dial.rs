//! Links over the WebSockets of JavaScript.

use std::future::poll_fn;
use std::pin::Pin;

use async_trait::async_trait;
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink, SinkExt, StreamExt};
use gloo_net::websocket::Message;
use gloo_net::websocket::futures::WebSocket;
use longhand_link::carrier::MAX_MESSAGE;
use longhand_link::{Address, Carrier, Dial, LinkError, Rendezvous};
use send_wrapper::SendWrapper;
use tokio::sync::mpsc;
use wasm_bindgen_futures::spawn_local;

/// Records that wait in each direction.
const WAITING: usize = 16;

/// Dials addresses of the schemes `ws` and `wss`, the only ones that a page can.
pub struct WebSockets;

#[async_trait]
impl Dial for WebSockets {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        let unknown = || LinkError::UnknownCarrier(address.into());
        let parsed: Address = address.parse().map_err(|_| unknown())?;
        if !matches!(parsed.scheme(), "ws" | "wss") {
            return Err(unknown());
        }
        let url = parsed.websocket_url()?;
        // An object of JavaScript stays on its thread, which is the only one.
        SendWrapper::new(open(address, &url)).await
    }
}

/// Returns when the handshake is done. The caller limits the time.
async fn open(address: &str, url: &str) -> Result<Carrier, LinkError> {
    let unreachable = |reason: String| LinkError::Unreachable {
        address: address.into(),
        reason,
    };
    let mut socket = WebSocket::open(url).map_err(|error| unreachable(error.to_string()))?;
    let opened = poll_fn(|cx| Pin::new(&mut socket).poll_ready(cx)).await;
    // A page is told no more than that: by the reason it could search the network that it is in.
    opened.map_err(|_| unreachable("it does not answer, or not by WebSocket".into()))?;
    let (sink, stream) = socket.split();
    let (to_host, leaving) = mpsc::channel(WAITING);
    let (arriving, from_host) = mpsc::channel(WAITING);
    spawn_local(write(sink, leaving));
    spawn_local(read(stream, arriving));
    Ok(Carrier::new(to_host, from_host))
}

/// Until the carrier is dropped, or the socket breaks; then it is closed.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut leaving: mpsc::Receiver<Vec<u8>>) {
    while let Some(record) = leaving.recv().await {
        if sink.send(Message::Bytes(record)).await.is_err() {
            return;
        }
    }
    // It may have broken already.
    let _ = sink.close().await;
}

/// Until the socket ends, the carrier is dropped, or the other side sends what is no record.
async fn read(mut stream: SplitStream<WebSocket>, arriving: mpsc::Sender<Vec<u8>>) {
    while let Some(Ok(Message::Bytes(record))) = stream.next().await {
        if record.len() > MAX_MESSAGE || arriving.send(record).await.is_err() {
            return;
        }
    }
}
