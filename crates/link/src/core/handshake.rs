//! The handshake: Noise `XXpsk3` with the secret of a pairing code for the first connection, `IK` with pinned keys afterwards.
//!
//! Each record begins with the version and its kind. The host answers within Noise, which authenticates the answer. When it cannot
//! read the phone's message, it answers with a bare refusal, which is not authenticated and no more than a hint.

use longhand_base::text::excerpt;
use longhand_proto::link::Close;
use prost::Message;
use snow::{Builder, HandshakeState};

use super::record::Transport;
use crate::VERSION;
use crate::error::{CloseCode, CloseReason, LinkError};
use crate::key::{Instance, LinkKey, LinkKeypair, PairingId};
use crate::pairing::PairingSecret;

const XX: &str = "Noise_XXpsk3_25519_ChaChaPoly_BLAKE2s";
const IK: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";

const PAIR: u8 = 1;
const ATTACH: u8 = 2;
const ANSWER: u8 = 3;
const REFUSAL: u8 = 4;

/// The reason in a bare refusal.
const REFUSED_VERSION: u8 = 1;
const REFUSED_HANDSHAKE: u8 = 2;

/// The largest handshake record, in bytes.
const MAX_HANDSHAKE: usize = 1024;

/// A finished handshake.
pub struct Established {
    /// The ciphers.
    pub transport: Transport,
    /// The other side's static key, authenticated.
    pub remote: LinkKey,
    /// The phone's process, as sent in the handshake; `None` at the phone, which reads the host's from `Hello`.
    pub instance: Option<Instance>,
}

impl std::fmt::Debug for Established {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Established")
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// The phone's side after its first record, waiting for the host's answer.
pub struct Initiator {
    noise: HandshakeState,
    host: LinkKey,
    instance: Instance,
}

impl Initiator {
    /// Begins a pairing. Returns the first record.
    pub fn pair(
        phone: &LinkKeypair,
        host: &LinkKey,
        secret: &PairingSecret,
        instance: Instance,
    ) -> Result<(Initiator, Vec<u8>), LinkError> {
        let id = secret.id();
        let head = [&[VERSION, PAIR], id.0.as_slice()].concat();
        let (private, psk) = (phone.to_bytes(), secret.psk());
        let mut noise = builder(XX)
            .and_then(|b| b.local_private_key(private.as_ref()))
            .and_then(|b| b.psk(3, &psk))
            .and_then(|b| {
                b.prologue(&prologue(&head))
                    .and_then(Builder::build_initiator)
            })
            .map_err(|_| LinkError::Handshake)?;
        let record = write(&mut noise, &head, &[])?;
        Ok((
            Initiator {
                noise,
                host: *host,
                instance,
            },
            record,
        ))
    }

    /// Begins a session with a host that has pinned this phone. Returns the first record.
    pub fn attach(
        phone: &LinkKeypair,
        host: &LinkKey,
        instance: Instance,
    ) -> Result<(Initiator, Vec<u8>), LinkError> {
        let head = [VERSION, ATTACH];
        let private = phone.to_bytes();
        let mut noise = builder(IK)
            .and_then(|b| b.local_private_key(private.as_ref()))
            .and_then(|b| b.remote_public_key(&host.0))
            .and_then(|b| {
                b.prologue(&prologue(&head))
                    .and_then(Builder::build_initiator)
            })
            .map_err(|_| LinkError::Handshake)?;
        let record = write(&mut noise, &head, &instance.0)?;
        Ok((
            Initiator {
                noise,
                host: *host,
                instance,
            },
            record,
        ))
    }

