//! One owner's record in the book, and its form in the store.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::PublicKey as NodeId;
use longhand_link::{LinkKey, OwnerId, PairingSecret};
use longhand_node::Registration;
use longhand_proto::command::AppRights;
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use zeroize::Zeroizing;

use crate::files::to_hex;
use crate::network::{WakeFrom, WakeUrl};

/// One owner, as in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnerRecord {
    /// For people; unique, and never changed: the node's namespace has it.
    pub name: String,
    /// On links.
    pub id: OwnerId,
    /// The operator's: POSTed to when the phone is needed.
    pub wake_url: Option<String>,
    /// Those that the phone gave.
    pub phone_wake_urls: Vec<String>,
    pub pairing: Option<PairingRecord>,
    /// The phone that may attach.
    pub phone: Option<LinkKey>,
    /// The keys that the node runs on.
    pub registration: Option<Registration>,
    /// The phone that registered it. Another phone must prove first that it has the same keys.
    pub registered_by: Option<LinkKey>,
    /// The number of the onion service that the phone finds, with restricted discovery; `None` in records of earlier versions
    /// until they are loaded.
    pub tor_service: Option<u32>,
    /// Those that are connected, by name.
    pub apps: Vec<AppRecord>,
}

#[cfg(test)]
impl OwnerRecord {
    /// An owner who has not paired a phone.
    pub fn ann() -> OwnerRecord {
        OwnerRecord {
            name: "ann".into(),
            id: OwnerId([1; 16]),
            wake_url: None,
            phone_wake_urls: Vec::new(),
            pairing: None,
            phone: None,
            registration: None,
            registered_by: None,
            tor_service: None,
            apps: Vec::new(),
        }
    }
}

/// An app of an owner's, which calls the node by lnd's RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppRecord {
    /// Of this host.
    pub id: AppId,
    /// For people; unique among the owner's.
    pub name: String,
    pub rights: AppRights,
    /// 0 = never.
    pub expires_unix_s: u64,
    /// Connected by the operator, and not by the owner.
    pub by_operator: bool,
    pub secret: AppSecret,
    pub words_expire_unix_s: u64,
    /// The app's static key, once it has used the words.
    pub key: Option<NodeId>,
}

/// Which app of this host.
pub(crate) type AppId = [u8; 8];

/// All secrets of an app follow from this one. Zeroized when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AppSecret(Zeroizing<[u8; 32]>);

impl AppSecret {
    pub fn from_bytes(bytes: [u8; 32]) -> AppSecret {
        AppSecret(Zeroizing::new(bytes))
    }

    /// A secret for one use of it: HMAC-SHA256.
    pub fn derive(&self, domain: &str) -> Zeroizing<[u8; 32]> {
        let mut engine = HmacEngine::<sha256::Hash>::new(&self.0[..]);
        engine.input(domain.as_bytes());
        Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
    }
}

impl std::fmt::Debug for AppSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AppSecret(secret)")
    }
}

/// The last pairing code of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PairingRecord {
    pub secret: PairingSecret,
    pub expires_unix_s: u64,
    pub used_by: Option<LinkKey>,
}

impl OwnerRecord {
    /// The namespace of the owner's node.
    pub fn namespace(&self) -> String {
        namespace_of(&self.name)
    }

    /// The node's id, once it is registered.
    pub fn node_id(&self) -> Option<NodeId> {
        NodeId::from_slice(&self.registration.as_ref()?.node_id).ok()
    }

    /// All URLs that a wake call goes to.
    pub fn wake_urls(&self) -> Vec<WakeUrl> {
        let url = |from, url: &String| WakeUrl {
            from,
            url: url.clone(),
        };
        let operators = self.wake_url.iter().map(|it| url(WakeFrom::Operator, it));
        let phones = self.phone_wake_urls.iter();
        operators
            .chain(phones.map(|it| url(WakeFrom::Phone, it)))
            .collect()
    }

    /// Whether the phone that may attach has proved that it has the node's keys.
    pub fn is_confirmed(&self) -> bool {
        self.phone.is_some() && self.phone == self.registered_by
    }
}

/// The namespace of the node of the owner with this name.
pub(super) fn namespace_of(name: &str) -> String {
    format!("node/{name}")
}

/// The form in the store: JSON, with bytes as hexadecimal.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake_url: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    phone_wake_urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pairing: Option<StoredPairing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    /// The protobuf message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registered_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tor_service: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    apps: Vec<StoredApp>,
}

