//! Phones at a host whose chain source is down: pairing, links, and what is answered without nodes.

use crate::common::{config, create_owner, host_without_chain, listening};
use longhand_link::{LinkKeypair, PairingSecret};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{Command, GetInfo, ListWakeUrls, Register, SetWakeUrls, WakeUrls};
use longhand_proto::operator::*;
use longhand_testkit::link_phone::{LinkPhone, close_code};
use prost::Message;

#[tokio::test]
async fn a_phone_pairs_once_and_attaches_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let phone = LinkPhone::new(create_owner(&mut operator, "ann").await);
    let link = phone.pair().await.unwrap();

    let listed = operator
        .list_owners(ListOwnersRequest {})
        .await
        .unwrap()
        .into_inner()
        .owners;
    let ann = Owner {
        name: "ann".into(),
        paired: true,
        link_live: true,
        ..Owner::default()
    };
    assert_eq!(listed, [ann]);

    link.detach().await.unwrap();
    let again = phone.attach().await.unwrap();
    host.stop().await;
    assert_eq!(again.closed().await.code.to_string(), Code::Shutdown);
}

#[tokio::test]
async fn a_paired_phone_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    let (host, mut operator) = host_without_chain(config.clone()).await;
    let phone = LinkPhone::new(create_owner(&mut operator, "ann").await);
    phone.pair().await.unwrap();
    config.link.listen = listening(&host)[..1].to_vec();
    host.stop().await;

    let (host, _operator) = host_without_chain(config).await;
    phone.attach().await.unwrap();
    host.stop().await;
}

#[tokio::test]
async fn codes_that_are_wrong_or_used_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let code = create_owner(&mut operator, "ann").await;

    let mut wrong = code.clone();
    wrong.secret = PairingSecret::generate().unwrap();
    let refused = LinkPhone::new(wrong).pair().await.unwrap_err();
    assert_eq!(close_code(&refused), Code::PairingUnknown);

    let phone = LinkPhone::new(code.clone());
    let link = phone.pair().await.unwrap();
    let refused = LinkPhone::new(code.clone()).pair().await.unwrap_err();
    assert_eq!(close_code(&refused), Code::PairingUsed);

    // A pairing that broke off is finished by the same phone, which may have been restarted.
    let restarted = LinkPhone::with_key(code.clone(), phone.key.clone());
    restarted.pair().await.unwrap();
    assert_eq!(link.closed().await.code.to_string(), Code::Replaced);

    let stranger = LinkPhone::with_key(code, LinkKeypair::generate().unwrap());
    let refused = stranger.attach().await.unwrap_err();
    assert_eq!(close_code(&refused), Code::UnknownOwner);
    host.stop().await;
}

#[tokio::test]
async fn a_renewed_code_moves_the_owner_to_another_phone() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let code = create_owner(&mut operator, "ann").await;
    let old = LinkPhone::new(code.clone());
    let old_link = old.pair().await.unwrap();

    let renew = RenewPairingRequest {
        owner: "ann".into(),
        pairing_expires_s: 60,
    };
    let renewed = operator.renew_pairing(renew).await.unwrap().into_inner();
    assert_eq!(renewed.owner, "ann");
    // Out at once: it may be in other hands.
    assert_eq!(old_link.closed().await.code.to_string(), Code::UnknownOwner);
    let refused = old.attach().await.unwrap_err();
    assert_eq!(close_code(&refused), Code::UnknownOwner);
    let refused = LinkPhone::new(code).pair().await.unwrap_err();
    assert_eq!(close_code(&refused), Code::PairingUnknown);

    let new = LinkPhone::new(renewed.code.parse().unwrap());
    let link = new.pair().await.unwrap();
    let refused = old.attach().await.unwrap_err();
    assert_eq!(close_code(&refused), Code::UnknownOwner);
    assert!(new.conversation.link().is_some(), "{link:?}");
    host.stop().await;
}

#[tokio::test]
async fn the_newest_link_wins() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let code = create_owner(&mut operator, "ann").await;
    let phone = LinkPhone::new(code.clone());
    let first = phone.pair().await.unwrap();
    let second = phone.attach().await.unwrap();
    assert_eq!(first.closed().await.code.to_string(), Code::Replaced);
    let status = operator
        .status(StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.owners, status.links), (1, 1));
    drop(second);
    host.stop().await;
}

#[tokio::test]
async fn without_a_chain_commands_are_answered_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let phone = LinkPhone::new(create_owner(&mut operator, "ann").await);
    phone.pair().await.unwrap();

    let error = phone.refused(Body::GetInfo(GetInfo {})).await;
    assert_eq!(
        (error.code.parse(), error.action()),
        (Ok(Code::NotRegistered), Action::FixInput)
    );
    let error = phone.refused(Body::Register(Register::default())).await;
    assert_eq!(
        (error.code.parse(), error.action()),
        (Ok(Code::ChainUnavailable), Action::Retry)
    );

    let refused = phone
        .conversation
        .request("command", vec![0xff])
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains(Code::BadRequest.as_str()),
        "{refused}"
    );
    let refused = phone
        .conversation
        .request("signer", Vec::new())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains(Code::UnknownKind.as_str()),
        "{refused}"
    );
    let error = operator
        .hub_address(HubAddressRequest {})
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert!(
        error.message().starts_with("CHAIN_UNAVAILABLE: "),
        "{}",
        error.message()
    );
    host.stop().await;
}

