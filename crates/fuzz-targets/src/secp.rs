//! The secp256k1 context, for signatures by the targets themselves.

use std::sync::OnceLock;

use bitcoin::secp256k1::{All, Secp256k1};

/// Made once: that takes longer than its use.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static SECP: OnceLock<Secp256k1<All>> = OnceLock::new();
    SECP.get_or_init(Secp256k1::new)
}
