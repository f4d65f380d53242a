//! LDK's objects as this crate instantiates them.
//!
//! - `objects.rs`: all of them, loaded from the store and written with each turn.
//! - `adapters.rs`: broadcaster, fee rates, chain filter, settings.
//! - `gate.rs`: between LDK's peers and its channel manager.
//! - `persister.rs`: writing channel monitors. `socket.rs`: a connection as LDK sees it. `logger.rs`: LDK's log.

pub(crate) mod adapters;
pub(crate) mod gate;
pub(crate) mod logger;
pub(crate) mod objects;
pub(crate) mod persister;
pub(crate) mod socket;
pub(crate) mod types;
