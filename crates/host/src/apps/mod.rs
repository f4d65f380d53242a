//! Apps of owners, which call their nodes by lnd's RPC (`longhand_lnd`): over Lightning Node Connect, at the host's mailboxes, and on a
//! listener of the operator's network.
//!
//! - [`KnownApps`]: those in the book of owners, as it changes. All secrets of an app follow from one.
//! - `doors.rs`: waits at a mailbox for each of them, first with ten words, then with the app's key.
//! - `node.rs`: answers their calls from the node's own data; `questions.rs` asks the owner's phone.
//! - `listen.rs`: the listener.

mod doors;
pub(crate) mod listen;
mod node;
mod payments;
mod questions;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use longhand_chain::Follower;
use longhand_link::carrier::hashmail::{Phrase, SecretKey};
use longhand_link::{LinkKey, OwnerId};
use longhand_lnd::{Grant, Macaroon, Rights, RootKey};
use longhand_node::Graph;
use longhand_proto::Code;
use longhand_proto::command::{self as proto, AppRights, Error};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::now_unix_s;
use crate::hosted::HostedNodes;
use crate::owners::{AppId, AppRecord, AppSecret, OwnerBook, OwnerError, OwnerRecord};
use crate::tasks::Tasks;
use node::{AppNode, Texts};

/// How long the ten words of an app can be used.
const WORDS_FOR_S: u64 = 3_600;
/// The time in which the connections of apps have to end when the host stops: as long as one waits for what it has sent to be acknowledged.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// An app, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownApp {
    pub owner: OwnerId,
    pub record: AppRecord,
}

impl KnownApp {
    fn words(&self) -> Phrase {
        let secret = self.record.secret.derive("words");
        let mut bits = [0; 14];
        bits.copy_from_slice(&secret[..14]);
        Phrase::from_bits(bits)
    }

    /// The node's static key for this app; `None` in one of 2^128.
    fn local_key(&self) -> Option<SecretKey> {
        SecretKey::from_slice(&self.record.secret.derive("key")[..]).ok()
    }

    fn root_key(&self) -> RootKey {
        RootKey::new(*self.record.secret.derive("root key"))
    }

    /// By which its macaroon names it.
    fn name_in_macaroon(&self) -> Vec<u8> {
        [&self.owner.0[..], &self.record.id].concat()
    }

    /// A macaroon with all its rights, as hex.
    fn macaroon(&self) -> Option<zeroize::Zeroizing<String>> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok()?;
        let AppRights {
            read,
            invoices,
            pay,
        } = self.record.rights;
        let rights = Rights {
            read,
            invoices,
            pay,
        };
        let grant = Grant {
            app: &self.name_in_macaroon(),
            nonce,
            ops: &rights.ops(),
            expires_unix_s: Some(self.record.expires_unix_s).filter(|it| *it > 0),
        };
        Some(Macaroon::mint(&self.root_key(), &grant).ok()?.to_hex())
    }

    /// When nobody is let in any more; `None` = never.
    fn closes_unix_s(&self) -> Option<u64> {
        let rights = Some(self.record.expires_unix_s).filter(|it| *it > 0);
        let is_paired = self.record.key.is_some();
        let words = (!is_paired).then_some(self.record.words_expire_unix_s);
        rights.into_iter().chain(words).min()
    }
}

/// All apps of the host, by their ids.
///
/// `None` once the host stops: none is known any more, whatever the book says.
#[derive(Clone)]
pub(crate) struct KnownApps(watch::Sender<Option<Arc<BTreeMap<AppId, KnownApp>>>>);

impl Default for KnownApps {
    fn default() -> KnownApps {
        KnownApps(watch::Sender::new(Some(Arc::default())))
    }
}

impl KnownApps {
    /// The book has changed.
    pub fn set_record(&self, owner: &OwnerRecord) {
        self.0.send_if_modified(|known| {
            // An app that pairs while the host stops is written down, and connected no more.
            let Some(known) = known else { return false };
            let before = known.values().filter(|app| app.owner == owner.id);
            if before.map(|app| &app.record).eq(by_id(&owner.apps)) {
                return false;
            }
            let mut now = BTreeMap::clone(known);
            now.retain(|_, app| app.owner != owner.id);
            now.extend(owner.apps.iter().map(|record| {
                let (owner, record) = (owner.id, record.clone());
                (record.id, KnownApp { owner, record })
            }));
            *known = Arc::new(now);
            true
        });
    }

