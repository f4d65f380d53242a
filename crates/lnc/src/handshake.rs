//! The handshake of a client (the initiator) and a server: three acts with a phrase (`XXeke+SPAKE2`), two without (`KK`).
//!
//! Noise, with BOLT 8's hash, cipher and key exchange. An act is one message: a version, keys, and an encrypted payload, which is empty but
//! in the second act, where the server gives the client a text (a macaroon).

use std::ops::RangeInclusive;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use zeroize::Zeroizing;

use crate::Stretched;
use crate::cipher::{Cipher, Forged, TAG_BYTES, derive};
use crate::transport::Transport;

/// The versions that there are: with a text of at most 498 bytes in the second act, with one of any length, with `KK` after the first
/// handshake. Acts do not authenticate them: a mailbox can make two ends believe that they use others of 1 and 2. A client that takes 2
/// alone cannot be misled, and stock servers speak it; a server keeps to the phrase until the first handshake with known keys.
pub const VERSIONS: RangeInclusive<u8> = 0..=2;
/// The longest act that is read.
pub const MAX_ACT_BYTES: usize = 64 * 1024;
/// The longest text: an act with it has three keys and four tags at most.
const MAX_TEXT_BYTES: usize = MAX_ACT_BYTES - 1_024;

const PROLOGUE: &[u8] = b"lightning-node-connect";
const XX: &[u8] = b"Noise_XXeke+SPAKE2_secp256k1_ChaChaPoly_SHA256";
const KK: &[u8] = b"Noise_KK_secp256k1_ChaChaPoly_SHA256";
/// The first version with `KK`.
const KK_VERSION: u8 = 2;
/// The second act's payload in version 0, with its length of two bytes.
const FIXED_TEXT_BYTES: usize = 500;
const KEY_BYTES: usize = 33;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The app. It begins, and takes the version that the server answers with.
    Client,
    /// The node.
    Server,
}

/// The keys of a handshake.
#[derive(Clone)]
pub enum Keys {
    /// The first one of two ends that know the phrase.
    Phrase(Stretched),
    /// A later one with this end.
    Known(PublicKey),
}

/// The reason for which a handshake cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// One in 2^128.
    #[error("this pairing phrase cannot be used: make another")]
    Unusable,
    /// Some of [`VERSIONS`] are to be spoken, and 2 with known keys.
    #[error("no version of the handshake is left that this end speaks")]
    Versions,
    /// The text is too long for an act.
    #[error("the text for the other side has {0} bytes, and an act takes at most {1}")]
    TextTooLong(usize, usize),
}

/// The reason for which an act was not taken. The handshake is over, unless it came out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// It is not this end's turn to read.
    #[error("an act of the handshake came out of turn")]
    OutOfTurn,
    /// Too short, too long, or with more than it has to have.
    #[error("an act of the handshake has a wrong length")]
    Length,
    /// Unknown here, or another than before.
    #[error("the other side speaks version {0} of the handshake, which is not known here: update")]
    Version(u8),
    /// Not a key.
    #[error("a key in an act of the handshake cannot be read")]
    Key,
    /// The phrase or the keys are not the same at both ends.
    #[error(
        "the other side has another pairing phrase, or other keys: check the phrase, or pair again"
    )]
    Forged,
    /// The server's text is longer than the text's own length, or than this end takes.
    #[error("the text of the other side cannot be read")]
    Text,
}

impl From<Forged> for ActError {
    fn from(Forged: Forged) -> ActError {
        ActError::Forged
    }
}

/// A handshake that is complete.
pub struct Finished {
    /// Encrypts what follows.
    pub transport: Transport,
    /// The other end's key.
    pub remote: PublicKey,
    /// The version that both use: from 2 on the next handshake has [`Keys::Known`].
    /// Not authenticated, see [`VERSIONS`].
    pub version: u8,
    /// What the server gave the client; empty on the server.
    pub text: Zeroizing<Vec<u8>>,
}

