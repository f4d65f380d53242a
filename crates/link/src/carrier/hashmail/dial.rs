//! The phone's end.

use std::time::Duration;

use async_trait::async_trait;
use longhand_lnc::{Over, Peer, Phrase, PublicKey, Role, SecretKey, Streams};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::client::Client;
use super::door::{Secret, connection, is_refused, lnc_keys, secret_key, stretched};
use super::pump::{Pump, Stopped, carrier};
use super::wire::Wire;
use super::{Layer, below, plain_streams, unreachable};
use crate::carrier::{Carrier, DialOptions, Dialer, Listen, Listener};
use crate::key::random;
use crate::{Address, LinkError, PairingCode, Rendezvous};

/// The time for go-back-N and the handshake.
const READY_WITHIN: Duration = Duration::from_secs(20);

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
                (streams, Secret::Keys(phone, host, Zeroizing::default()))
            }
        };
        let client = Client::connect(&mailbox, options).await?;
        let pump = connected(&client, &streams, &secret).await;
        Ok(run(pump.map_err(|failed| failed.at(address))?))
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

/// A connection to whoever waits for an app, or for the holder of ten words.
pub struct Connected {
    /// Its messages.
    pub carrier: Carrier,
    /// The other end's key, and its text: a pairing code, or the macaroon of an app.
    pub peer: Peer,
}

/// Connects by ten words, as an app that comes for the first time, at a mailbox with `lnc+` before its scheme. `local` is the key by which
/// it comes back.
///
/// # Errors
/// [`LinkError::Unreachable`] when the mailbox does not answer, or nobody waits there for these words: they are wrong, have expired, or were
/// used.
pub async fn connect_by_words(
    phrase: &Phrase,
    local: SecretKey,
    address: &Address,
    options: &DialOptions,
) -> Result<Connected, LinkError> {
    let mailbox = lnc_mailbox(address)?;
    let client = Client::connect(&mailbox, options).await?;
    let secret = Secret::Phrase(
        local,
        stretched(phrase.clone()).await?,
        Zeroizing::default(),
    );
    let streams = Streams::paired_by(phrase);
    let pump = connected(&client, &streams, &secret).await;
    let pump = pump.map_err(|stopped| match stopped {
        Failed::Link(error) => error,
        Failed::Stopped(stopped) if is_refused(&stopped) => {
            let reason = "the host has other words: check each of them, or ask for new ones";
            unreachable(address, reason)
        }
        Failed::Stopped(stopped) if stopped.is_nobody() => {
            let reason = "no host waits at this mailbox for these words: check each of them; they may have expired, or were used";
            unreachable(address, reason)
        }
        Failed::Stopped(stopped) => unreachable(address, stopped.to_string()),
    })?;
    running(pump)
}

/// Connects as an app that was paired before, by its key and the host's.
///
/// # Errors
/// [`LinkError::Unreachable`] when the mailbox does not answer, or nobody waits there for this app: it was disconnected, say.
pub async fn connect_by_key(
    local: SecretKey,
    host: PublicKey,
    address: &Address,
    options: &DialOptions,
) -> Result<Connected, LinkError> {
    let mailbox = lnc_mailbox(address)?;
    let client = Client::connect(&mailbox, options).await?;
    let streams = Streams::between(&local, &host);
    let secret = Secret::Keys(local, host, Zeroizing::default());
    let pump = connected(&client, &streams, &secret).await;
    running(pump.map_err(|failed| failed.at(address))?)
}

/// Exchanges ten words for the pairing code that the host has for them, at a mailbox with `lnc+` before its scheme.
///
/// # Errors
/// As [`connect_by_words`]; [`LinkError::Identity`] when what the host gave is no pairing code.
pub async fn pairing_code(
    phrase: &Phrase,
    address: &Address,
    options: &DialOptions,
) -> Result<Zeroizing<String>, LinkError> {
    let local = secret_key(random()?)?;
    let connected = connect_by_words(phrase, local, address, options).await?;
    let no_code = || {
        LinkError::Identity(
            "what is paired by these words is no host of Longhand: an app takes them".into(),
        )
    };
    let code = std::str::from_utf8(&connected.peer.text).map_err(|_| no_code())?;
    code.parse::<PairingCode>().map_err(|_| no_code())?;
    Ok(Zeroizing::new(code.to_owned()))
}

fn lnc_mailbox(address: &Address) -> Result<Address, LinkError> {
    match below(address) {
        Some((Layer::Lnc, mailbox)) => Ok(mailbox),
        _ => Err(LinkError::Address {
            address: address.to_string(),
            reason: "words pair at a mailbox that is written as lnc+grpcs://host:port".into(),
        }),
    }
}

/// Why there is no connection.
enum Failed {
    Link(LinkError),
    Stopped(Stopped),
}

impl Failed {
    fn at(self, address: &Address) -> LinkError {
        match self {
            Failed::Link(error) => error,
            Failed::Stopped(stopped) => unreachable(address, stopped.to_string()),
        }
    }
}

/// A connection over which messages can be sent. Somebody else may have the streams, and keep them.
async fn connected(client: &Client, streams: &Streams, secret: &Secret) -> Result<Pump, Failed> {
    let wire = Wire::new(Role::Client, client, streams);
    let connection = connection(Role::Client, secret).map_err(Failed::Link)?;
    let mut pump = Pump::new(connection, wire);
    match timeout(READY_WITHIN, pump.until_ready()).await {
        Ok(ready) => ready.map_err(Failed::Stopped)?,
        Err(_) => return Err(Failed::Stopped(Stopped::Ended(Over::Silent.into()))),
    }
    Ok(pump)
}

fn running(pump: Pump) -> Result<Connected, LinkError> {
    let peer = pump.peer().cloned();
    let peer = peer.ok_or_else(|| LinkError::Identity("there was no handshake".into()))?;
    let carrier = run(pump);
    Ok(Connected { carrier, peer })
}

/// Moves the messages of a carrier in a task of its own.
fn run(mut pump: Pump) -> Carrier {
    let (carrier, ends) = carrier();
    tokio::spawn(async move {
        let stopped = pump.run(ends).await;
        pump.flush().await;
        pump.wire.writer.finish().await;
        tracing::debug!("a connection through the mailbox has ended: {stopped}");
    });
    carrier
}
