//! The cases, by subject.

mod balance;
mod chain;
mod closing;
mod commitment;
mod incoming;
mod paying;
mod revocation;
mod setup;

use crate::Case;

pub(crate) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(setup::cases());
    all.extend(commitment::cases());
    all.extend(balance::cases());
    all.extend(paying::cases());
    all.extend(revocation::cases());
    all.extend(closing::cases());
    all.extend(chain::cases());
    all.extend(incoming::cases());
    all
}
