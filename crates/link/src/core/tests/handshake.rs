//! Handshakes that are accepted, and the refusals of the others.

use super::*;
use crate::pairing::PairingSecret;

fn keys() -> (LinkKeypair, LinkKeypair, PairingSecret) {
    let secret = PairingSecret::from_bytes([9; 16]);
    (
        LinkKeypair::from_bytes([1; 32]),
        LinkKeypair::from_bytes([2; 32]),
        secret,
    )
}

fn pair_first(host: &LinkKeypair, record: &[u8]) -> super::super::handshake::PairResponder {
    match Responder::receive(host, record) {
        Ok(Responder::Pair(pairing)) => pairing,
        _ => panic!("not a pairing"),
    }
}

#[test]
fn a_pairing_teaches_the_host_the_phones_key_and_process() {
    let (phone, host, secret) = keys();
    let (initiator, first) = Initiator::pair(&phone, &host.public(), &secret, PHONE).unwrap();
    let pairing = pair_first(&host, &first);
    assert_eq!(pairing.id(), &secret.id());
    let (awaiting, answer) = pairing.welcome(&secret).unwrap();
    let (mut phone_side, last) = initiator.receive(&answer).unwrap();
    let mut host_side = awaiting.receive(&last.unwrap()).unwrap();
    assert_eq!(
        (host_side.remote, host_side.instance),
        (phone.public(), Some(PHONE))
    );
    assert_eq!(phone_side.remote, host.public());
    let record = phone_side.transport.seal(b"hello").unwrap().remove(0);
    assert_eq!(
        host_side.transport.open(&record, 99),
        Ok(Some(b"hello".to_vec()))
    );
}

#[test]
fn the_first_record_does_not_hold_the_secret() {
    let (phone, host, secret) = keys();
    let (_, first) = Initiator::pair(&phone, &host.public(), &secret, PHONE).unwrap();
    assert!(!first.windows(16).any(|w| w == &secret.to_bytes()[..]));
    assert!(!first.windows(32).any(|w| w == phone.public().0));
}

#[test]
fn a_phone_with_another_secret_is_rejected_by_a_hint() {
    let (phone, host, secret) = keys();
    let (initiator, first) = Initiator::pair(&phone, &host.public(), &secret, PHONE).unwrap();
    let other = PairingSecret::from_bytes([8; 16]);
    let (awaiting, answer) = pair_first(&host, &first).welcome(&other).unwrap();
    let (_, last) = initiator.receive(&answer).unwrap();
    let rejected = awaiting.receive(&last.unwrap()).unwrap_err();
    assert_eq!(rejected.error, LinkError::Handshake);
    assert_eq!(rejected.reply, [VERSION, 4, 2]);
}

#[test]
fn a_refused_pairing_is_proved_to_come_from_the_host() {
    let (phone, host, secret) = keys();
    let (initiator, first) = Initiator::pair(&phone, &host.public(), &secret, PHONE).unwrap();
    let answer = pair_first(&host, &first)
        .refuse(CloseCode::PairingExpired, "too late")
        .unwrap();
    let refused = initiator.receive(&answer).unwrap_err();
    let LinkError::Closed(reason) = refused else {
        panic!("{refused}")
    };
    assert_eq!(
        (reason.code, reason.by_peer),
        (CloseCode::PairingExpired, true)
    );
}

#[test]
fn a_host_with_another_key_than_the_codes_is_noticed() {
    let (phone, _, secret) = keys();
    let impostor = LinkKeypair::from_bytes([3; 32]);
    let expected = LinkKey([7; 32]);
    let (initiator, first) = Initiator::pair(&phone, &expected, &secret, PHONE).unwrap();
    let (_, answer) = pair_first(&impostor, &first).welcome(&secret).unwrap();
    assert_eq!(
        initiator.receive(&answer).unwrap_err(),
        LinkError::WrongHost
    );
}

#[test]
fn an_unknown_phone_gets_the_reason() {
    let (phone, host, _) = keys();
    let (initiator, first) = Initiator::attach(&phone, &host.public(), PHONE).unwrap();
    let Ok(Responder::Attach(attach)) = Responder::receive(&host, &first) else {
        panic!()
    };
    let answer = attach.refuse(CloseCode::UnknownOwner, "who?").unwrap();
    let refused = initiator.receive(&answer).unwrap_err();
    assert!(matches!(refused, LinkError::Closed(r) if r.code == CloseCode::UnknownOwner));
}

#[test]
fn a_phone_that_pinned_another_host_gets_the_error_of_the_handshake() {
    let (phone, host, _) = keys();
    let other = LinkKeypair::from_bytes([4; 32]);
    let (initiator, first) = Initiator::attach(&phone, &other.public(), PHONE).unwrap();
    let Err(rejected) = Responder::receive(&host, &first) else {
        panic!()
    };
    assert_eq!(
        initiator.receive(&rejected.reply).unwrap_err(),
        LinkError::Handshake
    );
}

#[test]
fn another_version_is_named_on_both_sides() {
    let (phone, host, _) = keys();
    let (initiator, mut first) = Initiator::attach(&phone, &host.public(), PHONE).unwrap();
    first[0] = 9;
    let Err(rejected) = Responder::receive(&host, &first) else {
        panic!()
    };
    assert_eq!(
        rejected.error,
        LinkError::Version {
            ours: VERSION,
            theirs: 9
        }
    );
    let mut reply = rejected.reply;
    reply[0] = 8;
    let error = initiator.receive(&reply).unwrap_err();
    assert_eq!(
        error,
        LinkError::Version {
            ours: VERSION,
            theirs: 8
        }
    );
}

#[test]
fn a_changed_or_cut_first_record_is_rejected() {
    let (phone, host, secret) = keys();
    let (_, attach) = Initiator::attach(&phone, &host.public(), PHONE).unwrap();
    for cut in 0..attach.len() {
        assert!(
            Responder::receive(&host, &attach[..cut]).is_err(),
            "cut at {cut}"
        );
    }
    for at in [2, 40, attach.len() - 1] {
        let mut changed = attach.clone();
        changed[at] ^= 1;
        assert!(
            Responder::receive(&host, &changed).is_err(),
            "changed at {at}"
        );
    }
    let (initiator, mut pair) = Initiator::pair(&phone, &host.public(), &secret, PHONE).unwrap();
    // The pairing id is bound to the handshake although it is sent in the clear.
    pair[5] ^= 1;
    assert!(Responder::receive(&host, &pair).is_err());
    assert!(initiator.receive(&[]).is_err());
    assert!(Responder::receive(&host, &[1, 1].repeat(1000)).is_err());
}
