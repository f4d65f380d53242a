//! The messages, generated from `proto/`. Names, numbers and types are lnd's (v0.21); the selection of fields is ours.
#![allow(missing_docs, clippy::doc_markdown)]

/// The package `lnrpc`.
pub mod lnrpc {
    include!(concat!(env!("OUT_DIR"), "/lnrpc.rs"));
}

/// The package `routerrpc`.
pub mod routerrpc {
    include!(concat!(env!("OUT_DIR"), "/routerrpc.rs"));
}

/// The package `invoicesrpc`.
pub mod invoicesrpc {
    include!(concat!(env!("OUT_DIR"), "/invoicesrpc.rs"));
}

/// The package `walletrpc`.
pub mod walletrpc {
    include!(concat!(env!("OUT_DIR"), "/walletrpc.rs"));
}
