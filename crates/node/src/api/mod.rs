//! The public types around a [`Node`](crate::Node).

mod config;
mod dialer;
mod error;
mod events;
mod hub;
mod signer;

pub use config::{Keys, NodeConfig, Registration, Services};
pub use dialer::{Dialer, PeerStream, TcpDialer};
pub use error::NodeError;
pub use events::{NodeEvent, Overview, PeerNeeded, State};
pub use hub::{Forward, ForwardingFees, Forwards};
pub use signer::{SignerAway, SignerTransport};