#[derive(Serialize, Deserialize)]
struct StoredApp {
    id: String,
    name: String,
    /// Of `read`, `invoices` and `pay`.
    rights: Vec<String>,
    #[serde(default)]
    expires_unix_s: u64,
    #[serde(default)]
    by_operator: bool,
    secret: String,
    words_expire_unix_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl From<&AppRecord> for StoredApp {
    fn from(app: &AppRecord) -> StoredApp {
        StoredApp {
            id: to_hex(&app.id),
            name: app.name.clone(),
            rights: app.rights.names().into_iter().map(String::from).collect(),
            expires_unix_s: app.expires_unix_s,
            by_operator: app.by_operator,
            secret: to_hex(&app.secret.0[..]),
            words_expire_unix_s: app.words_expire_unix_s,
            key: app.key.map(|key| to_hex(&key.serialize())),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredPairing {
    secret: String,
    expires_unix_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<String>,
}

impl From<&OwnerRecord> for Stored {
    fn from(record: &OwnerRecord) -> Stored {
        let shown = |key: &LinkKey| key.to_string();
        Stored {
            id: record.id.to_string(),
            wake_url: record.wake_url.clone(),
            phone_wake_urls: record.phone_wake_urls.clone(),
            pairing: record.pairing.as_ref().map(|pairing| StoredPairing {
                secret: to_hex(pairing.secret.to_bytes().as_ref()),
                expires_unix_s: pairing.expires_unix_s,
                used_by: pairing.used_by.as_ref().map(shown),
            }),
            phone: record.phone.as_ref().map(shown),
            registration: record
                .registration
                .as_ref()
                .map(|r| to_hex(&r.encode_to_vec())),
            registered_by: record.registered_by.as_ref().map(shown),
            tor_service: record.tor_service,
            apps: record.apps.iter().map(StoredApp::from).collect(),
        }
    }
}

impl OwnerRecord {
    /// The record in the store's form.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Stored::from(self))
    }

    /// The record of the owner with this name.
    ///
    /// # Errors
    /// The reason why it cannot be read, without anything of its content.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<OwnerRecord, &'static str> {
        // The error of `serde_json` may quote the record, which has secrets.
        let stored: Stored =
            serde_json::from_slice(bytes).map_err(|error| match error.classify() {
                Category::Data => "a field is missing or has another type",
                _ => "it is not JSON",
            })?;
        let pairing = stored.pairing.map(read_pairing).transpose()?;
        let registration = stored.registration.as_deref().map(read_registration);
        // In records of earlier versions, renewing a pairing did not remove the phone.
        let is_renewed = pairing.as_ref().is_some_and(|p| p.used_by.is_none());
        Ok(OwnerRecord {
            name: name.to_owned(),
            id: stored.id.parse().map_err(|_| "its id is no owner id")?,
            wake_url: stored.wake_url,
            phone_wake_urls: stored.phone_wake_urls,
            pairing,
            phone: read_phone(stored.phone)?.filter(|_| !is_renewed),
            registration: registration.transpose()?,
            registered_by: read_phone(stored.registered_by)?,
            tor_service: stored.tor_service,
            apps: stored
                .apps
                .into_iter()
                .map(read_app)
                .collect::<Result<_, _>>()?,
        })
    }
}

fn read_app(stored: StoredApp) -> Result<AppRecord, &'static str> {
    let secret = Zeroizing::new(stored.secret);
    let secret =
        <[u8; 32]>::from_hex(&secret).map_err(|_| "the secret of an app has not 32 bytes")?;
    let key = |text: String| {
        let bytes = <[u8; 33]>::from_hex(&text).ok();
        let key = bytes.and_then(|bytes| NodeId::from_slice(&bytes).ok());
        key.ok_or("the key of an app is no key")
    };
    let has = |name: &str| stored.rights.iter().any(|it| it == name);
    Ok(AppRecord {
        id: AppId::from_hex(&stored.id).map_err(|_| "the id of an app has not 8 bytes")?,
        rights: AppRights {
            read: has("read"),
            invoices: has("invoices"),
            pay: has("pay"),
        },
        name: stored.name,
        expires_unix_s: stored.expires_unix_s,
        by_operator: stored.by_operator,
        secret: AppSecret::from_bytes(secret),
        words_expire_unix_s: stored.words_expire_unix_s,
        key: stored.key.map(key).transpose()?,
    })
}

fn read_pairing(stored: StoredPairing) -> Result<PairingRecord, &'static str> {
    let secret = Zeroizing::new(stored.secret);
    let secret =
        <[u8; 16]>::from_hex(&secret).map_err(|_| "its pairing secret has not 16 bytes")?;
    Ok(PairingRecord {
        secret: PairingSecret::from_bytes(secret),
        expires_unix_s: stored.expires_unix_s,
        used_by: read_phone(stored.used_by)?,
    })
}

fn read_phone(stored: Option<String>) -> Result<Option<LinkKey>, &'static str> {
    let read = |text: String| text.parse().map_err(|_| "a phone's key is no key");
    stored.map(read).transpose()
}

fn read_registration(stored: &str) -> Result<Registration, &'static str> {
    let bytes = Vec::from_hex(stored).map_err(|_| "its registration is not hexadecimal")?;
    let registration =
        Registration::decode(&*bytes).map_err(|_| "its registration is not the message")?;
    match NodeId::from_slice(&registration.node_id) {
        Ok(_) => Ok(registration),
        Err(_) => Err("its node id is not a point of secp256k1"),
    }
}
