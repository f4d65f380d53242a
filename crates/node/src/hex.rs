//! Bytes as lower-case hexadecimal text: how ids and hashes stand in the store's keys.

use bitcoin::hex::{DisplayHex, FromHex};

/// `bytes` as lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.to_lower_hex_string()
}

/// The 32 bytes that `text` stands for; `None` for anything else.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    FromHex::from_hex(text).ok()
}
