//! The owner's commands: those that are refused, those that wait, and those that need no phone.

use std::collections::BTreeMap;
use std::time::Duration;

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{
    AwaitChannel, AwaitPayment, CloseChannel, ConnectPeer, CreateInvoice, GetBalance, GetInfo,
    GetPayment, ListChannels, ListInvoices, ListPayments, ListWakeUrls, NewAddress, OpenChannel,
    Pay, Register, SendOnchain, SetWakeUrls,
};

use crate::machine::WAKING_LIMIT;
use crate::machine::input::{HubRequest, Input};
use crate::machine::testing::{Id, World, world_with_channel};
use crate::parts::testing::{Pair, pay};

/// A node's own records. LDK may write its manager with any turn.
fn records(world: &World, id: Id) -> BTreeMap<String, Vec<u8>> {
    let entries = world.nodes[id].store.clone().into_iter();
    entries
        .filter(|(key, _)| !key.starts_with("ldk/"))
        .collect()
}

/// The code of a refusal for which the request has to be changed. It changes nothing.
fn refused(world: &mut World, id: Id, command: Kind) -> String {
    let before = records(world, id);
    let refusal = world.ask(id, command).expect_err("a refusal");
    assert_eq!(refusal.action, i32::from(Action::FixInput), "{refusal:?}");
    assert_eq!(records(world, id), before);
    refusal.code
}

fn connect_to(node_id: Vec<u8>) -> Kind {
    Kind::ConnectPeer(ConnectPeer {
        node_id,
        address: "host:9735".into(),
    })
}

fn invoice() -> Kind {
    Kind::CreateInvoice(CreateInvoice {
        payment_hash: vec![3; 32],
        amount_msat: 1_000_000,
        expiry_s: 3600,
        payment_secret: vec![7; 32],
        ..CreateInvoice::default()
    })
}

fn need_the_phone() -> [Kind; 6] {
    [
        Kind::OpenChannel(OpenChannel::default()),
        invoice(),
        Kind::Pay(Pay::default()),
        Kind::SendOnchain(SendOnchain::default()),
        Kind::CloseChannel(CloseChannel::default()),
        connect_to(Vec::new()),
    ]
}

#[test]
fn a_peers_node_id_is_a_public_key_and_not_the_nodes_own() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let own = world.nodes[hub].machine.node_id().serialize().to_vec();
    for node_id in [vec![], vec![2; 32], vec![0; 33], own] {
        assert_eq!(
            refused(&mut world, hub, connect_to(node_id.clone())),
            Code::PeerMalformed
        );
        let open = Kind::OpenChannel(OpenChannel {
            id: vec![1; 16],
            counterparty_node_id: node_id,
            amount_sat: 100_000,
            ..OpenChannel::default()
        });
        assert_eq!(refused(&mut world, hub, open), Code::PeerMalformed);
    }
}

#[test]
fn a_node_that_runs_cannot_be_registered_again() {
    let (mut world, _, owner) = world_with_channel();
    let register = Kind::Register(Register::default());
    assert_eq!(
        refused(&mut world, owner, register),
        Code::AlreadyRegistered
    );
}

#[test]
fn a_command_that_is_the_hosts_is_refused_by_its_node() {
    let (mut world, _, owner) = world_with_channel();
    for command in [
        Kind::SetWakeUrls(SetWakeUrls::default()),
        Kind::ListWakeUrls(ListWakeUrls {}),
    ] {
        assert_eq!(refused(&mut world, owner, command), Code::HostCommand);
    }
}

#[test]
fn a_node_that_is_no_hub_takes_no_requests_of_a_hubs_operator() {
    let (mut world, hub, owner) = world_with_channel();
    let refused = world.ask_hub(owner, HubRequest::Fees).err();
    assert_eq!(refused.unwrap().code, Code::NotAHub);
    assert!(world.ask_hub(hub, HubRequest::Fees).is_ok());
}

