//! The owners' book: owners with their pairing codes, phones and registered keys. Every change is durable before it
//! takes effect.
//!
//! An owner's record that cannot be read stops this owner alone, and is never overwritten. Which owner has which node id
//! is stored beside the records, so that an owner's node is not taken by another one when its record cannot be read.

mod record;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey as NodeId;
use longhand_link::{LinkKey, OwnerId, Pairing, PairingId, PairingSecret};
use longhand_node::Registration;
use longhand_proto::{Code, MAX_APP_NAME, MAX_WAKE_URL_BYTES, MAX_WAKE_URLS, is_app_name};
use longhand_store::{Batch, Store, StoreError, Write};
use tokio::sync::Mutex;

pub(crate) use self::record::{AppId, AppRecord, AppSecret, OwnerRecord, PairingRecord};
use crate::registration::{self, RegistrationError};
use crate::tor::clients::OWNERS_PER_SERVICE;

/// The host's own namespace in the store.
pub(crate) const NAMESPACE: &str = "host";
/// Keys of records, before the owner's name.
const RECORD_PREFIX: &str = "owner/";
/// Keys of owners' names, before the node's id in hexadecimal.
const NODE_PREFIX: &str = "node-id/";

/// The most apps of one owner: each has streams at mailboxes.
const MOST_APPS: usize = 16;

/// Beyond what any host has.
const MAX_TOR_SERVICES: usize = 1 << 16;

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
    #[error("a wake URL is longer than {MAX_WAKE_URL_BYTES} bytes: give a shorter one")]
    LongWakeUrl,
    #[error("there are more than {MAX_WAKE_URLS} wake URLs: give fewer")]
    ManyWakeUrls,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
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
    #[error(
        "this node may belong to an owner of this host whose record cannot be read: tell the operator to restore it"
    )]
    NodeUnclear,
    #[error("this phone's pairing was renewed: pair it again")]
    ShutOut,
    #[error("this phone belongs to another owner of this host: set up a new one")]
    PhoneTaken,
    #[error("the owner has an app {} already: choose another name, or disconnect it", on_one_line(.0))]
    AppNameTaken(String),
    #[error("the name of an app has 1 to {MAX_APP_NAME} characters, without spaces around it")]
    AppName,
    #[error("there is no app {}: see the list of apps", on_one_line(.0))]
    AppUnknown(String),
    #[error("an owner has at most {MOST_APPS} apps: disconnect one first")]
    ManyApps,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Link(#[from] longhand_link::LinkError),
}

impl OwnerError {
    /// Stable, for programs.
    pub fn code(&self) -> Code {
        match self {
            OwnerError::NameTaken(_) => Code::OwnerExists,
            OwnerError::BadName(_) => Code::OwnerName,
            OwnerError::Unknown(_) => Code::OwnerNotFound,
            OwnerError::BadWakeUrl(_) => Code::BadWakeUrl,
            OwnerError::LongWakeUrl => Code::WakeUrlTooLong,
            OwnerError::ManyWakeUrls => Code::TooManyWakeUrls,
            OwnerError::Unreadable(_) => Code::OwnerUnreadable,
            OwnerError::Registration(_) => Code::BadRegistration,
            OwnerError::KeysDiffer => Code::OwnerKeysDiffer,
            OwnerError::NodeTaken => Code::NodeTaken,
            OwnerError::NodeUnclear => Code::NodeUnclear,
            OwnerError::ShutOut | OwnerError::PhoneTaken => Code::UnknownOwner,
            OwnerError::AppNameTaken(_) => Code::AppNameTaken,
            OwnerError::AppName => Code::AppNameMalformed,
            OwnerError::AppUnknown(_) => Code::AppUnknown,
            OwnerError::ManyApps => Code::TooManyApps,
            OwnerError::Store(error) => error.code(),
            OwnerError::Link(_) => Code::LinkFailed,
        }
    }
}

/// An owner whose record cannot be read, and is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record of owner {} cannot be read ({reason}): stop the host, restore the record from a backup of the database, and \
     start the host again",
    on_one_line(.name)
)]
pub(crate) struct Unreadable {
    pub name: String,
    reason: &'static str,
    /// True when this owner may have a node whose id is in the unreadable record only.
    hides_node: bool,
}

/// All owners. Kept in memory, written through.
pub(crate) struct OwnerBook {
    store: Arc<dyn Store>,
    epoch: u64,
    network: Network,
    entries: Mutex<Entries>,
    /// By name.
    unreadable: Vec<Unreadable>,
    /// Called with each change, in the order of the changes.
    on_change: OnChange,
}

