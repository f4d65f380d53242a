//! Settings of a program: the defaults, a file (TOML), the environment and flags, each of which overrides the one before.
//!
//! Keys are known by their dotted names (`link.listen`); the environment has them in upper case with underscores and the
//! program's prefix (`LONGHAND_HOST_LINK_LISTEN`). An unknown key is an error that names it.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// All settings of a program. The default has the value of each key that is not given, and so lists all keys.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// The program, as in "no setting of the host".
    const PROGRAM: &'static str;
    /// Prefix of its environment variables.
    const ENV_PREFIX: &'static str;
    /// The document that lists its settings.
    const EXAMPLE: &'static str;
    /// Keys that were renamed, with the new name of each.
    const RENAMED: &'static [(&'static str, &'static str)] = &[];

    /// Refuses settings that cannot work, before anything is started.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key.
    fn check(&self) -> Result<(), ConfigError>;

    /// The settings of `file` (the defaults without one), overridden by the program's variables in `env`, then by `flags`, pairs
    /// of a dotted key and its value. Paths in the file are relative to the working directory.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file or variable and the key.
    fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let known = known_keys::<Self>()?;
        let mut table = match file {
            Some(path) => read_file::<Self>(path)?,
            None => Table::new(),
        };
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(Self::ENV_PREFIX) else {
                continue;
            };
            let key = known.iter().find(|(key, _)| env_name(key) == rest);
            let (key, default) = key.ok_or_else(|| unknown_variable::<Self>(&name, rest))?;
            set(&mut table, key, parse(default, &value, &name)?);
        }
        for (key, value) in flags {
            let found = known.iter().find(|(known, _)| *known == key);
            let (_, default) = found.ok_or_else(|| unknown_key::<Self>(&key))?;
            set(&mut table, &key, parse(default, &value, &key)?);
        }
        let settings: Self = table
            .try_into()
            .map_err(|e: toml::de::Error| ConfigError::Invalid(one_line(e.message())))?;
        settings.check()?;
        Ok(settings)
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// A variable with the program's prefix that is no key.
    #[error("the environment variable {name} is no setting of {program}: check its spelling")]
    UnknownVariable {
        /// As given.
        name: String,
        /// The program.
        program: &'static str,
    },
    /// A flag that sets no key.
    #[error("{key} is no setting of {program}: {example} lists them all")]
    UnknownKey {
        /// As given.
        key: String,
        /// The program.
        program: &'static str,
        /// The document that lists its settings.
        example: &'static str,
    },
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

/// Every key with its default, in dotted form.
///
/// # Errors
/// [`ConfigError::Invalid`] when the defaults cannot be written as TOML.
pub fn known_keys<S: Settings>() -> Result<Vec<(String, Value)>, ConfigError> {
    fn walk(prefix: &str, table: Table, into: &mut Vec<(String, Value)>) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}.{name}")
            };
            match value {
                Value::Table(inner) => walk(&key, inner, into),
                leaf => into.push((key, leaf)),
            }
        }
    }
    let defaults =
        Table::try_from(S::default()).map_err(|e| ConfigError::Invalid(e.to_string()))?;
    let mut keys = Vec::new();
    walk("", defaults, &mut keys);
    Ok(keys)
}

/// A key as it stands in the name of its variable, after the prefix.
pub fn env_name(key: &str) -> String {
    key.replace('.', "_").to_uppercase()
}

fn unknown_variable<S: Settings>(name: &str, rest: &str) -> ConfigError {
    match S::RENAMED.iter().find(|(old, _)| env_name(old) == rest) {
        Some((_, new)) => ConfigError::Renamed {
            old: name.to_owned(),
            new: format!("{}{}", S::ENV_PREFIX, env_name(new)),
        },
        None => ConfigError::UnknownVariable {
            name: name.to_owned(),
            program: S::PROGRAM,
        },
    }
}

fn unknown_key<S: Settings>(key: &str) -> ConfigError {
    match S::RENAMED.iter().find(|(old, _)| *old == key) {
        Some((old, new)) => ConfigError::Renamed {
            old: (*old).to_owned(),
            new: (*new).to_owned(),
        },
        None => ConfigError::UnknownKey {
            key: key.to_owned(),
            program: S::PROGRAM,
            example: S::EXAMPLE,
        },
    }
}

fn read_file<S: Settings>(path: &Path) -> Result<Table, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
        path: shown.clone(),
        reason: e.to_string(),
    })?;
    let refused = |e: toml::de::Error| {
        let before = e.span().and_then(|span| text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let place = line
            .map(|line| format!("line {line}: "))
            .unwrap_or_default();
        ConfigError::File {
            path: shown.clone(),
            reason: place + &one_line(e.message()),
        }
    };
    let table: Table = toml::from_str(&text).map_err(refused)?;
    let renamed = S::RENAMED.iter().find(|(old, _)| has(&table, old));
    if let Some((old, _)) = renamed {
        return Err(ConfigError::File {
            reason: unknown_key::<S>(old).to_string(),
            path: shown,
        });
    }
    // Parsed from the text once more: only then do errors have their line.
    toml::from_str::<S>(&text).map_err(refused)?;
    Ok(table)
}

