//! The configuration of a mailbox, put together from a file, the environment and flags by [`longhand_base::settings`].
//! `docs/mailbox.example.toml` has the meaning of each key.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub use longhand_base::settings::{ConfigError, LogConfig, Settings};
use longhand_link::{Address, AddressError};
use serde::{Deserialize, Serialize};

use crate::core::Limits;
use crate::hashmail::limits::HashmailLimits;

/// The most wake calls at once that can be configured: each is a connection.
const MAX_CALLS_AT_ONCE: usize = 1_024;

/// All settings of a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailboxConfig {
    /// Whether this is one of several processes behind a load balancer that distributes streams by their route.
    pub has_routes: bool,
    /// Where clients connect.
    pub link: LinkConfig,
    /// Limits of clients.
    pub limits: Limits,
    /// The mailbox of Lightning Node Connect.
    pub hashmail: HashmailConfig,
    /// Calls for readers that are away.
    pub wake: WakeConfig,
    /// Where metrics are read.
    pub metrics: MetricsConfig,
    /// Log filter and format.
    pub log: LogConfig,
}

/// Carriers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// One address for each carrier that takes in clients, as a host's `link.listen`.
    pub listen: Vec<String>,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            listen: vec!["grpc://127.0.0.1:9760".into()],
        }
    }
}

/// The mailbox of Lightning Node Connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashmailConfig {
    /// Where its clients and servers connect; empty = nowhere.
    pub listen: Vec<String>,
    /// Limits of its boxes.
    pub limits: HashmailLimits,
}

/// The wake hook.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WakeConfig {
    /// `http` or `https`; empty = nobody is called. It may have a token: it is not for logs.
    pub url: String,
    /// How long a call may take.
    pub timeout_ms: u64,
    /// Calls at once.
    pub at_once: usize,
}

impl Default for WakeConfig {
    fn default() -> WakeConfig {
        WakeConfig {
            url: String::new(),
            timeout_ms: 10_000,
            at_once: 32,
        }
    }
}

impl WakeConfig {
    /// How long a call may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

impl fmt::Debug for WakeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = if self.url.is_empty() {
            "none"
        } else {
            "hidden"
        };
        f.debug_struct("WakeConfig")
            .field("url", &url)
            .field("timeout_ms", &self.timeout_ms)
            .field("at_once", &self.at_once)
            .finish()
    }
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
            listen: "127.0.0.1:9761".into(),
        }
    }
}

impl Settings for MailboxConfig {
    const PROGRAM: &'static str = "the mailbox";
    const ENV_PREFIX: &'static str = "LONGHAND_MAILBOX_";
    const EXAMPLE: &'static str = "docs/mailbox.example.toml";

    fn check(&self) -> Result<(), ConfigError> {
        self.link_listen()?;
        self.hashmail_listen()?;
        self.metrics_listen()?;
        if let Some((key, least)) = self.limits.too_small() {
            let text = format!("limits.{key} is too small: give it at least {least}");
            return Err(ConfigError::Invalid(text));
        }
        if let Some(fault) = self.hashmail.limits.fault() {
            return Err(ConfigError::Invalid(format!("hashmail.limits.{fault}")));
        }
        let url = &self.wake.url;
        let is_url = ["http://", "https://"].iter().any(|it| url.starts_with(it));
        if !url.is_empty() && !is_url {
            let text = "wake.url is no URL: give one that begins with https://, or none";
            return Err(ConfigError::Invalid(text.into()));
        }
        if self.wake.timeout_ms == 0 {
            let text = "wake.timeout_ms is 0: give it at least 1";
            return Err(ConfigError::Invalid(text.into()));
        }
        if !(1..=MAX_CALLS_AT_ONCE).contains(&self.wake.at_once) {
            let text = format!("wake.at_once is not between 1 and {MAX_CALLS_AT_ONCE}");
            return Err(ConfigError::Invalid(text));
        }
        Ok(())
    }
}

impl MailboxConfig {
    /// Where carriers take in clients; at least one address. Which schemes there are is known to the program's
    /// [`longhand_link::Carriers`].
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn link_listen(&self) -> Result<Vec<Address>, ConfigError> {
        let listen = &self.link.listen;
        if listen.is_empty() {
            let text =
                "link.listen is empty: give at least one address, such as grpc://127.0.0.1:9760";
            return Err(ConfigError::Invalid(text.into()));
        }
        parse_addresses("link.listen", listen)
    }

