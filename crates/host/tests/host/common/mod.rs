//! Hosts whose chain source is down: for tests that need no nodes.
#![allow(clippy::unwrap_used, dead_code)]

use longhand_host::client::Client;
use longhand_host::{Host, HostConfig};
use longhand_link::PairingCode;
use longhand_proto::operator::CreateOwnerRequest;
use longhand_testkit::host;

/// A configuration on free ports, in `dir`, with a chain source where nothing listens.
pub fn config(dir: &tempfile::TempDir) -> HostConfig {
    let mut config = host::config(&dir.path().join("host"));
    config.metrics.listen = "127.0.0.1:0".into();
    config.chain.bitcoind.url = "http://127.0.0.1:1".into();
    config
}

/// A host whose chain source is down, with its operator.
pub async fn host_without_chain(config: HostConfig) -> (Host, Client) {
    let host = Host::start(config.clone()).await.unwrap();
    let client = host::operator(&host, &config).await.unwrap();
    (host, client)
}

/// The addresses on which the host listens for phones, all carriers of each port.
pub fn listening(host: &Host) -> Vec<String> {
    let addresses = &host.addresses().unwrap().link;
    addresses.iter().map(ToString::to_string).collect()
}

/// Creates an owner, and returns the code that the operator would show.
pub async fn create_owner(operator: &mut Client, name: &str) -> PairingCode {
    let request = CreateOwnerRequest {
        name: name.into(),
        ..CreateOwnerRequest::default()
    };
    let code = operator.create_owner(request).await.unwrap().into_inner();
    code.code.parse().unwrap()
}
