//! `mailbox.proto`: one connection's requests and replies. A stream belongs to whoever can sign with its key, for the nonce of
//! the connection.

use longhand_link::carrier::mailbox::stream::{End, Nonce, Permit, StreamId};
use longhand_proto::mailbox::client_message::Body as Asked;
use longhand_proto::mailbox::server_message::Body;
use longhand_proto::mailbox::{
    Attach, Attached, ClientMessage, Data, Delete, Ended, Ping, Pong, ServerMessage, Welcome,
};
use prost::Message;

use crate::core::{Code, Reply, Request};

/// The version of this protocol.
const VERSION: u32 = 1;

/// One connection: its nonce, for which all signatures are made.
pub struct Session {
    nonce: Nonce,
}

/// A message that is none of this protocol: nothing that follows can be trusted to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is no ClientMessage: speak version {VERSION} of the mailbox protocol")]
pub struct Unreadable;

impl Session {
    /// `nonce` is random, and of no other connection.
    pub fn new(nonce: Nonce) -> Session {
        Session { nonce }
    }

    /// The first message to the client. `has_routes` when this process is one of several.
    pub fn welcome(&self, has_routes: bool) -> Vec<u8> {
        let welcome = Welcome {
            version: VERSION,
            nonce: self.nonce.to_vec(),
            has_routes,
        };
        encode(Body::Welcome(welcome))
    }

    /// Reads a client's message, and checks its signature.
    ///
    /// # Errors
    /// [`Unreadable`]: the connection is of no use any more.
    pub fn read(&self, message: &[u8]) -> Result<Request, Unreadable> {
        let message = ClientMessage::decode(message).map_err(|_| Unreadable)?;
        Ok(match message.body {
            Some(Asked::Attach(attach)) => self.attach(&attach),
            Some(Asked::Detach(detach)) => Request::Detach {
                handle: detach.handle,
            },
            Some(Asked::Delete(delete)) => self.delete(&delete),
            Some(Asked::Data(data)) => Request::Send {
                handle: data.handle,
                payload: data.payload,
            },
            Some(Asked::Ping(Ping {})) => Request::Ping,
            Some(Asked::Pong(Pong {})) => Request::Pong,
            // A request of a newer client.
            None => refused(0, Code::BadRequest),
        })
    }

    fn attach(&self, attach: &Attach) -> Request {
        let handle = attach.handle;
        let Some(end) = End::from_wire(attach.end()) else {
            return refused(handle, Code::BadRequest);
        };
        let permit = Permit::Attach(end);
        match self.signed(permit, &attach.public_key, &attach.signature) {
            Ok(stream) => Request::Attach {
                handle,
                stream,
                end,
            },
            Err(code) => refused(handle, code),
        }
    }

    fn delete(&self, delete: &Delete) -> Request {
        match self.signed(Permit::Delete, &delete.public_key, &delete.signature) {
            Ok(stream) => Request::Delete { stream },
            Err(code) => refused(0, code),
        }
    }

    /// The stream for which the holder of its key has signed on this connection.
    fn signed(&self, permit: Permit, key: &[u8], signature: &[u8]) -> Result<StreamId, Code> {
        let key: &[u8; 32] = key.try_into().map_err(|_| Code::BadRequest)?;
        let signature = signature.try_into().map_err(|_| Code::BadRequest)?;
        match permit.is_signed(key, &self.nonce, signature) {
            true => Ok(StreamId::of(key)),
            false => Err(Code::BadSignature),
        }
    }
}

/// A reply as a message to the client.
pub fn write(reply: Reply) -> Vec<u8> {
    encode(match reply {
        Reply::Attached { handle, is_met } => Body::Attached(Attached { handle, is_met }),
        Reply::Ended { handle, code } => Body::Ended(Ended {
            handle,
            code: code.as_str().to_owned(),
            message: code.message().to_owned(),
        }),
        Reply::Ping => Body::Ping(Ping {}),
        Reply::Pong => Body::Pong(Pong {}),
        Reply::Data { handle, payload } => Body::Data(Data { handle, payload }),
    })
}

fn encode(body: Body) -> Vec<u8> {
    ServerMessage { body: Some(body) }.encode_to_vec()
}

