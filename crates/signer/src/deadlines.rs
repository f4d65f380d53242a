//! Heights before which the phone has to be with its node, by its own records and its own chain: a host could hide them.

use crate::engine::Signer;
use crate::htlcs::Htlc;
use crate::payments::Payment;
use crate::view::BLOCK_S;

/// LDK fails an HTLC back, or closes its channel for it, so many blocks before it expires (`HTLC_FAIL_BACK_BUFFER`).
const FAIL_BACK_BLOCKS: u32 = 39;

/// The next height before which an incoming payment needs the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The payment's hash.
    pub payment_hash: [u8; 32],
    /// The amount of the HTLC, in millisatoshis.
    pub amount_msat: u64,
    /// The phone has to attach before this block.
    pub height: u32,
    /// About when that block comes, in seconds since 1970: ten minutes a block after the newest that the phone knows.
    pub at_unix_s: u64,
}

impl Signer {
    /// The next deadline; `None` when no payment is on its way. An alarm should be set well before [`Deadline::at_unix_s`]: blocks may come
    /// faster.
    ///
    /// A payment whose preimage is still here fails back after its deadline, and nothing is lost. One whose preimage was released can be lost
    /// to the peer once its HTLC expires.
    pub fn next_deadline(&self) -> Option<Deadline> {
        let (tip, tip_unix_s) = (self.headers().height(), self.headers().tip().time);
        let channels = self.state.channels.values();
        let incoming = channels.flat_map(|channel| {
            let open = channel.open_htlcs(self.headers());
            let incoming = open.filter(|htlc| !htlc.is_outgoing);
            let htlcs = incoming.iter().map(|(htlc, _)| *htlc);
            htlcs.collect::<Vec<Htlc>>()
        });
        let heights = incoming.flat_map(|htlc| {
            let payment = self.state.payments.get(&htlc.payment_hash);
            let heights = payment.map_or_else(Vec::new, |it| heights(&it.public, &htlc));
            heights.into_iter().map(move |height| (height, htlc))
        });
        let next = heights.filter(|(height, _)| *height > tip);
        let (height, htlc) = next.min_by_key(|(height, _)| *height)?;
        let left_s = u64::from(height - tip).saturating_mul(BLOCK_S);
        Some(Deadline {
            payment_hash: htlc.payment_hash,
            amount_msat: htlc.amount_msat,
            height,
            at_unix_s: u64::from(tip_unix_s).saturating_add(left_s),
        })
    }
}

fn heights(payment: &Payment, htlc: &Htlc) -> Vec<u32> {
    let fail_back = htlc.cltv_expiry.saturating_sub(FAIL_BACK_BLOCKS);
    match payment.released {
        // In the channel until LDK gives that up, and on chain until the HTLC expires.
        Some(_) => vec![fail_back, htlc.cltv_expiry],
        None => vec![fail_back],
    }
}
