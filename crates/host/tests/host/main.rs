//! A host, from outside: its start, its nodes, its links and what uses them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alone;
mod apps;
mod carriers;
mod common;
mod embed;
mod hub;
mod links;
mod mailbox;
mod nodes;
mod start;
