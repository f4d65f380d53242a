//! The owners' book: who may attach, as what, and what is known of their keys. Every change is durable
//! before it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey as NodeId;
use longhand_link::{LinkKey, OwnerId, Pairing, PairingId, PairingSecret};
use longhand_node::Registration;
use longhand_store::{Batch, Store, StoreError, Write};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::files::to_hex;
use crate::registration::{self, RegistrationError};

/// The host's own namespace in the store.
pub(crate) const NAMESPACE: &str = "host";
const KEY_PREFIX: &str = "owner/";

/// One owner, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// For people; unique, and never changed: the node's namespace is made of it.
    pub name: String,
    pub id: OwnerId,
    /// POSTed to when the phone is needed.
    pub wake_url: Option<String>,
    pub pairing: Option<PairingRecord>,
    /// The phone that may attach.
    pub phone: Option<LinkKey>,
    /// What the node runs on.
    pub registration: Option<Registration>,
    /// The phone that registered it. Another one has to show that it has the same keys first.
    pub registered_by: Option<LinkKey>,
}

/// The last pairing code of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairingRecord {
    pub secret: PairingSecret,
    pub expires_unix_s: u64,
    pub used_by: Option<LinkKey>,
}

impl Owner {
    /// The namespace of the owner's node.
    pub fn namespace(&self) -> String {
        format!("node/{}", self.name)
    }

    /// The node's id, once it is registered.
    pub fn node_id(&self) -> Option<NodeId> {
        NodeId::from_slice(&self.registration.as_ref()?.node_id).ok()
    }

    /// Whether the phone that may attach has shown that it has the node's keys.
    pub fn is_confirmed(&self) -> bool {
        self.phone.is_some() && self.phone == self.registered_by
    }
}

/// Why an owner cannot be made, found or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    #[error("there is an owner {0} already: choose another name")]
    NameTaken(String),
    #[error(
        "the name {0:?} cannot be used: take 1 to 64 of a-z, A-Z, 0-9, dot, dash and underscore"
    )]
    BadName(String),
    #[error("there is no owner {}: see the list of owners", on_one_line(.0))]
    Unknown(String),
    #[error("the wake URL cannot be used ({0}): give http:// or https:// and a host")]
    BadWakeUrl(String),
    #[error("the record of owner {0} cannot be read: restore the database from a backup")]
    Corrupt(String),
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    #[error(
        "this owner's node has other keys: use the phone, or the seed, that it was set up with"
    )]
    KeysDiffer,
    #[error(
        "a node with these keys belongs to another owner of this host: two would lose its money"
    )]
    NodeTaken,
    #[error("this phone's pairing was renewed: pair it again")]
    ShutOut,
    #[error("this phone belongs to another owner of this host: set up a new one")]
    PhoneTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Link(#[from] longhand_link::LinkError),
}

/// All owners. Kept in memory, written through.
pub(crate) struct Owners {
    store: Arc<dyn Store>,
    epoch: u64,
    network: Network,
    book: Mutex<BTreeMap<OwnerId, Owner>>,
    /// Told each change, in the order of the changes.
    on_change: OnChange,
}

pub(crate) type OnChange = Box<dyn Fn(&Owner) + Send + Sync>;

impl Owners {
    /// Reads the book. `epoch` is the lease on [`NAMESPACE`].
    pub async fn load(
        store: Arc<dyn Store>,
        epoch: u64,
        network: Network,
        on_change: OnChange,
    ) -> Result<Owners, OwnerError> {
        let mut book = BTreeMap::new();
        for (key, value) in store.load(NAMESPACE).await? {
            let Some(name) = key.strip_prefix(KEY_PREFIX) else {
                continue;
            };
            let owner =
                Stored::read(name, &value).ok_or_else(|| OwnerError::Corrupt(name.to_owned()))?;
            book.insert(owner.id, owner);
        }
        Ok(Owners {
            store,
            epoch,
            network,
            book: Mutex::new(book),
            on_change,
        })
    }

    /// Makes an owner with a pairing code that is taken until `expires_unix_s`.
    pub async fn create(
        &self,
        name: &str,
        wake_url: &str,
        expires_unix_s: u64,
    ) -> Result<(Owner, PairingSecret), OwnerError> {
        check_name(name)?;
        let wake_url = check_wake_url(wake_url)?;
        let mut book = self.book.lock().await;
        if book.values().any(|owner| owner.name == name) {
            return Err(OwnerError::NameTaken(name.to_owned()));
        }
        let secret = PairingSecret::generate()?;
        let owner = Owner {
            name: name.to_owned(),
            id: OwnerId::generate()?,
            wake_url,
            pairing: Some(PairingRecord {
                secret: secret.clone(),
                expires_unix_s,
                used_by: None,
            }),
            phone: None,
            registration: None,
            registered_by: None,
        };
        self.write(&mut book, owner.clone()).await?;
        Ok((owner, secret))
    }

