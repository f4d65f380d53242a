//! The `chain` section: the kind of chain source, and one table for each kind.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Password;

/// Settings that were renamed, with the new name of each.
pub(super) const RENAMED: [(&str, &str); 4] = [
    ("chain.url", "chain.bitcoind.url"),
    ("chain.user", "chain.bitcoind.user"),
    ("chain.password", "chain.bitcoind.password"),
    ("chain.cookie_file", "chain.bitcoind.cookie_file"),
];

/// The chain source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainConfig {
    /// Which source is used; its table below has the settings, those of other kinds are ignored.
    pub kind: ChainKind,
    /// Interval at which the source is polled for a new tip, in milliseconds.
    pub poll_ms: u64,
    /// Settings of `kind = "bitcoind"`.
    pub bitcoind: BitcoindConfig,
}

impl Default for ChainConfig {
    fn default() -> ChainConfig {
        ChainConfig {
            kind: ChainKind::Bitcoind,
            poll_ms: 1_000,
            bitcoind: BitcoindConfig::default(),
        }
    }
}

/// A kind of chain source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum ChainKind {
    /// Bitcoin Core's JSON-RPC.
    Bitcoind,
}

impl ChainKind {
    /// Every kind.
    pub const ALL: [ChainKind; 1] = [ChainKind::Bitcoind];

    /// The name in the configuration, which is also that of the kind's table.
    pub fn name(self) -> &'static str {
        match self {
            ChainKind::Bitcoind => "bitcoind",
        }
    }
}

impl From<ChainKind> for &'static str {
    fn from(kind: ChainKind) -> &'static str {
        kind.name()
    }
}

impl FromStr for ChainKind {
    type Err = String;

    fn from_str(name: &str) -> Result<ChainKind, String> {
        let found = ChainKind::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            let known = ChainKind::ALL.map(ChainKind::name).join(", ");
            format!("chain.kind is {name:?}, which this host does not know: give one of {known}")
        })
    }
}

impl TryFrom<String> for ChainKind {
    type Error = String;

    fn try_from(name: String) -> Result<ChainKind, String> {
        name.parse()
    }
}

/// Bitcoin Core's JSON-RPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BitcoindConfig {
    /// `http://host:port`.
    pub url: String,
    /// With `password`; empty when there is a cookie.
    pub user: String,
    /// See `user`.
    pub password: Password,
    /// Path of Bitcoin Core's cookie file; empty = user and password.
    pub cookie_file: PathBuf,
}

impl Default for BitcoindConfig {
    fn default() -> BitcoindConfig {
        BitcoindConfig {
            url: "http://127.0.0.1:18443".into(),
            user: String::new(),
            password: Password::default(),
            cookie_file: PathBuf::new(),
        }
    }
}