    fn get(&self, id: &AppId) -> Option<KnownApp> {
        self.0.borrow().as_ref()?.get(id).cloned()
    }

    fn follow(&self) -> watch::Receiver<Option<Arc<BTreeMap<AppId, KnownApp>>>> {
        self.0.subscribe()
    }

    /// From now on no app is connected, as far as connections are concerned.
    fn forget_all(&self) {
        self.0.send_replace(None);
    }

    /// Returns when the app is no longer connected.
    async fn gone(&self, id: AppId) {
        let mut known = self.follow();
        // Fails when the host has ended.
        let is_gone = |known: &Option<Arc<BTreeMap<_, _>>>| {
            known.as_ref().is_none_or(|known| !known.contains_key(&id))
        };
        let _ = known.wait_for(is_gone).await;
    }
}

fn by_id(apps: &[AppRecord]) -> impl Iterator<Item = &AppRecord> {
    let mut apps: Vec<&AppRecord> = apps.iter().collect();
    apps.sort_by_key(|app| app.id);
    apps.into_iter()
}

/// Who connects or disconnects an app.
#[derive(Clone, Copy)]
pub(crate) enum By<'a> {
    /// The owner, on this phone.
    Phone(&'a LinkKey),
    Operator,
}

/// The parts of a host that apps use.
pub(crate) struct Apps {
    pub network: Network,
    pub known: KnownApps,
    /// Mailboxes at which apps come, `host:port`.
    pub mailboxes: Vec<String>,
    pub book: Arc<OwnerBook>,
    pub nodes: Arc<HostedNodes>,
    pub chain: Arc<Follower>,
    pub graph: Arc<Graph>,
    pub tasks: Arc<Tasks>,
    /// Of the nodes that apps have called.
    pub texts: Mutex<HashMap<OwnerId, Arc<Texts>>>,
    /// Each door and each connection at a mailbox has a receiver, until it has ended in order.
    pub in_use: watch::Sender<()>,
}

impl Apps {
    /// Connects an app of an owner: whoever has the words first is the app.
    pub async fn connect(
        &self,
        owner: &OwnerId,
        by: By<'_>,
        name: &str,
        rights: AppRights,
        expires_unix_s: u64,
    ) -> Result<proto::ConnectedApp, Error> {
        let has_rights = rights.read || rights.invoices || rights.pay;
        let spends = rights.invoices || rights.pay;
        if !has_rights || (spends && matches!(by, By::Operator)) {
            let message =
                "an app has at least one right, and one that the operator connects may only read";
            return Err(Error::new(Code::BadAppRights, message));
        }
        if (1..=now_unix_s()).contains(&expires_unix_s) {
            let message = "the rights of an app cannot end in the past: give a later time, or none";
            return Err(Error::new(Code::BadAppRights, message));
        }
        if self.mailboxes.is_empty() && matches!(by, By::Phone(_)) {
            let message = "this host has no mailbox over which apps come: ask its operator for one with Lightning Node Connect (link.mailboxes)";
            return Err(Error::new(Code::NoAppMailbox, message));
        }
        let failed = |error: getrandom::Error| Error::new(Code::Internal, error.to_string());
        let (mut id, mut secret) = (AppId::default(), zeroize::Zeroizing::new([0; 32]));
        getrandom::fill(&mut id).map_err(failed)?;
        getrandom::fill(&mut secret[..]).map_err(failed)?;
        let words_expire_unix_s = now_unix_s().saturating_add(WORDS_FOR_S);
        let record = AppRecord {
            id,
            name: name.to_owned(),
            rights,
            expires_unix_s,
            by_operator: matches!(by, By::Operator),
            secret: AppSecret::from_bytes(*secret),
            words_expire_unix_s,
            key: None,
        };
        let connected = self
            .book
            .connect_app(owner, by.phone(), record.clone())
            .await;
        connected.map_err(|error| refused(&error))?;
        tracing::info!(owner = %owner, "an app was connected");
        let app = KnownApp {
            owner: *owner,
            record,
        };
        Ok(proto::ConnectedApp {
            words: app.words().words().to_string(),
            mailboxes: self.mailboxes.clone(),
            words_expire_unix_s,
            macaroon: app
                .macaroon()
                .map(|hex| hex.to_string())
                .unwrap_or_default(),
        })
    }

