//! The records of a node in its namespace of the store: `schema.rs` has every key and record, `journal.rs` a turn's writes,
//! `history.rs` the payments that have ended.

pub(crate) mod history;
pub(crate) mod journal;
pub(crate) mod schema;
