//! Why a request is refused or a use of a box ends, in the codes and texts that stock clients compare.

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no such box.
    NotFound,
    /// The box has been created already.
    Exists,
    /// Another reader is there.
    ReadOccupied,
    /// Another writer is there.
    WriteOccupied,
    /// A message without a descriptor.
    NoDescriptor,
    /// A descriptor without an id.
    NoId,
    /// A request without an `auth`.
    NoAuth,
    /// A limit of the mailbox, or of the client's network, is reached.
    Full,
    /// The message is too large.
    TooLarge,
    /// The message did not arrive in time.
    Late,
    /// What came is no request.
    Malformed,
    /// The reader has taken nothing for too long.
    Stuck,
    /// The mailbox ends.
    Stopping,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 13] = [
        Refusal::NotFound,
        Refusal::Exists,
        Refusal::ReadOccupied,
        Refusal::WriteOccupied,
        Refusal::NoDescriptor,
        Refusal::NoId,
        Refusal::NoAuth,
        Refusal::Full,
        Refusal::TooLarge,
        Refusal::Late,
        Refusal::Malformed,
        Refusal::Stuck,
        Refusal::Stopping,
    ];

    /// The text for the client. Stock clients look for `stream not found` and `stream occupied` in it.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::NotFound => "stream not found",
            Refusal::Exists => "stream already active",
            Refusal::ReadOccupied => "read stream occupied",
            Refusal::WriteOccupied => "write stream occupied",
            Refusal::NoDescriptor => "cipher box descriptor required",
            Refusal::NoId => "stream_id required",
            Refusal::NoAuth => "auth type required",
            Refusal::Full => {
                "the mailbox has no room for this, or none for this network: try again later"
            }
            Refusal::TooLarge => {
                "the message is larger than this mailbox allows: send smaller ones"
            }
            Refusal::Late => "the message did not arrive in time: send it again",
            Refusal::Malformed => {
                "the request cannot be read: send the JSON or protobuf of hashmailrpc"
            }
            Refusal::Stuck => "the reader has taken nothing for too long: read again",
            Refusal::Stopping => "the mailbox is stopping: try again later",
        }
    }

    /// The code of gRPC. Most are 2 (`UNKNOWN`), which is what stock servers send for an error without one.
    pub fn code(self) -> u8 {
        match self {
            Refusal::Exists => 6,
            Refusal::Full | Refusal::TooLarge => 8,
            Refusal::Malformed => 3,
            Refusal::Late => 4,
            Refusal::Stuck | Refusal::Stopping => 14,
            _ => 2,
        }
    }

    /// The status of HTTP that goes with the code of gRPC.
    pub fn http_status(self) -> u16 {
        match self.code() {
            3 => 400,
            4 => 504,
            6 => 409,
            8 => 429,
            14 => 503,
            _ => 500,
        }
    }

    /// For metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::NotFound => "not_found",
            Refusal::Exists => "exists",
            Refusal::ReadOccupied => "read_occupied",
            Refusal::WriteOccupied => "write_occupied",
            Refusal::NoDescriptor => "no_descriptor",
            Refusal::NoId => "no_id",
            Refusal::NoAuth => "no_auth",
            Refusal::Full => "full",
            Refusal::TooLarge => "too_large",
            Refusal::Late => "late",
            Refusal::Malformed => "malformed",
            Refusal::Stuck => "stuck",
            Refusal::Stopping => "stopping",
        }
    }
}
