//! How a host is set up: the configuration with its defaults, and how it is put together from a file, the
//! environment and flags, each of which overrides the one before. `docs/host.example.toml` has
//! the meaning of each key.
//!
//! Keys are known by their dotted names (`link.listen`); the environment has them in upper case with
//! underscores (`LONGHAND_HOST_LINK_LISTEN`). An unknown key is an error that names it.

mod chain;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use longhand_link::{Address, AddressError, PairingCode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

pub use self::chain::{BitcoindConfig, ChainConfig, ChainKind};

/// Prefix of the host's environment variables.
pub const ENV_PREFIX: &str = "LONGHAND_HOST_";

/// All settings of a host. `HostConfig::default()` has the value of each key that is not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Directory of all files of the host; made when it is missing, readable by its user alone.
    pub data_dir: PathBuf,
    /// The chain's network.
    pub network: Network,
    /// The chain source.
    pub chain: ChainConfig,
    /// Where phones attach.
    pub link: LinkConfig,
    /// The host's own node.
    pub hub: HubConfig,
    /// Where peers of the hub connect.
    pub peer: PeerConfig,
    /// Where the operator's API listens.
    pub operator: OperatorConfig,
    /// Where metrics are read.
    pub metrics: MetricsConfig,
    /// How phones are woken.
    pub wake: WakeConfig,
    /// Log filter and format.
    pub log: LogConfig,
}

impl Default for HostConfig {
    fn default() -> HostConfig {
        HostConfig {
            data_dir: PathBuf::from("longhand-host"),
            network: Network::Regtest,
            chain: ChainConfig::default(),
            link: LinkConfig::default(),
            hub: HubConfig::default(),
            peer: PeerConfig::default(),
            operator: OperatorConfig::default(),
            metrics: MetricsConfig::default(),
            wake: WakeConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// Links of phones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// One address for each carrier that takes in phones: `grpc://ip:port`, or `grpcs://ip:port?certificate=PATH&key=PATH` with
    /// TLS below the link's own encryption. See [`HostConfig::link_listen`].
    #[serde(deserialize_with = "list_of_addresses")]
    pub listen: Vec<String>,
    /// Addresses in pairing codes, as phones reach them; empty = those of the listeners. Those of `mailboxes` follow them.
    pub addresses: Vec<String>,
    /// Relays at which the host waits for its phones, as `mailbox+wss://host:port`: it dials them, so that it needs no open port.
    pub mailboxes: Vec<String>,
    /// A file with certificates (PEM) to trust at mailboxes, rather than the web's authorities; empty = none.
    pub mailbox_ca_file: PathBuf,
    /// Heartbeats on an idle link; dead after two missed.
    pub heartbeat_ms: u32,
    /// How long a lost link may stay away with everything kept.
    pub grace_ms: u64,
    /// How long a pairing code is taken.
    pub pairing_expires_s: u32,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            listen: vec!["grpc://127.0.0.1:9750".into()],
            addresses: Vec::new(),
            mailboxes: Vec::new(),
            mailbox_ca_file: PathBuf::new(),
            heartbeat_ms: 10_000,
            grace_ms: 3_000,
            pairing_expires_s: 3_600,
        }
    }
}

/// The hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// Announced alias, at most 32 bytes.
    pub alias: String,
    /// Announced addresses, `host:port`.
    pub announce: Vec<String>,
    /// The file with the hub's seed; empty = `hub.seed` in the data directory.
    pub seed_file: PathBuf,
    /// How long a payment waits for a phone to wake up.
    pub hold_ms: u64,
    /// Kept on chain for each channel, to pay for its forced close; channels beyond that are refused. 0 = none is.
    pub reserve_sat_per_channel: u64,
}

impl Default for HubConfig {
    fn default() -> HubConfig {
        HubConfig {
            alias: "longhand".into(),
            announce: Vec::new(),
            seed_file: PathBuf::new(),
            hold_ms: 60_000,
            reserve_sat_per_channel: 10_000,
        }
    }
}

/// Lightning peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// Where the hub's peers connect.
    pub listen: SocketAddr,
    /// How long an outgoing connection may take.
    pub connect_timeout_ms: u64,
    /// Takes payments that no invoice asks for (keysend), for the hub and all owners.
    pub accept_keysend: bool,
    /// Networks that owners' nodes may dial beside the public internet, as `10.1.0.0/16`. On regtest they dial everywhere.
    pub allow_networks: Vec<ipnet::IpNet>,
}

