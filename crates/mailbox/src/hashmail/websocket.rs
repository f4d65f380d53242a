//! WebSockets: one for a writer and one for a reader, with a JSON message in each frame. A client begins with its id on the socket
//! of a reader, and with its first message on that of a writer. Text and binary frames are read, and text is sent.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use longhand_link::carrier::guest::Visit;
use longhand_proto::hashmail::CipherBox;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role as SocketRole, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use super::core::{BoxId, Role};
use super::refusal::Refusal;
use super::shared::{Account, Attached, Reservation, Shared, silence};
use super::{DEAD, PING_EVERY, check_desc, given_id, json};

mod metered;

use metered::Metered;

/// Where writers connect.
pub(super) const SEND: &str = "/v1/lightning-node-connect/hashmail/send";
/// Where readers connect.
pub(super) const RECEIVE: &str = "/v1/lightning-node-connect/hashmail/receive";

/// From the answer to an upgrade until the connection is one of WebSocket.
const UPGRADE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// For the other side to close the connection after us.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);
/// The buffer for reading, in bytes.
const BUFFER: usize = 8 << 10;
/// The answer to a request that is none for a WebSocket.
const NO_UPGRADE: &str =
    "this is the WebSocket of a hashmail mailbox: connect to it by WebSocket\n";

type Socket = WebSocketStream<Metered<TokioIo<Upgraded>>>;
type Sink = SplitSink<Socket, Message>;

/// Serves a writer.
pub(super) async fn send(shared: Arc<Shared>, request: Request) -> Response {
    upgrade(shared, request, Role::Writer)
}

/// Serves a reader.
pub(super) async fn receive(shared: Arc<Shared>, request: Request) -> Response {
    upgrade(shared, request, Role::Reader)
}

fn upgrade(shared: Arc<Shared>, mut request: Request, role: Role) -> Response {
    let Some(upgraded) = request.extensions_mut().remove::<OnUpgrade>() else {
        return (StatusCode::UPGRADE_REQUIRED, NO_UPGRADE).into_response();
    };
    let Ok(response) = create_response_with_body(&request, Body::empty) else {
        return (StatusCode::BAD_REQUEST, NO_UPGRADE).into_response();
    };
    let visit = request.extensions().get::<Visit>().cloned();
    tokio::spawn(async move {
        let Ok(Ok(stream)) = timeout(UPGRADE_TIMEOUT, upgraded).await else {
            return;
        };
        Session::open(shared, visit, TokioIo::new(stream))
            .await
            .serve(role)
            .await;
    });
    response
}

/// One WebSocket.
struct Session {
    shared: Arc<Shared>,
    visit: Option<Visit>,
    sink: Sink,
    incoming: Incoming,
}

impl Session {
    async fn open(shared: Arc<Shared>, visit: Option<Visit>, stream: TokioIo<Upgraded>) -> Session {
        let account = Account::new(&shared, visit.as_ref());
        let most = json::longest(shared.with(|core, _| core.limits().message_bytes));
        let (stream, meter) = metered::new(stream, account);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_frame_size(Some(most))
            .max_message_size(Some(most));
        let role = SocketRole::Server;
        let socket = WebSocketStream::from_raw_socket(stream, role, Some(config)).await;
        let (sink, stream) = socket.split();
        Session {
            shared,
            visit,
            sink,
            incoming: Incoming { stream, meter },
        }
    }

    async fn serve(self, role: Role) {
        match role {
            Role::Reader => self.read().await,
            Role::Writer => self.write().await,
        }
    }

    /// Sends the messages of a box, until either side ends it. What comes after the id is skipped.
    async fn read(mut self) {
        let first = match self.incoming.next().await {
            Ok(Some(first)) => json::read_desc(&first.text),
            Ok(None) => return,
            Err(refusal) => Err(refusal),
        };
        let begun = match first {
            Ok(desc) => {
                let id = BoxId::new(&desc.stream_id);
                let visit = self.visit.clone();
                let attached = self.shared.attach(id, Role::Reader, visit).await;
                attached.map(|attached| (attached, desc))
            }
            Err(refusal) => Err(refusal),
        };
        let Session {
            shared,
            visit,
            mut sink,
            mut incoming,
        } = self;
        let refusal = match begun {
            Err(refusal) => refusal,
            Ok((attached, desc)) => {
                let id = given_id(&desc.stream_id);
                tokio::select! {
                    biased;
                    refusal = give_messages(&mut sink, &attached, id) => match refusal {
                        Some(refusal) => refusal,
                        None => return,
                    },
                    () = incoming.skip() => return,
                    () = silence(visit.as_ref(), DEAD) => return,
                    // The client takes nothing, and would not take the reason.
                    _ = attached.ended() => return,
                }
            }
        };
        shared.refused(refusal);
        close(sink, incoming, json::write_stream_error(refusal)).await;
    }

