//! Owners' nodes at a host with a chain: registered, attached, detached, and back after a restart.

use crate::common::{config, create_owner, listening};
use longhand_chain::{Devnet, DevnetConfig};
use longhand_host::client::Client;
use longhand_host::config::Password;
use longhand_host::{Host, HostConfig};
use longhand_link::CloseCode;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::error::Action;
use longhand_proto::command::{GetInfo, Register};
use longhand_proto::operator::*;
use longhand_testkit::host::operator;
use longhand_testkit::link_phone::LinkPhone;
use longhand_testkit::phone::registration;

/// A chain, and how a host is set up for it.
async fn chain(dir: &tempfile::TempDir) -> (Devnet, HostConfig) {
    let rpc = DevnetConfig::default();
    let (user, password) = (rpc.user.clone(), rpc.password.clone());
    let devnet = Devnet::start(rpc).await.unwrap();
    let mut config = config(dir);
    config.chain.bitcoind.url = format!("http://{}", devnet.rpc_addr());
    config.chain.bitcoind.user = user;
    config.chain.bitcoind.password = Password::from(password);
    config.chain.poll_ms = 20;
    (devnet, config)
}

/// A host whose hub runs.
async fn host(config: &HostConfig) -> (Host, Client) {
    let host = Host::start(config.clone()).await.unwrap();
    let mut client = operator(&host, config).await.unwrap();
    while client.hub_balance(HubBalanceRequest {}).await.is_err() {
        tokio::task::yield_now().await;
    }
    (host, client)
}

/// A paired phone whose node runs.
async fn registered(operator: &mut Client, name: &str, seed: u8) -> LinkPhone {
    let mut phone = LinkPhone::new(create_owner(operator, name).await);
    phone.sign_with(seed);
    phone.pair().await.unwrap();
    phone.register(seed).await;
    phone
}

async fn state(operator: &mut Client, owner: &str) -> String {
    let request = GetNodeRequest {
        owner: owner.into(),
    };
    operator.get_node(request).await.unwrap().into_inner().state
}

async fn until_dormant(operator: &mut Client, owner: &str) {
    while state(operator, owner).await != "dormant" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_registered_phone_has_a_node_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, config) = chain(&dir).await;
    let (host, mut operator) = host(&config).await;
    let mut phone = LinkPhone::new(create_owner(&mut operator, "ann").await);
    phone.sign_with(1);
    phone.pair().await.unwrap();
    let registered = phone.register(1).await;

    let status = operator
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(registered.node_id, registration(1).node_id);
    assert_eq!(registered.hub_node_id, status.hub_node_id);
    assert_eq!(
        (status.nodes, status.links, status.chain_reachable),
        (1, 1, true)
    );
    let info = phone.info().await;
    assert_eq!(info.node_id, registered.node_id);
    assert_ne!(info.state, "dormant", "the phone is there");
    assert_eq!(
        phone.register(1).await,
        registered,
        "the same again is no error"
    );
    host.stop().await;
}

#[tokio::test]
async fn other_keys_and_bad_ones_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, config) = chain(&dir).await;
    let (host, mut operator) = host(&config).await;
    let ann = registered(&mut operator, "ann", 1).await;
    let bob = LinkPhone::new(create_owner(&mut operator, "bob").await);
    bob.pair().await.unwrap();
    let before = operator
        .list_owners(ListOwnersRequest {})
        .await
        .unwrap()
        .into_inner();

    let cases = [
        (&ann, registration(2), Code::OwnerKeysDiffer, Action::GiveUp),
        (&bob, registration(1), Code::NodeTaken, Action::GiveUp),
        (
            &bob,
            Register::default(),
            Code::BadRegistration,
            Action::FixInput,
        ),
    ];
    for (phone, registration, code, action) in cases {
        let error = phone.refused(Body::Register(registration)).await;
        assert_eq!(
            (error.code.parse(), error.action()),
            (Ok(code), action),
            "{}",
            error.message
        );
    }
    let after = operator
        .list_owners(ListOwnersRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(after, before);
    host.stop().await;
}

#[tokio::test]
async fn a_node_id_is_registered_by_who_has_its_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, config) = chain(&dir).await;
    let (host, mut operator) = host(&config).await;
    let mut thief = LinkPhone::new(create_owner(&mut operator, "thief").await);
    thief.sign_with(2);
    thief.pair().await.unwrap();
    let error = thief.refused(Body::Register(registration(1))).await;
    assert_eq!(
        (error.code.parse(), error.action()),
        (Ok(Code::KeysNotShown), Action::GiveUp),
        "{}",
        error.message
    );

    let ann = registered(&mut operator, "ann", 1).await;
    let listed = operator.list_owners(ListOwnersRequest {}).await.unwrap();
    let ids: Vec<_> = listed
        .into_inner()
        .owners
        .into_iter()
        .map(|o| o.node_id)
        .collect();
    assert_eq!(ids, [registration(1).node_id, vec![]]);
    drop(ann);
    host.stop().await;
}

#[tokio::test]
async fn a_phone_that_detaches_or_goes_leaves_a_dormant_node() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, config) = chain(&dir).await;
    let (host, mut operator) = host(&config).await;
    let phone = registered(&mut operator, "ann", 1).await;

    phone.conversation.link().unwrap().detach().await.unwrap();
    assert_eq!(state(&mut operator, "ann").await, "dormant");

    phone.attach().await.unwrap();
    assert_ne!(state(&mut operator, "ann").await, "dormant");
    phone
        .conversation
        .give_up(CloseCode::Shutdown, "the app was closed");
    until_dormant(&mut operator, "ann").await;
    host.stop().await;
}

#[tokio::test]
async fn another_phone_of_the_owner_signs_only_once_it_has_shown_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, config) = chain(&dir).await;
    let (host, mut operator) = host(&config).await;
    let old = registered(&mut operator, "ann", 1).await;
    let renew = RenewPairingRequest {
        owner: "ann".into(),
        pairing_expires_s: 60,
    };
    let code = operator
        .renew_pairing(renew)
        .await
        .unwrap()
        .into_inner()
        .code;

    until_dormant(&mut operator, "ann").await;
    assert_eq!(old.conversation.down().await.code, CloseCode::UnknownOwner);

    let mut new = LinkPhone::new(code.parse().unwrap());
    new.sign_with(1);
    new.pair().await.unwrap();
    assert_eq!(
        new.refused(Body::GetInfo(GetInfo {})).await.code,
        Code::NotRegistered
    );
    assert_eq!(
        new.refused(Body::Register(registration(2))).await.code,
        Code::OwnerKeysDiffer
    );
    new.register(1).await;
    assert_ne!(state(&mut operator, "ann").await, "dormant");
    host.stop().await;
}

#[tokio::test]
async fn nodes_and_the_hub_are_back_after_a_restart_without_their_phones() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, mut config) = chain(&dir).await;
    let (first, mut operator) = host(&config).await;
    let phone = registered(&mut operator, "ann", 1).await;
    let hub = operator
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner()
        .hub_node_id;
    config.link.listen = listening(&first)[..1].to_vec();
    first.stop().await;

    let (second, mut operator) = host(&config).await;
    let status = operator
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.hub_node_id, hub);
    while operator
        .list_nodes(ListNodesRequest {})
        .await
        .unwrap()
        .into_inner()
        .nodes
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(state(&mut operator, "ann").await, "dormant");
    phone.attach().await.unwrap();
    assert_ne!(state(&mut operator, "ann").await, "dormant");
    second.stop().await;
}
