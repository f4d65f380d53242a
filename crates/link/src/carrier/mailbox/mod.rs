//! The mailbox carrier: both ends dial out to a relay, and meet there in a stream that nobody else can find.
//!
//! - [`stream`]: keys, ids and signatures of streams. The relay, `crates/mailbox`, checks them.

pub mod stream;
