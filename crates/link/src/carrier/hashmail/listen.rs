//! The host's end: a door at one mailbox for each phone that it expects.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use longhand_lnc::Streams;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::client::Pool;
use super::door::{Arrival, Door, secret_key};
use super::{Layer, below};
use crate::carrier::mailbox::{Change, Expected, Meeting, Meetings, Reconnect, Words};
use crate::carrier::{Carrier, DialOptions, Listener};
use crate::key::random;
use crate::{Address, LinkError, PairingSecret, Rendezvous};

/// Connections of phones that wait to be taken.
const ARRIVING: usize = 64;

/// Waits at a mailbox for all whom a host expects. Dropping it leaves the mailbox; links that came by it end.
pub struct HashmailListener {
    address: Address,
    arriving: mpsc::Receiver<Arrival>,
    answers: watch::Receiver<bool>,
    reconnect: Reconnect,
    task: AbortHandle,
}

impl HashmailListener {
    /// Waits at the mailbox at `address` (`hashmail+grpcs://host:port`, `lnc+grpcs://host:port`) for all of `meetings`, from now on and
    /// whatever becomes of the mailbox. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Address`] when it is no such address.
    pub fn open(
        address: &Address,
        options: DialOptions,
        meetings: &Meetings,
    ) -> Result<HashmailListener, LinkError> {
        let layer = layer(address)?;
        let (arrived, arriving) = mpsc::channel(ARRIVING);
        let (is_answered, answers) = watch::channel(false);
        let reconnect = Reconnect::default();
        let waiting = Waiting {
            address: address.clone(),
            layer,
            options,
            meetings: meetings.clone(),
            arrived,
            answers: Arc::new(is_answered),
            reconnect: reconnect.clone(),
        };
        let task = tokio::spawn(async move { waiting.wait().await }).abort_handle();
        Ok(HashmailListener {
            address: address.clone(),
            arriving,
            answers,
            reconnect,
            task,
        })
    }

    /// Whether `address` can be waited at.
    ///
    /// # Errors
    /// [`LinkError::Address`] when it cannot.
    pub fn check(address: &Address) -> Result<(), LinkError> {
        layer(address).map(drop)
    }

    /// For when the machine's network has changed.
    pub fn reconnect(&self) -> Reconnect {
        self.reconnect.clone()
    }

    /// Whether the mailbox answers now.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.answers.clone()
    }
}

#[async_trait]
impl Listener for HashmailListener {
    fn addresses(&self) -> Vec<Address> {
        vec![self.address.clone()]
    }

    async fn accept(&mut self) -> Option<Carrier> {
        self.arriving.recv().await.map(|arrival| arrival.carrier)
    }
}

impl Drop for HashmailListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is exchanged at a mailbox's address.
fn layer(address: &Address) -> Result<Layer, LinkError> {
    let refused = |reason: &str| LinkError::Address {
        address: address.to_string(),
        reason: reason.into(),
    };
    if address.parameters().next().is_some() {
        return Err(refused("a mailbox's address has no parameters"));
    }
    let below = below(address).map(|(layer, _)| layer);
    below.ok_or_else(|| {
        refused(
            "a hashmail mailbox is written as hashmail+grpcs://host:port or lnc+grpcs://host:port",
        )
    })
}

struct Waiting {
    address: Address,
    layer: Layer,
    options: DialOptions,
    meetings: Meetings,
    arrived: mpsc::Sender<Arrival>,
    answers: Arc<watch::Sender<bool>>,
    reconnect: Reconnect,
}

impl Waiting {
    async fn wait(&self) {
        let mut reconnect = self.reconnect.0.subscribe();
        loop {
            tokio::select! {
                biased;
                () = self.keep_doors() => return,
                // Fails never: `self` has the sender.
                _ = reconnect.changed() => {}
            }
        }
    }

    /// A door for each guest, over connections that are new.
    async fn keep_doors(&self) {
        let Ok(pool) = Pool::new(&self.address, self.options.clone()) else {
            return;
        };
        let mut doors = Doors {
            waiting: self,
            pool: Arc::new(pool),
            tasks: JoinSet::new(),
            open: HashMap::new(),
        };
        doors.open_for_nobody();
        let mut changes = self.meetings.follow();
        while let Some(change) = changes.recv().await {
            doors.take(change);
        }
    }
}

struct Doors<'a> {
    waiting: &'a Waiting,
    pool: Arc<Pool>,
    /// Dropped with the mailbox.
    tasks: JoinSet<()>,
    /// A door is closed when this is dropped; the connection that came by it goes on.
    open: HashMap<Expected, watch::Sender<()>>,
}

impl Doors<'_> {
    /// A host may expect nobody yet: at this door it sees whether the mailbox answers.
    fn open_for_nobody(&mut self) {
        let Ok(secret) = PairingSecret::generate() else {
            return;
        };
        let door = Door::plain(&Rendezvous::of_pairing(&secret), self.pool.authority());
        let (pool, answers) = (self.pool.clone(), self.waiting.answers.clone());
        self.tasks.spawn(async move {
            let (nobody, _nobody) = mpsc::channel(1);
            let (_open, open) = watch::channel(());
            door.wait(&pool, &nobody, Some(answers), open).await;
        });
    }

    fn take(&mut self, change: Change) {
        while self.tasks.try_join_next().is_some() {}
        let (expected, meeting) = match change {
            Change::Added(expected, meeting) => (expected, Some(meeting)),
            Change::Removed(expected) => (expected, None),
        };
        self.open.remove(&expected);
        match meeting {
            Some(Meeting::Shared(meeting)) => self.open_for_phone(expected, &meeting),
            Some(Meeting::Words(words)) if self.waiting.layer == Layer::Lnc => {
                self.open_for_words(expected, words);
            }
            // Words are exchanged for a code where they are encrypted.
            Some(Meeting::Words(_)) | None => {}
        }
    }

    fn open_for_phone(&mut self, expected: Expected, meeting: &Rendezvous) {
        let authority = self.pool.authority();
        let door = match self.waiting.layer {
            Layer::Plain => Ok(Door::plain(meeting, authority)),
            Layer::Lnc => Door::lnc(meeting, authority),
        };
        match door {
            Ok(door) => {
                let streams = door.streams();
                self.open(expected, streams, async move { Some(door) });
            }
            Err(error) => tracing::error!(%error, "a phone is not met at a mailbox"),
        }
    }

    fn open_for_words(&mut self, expected: Expected, words: Words) {
        let streams = Streams::paired_by(&words.phrase);
        self.open(expected, streams, async move {
            let local = secret_key(random().ok()?).ok()?;
            let door = Door::words(local, words.phrase, words.code.as_bytes());
            door.await.ok()
        });
    }

    fn open(
        &mut self,
        expected: Expected,
        streams: Streams,
        door: impl Future<Output = Option<Door>> + Send + 'static,
    ) {
        let (pool, arrived) = (self.pool.clone(), self.waiting.arrived.clone());
        let (keeps_open, open) = watch::channel(());
        self.tasks.spawn(async move {
            match door.await {
                Some(door) => door.wait(&pool, &arrived, None, open).await,
                None => {
                    tracing::error!("a phone is not met at a mailbox: its words cannot be used")
                }
            }
            pool.delete(&streams).await;
        });
        self.open.insert(expected, keeps_open);
    }
}
