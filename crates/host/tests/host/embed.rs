//! A host inside another program: without sockets and in virtual time, over what it is handed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use futures::{Stream, StreamExt};
use longhand_host::{WakeFrom, WakeReason};
use longhand_link::CloseCode;
use longhand_node::typed::OpenChannel;
use longhand_phone::{PhoneError, PhoneEvent};
use longhand_proto::Code;
use longhand_proto::command::GetInfo;
use longhand_proto::command::command::Command as Body;
use longhand_proto::operator::*;
use longhand_store::StoreError;
use longhand_testkit::embedded::{
    ADDRESS, Door, NetworkCall, NetworkCalls, PUSH, World, create_owner, hub_id, node,
    phone_with_channel, registered, until,
};
use longhand_testkit::link_phone::{LinkPhone, hand_in};
use longhand_testkit::phone::registration;
use longhand_testkit::vault;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_phone_is_served_over_a_carrier_that_is_handed_in() {
    let world = World::new();
    let (host, mut calls) = world.host(None).await;
    let operator = host.operator();
    let phone = registered(&host, "ann", 1).await;
    assert_eq!(phone.info().await.node_id, registration(1).node_id);

    let status = operator.status().await.unwrap();
    assert_eq!((status.owners, status.nodes, status.links), (1, 1, 1));
    assert_eq!(status.link_addresses, [ADDRESS]);
    assert_eq!((host.addresses(), status.peer_address.as_str()), (None, ""));
    let ann = PublicKey::from_slice(&registration(1).node_id).unwrap();
    assert_eq!(
        calls.recv().await.unwrap(),
        NetworkCall::Join(ann, hub_id(&status))
    );
    until("ann is a peer of the hub", async || {
        node(&operator, "ann").await.peers == 1
    })
    .await;
    host.stop().await;
    assert_eq!(phone.conversation.down().await.code, CloseCode::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn pairing_codes_have_the_embedders_addresses() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    let code = create_owner(&operator, "ann", "").await;
    assert_eq!(code.addresses, [ADDRESS]);
    let again = operator.create_owner(CreateOwnerRequest {
        name: "ann".into(),
        ..CreateOwnerRequest::default()
    });
    let refused = again.await.unwrap_err();
    assert_eq!(refused.code, Code::OwnerExists, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_hubs_of_two_hosts_are_peers_over_a_stream_that_is_handed_in() {
    let (here, there) = (World::new(), World::new());
    let (far, _) = there.host(None).await;
    let far = Arc::new(far);
    let (host, mut calls) = here.host(Some(far.clone())).await;
    let node_id = far.operator().status().await.unwrap().hub_node_id;
    let connect = HubConnectRequest {
        node_id,
        address: "far.example:9735".into(),
    };
    host.operator().hub_connect(connect).await.unwrap();
    assert_eq!(
        calls.recv().await.unwrap(),
        NetworkCall::Dial("far.example:9735".into())
    );
}

type Paying = tokio::task::JoinHandle<Result<longhand_phone::command::Payment, PhoneError>>;

/// A payment that the hub holds.
struct HeldPayment {
    door: Door,
    calls: NetworkCalls,
    ann: longhand_phone::Phone,
    bob: longhand_phone::Phone,
    paying: Paying,
}

/// Bob pays Ann, whose phone is away: the hub holds it, and she was called twice.
async fn held_payment(world: &World) -> HeldPayment {
    let (host, mut calls) = world.host(None).await;
    let operator = host.operator();
    let door = Door(Arc::new(Mutex::new(Some(host))));
    world.fund_hub(&operator).await;
    let ann = phone_with_channel(world, &operator, &door, "ann", PUSH).await;
    let bob = phone_with_channel(world, &operator, &door, "bob", "").await;
    let invoice = ann.invoice(Some(20_000_000), "tea", 3_600).await.unwrap();
    ann.detach().await.unwrap();
    while calls.try_recv().is_ok() {}

    let paying = tokio::spawn({
        let bob = bob.clone();
        async move { bob.pay(&invoice.bolt11, None, None).await }
    });
    for after_s in [0, 2] {
        let before = Instant::now();
        let Some(NetworkCall::Wake(url, call)) = calls.recv().await else {
            panic!("the network has no other use while the payment waits");
        };
        assert_eq!((url.url.as_str(), call.owner.as_str()), (PUSH, "ann"));
        assert_eq!(url.from, WakeFrom::Operator);
        assert_eq!(
            (call.node_id, call.reason),
            (ann.node_id(), WakeReason::Payment)
        );
        assert!(before.elapsed() >= Duration::from_secs(after_s));
    }
    HeldPayment {
        door,
        calls,
        ann,
        bob,
        paying,
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_is_away_is_woken_through_the_network_until_it_comes_and_is_paid() {
    let world = World::new();
    let HeldPayment {
        door, ann, paying, ..
    } = held_payment(&world).await;
    ann.attach().await.unwrap();
    paying.await.unwrap().unwrap();
    let ann_has = ann.balance().await.unwrap().lightning_msat;
    assert_eq!(ann_has, 520_000_000);
    let host = door.0.lock().unwrap().take().unwrap();
    host.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_phone_is_not_called_any_more_for_a_payment_that_was_given_back() {
    let world = World::new();
    let mut held = held_payment(&world).await;
    let failed = held.paying.await.unwrap().unwrap_err();
    assert!(matches!(failed, PhoneError::PaymentFailed(_)), "{failed}");
    while held.calls.try_recv().is_ok() {}
    // Longer than the longest pause between two calls.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(held.calls.try_recv().is_err());
    let host = held.door.0.lock().unwrap().take().unwrap();
    host.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_dropped_while_a_payment_is_held_leaves_no_task() {
    let world = World::new();
    let before = alive();
    let HeldPayment {
        door,
        ann,
        bob,
        paying,
        ..
    } = held_payment(&world).await;
    let dropped_at = Instant::now();
    let host = door.0.lock().unwrap().take();
    drop(host);
    ann.stop_now();
    bob.stop_now();
    paying.await.unwrap().unwrap_err();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive(), before);
    assert_eq!(
        dropped_at.elapsed(),
        Duration::ZERO,
        "nothing had to time out"
    );
}

/// Tasks of this runtime that have not ended.
fn alive() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_dropped_sends_nothing_and_leaves_no_task() {
    let world = World::new();
    let before = alive();
    let (host, mut calls) = world.host(None).await;
    let operator = host.operator();
    let phone = registered(&host, "ann", 1).await;
    until("ann is a peer of the hub", async || {
        node(&operator, "ann").await.peers == 1
    })
    .await;
    let link = phone.conversation.link().unwrap();
    // A command of the operator and a dial are under way, and a phone that says nothing is at the door.
    let connecting = tokio::spawn({
        let (operator, node_id) = (operator.clone(), registration(9).node_id);
        let address = "nobody.example:9735".into();
        async move {
            operator
                .hub_connect(HubConnectRequest { node_id, address })
                .await
        }
    });
    let silent = hand_in(&host);
    while !matches!(calls.recv().await.unwrap(), NetworkCall::Dial(_)) {}
    assert!(alive() > before);

    let dropped_at = Instant::now();
    drop(host);
    let refused = connecting.await.unwrap().unwrap_err();
    assert_eq!(refused.code, Code::NodeStopped, "{refused}");
    // As when a process dies: nothing but the end of the connection.
    assert_eq!(link.closed().await.code, CloseCode::Lost);
    phone.conversation.abandon();
    drop((phone, link, silent));
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive(), before);
    assert_eq!(
        dropped_at.elapsed(),
        Duration::ZERO,
        "nothing had to time out"
    );
    let refused = operator.status().await.unwrap_err();
    assert_eq!(refused.code, Code::HostStopped, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_host_begins_again_where_the_dropped_one_was() {
    let world = World::new();
    let (first, _calls) = world.host(None).await;
    let phone = registered(&first, "ann", 1).await;
    let hub = hub_id(&first.operator().status().await.unwrap());
    drop(first);

    let (second, _calls) = world.host(None).await;
    let operator = second.operator();
    assert_eq!(hub_id(&operator.status().await.unwrap()), hub);
    phone.attach_inside(&second).await.unwrap();
    let is_active = async || node(&operator, "ann").await.state == "active";
    until("ann's node is active", is_active).await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_starts_on_a_full_disk_starts_when_there_is_room() {
    starts_after(StoreError::Full).await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_whose_disk_fails_as_it_starts_starts_when_it_works() {
    starts_after(StoreError::Unavailable("the disk failed".into())).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_on_a_full_disk_is_loaded_again_when_there_is_room_and_not_before() {
    let (world, disk) = World::on_a_failing_disk();
    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    operator.hub_address().await.unwrap();
    let (commits, loads) = (disk.commits(), disk.loads());
    for nth in 1..=6 {
        disk.refuse(commits + nth, StoreError::Full);
    }
    let refused = operator.hub_address().await.unwrap_err();
    assert!(
        refused.to_string().contains(Code::DiskFull.as_str()),
        "{refused}"
    );
    operator.hub_address().await.unwrap();
    assert!(disk.commits() > commits + 6, "it is still full");
    assert_eq!(disk.loads(), loads + 1);
}

/// The host does not wait either: wake calls begin and end with its blocks.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_node_that_cannot_be_loaded() {
    let (world, disk) = World::on_a_failing_disk();
    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    let _ann = registered(&host, "ann", 1).await;
    let commits = disk.commits();
    for nth in 1..=1_000 {
        disk.refuse(commits + nth, StoreError::Full);
    }
    world.devnet.mine_to_wallet(1).unwrap();
    until("commits fail", async || disk.commits() > commits + 2).await;
    let listing = operator.list_nodes();
    let listed = tokio::time::timeout(Duration::from_secs(60), listing).await;
    assert!(listed.is_ok(), "it waits for the node");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_read_for_a_moment_starts_when_it_can() {
    let (world, disk) = World::on_a_failing_disk();
    let unavailable = StoreError::Unavailable("the disk failed".into());
    disk.refuse_loads("hub", 3, unavailable);
    // Returns when its hub runs.
    let (host, _calls) = world.host(None).await;
    drop(host);
    assert_eq!(disk.loads_refused(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_data_are_damaged_fails_with_the_reason_and_is_not_started_again() {
    let (world, disk) = World::on_a_failing_disk();
    let (host, _calls) = world.host(None).await;
    let phone = registered(&host, "ann", 1).await;
    drop(host);
    disk.refuse_loads("node/ann", u64::MAX, damaged());

    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    let ann = || GetNodeRequest {
        owner: "ann".into(),
    };
    until("a load fails", async || disk.loads_refused() > 0).await;
    // In virtual time: as long as several attempts of a node that waits.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(disk.loads_refused(), 1, "it is loaded once");
    let refused = operator.get_node(ann()).await.unwrap_err();
    assert_eq!(refused.code, Code::NodeFailed);
    assert!(refused.message.contains("damaged (page 7)"), "{refused}");
    phone.attach_inside(&host).await.unwrap();
    let error = phone.refused(Body::GetInfo(GetInfo {})).await;
    assert_eq!(error.code, Code::NodeFailed, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hub_on_a_damaged_database_fails_with_its_reason() {
    let (world, disk) = World::on_a_failing_disk();
    disk.refuse_loads("hub", u64::MAX, damaged());
    let (host, _calls) = world.begin(None).await;
    let operator = host.operator();
    let damage_is_named = async || {
        let refused = operator.hub_balance().await.unwrap_err();
        refused.code == Code::NodeFailed && refused.message.contains("damaged (page 7)")
    };
    until("the damage is named", damage_is_named).await;
}

#[tokio::test(start_paused = true)]
async fn a_running_node_whose_database_is_damaged_ends_with_its_reason() {
    let (world, disk) = World::on_a_failing_disk();
    let (host, _calls) = world.host(None).await;
    let operator = host.operator();
    operator.hub_address().await.unwrap();
    let loads = disk.loads();
    disk.refuse(disk.commits() + 1, damaged());
    operator.hub_address().await.unwrap_err();
    let is_named = async || {
        let refused = operator.hub_balance().await.unwrap_err();
        refused.to_string().contains("damaged (page 7)")
    };
    until("the damage is named", is_named).await;
    assert_eq!(disk.loads(), loads, "it is not loaded again");
}

fn damaged() -> StoreError {
    StoreError::Corrupt("page 7".into())
}

async fn starts_after(failure: StoreError) {
    // How many commits a start takes; the last is the hub's.
    let (world, disk) = World::on_a_failing_disk();
    drop(world.host(None).await);
    let commits = disk.commits();

    let (world, disk) = World::on_a_failing_disk();
    disk.refuse(commits, failure);
    // Returns when its hub runs.
    drop(world.host(None).await);
    assert!(disk.commits() > commits);
}

/// The next event of this kind; those of other kinds before it are left out.
async fn event_of<T>(
    events: &mut (impl Stream<Item = PhoneEvent> + Unpin),
    kind: impl Fn(PhoneEvent) -> Option<T>,
) -> T {
    loop {
        let event = events.next().await.expect("the phone lives");
        if let Some(wanted) = kind(event) {
            return wanted;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_reports_its_link_its_channels_and_its_payments_as_events() {
    use PhoneEvent::{Attached, ChannelClosed, ChannelReady, Detached};
    use PhoneEvent::{PaymentFailed, PaymentReceived, PaymentSent};
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let (operator, hub) = (host.operator(), host.hub().await.unwrap());
    world.fund_hub(&operator).await;
    let door = Door(Arc::new(Mutex::new(Some(host))));
    let vault = vault::create(&world.dir.path().join("ann")).unwrap();
    let ann = longhand_phone::Phone::new(vault, door).unwrap();
    let mut events = ann.events();
    let code = create_owner(&operator, "ann", "").await;
    ann.pair(&code.to_text().unwrap()).await.unwrap();
    assert_eq!(events.next().await, Some(Attached));

    let open = OpenChannel::to(ann.node_id(), 1_000_000).push(500_000_000);
    let opened = hub.open_channel(open).await.unwrap();
    world.mine(&operator, 6).await;
    let ready = |event| match event {
        ChannelReady(channel) => Some(channel.channel_id),
        _ => None,
    };
    assert_eq!(
        event_of(&mut events, ready).await,
        opened.channel_id.to_string()
    );

    let invoice = ann.invoice(Some(20_000_000), "tea", 3_600).await.unwrap();
    hub.pay(&invoice.bolt11, None, None).await.unwrap();
    let received = |event| match event {
        PaymentReceived(payment) => Some(payment.payment_hash),
        _ => None,
    };
    assert_eq!(event_of(&mut events, received).await, invoice.payment_hash);

    let invoice = hub.invoice(Some(5_000_000), "coffee", 3_600).await.unwrap();
    ann.pay(&invoice.bolt11, None, None).await.unwrap();
    let sent = |event| match event {
        PaymentSent(payment) => Some(payment.payment_hash),
        PaymentFailed(payment) => panic!("{payment:?}"),
        _ => None,
    };
    assert_eq!(
        event_of(&mut events, sent).await,
        invoice.payment_hash.to_string()
    );

    hub.close_channel(&opened.channel_id, false).await.unwrap();
    let closed = |event| match event {
        ChannelClosed(channel) => Some(channel.channel_id),
        _ => None,
    };
    assert_eq!(
        event_of(&mut events, closed).await,
        opened.channel_id.to_string()
    );

    ann.detach().await.unwrap();
    let detached = |event| match event {
        Detached(report) => Some(report.code),
        _ => None,
    };
    assert_eq!(event_of(&mut events, detached).await, Code::Detached);
}

#[tokio::test(start_paused = true)]
async fn the_operator_reads_changes_as_they_happen_and_the_stream_ends_with_the_host() {
    let world = World::new();
    let (host, _calls) = world.host(None).await;
    let mut changes = Box::pin(host.operator().watch().unwrap());
    let mut next = async || {
        let change = changes.next().await?;
        Some((change.kind, change.owner, change.detail))
    };
    let of = |kind: &str, detail: &str| Some((kind.into(), "ann".to_owned(), detail.into()));
    assert_eq!(next().await.unwrap().0, "present");
    let mut phone = LinkPhone::new(create_owner(&host.operator(), "ann", "").await);
    assert_eq!(next().await, of("owner_created", ""));
    phone.sign_with(1);
    let link = phone.pair_inside(&host).await.unwrap();
    phone.register(1).await;
    assert_eq!(next().await, of("phone_registered", ""));
    assert_eq!(next().await, of("node_started", ""));
    assert_eq!(next().await, of("phone_attached", ""));
    link.detach().await.unwrap();
    assert_eq!(next().await, of("phone_detached", "the phone has detached"));
    host.stop().await;
    assert_eq!(next().await, None);
}