/// Whether a table has a dotted key.
fn has(table: &Table, key: &str) -> bool {
    match key.split_once('.') {
        None => table.contains_key(key),
        Some((section, rest)) => {
            let inner = table.get(section).and_then(Value::as_table);
            inner.is_some_and(|inner| has(inner, rest))
        }
    }
}

/// Reads text as the type that the key's default has; lists are separated by commas.
fn parse(default: &Value, text: &str, name: &str) -> Result<Value, ConfigError> {
    let wrong = |expected: &str| ConfigError::Invalid(format!("{name} is not {expected}"));
    match default {
        Value::Integer(_) => text
            .parse()
            .map(Value::Integer)
            .map_err(|_| wrong("a whole number")),
        Value::Boolean(_) => text
            .parse()
            .map(Value::Boolean)
            .map_err(|_| wrong("true or false")),
        Value::Array(_) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Ok(Value::Array(
                items.map(|item| item.to_owned().into()).collect(),
            ))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Sets a dotted key.
fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()))
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Bakery {
        name: String,
        oven: Oven,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Oven {
        degrees: u32,
        is_hot: bool,
        loaves: Vec<String>,
    }

    impl Default for Bakery {
        fn default() -> Bakery {
            Bakery {
                name: "corner".into(),
                oven: Oven::default(),
            }
        }
    }

    impl Default for Oven {
        fn default() -> Oven {
            Oven {
                degrees: 200,
                is_hot: false,
                loaves: Vec::new(),
            }
        }
    }

    impl Settings for Bakery {
        const PROGRAM: &'static str = "the bakery";
        const ENV_PREFIX: &'static str = "BAKERY_";
        const EXAMPLE: &'static str = "bakery.toml";
        const RENAMED: &'static [(&'static str, &'static str)] = &[("heat", "oven.degrees")];

        fn check(&self) -> Result<(), ConfigError> {
            match self.oven.degrees {
                0 => Err(ConfigError::Invalid("oven.degrees is 0: heat it".into())),
                _ => Ok(()),
            }
        }
    }

    fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Bakery, String> {
        let owned = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = list.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings.toml");
        std::fs::write(&path, file).unwrap();
        Bakery::load(Some(&path), owned(env), owned(flags)).map_err(|e| e.to_string())
    }

    #[test]
    fn each_source_overrides_the_one_before() {
        let file = "name = 'file'\n[oven]\ndegrees = 1\nloaves = ['rye']";
        let env = [
            ("BAKERY_OVEN_DEGREES", "2"),
            ("BAKERY_OVEN_IS_HOT", "true"),
            ("PATH", "/bin"),
        ];
        let flags = [("oven.degrees", "3"), ("oven.loaves", "rye, oat")];
        let expected = Bakery {
            name: "file".into(),
            oven: Oven {
                degrees: 3,
                is_hot: true,
                loaves: vec!["rye".into(), "oat".into()],
            },
        };
        assert_eq!(load(file, &env, &flags), Ok(expected));
        assert_eq!(load("", &[], &[]), Ok(Bakery::default()));
    }

    #[test]
    fn a_key_that_is_unknown_renamed_or_refused_is_named_with_its_place() {
        let file = |text| load(text, &[], &[]).unwrap_err();
        let unknown = file("\n[oven]\nheight = 1");
        assert!(
            unknown.contains("line 3: unknown field `height`"),
            "{unknown}"
        );
        assert!(file("heat = 1").ends_with("heat is called oven.degrees now: rename it"));
        assert_eq!(file("oven.degrees = 0"), "oven.degrees is 0: heat it");
        let variable = |name| load("", &[(name, "1")], &[]).unwrap_err();
        let unknown = variable("BAKERY_OWEN");
        assert!(
            unknown.contains("BAKERY_OWEN is no setting of the bakery"),
            "{unknown}"
        );
        let renamed = "BAKERY_HEAT is called BAKERY_OVEN_DEGREES now: rename it";
        assert_eq!(variable("BAKERY_HEAT"), renamed);
        let flag = |key, value| load("", &[], &[(key, value)]).unwrap_err();
        let unknown = "owen is no setting of the bakery: bakery.toml lists them all";
        assert_eq!(flag("owen", "1"), unknown);
        assert_eq!(
            flag("oven.degrees", "hot"),
            "oven.degrees is not a whole number"
        );
    }
}
