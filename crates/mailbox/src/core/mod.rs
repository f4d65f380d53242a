//! The relay without I/O: connections, streams and their queues as one value. Requests and the time go in; replies, and what
//! the shell has to do, come out. It knows no wire format (that is [`crate::protocol`]), no socket, no task and no clock.
//!
//! - `relay.rs`: [`Relay`], and the rules of attaching and ending. `relay/queues.rs`: sending, and where there is room.
//! - `stream.rs`: a stream, its two ends and their queues. `connection.rs`: a client's connection.
//! - `limits.rs`: [`Limits`]. `rates.rs`: token buckets. `networks.rs`: the accounts of source networks.
//!
//! A message is stored once, in the queue of the end that it is for, whether that end has a reader or not. The reader's
//! connection has a list of its ends with something to send; each is served one message in turn ([`Relay::take`]). So a
//! connection has no outbox that one of its streams could fill.

mod connection;
mod limits;
mod networks;
pub(crate) mod rates;
mod relay;
mod stream;

use std::fmt;
use std::time::Duration;

use longhand_link::carrier::MAX_MESSAGE;
use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};

pub use limits::{Limits, MESSAGE_BYTES};
pub use relay::Relay;

/// Time since the relay began. It never goes back.
pub type Time = Duration;

/// The longest payload of a message, in bytes: with its head it fits into a carrier's message, whatever its handle.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - 32;

/// One connection of a client. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// A client's request, already authenticated: a protocol makes [`Request::Attach`] and [`Request::Delete`] only for a client that
/// has proved its right to the stream on this connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads at one end of a stream, and writes to the other. Creates the stream when there is none.
    Attach {
        /// The client's name for it on this connection.
        handle: u32,
        /// The stream.
        stream: StreamId,
        /// Where it reads.
        end: End,
    },
    /// Ends an attachment.
    Detach {
        /// Of the attachment.
        handle: u32,
    },
    /// Drops all that waits in a stream, and ends both attachments.
    Delete {
        /// The stream.
        stream: StreamId,
    },
    /// Sends one message to the other end.
    Send {
        /// Of the attachment.
        handle: u32,
        /// At most [`MAX_PAYLOAD`] bytes.
        payload: Vec<u8>,
    },
    /// Asks for a [`Reply::Pong`].
    Ping,
    /// Answers a [`Reply::Ping`].
    Pong,
    /// A request that the protocol refuses.
    Refused {
        /// The handle of the request; 0 when it has none.
        handle: u32,
        /// Why: [`Code::BadSignature`] or [`Code::BadRequest`].
        code: Code,
    },
}

/// One reply to a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// The client reads at this end now.
    Attached {
        /// Of the attachment.
        handle: u32,
        /// Whether the other end has a reader.
        is_met: bool,
    },
    /// The attachment has ended, or the request was refused.
    Ended {
        /// Of the attachment or the request.
        handle: u32,
        /// Why.
        code: Code,
    },
    /// Asks for a [`Request::Pong`].
    Ping,
    /// Answers a [`Request::Ping`].
    Pong,
    /// A message from the other end.
    Data {
        /// Of the attachment.
        handle: u32,
        /// As it was sent.
        payload: Vec<u8>,
    },
}

/// Why an attachment ended, or a request was refused. The names are an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A newer attachment reads at the same end.
    TakenOver,
    /// A holder of the key has deleted the stream.
    Deleted,
    /// Too much waits for a reader that is away or slow.
    Overflow,
    /// The signature is not by the stream's key for this connection.
    BadSignature,
    /// The request cannot be carried out as it is.
    BadRequest,
    /// A limit of the mailbox or of the client's network is reached.
    Full,
    /// Much more was sent than the stream's key may.
    TooFast,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 7] = [
        Code::TakenOver,
        Code::Deleted,
        Code::Overflow,
        Code::BadSignature,
        Code::BadRequest,
        Code::Full,
        Code::TooFast,
    ];

    /// As it is sent.
    pub fn as_str(self) -> &'static str {
        use longhand_proto::Code as Name;
        let name = match self {
            Code::TakenOver => Name::TakenOver,
            Code::Deleted => Name::Deleted,
            Code::Overflow => Name::Overflow,
            Code::BadSignature => Name::BadSignature,
            Code::BadRequest => Name::BadRequest,
            Code::Full => Name::Full,
            Code::TooFast => Name::TooFast,
        };
        name.as_str()
    }

    /// One line for a person.
    pub fn message(self) -> &'static str {
        match self {
            Code::TakenOver => "a newer connection with the same key reads here: only one can",
            Code::Deleted => "the stream was deleted with its key: attach again to make a new one",
            Code::Overflow => {
                "too much waits for the other side, which is away or slow: attach again and begin anew"
            }
            Code::BadSignature => {
                "the signature is not by this key for this connection: sign this connection's nonce"
            }
            Code::BadRequest => {
                "the request has an unknown handle, one in use, or a field that cannot be: look at the client's version"
            }
            Code::Full => {
                "the mailbox has no room for this, or none for this network: try again later"
            }
            Code::TooFast => "more was sent than one key may: attach again and send slower",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When the next request of a connection may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Now,
    /// Not before this time.
    At(Time),
    /// When the client has read more of its replies: the connection is then in [`Output::readable`].
    AfterReplies,
    /// Never: the connection is closed.
    Closed,
}

/// What the shell has to do, in no particular order among the lists.
#[derive(Debug, Default)]
pub struct Output {
    /// Connections with something to send: [`Relay::take`] has it.
    pub writable: Vec<ConnectionId>,
    /// Connections that were [`Pace::AfterReplies`] and may be read again.
    pub readable: Vec<ConnectionId>,
    /// Connections to close: the relay knows them no longer.
    pub closed: Vec<ConnectionId>,
    /// The next tick is due sooner than it was.
    pub is_sooner: bool,
    /// For logs, metrics and the wake hook.
    pub events: Vec<Event>,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message waits at an end that has no reader.
    Waits {
        /// The stream.
        stream: StreamId,
        /// The end.
        end: End,
        /// The network that caused it: that of the sender, or of the reader that left.
        by: Option<SourceNetwork>,
    },
    /// Attachments of a stream were ended by the relay.
    Ended {
        /// The stream.
        stream: StreamId,
        /// Why.
        code: Code,
    },
    /// A request was refused, or a connection.
    Refused {
        /// Why.
        code: Code,
    },
    /// A connection was closed: it had no attached end for too long; nothing came of it any more, not even a [`Request::Pong`]; or
    /// it had not taken a message when there was no room for others.
    Silent,
    /// Messages that waited too long for a reader were dropped.
    Expired {
        /// How many.
        messages: u64,
    },
}

/// How much there is now, and how much was moved since the relay began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections.
    pub connections: usize,
    /// Attached ends of streams.
    pub ends: usize,
    /// Streams with an attached end or a message.
    pub streams: usize,
    /// Bytes in all queues and in messages that are being sent, with [`MESSAGE_BYTES`] for each.
    pub queued_bytes: usize,
    /// Messages given to readers.
    pub moved_messages: u64,
    /// Bytes of their payloads.
    pub moved_bytes: u64,
}

#[cfg(test)]
mod tests;
