//! Nodes in this process: a devnet, one follower, a hub, and owners' nodes with their phones' engines.
//!
//! Everything is the real thing but the links between phones and host: a [`Phone`] is attached to its node directly, and
//! nodes are connected by pipes in memory. For tests: whatever fails panics.

mod commands;
mod owner;
mod recording;
mod switchboard;
mod valve;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::{Address, Amount, Network};
use longhand_chain::devnet::Devnet;
use longhand_chain::{Chain, Follower, FollowerConfig};
use longhand_node::{Graph, Keys, Node, NodeConfig, Registration, Services};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{AwaitChannel, CloseChannel, GetInfo, NewAddress, OpenChannel};
use longhand_store::{MemoryStore, Store};
use zeroize::Zeroizing;

pub use commands::{
    ask, ask_in_the_end, await_payment, event, pay, refusal, settle, try_ask, usable,
};
pub use owner::Owner;
pub use recording::RecordingChain;
pub use switchboard::Switchboard;
pub use valve::Valve;

use crate::phone::Phone;
use crate::until;

/// A chain, a hub on it, and what the owners' nodes share with it.
pub struct World {
    /// Mined by the test.
    pub devnet: Devnet,
    /// Of all nodes.
    pub follower: Arc<Follower>,
    /// Of all nodes, unless one has a store of its own.
    pub store: Arc<dyn Store>,
    /// Written by the hub.
    pub graph: Arc<Graph>,
    /// Connects the nodes.
    pub switchboard: Arc<Switchboard>,
    /// Has 10,000,000 sat on chain.
    pub hub: Node,
}

impl World {
    /// A chain with a funded hub.
    pub async fn new() -> World {
        World::on(Arc::new(MemoryStore::default())).await
    }

    /// The same, with everything on this store.
    pub async fn on(store: Arc<dyn Store>) -> World {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let devnet = Devnet::start_default().await.unwrap();
        let source = Arc::new(devnet.source());
        let config = FollowerConfig {
            poll_interval: Duration::from_millis(50),
            ..FollowerConfig::default()
        };
        let follower = Arc::new(Follower::start(source, config));
        let mut tips = follower.tips();
        tips.wait_for(Option::is_some).await.unwrap();
        let graph = Arc::new(Graph::new(Network::Regtest));
        let switchboard = Arc::new(Switchboard::default());
        let chain: Arc<dyn Chain> = follower.clone();
        let services = Services {
            store: store.clone(),
            chain,
            graph: graph.clone(),
            dialer: switchboard.clone(),
        };
        let hub = start_hub(&switchboard, services).await;
        let world = World {
            devnet,
            follower,
            store,
            graph,
            switchboard,
            hub,
        };
        world.fund(&world.hub, 10_000_000).await;
        world
    }

    /// The services of the world's nodes.
    pub fn services(&self) -> Services {
        Services {
            store: self.store.clone(),
            chain: self.follower.clone(),
            graph: self.graph.clone(),
            dialer: self.switchboard.clone(),
        }
    }

    /// Starts the hub again from the store.
    pub async fn start_hub(&self) -> Node {
        start_hub(&self.switchboard, self.services()).await
    }

    /// Starts the hub again with a chain of its own.
    pub async fn start_hub_on(&self, chain: Arc<dyn Chain>) -> Node {
        let services = Services {
            chain,
            ..self.services()
        };
        start_hub(&self.switchboard, services).await
    }

    /// The node of the phone with this number, dormant.
    pub async fn owner(&self, name: &str, number: u8) -> Owner {
        self.owner_on(self.follower.clone(), name, number).await
    }

    /// The same, with a chain of its own.
    pub async fn owner_on(&self, chain: Arc<dyn Chain>, name: &str, number: u8) -> Owner {
        let phone = Phone::new(number);
        let services = Services {
            chain,
            ..self.services()
        };
        let node = self.start_with(services, name, &phone).await;
        Owner {
            name: name.into(),
            phone,
            node,
        }
    }

    /// Starts the node of `phone` from the store.
    pub async fn start(&self, name: &str, phone: &Phone) -> Node {
        self.start_on(self.store.clone(), name, phone).await
    }

    /// Starts the node of `phone` from a store of its own.
    pub async fn start_on(&self, store: Arc<dyn Store>, name: &str, phone: &Phone) -> Node {
        let services = Services {
            store,
            ..self.services()
        };
        self.start_with(services, name, phone).await
    }

    /// Starts the node of `phone` with services of its own.
    pub async fn start_with(&self, services: Services, name: &str, phone: &Phone) -> Node {
        self.start_registered(services, name, phone.register())
            .await
    }

    /// Starts the node of this registration with services of its own.
    pub async fn start_registered(
        &self,
        services: Services,
        name: &str,
        registration: Registration,
    ) -> Node {
        let keys = Keys::Remote(Box::new(registration));
        let config = NodeConfig {
            hub: Some(self.hub.node_id()),
            alias: name.into(),
            ..NodeConfig::new(format!("node/{name}"), Network::Regtest, keys)
        };
        let node = Node::start(config, services).await.unwrap();
        self.switchboard.connect(&node);
        node
    }

    /// A node with its keys beside it, and the hub as its peer.
    pub async fn shop(&self, services: Services) -> Node {
        let keys = Keys::Local(Zeroizing::new([9; 32]));
        let config = NodeConfig {
            hub: Some(self.hub.node_id()),
            ..NodeConfig::new("shop", Network::Regtest, keys)
        };
        let shop = Node::start(config, services).await.unwrap();
        self.switchboard.connect(&shop);
        shop
    }

