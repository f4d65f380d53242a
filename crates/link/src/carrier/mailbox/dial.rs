//! The phone's end: dials the mailbox, attaches the stream that it shares with its host, and opens a connection in it.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use super::pump::{Pump, User};
use super::stream::{End, StreamKey};
use super::trunk::{Event, Line, Trunk};
use super::{ROUTE, below};
use crate::carrier::{Carrier, CarrierError, DialOptions, Dialer, Listen, Listener};
use crate::key::random;
use crate::{Address, LinkError, Rendezvous};

/// The kind of carrier, for [`crate::Carriers`]: dials `mailbox+` and the address of a mailbox.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mailbox;

#[async_trait]
impl Dialer for Mailbox {
    async fn dial(
        &self,
        address: &Address,
        options: &DialOptions,
        meeting: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        let key = StreamKey::new(meeting, address.authority());
        let mailbox = below(address)
            .and_then(|below| below.with(ROUTE, &key.id().route().to_string()).ok())
            .ok_or_else(|| LinkError::UnknownCarrier(address.to_string()))?;
        let carrier = options.carriers.dial(&mailbox, options, meeting).await?;
        let mut pump = Pump::new(End::Phone);
        let handle = pump.trunk.attach(key);
        let connection = random()?;
        let line = Line { handle, connection };
        pump.trunk.open(line);
        let connected = pump.connect(line);
        tokio::spawn(async move {
            let mut phone = Phone { line, alone: None };
            let ended = pump.run(carrier, &mut phone).await;
            tracing::debug!("a connection through the mailbox has ended: {ended}");
        });
        Ok(connected)
    }
}

#[async_trait]
impl Listen for Mailbox {
    /// A host waits at a mailbox for all its owners: it opens a [`super::MailboxListener`], which knows them.
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        Err(LinkError::Address {
            address: address.to_string(),
            reason: "a mailbox is no port of this machine: write it in link.mailboxes".into(),
        })
    }
}

/// The time in which a host that is not at the mailbox may still come: after a restart of the mailbox both ends come back.
const ALONE_FOR: Duration = Duration::from_secs(3);

/// The trunk's one connection.
struct Phone {
    line: Line,
    /// Until when the host is waited for, while it is not at the mailbox.
    alone: Option<Instant>,
}

impl User for Phone {
    const ENDS_WITH_CARRIERS: bool = true;

    async fn change(&mut self, trunk: &mut Trunk) -> Result<(), CarrierError> {
        let Some(until) = self.alone else {
            return std::future::pending().await;
        };
        sleep_until(until).await;
        self.alone = None;
        match trunk.is_answered(self.line) {
            true => Ok(()),
            false => Err(CarrierError(
                "the host is not at the mailbox for this phone: it is away, or has paired another phone".into(),
            )),
        }
    }

    fn event(&mut self, _: &mut Trunk, event: Event) -> Result<(), CarrierError> {
        match event {
            Event::Ended { code, message, .. } => Err(CarrierError(format!(
                "the mailbox ended the stream: {message} ({code})"
            ))),
            Event::Attached { is_met: false } => {
                self.alone = Some(Instant::now() + ALONE_FOR);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn opened(&mut self, _: Line, _: Carrier) {}
}
