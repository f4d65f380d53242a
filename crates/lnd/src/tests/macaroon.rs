//! Against macaroons of lnd's own libraries (`tests/vectors/make.go`), and ones that are changed.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::Rights;

#[derive(Deserialize)]
struct Vector {
    name: String,
    root_key: String,
    app: String,
    nonce: String,
    ops: Vec<String>,
    caveats: Option<Vec<String>>,
    macaroon: String,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    op: String,
    unix_s: u64,
    allowed: bool,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../tests/vectors/macaroons.json")).unwrap()
}

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    bytes.try_into().unwrap()
}

fn op(text: &str) -> Op {
    let all = crate::testing::ALL.ops();
    *all.iter().find(|op| op.to_string() == text).unwrap()
}

impl Vector {
    fn root_key(&self) -> RootKey {
        RootKey::new(bytes(&self.root_key))
    }

    /// Ours with the same content.
    fn minted(&self) -> Macaroon {
        let grant = Grant {
            app: self.app.as_bytes(),
            nonce: bytes(&self.nonce),
            ops: &self.ops.iter().map(|it| op(it)).collect::<Vec<_>>(),
            expires_unix_s: None,
        };
        let caveats = self.caveats.iter().flatten();
        let minted = Macaroon::mint(&self.root_key(), &grant).unwrap();
        caveats.fold(minted, |minted, caveat| minted.narrowed(caveat))
    }
}

#[test]
fn those_of_lnd_are_answered_as_lnd_answers_them() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 13);
    for vector in vectors {
        for asked in &vector.questions {
            let macaroon = Macaroon::from_hex(&vector.macaroon);
            let (key, needed) = (vector.root_key(), op(&asked.op));
            let answer = macaroon.and_then(|it| it.verify(&key, Some(needed), asked.unix_s));
            let (name, at) = (&vector.name, asked.unix_s);
            assert_eq!(
                answer.is_ok(),
                asked.allowed,
                "{name}: {needed} at {at}: {answer:?}"
            );
        }
    }
}

#[test]
fn ours_are_the_same_bytes() {
    let honest = |it: &Vector| {
        let others = ["third party", "another key", "bit of", "cut short"];
        !others.iter().any(|other| it.name.contains(other))
    };
    let honest: Vec<Vector> = vectors().into_iter().filter(honest).collect();
    assert_eq!(honest.len(), 9);
    for vector in honest {
        assert_eq!(
            *vector.minted().to_hex(),
            vector.macaroon,
            "{}",
            vector.name
        );
        let read = Macaroon::from_hex(&vector.macaroon).unwrap();
        assert_eq!(read.app().unwrap(), vector.app.as_bytes());
        assert_eq!(*read.to_hex(), vector.macaroon);
    }
}

#[test]
fn the_reason_is_named() {
    let named = |name: &str, unix_s| {
        let vector = vectors().into_iter().find(|it| it.name == name).unwrap();
        let macaroon = Macaroon::from_hex(&vector.macaroon)?;
        macaroon.verify(&vector.root_key(), Some(Op::read("info")), unix_s)
    };
    assert_eq!(named("of another key", 0), Err(MacaroonError::Foreign));
    assert_eq!(named("expires", 1_800_000_000), Err(MacaroonError::Expired));
    for unknown in [
        "tied to an address",
        "of an account",
        "a third party's caveat",
    ] {
        assert_eq!(named(unknown, 0), Err(MacaroonError::UnknownCaveat));
    }
    assert!(matches!(
        named("cut short", 0),
        Err(MacaroonError::Malformed(_))
    ));
    let allowed = crate::testing::macaroon(Rights::default_read(), None);
    let key = RootKey::new(crate::testing::ROOT_KEY);
    let needed = Op::write("offchain");
    let refused = allowed.verify(&key, Some(needed), 0);
    assert_eq!(refused, Err(MacaroonError::NotAllowed(needed)));
}

impl Rights {
    fn default_read() -> Rights {
        Rights {
            read: true,
            ..Rights::default()
        }
    }
}

