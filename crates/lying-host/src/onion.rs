//! HTLCs that a peer offers, with the onions of their payers (BOLT 4): built by LDK.

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::msgs::UpdateAddHTLC;
use lightning::ln::onion_utils::create_payment_onion;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::ln::types::ChannelId;
use lightning::routing::router::{Path, RouteHop};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentSecret};
use lightning::util::ser::Writeable;
use longhand_proto::signer::PeelOnion;
use longhand_proto::signer::signer_op::Op;

use crate::scene::Htlc;

/// An HTLC, and what its payer has put into the onion.
pub struct Offer {
    /// The HTLC.
    pub htlc: Htlc,
    /// Its number in its channel.
    pub htlc_id: u64,
    /// The nodes after the peer.
    pub hops: Vec<PublicKey>,
    /// The payment hash by which the onion is bound.
    pub onion_hash: [u8; 32],
    /// The payment secret.
    pub secret: [u8; 32],
    /// The amount of all HTLCs of the payment, in millisatoshis.
    pub total_msat: u64,
    /// The amount for the last hop, in millisatoshis.
    pub amount_msat: u64,
}

impl Offer {
    /// As an honest payer makes it for this node.
    pub fn of(
        htlc: Htlc,
        htlc_id: u64,
        node: PublicKey,
        secret: [u8; 32],
        total_msat: u64,
    ) -> Offer {
        Offer {
            htlc,
            htlc_id,
            hops: vec![node],
            onion_hash: htlc.payment_hash,
            secret,
            total_msat,
            amount_msat: htlc.amount_msat,
        }
    }

    /// The peer's message.
    pub fn message(&self) -> UpdateAddHTLC {
        let last = self.hops.len().saturating_sub(1);
        let hop = |(index, pubkey): (usize, &PublicKey)| RouteHop {
            pubkey: *pubkey,
            node_features: NodeFeatures::empty(),
            short_channel_id: index as u64 + 1,
            channel_features: ChannelFeatures::empty(),
            fee_msat: if index == last {
                self.amount_msat
            } else {
                1_000
            },
            cltv_expiry_delta: if index == last {
                self.htlc.cltv_expiry
            } else {
                40
            },
            maybe_announced_channel: true,
        };
        let path = Path {
            hops: self.hops.iter().enumerate().map(hop).collect(),
            blinded_tail: None,
        };
        let onion = create_payment_onion(
            &Secp256k1::new(),
            &path,
            &SecretKey::from_slice(&[0x31; 32]).expect("the scene is honest"),
            &RecipientOnionFields::secret_only(PaymentSecret(self.secret), self.total_msat),
            0,
            &PaymentHash(self.onion_hash),
            &None,
            None,
            [0x32; 32],
        );
        let (onion_routing_packet, _, _) = onion.expect("the scene is honest");
        UpdateAddHTLC {
            channel_id: ChannelId([5; 32]),
            htlc_id: self.htlc_id,
            amount_msat: self.htlc.amount_msat,
            payment_hash: PaymentHash(self.htlc.payment_hash),
            cltv_expiry: self.htlc.cltv_expiry,
            skimmed_fee_msat: None,
            onion_routing_packet,
            blinding_point: None,
            hold_htlc: None,
            accountable: None,
        }
    }

    /// The operation by which the phone reads it.
    pub fn peel(&self, channel_keys_id: [u8; 32]) -> Op {
        peel(channel_keys_id, &self.message())
    }
}

/// The operation by which the phone reads an HTLC's onion.
pub fn peel(channel_keys_id: [u8; 32], message: &UpdateAddHTLC) -> Op {
    Op::PeelOnion(PeelOnion {
        channel_keys_id: channel_keys_id.to_vec(),
        update_add_htlc: message.encode(),
    })
}
