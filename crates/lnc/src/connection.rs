//! One connection through a mailbox, without I/O: go-back-N, and above it, where the ends do not encrypt themselves, the handshake and the
//! encryption of Lightning Node Connect.

use std::time::Instant;

use bitcoin::secp256k1::PublicKey;
use zeroize::Zeroizing;

use crate::message::{self, FrameError};
use crate::{
    ActError, Finished, GoBackN, Handshake, MAX_MESSAGE_BYTES, Over, Role, SendError, Timing,
    Transport, TransportError,
};

/// The reason for which a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// Go-back-N has ended.
    #[error(transparent)]
    Over(#[from] Over),
    /// The handshake has failed.
    #[error(transparent)]
    Handshake(#[from] ActError),
    /// A frame cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message cannot be decrypted.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl Ended {
    /// Whether the other end does not have the phrase, or the key, of this one.
    pub fn is_wrong_secret(&self) -> bool {
        matches!(self, Ended::Handshake(ActError::Forged | ActError::Key))
    }
}

/// What the handshake has shown of the other end.
#[derive(Clone)]
pub struct Peer {
    /// Its static key.
    pub key: PublicKey,
    /// The version of the handshake, see [`crate::VERSIONS`].
    pub version: u8,
    /// What the server gives the client; empty on the server.
    pub text: Zeroizing<Vec<u8>>,
}

/// One end of a connection. Packets and the time go in, packets and messages come out: after each call of another method,
/// [`Connection::next_packet`] and [`Connection::next_message`] until they have none.
pub struct Connection {
    packets: GoBackN,
    layer: Layer,
    ended: Option<Ended>,
}

enum Layer {
    /// The ends encrypt what they send.
    Plain,
    Shaking(Box<Handshake>),
    Encrypted(Box<Transport>, Peer),
}

impl Connection {
    /// Messages as they are, of up to 4 MiB.
    pub fn plain(role: Role, timing: Timing, now: Instant) -> Connection {
        Connection::new(role, Layer::Plain, timing, now)
    }

    /// Messages that are encrypted after this handshake, of up to [`crate::MAX_MESSAGE_BYTES`].
    pub fn encrypted(handshake: Handshake, timing: Timing, now: Instant) -> Connection {
        let role = handshake.role();
        let mut new = Connection::new(role, Layer::Shaking(Box::new(handshake)), timing, now);
        new.shake_hands(now);
        new
    }

    fn new(role: Role, layer: Layer, timing: Timing, now: Instant) -> Connection {
        Connection {
            packets: GoBackN::new(role, timing, now),
            layer,
            ended: None,
        }
    }

    /// Whether messages can be sent.
    pub fn is_ready(&self) -> bool {
        match self.layer {
            Layer::Plain => self.packets.is_open(),
            Layer::Shaking(_) => false,
            Layer::Encrypted(..) => true,
        }
    }

    /// What the handshake has shown, once it is complete.
    pub fn peer(&self) -> Option<&Peer> {
        match &self.layer {
            Layer::Encrypted(_, peer) => Some(peer),
            Layer::Plain | Layer::Shaking(_) => None,
        }
    }

    /// Why it has ended; `None` while it has not. Messages that have come before can still be read.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.or(self.packets.over().map(Ended::Over))
    }

    /// Whether all that was sent has come.
    pub fn is_all_acknowledged(&self) -> bool {
        self.packets.is_all_acknowledged()
    }

    /// Takes a packet from the stream. One after which the reason of [`Connection::ended`] is [`Over::Restarted`] belongs to the next
    /// connection.
    pub fn received(&mut self, now: Instant, packet: &[u8]) {
        self.packets.received(now, packet);
        self.shake_hands(now);
    }

    /// Does what is due.
    pub fn advance(&mut self, now: Instant) {
        self.packets.advance(now);
    }

    /// When [`Connection::advance`] is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.packets.next_due()
    }

    /// The next packet for the stream.
    pub fn next_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.next_packet()
    }

    /// The next message of the other end.
    ///
    /// # Errors
    /// [`Ended`], when it cannot be read.
    pub fn next_message(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Ended> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        let next = self.read_next();
        if let Err(ended) = next {
            self.end(ended);
        }
        next
    }

    fn read_next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Ended> {
        let transport = match &mut self.layer {
            Layer::Plain => return Ok(self.packets.next_message().map(Zeroizing::new)),
            Layer::Shaking(_) => return Ok(None),
            Layer::Encrypted(transport, _) => transport,
        };
        loop {
            if let Some(message) = transport.next_message()? {
                return Ok(Some(message));
            }
            let Some(framed) = self.packets.next_message() else {
                return Ok(None);
            };
            transport.received(message::payload(&framed)?);
        }
    }

    /// Sends a message, once there is room for it.
    ///
    /// # Errors
    /// [`SendError`]; nothing is changed then. [`SendError::Full`] also before [`Connection::is_ready`].
    pub fn send(&mut self, now: Instant, message: &[u8]) -> Result<(), SendError> {
        match &mut self.layer {
            Layer::Plain => self.packets.send(now, message),
            Layer::Shaking(_) => Err(SendError::Full),
            Layer::Encrypted(transport, _) => {
                // Nothing may fail once the message is sealed: its number is used then.
                self.packets
                    .check_room(message.len() + message::OVERHEAD_BYTES)?;
                let sealed = transport.seal(message);
                let sealed = sealed.map_err(|_| SendError::TooLong(message.len()))?;
                let framed = message::frame(&sealed).ok_or(SendError::TooLong(message.len()))?;
                self.packets.send(now, &framed)
            }
        }
    }

    /// Whether the longest message can be sent now.
    pub fn has_room(&self) -> bool {
        let longest = MAX_MESSAGE_BYTES + message::OVERHEAD_BYTES;
        self.is_ready() && self.packets.check_room(longest).is_ok()
    }

    /// Closes it; one packet more is to be sent. What waits, or may not have come, is lost: see [`Connection::is_all_acknowledged`].
    pub fn close(&mut self) {
        self.packets.close();
    }

    fn shake_hands(&mut self, now: Instant) {
        while let Layer::Shaking(handshake) = &mut self.layer {
            match step(handshake, &mut self.packets, now) {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return,
                Ok(Step::Complete) => self.finish(),
                Err(ended) => return self.end(ended),
            }
        }
    }

    fn finish(&mut self) {
        let Layer::Shaking(handshake) = std::mem::replace(&mut self.layer, Layer::Plain) else {
            return;
        };
        match handshake.finish() {
            Some(Finished {
                transport,
                remote: key,
                version,
                text,
            }) => {
                let peer = Peer { key, version, text };
                self.layer = Layer::Encrypted(Box::new(transport), peer);
            }
            None => self.end(ActError::OutOfTurn.into()),
        }
    }

    fn end(&mut self, ended: Ended) {
        self.ended.get_or_insert(ended);
        self.packets.close();
    }
}

enum Step {
    Again,
    Wait,
    Complete,
}

/// One act of the handshake, if there is one to write or to read.
fn step(handshake: &mut Handshake, packets: &mut GoBackN, now: Instant) -> Result<Step, Ended> {
    if handshake.is_complete() {
        return Ok(Step::Complete);
    }
    if handshake.is_our_turn() {
        let act = handshake.write().ok_or(ActError::OutOfTurn)?;
        let framed = message::frame(&act).ok_or(ActError::Length)?;
        // Nothing else waits yet.
        packets
            .send(now, &framed)
            .map_err(|_| packets.over().map_or(ActError::Length.into(), Ended::Over))?;
        return Ok(Step::Again);
    }
    match packets.next_message() {
        Some(framed) => {
            handshake.read(message::payload(&framed)?)?;
            Ok(Step::Again)
        }
        None => Ok(Step::Wait),
    }
}

#[cfg(test)]
#[path = "tests/connection.rs"]
mod tests;
