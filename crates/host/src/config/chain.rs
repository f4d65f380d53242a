//! The `chain` section: the kind of chain source, and one table for each kind.

use std::path::PathBuf;
use std::str::FromStr;

use bitcoin::Network;
use longhand_chain::{EsploraUrl, FeeRates};
use serde::{Deserialize, Serialize};

use super::{ConfigError, Password};
use crate::network::is_public;

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
    /// The fee rate that is used when the source has had no estimate for an hour, in satoshis per virtual byte; 0 =
    /// the network's default, see [`ChainConfig::fallback_sat_per_kw`].
    pub fallback_feerate_sat_per_vb: u32,
    /// Settings of `kind = "bitcoind"`.
    pub bitcoind: BitcoindConfig,
    /// Settings of `kind = "esplora"`.
    pub esplora: EsploraConfig,
}

impl Default for ChainConfig {
    fn default() -> ChainConfig {
        ChainConfig {
            kind: ChainKind::Bitcoind,
            poll_ms: 1_000,
            fallback_feerate_sat_per_vb: 0,
            bitcoind: BitcoindConfig::default(),
            esplora: EsploraConfig::default(),
        }
    }
}

/// The most that `fallback_feerate_sat_per_vb` may be: what [`FeeRates::MAX_SAT_PER_KW`] is in that unit.
pub(super) const MAX_FALLBACK_SAT_PER_VB: u32 = FeeRates::MAX_SAT_PER_KW / SAT_PER_KW_OF_SAT_PER_VB;
/// A virtual byte is four weight units.
const SAT_PER_KW_OF_SAT_PER_VB: u32 = 250;

impl ChainConfig {
    /// The fallback in satoshis per 1,000 weight units: by default 20 sat/vB, where most blocks of the last years would
    /// have taken a transaction within hours; 1 sat/vB on networks whose coins are worth nothing.
    pub fn fallback_sat_per_kw(&self, network: Network) -> u32 {
        let sat_per_vb = match (self.fallback_feerate_sat_per_vb, network) {
            (0, Network::Bitcoin) => 20,
            (0, _) => 1,
            (given, _) => given,
        };
        let sat_per_kw = sat_per_vb.saturating_mul(SAT_PER_KW_OF_SAT_PER_VB);
        sat_per_kw.clamp(FeeRates::FLOOR.minimum, FeeRates::MAX_SAT_PER_KW)
    }

    /// The Esplora server, when that is the source.
    ///
    /// # Errors
    /// When its URL is none, or what goes to it could be read and changed on the public internet.
    pub fn esplora_url(&self) -> Result<Option<EsploraUrl>, ConfigError> {
        if self.kind != ChainKind::Esplora {
            return Ok(None);
        }
        let text = &self.esplora.url;
        if text.is_empty() {
            let text = "chain.esplora.url is empty: give the address of an Esplora server";
            return Err(ConfigError::Invalid(text.into()));
        }
        // The URL itself may have a password.
        let invalid = |reason: String| ConfigError::Invalid(format!("chain.esplora.url: {reason}"));
        let url: EsploraUrl = text.parse().map_err(|e| invalid(format!("{e}")))?;
        if !url.is_https() && url.ip().is_some_and(|ip| is_public(ip.to_canonical())) {
            let text = "it is a public address over http: give one with https://";
            return Err(invalid(text.into()));
        }
        Ok(Some(url))
    }
}

/// A kind of chain source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum ChainKind {
    /// Bitcoin Core's JSON-RPC.
    Bitcoind,
    /// The REST of an Esplora server.
    Esplora,
}

impl ChainKind {
    /// Every kind.
    pub const ALL: [ChainKind; 2] = [ChainKind::Bitcoind, ChainKind::Esplora];

    /// The name in the configuration, which is also that of the kind's table.
    pub fn name(self) -> &'static str {
        match self {
            ChainKind::Bitcoind => "bitcoind",
            ChainKind::Esplora => "esplora",
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

/// An Esplora server.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EsploraConfig {
    /// The base of its REST, such as `https://blockstream.info/api`.
    pub url: String,
}

impl std::fmt::Debug for EsploraConfig {
    /// Shows no password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.parse::<EsploraUrl>().map(|url| url.to_string());
        f.debug_struct("EsploraConfig")
            .field("url", &url.unwrap_or_default())
            .finish()
    }
}
