//! A second source of the owner's choice, beside the host: a Bitcoin Core, or an Esplora server.
//!
//! The phone takes headers from it too, so that a host cannot keep back blocks, and has it say whether the channels' funding outputs are
//! spent, so that a host cannot hide a close. It is asked when the host has shown a block or an HTLC that comes in, before a
//! preimage is released, and each minute.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Network, OutPoint};
use futures::{StreamExt, TryStreamExt, stream};
use longhand_base::runtime::{Runtime, Task};
use longhand_base::text::excerpt;
use longhand_link::Conversation;
pub use longhand_signer::OutputState;
use longhand_signer::{Close, Limits, SeenChannel, Signer, SourceAnswer};
use tokio::sync::Notify;

use crate::command::SourceView;
use crate::durable_signer::{DurableSigner, blocking};

/// How often the source is asked at least.
const ASK_EACH: Duration = Duration::from_secs(60);
/// Answers are used again for so long.
const REUSED_S: u64 = 10;
/// How long an operation that depends on the source waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Channels of which the source is asked at the same time.
const ASKED_AT_ONCE: usize = 8;
/// The most headers that are taken from the source at once: a day of them. A phone that lacks more gets them from its host.
const MOST_HEADERS: usize = 144;

/// The owner's second source. All calls are of its best chain.
#[async_trait]
pub trait SecondSource: Send + Sync + 'static {
    /// Where it is, for messages; without credentials.
    fn place(&self) -> String;
    /// The height of its tip.
    ///
    /// # Errors
    /// The reason, for a person, as of the other calls.
    async fn height(&self) -> Result<u32, String>;
    /// The header at a height that it has.
    async fn header_at(&self, height: u32) -> Result<Header, String>;
    /// Whether an output of the chain is spent.
    async fn state_of(&self, outpoint: OutPoint) -> Result<OutputState, String>;
}

/// Makes the source of a URL (limit `second_source`); the reason for which it cannot, for a person.
pub type MakeSource = dyn Fn(&str, Network) -> Result<Arc<dyn SecondSource>, String> + Send + Sync;

/// The source that the owner's limits name, and the task that asks it.
pub(crate) struct Sources {
    signer: Arc<DurableSigner>,
    runtime: Arc<dyn Runtime>,
    conversation: Conversation,
    make: Mutex<Option<Arc<MakeSource>>>,
    set: Mutex<Option<Set>>,
    /// The host has shown a block, or an HTLC that comes in.
    pub shown: Notify,
    last: Mutex<Option<SourceView>>,
}

struct Set {
    url: String,
    source: Arc<dyn SecondSource>,
    task: Task,
}

impl Sources {
    pub fn new(
        signer: Arc<DurableSigner>,
        runtime: Arc<dyn Runtime>,
        conversation: Conversation,
    ) -> Arc<Sources> {
        Arc::new(Sources {
            signer,
            runtime,
            conversation,
            make: Mutex::default(),
            set: Mutex::default(),
            shown: Notify::new(),
            last: Mutex::default(),
        })
    }

    /// Sources are made by `make` from now on.
    pub fn make_with(&self, make: Arc<MakeSource>) {
        *lock(&self.make) = Some(make);
    }

    /// What came of the last question; `None` without a source, or before.
    pub fn last(&self) -> Option<SourceView> {
        lock(&self.last).clone()
    }

    /// Asks the source that the limits name, and no other.
    pub fn follow(self: &Arc<Self>, limits: &Limits) {
        let mut set = lock(&self.set);
        if set.as_ref().map_or("", |set| &set.url) == limits.second_source {
            return;
        }
        if let Some(before) = set.take() {
            before.task.abort();
        }
        *lock(&self.last) = None;
        if limits.second_source.is_empty() {
            return;
        }
        *set = self.begin(&limits.second_source);
    }

    fn begin(self: &Arc<Self>, url: &str) -> Option<Set> {
        let make = lock(&self.make).clone()?;
        let source = match make(url, self.signer.network()) {
            Ok(source) => source,
            Err(error) => {
                self.report(String::new(), Some(excerpt(&error)));
                return None;
            }
        };
        self.set_last(source.place(), "it has not answered yet".into());
        let sources = Arc::downgrade(self);
        let (runtime, asked) = (Arc::clone(&self.runtime), Arc::clone(&source));
        let task = self.runtime.start(async move {
            loop {
                let Some(sources) = sources.upgrade() else {
                    return;
                };
                sources.ask(&asked).await;
                let _ = runtime.timeout(ASK_EACH, sources.shown.notified()).await;
            }
        });
        Some(Set {
            url: url.to_owned(),
            source,
            task,
        })
    }

