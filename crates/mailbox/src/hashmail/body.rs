//! The body of a gRPC request with messages, before it is decoded: what a message needs is reserved as soon as its length is known, so
//! that no client fills this process with messages that are never complete.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt};
use tonic::Status;

use super::refusal::Refusal;
use super::shared::{Account, Reservation};
use super::{FREE_BYTES, grpc};

/// Before each message of gRPC: whether it is compressed, and its length.
const HEAD: usize = 5;

/// What was reserved for the messages of a request that are complete and not decoded yet, in their order.
#[derive(Clone, Default)]
pub(super) struct Reserved(Arc<Mutex<VecDeque<Option<Reservation>>>>);

impl Reserved {
    /// That of the next message; `None` of a small one.
    pub fn next(&self) -> Option<Reservation> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.pop_front().flatten()
    }

    fn push(&self, reservation: Option<Reservation>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push_back(reservation);
    }
}

/// The body with reservations, for messages of `most` bytes.
pub(super) fn metered(body: Body, account: Account, most: usize) -> (Body, Reserved) {
    let reserved = Reserved::default();
    let metered = Metered {
        body: body.into_data_stream(),
        account,
        current: None,
        reserved: reserved.clone(),
        frames: Frames::default(),
        most,
    };
    (Body::from_stream(metered), reserved)
}

struct Metered {
    body: BodyDataStream,
    account: Account,
    /// What is reserved for the message that arrives.
    current: Option<Option<Reservation>>,
    reserved: Reserved,
    frames: Frames,
    most: usize,
}

impl Stream for Metered {
    type Item = Result<Bytes, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let read = match this.body.poll_next_unpin(cx) {
            Poll::Ready(Some(read)) => read,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(this.poll_late(cx));
                return Poll::Ready(Some(Err(grpc::status(Refusal::Late))));
            }
        };
        let bytes = read.map_err(|error| Status::from_error(Box::new(error)))?;
        this.look_at(&bytes).map_err(grpc::status)?;
        Poll::Ready(Some(Ok(bytes)))
    }
}

impl Metered {
    fn look_at(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while let Some(length) = self.frames.next(&mut bytes) {
            self.message_is_complete();
            self.current = Some(self.reserve(length)?);
        }
        if self.frames.is_complete() {
            self.message_is_complete();
        }
        Ok(())
    }

    fn message_is_complete(&mut self) {
        if let Some(reservation) = self.current.take() {
            self.reserved.push(reservation);
        }
    }

    fn reserve(&self, length: usize) -> Result<Option<Reservation>, Refusal> {
        if length > self.most {
            return Err(Refusal::TooLarge);
        }
        let is_large = length > FREE_BYTES;
        is_large.then(|| self.account.reserve(length)).transpose()
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.current.as_mut().and_then(Option::as_mut) {
            Some(reservation) => reservation.poll_late(cx),
            None => Poll::Pending,
        }
    }
}

/// Finds the messages in a body that arrives in pieces.
#[derive(Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    has: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Frames {
    /// Whether all of the last message that was found is there.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// The length of the next message that begins in `bytes`, which are consumed.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<usize> {
        loop {
            let skipped = self.left.min(bytes.len());
            *bytes = bytes.get(skipped..).unwrap_or_default();
            self.left = self.left.saturating_sub(skipped);
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            if let Some(place) = self.head.get_mut(self.has) {
                *place = *first;
            }
            self.has = self.has.saturating_add(1);
            if self.has == HEAD {
                self.has = 0;
                let [_, length @ ..] = self.head;
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                return Some(self.left);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_found_however_they_are_cut(
            lengths in prop::collection::vec(0..40_usize, 0..20),
            cut in 1..50_usize,
        ) {
            let mut body = Vec::new();
            for length in &lengths {
                body.push(0);
                body.extend(u32::try_from(*length).unwrap_or_default().to_be_bytes());
                body.extend(vec![7; *length]);
            }
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for mut piece in body.chunks(cut) {
                while let Some(length) = frames.next(&mut piece) {
                    found.push(length);
                }
                prop_assert!(piece.is_empty());
            }
            prop_assert_eq!(found, lengths);
        }
    }
}