    /// Mines, and waits until the follower has seen it.
    pub async fn mine(&self, blocks: u32) {
        self.devnet.mine_to_wallet(blocks).unwrap();
        let tip = self.devnet.tip();
        self.follower.poke();
        self.follower
            .tips()
            .wait_for(|seen| *seen == Some(tip))
            .await
            .unwrap();
    }

    /// Mines, and waits until a node has seen it.
    pub async fn mine_seen_by(&self, node: &Node, blocks: u32) {
        self.mine(blocks).await;
        let height = self.devnet.tip().height;
        until("the node has seen the last block", async || {
            let info = ask(node, Kind::GetInfo(GetInfo {})).await;
            matches!(info, Reply::Info(info) if info.block_height == height)
        })
        .await;
    }

    /// Mines a block at a time until a condition is met.
    pub async fn mine_until<F: AsyncFnMut() -> bool>(&self, what: &str, mut done: F) {
        for _ in 0..200 {
            if done().await {
                return;
            }
            self.mine(1).await;
            tokio::task::yield_now().await;
        }
        panic!("after 200 blocks still not: {what}");
    }

    /// Coins from the faucet for a node, confirmed.
    pub async fn fund(&self, node: &Node, amount_sat: u64) {
        let before = node.overview().await.unwrap().onchain_sat;
        let Reply::Address(address) = ask(node, Kind::NewAddress(NewAddress {})).await else {
            panic!("no address")
        };
        let address = Address::from_str(&address.address)
            .unwrap()
            .assume_checked();
        self.devnet
            .faucet(&address, Amount::from_sat(amount_sat))
            .unwrap();
        self.mine(1).await;
        until("the funds are there", async || {
            node.overview().await.unwrap().onchain_sat >= before + amount_sat
        })
        .await;
    }

    /// Opens a channel up to its funding transaction in the mempool. Returns the opener's id for the opening, and the
    /// channel's id.
    pub async fn begin_to_open(
        &self,
        from: &Node,
        to: &Node,
        amount_sat: u64,
        push_msat: u64,
    ) -> (Vec<u8>, Vec<u8>) {
        self.begin(from, new_opening(to, amount_sat, push_msat))
            .await
    }

    async fn begin(&self, from: &Node, open: OpenChannel) -> (Vec<u8>, Vec<u8>) {
        let id = open.id.clone();
        let Reply::OpenedChannel(opened) = ask(from, Kind::OpenChannel(open)).await else {
            panic!("not opened")
        };
        until("the funding is in the mempool", async || {
            !self.devnet.mempool().is_empty()
        })
        .await;
        (id, opened.channel_id)
    }

    /// Opens a channel from `from` to `to` and waits until both can use it. Returns the channel's id.
    pub async fn open(&self, from: &Node, to: &Node, amount_sat: u64, push_msat: u64) -> Vec<u8> {
        let open = new_opening(to, amount_sat, push_msat);
        self.open_as(from, to, open).await
    }

    /// The same for an owner, who asks for it on the phone.
    pub async fn owner_opens(&self, owner: &Owner, to: &Node, amount_sat: u64) -> Vec<u8> {
        let open = new_opening(to, amount_sat, 0);
        owner.phone.intend_open(&open, to.node_id());
        self.open_as(&owner.node, to, open).await
    }

    async fn open_as(&self, from: &Node, to: &Node, open: OpenChannel) -> Vec<u8> {
        let (id, channel_id) = self.begin(from, open).await;
        let (from_usable, to_usable) = (usable(from).await, usable(to).await);
        self.mine_until("the channel is usable", async || {
            settle().await;
            usable(from).await > from_usable && usable(to).await > to_usable
        })
        .await;
        let Reply::Channel(_) = ask(from, Kind::AwaitChannel(AwaitChannel { id })).await else {
            panic!("not usable")
        };
        channel_id
    }

    /// The hub closes one of its channels by force. Returns when its commitment is in the mempool.
    pub async fn hub_closes(&self, channel_id: Vec<u8>) {
        let force = true;
        let close = CloseChannel {
            channel_id,
            force,
            ..CloseChannel::default()
        };
        ask(&self.hub, Kind::CloseChannel(close)).await;
        until("the hub's commitment is sent", async || {
            !self.devnet.mempool().is_empty()
        })
        .await;
    }
}

fn new_opening(to: &Node, amount_sat: u64, push_msat: u64) -> OpenChannel {
    OpenChannel {
        id: unique_id(),
        counterparty_node_id: to.node_id().serialize().to_vec(),
        amount_sat,
        push_msat,
        ..OpenChannel::default()
    }
}

async fn start_hub(switchboard: &Switchboard, services: Services) -> Node {
    let config = NodeConfig {
        is_hub: true,
        alias: "hub".into(),
        ..NodeConfig::new(
            "hub",
            Network::Regtest,
            Keys::Local(Zeroizing::new([7; 32])),
        )
    };
    let hub = Node::start(config, services).await.unwrap();
    switchboard.connect(&hub);
    hub
}

/// An id for a request that no other has.
fn unique_id() -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    u128::from(NEXT.fetch_add(1, Ordering::Relaxed))
        .to_be_bytes()
        .to_vec()
}
