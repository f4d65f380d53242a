//! Protocols by which clients speak to the relay. A protocol is a value without I/O that reads a client's messages as
//! [`crate::core::Request`]s, having checked the client's right to them, and writes [`crate::core::Reply`]s.
//!
//! - [`longhand`]: streams with keys (`mailbox.proto`).
//!
//! A second one, such as hashmail, is a file here and a listener of its own in `mailbox.rs`. Its simplex stream is a stream of
//! the core with one end that is read: the writer attaches at the other end, and its id is a hash under another domain, so that
//! no such stream can be one with a key.

pub mod longhand;