    /// Before a preimage is asked for: has the source asked, if there is one, unless it was a moment ago.
    pub async fn refresh(&self) {
        let source = lock(&self.set).as_ref().map(|set| Arc::clone(&set.source));
        let Some(source) = source else { return };
        let now_unix_s = self.runtime.now_unix_s();
        let last = lock(&self.last)
            .clone()
            .filter(|last| last.error.is_empty());
        if last.is_some_and(|last| now_unix_s.abs_diff(last.asked_unix_s) < REUSED_S) {
            return;
        }
        let _ = self.runtime.timeout(PATIENCE, self.ask(&source)).await;
    }

    /// Asks no more.
    pub fn stop(&self) {
        if let Some(set) = lock(&self.set).take() {
            set.task.abort();
        }
    }

    async fn ask(&self, source: &Arc<dyn SecondSource>) {
        let asked = self.compare(&**source).await;
        self.report(source.place(), asked.err().map(|error| excerpt(&error)));
    }

    fn report(&self, place: String, error: Option<String>) {
        if let Some(error) = &error {
            tracing::warn!(%error, place, "the second source was not asked");
        }
        self.set_last(place, error.unwrap_or_default());
    }

    fn set_last(&self, place: String, error: String) {
        *lock(&self.last) = Some(SourceView {
            place,
            asked_unix_s: self.runtime.now_unix_s(),
            error,
        });
    }

    async fn compare(&self, source: &dyn SecondSource) -> Result<(), String> {
        let height = source.height().await?;
        self.take_headers(source, height).await?;
        let tip = |signer: &Signer| (signer.headers().height(), signer.headers().tip_hash());
        let (own_height, own_hash) = self.look(tip).await?;
        if height < own_height {
            return Err(format!(
                "it is at block {height}, and the phone knows block {own_height}"
            ));
        }
        // A source of another network, or on another chain, knows nothing of the phone's channels.
        if source.header_at(own_height).await?.block_hash() != own_hash {
            return Err(format!(
                "at height {own_height} it has another block than the chain with most work that the phone knows"
            ));
        }
        let open = |signer: &Signer| -> Vec<OutPoint> {
            let channels = signer.seen_channels();
            let open = channels.filter(|it| it.confirmations > 0 && !is_proven_closed(it));
            open.map(|channel| channel.funding).collect()
        };
        let ask = |outpoint| async move {
            let answer = SourceAnswer {
                height,
                at_unix_s: self.runtime.now_unix_s(),
                state: source.state_of(outpoint).await?,
            };
            self.change(move |signer| signer.source_said(outpoint, answer))
                .await
        };
        let asked = stream::iter(self.look(open).await?).map(ask);
        asked.buffer_unordered(ASKED_AT_ONCE).try_collect().await
    }

    /// Shows the signer the source's headers after the last block that both chains have.
    async fn take_headers(&self, source: &dyn SecondSource, height: u32) -> Result<(), String> {
        if self.signer.network() == Network::Signet {
            // Headers there come with the solutions of their blocks, which these sources do not give.
            return Ok(());
        }
        let mut headers: Vec<Header> = Vec::new();
        for at in (0..=height).rev() {
            let header = source.header_at(at).await?;
            let hash = header.block_hash();
            if self.look(move |signer| signer.headers().hash(at)).await? == Some(hash) {
                break;
            }
            headers.push(header);
            if headers.len() > MOST_HEADERS {
                // The host shows the rest; if it does not, the tip becomes old.
                return Ok(());
            }
        }
        if headers.is_empty() {
            return Ok(());
        }
        headers.reverse();
        let now_unix_s = self.runtime.now_unix_s();
        let taken = blocking(&self.signer, move |signer| {
            signer.take_headers(&headers, now_unix_s)
        });
        let greeting = taken.await.map_err(|error| error.to_string())??;
        if let Some(greeting) = greeting {
            self.conversation.set_greeting(greeting);
        }
        Ok(())
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Signer) -> T + Send + 'static,
    ) -> Result<T, String> {
        let looked = blocking(&self.signer, |signer| signer.look(look)).await;
        looked.map_err(|error| error.to_string())
    }

    /// Changes what is in memory only.
    async fn change(
        &self,
        change: impl FnOnce(&mut Signer) + Send + 'static,
    ) -> Result<(), String> {
        let changed = blocking(&self.signer, |signer| {
            signer.record(|engine| (change(engine), Vec::new()))
        });
        changed.await.map_err(|error| error.to_string())
    }
}

fn is_proven_closed(channel: &SeenChannel) -> bool {
    matches!(channel.close, Close::Proven(_))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