#[test]
fn a_command_of_a_newer_phone_is_refused() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let request = world.next_id();
    let unknown = Box::default();
    world.input(hub, Input::Command(request, unknown));
    let refusal = world.answer(hub, request).unwrap().unwrap_err();
    assert_eq!(refusal.code, Code::UnknownCommand);
    assert_eq!(refusal.action, i32::from(Action::GiveUp));
}

#[test]
fn nobody_waits_for_a_channel_or_a_payment_that_has_no_such_id() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let channel = Kind::AwaitChannel(AwaitChannel { id: vec![9; 16] });
    assert_eq!(refused(&mut world, hub, channel), Code::NoSuchChannel);
    let payment = Kind::AwaitPayment(AwaitPayment {
        payment_hash: vec![9; 31],
    });
    assert_eq!(
        refused(&mut world, hub, payment),
        Code::PaymentHashMalformed
    );
    let payment = Kind::GetPayment(GetPayment {
        payment_hash: vec![9; 31],
    });
    assert_eq!(
        refused(&mut world, hub, payment),
        Code::PaymentHashMalformed
    );
}

#[test]
fn while_the_phone_is_away_all_that_needs_it_is_refused_at_once() {
    let (mut world, _, owner) = world_with_channel();
    world.input(owner, Input::SignerLost);
    for command in need_the_phone() {
        let refusal = world.ask(owner, command.clone());
        let refusal = refusal.expect_err("a refusal");
        assert_eq!(refusal.code, Code::SignerAway, "{command:?}");
        assert_eq!(refusal.action, i32::from(Action::WaitForPhone));
    }
}

#[test]
fn while_the_phone_is_away_the_rest_is_answered() {
    let (mut world, _, owner) = world_with_channel();
    world.input(owner, Input::SignerLost);
    let replies = [
        Kind::GetInfo(GetInfo {}),
        Kind::GetBalance(GetBalance {}),
        Kind::ListChannels(ListChannels {}),
        Kind::ListPayments(ListPayments::default()),
        Kind::NewAddress(NewAddress {}),
        Kind::GetPayment(GetPayment {
            payment_hash: vec![1; 32],
        }),
        Kind::ListInvoices(ListInvoices {}),
    ]
    .map(|command| world.ask(owner, command).expect("a reply"));
    assert!(matches!(
        replies,
        [
            Reply::Info(_),
            Reply::Balance(_),
            Reply::Channels(_),
            Reply::Payments(_),
            Reply::Address(_),
            Reply::FoundPayment(_),
            Reply::Invoices(_)
        ]
    ));
}

#[test]
fn a_phone_that_leaves_is_refused_what_needs_it() {
    let (mut world, _, owner) = world_with_channel();
    world.nodes[owner].signer_hangs = true;
    let close = CloseChannel {
        channel_id: world.turn(owner).channels()[0].channel_id.0.to_vec(),
        force: false,
        ..CloseChannel::default()
    };
    world.ask(owner, Kind::CloseChannel(close)).unwrap();
    let detach = world.next_id();
    world.input(owner, Input::Detach(detach));
    assert!(!world.has_answered(owner, detach), "the close goes on");
    let refusal = world.ask(owner, invoice()).unwrap_err();
    assert_eq!(refusal.code, Code::SignerAway);

    world.pass(Duration::from_secs(5));
    assert!(world.has_answered(owner, detach));
    assert!(!world.nodes[owner].machine.signer_is_attached());
}

#[test]
fn a_payment_of_a_phone_that_was_shut_out_is_not_signed_by_the_next() {
    let (mut world, _, owner) = world_with_channel();
    world.fund(owner, 1_000_000);
    let phone = world.attachment(owner, b"thief");
    world.input(owner, phone);
    world.nodes[owner].signer_hangs = true;
    let theft = Kind::SendOnchain(SendOnchain {
        id: vec![9; 16],
        address: "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".into(),
        all: true,
        ..SendOnchain::default()
    });
    let request = world.begin(owner, theft);
    world.input(owner, Input::SignerLost);
    world.reload(owner);
    let sent = world.sent.clone();

    world.nodes[owner].signer_hangs = false;
    let phone = world.attachment(owner, b"owner");
    world.input(owner, phone);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.sent, sent, "it was signed");
    assert!(!world.has_answered(owner, request), "nobody waits for it");
    let again = Kind::SendOnchain(SendOnchain {
        id: vec![9; 16],
        ..SendOnchain::default()
    });
    let failed = world.ask(owner, again).unwrap_err();
    assert_eq!(failed.code, Code::PairingRenewed, "{failed:?}");
}

