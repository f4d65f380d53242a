//! The two streams of a connection at a mailbox, opened again when they break: what is lost meanwhile, go-back-N sends again.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use longhand_lnc::{Role, Streams};
use longhand_proto::hashmail::CipherBox;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::client::{Client, Messages, desc};

/// Packets between the pump and HTTP/2.
const QUEUE: usize = 16;
/// The pause before a stream is opened again doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The time for the last packets.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Wire {
    pub reader: Reader,
    pub writer: Writer,
}

impl Wire {
    pub fn new(role: Role, client: &Client, streams: &Streams) -> Wire {
        let (read, write) = match role {
            Role::Client => (streams.to_client, streams.to_server),
            Role::Server => (streams.to_server, streams.to_client),
        };
        // The host makes the streams: a phone that finds none knows that its host is away.
        let makes = (role == Role::Server).then_some(*streams);
        Wire {
            reader: Reader {
                client: client.clone(),
                id: read,
                makes,
                answers: None,
                state: Reading::Paused(Instant::now()),
                pause: FIRST_PAUSE,
            },
            writer: Writer {
                client: client.clone(),
                id: write,
                makes,
                is_missing: false,
                open: None,
                after: Instant::now(),
                pause: FIRST_PAUSE,
            },
        }
    }
}

/// Nobody has made the stream.
pub(super) fn is_not_found(status: &Status) -> bool {
    status.message().contains("stream not found")
}

/// Another connection has the stream's end: that of this phone before it lost its network, which the mailbox may not have seen.
pub(super) fn is_occupied(status: &Status) -> bool {
    status.message().contains("stream occupied")
}

/// Reads one stream.
pub(super) struct Reader {
    client: Client,
    id: [u8; 64],
    makes: Option<Streams>,
    /// Whether the mailbox answers.
    answers: Option<Arc<watch::Sender<bool>>>,
    state: Reading,
    pause: Duration,
}

enum Reading {
    Paused(Instant),
    Opening(BoxFuture<'static, Result<Messages, Status>>),
    Open(Messages),
}

impl Reader {
    /// Says there whether the mailbox answers.
    pub fn report(&mut self, answers: Arc<watch::Sender<bool>>) {
        self.answers = Some(answers);
    }

    /// The next packet, or the reason for which the stream has broken: the next call opens it again. May be cancelled.
    pub async fn next(&mut self) -> Result<Vec<u8>, Status> {
        loop {
            let ended = match &mut self.state {
                Reading::Paused(until) => {
                    sleep_until(*until).await;
                    self.state = Reading::Opening(self.open());
                    continue;
                }
                Reading::Opening(opening) => match opening.await {
                    Ok(stream) => {
                        self.state = Reading::Open(stream);
                        continue;
                    }
                    Err(status) => status,
                },
                Reading::Open(stream) => match stream.next().await {
                    Some(Ok(message)) => {
                        self.pause = FIRST_PAUSE;
                        return Ok(message.msg);
                    }
                    None => Status::unavailable("the mailbox has closed the stream"),
                    Some(Err(status)) => status,
                },
            };
            if let Some(answers) = &self.answers {
                answers.send_replace(false);
            }
            self.state = Reading::Paused(Instant::now() + self.pause);
            self.pause = LONGEST_PAUSE.min(self.pause * 2);
            return Err(ended);
        }
    }

    fn open(&self) -> BoxFuture<'static, Result<Messages, Status>> {
        let (client, id, makes) = (self.client.clone(), self.id, self.makes);
        let answers = self.answers.clone();
        Box::pin(async move {
            if let Some(streams) = makes {
                client.create(&streams).await?;
                if let Some(answers) = answers {
                    answers.send_replace(true);
                }
            }
            client.receive(id).await
        })
    }
}

/// Writes one stream.
pub(super) struct Writer {
    client: Client,
    id: [u8; 64],
    makes: Option<Streams>,
    /// The mailbox did not have the stream the last time: whoever makes it makes it again.
    is_missing: bool,
    open: Option<Sending>,
    after: Instant,
    pause: Duration,
}

struct Sending {
    packets: mpsc::Sender<CipherBox>,
    call: BoxFuture<'static, Result<(), Status>>,
}

impl Writer {
    /// With a packet to write: returns when it can be written. Without one: only when the stream has broken. The next call opens it again.
    /// May be cancelled.
    ///
    /// # Errors
    /// The reason for which the stream has broken.
    pub async fn ready(&mut self, has_packet: bool) -> Result<(), Status> {
        let ended = match (&mut self.open, has_packet) {
            (None, false) => return std::future::pending().await,
            (Some(sending), false) => (&mut sending.call).await,
            (_, true) => {
                let sending = self.opened().await;
                tokio::select! {
                    biased;
                    ended = &mut sending.call => ended,
                    _ = sending.packets.reserve() => return Ok(()),
                }
            }
        };
        self.open = None;
        self.after = Instant::now() + self.pause;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        let ended = match ended {
            Ok(()) => Status::unavailable("the mailbox has closed the stream"),
            Err(status) => status,
        };
        self.is_missing = is_not_found(&ended);
        Err(ended)
    }

