//! Operations of the node key: onions (BOLT 4), gossip (BOLT 7), handshakes (BOLT 8).

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar};
use lightning::ln::msgs::UnsignedGossipMessage;
use lightning::sign::{NodeSigner, Recipient};
use longhand_proto::signer as proto;

use super::Fault;
use crate::engine::{Answer, Signer};
use crate::proposal::{Gossip, Onion};

impl Signer {
    pub(super) fn ecdh(&self, point: &PublicKey) -> Result<Answer, Fault> {
        let secret = self.shared_secret(point, None)?;
        Ok(Answer::SharedSecret(secret.to_vec()))
    }

    pub(super) fn peel_onion(&self, onion: &Onion) -> Result<Answer, Fault> {
        let path_secret = onion.path_key.as_ref();
        let path_secret = path_secret
            .map(|key| self.shared_secret(key, None))
            .transpose()?;
        let factor = path_secret.as_ref().map(blinding_factor).transpose()?;
        let onion_secret = self.shared_secret(&onion.onion_key, factor.as_ref())?;
        Ok(Answer::PeelOnion(proto::PeelOnionAnswer {
            onion_secret: onion_secret.to_vec(),
            path_secret: path_secret.map_or_else(Vec::new, |secret| secret.to_vec()),
        }))
    }

    pub(super) fn sign_gossip(&self, gossip: &Gossip) -> Result<Answer, Fault> {
        let message = match gossip {
            Gossip::ChannelUpdate(message) => UnsignedGossipMessage::ChannelUpdate(message),
            Gossip::NodeAnnouncement(message) => UnsignedGossipMessage::NodeAnnouncement(message),
            Gossip::ChannelAnnouncement(message) => {
                UnsignedGossipMessage::ChannelAnnouncement(message)
            }
        };
        let signature = self.keys.ldk.sign_gossip_message(message);
        let signature = signature.map_err(|()| Fault("the gossip message cannot be signed"))?;
        Ok(Answer::Signature(signature.serialize_compact().to_vec()))
    }

    fn shared_secret(&self, point: &PublicKey, tweak: Option<&Scalar>) -> Result<[u8; 32], Fault> {
        let secret = self.keys.ldk.ecdh(Recipient::Node, point, tweak);
        secret
            .map(|secret| secret.secret_bytes())
            .map_err(|()| Fault("the point to multiply is not a public key"))
    }
}

/// The factor of the node key in a blinded path (BOLT 4, "Route Blinding").
fn blinding_factor(path_secret: &[u8; 32]) -> Result<Scalar, Fault> {
    let mut hmac = HmacEngine::<sha256::Hash>::new(b"blinded_node_id");
    hmac.input(path_secret);
    let factor = Hmac::from_engine(hmac).to_byte_array();
    Scalar::from_be_bytes(factor).map_err(|_| Fault("the path key makes no blinding factor"))
}