    /// Takes messages for a box, until either side ends it.
    async fn write(self) {
        let Session {
            shared,
            visit,
            mut sink,
            mut incoming,
        } = self;
        let writer = Writer {
            shared: &shared,
            visit: visit.as_ref(),
        };
        let refusal = tokio::select! {
            biased;
            refusal = writer.run(&mut incoming) => match refusal {
                Some(refusal) => refusal,
                None => return,
            },
            () = pings(&mut sink) => return,
        };
        shared.refused(refusal);
        close(sink, incoming, json::write_error(refusal)).await;
    }
}

/// The messages of a reader, and pings when there are none. `None` when the connection broke.
async fn give_messages(sink: &mut Sink, attached: &Attached, id: &[u8]) -> Option<Refusal> {
    loop {
        let next = match timeout(PING_EVERY, attached.take()).await {
            Ok(Ok(message)) => Message::Text(json::write_message(id, &message).into()),
            Ok(Err(refusal)) => return Some(refusal),
            Err(_) => Message::Ping(Bytes::new()),
        };
        sink.send(next).await.ok()?;
    }
}

/// Pings for a client to which nothing else is sent, until the connection breaks.
async fn pings(sink: &mut Sink) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if sink.send(Message::Ping(Bytes::new())).await.is_err() {
            // Whoever reads learns it too, and knows what has come before.
            return std::future::pending().await;
        }
    }
}

/// The task of a writer's messages.
struct Writer<'a> {
    shared: &'a Arc<Shared>,
    visit: Option<&'a Visit>,
}

impl Writer<'_> {
    /// Why the client is refused; `None` when it has closed the connection, or the connection broke.
    async fn run(&self, incoming: &mut Incoming) -> Option<Refusal> {
        let ended = self.take_messages(incoming).await;
        ended.err().flatten()
    }

    async fn take_messages(&self, incoming: &mut Incoming) -> Result<(), Option<Refusal>> {
        let first = self.next(incoming).await?;
        let id = check_desc(first.message.desc.as_ref())?;
        let visit = self.visit.cloned();
        let attached = self.shared.attach(id, Role::Writer, visit).await?;
        let mut next = first;
        loop {
            attached.put(next.message.msg, next.reserved)?;
            next = tokio::select! {
                biased;
                next = self.next_with_room(&attached, incoming) => next?,
                refusal = attached.ended() => return Err(Some(refusal)),
            };
        }
    }

    /// The next message, once the box has room for it. One message is read before, so that a client that is gone does not keep its
    /// place for as long as there is no room.
    async fn next_with_room(
        &self,
        attached: &Attached,
        incoming: &mut Incoming,
    ) -> Result<Next, Option<Refusal>> {
        let room = async { attached.may_put().await.map_err(Some) };
        let ((), next) = tokio::try_join!(room, self.next(incoming))?;
        Ok(next)
    }

    async fn next(&self, incoming: &mut Incoming) -> Result<Next, Option<Refusal>> {
        let text = tokio::select! {
            biased;
            text = incoming.next() => text?.ok_or(None)?,
            () = silence(self.visit, DEAD) => return Err(None),
        };
        Ok(Next {
            message: json::read_message(&text.text)?,
            reserved: text.reserved,
        })
    }
}

struct Next {
    message: CipherBox,
    reserved: Option<Reservation>,
}

/// The text of a message from the client, and what was reserved for it.
struct Text {
    text: Bytes,
    reserved: Option<Reservation>,
}

/// What comes from the client.
struct Incoming {
    stream: SplitStream<Socket>,
    meter: metered::Meter,
}

impl Incoming {
    /// The next message; `None` when the client has closed the connection, or it broke.
    async fn next(&mut self) -> Result<Option<Text>, Refusal> {
        use tokio_tungstenite::tungstenite::Error;
        while let Some(read) = self.stream.next().await {
            let text = match read {
                Ok(Message::Text(text)) => text.into(),
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                Ok(Message::Close(_)) => return Ok(None),
                Err(Error::Capacity(_)) => return Err(Refusal::TooLarge),
                Err(Error::Utf8(_)) => return Err(Refusal::Malformed),
                Err(_) => return self.meter.refusal().map_or(Ok(None), Err),
            };
            let reserved = self.meter.message_is_complete();
            return Ok(Some(Text { text, reserved }));
        }
        Ok(None)
    }

    /// Returns when the connection has ended.
    async fn skip(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}

/// Sends the last message, and closes the connection.
async fn close(mut sink: Sink, mut incoming: Incoming, text: String) {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    };
    let finish = async {
        sink.send(Message::Text(text.into())).await?;
        sink.send(Message::Close(Some(frame))).await?;
        incoming.skip().await;
        Ok::<(), tokio_tungstenite::tungstenite::Error>(())
    };
    // The client may be gone already.
    let _ = timeout(LINGER, finish).await;
}
