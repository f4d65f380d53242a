//! Frames as records: any sizes, and any input.

use proptest::prelude::*;

use super::*;
use crate::core::record::REKEY_EVERY;
use crate::core::session::ProtocolError;

#[test]
fn keys_change_long_before_nonces_run_out_and_nobody_notices() {
    let (mut phone, mut host) = handshake(PHONE);
    for n in 0..2 * REKEY_EVERY + 10 {
        let frame = n.to_be_bytes();
        let record = phone.transport.seal(&frame).unwrap().remove(0);
        assert_eq!(host.transport.open(&record, 99), Ok(Some(frame.to_vec())));
    }
}

#[test]
fn a_part_that_could_have_been_larger_is_refused() {
    // Marked "more to come", yet short: it could go on for ever without a frame.
    let keys = "Noise_NN_25519_ChaChaPoly_BLAKE2s";
    let mut a = snow::Builder::new(keys.parse().unwrap())
        .build_initiator()
        .unwrap();
    let mut b = snow::Builder::new(keys.parse().unwrap())
        .build_responder()
        .unwrap();
    let mut buffer = [0; 200];
    for n in 0..2 {
        let (from, to) = if n == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let length = from.write_message(&[], &mut buffer).unwrap();
        to.read_message(&buffer[..length], &mut [0; 200]).unwrap();
    }
    let mut raw = a.into_transport_mode().unwrap();
    let mut transport = super::super::record::Transport::new(b.into_transport_mode().unwrap());
    for (plain, expected) in [
        (&[1, 42][..], Ok(Some(vec![42]))),
        (&[0, 42][..], Err(ProtocolError::Malformed)),
        (&[2, 42][..], Err(ProtocolError::Malformed)),
        (&[][..], Err(ProtocolError::Malformed)),
    ] {
        let length = raw.write_message(plain, &mut buffer).unwrap();
        assert_eq!(transport.open(&buffer[..length], 99), expected, "{plain:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn frames_of_any_size_come_through_in_order(
        sizes in prop::collection::vec(prop_oneof![0usize..300, 65_400usize..65_600, 131_000usize..131_100], 1..6),
    ) {
        let (mut phone, mut host) = handshake(PHONE);
        for (n, size) in sizes.into_iter().enumerate() {
            let frame = vec![n as u8; size];
            let mut opened = Vec::new();
            for record in phone.transport.seal(&frame).unwrap() {
                prop_assert!(record.len() <= crate::carrier::MAX_RECORD);
                opened.push(host.transport.open(&record, 1 << 20).unwrap());
            }
            prop_assert_eq!(opened.pop(), Some(Some(frame)));
            prop_assert!(opened.iter().all(Option::is_none));
        }
    }

    #[test]
    fn garbage_in_place_of_a_record_ends_a_session_and_nothing_else(
        garbage in prop::collection::vec(any::<u8>(), 0..200),
        open in any::<bool>(),
    ) {
        let mut world = World::new();
        world.connect();
        if open {
            world.run();
        }
        world.host.receive(&garbage, 0);
        prop_assert_eq!(world.host.close_code(), Some(CloseCode::Protocol));
    }

    #[test]
    fn garbage_from_an_authenticated_side_never_panics(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..20),
    ) {
        let (mut phone, host) = handshake(PHONE);
        let mut end = End::new(Side::Host, HOST);
        end.session = Some(Session::new(host, &end.requests, 0));
        for frame in frames {
            let record = phone.transport.seal(&frame).unwrap().remove(0);
            end.receive(&record, 0);
        }
        prop_assert!(end.executed.is_empty());
        prop_assert_eq!(end.closed().is_some(), true);
    }

    #[test]
    fn a_garbled_handshake_is_rejected(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let host = LinkKeypair::from_bytes([2; 32]);
        prop_assert!(Responder::receive(&host, &garbage).is_err());
        let mut headed = vec![1, 2];
        headed.extend(&garbage);
        prop_assert!(Responder::receive(&host, &headed).is_err());
        let (initiator, _) = Initiator::attach(&LinkKeypair::from_bytes([1; 32]), &LinkKey([5; 32]), PHONE).unwrap();
        prop_assert!(initiator.receive(&garbage).is_err());
    }
}
