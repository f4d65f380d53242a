//! Lightning nodes on a server, whose keys stay on their owners' phones: the library of the three programs that take part.
//!
//! | you build | begin at | feature | example |
//! |---|---|---|---|
//! | a host, which runs the nodes of many owners | [`Host::builder`] | `host` | `examples/host.rs` |
//! | a phone or a wallet, which has an owner's keys | [`Phone`] | `phone` | `examples/phone.rs` |
//! | a signer of your own, for one node in your process | [`node::Node`] | `signer` | `examples/signer.rs` |
//!
//! **Who commands a node?** Its owner, from the phone: [`Phone`] has the commands (`balance`, `channels`, `pay`, `invoice`, `open`,
//! `close`, `address`) and a stream of [`PhoneEvent`]s, records what the owner wants before it asks for it, and checks the host's answers. A host cannot command an
//! owner's node. Its own node, the hub, is a [`Node`] with the same commands ([`Host::hub`]), and so is a node that your program
//! runs with a signer of its own. [`Operator`] has the requests of a host's operator: owners, their nodes, the host's state.
//!
//! Amounts are integers whose unit is in their name. Every error has a code (`PhoneError::code`, `CommandError::code`, ...), which
//! never changes, and one line of text for a person.
//!
//! The crates behind it are modules here: [`chain`] (where blocks come from), [`store`] (where a host keeps its state), [`link`] (how
//! phones reach a host), [`host`], [`phone`], [`node`], [`signer`] and [`messages`].

#[cfg(any(feature = "host", feature = "signer", feature = "devnet"))]
pub use longhand_chain as chain;
#[cfg(feature = "host")]
pub use longhand_host as host;
#[cfg(any(feature = "host", feature = "phone"))]
pub use longhand_link as link;
#[cfg(feature = "phone")]
pub use longhand_phone as phone;
#[cfg(feature = "signer")]
pub use longhand_signer as signer;
#[cfg(any(feature = "host", feature = "signer"))]
pub use {longhand_node as node, longhand_proto as messages, longhand_store as store};

pub use bitcoin;

#[cfg(feature = "host")]
pub use longhand_host::{Host, HostBuilder, HostConfig, HostError, Operator, OperatorError};
#[cfg(any(feature = "host", feature = "signer"))]
pub use longhand_node::typed::{
    Balance, Channel, CommandError, Invoice, Node, OpenChannel, OpenedChannel, Payment,
};
#[cfg(feature = "phone")]
pub use longhand_phone::{
    Birthday, DialOptions, Passphrase, Phone, PhoneError, PhoneEvent, Secrets, Vault, VaultError,
    Words,
};

/// The examples of the project's README.
#[cfg(all(doctest, feature = "host", feature = "phone"))]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