/// The code that stands before the line for a person.
fn code_before(message: &str) -> &str {
    message.split(':').next().unwrap()
}

#[tokio::test]
async fn what_the_operator_asks_wrongly_is_refused_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    create_owner(&mut operator, "ann").await;
    let create = |name: &str, wake_url: &str| CreateOwnerRequest {
        name: name.into(),
        wake_url: wake_url.into(),
        pairing_expires_s: 0,
    };
    let cases = [
        (create("ann", ""), tonic::Code::AlreadyExists),
        (create("", ""), tonic::Code::InvalidArgument),
        (create("bob", "nowhere"), tonic::Code::InvalidArgument),
    ];
    for (request, code) in cases {
        assert_eq!(
            operator.create_owner(request).await.unwrap_err().code(),
            code
        );
    }
    let unknown = RenewPairingRequest {
        owner: "bob".into(),
        pairing_expires_s: 0,
    };
    assert_eq!(
        operator.renew_pairing(unknown).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    let unknown = GetNodeRequest {
        owner: "bob".into(),
    };
    assert_eq!(
        operator.get_node(unknown).await.unwrap_err().code(),
        tonic::Code::NotFound
    );
    let early = GetNodeRequest {
        owner: "ann".into(),
    };
    let early = operator.get_node(early).await.unwrap_err();
    assert_eq!(early.code(), tonic::Code::FailedPrecondition);
    assert_eq!(code_before(early.message()), Code::NodeNotRunning);

    let open = |owner: &str, node_id: Vec<u8>| HubOpenChannelRequest {
        owner: owner.into(),
        node_id,
        amount_sat: 100_000,
        ..HubOpenChannelRequest::default()
    };
    let cases = [
        (open("", Vec::new()), tonic::Code::InvalidArgument),
        (open("ann", vec![2; 33]), tonic::Code::InvalidArgument),
        (open("bob", Vec::new()), tonic::Code::NotFound),
    ];
    for (request, code) in cases {
        assert_eq!(
            operator.hub_open_channel(request).await.unwrap_err().code(),
            code
        );
    }
    let unpaired = operator.hub_open_channel(open("ann", Vec::new())).await;
    let unpaired = unpaired.unwrap_err();
    assert_eq!(unpaired.code(), tonic::Code::FailedPrecondition);
    assert_eq!(code_before(unpaired.message()), Code::OwnerNotPaired);
    let owners = operator
        .list_owners(ListOwnersRequest {})
        .await
        .unwrap()
        .into_inner()
        .owners;
    assert_eq!(owners.len(), 1);
    host.stop().await;
}

#[tokio::test]
async fn a_phone_and_the_operator_set_their_wake_urls_while_no_node_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let phone = LinkPhone::new(create_owner(&mut operator, "ann").await);
    phone.pair().await.unwrap();
    let set = |urls: &[&str]| {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Body::SetWakeUrls(SetWakeUrls { urls })
    };
    let list = || Body::ListWakeUrls(ListWakeUrls {});
    let url = "https://push.example/token";
    let of_operator = |wake_url: Option<&str>, clear_phones| SetWakeUrlRequest {
        owner: "ann".into(),
        wake_url: wake_url.map(Into::into),
        clear_phones,
    };

    let known = |urls: &[&str], operator_has_one| {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        Reply::WakeUrls(WakeUrls {
            urls,
            operator_has_one,
        })
    };
    assert_eq!(phone.command(set(&[url])).await, known(&[url], false));
    for (urls, code) in [
        (&["nowhere"][..], Code::BadWakeUrl),
        (&[url, url, url, url, url], Code::TooManyWakeUrls),
        (
            &[format!("https://{}", "x".repeat(512)).as_str()],
            Code::WakeUrlTooLong,
        ),
    ] {
        let error = phone.refused(set(urls)).await;
        assert_eq!(
            (error.code.parse(), error.action()),
            (Ok(code), Action::FixInput)
        );
    }
    let changed = operator.set_wake_url(of_operator(Some("https://op.example/"), false));
    let changed = changed.await.unwrap().into_inner();
    assert_eq!(changed.phone_wake_urls, [url]);
    assert_eq!(phone.command(list()).await, known(&[url], true));
    let owners = operator.list_owners(ListOwnersRequest {}).await.unwrap();
    let owner = owners.into_inner().owners.remove(0);
    assert_eq!(owner.wake_url, "https://op.example/");
    assert_eq!(owner.phone_wake_urls, [url]);

    operator
        .set_wake_url(of_operator(None, true))
        .await
        .unwrap();
    assert_eq!(phone.command(list()).await, known(&[], true));
    operator
        .set_wake_url(of_operator(Some(""), false))
        .await
        .unwrap();
    assert_eq!(phone.command(list()).await, known(&[], false));
    let refused = operator
        .set_wake_url(of_operator(Some("nowhere"), false))
        .await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
    host.stop().await;
}

#[tokio::test]
async fn a_command_that_is_far_too_long_is_not_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let (host, mut operator) = host_without_chain(config(&dir)).await;
    let phone = LinkPhone::new(create_owner(&mut operator, "ann").await);
    phone.pair().await.unwrap();
    let urls = vec![String::new(); 100_000];
    let many = Command {
        command: Some(Body::SetWakeUrls(SetWakeUrls { urls })),
    };
    let sent = phone.conversation.request("command", many.encode_to_vec());
    let refused = sent.await.unwrap_err();
    assert!(refused.to_string().contains("too long"), "{refused}");
    host.stop().await;
}
