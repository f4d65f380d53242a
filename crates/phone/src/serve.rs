//! Batches of signer operations from the node, answered in the order of their arrival.
//!
//! All batches that wait when the disk is free again go through the engine together and share one write.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use longhand_link::{CloseCode, Conversation, Incoming, IncomingRequests, Responder};
use longhand_proto::Code;
use longhand_proto::signer::SignerBatch;
use prost::Message;

use crate::durable_signer::{DurableSigner, blocking};
use crate::events::Events;

/// The kind of request that a phone answers.
pub(crate) const SIGNER: &str = "signer";

/// Answers batches until the conversation is dropped.
pub(crate) async fn serve(
    mut requests: IncomingRequests,
    signer: Arc<DurableSigner>,
    conversation: Conversation,
    events: Arc<Events>,
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
            Ok(answered) => {
                for (responder, reply) in responders.into_iter().zip(answered.replies) {
                    responder.respond(reply);
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

/// The next request, if one has arrived already.
fn next_now(requests: &mut IncomingRequests) -> Option<Incoming> {
    match pin!(requests.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(request) => request,
        Poll::Pending => None,
    }
}

/// Decodes the batches; refuses requests that are none.
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
            responder.refuse(Code::UnknownKind, "a phone answers `signer` requests only");
            continue;
        }
        match SignerBatch::decode(payload.as_slice()) {
            Ok(batch) => understood.push((batch, responder)),
            Err(_) => responder.refuse(Code::BadRequest, "the request is no SignerBatch"),
        }
    }
    understood.into_iter().unzip()
}
