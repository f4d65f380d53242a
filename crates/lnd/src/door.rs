//! Who is let in: each call is checked before anything else of it is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName};
use futures::{Stream, StreamExt, stream};
use tonic::{Code, Status};

use crate::macaroon::{Macaroon, MacaroonError, RootKey};
use crate::node::Node;
use crate::rights::Op;
use crate::status::status;

/// Calls that an app can have open at once, subscriptions and questions to the phone among them.
pub const MOST_CALLS: usize = 32;

/// gRPC's metadata, and the header of REST.
const METADATA: HeaderName = HeaderName::from_static("macaroon");
const HEADER: HeaderName = HeaderName::from_static("grpc-metadata-macaroon");

/// The apps that are connected, each by the name in its macaroon.
///
/// One listener can serve many nodes: the macaroon names the app, and the app its node. An app that is forgotten here is out at
/// once: its next call is refused, and its subscriptions end with their next message.
pub trait Apps: Send + Sync {
    /// The app with this name, as it was minted ([`Grant::app`](crate::Grant::app)); `None` when it is not connected. The name is
    /// from a stranger, at most [`MOST_APP_BYTES`](crate::MOST_APP_BYTES) long.
    fn app(&self, name: &[u8]) -> Option<App>;
}

/// One connected app.
#[derive(Clone)]
pub struct App {
    /// The key of its macaroons.
    pub root_key: RootKey,
    /// The node that it is for.
    pub node: Arc<dyn Node>,
}

/// Checks calls.
#[derive(Clone)]
pub(crate) struct Door {
    apps: Arc<dyn Apps>,
    open: Arc<Mutex<HashMap<Vec<u8>, usize>>>,
}

/// A call that was let in.
#[derive(Clone)]
pub(crate) struct Caller {
    pub node: Arc<dyn Node>,
    place: Arc<Place>,
}

/// One of the calls that an app has open.
struct Place {
    app: Vec<u8>,
    door: Door,
}

impl Door {
    pub fn new(apps: Arc<dyn Apps>) -> Door {
        let open = Arc::default();
        Door { apps, open }
    }

    /// Lets a call in that needs this operation; `None` = a macaroon that is good for anything.
    pub fn enter(&self, headers: &HeaderMap, needed: Option<Op>) -> Result<Caller, Status> {
        let macaroon = macaroon(headers)?;
        let name = macaroon.app()?;
        let app = self.apps.app(&name);
        let app = app.ok_or(MacaroonError::Foreign)?;
        macaroon.verify(&app.root_key, needed, now_unix_s())?;
        Ok(Caller {
            node: app.node,
            place: Arc::new(self.place(name)?),
        })
    }

    fn place(&self, app: Vec<u8>) -> Result<Place, Status> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(app.clone()).or_default();
        if *count >= MOST_CALLS {
            let line = format!("the app has {MOST_CALLS} calls open: end some first");
            return Err(status(Code::ResourceExhausted, &line));
        }
        *count += 1;
        let door = self.clone();
        Ok(Place { app, door })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .door
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.app) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.app);
            }
        }
    }
}

impl Caller {
    /// The stream keeps the call's place, and ends when the app is not connected any more. An error is its last message.
    pub fn keep<T: Send + 'static>(
        self,
        messages: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
        let left = Some((messages.boxed(), self.place));
        stream::unfold(left, async |left| {
            let (mut messages, place) = left?;
            let message = messages.next().await?;
            let message = match place.door.apps.app(&place.app) {
                Some(_) => message,
                None => Err(MacaroonError::Foreign.into()),
            };
            let left = message.is_ok().then_some((messages, place));
            Some((message, left))
        })
    }
}

fn macaroon(headers: &HeaderMap) -> Result<Macaroon, Status> {
    let count = headers.get_all(METADATA).iter().count() + headers.get_all(HEADER).iter().count();
    let value = headers.get(METADATA).or_else(|| headers.get(HEADER));
    let value = value.filter(|_| count == 1).ok_or_else(|| {
        let line = format!("expected 1 macaroon, got {count}: send it as hex in the metadata macaroon, or in the header Grpc-Metadata-macaroon");
        status(Code::Unauthenticated, &line)
    })?;
    let hex = value.to_str();
    let hex = hex.map_err(|_| MacaroonError::Malformed("it is no hex"))?;
    Ok(Macaroon::from_hex(hex)?)
}

/// A clock before 1970 lets nobody in whose macaroon can expire.
fn now_unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(u64::MAX, |it| it.as_secs())
}

#[cfg(test)]
#[path = "tests/door.rs"]
mod tests;
