//! The parameters of a call, by position or by name.

use bitcoin::address::NetworkUnchecked;
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Address, Amount, Network, Transaction};
use serde_json::Value;

use super::{RpcError, code};

/// The parameters, in the order of the method.
pub(super) struct Params(Vec<Value>);

impl Params {
    pub(super) fn new(params: Option<&Value>, names: &[&str]) -> Result<Params, RpcError> {
        match params {
            None | Some(Value::Null) => Ok(Params(vec![])),
            Some(Value::Array(values)) if values.len() > names.len() => Err(RpcError::new(
                code::MISC_ERROR,
                format!("at most {} parameters", names.len()),
            )),
            Some(Value::Array(values)) => Ok(Params(values.clone())),
            Some(Value::Object(named)) => {
                if let Some(unknown) = named.keys().find(|name| !names.contains(&name.as_str())) {
                    let message = format!("Unknown named parameter {unknown}");
                    return Err(RpcError::new(code::INVALID_PARAMETER, message));
                }
                Ok(Params(
                    names
                        .iter()
                        .map(|name| named.get(*name).cloned().unwrap_or_default())
                        .collect(),
                ))
            }
            Some(_) => Err(RpcError::new(
                code::INVALID_REQUEST,
                "Params must be an array or object",
            )),
        }
    }

    /// An optional parameter; `null` counts as absent.
    pub(super) fn optional(&self, index: usize) -> Option<&Value> {
        self.0.get(index).filter(|value| !value.is_null())
    }

    pub(super) fn required(&self, index: usize) -> Result<&Value, RpcError> {
        let missing = || {
            RpcError::new(
                code::MISC_ERROR,
                format!("parameter {} is missing", index + 1),
            )
        };
        self.optional(index).ok_or_else(missing)
    }

    pub(super) fn text(&self, index: usize) -> Result<&str, RpcError> {
        self.required(index)?
            .as_str()
            .ok_or_else(|| wrong_type(index, "a string"))
    }

    pub(super) fn integer(&self, index: usize) -> Result<i64, RpcError> {
        self.required(index)?
            .as_i64()
            .ok_or_else(|| wrong_type(index, "an integer"))
    }

    /// An optional level of detail: a boolean or a number, since clients send both.
    pub(super) fn level(&self, index: usize, default: i64) -> Result<i64, RpcError> {
        match self.optional(index) {
            None => Ok(default),
            Some(Value::Bool(verbose)) => Ok(i64::from(*verbose)),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| wrong_type(index, "a number or boolean")),
        }
    }

    /// 32 bytes in hex: a block hash or transaction id.
    pub(super) fn hash<T: std::str::FromStr>(
        &self,
        index: usize,
        name: &str,
    ) -> Result<T, RpcError> {
        parse_hash(self.text(index)?, name)
    }

    pub(super) fn array(&self, index: usize) -> Result<&[Value], RpcError> {
        self.required(index)?
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| wrong_type(index, "an array"))
    }

    /// An optional amount in BTC, as number or text.
    pub(super) fn amount(&self, index: usize) -> Result<Option<Amount>, RpcError> {
        let Some(value) = self.optional(index) else {
            return Ok(None);
        };
        let text = match value {
            Value::String(text) => text.clone(),
            // `Display` of a float has no exponent.
            Value::Number(number) => number.as_f64().unwrap_or(f64::NAN).to_string(),
            _ => {
                return Err(RpcError::new(
                    code::TYPE_ERROR,
                    "Amount is not a number or string",
                ));
            }
        };
        let amount = Amount::from_str_in(&text, bitcoin::Denomination::Bitcoin);
        let amount = amount.map_err(|_| RpcError::new(code::TYPE_ERROR, "Invalid amount"))?;
        if amount > Amount::MAX_MONEY {
            return Err(RpcError::new(code::TYPE_ERROR, "Amount out of range"));
        }
        Ok(Some(amount))
    }

    pub(super) fn address(&self, index: usize) -> Result<Address, RpcError> {
        parse_address(self.text(index)?)
            .ok_or_else(|| RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Error: Invalid address"))
    }

    pub(super) fn transaction(&self, index: usize) -> Result<Transaction, RpcError> {
        parse_transaction(self.text(index)?)
    }
}

/// A regtest address.
pub(super) fn parse_address(text: &str) -> Option<Address> {
    text.parse::<Address<NetworkUnchecked>>()
        .ok()?
        .require_network(Network::Regtest)
        .ok()
}

pub(super) fn parse_hash<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, RpcError> {
    if text.len() != 64 {
        let message = format!(
            "{name} must be of length 64 (not {}, for '{text}')",
            text.len()
        );
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    let message = || format!("{name} must be hexadecimal string (not '{text}')");
    text.parse()
        .map_err(|_| RpcError::new(code::INVALID_PARAMETER, message()))
}

pub(super) fn parse_transaction(hex: &str) -> Result<Transaction, RpcError> {
    let message = "TX decode failed. Make sure the tx has at least one input.";
    deserialize_hex(hex).map_err(|_| RpcError::new(code::DESERIALIZATION_ERROR, message))
}

fn wrong_type(index: usize, wanted: &str) -> RpcError {
    RpcError::new(
        code::TYPE_ERROR,
        format!("parameter {} must be {wanted}", index + 1),
    )
}