    /// Takes the host's answer. Returns the finished handshake, and in a pairing the last record for the host.
    pub fn receive(mut self, record: &[u8]) -> Result<(Established, Option<Vec<u8>>), LinkError> {
        let message = answer(record)?;
        let payload = read(&mut self.noise, message)?;
        if self.noise.get_remote_static() != Some(&self.host.0) {
            return Err(LinkError::WrongHost);
        }
        if !payload.is_empty() {
            let close = Close::decode(payload.as_slice()).map_err(|_| LinkError::Handshake)?;
            return Err(LinkError::Closed(close_reason(close)));
        }
        let last = match self.noise.is_handshake_finished() {
            true => None,
            false => Some(write(
                &mut self.noise,
                &[VERSION, ANSWER],
                &self.instance.0,
            )?),
        };
        Ok((establish(self.noise, self.host, None)?, last))
    }
}

/// A handshake that the host rejects, with its reply to the phone.
#[derive(Debug)]
pub struct Rejected {
    /// The reason.
    pub error: LinkError,
    /// The record to send before the connection is closed.
    pub reply: Vec<u8>,
}

impl Rejected {
    fn new(error: LinkError) -> Rejected {
        let code = match error {
            LinkError::Version { .. } => REFUSED_VERSION,
            _ => REFUSED_HANDSHAKE,
        };
        Rejected {
            error,
            reply: vec![VERSION, REFUSAL, code],
        }
    }
}

/// The host's side after the phone's first record. The phone is not authenticated yet.
pub enum Responder {
    /// The phone has a pairing code.
    Pair(PairResponder),
    /// The phone claims that its key is pinned.
    Attach(AttachResponder),
}

impl Responder {
    /// Takes the first record of a connection.
    pub fn receive(host: &LinkKeypair, record: &[u8]) -> Result<Responder, Rejected> {
        Responder::read(host, record).map_err(Rejected::new)
    }

    fn read(host: &LinkKeypair, record: &[u8]) -> Result<Responder, LinkError> {
        let (version, rest) = record.split_first().ok_or(LinkError::Handshake)?;
        if *version != VERSION {
            return Err(LinkError::Version {
                ours: VERSION,
                theirs: *version,
            });
        }
        if record.len() > MAX_HANDSHAKE {
            return Err(LinkError::Handshake);
        }
        match rest.first() {
            Some(&PAIR) => PairResponder::read(host, record).map(Responder::Pair),
            Some(&ATTACH) => AttachResponder::read(host, record).map(Responder::Attach),
            _ => Err(LinkError::Handshake),
        }
    }
}

/// A pairing in which the phone has named its code.
pub struct PairResponder {
    noise: HandshakeState,
    id: PairingId,
}

impl PairResponder {
    fn read(host: &LinkKeypair, record: &[u8]) -> Result<PairResponder, LinkError> {
        let (head, message) = record.split_at_checked(18).ok_or(LinkError::Handshake)?;
        let id = head[2..].try_into().map_err(|_| LinkError::Handshake)?;
        let mut noise = responder(XX, host, head)?;
        read(&mut noise, message)?;
        Ok(PairResponder {
            noise,
            id: PairingId(id),
        })
    }

    /// The id of the code's secret.
    pub fn id(&self) -> &PairingId {
        &self.id
    }

    /// Continues with the code's secret. Returns the record for the phone.
    pub fn welcome(mut self, secret: &PairingSecret) -> Result<(PairAwaiting, Vec<u8>), LinkError> {
        let set = self.noise.set_psk(3, secret.psk().as_ref());
        set.map_err(|_| LinkError::Handshake)?;
        let record = write(&mut self.noise, &[VERSION, ANSWER], &[])?;
        Ok((PairAwaiting { noise: self.noise }, record))
    }

    /// Refuses with an authenticated reason. Returns the record for the phone.
    pub fn refuse(mut self, code: CloseCode, message: &str) -> Result<Vec<u8>, LinkError> {
        refusal(&mut self.noise, code, message)
    }
}

/// A pairing that waits for the phone's proof that it has the secret.
pub struct PairAwaiting {
    noise: HandshakeState,
}

impl PairAwaiting {
    /// Takes the phone's second record, which proves the secret and the phone's key.
    pub fn receive(mut self, record: &[u8]) -> Result<Established, Rejected> {
        self.read(record)
            .and_then(|(phone, instance)| establish(self.noise, phone, Some(instance)))
            .map_err(Rejected::new)
    }

    fn read(&mut self, record: &[u8]) -> Result<(LinkKey, Instance), LinkError> {
        let payload = read(&mut self.noise, answer(record)?)?;
        remote(&self.noise, &payload)
    }
}

/// An attach in which the phone claims that its key is pinned. Its message may be a replay: its first frame proves that it is not.
pub struct AttachResponder {
    noise: HandshakeState,
    phone: LinkKey,
    instance: Instance,
}

impl AttachResponder {
    fn read(host: &LinkKeypair, record: &[u8]) -> Result<AttachResponder, LinkError> {
        let (head, message) = record.split_at_checked(2).ok_or(LinkError::Handshake)?;
        let mut noise = responder(IK, host, head)?;
        let payload = read(&mut noise, message)?;
        let (phone, instance) = remote(&noise, &payload)?;
        Ok(AttachResponder {
            noise,
            phone,
            instance,
        })
    }

