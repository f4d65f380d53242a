//! A phone, a peer, and a channel between them.
#![allow(unused_imports)]

pub use longhand_lying_host::scene::*;