#[test]
fn a_command_that_waits_for_a_channel_is_not_carried_out_for_the_next_phone() {
    let mut pair = Pair::new();
    let invoice = pair.hub_invoice(1_000_000);
    let (world, owner) = (&mut pair.world, pair.owner);
    world.input(owner, Input::SignerLost);
    world.is_offline = true;
    let phone = world.attachment(owner, b"thief");
    world.input(owner, phone);
    let request = world.begin(owner, pay(&invoice));
    assert!(
        !world.has_answered(owner, request),
        "it waits for the channel"
    );
    // Both in one turn: the link of one phone has ended, and another is attached.
    world.nodes[owner].inputs.push(Input::SignerLost);
    let phone = world.attachment(owner, b"owner");
    world.input(owner, phone);
    let failed = world.answer(owner, request).unwrap().unwrap_err();
    assert_eq!(failed.code, Code::PairingRenewed);
}

#[test]
fn a_thousand_peers_that_a_phone_names_are_no_records() {
    let (mut world, _, owner) = world_with_channel();
    let before = records(&world, owner);
    world.is_offline = true;
    for number in 1..=1_000_u32 {
        let mut secret = [1; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        let secret = SecretKey::from_slice(&secret).unwrap();
        let node_id = secret.public_key(&Secp256k1::new()).serialize().to_vec();
        let refused = world.ask(owner, connect_to(node_id)).unwrap_err();
        assert_eq!(refused.code, Code::PeerUnreachable);
    }
    assert_eq!(records(&world, owner), before);
}

/// A cooperative close of the node's only channel.
fn close(world: &mut World, id: Id) -> Kind {
    Kind::CloseChannel(CloseChannel {
        channel_id: world.turn(id).channels()[0].channel_id.0.to_vec(),
        force: false,
        ..CloseChannel::default()
    })
}

/// An owner's node with a channel, just attached, whose peer is not connected.
fn waking() -> (World, Id) {
    let (mut world, _, owner) = world_with_channel();
    world.input(owner, Input::SignerLost);
    world.is_offline = true;
    world.attach(owner);
    (world, owner)
}

#[test]
fn a_close_waits_a_moment_after_an_attach_for_its_peer() {
    let (mut world, owner) = waking();
    let close = close(&mut world, owner);
    let request = world.begin(owner, close);
    assert!(!world.has_answered(owner, request));
    world.is_offline = false;
    world.pass(Duration::from_secs(2));
    let reply = world.answer(owner, request).expect("an answer");
    assert!(matches!(reply, Ok(Reply::ClosingChannel(_))), "{reply:?}");
}

#[test]
fn a_close_waits_ten_seconds_at_most() {
    let (mut world, owner) = waking();
    let close = close(&mut world, owner);
    let request = world.begin(owner, close);
    world.pass(WAKING_LIMIT - Duration::from_millis(1));
    assert!(!world.has_answered(owner, request));
    world.pass(Duration::from_millis(1));
    assert!(world.has_answered(owner, request));
}

#[test]
fn a_command_that_waits_for_a_channel_is_refused_when_the_phone_goes() {
    let (mut world, owner) = waking();
    let close = close(&mut world, owner);
    let request = world.begin(owner, close);
    world.input(owner, Input::SignerLost);
    let refusal = world
        .answer(owner, request)
        .expect("an answer")
        .unwrap_err();
    assert_eq!(refusal.code, Code::SignerAway);
}

#[test]
fn an_invoice_waits_for_no_peer_when_the_terms_of_a_channel_are_known() {
    let (mut world, owner) = waking();
    let reply = world.ask(owner, invoice());
    assert!(matches!(reply, Ok(Reply::UnsignedInvoice(_))), "{reply:?}");
}

#[test]
fn the_hosts_questions_are_answered_without_the_phone() {
    let (mut world, _, owner) = world_with_channel();
    world.input(owner, Input::SignerLost);
    let question = world.next_id();
    world.input(owner, Input::Overview(question));
    assert!(world.has_answered(owner, question));
}

#[test]
fn a_peer_is_connected_on_command_and_one_that_is_not_there_is_unreachable() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let other = world.add_hub(2);
    let node_id = world.nodes[other].machine.node_id().serialize().to_vec();
    let connected = world.ask(hub, connect_to(node_id.clone()));
    assert!(
        matches!(connected, Ok(Reply::PeerConnected(_))),
        "{connected:?}"
    );

    let nobody = world.add_owner(3, None);
    world.is_offline = true;
    let nobody = world.nodes[nobody].machine.node_id().serialize().to_vec();
    let unreachable = world.ask(hub, connect_to(nobody)).unwrap_err();
    assert_eq!(unreachable.code, Code::PeerUnreachable);
    assert_eq!(unreachable.action, i32::from(Action::Retry));
}

