//! The task of one connection: it reads requests at the pace that the relay allows, and writes replies as fast as the client
//! takes them. It holds one message each way, which the relay counts until it is sent: what a client does not read stays in its
//! books.

use std::sync::Arc;
use std::time::Duration;

use longhand_link::carrier::admission::{Place, SourceNetwork};
use longhand_link::carrier::{RecordSink, RecordStream};
use longhand_link::{Carrier, CarrierError};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use crate::core::{ConnectionId, Pace};
use crate::protocol::longhand::{self, Session};
use crate::shared::Shared;

/// How long a client may take to read one message, whatever it sends meanwhile.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Wakes the task of a connection.
#[derive(Default)]
pub(crate) struct Signals {
    /// There is something to send.
    pub writable: Notify,
    /// Requests may be read again.
    pub readable: Notify,
    /// The relay has closed the connection.
    pub closed: Notify,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, mut carrier: Carrier) {
    let mut nonce = [0; 32];
    if let Err(error) = getrandom::fill(&mut nonce) {
        tracing::error!(%error, "no connection can be served: the system has no random bytes");
        return;
    }
    let session = Session::new(nonce);
    let place = carrier.take_place();
    let Some((id, signals)) = shared.open(carrier.source) else {
        return;
    };
    let _open = Open {
        shared: shared.clone(),
        id,
    };
    let welcome = session.welcome(shared.has_routes());
    tokio::select! {
        // Replies come before requests, which cannot keep them back then: there are no more of them than requests were read.
        biased;
        () = signals.closed.notified() => {}
        () = write(&shared, id, &signals, welcome, carrier.sink) => {}
        () = read(&shared, id, &signals, session, carrier.stream, place) => {}
    }
}

/// The relay forgets the connection when this is dropped, however its task ends.
struct Open {
    shared: Arc<Shared>,
    id: ConnectionId,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.close(self.id);
    }
}

async fn read(
    shared: &Shared,
    id: ConnectionId,
    signals: &Signals,
    session: Session,
    mut stream: Box<dyn RecordStream>,
    place: Option<Place<SourceNetwork>>,
) {
    let mut place = place;
    while may_read(shared, id, signals).await {
        let Ok(Some(message)) = stream.recv().await else {
            return;
        };
        let request = match session.read(&message) {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(%error, "a connection was closed");
                return;
            }
        };
        drop(message);
        shared.with(|relay, now| relay.receive(id, request, now));
        if place.is_some() && shared.with(|relay, _| relay.has_attached(id)) {
            place = None;
        }
    }
}

/// Waits until the next request may be read; false once the relay has closed the connection.
async fn may_read(shared: &Shared, id: ConnectionId, signals: &Signals) -> bool {
    loop {
        match shared.with(|relay, now| relay.pace(id, now)) {
            Pace::Now => return true,
            Pace::Closed => return false,
            Pace::At(time) => sleep_until(shared.instant(time)).await,
            Pace::AfterReplies => signals.readable.notified().await,
        }
    }
}

async fn write(
    shared: &Shared,
    id: ConnectionId,
    signals: &Signals,
    welcome: Vec<u8>,
    mut sink: Box<dyn RecordSink>,
) {
    let mut next = Some(welcome);
    loop {
        while let Some(message) = next {
            match timeout(SEND_TIMEOUT, hand_over(&mut *sink, message)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::debug!("a connection was closed: its client reads nothing");
                    return;
                }
            }
            // The message counts until this call: it is sent only now.
            let reply = shared.with(|relay, _| relay.take(id));
            next = reply.map(longhand::write);
        }
        signals.writable.notified().await;
        let reply = shared.with(|relay, _| relay.take(id));
        next = reply.map(longhand::write);
    }
}

/// Returns once the transport has taken the message, so that none waits outside the relay's limits.
async fn hand_over(sink: &mut dyn RecordSink, message: Vec<u8>) -> Result<(), CarrierError> {
    sink.send(message).await?;
    sink.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Limits;
    use crate::metrics::Metrics;

    #[test]
    fn the_task_of_an_idle_connection_is_small() {
        let shared = Shared::new(Limits::default(), Metrics::new(), None, false, Vec::new());
        let (near, _far) = Carrier::pair();
        let task = size_of_val(&serve(Arc::new(shared), near));
        assert!(task < 1_500, "{task} bytes");
    }
}
