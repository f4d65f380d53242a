//! A host's configuration file.

use std::io::Write;

use longhand_host::{ConfigError, HostConfig};

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(config) = load(data) else { return };
    let _ = (config.operator_listen(), config.metrics_listen());
    let printed = toml::to_string(&config).expect("a configuration can be printed");
    let again = load(printed.as_bytes()).expect("a printed configuration can be read");
    // All but the password, which is not printed.
    let mut expected = config;
    let again_password = &again.chain.bitcoind.password;
    expected.chain.bitcoind.password = again_password.clone();
    assert_eq!(again, expected);
}

fn load(text: &[u8]) -> Result<HostConfig, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("there is room");
    file.write_all(text).expect("there is room");
    HostConfig::load(Some(file.path()), [], [])
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let example = include_bytes!("../../../docs/host.example.toml");
    let short = b"network = 'signet'\n[link]\ngrace_ms = 1\naddresses = ['grpc://a:1']\n[chain.bitcoind]\npassword = 'x'";
    vec![example.to_vec(), short.to_vec(), Vec::new()]
}
