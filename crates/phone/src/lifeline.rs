//! The connections of a phone, which break at once when it is stopped.

use std::time::Duration;

use async_trait::async_trait;
use longhand_link::{Carrier, CarrierError, Dial, LinkError, RecordSink, RecordStream, Rendezvous};
use tokio::sync::watch;

/// The carriers of a phone, which break when it is stopped: from that moment on they send and receive nothing.
pub(crate) struct Lifeline(watch::Sender<bool>);

impl Lifeline {
    pub(crate) fn new() -> Lifeline {
        Lifeline(watch::Sender::new(false))
    }

    pub(crate) fn cut(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_cut(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it is cut.
    pub(crate) async fn is_over(&self) {
        cut(&mut self.0.subscribe()).await;
    }

    /// Dials as `dialer` does; its connections break when the phone is stopped.
    pub(crate) fn hold_all<'a>(&'a self, dialer: &'a dyn Dial) -> HeldDial<'a> {
        HeldDial {
            dialer,
            lifeline: self,
        }
    }

    /// The same connection, until the phone is stopped.
    fn hold(&self, carrier: Carrier) -> Carrier {
        let half = || self.0.subscribe();
        Carrier::new(
            Held {
                half: carrier.sink,
                is_cut: half(),
            },
            Held {
                half: carrier.stream,
                is_cut: half(),
            },
        )
    }
}

/// See [`Lifeline::hold_all`].
pub(crate) struct HeldDial<'a> {
    dialer: &'a dyn Dial,
    lifeline: &'a Lifeline,
}

#[async_trait]
impl Dial for HeldDial<'_> {
    async fn dial(&self, address: &str, meeting: &Rendezvous) -> Result<Carrier, LinkError> {
        tokio::select! {
            biased;
            () = self.lifeline.is_over() => Err(LinkError::Unreachable {
                address: address.into(),
                reason: stopped().to_string(),
            }),
            dialled = self.dialer.dial(address, meeting) => {
                dialled.map(|carrier| self.lifeline.hold(carrier))
            }
        }
    }

    fn head_start(&self, address: &str) -> Duration {
        self.dialer.head_start(address)
    }
}

/// A half of a carrier, and whether it is cut.
struct Held<T> {
    half: T,
    is_cut: watch::Receiver<bool>,
}

#[async_trait]
impl RecordSink for Held<Box<dyn RecordSink>> {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        let Held { half, is_cut } = self;
        tokio::select! {
            biased;
            () = cut(is_cut) => Err(stopped()),
            sent = half.send(record) => sent,
        }
    }

    async fn flush(&mut self) -> Result<(), CarrierError> {
        let Held { half, is_cut } = self;
        tokio::select! {
            biased;
            () = cut(is_cut) => Err(stopped()),
            flushed = half.flush() => flushed,
        }
    }
}

#[async_trait]
impl RecordStream for Held<Box<dyn RecordStream>> {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        let Held { half, is_cut } = self;
        tokio::select! {
            biased;
            () = cut(is_cut) => Err(stopped()),
            received = half.recv() => received,
        }
    }
}

/// Returns when the line is cut: not when the phone is dropped, whose last records are on their way.
async fn cut(is_cut: &mut watch::Receiver<bool>) {
    if is_cut.wait_for(|is_cut| *is_cut).await.is_err() {
        std::future::pending().await
    }
}

fn stopped() -> CarrierError {
    CarrierError("the phone was stopped".into())
}
