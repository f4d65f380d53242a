//! One live connection: the handle that callers hold, and the two tasks that move its bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longhand_base::runtime::Task;
use tokio::sync::{mpsc, watch};

use crate::carrier::{Carrier, RecordSink, RecordStream};
use crate::conversation::{Conversation, Shared};
use crate::core::requests::Requests;
use crate::core::session::Session;
use crate::error::{CloseCode, CloseReason, LinkError};

/// The time for which a closed link goes on handing queued records to the carrier.
const LINGER: Duration = Duration::from_secs(5);

/// One live connection. Clones are handles on the same one.
#[derive(Clone)]
pub struct Link {
    pub(crate) shared: Arc<Shared>,
    pub(crate) end: Arc<LinkEnd>,
}

impl Link {
    /// The conversation this link belongs to.
    pub fn conversation(&self) -> Conversation {
        Conversation {
            shared: self.shared.clone(),
        }
    }

    /// See [`Conversation::request`].
    ///
    /// # Errors
    /// As [`Conversation::request`].
    pub async fn request(&self, kind: &str, payload: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        self.conversation().request(kind, payload).await
    }

    /// Waits until this link has ended; returns the reason. A conversation may still be within its grace then: see
    /// [`Conversation::down`].
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.end.closed.subscribe();
        let reason = closed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| CloseReason::local(CloseCode::Lost, "the link is gone"))
    }

    /// Waits until this link has ended and the carrier has taken all that was queued, or failed. A process does so before it exits.
    /// Takes seconds at most once the link is closed.
    pub async fn ended(&self) {
        let _ = self.end.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Asks the other side to finish the step in hand, waits until it has, and ends the link with `DETACHED`.
    ///
    /// # Errors
    /// [`LinkError::Down`] when the link ended before the other side agreed.
    pub async fn detach(&self) -> Result<(), LinkError> {
        self.with_session(|session, _, now_ms| session.detach(now_ms));
        match self.closed().await {
            reason if reason.code == CloseCode::Detached => Ok(()),
            reason => Err(LinkError::Down(reason)),
        }
    }

    /// Waits until the other side asks to detach; pends for ever when the link ends before.
    pub async fn detach_requested(&self) {
        let _ = self.end.detach.subscribe().wait_for(|asked| *asked).await;
    }

    /// Confirms the detach that the other side asked for, when everything is settled, and ends the link with `DETACHED`.
    pub fn confirm_detach(&self) {
        self.with_session(|session, _, now_ms| session.confirm_detach(now_ms));
    }

    /// Closes the link with a stable code and one line for a person.
    pub fn close(&self, code: CloseCode, message: &str) {
        self.with_session(|session, _, now_ms| session.close(code, message, now_ms));
    }

    fn with_session(&self, act: impl FnOnce(&mut Session, &mut Requests, u64)) {
        self.shared.with_session(self.end.generation, act);
    }

    /// Starts the two tasks that serve this link.
    pub(crate) fn start(&self, carrier: Carrier, leaving: Leaving) -> [Task; 2] {
        let runtime = &self.shared.runtime;
        let writer = runtime.start(write(self.clone(), carrier.sink, leaving));
        let ends = Ends(self.end.clone());
        let driver = drive(self.clone(), carrier.stream, writer.clone(), ends);
        [writer, runtime.start(driver)]
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Link({} of {})",
            self.end.generation,
            self.conversation().instance()
        )
    }
}

/// The state of a [`Link`] that outlives its session.
pub(crate) struct LinkEnd {
    pub(crate) generation: u64,
    pub(crate) closed: watch::Sender<Option<CloseReason>>,
    pub(crate) detach: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

impl LinkEnd {
    pub(crate) fn new(generation: u64) -> LinkEnd {
        let (closed, detach) = (watch::Sender::new(None), watch::Sender::new(false));
        LinkEnd {
            generation,
            closed,
            detach,
            ended: watch::Sender::new(false),
        }
    }
}

/// Marks the link as ended when it is dropped, also when the tasks are aborted.
struct Ends(Arc<LinkEnd>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

/// Records on their way from the session to the writer.
pub(crate) struct Outbox {
    records: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes that the carrier has not taken yet.
    queued: Arc<AtomicUsize>,
}

/// The writer's end of an [`Outbox`].
pub(crate) struct Leaving {
    records: mpsc::UnboundedReceiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
}

impl Outbox {
    pub(crate) fn new() -> (Outbox, Leaving) {
        let (records, leaving) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        (
            Outbox {
                records,
                queued: queued.clone(),
            },
            Leaving {
                records: leaving,
                queued,
            },
        )
    }

    pub(crate) fn push(&self, record: Vec<u8>) {
        self.queued.fetch_add(record.len(), Ordering::Relaxed);
        // The writer is gone only when the carrier broke, and then the link is closed too.
        let _ = self.records.send(record);
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// Hands records to the carrier, in order, until the link's session has dropped its end of the queue.
async fn write(link: Link, mut sink: Box<dyn RecordSink>, mut leaving: Leaving) {
    let hand_over = async {
        while let Some(record) = leaving.records.recv().await {
            let length = record.len();
            if let Err(error) = sink.send(record).await {
                link.with_session(|session, _, _| session.lost(&error.to_string()));
                return;
            }
            leaving.queued.fetch_sub(length, Ordering::Relaxed);
        }
    };
    let too_long = async {
        link.closed().await;
        link.shared.runtime.sleep(LINGER).await;
    };
    tokio::select! {
        // The limit comes first: a carrier that always takes one more record would put it off.
        biased;
        () = too_long => {}
        () = hand_over => {}
    }
}

/// Gives records and the time to the link's session; after its end waits for the connection to close and for the grace.
async fn drive(link: Link, mut stream: Box<dyn RecordStream>, writer: Task, ends: Ends) {
    while let Some(deadline) = link.shared.deadline(link.end.generation) {
        tokio::select! {
            // The clock comes before the records: a stream of them must not delay the heartbeat for which the other side
            // waits. Each tick moves the deadline, so records are not delayed either.
            biased;
            _ = link.closed() => {}
            () = link.shared.runtime.sleep_until(deadline) => {
                link.with_session(|session, _, now_ms| session.tick(now_ms));
            }
            received = stream.recv() => link.with_session(|session, requests, now_ms| match &received {
                Ok(Some(record)) => session.receive(requests, record, now_ms),
                Ok(None) => session.lost("the other side hung up"),
                Err(error) => session.lost(&error.to_string()),
            }),
        }
    }
    let drained = async {
        // Some carriers lose what was sent when the receiving half goes first.
        writer.ended().await;
        let rest = async { while let Ok(Some(_)) = stream.recv().await {} };
        let _ = link.shared.runtime.timeout(LINGER, rest).await;
        drop(ends);
    };
    let reason = link.closed().await;
    tokio::join!(
        drained,
        link.shared.wait_out_grace(link.end.generation, reason)
    );
}
