//! The phone's end.

use async_trait::async_trait;
use longhand_lnc::{Phrase, Role, Streams};
use zeroize::Zeroizing;

use super::client::Client;
use super::door::{Secret, connection, is_refused, lnc_keys, secret_key};
use super::pump::{Pump, carrier};
use super::wire::Wire;
use super::{Layer, below, plain_streams, unreachable};
use crate::carrier::{Carrier, DialOptions, Dialer, Listen, Listener};
use crate::key::random;
use crate::{Address, LinkError, PairingCode, Rendezvous};

/// The kind of carrier, for [`crate::Carriers`]: dials `hashmail+` or `lnc+` and the address of a mailbox.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hashmail;

#[async_trait]
impl Dialer for Hashmail {
    async fn dial(
        &self,
        address: &Address,
        options: &DialOptions,
        meeting: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        let unknown = || LinkError::UnknownCarrier(address.to_string());
        let (layer, mailbox) = below(address).ok_or_else(unknown)?;
        let authority = mailbox.authority();
        let (streams, secret) = match layer {
            Layer::Plain => (plain_streams(meeting, authority), Secret::None),
            Layer::Lnc => {
                let [host, phone] = lnc_keys(meeting, authority)?;
                let host = longhand_lnc::public(&host);
                let streams = Streams::between(&phone, &host);
                (streams, Secret::Keys(phone, host))
            }
        };
        let client = Client::connect(&mailbox, options).await?;
        let wire = Wire::new(Role::Client, &client, &streams);
        let mut pump = Pump::new(connection(Role::Client, &secret)?, wire);
        let ready = pump.until_ready().await;
        ready.map_err(|stopped| unreachable(address, stopped.to_string()))?;
        let (carrier, ends) = carrier();
        tokio::spawn(async move {
            let stopped = pump.run(ends).await;
            pump.flush().await;
            pump.wire.writer.finish().await;
            tracing::debug!("a connection through the mailbox has ended: {stopped}");
        });
        Ok(carrier)
    }
}

#[async_trait]
impl Listen for Hashmail {
    /// A host waits at a mailbox for all its owners: it opens a [`super::HashmailListener`], which knows them.
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        Err(LinkError::Address {
            address: address.to_string(),
            reason: "a mailbox is no port of this machine: write it in link.mailboxes".into(),
        })
    }
}

/// Exchanges ten words for the pairing code that the host has for them, at a mailbox with `lnc+` before its scheme. The caller limits the
/// time.
///
/// # Errors
/// [`LinkError::Unreachable`] when the mailbox does not answer, or no host waits there for these words: they are wrong, have expired, or were
/// used. [`LinkError::Identity`] when what the host gave is no pairing code.
pub async fn pairing_code(
    phrase: &Phrase,
    address: &Address,
    options: &DialOptions,
) -> Result<Zeroizing<String>, LinkError> {
    let mailbox = match below(address) {
        Some((Layer::Lnc, mailbox)) => mailbox,
        _ => {
            return Err(LinkError::Address {
                address: address.to_string(),
                reason: "words pair a phone at a mailbox that is written as lnc+grpcs://host:port"
                    .into(),
            });
        }
    };
    let client = Client::connect(&mailbox, options).await?;
    let secret = stretched(phrase.clone()).await?;
    let wire = Wire::new(Role::Client, &client, &Streams::paired_by(phrase));
    let mut pump = Pump::new(connection(Role::Client, &secret)?, wire);
    let ready = pump.until_ready().await;
    ready.map_err(|stopped| {
        let reason = match &stopped {
            stopped if is_refused(stopped) => {
                "the host has other words: check each of them, or ask for new ones".into()
            }
            stopped if stopped.is_nobody() => {
                "no host waits at this mailbox for these words: check each of them; they may have expired, or were used".into()
            }
            stopped => stopped.to_string(),
        };
        unreachable(address, reason)
    })?;
    let text = pump
        .peer()
        .map(|peer| peer.text.clone())
        .unwrap_or_default();
    pump.close();
    pump.flush().await;
    pump.wire.writer.finish().await;
    let code = String::from_utf8(text.to_vec()).map(Zeroizing::new);
    let no_code = || {
        LinkError::Identity(
            "what is paired by these words is no host of Longhand: an app takes them".into(),
        )
    };
    let code = code.map_err(|_| no_code())?;
    code.parse::<PairingCode>().map_err(|_| no_code())?;
    Ok(code)
}

/// scrypt takes a good part of a second.
async fn stretched(phrase: Phrase) -> Result<Secret, LinkError> {
    let local = secret_key(random()?)?;
    let stretched = tokio::task::spawn_blocking(move || phrase.stretch()).await;
    let stretched = stretched.map_err(|error| LinkError::Identity(error.to_string()))?;
    let stretched = stretched.map_err(|error| LinkError::Identity(error.to_string()))?;
    Ok(Secret::Phrase(local, stretched, Zeroizing::default()))
}
