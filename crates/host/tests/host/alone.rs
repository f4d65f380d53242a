//! A node or an owner that fails, alone: all others at the same host go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longhand_host::{Host, Joined, Network, Operator, PeerDial, WakeCall, WakeError, WakeUrl};
use longhand_node::PeerStream;
use longhand_phone::Phone;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Body;
use longhand_proto::operator::*;
use longhand_store::{Batch, KeyRange, MemoryStore, Store, StoreError, Write};
use longhand_testkit::embedded::{
    Door, World, create_owner, hub_id, hub_opens, node, paired_phone, registered, until,
};
use longhand_testkit::link_phone::{LinkPhone, close_code};
use longhand_testkit::phone::registration;

/// Makes a node that is stored in this namespace unreadable.
async fn spoil_node(store: &Arc<dyn Store>, namespace: &str) {
    let entries = store.load(namespace).await.unwrap();
    let mut keys = entries.into_iter().map(|(key, _)| key);
    let manager = keys.find(|key| key.ends_with("manager")).unwrap();
    overwrite(store, namespace, &manager, b"spoiled").await;
}

/// Overwrites one value while no host runs.
async fn overwrite(store: &Arc<dyn Store>, namespace: &str, key: &str, value: &[u8]) {
    assert!(store.get(namespace, key).await.unwrap().is_some(), "{key}");
    let batch = Batch {
        namespace: namespace.into(),
        epoch: store.take_lease(namespace).await.unwrap(),
        writes: vec![Write::Put(key.into(), value.to_vec())],
    };
    store.commit(batch).await.unwrap();
}

async fn copy(store: &Arc<dyn Store>) -> Arc<dyn Store> {
    let copy = MemoryStore::new();
    for namespace in store.namespaces("").await.unwrap() {
        let entries = store.load(&namespace).await.unwrap().into_iter();
        let writes = entries.map(|(key, value)| Write::Put(key, value)).collect();
        let batch = Batch {
            namespace,
            epoch: 0,
            writes,
        };
        copy.commit(batch).await.unwrap();
    }
    Arc::new(copy)
}

/// A host whose hub cannot be loaded, after one at which owners were set up.
async fn host_without_hub(world: &World) -> Host {
    spoil_node(&world.store, "hub").await;
    let (host, _) = world.begin(None).await;
    let operator = host.operator();
    let is_refused = async || {
        let refused = operator.hub_balance().await.unwrap_err();
        refused.to_string().contains("the hub does not run")
    };
    until("the hub has failed", is_refused).await;
    host
}

async fn until_listed(operator: &Operator, owner: &str) {
    let is_listed = async || {
        let nodes = operator.list_nodes().await.unwrap().nodes;
        nodes.iter().any(|node| node.owner == owner)
    };
    until("the node is listed", is_listed).await;
}

#[tokio::test(start_paused = true)]
async fn an_owners_node_runs_and_follows_the_chain_though_the_hub_cannot_be_loaded() {
    let world = World::new();
    let (first, _) = world.host(None).await;
    let ann = registered(&first, "ann", 1).await;
    drop(first);

    let host = host_without_hub(&world).await;
    let operator = host.operator();
    until_listed(&operator, "ann").await;
    ann.attach_inside(&host).await.unwrap();
    world.devnet.mine_to_wallet(3).unwrap();
    let at_tip = async || ann.info().await.block_height == world.devnet.tip().height;
    until("the node is at the tip", at_tip).await;
    // A node that is created now runs too.
    registered(&host, "bob", 2).await;
    host.stop().await;
}

/// An owner's node whose hub has published a commitment that it has revoked, while the owner's phone is away. `withhold`: whose
/// channels keep their revocation key on the phone.
async fn cheated(world: &World, withhold: &str) -> (Host, Operator, Phone, Door) {
    let (host, _) = world.host(None).await;
    let operator = host.operator();
    let door = Door(Arc::new(Mutex::new(Some(host))));
    world.fund_hub(&operator).await;
    let ann = paired_phone(world, &operator, &door, "ann", "").await;
    let withhold = ann.set_limit("withhold".into(), withhold.into());
    withhold.await.unwrap();
    hub_opens(world, &operator, "ann").await;
    let old = copy(&world.store).await;
    let invoice = ann.invoice(Some(200_000_000), "tea", 3_600).await.unwrap();
    let pay = HubPayRequest {
        bolt11: invoice.bolt11,
        ..HubPayRequest::default()
    };
    operator.hub_pay(pay).await.unwrap();
    ann.detach().await.unwrap();
    let host = door.0.lock().unwrap().take().unwrap();
    host.stop().await;

    // A hub with the old state closes with a commitment that it has revoked.
    let (cheat, _) = world.host_on(old, None).await;
    let operator = cheat.operator();
    until("the hub runs", async || {
        operator.hub_balance().await.is_ok()
    })
    .await;
    let channels = operator.hub_channels().await.unwrap().channels;
    let close = HubCloseChannelRequest {
        channel_id: channels[0].channel_id.clone(),
        force: true,
    };
    operator.hub_close_channel(close).await.unwrap();
    let is_sent = async || !world.devnet.mempool().is_empty();
    until("the commitment is in the mempool", is_sent).await;
    drop(cheat);

    let host = host_without_hub(world).await;
    let operator = host.operator();
    until_listed(&operator, "ann").await;
    (host, operator, ann, door)
}