#[test]
fn a_peer_that_the_phone_refuses_is_disconnected_and_its_owner_reads_why() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    let phone = |world: &mut World, hub| world.nodes[owner].signer.as_mut().unwrap().set_hub(hub);
    let hub_id = world.nodes[hub].machine.node_id();
    let owner_id = world.nodes[owner].machine.node_id();
    let peers = |world: &mut World| {
        let mut of = |id| world.turn(id).ldk.peer_manager.list_peers().len();
        (of(owner), of(hub))
    };
    // The phone knows another hub.
    phone(&mut world, Some(owner_id));
    world.attach(owner);
    world.pass(Duration::from_secs(60));
    assert_eq!(peers(&mut world), (0, 0));
    assert!(world.nodes[owner].links.is_empty() && world.nodes[hub].links.is_empty());

    // A command that the phone has not sent.
    let signer = world.nodes[owner].signer.take();
    let connect = world.push(owner, connect_to(hub_id.serialize().to_vec()));
    world.nodes[owner].signer = signer;
    world.settle();
    let refused = world.answer(owner, connect).unwrap().unwrap_err();
    assert_eq!(refused.code, Code::PeerUnreachable);
    let why = format!("the phone refuses to connect to the peer {hub_id}: the owner has no");
    assert!(refused.message.starts_with(&why), "{}", refused.message);

    phone(&mut world, Some(hub_id));
    world.attach(owner);
    assert_eq!(peers(&mut world), (1, 1));
}

#[test]
fn the_address_of_a_peer_is_stored_once_there_is_a_channel_with_it() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let other = world.add_hub(2);
    world.fund(hub, 1_000_000);
    let node_id = world.nodes[other].machine.node_id();
    let bytes = node_id.serialize().to_vec();
    world.ask(hub, connect_to(bytes.clone())).unwrap();
    let key = format!("peer/{node_id}");
    assert!(!world.nodes[hub].store.contains_key(&key));
    let open = Kind::OpenChannel(OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: bytes,
        amount_sat: 500_000,
        ..OpenChannel::default()
    });
    world.ask(hub, open).unwrap();
    let stored = world.nodes[hub].store.get(&key);
    assert_eq!(stored.map(|value| &value[..]), Some(&b"host:9735"[..]));
}

#[test]
fn an_opening_that_is_asked_again_is_answered_by_its_id_alone() {
    let (mut world, hub, _) = world_with_channel();
    let before = records(&world, hub);
    let again = OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: vec![0; 33],
        address: "127.0.0.1:1".into(),
        ..OpenChannel::default()
    };
    let reply = world.ask(hub, Kind::OpenChannel(again));
    assert!(matches!(reply, Ok(Reply::OpenedChannel(_))), "{reply:?}");
    assert_eq!(records(&world, hub), before);
}
