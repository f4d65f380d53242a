//! Waits at a mailbox for one guest, connection after connection.

use std::sync::Arc;
use std::time::Duration;

use longhand_lnc::{
    Connection, Ended, Handshake, Keys, Over, Peer, Phrase, PublicKey, Role, SecretKey, Streams,
    Stretched, Timing, VERSIONS,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::client::{Client, Pool};
use super::plain_streams;
use super::pump::{Pump, Stopped, carrier, now};
use super::wire::Wire;
use crate::key::random;
use crate::{Carrier, LinkError, Rendezvous};

/// Handshakes with a wrong secret, after which the door is closed for a while.
const TRIES: u32 = 3;
const CLOSED_FOR: Duration = Duration::from_secs(60);
/// The pause before a mailbox that cannot be reached is dialled again doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Where a guest is met, and how it shows that it is the one.
pub struct Door {
    streams: Streams,
    secret: Secret,
}

/// How two ends show each other that they are those who are expected. The client gets the server's text.
pub(super) enum Secret {
    /// Not by this handshake.
    None,
    /// By their keys.
    Keys(SecretKey, PublicKey, Zeroizing<Vec<u8>>),
    /// By ten words.
    Phrase(SecretKey, Stretched, Zeroizing<Vec<u8>>),
}

/// A guest that has come.
pub struct Arrival {
    /// Its messages.
    pub carrier: Carrier,
    /// What its handshake has shown; `None` at a door without one.
    pub peer: Option<Peer>,
}

impl Door {
    /// For the link's records, which are encrypted already.
    pub fn plain(meeting: &Rendezvous, authority: &str) -> Door {
        Door {
            streams: plain_streams(meeting, authority),
            secret: Secret::None,
        }
    }

    /// For the link's records in messages of Lightning Node Connect, with keys that follow from what host and phone share.
    ///
    /// # Errors
    /// [`LinkError::Randomness`] in one of 2^128.
    pub fn lnc(meeting: &Rendezvous, authority: &str) -> Result<Door, LinkError> {
        let [host, phone] = lnc_keys(meeting, authority)?;
        let phone = longhand_lnc::public(&phone);
        Ok(Door {
            streams: Streams::between(&host, &phone),
            secret: Secret::Keys(host, phone, Zeroizing::default()),
        })
    }

    /// For the holder of ten words, who gets the text. Takes a good part of a second, and waits for others that stretch theirs.
    ///
    /// # Errors
    /// [`LinkError::Identity`] when the words cannot be used: of 2^128 phrases one.
    pub async fn words(local: SecretKey, phrase: Phrase, text: &[u8]) -> Result<Door, LinkError> {
        Ok(Door {
            streams: Streams::paired_by(&phrase),
            secret: Secret::Phrase(local, stretched(phrase).await?, text.to_vec().into()),
        })
    }

    /// For an app that was paired by words.
    pub fn app(local: SecretKey, app: PublicKey, text: &[u8]) -> Door {
        Door {
            streams: Streams::between(&local, &app),
            secret: Secret::Keys(local, app, text.to_vec().into()),
        }
    }

    /// Where the guest is met.
    pub fn streams(&self) -> Streams {
        self.streams
    }

    /// Waits for the guest until `open` is closed, and the connection of the moment has ended. `answers` says whether the mailbox answers.
    pub async fn wait(
        &self,
        pool: &Pool,
        arrived: &mpsc::Sender<Arrival>,
        answers: Option<Arc<watch::Sender<bool>>>,
        mut open: watch::Receiver<()>,
    ) {
        let mut pause = FIRST_PAUSE;
        while is_open(&open) {
            match pool.share().await {
                Ok(client) => {
                    pause = FIRST_PAUSE;
                    self.wait_at(&client, arrived, answers.clone(), &mut open)
                        .await;
                }
                Err(error) => {
                    if pause == FIRST_PAUSE {
                        tracing::debug!(mailbox = pool.authority(), %error, "a mailbox is not reached");
                    }
                    tokio::select! {
                        biased;
                        () = sleep(pause) => {}
                        // Fails when it is closed.
                        _ = open.changed() => {}
                    }
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
        }
    }

    async fn wait_at(
        &self,
        client: &Client,
        arrived: &mpsc::Sender<Arrival>,
        answers: Option<Arc<watch::Sender<bool>>>,
        open: &mut watch::Receiver<()>,
    ) {
        let mut wire = Wire::new(Role::Server, client, &self.streams);
        if let Some(answers) = answers {
            wire.reader.report(answers);
        }
        let (mut call, mut tries) = (None, Tries::default());
        while is_open(open) {
            let first = match call.take() {
                Some(packet) => Ok(packet),
                None => tokio::select! {
                    biased;
                    packet = wire.reader.next() => packet,
                    // Fails when it is closed, and succeeds never.
                    _ = open.changed() => continue,
                },
            };
            let first = match first {
                Ok(packet) => packet,
                Err(status) => {
                    tracing::debug!("a stream at the mailbox broke: {}", status.message());
                    continue;
                }
            };
            let Ok(connection) = self.connection() else {
                return;
            };
            let mut pump = Pump::new(connection, wire);
            pump.received(first);
            let stopped = self.let_in(&mut pump, arrived, &mut tries).await;
            tracing::debug!("a connection through the mailbox has ended: {stopped}");
            pump.flush().await;
            (wire, call) = pump.into_next();
            if let Some(pause) = tries.count(&stopped) {
                tracing::warn!(
                    "a guest at a mailbox had the wrong words or keys {TRIES} times: nobody is let in there for {} s",
                    pause.as_secs()
                );
                sleep(pause).await;
            }
        }
        // The last packet, with which the other end notices the end at once, may not have left this process yet.
        wire.writer.finish().await;
    }

    async fn let_in(
        &self,
        pump: &mut Pump,
        arrived: &mpsc::Sender<Arrival>,
        tries: &mut Tries,
    ) -> Stopped {
        if let Err(stopped) = pump.until_ready().await {
            return stopped;
        }
        *tries = Tries::default();
        let (carrier, ends) = carrier();
        let peer = pump.peer().cloned();
        // Too many come at once: this one dials again.
        if arrived.try_send(Arrival { carrier, peer }).is_err() {
            tracing::debug!("too many guests come by a mailbox at once: one was not let in");
        }
        pump.run(ends).await
    }

    fn connection(&self) -> Result<Connection, LinkError> {
        connection(Role::Server, &self.secret)
    }
}

/// Handshakes with a wrong secret since the last good one.
#[derive(Default)]
struct Tries(u32);

impl Tries {
    /// A connection has ended. Returns for how long nobody is let in now.
    fn count(&mut self, stopped: &Stopped) -> Option<Duration> {
        if !matches!(stopped, Stopped::Ended(ended) if ended.is_wrong_secret()) {
            return None;
        }
        self.0 += 1;
        (self.0 >= TRIES).then(|| {
            self.0 = 0;
            CLOSED_FOR
        })
    }
}

/// Whether the guest is still expected.
fn is_open(open: &watch::Receiver<()>) -> bool {
    open.has_changed().is_ok()
}

/// A new connection of one end.
pub(super) fn connection(role: Role, secret: &Secret) -> Result<Connection, LinkError> {
    let timing = Timing::default();
    let (local, keys, text) = match secret {
        Secret::None => return Ok(Connection::plain(role, timing, now())),
        Secret::Keys(local, remote, text) => (local, Keys::Known(*remote), text.clone()),
        Secret::Phrase(local, phrase, text) => (local, Keys::Phrase(phrase.clone()), text.clone()),
    };
    let ephemeral = secret_key(random()?)?;
    let handshake = Handshake::new(role, keys, *local, ephemeral, text, VERSIONS);
    let handshake = handshake.map_err(|error| LinkError::Identity(error.to_string()))?;
    Ok(Connection::encrypted(handshake, timing, now()))
}

/// The keys of host and phone in Lightning Node Connect: both know both, and prove who they are in the link's own handshake.
pub(super) fn lnc_keys(meeting: &Rendezvous, authority: &str) -> Result<[SecretKey; 2], LinkError> {
    let authority = authority.to_ascii_lowercase();
    let key = |domain| secret_key(*meeting.derive(domain, authority.as_bytes()));
    Ok([key("longhand lnc host")?, key("longhand lnc phone")?])
}

pub(super) fn secret_key(bytes: [u8; 32]) -> Result<SecretKey, LinkError> {
    let unusable = |_| LinkError::Randomness("a key is not below the order of secp256k1".into());
    SecretKey::from_slice(&bytes).map_err(unusable)
}

thread_local! {
    /// Of a thread, and not of the process: runtimes beside each other, as those of a simulation, must not wait for one another.
    static TURNS: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// Stretches a phrase: one at a time for each thread of the runtime, since scrypt takes 64 MiB for each, and a host that starts may have
/// thousands.
pub(super) async fn stretched(phrase: Phrase) -> Result<Stretched, LinkError> {
    let failed = |error: String| LinkError::Identity(error);
    let turn = TURNS.with(Arc::clone).acquire_owned().await;
    let turn = turn.map_err(|error| failed(error.to_string()))?;
    // The turn ends with the work, also when nobody waits for it any more.
    let stretched = spawn_blocking(move || {
        let _turn = turn;
        phrase.stretch()
    });
    let stretched = stretched.await.map_err(|error| failed(error.to_string()))?;
    stretched.map_err(|error| failed(error.to_string()))
}

/// Whether the other end has other words, or another key.
pub(super) fn is_refused(stopped: &Stopped) -> bool {
    matches!(stopped, Stopped::Ended(Ended::Over(Over::ByPeer)))
        || matches!(stopped, Stopped::Ended(ended) if ended.is_wrong_secret())
}

#[cfg(test)]
mod tests {
    use longhand_lnc::ActError;

    use super::*;

    #[test]
    fn after_three_wrong_handshakes_nobody_is_let_in_for_a_minute() {
        let wrong = Stopped::Ended(ActError::Forged.into());
        let other = Stopped::Ended(Over::Silent.into());
        let mut tries = Tries::default();
        assert_eq!(tries.count(&wrong), None);
        assert_eq!(tries.count(&other), None);
        assert_eq!(tries.count(&wrong), None);
        assert_eq!(tries.count(&wrong), Some(CLOSED_FOR));
        assert_eq!(tries.count(&wrong), None);
    }
}
