//! The `tor` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Tor, by a process of its own that the host starts (`longhand tor`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TorSettings {
    /// Starts it. Peers at onion addresses are then dialled.
    pub enabled: bool,
    /// Phones reach the host at an onion service, whose address stands in pairing codes.
    pub links: bool,
    /// Peers reach the hub at another onion service, whose address the hub announces.
    pub peers: bool,
    /// All outgoing connections go through Tor, but those to this machine and to private addresses.
    pub all_outgoing: bool,
    /// Only phones of this host, and holders of its pairing codes, find the onion services for phones: one for each hundred owners.
    pub restricted_discovery: bool,
    /// How long an outgoing connection through Tor to a peer or to the chain source may take.
    pub connect_timeout_ms: u64,
    /// The program that is started with the argument `tor`; empty = this one.
    pub program: PathBuf,
    /// A file of Arti's configuration (TOML), for another network than the public one; empty = none.
    pub network_file: PathBuf,
}

impl Default for TorSettings {
    fn default() -> TorSettings {
        TorSettings {
            enabled: false,
            links: true,
            peers: false,
            all_outgoing: false,
            restricted_discovery: false,
            connect_timeout_ms: 60_000,
            program: PathBuf::new(),
            network_file: PathBuf::new(),
        }
    }
}

impl TorSettings {
    /// A setting that would be ignored, and whose loss the operator would not see.
    pub(super) fn without_effect(&self) -> Option<&'static str> {
        let needs_tor = [
            ("tor.all_outgoing", self.all_outgoing),
            ("tor.peers", self.peers),
            ("tor.restricted_discovery", self.restricted_discovery),
        ];
        let found = needs_tor
            .iter()
            .find(|(_, is_set)| *is_set && !self.enabled);
        found.map(|(setting, _)| *setting)
    }

    /// Whether phones come by Tor.
    pub fn takes_links(&self) -> bool {
        self.enabled && self.links
    }
}