    /// Makes a new pairing code. The one before is no longer taken, nor is the phone that paired with it: it may be
    /// in other hands.
    pub async fn renew(
        &self,
        name: &str,
        expires_unix_s: u64,
    ) -> Result<(Owner, PairingSecret), OwnerError> {
        let mut book = self.book.lock().await;
        let found = book.values().find(|owner| owner.name == name).cloned();
        let mut owner = found.ok_or_else(|| OwnerError::Unknown(name.to_owned()))?;
        let secret = PairingSecret::generate()?;
        (owner.phone, owner.registered_by) = (None, None);
        owner.pairing = Some(PairingRecord {
            secret: secret.clone(),
            expires_unix_s,
            used_by: None,
        });
        self.write(&mut book, owner.clone()).await?;
        Ok((owner, secret))
    }

    /// What is known of a pairing code.
    pub async fn pairing(&self, id: &PairingId, now_unix_s: u64) -> Pairing {
        let book = self.book.lock().await;
        let records = book.values().filter_map(|owner| owner.pairing.as_ref());
        match records.into_iter().find(|record| record.secret.id() == *id) {
            None => Pairing::Unknown,
            Some(PairingRecord {
                secret,
                used_by: Some(phone),
                ..
            }) => Pairing::UsedBy(secret.clone(), *phone),
            Some(record) if record.expires_unix_s <= now_unix_s => Pairing::Expired,
            Some(record) => Pairing::Open(record.secret.clone()),
        }
    }

    /// Uses a pairing code up and pins the phone to its owner. `None`, with nothing changed, when another
    /// phone was faster or the code is no longer taken.
    pub async fn pin(
        &self,
        id: &PairingId,
        phone: &LinkKey,
        now_unix_s: u64,
    ) -> Result<Option<Owner>, OwnerError> {
        let mut book = self.book.lock().await;
        let has_code =
            |owner: &&Owner| owner.pairing.as_ref().is_some_and(|p| p.secret.id() == *id);
        let Some(mut owner) = book.values().find(has_code).cloned() else {
            return Ok(None);
        };
        let Some(pairing) = owner.pairing.as_mut() else {
            return Ok(None);
        };
        match pairing.used_by {
            Some(used_by) if used_by == *phone => return Ok(Some(owner)),
            Some(_) => return Ok(None),
            None if pairing.expires_unix_s <= now_unix_s => return Ok(None),
            None => pairing.used_by = Some(*phone),
        }
        if book
            .values()
            .any(|other| other.id != owner.id && other.phone == Some(*phone))
        {
            return Err(OwnerError::PhoneTaken);
        }
        owner.phone = Some(*phone);
        self.write(&mut book, owner.clone()).await?;
        Ok(Some(owner))
    }

    /// The owner a phone is pinned to.
    pub async fn owner_of(&self, phone: &LinkKey) -> Option<OwnerId> {
        let book = self.book.lock().await;
        book.values()
            .find(|owner| owner.phone == Some(*phone))
            .map(|owner| owner.id)
    }

    /// The owner that would be registered so: what can be said before the phone has shown that it has the keys.
    pub async fn may_register(
        &self,
        id: &OwnerId,
        new: &Registration,
        hub: &NodeId,
    ) -> Result<Owner, OwnerError> {
        self.judge(&*self.book.lock().await, id, new, hub)
    }

    /// Takes in what `phone` has said, and shown, of its keys. The same again is no error; other keys are, as is
    /// a node that another owner of this host (or `hub`) has.
    pub async fn register(
        &self,
        id: &OwnerId,
        phone: &LinkKey,
        new: Registration,
        hub: &NodeId,
    ) -> Result<Owner, OwnerError> {
        let mut book = self.book.lock().await;
        let mut owner = self.judge(&book, id, &new, hub)?;
        if owner.phone != Some(*phone) {
            return Err(OwnerError::ShutOut);
        }
        if owner.is_confirmed() {
            return Ok(owner);
        }
        owner.registration.get_or_insert(new);
        owner.registered_by = Some(*phone);
        self.write(&mut book, owner.clone()).await?;
        Ok(owner)
    }