impl Default for PeerConfig {
    fn default() -> PeerConfig {
        PeerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9735)),
            connect_timeout_ms: 10_000,
            accept_keysend: false,
            allow_networks: Vec::new(),
        }
    }
}

/// The operator's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorConfig {
    /// `unix:PATH` (relative to the data directory), or a loopback address, which then asks for a token.
    pub listen: String,
    /// The file with the token; empty = `operator.token` in the data directory.
    pub token_file: PathBuf,
}

impl Default for OperatorConfig {
    fn default() -> OperatorConfig {
        OperatorConfig {
            listen: "unix:operator.sock".into(),
            token_file: PathBuf::new(),
        }
    }
}

/// Where an operator's API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorListen {
    /// A Unix socket.
    Unix(PathBuf),
    /// Loopback TCP.
    Tcp(SocketAddr),
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where `/metrics` is served over HTTP; empty = nowhere.
    pub listen: String,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        MetricsConfig {
            listen: "127.0.0.1:9751".into(),
        }
    }
}

/// Waking phones by webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WakeConfig {
    /// How many blocks before the deadline of an HTLC the phone is called.
    pub before_blocks: u32,
    /// Pause after the first call; each further pause is twice as long.
    pub first_pause_ms: u64,
    /// The longest pause.
    pub max_pause_ms: u64,
    /// How long the webhook may take to answer.
    pub timeout_ms: u64,
    /// The most calls of one owner's phone for payments that the hub holds, in an hour. Those for deadlines are not limited.
    pub per_hour: u32,
}

impl Default for WakeConfig {
    fn default() -> WakeConfig {
        WakeConfig {
            before_blocks: 72,
            first_pause_ms: 2_000,
            max_pause_ms: 60_000,
            timeout_ms: 10_000,
            per_hour: 60,
        }
    }
}

/// Logs, to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Filter as of the `tracing` crates, such as `info,longhand_node=debug`.
    pub filter: String,
    /// One JSON object a line.
    pub json: bool,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            filter: "info".into(),
            json: false,
        }
    }
}

/// Reads `link.listen`, which was a single address without a scheme in earlier versions.
fn list_of_addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Vec::deserialize(from).map_err(|_| {
        let expected = "a list of addresses with schemes, such as [\"grpc://127.0.0.1:9750\"]";
        D::Error::custom(format!("link.listen is {expected}"))
    })
}

/// A password that is not shown in logs. Zeroized when dropped.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Password {
        Password(Zeroizing::new(text))
    }
}

