//! The messages that cross a border between processes, and limits that both sides of it check.
//!
//! Generated from the `.proto` files beside this crate, which define each field.
//! `docs/PROTOCOL.md` describes their use.
//!
//! - [`link`]: the frames inside a link's Noise session, and the gRPC carrier.
//! - [`signer`]: operations that a node requests from its owner's phone.
//! - [`command`]: commands that a phone sends to its node.
//! - [`operator`]: the host's operator API.

/// The least capacity of a channel that an owner may open, in satoshis: below it, fees and reserves leave nothing to pay with.
/// A node refuses less; a phone refuses it before it asks its node.
pub const MIN_CHANNEL_SAT: u64 = 20_000;

/// Frames of a link, and the gRPC service that carries them.
#[allow(missing_docs, clippy::all)]
pub mod link {
    tonic::include_proto!("longhand.link.v1");
}

/// Operations of the signer.
#[allow(missing_docs, clippy::all)]
pub mod signer {
    tonic::include_proto!("longhand.signer.v1");
}

/// Commands of an owner.
#[allow(missing_docs, clippy::all)]
pub mod command {
    tonic::include_proto!("longhand.command.v1");
}

/// The host's operator API.
#[allow(missing_docs, clippy::all)]
pub mod operator {
    tonic::include_proto!("longhand.operator.v1");
}
