//! The records of a node in its namespace of the store: `schema.rs` has every key and record, `journal.rs` a turn's writes.

pub(crate) mod journal;
pub(crate) mod schema;
