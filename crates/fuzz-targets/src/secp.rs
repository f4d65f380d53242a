//! The curve, for what the targets sign themselves.

use std::sync::OnceLock;

use bitcoin::secp256k1::{All, Secp256k1};

/// Made once: it takes longer than what is done with it.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static SECP: OnceLock<Secp256k1<All>> = OnceLock::new();
    SECP.get_or_init(Secp256k1::new)
}