    async fn opened(&mut self) -> &mut Sending {
        if self.open.is_none() {
            sleep_until(self.after).await;
        }
        self.open.get_or_insert_with(|| {
            let (packets, leaving) = mpsc::channel(QUEUE);
            let client = self.client.clone();
            let makes = self.makes.filter(|_| self.is_missing);
            let call = async move {
                if let Some(streams) = makes {
                    client.create(&streams).await?;
                }
                client.send(ReceiverStream::new(leaving)).await
            };
            let call = Box::pin(call);
            Sending { packets, call }
        })
    }

    /// Writes a packet, after [`Writer::ready`].
    pub fn put(&mut self, packet: Vec<u8>) {
        if let Some(sending) = &self.open {
            let message = CipherBox {
                desc: Some(desc(self.id)),
                msg: packet,
            };
            // A packet that finds no room is lost, as one that the network loses.
            let _ = sending.packets.try_send(message);
        }
    }

    /// The stream works: the next time it breaks, it is opened again soon.
    pub fn works(&mut self) {
        self.pause = FIRST_PAUSE;
    }

    /// Sends what was put, and closes the stream.
    pub async fn finish(&mut self) {
        let Some(Sending { packets, call }) = self.open.take() else {
            return;
        };
        drop(packets);
        if let Ok(Err(status)) = timeout(FINISH_WITHIN, call).await
            && status.code() != Code::Cancelled
        {
            tracing::debug!(
                "the last packets may not have reached the mailbox: {}",
                status.message()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures::stream::pending;
    use longhand_lnc::Streams;

    use super::super::client::{Calls, ConnectMailbox};
    use super::*;
    use crate::carrier::DialOptions;
    use crate::{Address, LinkError};

    /// A mailbox that shows what it was sent.
    #[derive(Clone, Default)]
    struct Mailbox(Arc<Mutex<HashSet<[u8; 64]>>>, Arc<Mutex<Vec<Vec<u8>>>>);

    #[async_trait]
    impl Calls for Mailbox {
        async fn create(&self, id: [u8; 64]) -> Result<(), Status> {
            match self.0.lock().unwrap().insert(id) {
                true => Ok(()),
                false => Err(Status::already_exists("stream already active")),
            }
        }

        async fn delete(&self, id: [u8; 64]) -> Result<(), Status> {
            self.0.lock().unwrap().remove(&id);
            Ok(())
        }

        async fn receive(&self, _: [u8; 64]) -> Result<Messages, Status> {
            Ok(pending().boxed())
        }

        async fn send(&self, mut messages: ReceiverStream<CipherBox>) -> Result<(), Status> {
            while let Some(message) = messages.next().await {
                let id = message.desc.unwrap().stream_id;
                if !self.0.lock().unwrap().contains(id.as_slice()) {
                    return Err(Status::unknown("stream not found"));
                }
                self.1.lock().unwrap().push(message.msg);
            }
            Ok(())
        }
    }

    #[async_trait]
    impl ConnectMailbox for Mailbox {
        async fn connect(&self, _: &Address) -> Result<Arc<dyn Calls>, LinkError> {
            Ok(Arc::new(self.clone()))
        }
    }

    async fn wire(role: Role, mailbox: &Mailbox) -> Wire {
        let options = DialOptions {
            hashmail: Some(Arc::new(mailbox.clone())),
            ..DialOptions::default()
        };
        let address = "grpc://relay:1".parse().unwrap();
        let client = Client::connect(&address, &options).await.unwrap();
        Wire::new(role, &client, &Streams::of(b"secret"))
    }

    /// Until it has arrived.
    async fn write(writer: &mut Writer, packet: &[u8]) -> Result<(), Status> {
        writer.ready(true).await?;
        writer.put(packet.to_vec());
        tokio::select! {
            biased;
            broken = writer.ready(false) => broken,
            () = tokio::task::yield_now() => Ok(()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_the_mailbox_has_removed_is_made_again_by_the_host_that_writes_it() {
        let mailbox = Mailbox::default();
        let mut writer = wire(Role::Server, &mailbox).await.writer;
        let lost = write(&mut writer, b"lost").await.unwrap_err();
        assert!(is_not_found(&lost));
        write(&mut writer, b"arrives").await.unwrap();
        assert_eq!(*mailbox.1.lock().unwrap(), [b"arrives"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_phone_makes_no_streams() {
        let mailbox = Mailbox::default();
        let mut writer = wire(Role::Client, &mailbox).await.writer;
        for _ in 0..2 {
            let lost = write(&mut writer, b"lost").await.unwrap_err();
            assert!(is_not_found(&lost));
        }
        assert!(mailbox.0.lock().unwrap().is_empty());
    }
}
