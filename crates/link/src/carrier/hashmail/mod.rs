//! Carriers through a hashmail mailbox: aperture's, or a Longhand mailbox's that speaks its protocol. Host and phone both dial out to it, and
//! exchange packets of go-back-N (`longhand_lnc`) over two streams that nobody else can find.
//!
//! - `hashmail+grpcs://relay.example:443`: records of the link, which are encrypted already.
//! - `lnc+grpcs://relay.example:443`: the same inside the encryption of Lightning Node Connect. Ten words pair a phone here.
//!
//! From the outside in:
//! - [`Hashmail`] (the phone) and [`HashmailListener`] (the host) make carriers of connections.
//! - [`Door`] waits at a mailbox for one guest: a phone, or an app of Lightning Node Connect.
//! - `pump` is the shell around [`longhand_lnc::Connection`]; `client` has the calls to a mailbox, and `wire` a connection's two streams.

mod bytes;
mod client;
mod dial;
mod door;
mod listen;
mod pump;
mod wire;

use longhand_lnc::Streams;
pub use longhand_lnc::{Phrase, PhraseError, PublicKey, SecretKey};

use crate::{Address, LinkError, Rendezvous};

pub use bytes::into_bytes;
pub use client::{
    Calls, Client, ConnectMailbox, KEEP_ALIVE_AFTER, KEEP_ALIVE_WITHIN, Messages, Pool,
};
pub use dial::{Connected, Hashmail, connect_by_key, connect_by_words, pairing_code};
pub use door::{Arrival, Door};
pub use listen::HashmailListener;

/// What stands before the scheme of a mailbox's own address.
const PLAIN: &str = "hashmail+";
const LNC: &str = "lnc+";

/// What is sent in packets of go-back-N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The link's records.
    Plain,
    /// The link's records in messages of Lightning Node Connect.
    Lnc,
}

/// The mailbox's own address, and what is exchanged there; `None` when the address is that of another carrier.
pub(super) fn below(address: &Address) -> Option<(Layer, Address)> {
    let scheme = address.scheme();
    let (layer, scheme) = match (scheme.strip_prefix(PLAIN), scheme.strip_prefix(LNC)) {
        (Some(below), _) => (Layer::Plain, below),
        (None, Some(below)) => (Layer::Lnc, below),
        (None, None) => return None,
    };
    let is_known = ["grpc", "grpcs"].contains(&scheme);
    let below = Address::new(scheme, address.authority()).ok()?;
    is_known.then_some((layer, below))
}

/// Whether the address is one of these carriers.
pub fn is_hashmail(address: &Address) -> bool {
    below(address).is_some()
}

/// Whether ten words can pair a phone at this address.
pub fn is_lnc(address: &Address) -> bool {
    below(address).is_some_and(|(layer, _)| layer == Layer::Lnc)
}

/// The streams of those who share `meeting`, at the mailbox with this authority: at each mailbox others, so that no two can see that they
/// serve the same phone.
fn plain_streams(meeting: &Rendezvous, authority: &str) -> Streams {
    let authority = authority.to_ascii_lowercase();
    Streams::of(&meeting.derive("longhand hashmail streams", authority.as_bytes())[..])
}

fn unreachable(address: &Address, reason: impl Into<String>) -> LinkError {
    LinkError::Unreachable {
        address: address.to_string(),
        reason: reason.into(),
    }
}
