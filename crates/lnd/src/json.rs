//! The forms of fields in lnd's JSON (the JSON mapping of proto3, with the names of the proto files and with defaults written
//! out). `build.rs` chooses one of these modules for each field. Reading is as lenient as that of lnd's gateway: a number may
//! be text, bytes may be of either base64 alphabet, and a parameter of an address is always text.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, DeserializeOwned, Visitor};
use serde_json::Value;

/// Reads a message. Fields that are unknown are left out, those that are `null` have their default.
///
/// # Errors
/// The reason, one line.
pub(crate) fn read<T: DeserializeOwned>(mut value: Value) -> Result<T, serde_json::Error> {
    without_nulls(&mut value);
    serde_json::from_value(value)
}

/// `serde_json` has read the value: it is no deeper than its own limit.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Reads a number that is a number or text.
struct Number<T>(PhantomData<T>);

impl<T: FromStr + TryFrom<u64> + TryFrom<i64>> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number that fits, or one as text")
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<T, E> {
        T::try_from(v).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(v), &self))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<T, E> {
        T::try_from(v).map_err(|_| E::invalid_value(de::Unexpected::Signed(v), &self))
    }

    // JavaScript and some languages write 1000.0 or 1e3.
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<T, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if v.fract() != 0.0 || v.abs() > EXACT {
            return Err(E::invalid_value(de::Unexpected::Float(v), &self));
        }
        self.visit_i64(v as i64)
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<T, E> {
        let read = T::from_str(v);
        read.map_err(|_| E::custom("a text where a whole number that fits is expected"))
    }
}

pub(crate) mod int64 {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<T: fmt::Display, S: Serializer>(v: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(v)
    }

    pub fn deserialize<'de, T, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>
    where
        T: FromStr + TryFrom<u64> + TryFrom<i64>,
    {
        from.deserialize_any(Number(PhantomData))
    }
}

pub(crate) mod int32 {
    use serde::{Serialize, Serializer};

    pub use super::int64::deserialize;

    pub fn serialize<T: Serialize, S: Serializer>(v: &T, to: S) -> Result<S::Ok, S::Error> {
        v.serialize(to)
    }
}

pub(crate) mod many_int64 {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: fmt::Display, S: Serializer>(v: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(v.iter().map(ToString::to_string))
    }

    #[derive(Deserialize)]
    struct One<T>(#[serde(with = "super::int64", bound = "")] T)
    where
        T: FromStr + TryFrom<u64> + TryFrom<i64>;

    pub fn deserialize<'de, T, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr + TryFrom<u64> + TryFrom<i64>,
    {
        let all = Vec::<One<T>>::deserialize(from)?;
        Ok(all.into_iter().map(|one| one.0).collect())
    }
}

pub(crate) mod boolean {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(v: &bool, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bool(*v)
    }

    struct Boolean;

    impl Visitor<'_> for Boolean {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true or false")
        }

        fn visit_bool<E: de::Error>(self, v: bool) -> Result<bool, E> {
            Ok(v)
        }

        fn visit_str<E: de::Error>(self, v: &str) -> Result<bool, E> {
            match v {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(E::custom("a text where true or false is expected")),
            }
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        from.deserialize_any(Boolean)
    }
}

pub(crate) mod bytes {
    use data_encoding::{BASE64, BASE64_NOPAD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(v: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(v))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).ok_or_else(|| D::Error::custom("a text where base64 is expected"))
    }

    /// Of either alphabet, with or without padding. A plus in an address that was not escaped has become a space.
    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let standard = |c: char| match c {
            '-' | ' ' => '+'.to_string(),
            '_' => '/'.to_string(),
            c => c.to_string(),
        };
        let text: String = text.trim_end_matches('=').chars().map(standard).collect();
        BASE64_NOPAD.decode(text.as_bytes()).ok()
    }
}

pub(crate) mod map_of_bytes {
    use std::collections::HashMap;

    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(v: &HashMap<u64, Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(v.iter().map(|(key, bytes)| (key, BASE64.encode(bytes))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<HashMap<u64, Vec<u8>>, D::Error> {
        let texts = HashMap::<u64, String>::deserialize(from)?;
        let read = texts.into_iter().map(|(key, text)| {
            let bytes = super::bytes::decode(&text);
            let bytes = bytes.ok_or_else(|| D::Error::custom("a value of a map is no base64"))?;
            Ok((key, bytes))
        });
        read.collect()
    }
}

/// Enums, by name; read by number too. One module for each, named as `build.rs` does.
pub(crate) mod enums {
    macro_rules! enums {
        ($($module:ident = $name:path;)*) => {
            $(
                pub(crate) mod $module {
                    use std::fmt;

                    use serde::de::{self, Visitor};
                    use serde::{Deserializer, Serializer};

                    use $name as Enum;

                    pub fn serialize<S: Serializer>(v: &i32, to: S) -> Result<S::Ok, S::Error> {
                        match Enum::try_from(*v) {
                            Ok(known) => to.serialize_str(known.as_str_name()),
                            Err(_) => to.serialize_i32(*v),
                        }
                    }

                    struct Name;

                    impl Visitor<'_> for Name {
                        type Value = i32;

                        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                            f.write_str("the name of a value, or its number")
                        }

                        fn visit_u64<E: de::Error>(self, v: u64) -> Result<i32, E> {
                            i32::try_from(v).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(v), &self))
                        }

                        fn visit_i64<E: de::Error>(self, v: i64) -> Result<i32, E> {
                            i32::try_from(v).map_err(|_| E::invalid_value(de::Unexpected::Signed(v), &self))
                        }

                        fn visit_str<E: de::Error>(self, v: &str) -> Result<i32, E> {
                            let named = Enum::from_str_name(v).map(|it| it as i32);
                            let read = named.or_else(|| v.parse().ok());
                            read.ok_or_else(|| E::custom("a name of no known value"))
                        }
                    }

                    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
                        from.deserialize_any(Name)
                    }
                }
            )*
        };
    }

    enums! {
        address_type = crate::proto::lnrpc::AddressType;
        closure_type = crate::proto::lnrpc::channel_close_summary::ClosureType;
        commitment_type = crate::proto::lnrpc::CommitmentType;
        initiator = crate::proto::lnrpc::Initiator;
        invoice_state = crate::proto::lnrpc::invoice::InvoiceState;
        payment_failure_reason = crate::proto::lnrpc::PaymentFailureReason;
        payment_status = crate::proto::lnrpc::payment::PaymentStatus;
        wallet_address_type = crate::proto::walletrpc::AddressType;
    }
}

#[cfg(test)]
#[path = "tests/json.rs"]
mod tests;
