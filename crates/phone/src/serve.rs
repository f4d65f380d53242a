//! Batches of signer operations from the node, answered in the order of their arrival. What apps of the owner's ask for goes on to
//! [`crate::apps`].
//!
//! All batches that wait when the disk is free again go through the engine together and share one write.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use longhand_link::{CloseCode, Conversation, Incoming, IncomingRequests, Responder};
use longhand_proto::Code;
use longhand_proto::signer::SignerBatch;
use longhand_proto::signer::signer_op::Op;
use prost::Message;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::durable_signer::{DurableSigner, blocking};
use crate::events::Events;
use crate::source::Sources;

/// The kind of request that a phone answers.
pub(crate) const SIGNER: &str = "signer";
/// The kind of request by which an app of the owner's asks.
pub(crate) const APP: &str = "app";
/// Requests of apps that wait to be answered: the owner is asked one question after the other, and more would be of no use.
pub(crate) const MOST_WAITING: usize = 8;

/// Answers batches until the conversation is dropped.
pub(crate) async fn serve(
    mut requests: IncomingRequests,
    asks: mpsc::Sender<Incoming>,
    signer: Arc<DurableSigner>,
    conversation: Conversation,
    events: Arc<Events>,
    sources: Arc<Sources>,
) {
    while let Some(first) = requests.next().await {
        let mut waiting = vec![first];
        while let Some(more) = next_now(&mut requests) {
            waiting.push(more);
        }
        let (batches, responders) = understand(waiting, &asks);
        if batches.is_empty() {
            continue;
        }
        if batches.iter().any(asks_for_preimage) {
            sources.refresh().await;
        }
        let has_onion = batches.iter().any(has_onion);
        match blocking(&signer, move |signer| signer.answer(&batches)).await {
            Ok(answered) => {
                for (responder, reply) in responders.into_iter().zip(answered.replies) {
                    responder.respond(reply);
                }
                let has_new_blocks = answered.known_blocks.is_some();
                if let Some(greeting) = answered.known_blocks {
                    conversation.set_greeting(greeting);
                }
                // The preimage of an HTLC is asked for in a moment: by then the source has answered.
                if has_new_blocks || has_onion {
                    sources.shown.notify_one();
                }
                events.answered(answered.refusals);
            }
            Err(error) => {
                tracing::error!(%error, "cannot sign; leaving the node until the next attach");
                conversation.give_up(
                    // It cannot make its ledger durable, and so cannot sign.
                    CloseCode::Other(Code::LedgerUnwritable.into()),
                    &error.report().message,
                );
            }
        }
    }
}

fn has_onion(batch: &SignerBatch) -> bool {
    let mut ops = batch.ops.iter();
    ops.any(|op| matches!(op.op, Some(Op::PeelOnion(_))))
}

fn asks_for_preimage(batch: &SignerBatch) -> bool {
    let mut ops = batch.ops.iter();
    ops.any(|op| matches!(op.op, Some(Op::GetPreimage(_))))
}

/// The next request, if one has arrived already.
fn next_now(requests: &mut IncomingRequests) -> Option<Incoming> {
    match pin!(requests.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(request) => request,
        Poll::Pending => None,
    }
}

/// Decodes the batches, and passes on what apps ask for; refuses requests that are neither.
fn understand(
    waiting: Vec<Incoming>,
    asks: &mpsc::Sender<Incoming>,
) -> (Vec<SignerBatch>, Vec<Responder>) {
    let mut understood = Vec::with_capacity(waiting.len());
    for request in waiting {
        match request.kind.as_str() {
            SIGNER => match SignerBatch::decode(request.payload.as_slice()) {
                Ok(batch) => understood.push((batch, request.responder)),
                Err(_) => {
                    let message = "the request is no SignerBatch";
                    request.responder.refuse(Code::BadRequest, message);
                }
            },
            APP => pass_on(request, asks),
            _ => {
                let message = "a phone answers `signer` and `app` requests only";
                request.responder.refuse(Code::UnknownKind, message);
            }
        }
    }
    understood.into_iter().unzip()
}

fn pass_on(request: Incoming, asks: &mpsc::Sender<Incoming>) {
    if let Err(TrySendError::Full(request) | TrySendError::Closed(request)) = asks.try_send(request)
    {
        let message = "the phone has too many questions of apps: try again later";
        request.responder.refuse(Code::Busy, message);
    }
}
