//! The messages of hashmail as JSON, in the form of grpc-gateway with the settings of stock servers: fields have their names of the
//! `.proto` file, those that are empty are written too, and bytes are base64 (RFC 4648, section 4). What is read may have the
//! names in camel case and the other alphabet, with padding or without, as the JSON form of protobuf allows. Unknown fields are
//! skipped.

use std::borrow::Cow;
use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD, Encoding};
use longhand_proto::hashmail::{CipherBox, CipherBoxAuth, CipherBoxDesc, LndAuth, cipher_box_auth};
use serde::de::{Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

use super::refusal::Refusal;

/// The answer to a request that created a box.
pub const CREATED: &str = r#"{"success":{"desc":null}}"#;
/// The answer to a request that deleted one.
pub const DELETED: &str = "{}";

/// The longest JSON of a message whose protobuf has this many bytes.
pub fn longest(message_bytes: usize) -> usize {
    // Base64 makes four characters of three bytes. The rest is names, an id, and spaces.
    (message_bytes / 3).saturating_mul(4).saturating_add(1_024)
}

/// Reads a request to create or to delete a box.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn read_auth(text: &[u8]) -> Result<CipherBoxAuth, Refusal> {
    let auth: Auth = read(text)?;
    let lnd_auth = auth.lnd_auth.is_some();
    Ok(CipherBoxAuth {
        desc: auth.desc.map(Desc::into_proto),
        auth: lnd_auth.then_some(cipher_box_auth::Auth::LndAuth(LndAuth {})),
    })
}

/// Reads the request of a reader.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn read_desc(text: &[u8]) -> Result<CipherBoxDesc, Refusal> {
    read::<Desc>(text).map(Desc::into_proto)
}

/// Reads a message.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn read_message(text: &[u8]) -> Result<CipherBox, Refusal> {
    let message: Message = read(text)?;
    Ok(CipherBox {
        desc: message.desc.map(Desc::into_proto),
        msg: message.msg.unwrap_or_default().0,
    })
}

/// Reads bytes as base64 in either alphabet, with padding or without.
pub fn read_bytes(text: &str) -> Option<Vec<u8>> {
    let is_url = text.contains(['-', '_']);
    let is_padded = text.len().is_multiple_of(4);
    let encoding: &Encoding = match (is_url, is_padded) {
        (false, true) => &BASE64,
        (false, false) => &BASE64_NOPAD,
        (true, true) => &BASE64URL,
        (true, false) => &BASE64URL_NOPAD,
    };
    encoding.decode(text.as_bytes()).ok()
}

