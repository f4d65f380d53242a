//! Operations of the node key: onions (BOLT 4), gossip (BOLT 7), handshakes (BOLT 8).

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::UnsignedGossipMessage;
use lightning::sign::NodeSigner;

use super::{Fault, Signed};
use crate::engine::{Answer, Change, Signer};
use crate::ledger::entry;
use crate::proposal::{Gossip, Onion};

impl Signer {
    /// The shared secret of the node key with a point.
    pub(super) fn shared_secret(&self, point: &PublicKey) -> Result<Answer, Fault> {
        let secret = self.keys.node_secret(point);
        let secret = secret.ok_or(Fault("the point to multiply is not a public key"))?;
        Ok(Answer::SharedSecret(secret.to_vec()))
    }

    pub(super) fn peel_onion(&self, onion: &Onion<'_>) -> Signed {
        let onion_key = onion.onion_key.ok_or(Fault("the onion has no key"))?;
        let answer = self.shared_secret(&onion_key)?;
        Ok((answer, onion_read(onion).into_iter().collect()))
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
}

/// What the phone has to know of an onion when its preimage is asked for.
fn onion_read(onion: &Onion<'_>) -> Option<Change> {
    let (read, payment) = (onion.read()?, onion.payment?);
    let htlc = (onion.keys_id, onion.htlc.htlc_id);
    if payment.public.released.is_some() || payment.onions.get(&htlc) == Some(&read) {
        return None;
    }
    Some(Change::OnionRead(entry::OnionRead {
        payment_hash: payment.public.payment_hash.to_vec(),
        keys_id: onion.keys_id.to_vec(),
        htlc_id: onion.htlc.htlc_id,
        amount_msat: read.amount_msat,
        cltv_expiry: read.cltv_expiry,
        total_msat: read.total_msat,
    }))
}
