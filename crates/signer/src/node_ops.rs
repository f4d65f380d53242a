//! Operations of the node key: handshakes and onions (BOLT 4 and 8), gossip (BOLT 7).

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar};
use lightning::ln::msgs::{
    UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedGossipMessage,
    UnsignedNodeAnnouncement,
};
use lightning::routing::gossip::NodeId;
use lightning::sign::{NodeSigner, Recipient};
use lightning::util::ser::{LengthReadable, Writeable};
use longhand_proto::signer as proto;

use crate::engine::{Answer, Signer};
use crate::rules::Refused;

impl Signer {
    pub(crate) fn ecdh(&self, op: &proto::Ecdh) -> Result<Answer, Refused> {
        Ok(Answer::SharedSecret(
            self.shared_secret(&op.public_key, None)?.to_vec(),
        ))
    }

    pub(crate) fn peel_onion(&self, op: &proto::PeelOnion) -> Result<Answer, Refused> {
        if op.path_key.is_empty() {
            let onion_secret = self.shared_secret(&op.onion_public_key, None)?.to_vec();
            return Ok(Answer::PeelOnion(proto::PeelOnionAnswer {
                onion_secret,
                path_secret: Vec::new(),
            }));
        }
        let path_secret = self.shared_secret(&op.path_key, None)?;
        let onion_secret =
            self.shared_secret(&op.onion_public_key, Some(&blinding_factor(&path_secret)?))?;
        let (onion_secret, path_secret) = (onion_secret.to_vec(), path_secret.to_vec());
        Ok(Answer::PeelOnion(proto::PeelOnionAnswer {
            onion_secret,
            path_secret,
        }))
    }

    pub(crate) fn sign_gossip(&self, op: &proto::SignGossip) -> Result<Answer, Refused> {
        use proto::sign_gossip::Message;
        let ours = NodeId::from_pubkey(&self.keys.node_id());
        let foreign = || Refused::malformed("the gossip message is not of this node");
        let message = op
            .message
            .as_ref()
            .ok_or_else(|| Refused::malformed("there is no gossip message"))?;
        match message {
            Message::ChannelUpdate(bytes) => {
                let update: UnsignedChannelUpdate = read_gossip(bytes)?;
                self.sign_message(UnsignedGossipMessage::ChannelUpdate(&update))
            }
            Message::NodeAnnouncement(bytes) => {
                let announcement: UnsignedNodeAnnouncement = read_gossip(bytes)?;
                if announcement.node_id != ours {
                    return Err(foreign());
                }
                self.sign_message(UnsignedGossipMessage::NodeAnnouncement(&announcement))
            }
            Message::ChannelAnnouncement(bytes) => {
                let announcement: UnsignedChannelAnnouncement = read_gossip(bytes)?;
                if announcement.node_id_1 != ours && announcement.node_id_2 != ours {
                    return Err(foreign());
                }
                self.sign_message(UnsignedGossipMessage::ChannelAnnouncement(&announcement))
            }
        }
    }

    fn sign_message(&self, message: UnsignedGossipMessage<'_>) -> Result<Answer, Refused> {
        let signature = self.keys.ldk.sign_gossip_message(message);
        let signature =
            signature.map_err(|()| Refused::malformed("the gossip message cannot be signed"))?;
        Ok(Answer::Signature(signature.serialize_compact().to_vec()))
    }

    fn shared_secret(
        &self,
        public_key: &[u8],
        tweak: Option<&Scalar>,
    ) -> Result<[u8; 32], Refused> {
        let bad = || Refused::malformed("the point to multiply is not a public key");
        let key = PublicKey::from_slice(public_key).map_err(|_| bad())?;
        self.keys
            .ldk
            .ecdh(Recipient::Node, &key, tweak)
            .map(|secret| secret.secret_bytes())
            .map_err(|()| bad())
    }
}

/// The factor of the node key in a blinded path (BOLT 4, "Route Blinding").
fn blinding_factor(path_secret: &[u8; 32]) -> Result<Scalar, Refused> {
    let mut hmac = HmacEngine::<sha256::Hash>::new(b"blinded_node_id");
    hmac.input(path_secret);
    let factor = Hmac::from_engine(hmac).to_byte_array();
    Scalar::from_be_bytes(factor)
        .map_err(|_| Refused::malformed("the path key makes no blinding factor"))
}

/// Parses a gossip message whose encoding is exactly `bytes`, so that nothing is signed that was not parsed.
pub(crate) fn read_gossip<T: LengthReadable + Writeable>(bytes: &[u8]) -> Result<T, Refused> {
    let message = T::read_from_fixed_length_buffer(&mut &bytes[..]);
    let message = message.map_err(|_| Refused::malformed("the gossip message cannot be read"))?;
    if message.encode() == bytes {
        Ok(message)
    } else {
        Err(Refused::malformed("the gossip message is not canonical"))
    }
}