fn refused(handle: u32, code: Code) -> Request {
    Request::Refused { handle, code }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_link::carrier::MAX_MESSAGE;
    use longhand_link::carrier::mailbox::stream::StreamKey;
    use longhand_link::{PairingSecret, Rendezvous};
    use longhand_proto::mailbox::Detach;
    use proptest::prelude::*;

    use super::*;
    use crate::core::MAX_PAYLOAD;

    fn key(secret: u8) -> StreamKey {
        let secret = PairingSecret::from_bytes([secret; 16]);
        StreamKey::new(&Rendezvous::of_pairing(&secret), "relay.example:443")
    }

    fn message(body: Asked) -> Vec<u8> {
        ClientMessage { body: Some(body) }.encode_to_vec()
    }

    fn attach(key: &StreamKey, nonce: &Nonce) -> Attach {
        let signature = key.sign(Permit::Attach(End::Phone), nonce);
        let mut attach = Attach {
            handle: 3,
            public_key: key.public().to_vec(),
            signature: signature.to_vec(),
            ..Attach::default()
        };
        attach.set_end(End::Phone.to_wire());
        attach
    }

    fn delete(key: &StreamKey, nonce: &Nonce) -> Delete {
        Delete {
            public_key: key.public().to_vec(),
            signature: key.sign(Permit::Delete, nonce).to_vec(),
        }
    }

    #[test]
    fn a_signed_request_is_read_as_one_for_the_stream_of_its_key() {
        let session = Session::new([1; 32]);
        let asked = session.read(&message(Asked::Attach(attach(&key(1), &[1; 32]))));
        let expected = Request::Attach {
            handle: 3,
            stream: key(1).id(),
            end: End::Phone,
        };
        assert_eq!(asked, Ok(expected));
        let asked = session.read(&message(Asked::Delete(delete(&key(1), &[1; 32]))));
        let stream = key(1).id();
        assert_eq!(asked, Ok(Request::Delete { stream }));
    }

    #[test]
    fn a_signature_that_was_made_for_another_connection_is_refused() {
        let session = Session::new([2; 32]);
        let replayed = session.read(&message(Asked::Attach(attach(&key(1), &[1; 32]))));
        assert_eq!(replayed, Ok(refused(3, Code::BadSignature)));
        let replayed = session.read(&message(Asked::Delete(delete(&key(1), &[1; 32]))));
        assert_eq!(replayed, Ok(refused(0, Code::BadSignature)));
    }

    #[test]
    fn a_foreign_key_does_not_open_a_stream() {
        let session = Session::new([1; 32]);
        let mut forged = attach(&key(2), &[1; 32]);
        forged.public_key = key(1).public().to_vec();
        let asked = session.read(&message(Asked::Attach(forged)));
        assert_eq!(asked, Ok(refused(3, Code::BadSignature)));
    }

    #[test]
    fn an_attach_at_the_other_end_needs_its_own_signature() {
        let session = Session::new([1; 32]);
        let mut turned = attach(&key(1), &[1; 32]);
        turned.set_end(End::Host.to_wire());
        let asked = session.read(&message(Asked::Attach(turned)));
        assert_eq!(asked, Ok(refused(3, Code::BadSignature)));
    }

    #[test]
    fn a_field_of_a_wrong_length_or_value_is_a_bad_request() {
        let session = Session::new([1; 32]);
        let good = attach(&key(1), &[1; 32]);
        let short_key = Attach {
            public_key: vec![1; 31],
            ..good.clone()
        };
        let long_signature = Attach {
            signature: vec![1; 65],
            ..good.clone()
        };
        let no_end = Attach { end: 0, ..good };
        for bad in [short_key, long_signature, no_end] {
            let asked = session.read(&message(Asked::Attach(bad)));
            assert_eq!(asked, Ok(refused(3, Code::BadRequest)));
        }
        assert_eq!(session.read(&[]), Ok(refused(0, Code::BadRequest)));
        assert_eq!(session.read(b"GET / HTTP/1.1"), Err(Unreadable));
    }

    #[test]
    fn the_longest_payload_fits_into_a_message_of_a_carrier_under_any_handle() {
        let payload = vec![7; MAX_PAYLOAD];
        let handle = u32::MAX;
        let written = write(Reply::Data { handle, payload });
        assert!(written.len() <= MAX_MESSAGE, "{}", written.len());
    }

    #[test]
    fn replies_are_read_back_by_a_client() {
        let ended = write(Reply::Ended {
            handle: 9,
            code: Code::TakenOver,
        });
        let read = ServerMessage::decode(&ended[..]).unwrap().body.unwrap();
        let Body::Ended(ended) = read else {
            panic!("not an Ended: {read:?}");
        };
        assert_eq!(
            (ended.handle, &ended.code[..]),
            (9, Code::TakenOver.as_str())
        );
        assert!(!ended.message.contains('\n'));
        let asked = Session::new([1; 32]).read(&message(Asked::Detach(Detach { handle: 9 })));
        assert_eq!(asked, Ok(Request::Detach { handle: 9 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Session::new([1; 32]).read(&bytes);
        }
    }
}
