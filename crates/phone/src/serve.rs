//! Answers the node: batches of signer operations, in the order they come.
//!
//! All that wait when the disk is free again go through the engine together and share one write.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use longhand_link::{CloseCode, Conversation, Incoming, IncomingRequests, Responder};
use longhand_proto::signer::SignerBatch;
use prost::Message;

use crate::durable_signer::DurableSigner;
use crate::phone::blocking;

/// The kind of request that a phone answers.
pub(crate) const SIGNER: &str = "signer";

/// The close code of a phone that cannot make its ledger durable: it is as good as away.
pub(crate) const LEDGER_UNWRITABLE: &str = "LEDGER_UNWRITABLE";

/// Seconds since 1970 by this machine's clock.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Answers until the conversation is gone.
pub(crate) async fn serve(
    mut requests: IncomingRequests,
    signer: Arc<DurableSigner>,
    conversation: Conversation,
) {
    while let Some(first) = requests.next().await {
        let mut waiting = vec![first];
        while let Some(more) = next_now(&mut requests) {
            waiting.push(more);
        }
        let (batches, responders) = understand(waiting);
        if batches.is_empty() {
            continue;
        }
        match blocking(&signer, move |signer| signer.answer(&batches)).await {
            Ok(replies) => {
                for (responder, reply) in responders.into_iter().zip(replies) {
                    responder.respond(reply);
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot sign; leaving the node until the next attach");
                conversation.give_up(
                    CloseCode::Other(LEDGER_UNWRITABLE.into()),
                    &error.report().message,
                );
            }
        }
    }
}

/// The next request if it is there already.
fn next_now(requests: &mut IncomingRequests) -> Option<Incoming> {
    match pin!(requests.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(request) => request,
        Poll::Pending => None,
    }
}

/// Takes the batches; refuses what is none.
fn understand(waiting: Vec<Incoming>) -> (Vec<SignerBatch>, Vec<Responder>) {
    let mut understood = Vec::with_capacity(waiting.len());
    for Incoming {
        kind,
        payload,
        responder,
        ..
    } in waiting
    {
        if kind != SIGNER {
            responder.refuse("UNKNOWN_KIND", "a phone answers `signer` requests only");
            continue;
        }
        match SignerBatch::decode(payload.as_slice()) {
            Ok(batch) => understood.push((batch, responder)),
            Err(_) => responder.refuse("MALFORMED", "the request is no SignerBatch"),
        }
    }
    understood.into_iter().unzip()
}