/// The hub's side of that commitment, less fees.
const SPOILS_SAT: u64 = 450_000;

#[tokio::test(start_paused = true)]
async fn an_owners_node_punishes_though_the_hub_cannot_be_loaded() {
    let world = World::new();
    let (host, operator, _, _) = cheated(&world, "none").await;
    // Ann's own output waits for her phone.
    let is_swept = async || {
        world.mine(&operator, 1).await;
        node(&operator, "ann").await.onchain_sat > SPOILS_SAT
    };
    until("the penalty transaction is confirmed", is_swept).await;
    host.stop().await;
}

/// By default the key of channels with the hub stays on the phone: together with the hub, a malicious host could take HTLCs with it. So
/// nobody punishes the hub while the phone sleeps, and the phone has 1,008 blocks.
#[tokio::test(start_paused = true)]
async fn nobody_punishes_the_hub_while_the_phone_sleeps_and_the_phone_does_when_it_comes() {
    let world = World::new();
    let (host, operator, ann, door) = cheated(&world, "hub").await;
    for _ in 0..100 {
        world.mine(&operator, 10).await;
    }
    assert_eq!(node(&operator, "ann").await.onchain_sat, 0);

    *door.0.lock().unwrap() = Some(host);
    ann.attach().await.unwrap();
    let is_swept = async || {
        world.mine(&operator, 1).await;
        node(&operator, "ann").await.onchain_sat > SPOILS_SAT
    };
    until("the penalty transaction is confirmed", is_swept).await;
    ann.detach().await.unwrap();
    let host = door.0.lock().unwrap().take().unwrap();
    host.stop().await;
}

/// A store in which writes of the hub fail until they may succeed.
struct HubStore {
    inner: Arc<dyn Store>,
    works: AtomicBool,
}