    /// Disconnects an app of an owner.
    pub async fn disconnect(
        &self,
        owner: &OwnerId,
        by: By<'_>,
        name: &str,
    ) -> Result<proto::Apps, Error> {
        let left = self.book.disconnect_app(owner, by.phone(), name).await;
        let left = left.map_err(|error| refused(&error))?;
        tracing::info!(owner = %owner, "an app was disconnected");
        Ok(shown(&left))
    }

    /// Ends the connections of all apps in order, when the host stops: without it they would find out by silence.
    pub async fn leave(&self) {
        self.known.forget_all();
        if timeout(STOP_WITHIN, self.in_use.closed()).await.is_err() {
            tracing::debug!("connections of apps did not end in order");
        }
    }

    /// The node of an app, as the app calls it.
    fn node(self: &Arc<Self>, app: &KnownApp) -> Option<Arc<AppNode>> {
        let hosted = self.nodes.get(&app.owner)?;
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = texts.entry(app.owner).or_default().clone();
        Some(Arc::new(AppNode {
            apps: self.clone(),
            hosted,
            app: app.record.name.clone(),
            texts,
        }))
    }
}

/// Lets calls in by their macaroons.
pub(crate) struct AppDoor(pub Arc<Apps>);

impl longhand_lnd::Apps for AppDoor {
    fn app(&self, name: &[u8]) -> Option<longhand_lnd::App> {
        let (_, id) = name.split_last_chunk()?;
        let app = self.0.known.get(id)?;
        let is_over = Some(app.record.expires_unix_s).filter(|it| *it > 0);
        let is_over = is_over.is_some_and(|expires| expires <= now_unix_s());
        if is_over || app.name_in_macaroon() != name {
            return None;
        }
        Some(longhand_lnd::App {
            root_key: app.root_key(),
            node: self.0.node(&app)?,
        })
    }
}

impl<'a> By<'a> {
    fn phone(self) -> Option<&'a LinkKey> {
        match self {
            By::Phone(phone) => Some(phone),
            By::Operator => None,
        }
    }
}

/// The apps of an owner, as they are shown.
pub(crate) fn shown(owner: &OwnerRecord) -> proto::Apps {
    let apps = owner.apps.iter().map(|app| proto::App {
        name: app.name.clone(),
        rights: Some(app.rights),
        expires_unix_s: app.expires_unix_s,
        is_paired: app.key.is_some(),
        by_operator: app.by_operator,
    });
    proto::Apps {
        apps: apps.collect(),
    }
}

fn refused(error: &OwnerError) -> Error {
    let code = match error {
        OwnerError::Store(_) => Code::StoreFailed,
        error => error.code(),
    };
    Error::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> OwnerRecord {
        let app = AppRecord {
            id: [1; 8],
            name: "Zeus".into(),
            rights: AppRights::default(),
            expires_unix_s: 0,
            by_operator: false,
            secret: AppSecret::from_bytes([2; 32]),
            words_expire_unix_s: 0,
            key: None,
        };
        OwnerRecord {
            apps: vec![app],
            ..OwnerRecord::ann()
        }
    }

    /// Its connection would not end: it would be known again, and nobody would forget it.
    #[test]
    fn an_app_that_is_paired_while_the_host_stops_is_not_known_again() {
        let known = KnownApps::default();
        known.set_record(&owner());
        assert!(known.get(&[1; 8]).is_some());
        known.forget_all();
        known.set_record(&owner());
        assert_eq!(known.get(&[1; 8]), None);
    }
}
