//! Onions of incoming HTLCs (BOLT 4), which the phone reads itself.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channelmanager::PendingHTLCRouting;
use lightning::ln::msgs::UpdateAddHTLC;
use lightning::ln::onion_payment::{InboundHTLCErr, peel_payment_onion};
use lightning::ln::onion_utils::LocalHTLCFailureReason as Failure;
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::{LengthReadable, Writeable};
use longhand_proto::signer::PeelOnion;

use super::KeysId;
use crate::engine::Signer;
use crate::ledger::{OwnPayment, ReadOnion};
use crate::rules::Refused;

/// No blocks are known here: what depends on the height, LDK judges on the host.
const NO_HEIGHT: u32 = 0;

/// An HTLC that the peer has offered, and what is in its onion.
pub(crate) struct Onion<'a> {
    pub keys_id: KeysId,
    pub htlc: UpdateAddHTLC,
    /// The ephemeral key of the onion; `None` when it is none.
    pub onion_key: Option<PublicKey>,
    pub content: Content,
    /// The owner's payment with the HTLC's hash.
    pub payment: Option<&'a OwnPayment>,
}

/// What is in an onion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// It cannot be read: it was made for another node, for another payment hash, or for a blinded path, which no invoice of the phone's has.
    Foreign,
    /// The HTLC is to be forwarded.
    Forward,
    /// This node is the last hop.
    Final {
        payment_secret: [u8; 32],
        /// The amount of all HTLCs of the payment, in millisatoshis.
        total_msat: u64,
    },
    /// This node is the last hop, and no invoice can be paid by it: LDK fails the HTLC, and the payer learns why.
    Other,
}

impl Onion<'_> {
    /// What is put on record: that the HTLC pays its invoice, as far as the onion says so.
    pub fn read(&self) -> Option<ReadOnion> {
        let payment = self.payment?;
        let Content::Final {
            payment_secret,
            total_msat,
        } = self.content
        else {
            return None;
        };
        let is_for_invoice = payment.payment_secret() == Some(payment_secret)
            && total_msat >= payment.public.amount_msat;
        is_for_invoice.then_some(ReadOnion {
            amount_msat: self.htlc.amount_msat,
            cltv_expiry: self.htlc.cltv_expiry,
            total_msat,
        })
    }
}

impl Signer {
    pub(super) fn read_onion(&self, keys_id: KeysId, op: &PeelOnion) -> Result<Onion<'_>, Refused> {
        self.channel(&keys_id)?;
        let htlc = update_add_htlc(&op.update_add_htlc)?;
        Ok(Onion {
            keys_id,
            onion_key: htlc.onion_routing_packet.public_key.ok(),
            content: self.content(&htlc),
            payment: self.state.payments.get(&htlc.payment_hash.0),
            htlc,
        })
    }

    /// As LDK reads it, so that the phone and the node agree.
    fn content(&self, htlc: &UpdateAddHTLC) -> Content {
        if htlc.blinding_point.is_some() {
            return Content::Foreign;
        }
        let (keys, secp) = (&self.keys.ldk, &self.keys.secp);
        match peel_payment_onion(htlc, keys, Silent, secp, NO_HEIGHT, false) {
            Ok(info) => match info.routing {
                PendingHTLCRouting::Receive { payment_data, .. } => Content::Final {
                    payment_secret: payment_data.payment_secret.0,
                    total_msat: payment_data.total_msat,
                },
                PendingHTLCRouting::ReceiveKeysend { .. } => Content::Other,
                PendingHTLCRouting::Forward { .. }
                | PendingHTLCRouting::TrampolineForward { .. } => Content::Forward,
            },
            Err(InboundHTLCErr { reason, .. }) => unusable(reason),
        }
    }
}

/// Why LDK cannot use an onion.
fn unusable(reason: Failure) -> Content {
    match reason {
        Failure::InvalidOnionVersion
        | Failure::InvalidOnionHMAC
        | Failure::InvalidOnionKey
        | Failure::InvalidOnionBlinding => Content::Foreign,
        // These compare the HTLC with the one that would be forwarded.
        Failure::IncorrectCLTVExpiry
        | Failure::CLTVExpiryTooSoon
        | Failure::CLTVExpiryTooFar
        | Failure::OutgoingCLTVTooSoon => Content::Forward,
        _ => Content::Other,
    }
}

/// Parses a message whose encoding is exactly `bytes`.
fn update_add_htlc(bytes: &[u8]) -> Result<UpdateAddHTLC, Refused> {
    let message = UpdateAddHTLC::read_from_fixed_length_buffer(&mut &bytes[..]);
    let message = message.map_err(|_| Refused::malformed("the HTLC cannot be read"))?;
    match message.encode() == bytes {
        true => Ok(message),
        false => Err(Refused::malformed("the HTLC is not in its one encoding")),
    }
}

/// LDK's lines about an onion are those of the node.
struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}