pub(crate) type OnChange = Box<dyn Fn(&OwnerRecord) + Send + Sync>;

#[derive(Default)]
struct Entries {
    records: BTreeMap<OwnerId, OwnerRecord>,
    /// The owners' names by the ids of their nodes.
    node_ids: HashMap<NodeId, String>,
    /// How many owners each onion service has, by its number.
    tor_services: Vec<usize>,
}

impl Entries {
    /// The first onion service that has room for an owner.
    fn tor_service(&mut self) -> u32 {
        let has_room = |owners: &usize| *owners < OWNERS_PER_SERVICE;
        let found = self.tor_services.iter().position(has_room);
        let number = found.unwrap_or(self.tor_services.len());
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.count_tor_service(number);
        number
    }

    fn count_tor_service(&mut self, number: u32) {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if number < MAX_TOR_SERVICES {
            let services = self.tor_services.len().max(number + 1);
            self.tor_services.resize(services, 0);
            self.tor_services[number] += 1;
        }
    }
}

impl OwnerBook {
    /// Reads the book. `epoch` is the lease on [`NAMESPACE`].
    ///
    /// # Errors
    /// [`StoreError`]; a record that cannot be read is none ([`OwnerBook::unreadable`]).
    pub async fn load(
        store: Arc<dyn Store>,
        epoch: u64,
        network: Network,
        on_change: OnChange,
    ) -> Result<OwnerBook, StoreError> {
        let mut entries = Entries::default();
        let mut unreadable = Vec::new();
        for (key, value) in store.load(NAMESPACE).await? {
            if let Some(name) = key.strip_prefix(RECORD_PREFIX) {
                match OwnerRecord::from_bytes(name, &value) {
                    Ok(record) => drop(entries.records.insert(record.id, record)),
                    Err(reason) => unreadable.push((name.to_owned(), reason)),
                }
            } else if let Some(node_id) = key.strip_prefix(NODE_PREFIX)
                && let (Ok(node_id), Ok(name)) = (node_id.parse(), String::from_utf8(value))
            {
                entries.node_ids.insert(node_id, name);
            }
        }
        let mut book = OwnerBook {
            unreadable: Vec::new(),
            store,
            epoch,
            network,
            entries: Mutex::default(),
            on_change,
        };
        book.add_node_ids(&mut entries).await?;
        book.add_tor_services(&mut entries).await?;
        for (name, reason) in unreadable {
            let is_known = entries.node_ids.values().any(|owner| *owner == name);
            let record = Unreadable {
                hides_node: !is_known && book.has_node(&name).await?,
                name,
                reason,
            };
            tracing::error!(owner = record.name, error = %record, "an owner is left out");
            book.unreadable.push(record);
        }
        book.entries = Mutex::new(entries);
        Ok(book)
    }