    fn judge(
        &self,
        book: &BTreeMap<OwnerId, Owner>,
        id: &OwnerId,
        new: &Registration,
        hub: &NodeId,
    ) -> Result<Owner, OwnerError> {
        let node_id = registration::check(new, self.network)?;
        let found = book.get(id).cloned();
        let owner = found.ok_or_else(|| OwnerError::Unknown(id.to_string()))?;
        let mut others = book.values().filter(|other| other.id != *id);
        match &owner.registration {
            Some(old) if !registration::same_keys(old, new) => Err(OwnerError::KeysDiffer),
            Some(_) => Ok(owner),
            None if node_id == *hub => Err(OwnerError::NodeTaken),
            None if others.any(|other| other.node_id() == Some(node_id)) => {
                Err(OwnerError::NodeTaken)
            }
            None => Ok(owner),
        }
    }

    /// All owners, by name.
    pub async fn all(&self) -> Vec<Owner> {
        let mut all: Vec<_> = self.book.lock().await.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The owner with this name.
    pub async fn named(&self, name: &str) -> Result<Owner, OwnerError> {
        let book = self.book.lock().await;
        let found = book.values().find(|owner| owner.name == name).cloned();
        found.ok_or_else(|| OwnerError::Unknown(name.to_owned()))
    }

    /// Durable first, then known, then told.
    async fn write(
        &self,
        book: &mut BTreeMap<OwnerId, Owner>,
        owner: Owner,
    ) -> Result<(), OwnerError> {
        let key = format!("{KEY_PREFIX}{}", owner.name);
        let value = serde_json::to_vec(&Stored::from(&owner))
            .map_err(|e| StoreError::Unusable(format!("the record cannot be encoded: {e}")))?;
        let batch = Batch {
            namespace: NAMESPACE.into(),
            epoch: self.epoch,
            writes: vec![Write::Put(key, value)],
        };
        self.store.commit(batch).await?;
        book.insert(owner.id, owner.clone());
        (self.on_change)(&owner);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), OwnerError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        true => Ok(()),
        false => Err(OwnerError::BadName(name.chars().take(64).collect())),
    }
}

/// What was given as a name, as far as an error shows it.
fn on_one_line(name: &str) -> String {
    name.escape_debug().take(64).collect()
}

fn check_wake_url(text: &str) -> Result<Option<String>, OwnerError> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = reqwest::Url::parse(text).map_err(|e| OwnerError::BadWakeUrl(e.to_string()))?;
    match matches!(url.scheme(), "http" | "https") && url.has_host() {
        true => Ok(Some(url.into())),
        false => Err(OwnerError::BadWakeUrl(format!(
            "{} is no web address",
            url.scheme()
        ))),
    }
}

/// The form in the store: JSON, with bytes as hexadecimal.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pairing: Option<StoredPairing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    /// The protobuf message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registered_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredPairing {
    secret: String,
    expires_unix_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<String>,
}

impl From<&Owner> for Stored {
    fn from(owner: &Owner) -> Stored {
        let shown = |key: &LinkKey| key.to_string();
        Stored {
            id: owner.id.to_string(),
            wake_url: owner.wake_url.clone(),
            pairing: owner.pairing.as_ref().map(|pairing| StoredPairing {
                secret: to_hex(pairing.secret.to_bytes().as_ref()),
                expires_unix_s: pairing.expires_unix_s,
                used_by: pairing.used_by.as_ref().map(shown),
            }),
            phone: owner.phone.as_ref().map(shown),
            registration: owner
                .registration
                .as_ref()
                .map(|r| to_hex(&r.encode_to_vec())),
            registered_by: owner.registered_by.as_ref().map(shown),
        }
    }
}

impl Stored {
    fn read(name: &str, value: &[u8]) -> Option<Owner> {
        use bitcoin::hex::FromHex;
        let stored: Stored = serde_json::from_slice(value).ok()?;
        let phone = |text: Option<String>| {
            text.map(|text| text.parse().ok())
                .map_or(Some(None), |key| key.map(Some))
        };
        let pairing = match stored.pairing {
            None => None,
            Some(pairing) => Some(PairingRecord {
                secret: PairingSecret::from_bytes(<[u8; 16]>::from_hex(&pairing.secret).ok()?),
                expires_unix_s: pairing.expires_unix_s,
                used_by: phone(pairing.used_by)?,
            }),
        };
        let registration = match stored.registration {
            None => None,
            Some(text) => Some(Registration::decode(&*Vec::from_hex(&text).ok()?).ok()?),
        };
        // A pairing that was renewed by a host of before left the phone in.
        let is_renewed = pairing.as_ref().is_some_and(|p| p.used_by.is_none());
        Some(Owner {
            name: name.to_owned(),
            id: stored.id.parse().ok()?,
            wake_url: stored.wake_url,
            pairing,
            phone: phone(stored.phone)?.filter(|_| !is_renewed),
            registration,
            registered_by: phone(stored.registered_by)?,
        })
    }
}

#[cfg(test)]
mod tests;
