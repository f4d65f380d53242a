//! Apps over Lightning Node Connect.

use longhand_base::text::plain;
use longhand_proto::command as proto;
use serde::{Deserialize, Serialize};

/// What an app may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppRights {
    /// To see all that the node answers.
    pub read: bool,
    /// To make invoices and addresses.
    pub invoices: bool,
    /// To ask the owner's phone for payments.
    pub pay: bool,
}

impl From<AppRights> for proto::AppRights {
    fn from(rights: AppRights) -> proto::AppRights {
        let AppRights {
            read,
            invoices,
            pay,
        } = rights;
        proto::AppRights {
            read,
            invoices,
            pay,
        }
    }
}

impl From<proto::AppRights> for AppRights {
    fn from(rights: proto::AppRights) -> AppRights {
        AppRights {
            read: rights.read,
            invoices: rights.invoices,
            pay: rights.pay,
        }
    }
}

/// An app that has been connected, and has not come yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedApp {
    /// Ten words for the app, used once.
    pub words: String,
    /// The mailboxes at which it uses them, `host:port`.
    pub mailboxes: Vec<String>,
    /// The words are of no use after this, seconds since 1970.
    pub words_expire_unix_s: u64,
}

impl From<proto::ConnectedApp> for ConnectedApp {
    fn from(app: proto::ConnectedApp) -> ConnectedApp {
        ConnectedApp {
            words: plain(&app.words),
            mailboxes: app.mailboxes.iter().map(|it| plain(it)).collect(),
            words_expire_unix_s: app.words_expire_unix_s,
        }
    }
}

/// The apps of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apps {
    /// By name.
    pub apps: Vec<App>,
}

impl From<proto::Apps> for Apps {
    fn from(apps: proto::Apps) -> Apps {
        let apps = apps.apps.into_iter().map(App::from);
        Apps {
            apps: apps.collect(),
        }
    }
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// For people.
    pub name: String,
    /// What it may do.
    pub rights: AppRights,
    /// When its rights end, seconds since 1970; 0 = never.
    pub expires_unix_s: u64,
    /// Whether an app has used the words.
    pub is_paired: bool,
    /// Whether the operator of the host has connected it.
    pub by_operator: bool,
}

impl From<proto::App> for App {
    fn from(app: proto::App) -> App {
        App {
            name: plain(&app.name),
            rights: app.rights.unwrap_or_default().into(),
            expires_unix_s: app.expires_unix_s,
            is_paired: app.is_paired,
            by_operator: app.by_operator,
        }
    }
}