impl From<Password> for String {
    /// Serialized without its content: a configuration that is written out is for people to read.
    fn from(_: Password) -> String {
        String::new()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

impl HostConfig {
    /// The configuration of `file` (the defaults without one), overridden by the host's variables in `env`, then by
    /// `flags`, pairs of a dotted key and its value. Paths in the file are relative to the working directory.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file or variable and the key.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<HostConfig, ConfigError> {
        let known = known_keys()?;
        let mut table = match file {
            Some(path) => read_file(path)?,
            None => toml::Table::new(),
        };
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            let key = known.iter().find(|(key, _)| env_name(key) == rest);
            let (key, default) = key.ok_or_else(|| unknown_variable(&name, rest))?;
            set(&mut table, key, parse(default, &value, &name)?);
        }
        for (key, value) in flags {
            let found = known.iter().find(|(known, _)| *known == key);
            let (_, default) = found.ok_or_else(|| unknown_key(&key))?;
            set(&mut table, &key, parse(default, &value, &key)?);
        }
        let config: HostConfig = table
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError::Invalid(one_line(e.message())))?;
        config.check()?;
        Ok(config)
    }

    /// Refuses settings that cannot work, before anything is started.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let invalid = |text: &str| Err(ConfigError::Invalid(text.into()));
        self.operator_listen()?;
        self.metrics_listen()?;
        self.link_listen()?;
        let link = &self.link;
        self.link_mailboxes()?;
        let addresses = [&link.addresses[..], &link.mailboxes[..]].concat();
        if !PairingCode::has_room_for(&addresses) {
            return invalid(
                "link.addresses and link.mailboxes do not fit into a pairing code: give fewer, or shorter ones",
            );
        }
        if self.chain.fallback_feerate_sat_per_vb > chain::MAX_FALLBACK_SAT_PER_VB {
            return Err(ConfigError::Invalid(format!(
                "chain.fallback_feerate_sat_per_vb is above {}: look at the unit",
                chain::MAX_FALLBACK_SAT_PER_VB
            )));
        }
        if self.hub.alias.len() > 32 {
            return invalid("hub.alias is longer than the 32 bytes that BOLT 7 has for it");
        }
        let positive = [
            ("chain.poll_ms", self.chain.poll_ms),
            ("link.heartbeat_ms", link.heartbeat_ms.into()),
            ("link.pairing_expires_s", link.pairing_expires_s.into()),
            ("peer.connect_timeout_ms", self.peer.connect_timeout_ms),
            ("wake.first_pause_ms", self.wake.first_pause_ms),
            ("wake.max_pause_ms", self.wake.max_pause_ms),
            ("wake.timeout_ms", self.wake.timeout_ms),
            ("wake.per_hour", self.wake.per_hour.into()),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(ConfigError::Invalid(format!(
                "{key} is 0: give it at least 1"
            ))),
            None => Ok(()),
        }
    }

    /// Where carriers take in phones; at least one address, or a mailbox. Which schemes there are is known to the host's
    /// [`longhand_link::Carriers`].
    pub fn link_listen(&self) -> Result<Vec<Address>, ConfigError> {
        let listen = &self.link.listen;
        if listen.is_empty() && self.link.mailboxes.is_empty() {
            let text = "link.listen is empty: give at least one address, such as grpc://127.0.0.1:9750, or a mailbox in \
                        link.mailboxes";
            return Err(ConfigError::Invalid(text.into()));
        }
        addresses("link.listen", listen)
    }

    /// The mailboxes at which the host waits for its phones.
    pub fn link_mailboxes(&self) -> Result<Vec<Address>, ConfigError> {
        addresses("link.mailboxes", &self.link.mailboxes)
    }

    /// Where the operator's API listens.
    pub fn operator_listen(&self) -> Result<OperatorListen, ConfigError> {
        if let Some(path) = self.operator.listen.strip_prefix("unix:") {
            return Ok(OperatorListen::Unix(self.data_dir.join(path)));
        }
        let invalid = || {
            ConfigError::Invalid(format!(
                "operator.listen is {:?}: give unix:PATH, or a loopback address with a port",
                self.operator.listen
            ))
        };
        let address: SocketAddr = self.operator.listen.parse().map_err(|_| invalid())?;
        match address.ip().is_loopback() {
            true => Ok(OperatorListen::Tcp(address)),
            false => Err(invalid()),
        }
    }

    /// Where metrics are served, if anywhere.
    pub fn metrics_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let text = &self.metrics.listen;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            ConfigError::Invalid(format!(
                "metrics.listen is {text:?}: give an address and a port"
            ))
        })
    }

    /// The file with the hub's seed.
    pub fn hub_seed_file(&self) -> PathBuf {
        self.file_or(&self.hub.seed_file, "hub.seed")
    }

    /// The file with the operator's token.
    pub fn operator_token_file(&self) -> PathBuf {
        self.file_or(&self.operator.token_file, "operator.token")
    }

    /// The file with the host's static key for links.
    pub fn link_key_file(&self) -> PathBuf {
        self.data_dir.join("link.key")
    }

    /// The database.
    pub fn database_file(&self) -> PathBuf {
        self.data_dir.join("host.db")
    }

    fn file_or(&self, configured: &Path, default: &str) -> PathBuf {
        match configured.as_os_str().is_empty() {
            true => self.data_dir.join(default),
            false => configured.to_owned(),
        }
    }
}

