//! The shell around a [`Connection`]: moves packets between it and the mailbox, and messages between it and the ends of a carrier.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use longhand_base::text::excerpt;
use longhand_lnc::{Connection, Ended, Over, Peer};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use super::wire::{Wire, is_not_found, is_occupied};
use crate::{Carrier, CarrierError, RecordStream};

/// Messages between the pump and the carrier.
const QUEUE: usize = 16;
/// The time in which what was sent has to be acknowledged once the carrier is dropped.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// The time for the last packets.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The reason for which a pump has stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("{0}")]
    Ended(Ended),
    /// Before the first packet.
    #[error("{}", said(.0))]
    Mailbox(Box<Status>),
}

impl Stopped {
    /// Nobody waits there.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Stopped::Mailbox(status) if is_not_found(status))
    }
}

/// One line of what a mailbox has answered.
fn said(status: &Status) -> String {
    if is_not_found(status) {
        return "the host is not at the mailbox for this phone: it is away, or has paired another phone".into();
    }
    match status.message() {
        "" => format!("the mailbox answers {:?}", status.code()),
        message => format!("the mailbox answers: {}", excerpt(message)),
    }
}

/// See the module.
pub(super) struct Pump {
    connection: Connection,
    pub wire: Wire,
    /// A packet that waits for the mailbox.
    packet: Option<Vec<u8>>,
    /// Whether a packet of the other end has come: from then on a stream that breaks is opened again until the other end is silent.
    has_received: bool,
    /// The packet that belongs to the next connection.
    next_call: Option<Vec<u8>>,
}

impl Pump {
    pub fn new(connection: Connection, wire: Wire) -> Pump {
        Pump {
            connection,
            wire,
            packet: None,
            has_received: false,
            next_call: None,
        }
    }

    pub fn peer(&self) -> Option<&Peer> {
        self.connection.peer()
    }

    /// Takes a packet that was read before.
    pub fn received(&mut self, packet: Vec<u8>) {
        self.has_received = true;
        self.connection.received(now(), &packet);
        if self.connection.ended() == Some(Ended::Over(Over::Restarted)) {
            self.next_call = Some(packet);
        }
    }

    /// Runs until messages can be sent.
    pub async fn until_ready(&mut self) -> Result<(), Stopped> {
        while !self.connection.is_ready() {
            if let Some(ended) = self.connection.ended() {
                return Err(Stopped::Ended(ended));
            }
            self.turn().await?;
        }
        Ok(())
    }

    /// Moves messages of a carrier until its ends are dropped, or the connection ends.
    pub async fn run(&mut self, mut carrier: Ends) -> Stopped {
        let stopped = self.moved(&mut carrier).await;
        if !matches!(
            stopped,
            Stopped::Ended(Ended::Over(Over::ByPeer | Over::Closed))
        ) {
            // Set once: the carrier is gone after it.
            let _ = carrier.reason.set(stopped.to_string());
        }
        stopped
    }

    async fn moved(&mut self, carrier: &mut Ends) -> Stopped {
        let mut message = None;
        let mut close_by = None;
        loop {
            if message.is_none() {
                match self.connection.next_message() {
                    Ok(next) => message = next,
                    Err(ended) => return Stopped::Ended(ended),
                }
            }
            if let (None, Some(ended)) = (&message, self.connection.ended()) {
                return Stopped::Ended(ended);
            }
            if let Some(by) = close_by
                && (self.connection.is_all_acknowledged() || Instant::now() >= by)
            {
                self.connection.close();
                return Stopped::Ended(Ended::Over(Over::Closed));
            }
            let may_send = close_by.is_none() && self.connection.has_room();
            tokio::select! {
                biased;
                permit = carrier.received.reserve(), if message.is_some() => {
                    match (permit, message.take()) {
                        (Ok(permit), Some(message)) => permit.send(message.to_vec()),
                        // Nobody reads any more.
                        _ => message = None,
                    }
                }
                sent = carrier.sent.recv(), if may_send => match sent {
                    Some(sent) => if let Err(error) = self.connection.send(now(), &sent) {
                        tracing::debug!(%error, "a message was not sent through the mailbox");
                        self.connection.close();
                    },
                    None => close_by = Some(Instant::now() + CLOSE_WITHIN),
                },
                () = sleep_until(close_by.unwrap_or_else(Instant::now)), if close_by.is_some() => {}
                turned = self.turn() => if let Err(stopped) = turned {
                    return stopped;
                },
            }
        }
    }

    /// Writes the last packets.
    pub async fn flush(&mut self) {
        let flushed = timeout(FLUSH_WITHIN, async {
            while let Some(packet) = self.packet.take().or_else(|| self.connection.next_packet()) {
                if self.wire.writer.ready(true).await.is_err() {
                    return;
                }
                self.wire.writer.put(packet);
            }
        });
        // The other end sees soon enough that nothing comes.
        let _ = flushed.await;
    }

    /// For the next connection: the wire, and the call that ended this one.
    pub fn into_next(self) -> (Wire, Option<Vec<u8>>) {
        (self.wire, self.next_call)
    }

    /// One packet, or what is due. May be cancelled.
    async fn turn(&mut self) -> Result<(), Stopped> {
        let (connection, wire) = (&mut self.connection, &mut self.wire);
        if self.packet.is_none() {
            self.packet = connection.next_packet();
        }
        let due = connection.next_due().map(Instant::from_std);
        let has_packet = self.packet.is_some();
        let broken = tokio::select! {
            biased;
            ready = wire.writer.ready(has_packet) => match ready {
                Ok(()) => {
                    if let Some(packet) = self.packet.take() {
                        wire.writer.put(packet);
                    }
                    return Ok(());
                }
                Err(status) => status,
            },
            packet = wire.reader.next() => match packet {
                Ok(packet) => {
                    wire.writer.works();
                    self.received(packet);
                    return Ok(());
                }
                Err(status) => status,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                connection.advance(now());
                return Ok(());
            }
        };
        if !self.has_received && !is_occupied(&broken) {
            return Err(Stopped::Mailbox(Box::new(broken)));
        }
        tracing::debug!(
            "a stream at the mailbox broke, and is opened again: {}",
            said(&broken)
        );
        Ok(())
    }
}

/// The pump's ends of a carrier.
pub(super) struct Ends {
    /// From the carrier's user.
    sent: mpsc::Receiver<Vec<u8>>,
    /// To the carrier's user.
    received: mpsc::Sender<Vec<u8>>,
    /// For which there is no message any more, when neither side has closed the connection.
    reason: Arc<OnceLock<String>>,
}

/// A carrier, and the ends that a pump moves.
pub(super) fn carrier() -> (Carrier, Ends) {
    let (sink, sent) = mpsc::channel::<Vec<u8>>(QUEUE);
    let (received, messages) = mpsc::channel::<Vec<u8>>(QUEUE);
    let reason = Arc::new(OnceLock::new());
    let stream = Received {
        messages,
        reason: reason.clone(),
    };
    let ends = Ends {
        sent,
        received,
        reason,
    };
    (Carrier::new(sink, stream), ends)
}

/// What the carrier's user receives.
struct Received {
    messages: mpsc::Receiver<Vec<u8>>,
    reason: Arc<OnceLock<String>>,
}

#[async_trait]
impl RecordStream for Received {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        match (self.messages.recv().await, self.reason.get()) {
            (Some(message), _) => Ok(Some(message)),
            (None, Some(reason)) => Err(CarrierError(reason.clone())),
            (None, None) => Ok(None),
        }
    }
}

/// The time of tokio's clock, which tests can stop.
pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}