    /// Stores the node ids of records that an earlier version has written without them.
    async fn add_node_ids(&self, entries: &mut Entries) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        for record in entries.records.values() {
            if let Some(node_id) = record.node_id()
                && !entries.node_ids.contains_key(&node_id)
            {
                writes.push(node_id_of(&record.name, &node_id));
                entries.node_ids.insert(node_id, record.name.clone());
            }
        }
        match writes.is_empty() {
            true => Ok(()),
            false => self.commit(writes).await,
        }
    }

    /// Assigns onion services to the owners of records that an earlier version has written.
    async fn add_tor_services(&self, entries: &mut Entries) -> Result<(), StoreError> {
        // A number that is too large for any host is none of this program's.
        for owner in entries.records.values_mut() {
            let is_known = |number: &u32| (*number as usize) < MAX_TOR_SERVICES;
            owner.tor_service = owner.tor_service.filter(is_known);
        }
        let assigned: Vec<_> = entries.records.values().map(|it| it.tor_service).collect();
        for number in assigned.iter().flatten() {
            entries.count_tor_service(*number);
        }
        let mut writes = Vec::new();
        let missing = entries
            .records
            .values()
            .filter(|it| it.tor_service.is_none());
        let missing: Vec<OwnerRecord> = missing.cloned().collect();
        for mut owner in missing {
            owner.tor_service = Some(entries.tor_service());
            writes.push(record_of(&owner)?);
            entries.records.insert(owner.id, owner);
        }
        match writes.is_empty() {
            true => Ok(()),
            false => self.commit(writes).await,
        }
    }

    /// Whether the node of the owner with this name has entries in the store.
    async fn has_node(&self, name: &str) -> Result<bool, StoreError> {
        let namespace = record::namespace_of(name);
        let found = self.store.namespaces(&namespace).await?;
        Ok(found.contains(&namespace))
    }

    /// The owners whose records cannot be read, by name.
    pub fn unreadable(&self) -> &[Unreadable] {
        &self.unreadable
    }

    /// Makes an owner with a pairing code that is taken until `expires_unix_s`.
    pub async fn create(
        &self,
        name: &str,
        wake_url: &str,
        expires_unix_s: u64,
    ) -> Result<(OwnerRecord, PairingSecret), OwnerError> {
        check_name(name)?;
        let wake_url = check_wake_url(wake_url)?;
        let mut entries = self.entries.lock().await;
        let unreadable = || self.unreadable.iter().any(|owner| owner.name == name);
        if entries.named(name).is_some() || unreadable() {
            return Err(OwnerError::NameTaken(name.to_owned()));
        }
        let secret = PairingSecret::generate()?;
        let owner = OwnerRecord {
            name: name.to_owned(),
            id: OwnerId::generate()?,
            wake_url,
            phone_wake_urls: Vec::new(),
            pairing: Some(PairingRecord {
                secret: secret.clone(),
                expires_unix_s,
                used_by: None,
            }),
            phone: None,
            registration: None,
            registered_by: None,
            tor_service: Some(entries.tor_service()),
            apps: Vec::new(),
        };
        self.write(&mut entries, owner.clone()).await?;
        Ok((owner, secret))
    }

    /// Makes a new pairing code. The previous one is no longer taken, nor is the phone that paired with it: another
    /// person may have it, and is not called any more. Nor are the apps that it has connected.
    pub async fn renew(
        &self,
        name: &str,
        expires_unix_s: u64,
    ) -> Result<(OwnerRecord, PairingSecret), OwnerError> {
        let mut entries = self.entries.lock().await;
        let mut owner = self.find(&entries, name)?;
        let secret = PairingSecret::generate()?;
        (owner.phone, owner.registered_by) = (None, None);
        owner.phone_wake_urls.clear();
        owner.apps.retain(|app| app.by_operator);
        owner.pairing = Some(PairingRecord {
            secret: secret.clone(),
            expires_unix_s,
            used_by: None,
        });
        self.write(&mut entries, owner.clone()).await?;
        Ok((owner, secret))
    }

    /// Takes the wake URLs that `phone` gives, in place of those that it gave before.
    pub async fn set_phone_wake_urls(
        &self,
        id: &OwnerId,
        phone: &LinkKey,
        urls: &[String],
    ) -> Result<OwnerRecord, OwnerError> {
        let urls = check_phone_wake_urls(urls)?;
        let mut entries = self.entries.lock().await;
        let found = entries.records.get(id).cloned();
        let mut owner = found.ok_or_else(|| OwnerError::Unknown(id.to_string()))?;
        if owner.phone != Some(*phone) {
            return Err(OwnerError::ShutOut);
        }
        if owner.phone_wake_urls != urls {
            owner.phone_wake_urls = urls;
            self.write(&mut entries, owner.clone()).await?;
        }
        Ok(owner)
    }

    /// Connects an app. With `phone`, for that phone.
    pub async fn connect_app(
        &self,
        id: &OwnerId,
        phone: Option<&LinkKey>,
        app: AppRecord,
    ) -> Result<OwnerRecord, OwnerError> {
        if !is_app_name(&app.name) {
            return Err(OwnerError::AppName);
        }
        self.change_apps(id, phone, |apps| {
            if apps.iter().any(|it| it.name == app.name) {
                return Err(OwnerError::AppNameTaken(app.name));
            }
            if apps.len() >= MOST_APPS {
                return Err(OwnerError::ManyApps);
            }
            apps.push(app);
            apps.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(())
        })
        .await
    }

    /// Disconnects an app. With `phone`, for that phone.
    pub async fn disconnect_app(
        &self,
        id: &OwnerId,
        phone: Option<&LinkKey>,
        name: &str,
    ) -> Result<OwnerRecord, OwnerError> {
        self.change_apps(id, phone, |apps| {
            let count = apps.len();
            apps.retain(|app| app.name != name);
            match apps.len() < count {
                true => Ok(()),
                false => Err(OwnerError::AppUnknown(name.to_owned())),
            }
        })
        .await
    }

    /// An app has used its words: from now on it comes with this key.
    pub async fn app_paired(
        &self,
        id: &OwnerId,
        app: AppId,
        key: NodeId,
    ) -> Result<OwnerRecord, OwnerError> {
        self.change_apps(id, None, |apps| {
            // It may have been disconnected just now, or another may have used the words.
            let free = apps.iter_mut().find(|it| it.id == app && it.key.is_none());
            let free = free.ok_or_else(|| OwnerError::AppUnknown(String::new()))?;
            free.key = Some(key);
            Ok(())
        })
        .await
    }

    async fn change_apps(
        &self,
        id: &OwnerId,
        phone: Option<&LinkKey>,
        change: impl FnOnce(&mut Vec<AppRecord>) -> Result<(), OwnerError>,
    ) -> Result<OwnerRecord, OwnerError> {
        let mut entries = self.entries.lock().await;
        let found = entries.records.get(id).cloned();
        let mut owner = found.ok_or_else(|| OwnerError::Unknown(id.to_string()))?;
        if phone.is_some_and(|phone| owner.phone.as_ref() != Some(phone)) {
            return Err(OwnerError::ShutOut);
        }
        change(&mut owner.apps)?;
        self.write(&mut entries, owner.clone()).await?;
        Ok(owner)
    }

    /// Changes the operator's wake URL of an owner, if one is given (empty = none), and clears those of the phone, if wanted.
    pub async fn set_wake_url(
        &self,
        name: &str,
        wake_url: Option<&str>,
        clear_phones: bool,
    ) -> Result<OwnerRecord, OwnerError> {
        let wake_url = wake_url.map(check_wake_url).transpose()?;
        let mut entries = self.entries.lock().await;
        let before = self.find(&entries, name)?;
        let mut owner = before.clone();
        if let Some(wake_url) = wake_url {
            owner.wake_url = wake_url;
        }
        if clear_phones {
            owner.phone_wake_urls.clear();
        }
        if owner != before {
            self.write(&mut entries, owner.clone()).await?;
        }
        Ok(owner)
    }

    /// The state of a pairing code.
    pub async fn pairing(&self, id: &PairingId, now_unix_s: u64) -> Pairing {
        let entries = self.entries.lock().await;
        let mut pairings = entries.records.values().filter_map(|o| o.pairing.as_ref());
        match pairings.find(|record| record.secret.id() == *id) {
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
    ) -> Result<Option<OwnerRecord>, OwnerError> {
        let mut entries = self.entries.lock().await;
        let has_code =
            |owner: &&OwnerRecord| owner.pairing.as_ref().is_some_and(|p| p.secret.id() == *id);
        let Some(mut owner) = entries.records.values().find(has_code).cloned() else {
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
        let mut others = entries
            .records
            .values()
            .filter(|other| other.id != owner.id);
        if others.any(|other| other.phone == Some(*phone)) {
            return Err(OwnerError::PhoneTaken);
        }
        owner.phone = Some(*phone);
        self.write(&mut entries, owner.clone()).await?;
        Ok(Some(owner))
    }

    /// The owner a phone is pinned to.
    pub async fn owner_of(&self, phone: &LinkKey) -> Option<OwnerId> {
        let entries = self.entries.lock().await;
        let mut records = entries.records.values();
        records
            .find(|owner| owner.phone == Some(*phone))
            .map(|owner| owner.id)
    }

    /// Checks a registration, as far as possible before the phone has proved that it has the keys. Returns the owner's
    /// record as it is.
    pub async fn may_register(
        &self,
        id: &OwnerId,
        new: &Registration,
        hub: &NodeId,
    ) -> Result<OwnerRecord, OwnerError> {
        self.check(&*self.entries.lock().await, id, new, hub)
    }

    /// Registers the keys that `phone` has proved to have. The same keys again are no error; other keys are, as is a
    /// node that another owner of this host (or `hub`) has.
    pub async fn register(
        &self,
        id: &OwnerId,
        phone: &LinkKey,
        new: Registration,
        hub: &NodeId,
    ) -> Result<OwnerRecord, OwnerError> {
        let mut entries = self.entries.lock().await;
        let mut owner = self.check(&entries, id, &new, hub)?;
        if owner.phone != Some(*phone) {
            return Err(OwnerError::ShutOut);
        }
        if owner.is_confirmed() {
            return Ok(owner);
        }
        owner.registration.get_or_insert(new);
        owner.registered_by = Some(*phone);
        self.write(&mut entries, owner.clone()).await?;
        Ok(owner)
    }

    fn check(
        &self,
        entries: &Entries,
        id: &OwnerId,
        new: &Registration,
        hub: &NodeId,
    ) -> Result<OwnerRecord, OwnerError> {
        let node_id = registration::check(new, self.network)?;
        let found = entries.records.get(id).cloned();
        let owner = found.ok_or_else(|| OwnerError::Unknown(id.to_string()))?;
        let taken_by = entries.node_ids.get(&node_id);
        match &owner.registration {
            Some(old) if !registration::same_keys(old, new) => Err(OwnerError::KeysDiffer),
            Some(_) => Ok(owner),
            None if node_id == *hub => Err(OwnerError::NodeTaken),
            None if taken_by.is_some_and(|name| *name != owner.name) => Err(OwnerError::NodeTaken),
            None if self.unreadable.iter().any(|other| other.hides_node) => {
                Err(OwnerError::NodeUnclear)
            }
            None => Ok(owner),
        }
    }

    /// All owners whose records can be read, by name.
    pub async fn all(&self) -> Vec<OwnerRecord> {
        let entries = self.entries.lock().await;
        let mut all: Vec<_> = entries.records.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The owner with this name.
    pub async fn named(&self, name: &str) -> Result<OwnerRecord, OwnerError> {
        self.find(&*self.entries.lock().await, name)
    }

    fn find(&self, entries: &Entries, name: &str) -> Result<OwnerRecord, OwnerError> {
        if let Some(owner) = entries.named(name) {
            return Ok(owner.clone());
        }
        match self.unreadable.iter().find(|owner| owner.name == name) {
            Some(unreadable) => Err(unreadable.clone().into()),
            None => Err(OwnerError::Unknown(name.to_owned())),
        }
    }

    /// Durable first, then in the book, then reported.
    async fn write(&self, entries: &mut Entries, owner: OwnerRecord) -> Result<(), OwnerError> {
        let mut writes = vec![record_of(&owner)?];
        let node_id = owner.node_id();
        let new_id = node_id.filter(|node_id| !entries.node_ids.contains_key(node_id));
        writes.extend(new_id.map(|node_id| node_id_of(&owner.name, &node_id)));
        self.commit(writes).await?;
        if let Some(node_id) = new_id {
            entries.node_ids.insert(node_id, owner.name.clone());
        }
        entries.records.insert(owner.id, owner.clone());
        (self.on_change)(&owner);
        Ok(())
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let batch = Batch {
            namespace: NAMESPACE.into(),
            epoch: self.epoch,
            writes,
        };
        self.store.commit(batch).await
    }
}

impl Entries {
    fn named(&self, name: &str) -> Option<&OwnerRecord> {
        self.records.values().find(|owner| owner.name == name)
    }
}

fn record_of(owner: &OwnerRecord) -> Result<Write, StoreError> {
    let value = owner
        .to_bytes()
        .map_err(|e| StoreError::Unusable(format!("the record cannot be encoded: {e}")))?;
    Ok(Write::Put(format!("{RECORD_PREFIX}{}", owner.name), value))
}

fn node_id_of(name: &str, node_id: &NodeId) -> Write {
    Write::Put(format!("{NODE_PREFIX}{node_id}"), name.into())
}

fn check_name(name: &str) -> Result<(), OwnerError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=64).contains(&name.len()) && name.chars().all(allowed) {
        true => Ok(()),
        false => Err(OwnerError::BadName(name.chars().take(64).collect())),
    }
}

/// A name as it was given, as far as an error shows it.
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

/// The URLs of a phone, as they are stored: each once.
fn check_phone_wake_urls(texts: &[String]) -> Result<Vec<String>, OwnerError> {
    if texts.len() > MAX_WAKE_URLS {
        return Err(OwnerError::ManyWakeUrls);
    }
    let mut urls = Vec::new();
    for text in texts {
        if text.len() > MAX_WAKE_URL_BYTES {
            return Err(OwnerError::LongWakeUrl);
        }
        let empty = || OwnerError::BadWakeUrl("it is empty".into());
        let url = check_wake_url(text)?.ok_or_else(empty)?;
        // Percent-encoding makes it longer.
        if url.len() > MAX_WAKE_URL_BYTES {
            return Err(OwnerError::LongWakeUrl);
        }
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    Ok(urls)
}

#[cfg(test)]
mod tests;
