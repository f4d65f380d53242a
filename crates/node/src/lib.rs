//! One Lightning node, on LDK, whose keys may live elsewhere.
//!
//! A [`Node`] runs on [`Services`]: a store, a chain, a shared [`Graph`] and a [`Dialer`]. Its keys are either the seed of
//! its own, or the [`Registration`] of an owner whose keys live on a phone. In the second case a [`SignerTransport`] is
//! attached whenever the phone is there, and taken away when it is not.
//!
//! From the outside in:
//! - [`typed`]: a node's commands with types. `node.rs`: the handle. `api/`: the types around it.
//! - `driver/`: the task around one node, with clock, store, chain, signer and sockets.
//! - `machine/`: the node as a deterministic value, without I/O. Start reading here.
//! - `parts/`: the parts of the machine, one file each: openings, claims, payments, ...
//! - `ldk/`: LDK's objects and adapters, with the message gate. `keys/`: the signer proxy. `wallet/`, `onchain.rs`: the
//!   on-chain wallet. `graph/`: the network graph.
//! - `store/`: every record, and the writes of a turn.

mod api;
mod driver;
mod errors;
mod graph;
mod hex;
mod keys;
mod ldk;
mod machine;
mod node;
mod onchain;
mod parts;
mod store;
pub mod typed;
mod wallet;

pub use api::{
    Dialer, Forward, ForwardingFees, Forwards, Keys, NodeConfig, NodeError, NodeEvent, Overview,
    PeerNeeded, PeerStream, Registration, Services, SignerAway, SignerTransport, State, TcpDialer,
};
pub use graph::Graph;
pub use keys::local_node_id;
pub use node::Node;
pub use wallet::{
    BdkWallets, OnchainWallet, Replacement, SendAmount, WalletChain, WalletCoins, WalletError,
    WalletFactory, WalletSetup, WalletSigning, WalletSpends, WalletTransactions,
};

/// Whether this is a build for tests. A program for use refuses to be compiled with it.
pub const IS_FOR_TESTS: bool = cfg!(feature = "testing");
