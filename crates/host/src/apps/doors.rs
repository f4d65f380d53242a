//! Waits at a mailbox for the apps of all owners.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use longhand_link::carrier::hashmail::{Arrival, Door, Pool, PublicKey, into_bytes};
use longhand_link::{Address, DialOptions, LinkError};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::{AppDoor, Apps, KnownApp};
use crate::clock::now_unix_s;
use crate::owners::AppId;

/// Connections of an app that wait to be served.
const ARRIVING: usize = 4;
/// The time in which the connection of an app that was disconnected has to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);
/// The time that an app has to read the end of its connection.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// What stands before a macaroon in the text that an app gets.
const TEXT: &str = "Macaroon: ";

/// The doors of one mailbox.
struct Doors {
    apps: Arc<Apps>,
    pool: Arc<Pool>,
    routes: Router,
    open: HashMap<AppId, OpenDoor>,
}

/// A door is closed when this is dropped. The connections that came by it go on until the app is disconnected.
struct OpenDoor {
    /// The key by which the app is known at it; `None` = it has the words.
    key: Option<PublicKey>,
    _open: watch::Sender<()>,
}

impl Apps {
    /// Waits for apps at a mailbox with Lightning Node Connect until the host ends.
    ///
    /// # Errors
    /// [`LinkError::Address`] when it is no such mailbox.
    pub fn wait_at(
        self: &Arc<Self>,
        mailbox: &Address,
        options: DialOptions,
    ) -> Result<(), LinkError> {
        let doors = Doors {
            apps: self.clone(),
            pool: Arc::new(Pool::new(mailbox, options)?),
            routes: longhand_lnd::routes(Arc::new(AppDoor(self.clone()))),
            open: HashMap::new(),
        };
        self.tasks.spawn(doors.keep());
        Ok(())
    }
}

impl Doors {
    async fn keep(mut self) {
        let mut known = self.apps.known.follow();
        loop {
            let now = known.borrow_and_update().clone().unwrap_or_default();
            self.match_to(&now);
            let pause = next_close(&now);
            tokio::select! {
                biased;
                changed = known.changed() => if changed.is_err() { return },
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    fn match_to(&mut self, known: &BTreeMap<AppId, KnownApp>) {
        let is_met = |app: &KnownApp| app.closes_unix_s().is_none_or(|at| at > now_unix_s());
        self.open.retain(|id, door| {
            let app = known.get(id);
            app.is_some_and(|app| app.record.key == door.key && is_met(app))
        });
        for (id, app) in known {
            if is_met(app) && !self.open.contains_key(id) {
                let door = self.open(app.clone());
                self.open.insert(*id, door);
            }
        }
    }

    fn open(&self, app: KnownApp) -> OpenDoor {
        let (keeps_open, open) = watch::channel(());
        let key = app.record.key;
        let (pool, routes) = (self.pool.clone(), self.routes.clone());
        let apps = self.apps.clone();
        let in_use = apps.in_use.subscribe();
        self.apps.tasks.spawn(async move {
            let Some(door) = door(&app).await else {
                tracing::error!("an app is not met at a mailbox: its keys cannot be used");
                return;
            };
            let streams = door.streams();
            let (arrived, mut arriving) = mpsc::channel(ARRIVING);
            // The door is closed then, and its last connection ends in order.
            let gone = async {
                apps.known.gone(app.record.id).await;
                sleep(LEAVE_WITHIN).await;
            };
            let pool = &pool;
            tokio::select! {
                biased;
                () = door.wait(pool, &arrived, None, open) => {}
                () = gone => {}
                () = async {
                    while let Some(arrival) = arriving.recv().await {
                        arrived_at(&apps, &app, arrival, routes.clone()).await;
                    }
                } => {}
            }
            drop(in_use);
            if apps.tasks.is_stopping() {
                return;
            }
            // What the app has not read yet is dropped with the streams.
            sleep(LAST_WORDS).await;
            pool.delete(&streams).await;
        });
        OpenDoor {
            key,
            _open: keeps_open,
        }
    }
}

/// How long it is until the next door closes by itself.
fn next_close(known: &BTreeMap<AppId, KnownApp>) -> Option<Duration> {
    let now = now_unix_s();
    let closes = known.values().filter_map(KnownApp::closes_unix_s);
    let next = closes.filter(|at| *at > now).min()?;
    Some(Duration::from_secs(next.saturating_sub(now)))
}

async fn door(app: &KnownApp) -> Option<Door> {
    let local = app.local_key()?;
    let text = format!("{TEXT}{}", *app.macaroon()?);
    match app.record.key {
        Some(key) => Some(Door::app(local, key, text.as_bytes())),
        None => Door::words(local, app.words(), text.as_bytes()).await.ok(),
    }
}

/// An app has come. With the words, its key is written down before it is served.
async fn arrived_at(apps: &Arc<Apps>, app: &KnownApp, arrival: Arrival, routes: Router) {
    let Arrival { carrier, peer } = arrival;
    let Some(peer) = peer else { return };
    let id = app.record.id;
    if app.record.key.is_none() {
        let paired = apps.book.app_paired(&app.owner, id, peer.key).await;
        if let Err(error) = paired {
            tracing::warn!(%error, "an app was not let in");
            return;
        }
        tracing::info!(owner = %app.owner, "an app has used its words");
    }
    let known = apps.known.clone();
    let stream = into_bytes(carrier);
    apps.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = longhand_lnd::serve(stream, routes) => {}
            () = known.gone(id) => {}
        }
    });
}
