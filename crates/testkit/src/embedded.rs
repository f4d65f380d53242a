//! A host inside a test: without sockets and on tokio's paused clock, with a devnet and a store that outlive it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_chain::Devnet;
use longhand_host::{
    Host, HostConfig, Joined, Network, Operator, PeerDial, WakeCall, WakeError, WakeUrl,
};
use longhand_link::{Carrier, LinkError, PairingCode, Rendezvous};
use longhand_node::PeerStream;
use longhand_phone::Dial;
use longhand_proto::operator::*;
use longhand_store::testing::FailingStore;
use longhand_store::{MemoryStore, Store};
use tokio::sync::mpsc;

use crate::Patience;
use crate::host::faucet;
use crate::link_phone::{LinkPhone, hand_in};
use crate::phone::registration;
use crate::vault;

/// The address in pairing codes of these hosts.
pub const ADDRESS: &str = "grpc://wallet.example:443";
/// A wake URL.
pub const PUSH: &str = "https://push.example/ann";

/// A call of a host to its network.
#[derive(Debug, PartialEq)]
pub enum NetworkCall {
    /// To this address.
    Dial(String),
    /// From one node of the host to another.
    Join(PublicKey, PublicKey),
    /// To this URL.
    Wake(WakeUrl, WakeCall),
}

/// Reports all calls to the test. Peers are other hosts; without a host a dial never returns.
struct Recorder {
    calls: mpsc::UnboundedSender<NetworkCall>,
    peer: Option<Arc<Host>>,
}

#[async_trait]
impl Network for Recorder {
    async fn dial(&self, dialled: PeerDial<'_>) -> std::io::Result<Box<dyn PeerStream>> {
        let _ = self.calls.send(NetworkCall::Dial(dialled.address.into()));
        let Some(peer) = &self.peer else {
            return std::future::pending().await;
        };
        let (near, far) = tokio::io::duplex(1024);
        peer.accept_peer(Box::new(far));
        Ok(Box::new(near))
    }

    fn join(&self, from: PublicKey, to: PublicKey) -> std::io::Result<Joined> {
        let _ = self.calls.send(NetworkCall::Join(from, to));
        let (near, far) = tokio::io::duplex(1024);
        Ok((Box::new(near), Box::new(far)))
    }

    async fn wake(&self, url: &WakeUrl, call: &WakeCall) -> Result<(), WakeError> {
        let _ = self
            .calls
            .send(NetworkCall::Wake(url.clone(), call.clone()));
        Ok(())
    }
}

/// Calls of a host to its network.
pub type NetworkCalls = mpsc::UnboundedReceiver<NetworkCall>;

/// Everything that outlives a host.
pub struct World {
    /// Mined by the test.
    pub devnet: Devnet,
    /// Of the host.
    pub store: Arc<dyn Store>,
    /// Files of the host and of phones.
    pub dir: tempfile::TempDir,
}