/// A message for the reader that asked with this id.
pub fn write_message(stream_id: &[u8], msg: &[u8]) -> String {
    const AROUND: usize = 160;
    let room = BASE64.encode_len(msg.len()).saturating_add(AROUND);
    let mut text = String::with_capacity(room);
    text.push_str(r#"{"result":{"desc":{"stream_id":""#);
    BASE64.encode_append(stream_id, &mut text);
    text.push_str(r#""},"msg":""#);
    BASE64.encode_append(msg, &mut text);
    text.push_str(r#""}}"#);
    text
}

/// The answer that refuses a request.
pub fn write_error(refusal: Refusal) -> String {
    let (code, message) = (refusal.code(), refusal.text());
    serde_json::json!({ "code": code, "message": message, "details": [] }).to_string()
}

/// The end of a stream of results.
pub fn write_stream_error(refusal: Refusal) -> String {
    format!(r#"{{"error":{}}}"#, write_error(refusal))
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Refusal> {
    // What is derived would read the fields from an array too.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::Malformed);
    }
    serde_json::from_slice(text).map_err(|_| Refusal::Malformed)
}

#[derive(Deserialize)]
struct Desc {
    #[serde(default, alias = "streamId")]
    stream_id: Option<Bytes>,
}

impl Desc {
    fn into_proto(self) -> CipherBoxDesc {
        CipherBoxDesc {
            stream_id: self.stream_id.unwrap_or_default().0,
        }
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    desc: Option<Desc>,
    #[serde(default)]
    msg: Option<Bytes>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    desc: Option<Desc>,
    #[serde(default, alias = "lndAuth")]
    lnd_auth: Option<IgnoredAny>,
}

/// Bytes as base64.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Base64;
        impl<'de> Visitor<'de> for Base64 {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes as base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                let bytes = read_bytes(text).map(Bytes);
                bytes.ok_or_else(|| E::custom("it is no base64"))
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

/// The id in the query of a request: `desc.stream_id` as grpc-gateway names it, or `stream_id`. A `+` of base64 that is not escaped
/// reads as a space.
pub fn read_query(fields: &[(String, String)]) -> Option<CipherBoxDesc> {
    const NAMES: [&str; 4] = ["desc.stream_id", "desc.streamId", "stream_id", "streamId"];
    let (_, value) = fields
        .iter()
        .find(|(name, _)| NAMES.contains(&name.as_str()))?;
    let value: Cow<'_, str> = value.replace(' ', "+").into();
    let stream_id = read_bytes(&value)?;
    Some(CipherBoxDesc { stream_id })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_read_in_all_forms_of_protobuf() {
        for text in [
            r#"{"desc":{"stream_id":"-_8"},"lnd_auth":{}}"#,
            r#"{"desc":{"streamId":"+/8="},"lndAuth":{},"later":[1,{"a":2}]}"#,
            "{ \"lnd_auth\": {},\n \"desc\": {\"stream_id\": \"-_8=\"} }\n",
        ] {
            let auth = read_auth(text.as_bytes()).unwrap();
            assert_eq!(auth.desc.unwrap().stream_id, [0xfb, 0xff], "{text}");
            assert!(auth.auth.is_some(), "{text}");
        }
        let empty = read_auth(br#"{"desc":null,"lnd_auth":null}"#).unwrap();
        assert_eq!(empty, CipherBoxAuth::default());
        let message = read_message(br#"{"desc":{},"msg":""}"#).unwrap();
        assert!(message.desc.unwrap().stream_id.is_empty());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"desc":1}"#,
            r#"{"msg":"a"}"#,
            r#"{"msg":"€"}"#,
        ] {
            let refused = read_message(text.as_bytes());
            assert_eq!(refused, Err(Refusal::Malformed), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(read_auth(deep.as_bytes()), Err(Refusal::Malformed));
    }

    #[test]
    fn answers_have_the_form_that_stock_clients_compare() {
        assert_eq!(
            write_message(&[1, 2], b"a"),
            r#"{"result":{"desc":{"stream_id":"AQI="},"msg":"YQ=="}}"#
        );
        let error: serde_json::Value =
            serde_json::from_str(&write_stream_error(Refusal::NotFound)).unwrap();
        let expected =
            serde_json::json!({"error":{"code":2,"message":"stream not found","details":[]}});
        assert_eq!(error, expected);
        assert!(write_stream_error(Refusal::NotFound).starts_with(r#"{"error":{"#));
    }

    #[test]
    fn an_id_in_a_query_may_have_a_plus_that_was_not_escaped() {
        let query = |name: &str, value: &str| read_query(&[(name.into(), value.into())]);
        assert_eq!(
            query("desc.stream_id", " /8=").unwrap().stream_id,
            [0xfb, 0xff]
        );
        assert_eq!(query("stream_id", "AQI").unwrap().stream_id, [1, 2]);
        assert_eq!(query("id", "AQI"), None);
        assert_eq!(query("stream_id", "A"), None);
    }

    proptest! {
        #[test]
        fn any_message_is_read_as_it_was_written(
            id in prop::collection::vec(any::<u8>(), 0..64),
            msg in prop::collection::vec(any::<u8>(), 0..2_000),
        ) {
            let text = write_message(&id, &msg);
            let inner = text.strip_prefix(r#"{"result":"#).unwrap().strip_suffix('}').unwrap();
            prop_assert!(inner.len() <= longest(msg.len()));
            let read = read_message(inner.as_bytes()).unwrap();
            prop_assert_eq!((read.desc.unwrap().stream_id, read.msg), (id, msg));
        }
    }
}