    /// The phone's static key.
    pub fn phone(&self) -> &LinkKey {
        &self.phone
    }

    /// Continues. Returns the finished handshake and the record for the phone.
    pub fn welcome(mut self) -> Result<(Established, Vec<u8>), LinkError> {
        let record = write(&mut self.noise, &[VERSION, ANSWER], &[])?;
        Ok((
            establish(self.noise, self.phone, Some(self.instance))?,
            record,
        ))
    }

    /// Refuses with an authenticated reason. Returns the record for the phone.
    pub fn refuse(mut self, code: CloseCode, message: &str) -> Result<Vec<u8>, LinkError> {
        refusal(&mut self.noise, code, message)
    }
}

/// A `Close` as the other side sent it.
pub(crate) fn close_reason(close: Close) -> CloseReason {
    let code = CloseCode::from_name(&excerpt(&close.code));
    CloseReason {
        code,
        message: excerpt(&close.message),
        by_peer: true,
    }
}

fn builder(pattern: &str) -> Result<Builder<'static>, snow::Error> {
    Ok(Builder::new(pattern.parse()?))
}

/// Binds version, kind and pairing id to the session's keys.
fn prologue(head: &[u8]) -> Vec<u8> {
    [b"longhand link ".as_slice(), head].concat()
}

fn responder(pattern: &str, host: &LinkKeypair, head: &[u8]) -> Result<HandshakeState, LinkError> {
    let private = host.to_bytes();
    builder(pattern)
        .and_then(|b| b.local_private_key(private.as_ref()))
        .and_then(|b| {
            b.prologue(&prologue(head))
                .and_then(Builder::build_responder)
        })
        .map_err(|_| LinkError::Handshake)
}

fn write(noise: &mut HandshakeState, head: &[u8], payload: &[u8]) -> Result<Vec<u8>, LinkError> {
    let mut message = [0; MAX_HANDSHAKE];
    let length = noise
        .write_message(payload, &mut message)
        .map_err(|_| LinkError::Handshake)?;
    Ok([head, &message[..length]].concat())
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, LinkError> {
    let mut payload = vec![0; MAX_HANDSHAKE];
    let length = noise
        .read_message(message, &mut payload)
        .map_err(|_| LinkError::Handshake)?;
    payload.truncate(length);
    Ok(payload)
}

fn refusal(
    noise: &mut HandshakeState,
    code: CloseCode,
    message: &str,
) -> Result<Vec<u8>, LinkError> {
    let close = Close {
        code: code.as_str().into(),
        message: message.into(),
    };
    write(noise, &[VERSION, ANSWER], &close.encode_to_vec())
}

/// The Noise message in an answer, or the error of a bare refusal.
fn answer(record: &[u8]) -> Result<&[u8], LinkError> {
    match record {
        [version, REFUSAL, REFUSED_VERSION] => Err(LinkError::Version {
            ours: VERSION,
            theirs: *version,
        }),
        [VERSION, ANSWER, message @ ..] if record.len() <= MAX_HANDSHAKE => Ok(message),
        _ => Err(LinkError::Handshake),
    }
}

fn remote(noise: &HandshakeState, payload: &[u8]) -> Result<(LinkKey, Instance), LinkError> {
    let key = noise
        .get_remote_static()
        .and_then(|key| key.try_into().ok());
    let instance = payload.try_into().map_err(|_| LinkError::Handshake)?;
    Ok((
        LinkKey(key.ok_or(LinkError::Handshake)?),
        Instance(instance),
    ))
}

fn establish(
    noise: HandshakeState,
    remote: LinkKey,
    instance: Option<Instance>,
) -> Result<Established, LinkError> {
    let noise = noise
        .into_transport_mode()
        .map_err(|_| LinkError::Handshake)?;
    Ok(Established {
        transport: Transport::new(noise),
        remote,
        instance,
    })
}
