//! The calls to a mailbox (`hashmail.proto`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use longhand_lnc::Streams;
use longhand_proto::hashmail::cipher_box_auth::Auth;
use longhand_proto::hashmail::hash_mail_client::HashMailClient;
use longhand_proto::hashmail::{CipherBox, CipherBoxAuth, CipherBoxDesc, LndAuth};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::carrier::{DialOptions, grpc};
use crate::{Address, LinkError};

/// The largest message: gRPC's own default, which stock mailboxes have.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Guests that share a connection: each takes two of its streams, of which Longhand's mailbox permits 64, and one of Go's 250.
const GUESTS_PER_CONNECTION: usize = 30;
/// The time for dialling a mailbox.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The time for a call that is not a stream.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The silence of a mailbox after which it is sent a ping (HTTP/2). Streams at which nobody is expected soon carry nothing, and
/// a network may forget a connection without a word.
pub const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(20);
/// The time for its answer. After that the connection is opened again.
pub const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(10);

/// The messages of a stream, until the mailbox ends it.
pub type Messages = BoxStream<'static, Result<CipherBox, Status>>;

/// The calls of one connection to a mailbox, which is opened again when it has broken. A stream is named by its id.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// Creates a stream.
    ///
    /// # Errors
    /// The mailbox's, with [`Code::AlreadyExists`] when it is there; or the connection's.
    async fn create(&self, id: [u8; 64]) -> Result<(), Status>;

    /// Deletes a stream.
    ///
    /// # Errors
    /// The mailbox's, or the connection's.
    async fn delete(&self, id: [u8; 64]) -> Result<(), Status>;

    /// Reads a stream.
    ///
    /// # Errors
    /// The mailbox's, or the connection's.
    async fn receive(&self, id: [u8; 64]) -> Result<Messages, Status>;

    /// Writes a stream until the messages end, or the mailbox ends it. Each message has its id.
    ///
    /// # Errors
    /// The mailbox's, or the connection's.
    async fn send(&self, messages: ReceiverStream<CipherBox>) -> Result<(), Status>;
}

/// Connects to mailboxes otherwise than over gRPC, see [`DialOptions::hashmail`].
#[async_trait]
pub trait ConnectMailbox: Send + Sync + 'static {
    /// Connects to the mailbox at this address, which has no `hashmail+` or `lnc+`. The caller limits the time.
    ///
    /// # Errors
    /// As [`crate::Dialer::dial`].
    async fn connect(&self, mailbox: &Address) -> Result<Arc<dyn Calls>, LinkError>;
}

/// A connection to a mailbox. Clones share it.
#[derive(Clone)]
pub struct Client(Arc<dyn Calls>);

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// As [`crate::Dialer::dial`].
    pub async fn connect(mailbox: &Address, options: &DialOptions) -> Result<Client, LinkError> {
        if let Some(connect) = &options.hashmail {
            return connect.connect(mailbox).await.map(Client);
        }
        let pings = grpc::Pings {
            after: KEEP_ALIVE_AFTER,
            within: KEEP_ALIVE_WITHIN,
        };
        let channel = grpc::channel(mailbox, options, Some(pings)).await?;
        let client = HashMailClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Client(Arc::new(Grpc(client))))
    }

    /// Creates both streams, unless they are there.
    pub(super) async fn create(&self, streams: &Streams) -> Result<(), Status> {
        for id in [streams.to_client, streams.to_server] {
            if let Err(status) = self.0.create(id).await
                && status.code() != Code::AlreadyExists
            {
                return Err(status);
            }
        }
        Ok(())
    }

    /// Deletes both streams.
    pub(super) async fn delete(&self, streams: &Streams) {
        for id in [streams.to_client, streams.to_server] {
            // They expire by themselves.
            let _ = self.0.delete(id).await;
        }
    }

    pub(super) async fn receive(&self, id: [u8; 64]) -> Result<Messages, Status> {
        self.0.receive(id).await
    }

    /// Sends until the messages end, or the mailbox ends it.
    pub(super) async fn send(&self, messages: ReceiverStream<CipherBox>) -> Result<(), Status> {
        self.0.send(messages).await
    }
}