#[async_trait]
impl Store for HubStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.load(namespace).await
    }

    async fn range(
        &self,
        namespace: &str,
        range: KeyRange,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.range(namespace, range).await
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(namespace, key).await
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.namespaces(prefix).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        match batch.namespace == "hub" && !self.works.load(Ordering::Relaxed) {
            true => Err(StoreError::Full),
            false => self.inner.commit(batch).await,
        }
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        match namespace == "hub" && !self.works.load(Ordering::Relaxed) {
            true => Err(StoreError::Full),
            false => self.inner.take_lease(namespace).await,
        }
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

#[tokio::test(start_paused = true)]
async fn the_hub_is_dialled_again_until_it_runs() {
    let world = World::new();
    let (first, _) = world.host(None).await;
    let ann = registered(&first, "ann", 1).await;
    let hub = hub_id(&first.operator().status().await.unwrap());
    drop(first);

    let store = Arc::new(HubStore {
        inner: world.store.clone(),
        works: AtomicBool::new(false),
    });
    let (host, mut joined) = world.host_on(store.clone(), None).await;
    let operator = host.operator();
    until_listed(&operator, "ann").await;
    ann.attach_inside(&host).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node(&operator, "ann").await.peers, 0);
    assert!(joined.try_recv().is_err());

    store.works.store(true, Ordering::Relaxed);
    until("ann is a peer of the hub", async || {
        node(&operator, "ann").await.peers == 1
    })
    .await;
    assert_eq!(hub_id(&operator.status().await.unwrap()), hub);
    host.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_knows_its_hubs_id_before_the_hub_runs() {
    let world = World::new();
    let (first, _) = world.host(None).await;
    let hub = hub_id(&first.operator().status().await.unwrap());
    drop(first);
    let host = host_without_hub(&world).await;
    let mut phone = LinkPhone::new(create_owner(&host.operator(), "ann", "").await);
    phone.sign_with(1);
    phone.pair_inside(&host).await.unwrap();
    let registered = phone.register(1).await;
    assert_eq!(registered.hub_node_id, hub.serialize());
}

async fn owner(operator: &Operator, name: &str) -> Owner {
    let owners = operator.list_owners().await.unwrap().owners;
    owners.into_iter().find(|it| it.name == name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_stops_its_owner_alone() {
    let world = World::new();
    let (first, _) = world.host(None).await;
    let ann = registered(&first, "ann", 1).await;
    let bob = registered(&first, "bob", 2).await;
    drop(first);
    let record = world.store.get("host", "owner/ann").await.unwrap().unwrap();
    overwrite(&world.store, "host", "owner/ann", b"spoiled").await;

    let (host, _) = world.host(None).await;
    let operator = host.operator();
    bob.attach_inside(&host).await.unwrap();
    until("one node runs", async || {
        operator.status().await.unwrap().nodes == 1
    })
    .await;
    until("bob is a peer of the hub", async || {
        node(&operator, "bob").await.peers == 1
    })
    .await;
    assert_eq!(operator.status().await.unwrap().owners, 2);

    // The operator sees why, and what to do.
    let problem = owner(&operator, "ann").await.problem;
    assert!(problem.contains("owner ann"), "{problem}");
    assert!(
        problem.contains("restore the record from a backup"),
        "{problem}"
    );
    assert_eq!(owner(&operator, "bob").await.problem, "");
    let nodes = operator.list_nodes().await.unwrap().nodes;
    let states: Vec<_> = nodes.iter().map(|n| (&*n.owner, &*n.state)).collect();
    assert_eq!(states, [("ann", "failed"), ("bob", "active")]);
    assert_eq!(nodes[0].problem, problem);
    let get = GetNodeRequest {
        owner: "ann".into(),
    };
    let refused = operator.get_node(get).await.unwrap_err();
    assert_eq!(refused.code, Code::OwnerUnreadable);
    assert_eq!(refused.message, problem);
    let refused = ann.attach_inside(&host).await.unwrap_err();
    assert_eq!(close_code(&refused), Code::UnknownOwner);

    // Nobody takes the owner's name, or the node, and nothing of the record is overwritten.
    let create = CreateOwnerRequest {
        name: "ann".into(),
        ..CreateOwnerRequest::default()
    };
    let refused = operator.create_owner(create).await.unwrap_err();
    assert_eq!(refused.code, Code::OwnerExists, "{refused}");
    let renew = RenewPairingRequest {
        owner: "ann".into(),
        ..RenewPairingRequest::default()
    };
    operator.renew_pairing(renew).await.unwrap_err();
    let mut carl = LinkPhone::new(create_owner(&operator, "carl", "").await);
    carl.sign_with(1);
    carl.pair_inside(&host).await.unwrap();
    let refused = carl.refused(Body::Register(registration(1))).await;
    assert_eq!(refused.code, Code::NodeTaken, "{}", refused.message);
    registered(&host, "dora", 4).await;
    let stored = world.store.get("host", "owner/ann").await.unwrap();
    assert_eq!(stored.as_deref(), Some(&b"spoiled"[..]));
    host.stop().await;

    overwrite(&world.store, "host", "owner/ann", &record).await;
    let (host, _) = world.host(None).await;
    ann.attach_inside(&host).await.unwrap();
    let operator = host.operator();
    until("ann is a peer of the hub", async || {
        node(&operator, "ann").await.peers == 1
    })
    .await;
    host.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_loaded_is_listed_with_the_reason() {
    let world = World::new();
    let (first, _) = world.host(None).await;
    registered(&first, "ann", 1).await;
    drop(first);
    spoil_node(&world.store, "node/ann").await;

    let (host, _) = world.host(None).await;
    let operator = host.operator();
    until_listed(&operator, "ann").await;
    let nodes = operator.list_nodes().await.unwrap().nodes;
    assert_eq!(nodes[0].state, "failed");
    assert_eq!(nodes[0].node_id, registration(1).node_id);
    assert!(nodes[0].problem.contains("restore it from a backup"));
    assert_eq!(owner(&operator, "ann").await.problem, nodes[0].problem);
    host.stop().await;
}

/// One that must not be asked.
struct NoNetwork;

#[async_trait]
impl Network for NoNetwork {
    async fn dial(&self, _: PeerDial<'_>) -> std::io::Result<Box<dyn PeerStream>> {
        panic!("a host that does not start dials nobody");
    }

    fn join(
        &self,
        _: bitcoin::secp256k1::PublicKey,
        _: bitcoin::secp256k1::PublicKey,
    ) -> std::io::Result<Joined> {
        panic!("a host that does not start joins nobody");
    }

    async fn wake(&self, _: &WakeUrl, _: &WakeCall) -> Result<(), WakeError> {
        panic!("a host that does not start wakes nobody");
    }
}

#[tokio::test]
async fn an_embedded_host_that_is_to_dial_through_tor_alone_needs_a_chain_source() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::builder()
        .directory(dir.path())
        .store(Arc::new(MemoryStore::new()))
        .configure(|config| config.tor.all_outgoing = true);
    let refused = host.embed(Arc::new(NoNetwork)).await.err().unwrap();
    assert_eq!(refused.code(), Code::Tor);
}
