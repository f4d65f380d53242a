//! The signer, from outside: operations of an honest and of a lying host.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod balance;
mod balance_property;
mod channel_rules;
mod closed;
mod garbage;
mod keys;
mod ledger;
mod node_key;
mod onchain;
mod payments;