/// A handshake under way. [`Handshake::write`] when it is this end's turn, [`Handshake::read`] when it is the other's, until
/// [`Handshake::finish`].
pub struct Handshake {
    role: Role,
    pattern: &'static [&'static [Token]],
    /// Acts that are done.
    acts: usize,
    version: u8,
    versions: RangeInclusive<u8>,
    mask: Option<Stretched>,
    local: SecretKey,
    local_ephemeral: SecretKey,
    remote: Option<PublicKey>,
    remote_ephemeral: Option<PublicKey>,
    text: Zeroizing<Vec<u8>>,
    digest: [u8; 32],
    chaining_key: Zeroizing<[u8; 32]>,
    cipher: Cipher,
    has_failed: bool,
}

/// What an act has, in order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// An ephemeral key.
    E,
    /// One that is masked by the phrase.
    MaskedE,
    /// A static key, encrypted.
    S,
    /// Exchanges of the initiator's key, which comes first, and the responder's.
    Ee,
    Es,
    Se,
    Ss,
}

const XX_ACTS: &[&[Token]] = &[
    &[Token::MaskedE],
    &[Token::E, Token::Ee, Token::S, Token::Es],
    &[Token::S, Token::Se],
];
const KK_ACTS: &[&[Token]] = &[
    &[Token::E, Token::Es, Token::Ss],
    &[Token::E, Token::Ee, Token::Se],
];