impl World {
    /// A chain, an empty store in memory, and an empty directory.
    #[allow(clippy::new_without_default)]
    pub fn new() -> World {
        World {
            devnet: Devnet::in_process(110).unwrap(),
            store: Arc::new(MemoryStore::new()),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// The same with a store that fails on request.
    pub fn on_a_failing_disk() -> (World, Arc<FailingStore>) {
        let disk = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
        let world = World {
            store: disk.clone(),
            ..World::new()
        };
        (world, disk)
    }

    /// A host whose hub runs.
    pub async fn host(&self, peer: Option<Arc<Host>>) -> (Host, NetworkCalls) {
        let (host, calls) = self.begin(peer).await;
        let operator = host.operator();
        until("the hub runs", async || {
            operator.hub_balance().await.is_ok()
        })
        .await;
        (host, calls)
    }

    /// A host whose nodes are being started.
    pub async fn begin(&self, peer: Option<Arc<Host>>) -> (Host, NetworkCalls) {
        self.host_on(self.store.clone(), peer).await
    }

    /// As [`World::begin`], on another store.
    pub async fn host_on(
        &self,
        store: Arc<dyn Store>,
        peer: Option<Arc<Host>>,
    ) -> (Host, NetworkCalls) {
        let mut config = HostConfig {
            data_dir: self.dir.path().join("host"),
            ..HostConfig::default()
        };
        config.link.addresses = vec![ADDRESS.into()];
        let (calls, received) = mpsc::unbounded_channel();
        let network = Arc::new(Recorder { calls, peer });
        let source = Arc::new(self.devnet.direct_source());
        let host = Host::embed(config, store, source, network).await.unwrap();
        (host, received)
    }

    /// Mines, and waits until the host has processed the blocks.
    pub async fn mine(&self, operator: &Operator, blocks: u32) {
        self.devnet.mine_to_wallet(blocks).unwrap();
        let height = self.devnet.tip().height;
        let at_tip = async || operator.status().await.unwrap().block_height == height;
        until("the host is at the tip", at_tip).await;
    }

    /// Two coins of 10,000,000 sat for the hub's wallet, confirmed.
    pub async fn fund_hub(&self, operator: &Operator) {
        for _ in 0..2 {
            let address = operator.hub_address().await.unwrap().address;
            faucet(&self.devnet, &address, 10_000_000).unwrap();
        }
        self.mine(operator, 1).await;
        let is_funded = async || {
            let balance = operator.hub_balance().await.unwrap();
            balance.onchain_confirmed_sat == 20_000_000
        };
        until("the hub has its coins", is_funded).await;
    }
}

/// Waits until a condition is met, on tokio's paused clock.
///
/// # Panics
/// When it is not met in ten minutes of that clock.
pub async fn until(what: &str, is_met: impl AsyncFnMut() -> bool) {
    Patience::VIRTUAL.expect(what, is_met).await;
}

/// Creates an owner, and returns the pairing code that the operator would show.
pub async fn create_owner(operator: &Operator, name: &str, wake_url: &str) -> PairingCode {
    let request = CreateOwnerRequest {
        name: name.into(),
        wake_url: wake_url.into(),
        ..CreateOwnerRequest::default()
    };
    let code = operator.create_owner(request).await.unwrap();
    code.code.parse().unwrap()
}

/// A paired phone whose node runs.
pub async fn registered(host: &Host, name: &str, number: u8) -> LinkPhone {
    let mut phone = LinkPhone::new(create_owner(&host.operator(), name, "").await);
    phone.sign_with(number);
    phone.pair_inside(host).await.unwrap();
    let node_id = phone.register(number).await.node_id;
    assert_eq!(node_id, registration(number).node_id);
    phone
}

/// The operator's view of an owner's node.
pub async fn node(operator: &Operator, owner: &str) -> NodeView {
    let owner = owner.into();
    operator.get_node(GetNodeRequest { owner }).await.unwrap()
}

/// The id of the hub.
pub fn hub_id(status: &StatusReply) -> PublicKey {
    PublicKey::from_slice(&status.hub_node_id).unwrap()
}

/// Dials a host that may have been dropped.
#[derive(Clone)]
pub struct Door(pub Arc<Mutex<Option<Host>>>);

#[async_trait]
impl Dial for Door {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        assert_eq!(address, ADDRESS);
        match &*self.0.lock().unwrap() {
            Some(host) => Ok(hand_in(host)),
            None => Err(LinkError::Unreachable {
                address: ADDRESS.into(),
                reason: "the host is gone".into(),
            }),
        }
    }
}

/// A phone with its files, and a channel from the hub of 1,000,000 sat, half of them the phone's.
pub async fn phone_with_channel(
    world: &World,
    operator: &Operator,
    door: &Door,
    name: &str,
    wake_url: &str,
) -> longhand_phone::Phone {
    let phone = paired_phone(world, operator, door, name, wake_url).await;
    hub_opens(world, operator, name).await;
    phone
}

/// A phone with its files, without a channel.
pub async fn paired_phone(
    world: &World,
    operator: &Operator,
    door: &Door,
    name: &str,
    wake_url: &str,
) -> longhand_phone::Phone {
    let vault = vault::create(&world.dir.path().join(name)).unwrap();
    let phone = longhand_phone::Phone::new(vault, door.clone()).unwrap();
    let code = create_owner(operator, name, wake_url).await;
    phone.pair(&code.to_text().unwrap()).await.unwrap();
    phone
}

/// The hub opens a channel of 1,000,000 sat to this owner, half of them the owner's.
pub async fn hub_opens(world: &World, operator: &Operator, name: &str) {
    let open = HubOpenChannelRequest {
        owner: name.into(),
        amount_sat: 1_000_000,
        push_msat: 500_000_000,
        ..HubOpenChannelRequest::default()
    };
    operator.hub_open_channel(open).await.unwrap();
    let is_sent = async || !world.devnet.mempool().is_empty();
    until("the funding transaction is in the mempool", is_sent).await;
    world.mine(operator, 6).await;
    let is_usable = async || node(operator, name).await.usable_channels == 1;
    until("the channel is usable", is_usable).await;
}
