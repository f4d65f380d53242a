//! The cases, by subject.

pub(crate) mod balance;
pub(crate) mod chain;
pub(crate) mod closing;
pub(crate) mod commitment;
mod filters;
mod forced;
mod gossip;
mod handshakes;
pub(crate) mod incoming;
mod paying;
mod revocation;
pub(crate) mod seen;
pub(crate) mod setup;

use crate::Case;

pub(crate) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(setup::cases());
    all.extend(commitment::cases());
    all.extend(balance::cases());
    all.extend(paying::cases());
    all.extend(revocation::cases());
    all.extend(closing::cases());
    all.extend(forced::cases());
    all.extend(chain::cases());
    all.extend(gossip::cases());
    all.extend(handshakes::cases());
    all.extend(incoming::cases());
    all.extend(seen::cases());
    all.extend(filters::cases());
    all
}
