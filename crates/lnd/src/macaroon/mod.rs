//! Macaroons in lnd's form: the binary format of libmacaroons, version 2, with an identifier that names the key and the operations
//! that are allowed (version 3 of Canonical's bakery). An app, or anybody on the way, can add caveats that narrow it; nobody without
//! the root key can widen it.
//!
//! Of the caveats only `time-before` is known. A macaroon with any other one is refused, such as lnd's `ipaddr` and `lnd-custom`: a
//! narrowing that is not understood must hold all the same.

mod codec;
mod time;

use std::fmt;

use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use prost::Message;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::proto::lnrpc::{MacaroonId, Op as IdOp};
use crate::rights::Op;

/// The longest macaroon that is read, in bytes. One with all rights has some 250; each caveat adds some 40.
pub const MOST_BYTES: usize = 4096;
/// The most caveats of one.
const MOST_CAVEATS: usize = 32;
/// The most operations of one.
const MOST_OPS: usize = 64;
/// The longest name of an app in a macaroon, in bytes.
pub const MOST_APP_BYTES: usize = 64;

/// libmacaroons' key for the first step.
const KEY_GENERATOR: &[u8] = b"macaroons-key-generator";
/// lnd's own; clients do not check it.
const LOCATION: &[u8] = b"lnd";
/// Version 3 of the bakery's identifiers.
const ID_VERSION: u8 = 3;
const TIME_BEFORE: &str = "time-before ";

/// The key of one app's macaroons. Its holder can make macaroons with any rights.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RootKey([u8; 32]);

impl RootKey {
    /// From 32 bytes, random or derived from a secret.
    pub fn new(bytes: [u8; 32]) -> RootKey {
        RootKey(bytes)
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey")
    }
}

/// Why a macaroon is refused: one line, without anything of it. Where apps know lnd's words, they come first.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MacaroonError {
    /// It is no macaroon.
    #[error(
        "cannot get macaroon: it cannot be read ({0}): copy it again, as hex, from where it was made"
    )]
    Malformed(&'static str),
    /// It was made with another key: for another node, or for an app that was disconnected.
    #[error(
        "verification failed: signature mismatch: the macaroon is of another node, or of an app that is not connected any more: connect the app again"
    )]
    Foreign,
    /// Its time is over.
    #[error("macaroon has expired: connect the app again")]
    Expired,
    /// It has a caveat that is not known.
    #[error("caveat not satisfied: Longhand knows only time-before: use a macaroon without others")]
    UnknownCaveat,
    /// It does not allow the operation.
    #[error("permission denied: the macaroon does not allow {0}: connect the app with this right")]
    NotAllowed(Op),
    /// It cannot be made: it has no operation, or more than can be read again.
    #[error("a macaroon needs an operation at least, and has room for {MOST_OPS}")]
    Operations,
}

/// What a macaroon allows, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// The name of the app's root key, at most [`MOST_APP_BYTES`]. Anybody with the macaroon can read it.
    pub app: &'a [u8],
    /// Makes each macaroon another one; random.
    pub nonce: [u8; 16],
    /// The operations. Their order is not kept.
    pub ops: &'a [Op],
    /// When it expires, in seconds since 1970; `None` = never.
    pub expires_unix_s: Option<u64>,
}

/// A macaroon. Whoever has it has its rights: it is wiped, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Macaroon {
    location: Vec<u8>,
    id: Vec<u8>,
    /// First-party caveats alone.
    caveats: Vec<Vec<u8>>,
    signature: [u8; 32],
}

impl fmt::Debug for Macaroon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Macaroon")
    }
}

impl Macaroon {
    /// Makes one.
    ///
    /// # Errors
    /// [`MacaroonError::Operations`], [`MacaroonError::Malformed`] for a name of an app that is too long.
    pub fn mint(root: &RootKey, grant: &Grant<'_>) -> Result<Macaroon, MacaroonError> {
        if grant.app.len() > MOST_APP_BYTES {
            return Err(MacaroonError::Malformed("the name of the app is too long"));
        }
        if grant.ops.is_empty() || grant.ops.len() > MOST_OPS {
            return Err(MacaroonError::Operations);
        }
        let id = MacaroonId {
            nonce: grant.nonce.to_vec(),
            storage_id: grant.app.to_vec(),
            ops: grouped(grant.ops),
        };
        let mut bytes = vec![ID_VERSION];
        bytes.extend(id.encode_to_vec());
        let mut made = Macaroon {
            location: LOCATION.to_vec(),
            signature: *first_signature(root, &bytes),
            id: bytes,
            caveats: Vec::new(),
        };
        if let Some(expires) = grant.expires_unix_s {
            made = made.narrowed(&format!("{TIME_BEFORE}{}", time::rfc3339(expires)));
        }
        Ok(made)
    }