/// The addresses of a setting.
fn addresses(key: &str, texts: &[String]) -> Result<Vec<Address>, ConfigError> {
    let parse = |text: &String| {
        text.parse().map_err(|error: AddressError| {
            ConfigError::Invalid(format!("{key} has {text:?}: {error}"))
        })
    };
    texts.iter().map(parse).collect()
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read ({reason}): check the path")]
    Unreadable {
        /// As given.
        path: String,
        /// The file system's error.
        reason: String,
    },
    /// The file is not TOML, or has a key that is unknown or of the wrong type.
    #[error("the configuration {path} is refused: {reason}")]
    File {
        /// As given.
        path: String,
        /// Line, key and fault.
        reason: String,
    },
    /// A variable with the host's prefix that is no key.
    #[error("the environment variable {0} is no setting of the host: check its spelling")]
    UnknownVariable(String),
    /// A flag that sets no key.
    #[error("{0} is no setting of the host: docs/host.example.toml lists them all")]
    UnknownKey(String),
    /// A key, or the variable of a key, that has another name now.
    #[error("{old} is called {new} now: rename it")]
    Renamed {
        /// As given.
        old: String,
        /// The name now.
        new: String,
    },
    /// A value that its key does not take.
    #[error("{0}")]
    Invalid(String),
}

fn unknown_variable(name: &str, rest: &str) -> ConfigError {
    match chain::RENAMED.iter().find(|(old, _)| env_name(old) == rest) {
        Some((_, new)) => ConfigError::Renamed {
            old: name.to_owned(),
            new: format!("{ENV_PREFIX}{}", env_name(new)),
        },
        None => ConfigError::UnknownVariable(name.to_owned()),
    }
}

fn unknown_key(key: &str) -> ConfigError {
    match chain::RENAMED.iter().find(|(old, _)| *old == key) {
        Some((old, new)) => ConfigError::Renamed {
            old: (*old).to_owned(),
            new: (*new).to_owned(),
        },
        None => ConfigError::UnknownKey(key.to_owned()),
    }
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
        path: shown.clone(),
        reason: e.to_string(),
    })?;
    let refused = |e: toml::de::Error| {
        let line = e
            .span()
            .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        ConfigError::File {
            path: shown.clone(),
            reason: place + &one_line(e.message()),
        }
    };
    let table: toml::Table = toml::from_str(&text).map_err(refused)?;
    let renamed = chain::RENAMED.iter().find(|(old, _)| has(&table, old));
    if let Some((old, _)) = renamed {
        return Err(ConfigError::File {
            reason: unknown_key(old).to_string(),
            path: shown,
        });
    }
    // Parsed from the text once more: only then do errors have their line.
    toml::from_str::<HostConfig>(&text).map_err(refused)?;
    Ok(table)
}

/// Whether a table has a dotted key.
fn has(table: &toml::Table, key: &str) -> bool {
    match key.split_once('.') {
        None => table.contains_key(key),
        Some((section, rest)) => {
            let inner = table.get(section).and_then(toml::Value::as_table);
            inner.is_some_and(|inner| has(inner, rest))
        }
    }
}

/// Every key with its default, in dotted form. All keys have one, so the defaults list them all.
fn known_keys() -> Result<Vec<(String, toml::Value)>, ConfigError> {
    fn walk(prefix: &str, table: toml::Table, into: &mut Vec<(String, toml::Value)>) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}.{name}")
            };
            match value {
                toml::Value::Table(inner) => walk(&key, inner, into),
                leaf => into.push((key, leaf)),
            }
        }
    }
    let defaults = toml::Table::try_from(HostConfig::default())
        .map_err(|e| ConfigError::Invalid(e.to_string()))?;
    let mut keys = Vec::new();
    walk("", defaults, &mut keys);
    Ok(keys)
}

fn env_name(key: &str) -> String {
    key.replace('.', "_").to_uppercase()
}

/// Reads text as the type that the key's default has; lists are separated by commas.
fn parse(default: &toml::Value, text: &str, name: &str) -> Result<toml::Value, ConfigError> {
    let wrong = |expected: &str| ConfigError::Invalid(format!("{name} is not {expected}"));
    match default {
        toml::Value::Integer(_) => text
            .parse()
            .map(toml::Value::Integer)
            .map_err(|_| wrong("a whole number")),
        toml::Value::Boolean(_) => text
            .parse()
            .map(toml::Value::Boolean)
            .map_err(|_| wrong("true or false")),
        toml::Value::Array(_) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Ok(toml::Value::Array(
                items.map(|item| item.to_owned().into()).collect(),
            ))
        }
        _ => Ok(toml::Value::String(text.to_owned())),
    }
}

/// Sets a dotted key.
fn set(table: &mut toml::Table, key: &str, value: toml::Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                .as_table_mut();
            if let Some(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