impl Handshake {
    /// Begins one. `ephemeral` must be a new random key each time. A server gives `text` to the client; a client has none. `versions` are
    /// those that this end speaks, some of [`VERSIONS`].
    ///
    /// # Errors
    /// See [`HandshakeError`].
    pub fn new(
        role: Role,
        keys: Keys,
        local: SecretKey,
        ephemeral: SecretKey,
        text: Zeroizing<Vec<u8>>,
        versions: RangeInclusive<u8>,
    ) -> Result<Handshake, HandshakeError> {
        let room = match versions.end() {
            0 => FIXED_TEXT_BYTES - 2,
            _ => MAX_TEXT_BYTES,
        };
        if text.len() > room {
            return Err(HandshakeError::TextTooLong(text.len(), room));
        }
        let (pattern, name, least) = match keys {
            Keys::Phrase(_) => (XX_ACTS, XX, *versions.start()),
            Keys::Known(_) => (KK_ACTS, KK, KK_VERSION.max(*versions.start())),
        };
        let versions = least..=*versions.end();
        if versions.is_empty() || !VERSIONS.contains(versions.end()) {
            return Err(HandshakeError::Versions);
        }
        let digest = sha256::Hash::hash(name).to_byte_array();
        let mut handshake = Handshake {
            role,
            pattern,
            acts: 0,
            version: match role {
                Role::Client => *versions.start(),
                Role::Server => *versions.end(),
            },
            versions,
            mask: None,
            local,
            local_ephemeral: ephemeral,
            remote: None,
            remote_ephemeral: None,
            text,
            digest,
            chaining_key: Zeroizing::new(digest),
            cipher: Cipher::new(Zeroizing::new([0; 32]), Zeroizing::new([0; 32])),
            has_failed: false,
        };
        handshake.mix_hash(PROLOGUE);
        match keys {
            Keys::Phrase(stretched) => handshake.mask = Some(stretched),
            Keys::Known(remote) => handshake.know(remote),
        }
        Ok(handshake)
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether this end sends the next act.
    pub fn is_our_turn(&self) -> bool {
        let is_clients = self.acts.is_multiple_of(2);
        !self.has_failed
            && self.acts < self.pattern.len()
            && is_clients == (self.role == Role::Client)
    }

    /// The next act, when it is this end's turn.
    pub fn write(&mut self) -> Option<Vec<u8>> {
        if !self.is_our_turn() {
            return None;
        }
        let written = self.write_act();
        self.has_failed = written.is_none();
        written
    }

    fn write_act(&mut self) -> Option<Vec<u8>> {
        let mut act = vec![self.version];
        for token in self.pattern[self.acts] {
            self.write_token(*token, &mut act)?;
        }
        let payload = match self.acts {
            1 => std::mem::take(&mut self.text),
            _ => Zeroizing::default(),
        };
        if self.acts == 1 && self.version > 0 {
            let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
            act.extend(self.seal(&length));
        }
        let payload = match (self.acts, self.version) {
            (1, 0) => fixed(&payload)?,
            _ => payload,
        };
        act.extend(self.seal(&payload));
        self.acts += 1;
        Some(act)
    }

    /// Takes the other end's act, which is one message.
    ///
    /// # Errors
    /// See [`ActError`].
    pub fn read(&mut self, act: &[u8]) -> Result<(), ActError> {
        if self.has_failed || self.is_our_turn() || self.acts >= self.pattern.len() {
            return Err(ActError::OutOfTurn);
        }
        let read = self.read_act(act);
        self.has_failed = read.is_err();
        read
    }

    /// Whether all acts are done: then [`Handshake::finish`] is next.
    pub fn is_complete(&self) -> bool {
        !self.has_failed && self.acts == self.pattern.len()
    }

    /// What comes of it, once it is complete; `None` before.
    pub fn finish(mut self) -> Option<Finished> {
        if !self.is_complete() {
            return None;
        }
        let [from_client, from_server] = derive(&self.chaining_key, &[]);
        let cipher = |key| Cipher::new(key, self.chaining_key.clone());
        let (from_client, from_server) = (cipher(from_client), cipher(from_server));
        let (send, receive) = match self.role {
            Role::Client => (from_client, from_server),
            Role::Server => (from_server, from_client),
        };
        Some(Finished {
            transport: Transport::new(send, receive),
            remote: self.remote?,
            version: self.version,
            text: std::mem::take(&mut self.text),
        })
    }

    // -- Acts.

    fn write_token(&mut self, token: Token, act: &mut Vec<u8>) -> Option<()> {
        match token {
            Token::E | Token::MaskedE => {
                let key = public(&self.local_ephemeral);
                // The key itself, so that only who knows the phrase gets the same hash.
                self.mix_hash(&key.serialize());
                let sent = match (token, &self.mask) {
                    (Token::MaskedE, Some(mask)) => mask.mask(&key)?,
                    _ => key,
                };
                act.extend(sent.serialize());
            }
            Token::S => {
                let key = public(&self.local).serialize();
                act.extend(self.seal(&key));
            }
            exchange => self.exchange(exchange)?,
        }
        Some(())
    }

    fn read_act(&mut self, act: &[u8]) -> Result<(), ActError> {
        if act.len() > MAX_ACT_BYTES {
            return Err(ActError::Length);
        }
        let (version, mut rest) = act.split_first().ok_or(ActError::Length)?;
        self.take_version(*version)?;
        for token in self.pattern[self.acts] {
            self.read_token(*token, &mut rest)?;
        }
        let length = match (self.acts, *version) {
            (1, 0) => FIXED_TEXT_BYTES,
            (1, _) => self.read_length(&mut rest)?,
            _ => 0,
        };
        let payload = self.open(take(&mut rest, length.saturating_add(TAG_BYTES))?)?;
        if !rest.is_empty() {
            return Err(ActError::Length);
        }
        if self.acts == 1 {
            self.text = match version {
                0 => unfixed(&payload)?,
                _ => payload,
            };
        }
        self.acts += 1;
        Ok(())
    }

    /// The client takes the server's version; both keep to it afterwards.
    fn take_version(&mut self, version: u8) -> Result<(), ActError> {
        let is_known = match self.acts {
            0 | 1 => self.versions.contains(&version),
            _ => version == self.version,
        };
        if !is_known {
            return Err(ActError::Version(version));
        }
        if self.role == Role::Client {
            self.version = version;
        }
        Ok(())
    }

    fn read_token(&mut self, token: Token, rest: &mut &[u8]) -> Result<(), ActError> {
        match token {
            Token::E | Token::MaskedE => {
                let key = key(take(rest, KEY_BYTES)?)?;
                let key = match (token, &self.mask) {
                    (Token::MaskedE, Some(mask)) => mask.unmask(&key).ok_or(ActError::Key)?,
                    _ => key,
                };
                self.mix_hash(&key.serialize());
                self.remote_ephemeral = Some(key);
            }
            Token::S => {
                let opened = self.open(take(rest, KEY_BYTES + TAG_BYTES)?)?;
                self.remote = Some(key(&opened)?);
            }
            exchange => self.exchange(exchange).ok_or(ActError::Key)?,
        }
        Ok(())
    }

    fn read_length(&mut self, rest: &mut &[u8]) -> Result<usize, ActError> {
        let opened = self.open(take(rest, 4 + TAG_BYTES)?)?;
        let length = opened[..].try_into().map_err(|_| ActError::Text)?;
        usize::try_from(u32::from_be_bytes(length)).map_err(|_| ActError::Text)
    }

    // -- The state of Noise.

    /// Both static keys are known beforehand: the client's is hashed first.
    fn know(&mut self, remote: PublicKey) {
        let (ours, theirs) = (public(&self.local).serialize(), remote.serialize());
        let (first, second) = match self.role {
            Role::Client => (ours, theirs),
            Role::Server => (theirs, ours),
        };
        self.mix_hash(&first);
        self.mix_hash(&second);
        self.remote = Some(remote);
    }

    fn exchange(&mut self, token: Token) -> Option<()> {
        let is_client = self.role == Role::Client;
        let (ours, theirs) = match (token, is_client) {
            (Token::Ee, _) => (&self.local_ephemeral, self.remote_ephemeral?),
            (Token::Ss, _) => (&self.local, self.remote?),
            (Token::Es, true) | (Token::Se, false) => (&self.local_ephemeral, self.remote?),
            _ => (&self.local, self.remote_ephemeral?),
        };
        let mut shared = SharedSecret::new(&theirs, ours);
        let [chaining_key, key] = derive(&self.chaining_key, shared.as_ref());
        shared.non_secure_erase();
        self.chaining_key = chaining_key;
        self.cipher = Cipher::new(key, Zeroizing::new([0; 32]));
        Some(())
    }

    fn mix_hash(&mut self, data: &[u8]) {
        let all = [&self.digest[..], data].concat();
        self.digest = sha256::Hash::hash(&all).to_byte_array();
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let sealed = self.cipher.seal(&self.digest, plain);
        self.mix_hash(&sealed);
        sealed
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, ActError> {
        let opened = self.cipher.open(&self.digest, sealed)?;
        self.mix_hash(sealed);
        Ok(opened)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.local.non_secure_erase();
        self.local_ephemeral.non_secure_erase();
    }
}

/// The public key of a secret one.
pub fn public(secret: &SecretKey) -> PublicKey {
    secret.public_key(&Secp256k1::signing_only())
}

fn key(bytes: &[u8]) -> Result<PublicKey, ActError> {
    PublicKey::from_slice(bytes).map_err(|_| ActError::Key)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ActError> {
    let (taken, left) = rest.split_at_checked(length).ok_or(ActError::Length)?;
    *rest = left;
    Ok(taken)
}

/// A text in version 0: its length, itself, and zeros. `None` when it is too long for it.
fn fixed(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut padded = Zeroizing::new(Vec::with_capacity(FIXED_TEXT_BYTES));
    padded.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
    padded.extend(text);
    (padded.len() <= FIXED_TEXT_BYTES).then(|| {
        padded.resize(FIXED_TEXT_BYTES, 0);
        padded
    })
}

fn unfixed(padded: &[u8]) -> Result<Zeroizing<Vec<u8>>, ActError> {
    let (length, text) = padded.split_first_chunk::<2>().ok_or(ActError::Text)?;
    let text = text.get(..usize::from(u16::from_be_bytes(*length)));
    text.map(|text| Zeroizing::new(text.to_vec()))
        .ok_or(ActError::Text)
}