/// The calls over gRPC.
struct Grpc(HashMailClient<Channel>);

#[async_trait]
impl Calls for Grpc {
    async fn create(&self, id: [u8; 64]) -> Result<(), Status> {
        let mut client = self.0.clone();
        answered(client.new_cipher_box(auth(id))).await
    }

    async fn delete(&self, id: [u8; 64]) -> Result<(), Status> {
        let mut client = self.0.clone();
        answered(client.del_cipher_box(auth(id))).await
    }

    async fn receive(&self, id: [u8; 64]) -> Result<Messages, Status> {
        let received = self.0.clone().recv_stream(desc(id)).await?;
        Ok(received.into_inner().boxed())
    }

    async fn send(&self, messages: ReceiverStream<CipherBox>) -> Result<(), Status> {
        self.0.clone().send_stream(messages).await.map(drop)
    }
}

/// A call that is not a stream.
async fn answered<T>(call: impl Future<Output = Result<T, Status>>) -> Result<(), Status> {
    let answer = timeout(ANSWER_WITHIN, call).await;
    let late = |_| Err(Status::deadline_exceeded("the mailbox does not answer"));
    answer.unwrap_or_else(late).map(drop)
}

pub(super) fn desc(id: [u8; 64]) -> CipherBoxDesc {
    CipherBoxDesc {
        stream_id: id.to_vec(),
    }
}

fn auth(id: [u8; 64]) -> CipherBoxAuth {
    CipherBoxAuth {
        desc: Some(desc(id)),
        auth: Some(Auth::LndAuth(LndAuth {})),
    }
}

/// Connections of a host to one mailbox, as many as its guests need.
pub struct Pool {
    mailbox: Address,
    options: DialOptions,
    connections: Mutex<Vec<Weak<Client>>>,
}

impl Pool {
    /// To the mailbox at `address`, with `hashmail+` or `lnc+` before its scheme. Nothing is dialled yet.
    ///
    /// # Errors
    /// [`LinkError::Address`] when it is another carrier's.
    pub fn new(address: &Address, options: DialOptions) -> Result<Pool, LinkError> {
        let (_, mailbox) = super::below(address).ok_or_else(|| LinkError::Address {
            address: address.to_string(),
            reason: "a hashmail mailbox is written as hashmail+grpcs://host:port or lnc+grpcs://host:port".into(),
        })?;
        Ok(Pool {
            mailbox,
            options,
            connections: Mutex::default(),
        })
    }

    /// The mailbox's authority, for logs.
    pub fn authority(&self) -> &str {
        self.mailbox.authority()
    }

    /// A connection that has room for one more guest, or a new one. It counts for the guest, and is closed when its last one drops it.
    pub(super) async fn share(&self) -> Result<Arc<Client>, LinkError> {
        // One guest connects, and the others wait for its connection.
        let mut connections = self.connections.lock().await;
        connections.retain(|it| it.strong_count() > 0);
        let has_room = |it: &&Weak<Client>| it.strong_count() < GUESTS_PER_CONNECTION;
        if let Some(client) = connections.iter().find(has_room).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let connected = timeout(
            CONNECT_WITHIN,
            Client::connect(&self.mailbox, &self.options),
        );
        let connected = connected
            .await
            .unwrap_or_else(|_| Err(super::unreachable(&self.mailbox, "it does not answer")));
        let client = Arc::new(connected?);
        connections.push(Arc::downgrade(&client));
        Ok(client)
    }

    /// Deletes streams at which nobody is expected any more.
    pub async fn delete(&self, streams: &Streams) {
        if let Ok(client) = self.share().await {
            client.delete(streams).await;
        }
    }
}
