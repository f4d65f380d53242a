//! Pairing: codes that are accepted and refused, and the state after a pairing that broke off.

use crate::common::{Host, OWNER, link, paired, phone};
use longhand_link::{
    Carrier, CloseCode, Credentials, LinkError, LinkKey, LinkKeypair, Pairing, accept,
};

fn pair(host: &Host) -> Credentials {
    let code = Box::new(host.code("grpc://unused:1"));
    Credentials::Pair {
        phone: LinkKeypair::generate().unwrap(),
        code,
    }
}

fn key(credentials: &Credentials) -> &LinkKeypair {
    let (Credentials::Pair { phone, .. } | Credentials::Attach { phone, .. }) = credentials;
    phone
}

fn closed(result: Result<impl Sized, LinkError>) -> (CloseCode, bool) {
    match result {
        Err(LinkError::Closed(reason)) => (reason.code, reason.by_peer),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn a_phone_with_a_code_is_paired_and_attaches_without_one_afterwards() {
    let (host, _incoming) = Host::new();
    let (conversation, _requests) = phone();
    let credentials = pair(&host);
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    let accepted = accepted.unwrap();
    connected.unwrap();
    assert_eq!((accepted.owner, accepted.newly_paired), (OWNER, true));
    assert_eq!(accepted.phone, key(&credentials).public());

    let again = Credentials::Attach {
        phone: key(&credentials).clone(),
        host: host.public(),
        discovery: None,
    };
    let (accepted, connected) = link(&host, &again, &conversation).await;
    connected.unwrap();
    assert!(!accepted.unwrap().newly_paired);
}

#[tokio::test]
async fn a_used_code_is_for_the_phone_that_used_it_alone() {
    let (host, _incoming) = Host::new();
    let (conversation, _requests) = phone();
    let credentials = pair(&host);
    link(&host, &credentials, &conversation).await.1.unwrap();

    // The first phone may not have received that it was paired.
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    connected.unwrap();
    assert_eq!(accepted.unwrap().owner, OWNER);

    let Credentials::Pair { code, .. } = credentials else {
        unreachable!()
    };
    let thief = Credentials::Pair {
        phone: LinkKeypair::generate().unwrap(),
        code,
    };
    let (other, _requests) = phone();
    let (accepted, connected) = link(&host, &thief, &other).await;
    assert_eq!(closed(accepted), (CloseCode::PairingUsed, false));
    assert_eq!(closed(connected), (CloseCode::PairingUsed, true));
    assert_eq!(
        host.phones
            .lock()
            .unwrap()
            .iter()
            .filter(|k| **k == key(&thief).public())
            .count(),
        0
    );
}

#[tokio::test]
async fn unknown_and_expired_codes_are_refused_by_name() {
    let (host, _incoming) = Host::new();
    let (conversation, _requests) = phone();
    for (state, code) in [
        (Pairing::Unknown, CloseCode::PairingUnknown),
        (Pairing::Expired, CloseCode::PairingExpired),
    ] {
        let credentials = pair(&host);
        for pairing in host.codes.lock().unwrap().values_mut() {
            *pairing = state.clone();
        }
        let (accepted, connected) = link(&host, &credentials, &conversation).await;
        if state == Pairing::Expired {
            let line = connected.as_ref().err().unwrap().to_string();
            assert!(line.contains("the host's clock shows 20"), "{line}");
        }
        assert_eq!(closed(accepted), (code.clone(), false));
        assert_eq!(closed(connected), (code, true));
        assert!(host.phones.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_code_is_not_used_up_by_a_handshake_that_breaks() {
    let (host, _incoming) = Host::new();
    let (conversation, _requests) = phone();
    let credentials = pair(&host);

    // An attacker who knows only the code's id begins with it, and cannot go on.
    let (mut eavesdropper, host_end) = Carrier::pair();
    let Credentials::Pair { code, .. } = &credentials else {
        unreachable!()
    };
    let first = [&[1, 1], code.secret.id().0.as_slice(), &[7; 48]].concat();
    eavesdropper.sink.send(first).await.unwrap();
    assert!(accept(host_end, &host).await.is_err());

    link(&host, &credentials, &conversation).await.1.unwrap();
}

#[tokio::test]
async fn a_host_that_cannot_record_the_phone_says_so_and_the_code_stays_good() {
    let (host, _incoming) = Host::new();
    let (conversation, _requests) = phone();
    let credentials = pair(&host);
    *host.broken.lock().unwrap() = true;
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    assert!(matches!(accepted, Err(LinkError::Identity(_))));
    assert_eq!(closed(connected), (CloseCode::Unavailable, true));
    *host.broken.lock().unwrap() = false;
    link(&host, &credentials, &conversation).await.1.unwrap();
}

#[tokio::test]
async fn a_host_that_dies_before_its_hello_pairs_the_phone_on_the_next_attempt() {
    let (host, _incoming) = Host::new();
    let (conversation, _requests) = phone();
    let credentials = pair(&host);
    // The host has pinned the phone, and its answer is lost.
    let Credentials::Pair { code, phone } = &credentials else {
        unreachable!()
    };
    let used = Pairing::UsedBy(code.secret.clone(), phone.public());
    host.codes.lock().unwrap().insert(code.secret.id(), used);
    let (accepted, connected) = link(&host, &credentials, &conversation).await;
    connected.unwrap();
    assert!(accepted.unwrap().newly_paired);
}

#[tokio::test]
async fn an_unknown_phone_and_a_wrong_host_are_refused() {
    let (host, _incoming) = Host::new();
    let (conversation, _requests) = phone();
    let stranger = Credentials::Attach {
        phone: LinkKeypair::generate().unwrap(),
        host: host.public(),
        discovery: None,
    };
    let (accepted, connected) = link(&host, &stranger, &conversation).await;
    assert_eq!(closed(accepted), (CloseCode::UnknownOwner, false));
    assert_eq!(closed(connected), (CloseCode::UnknownOwner, true));

    let astray = Credentials::Attach {
        phone: LinkKeypair::generate().unwrap(),
        host: LinkKey([9; 32]),
        discovery: None,
    };
    let (accepted, connected) = link(&host, &astray, &conversation).await;
    assert!(matches!(accepted, Err(LinkError::Handshake)));
    assert!(matches!(connected, Err(LinkError::Handshake)));
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_is_no_longer_admitted_is_out_at_once_and_cannot_come_back() {
    let (host, mut commands, old) = paired();
    let (old_phone, _old_signing) = phone();
    let (_, connected) = link(&host, &old, &old_phone).await;
    let old_link = connected.unwrap();
    let asked = host.conversation().clone();
    let asked = tokio::spawn(async move { asked.request("signer", vec![1]).await });
    tokio::task::yield_now().await;

    host.conversation().admit(None);
    let reason = old_link.closed().await;
    assert_eq!(
        (reason.code, reason.by_peer),
        (CloseCode::UnknownOwner, true)
    );
    assert!(matches!(asked.await.unwrap(), Err(LinkError::Down(_))));

    let new = LinkKeypair::generate().unwrap();
    host.phones.lock().unwrap().push(new.public());
    host.conversation().admit(Some(new.public()));
    let credentials = Credentials::Attach {
        phone: new.clone(),
        host: host.public(),
        discovery: None,
    };
    let (new_phone, _new_signing) = phone();
    let (accepted, connected) = link(&host, &credentials, &new_phone).await;
    let (node, _new_link) = (accepted.unwrap().link, connected.unwrap());
    // The host still knew the old phone when this handshake began: the new one's link is not replaced.
    let (accepted, connected) = link(&host, &old, &old_phone).await;
    assert_eq!(closed(accepted), (CloseCode::UnknownOwner, false));
    let reason = connected.unwrap().closed().await;
    assert_eq!(
        (reason.code, reason.by_peer),
        (CloseCode::UnknownOwner, true)
    );
    assert!(host.conversation().link().is_some());
    drop(node);

    let command = new_phone.clone();
    tokio::spawn(async move { command.request("command", vec![2]).await });
    let command = commands.next().await.unwrap();
    assert_eq!(
        (command.from, &command.payload[..]),
        (new.public(), &[2][..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_not_waited_for() {
    let (host, _incoming) = Host::new();
    let (_silent, host_end) = Carrier::pair();
    assert!(matches!(
        accept(host_end, &host).await,
        Err(LinkError::HandshakeTimeout)
    ));
}
