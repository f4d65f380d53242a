//! Bytes as lower-case hex, for serde.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    to.serialize_str(&digits.collect::<String>())
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    from_hex(&text)
        .ok_or_else(|| D::Error::custom("bytes are an even number of hexadecimal digits"))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(byte).collect()
}

fn byte(pair: &[u8]) -> Option<u8> {
    let [high, low] = pair else {
        return None;
    };
    let digit = |it: &u8| char::from(*it).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::operator::{Owner, PairingCode};

    #[test]
    fn a_message_of_the_operator_is_json_with_bytes_as_hex() {
        let owner = Owner {
            name: "ann".into(),
            node_id: vec![2, 0xab],
            ..Owner::default()
        };
        let json = serde_json::to_string(&owner).unwrap();
        assert!(json.contains(r#""node_id":"02ab""#), "{json}");
        assert_eq!(serde_json::from_str::<Owner>(&json).unwrap(), owner);
    }

    #[test]
    fn fields_that_are_left_out_have_their_defaults_and_bad_bytes_are_refused() {
        let code: PairingCode = serde_json::from_str(r#"{"owner":"ann"}"#).unwrap();
        assert_eq!((code.owner.as_str(), code.expires_unix_s), ("ann", 0));
        for bad in ["0", "0g", "\u{e4}"] {
            let json = format!(r#"{{"node_id":"{bad}"}}"#);
            assert!(serde_json::from_str::<Owner>(&json).is_err(), "{bad}");
        }
    }
}
