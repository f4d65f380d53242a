//! Pairing codes: the text, its content, and the addresses in it.
//!
//! The first byte selects how the rest is read: as text, as the bytes below a good checksum, or as parts of a code.

use bech32::{Bech32m, Hrp};
use longhand_link::{Address, LinkKey, OwnerId, PairingCode, PairingSecret};

/// Tries one input.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => text(&String::from_utf8_lossy(rest)),
        1 => {
            let hrp = Hrp::parse("longhand").unwrap();
            if let Ok(encoded) = bech32::encode::<Bech32m>(hrp, rest) {
                text(&encoded);
            }
        }
        _ => parts(rest),
    }
}

fn text(text: &str) {
    let Ok(code) = text.parse::<PairingCode>() else {
        return;
    };
    assert!(!code.addresses.is_empty());
    let printed = code.to_text().expect("a decoded code can be printed");
    assert_eq!(printed.parse().as_ref(), Ok(&code));
    assert_eq!(printed.to_uppercase().parse().as_ref(), Ok(&code));
    code.to_qr().expect("a decoded code can be shown");
    for address in &code.addresses {
        let Ok(address) = address.parse::<Address>() else {
            continue;
        };
        assert_eq!(address.to_string().parse().as_ref(), Ok(&address));
        for place in longhand_link::fuzzing::places(&address) {
            let is_visible = |c: char| c.is_ascii_graphic();
            assert!(place.chars().all(is_visible), "{place:?}");
        }
    }
}

fn parts(data: &[u8]) {
    let (numbers, addresses) = data.split_at(data.len().min(8));
    let expires = numbers.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let code = PairingCode {
        addresses: String::from_utf8_lossy(addresses)
            .split('\n')
            .map(str::to_owned)
            .collect(),
        host: LinkKey([data.first().copied().unwrap_or(1); 32]),
        owner: OwnerId([7; 16]),
        secret: PairingSecret::from_bytes([9; 16]),
        expires_unix_s: expires,
    };
    if let Ok(printed) = code.to_text() {
        assert_eq!(printed.parse().as_ref(), Ok(&code));
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let code = PairingCode {
        addresses: vec![
            "grpcs://host.example:9750".into(),
            "grpc://127.0.0.1:9750".into(),
        ],
        host: LinkKey([3; 32]),
        owner: OwnerId([7; 16]),
        secret: PairingSecret::from_bytes([0xcd; 16]),
        expires_unix_s: 1_900_000_000,
    };
    let text = code.to_text().unwrap();
    let inside = bech32::decode(&text).unwrap().1;
    let upper = text.to_uppercase();
    let wrapped = format!(" {}\n{} ", &text[..30], &text[30..]);
    let parts = b"\0\0\0\0\0\0\0\x01grpc://a:1\ngrpcs://b:2?key=/a%20b&x=\nwss://[::1]/deep?route=f\nmailbox+wss://c";
    [
        (0, text.as_bytes()),
        (0, upper.as_bytes()),
        (0, wrapped.as_bytes()),
        (1, &inside),
        (2, parts),
    ]
    .map(|(kind, rest)| [&[kind], rest].concat())
    .to_vec()
}