    /// Where the mailbox of Lightning Node Connect is reached, if anywhere.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn hashmail_listen(&self) -> Result<Vec<Address>, ConfigError> {
        parse_addresses("hashmail.listen", &self.hashmail.listen)
    }

    /// Where metrics are served, if anywhere.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
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
}

fn parse_addresses(key: &str, texts: &[String]) -> Result<Vec<Address>, ConfigError> {
    let parse = |text: &String| {
        text.parse().map_err(|error: AddressError| {
            ConfigError::Invalid(format!("{key} has {text:?}: {error}"))
        })
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::path::Path;

    use longhand_base::settings::known_keys;

    use super::*;

    fn load(env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<MailboxConfig, String> {
        let owned = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = list.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        MailboxConfig::load(None, owned(env), owned(flags)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_example_file_holds_every_key_with_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mailbox.example.toml");
        let config = MailboxConfig::load(Some(&path), [], []).unwrap();
        assert_eq!(config, MailboxConfig::default());
        let text = std::fs::read_to_string(&path).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        for (key, default) in known_keys::<MailboxConfig>().unwrap() {
            let mut value = Some(toml::Value::Table(table.clone()));
            for part in key.split('.') {
                value = value.and_then(|value| value.get(part).cloned());
            }
            assert_eq!(value, Some(default), "{key} is missing or differs");
        }
    }

    #[test]
    fn a_flag_overrides_the_environment() {
        let env = [
            ("LONGHAND_MAILBOX_LIMITS_ENDS", "5"),
            ("LONGHAND_MAILBOX_LIMITS_QUEUE_S", "6"),
            ("LONGHAND_HOST_LINK_GRACE_MS", "of another program"),
        ];
        let config = load(&env, &[("limits.ends", "7")]).unwrap();
        assert_eq!((config.limits.ends, config.limits.queue_s), (7, 6));
    }

    #[test]
    fn what_is_unknown_or_cannot_work_is_refused_by_name() {
        let prefixed = load(&[("LONGHAND_MAILBOX_LIMIT", "1")], &[]).unwrap_err();
        let expected = "LONGHAND_MAILBOX_LIMIT is no setting of the mailbox";
        assert!(prefixed.contains(expected), "{prefixed}");
        for (key, value, expected) in [
            ("link.listen", "", "link.listen is empty"),
            ("link.listen", "here", "link.listen has"),
            ("metrics.listen", "here", "metrics.listen"),
            ("hashmail.listen", "here", "hashmail.listen has"),
            (
                "hashmail.limits.boxes",
                "0",
                "hashmail.limits.boxes is too small",
            ),
            (
                "hashmail.limits.message_bytes",
                "5000000",
                "hashmail.limits.message_bytes is above 4194304",
            ),
            (
                "hashmail.limits.total_bytes",
                "5000000",
                "hashmail.limits.total_bytes is too small: give it at least 8388608",
            ),
            (
                "limits.queue_bytes",
                "1000",
                "limits.queue_bytes is too small",
            ),
            ("limits.ends", "0", "limits.ends is too small"),
            (
                "limits.total_bytes",
                "70000",
                "limits.total_bytes is too small",
            ),
            ("limits.ends", "-1", "invalid value"),
            ("wake.url", "ftp://push", "wake.url is no URL"),
            ("wake.timeout_ms", "0", "wake.timeout_ms is 0"),
            ("wake.at_once", "0", "wake.at_once"),
            (
                "lmits.ends",
                "1",
                "docs/mailbox.example.toml lists them all",
            ),
        ] {
            let error = load(&[], &[(key, value)]).expect_err(expected);
            assert!(error.contains(expected), "{error:?} has no {expected:?}");
            assert!(!error.contains('\n'), "{error:?} is one line");
        }
    }

    #[test]
    fn the_wake_url_does_not_show() {
        let config = load(&[], &[("wake.url", "https://push.example/?token=t")]).unwrap();
        assert!(!format!("{config:?}").contains("token"));
    }
}