    /// The same with one more caveat, such as `time-before 2027-01-01T00:00:00Z`.
    #[must_use]
    pub fn narrowed(mut self, caveat: &str) -> Macaroon {
        self.signature = *hmac(&self.signature, caveat.as_bytes());
        self.caveats.push(caveat.as_bytes().to_vec());
        self
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`MacaroonError::Malformed`], [`MacaroonError::UnknownCaveat`] for one with a third party's caveat.
    pub fn parse(bytes: &[u8]) -> Result<Macaroon, MacaroonError> {
        codec::decode(bytes)
    }

    /// Reads one from hex, of either case.
    ///
    /// # Errors
    /// As [`Macaroon::parse`].
    pub fn from_hex(hex: &str) -> Result<Macaroon, MacaroonError> {
        if hex.len() > 2 * MOST_BYTES {
            return Err(codec::TOO_LONG);
        }
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
        let bytes = bytes.map_err(|_| MacaroonError::Malformed("it is no hex"))?;
        Macaroon::parse(&Zeroizing::new(bytes))
    }

    /// As it is stored in a file.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        codec::encode(self)
    }

    /// As it is sent.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(data_encoding::HEXLOWER.encode(&self.to_bytes()))
    }

    /// The name of the app, which says whose root key it is checked with. Nothing of it is proved before [`Macaroon::verify`].
    ///
    /// # Errors
    /// [`MacaroonError::Malformed`].
    pub fn app(&self) -> Result<Vec<u8>, MacaroonError> {
        self.identifier().map(|id| id.storage_id)
    }

    /// When it expires, by its caveats, in seconds since 1970; `None` = never. Not proved before [`Macaroon::verify`].
    pub fn expires_unix_s(&self) -> Option<u64> {
        let times = self.caveats.iter().filter_map(|it| time_before(it).ok());
        times.map(|time| time.unix_s).min()
    }

    /// Whether it was made with this key, and allows `needed` at this time. `None` = any operation that it has.
    ///
    /// # Errors
    /// [`MacaroonError`].
    pub fn verify(
        &self,
        root: &RootKey,
        needed: Option<Op>,
        now_unix_s: u64,
    ) -> Result<(), MacaroonError> {
        let mut signature = first_signature(root, &self.id);
        for caveat in &self.caveats {
            signature = hmac(&*signature, caveat);
        }
        if !fixed_time_eq(&*signature, &self.signature) {
            return Err(MacaroonError::Foreign);
        }
        // After the signature, so that a stranger does not learn more than that it is wrong.
        for caveat in &self.caveats {
            if !time_before(caveat)?.is_after(now_unix_s) {
                return Err(MacaroonError::Expired);
            }
        }
        let id = self.identifier()?;
        match needed {
            Some(needed) if !allows(&id, needed) => Err(MacaroonError::NotAllowed(needed)),
            _ => Ok(()),
        }
    }

    fn identifier(&self) -> Result<MacaroonId, MacaroonError> {
        let id = match self.id.split_first() {
            Some((&ID_VERSION, id)) => MacaroonId::decode(id).ok(),
            _ => None,
        };
        let id = id.ok_or(MacaroonError::Malformed(
            "its identifier is not of lnd's form",
        ))?;
        if id.storage_id.len() > MOST_APP_BYTES || id.ops.len() > MOST_OPS {
            return Err(codec::TOO_LONG);
        }
        Ok(id)
    }
}

fn allows(id: &MacaroonId, needed: Op) -> bool {
    let of_entity = id.ops.iter().filter(|op| op.entity == needed.entity);
    let mut actions = of_entity.flat_map(|op| &op.actions);
    actions.any(|action| action == needed.action)
}

/// Sorted, without duplicates, one entry for each entity, as the bakery does.
fn grouped(ops: &[Op]) -> Vec<IdOp> {
    let mut sorted = ops.to_vec();
    sorted.sort();
    sorted.dedup();
    let mut all: Vec<IdOp> = Vec::new();
    for op in sorted {
        match all.last_mut().filter(|last| last.entity == op.entity) {
            Some(last) => last.actions.push(op.action.into()),
            None => all.push(IdOp {
                entity: op.entity.into(),
                actions: vec![op.action.into()],
            }),
        }
    }
    all
}

fn time_before(caveat: &[u8]) -> Result<time::Time, MacaroonError> {
    let text = std::str::from_utf8(caveat).ok();
    let time = text.and_then(|it| it.strip_prefix(TIME_BEFORE));
    time.and_then(time::Time::parse)
        .ok_or(MacaroonError::UnknownCaveat)
}

fn first_signature(root: &RootKey, id: &[u8]) -> Zeroizing<[u8; 32]> {
    hmac(&*hmac(KEY_GENERATOR, &root.0), id)
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], data: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(data);
    Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
}

#[cfg(test)]
#[path = "../tests/macaroon.rs"]
mod tests;