#[test]
fn an_expiry_is_minted_and_read() {
    for (unix_s, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_800_000_000, "2027-01-15T08:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ] {
        let made = crate::testing::macaroon(Rights::default_read(), Some(unix_s));
        assert_eq!(made.caveats, [format!("time-before {text}").as_bytes()]);
        assert_eq!(made.expires_unix_s(), Some(unix_s));
    }
    let late = crate::testing::macaroon(Rights::default_read(), Some(u64::MAX));
    assert_eq!(late.expires_unix_s(), Some(253_402_300_799));
}

#[test]
fn times_that_are_none_are_refused() {
    let key = RootKey::new(crate::testing::ROOT_KEY);
    for text in [
        "",
        "2027-01-15",
        "2027-01-15T08:00:00",
        "2027-02-29T08:00:00Z",
        "2027-13-01T08:00:00Z",
        "2027-01-15T24:00:00Z",
        "2027-01-15T08:00:00.Z",
        "2027-01-15T08:00:00+1:00",
        "2027-01-15 08:00:00Z",
        "+027-01-15T08:00:00Z",
        "1969-12-31T23:59:59Z",
        "2027-01-15T08:00:00Z ",
        "٢٠٢٧-01-15T08:00:00Z",
    ] {
        let made = crate::testing::macaroon(Rights::default_read(), None);
        let made = made.narrowed(&format!("time-before {text}"));
        assert_eq!(
            made.verify(&key, None, 0),
            Err(MacaroonError::UnknownCaveat),
            "{text}"
        );
    }
}

#[test]
fn lengths_are_bounded() {
    let too_long = vec![2; MOST_BYTES + 1];
    assert_eq!(Macaroon::parse(&too_long), Err(codec::TOO_LONG));
    assert_eq!(
        Macaroon::from_hex(&"00".repeat(MOST_BYTES + 1)),
        Err(codec::TOO_LONG)
    );
    let mut many = crate::testing::macaroon(Rights::default_read(), None);
    for _ in 0..=MOST_CAVEATS {
        many = many.narrowed("x");
    }
    assert_eq!(Macaroon::parse(&many.to_bytes()), Err(codec::TOO_LONG));
    // A length of 4 GiB in a macaroon of some bytes.
    assert!(Macaroon::parse(&[2, 2, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    let grant = Grant {
        app: &[0; MOST_APP_BYTES + 1],
        nonce: [0; 16],
        ops: &[Op::read("info")],
        expires_unix_s: None,
    };
    assert!(Macaroon::mint(&RootKey::new([0; 32]), &grant).is_err());
    let none = Grant {
        app: b"",
        ops: &[],
        ..grant
    };
    let refused = Macaroon::mint(&RootKey::new([0; 32]), &none);
    assert_eq!(refused, Err(MacaroonError::Operations));
}

#[test]
fn nothing_of_it_is_shown() {
    let made = crate::testing::macaroon(crate::testing::ALL, None);
    assert_eq!(
        format!("{made:?} {:?}", RootKey::new([1; 32])),
        "Macaroon RootKey"
    );
}

proptest! {
    #[test]
    fn a_changed_one_lets_nobody_in(at in 0usize..400, bit in 0u8..8) {
        let key = RootKey::new(crate::testing::ROOT_KEY);
        let made = crate::testing::macaroon(Rights::default_read(), Some(1_800_000_000));
        let mut bytes = made.to_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // Nothing depends on the location: it is no part of what is signed.
        let is_location = (2..6).contains(&at);
        if let Ok(changed) = Macaroon::parse(&bytes) {
            prop_assert!(is_location || changed.verify(&key, None, 0).is_err());
        }
    }

    #[test]
    fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let bytes = [&[2, 2][..], &bytes].concat();
        if let Ok(read) = Macaroon::parse(&bytes) {
            prop_assert_eq!(Macaroon::parse(&read.to_bytes()), Ok(read));
        }
    }
}
