//! Heights before which a node needs its phone, and what becomes of HTLCs for which it did not come.
//!
//! An incoming HTLC whose preimage is known can be settled in the channel until LDK gives that up and goes on chain (36
//! blocks before its expiry), and on chain until its expiry: both take the phone. From then on the peer may take it back.
//! One whose preimage is still on the phone has one deadline, 39 blocks before its expiry, whether its channel is open or
//! closed: LDK takes no preimage from then on, and its monitors take none but from it.
//! An outgoing one is claimed on chain by a peer that knows the preimage while its own time is running out, and given up by
//! LDK three blocks after its expiry: the channel is closed, but nothing is lost. One that came in and is not the owner's
//! has to be failed before it expires, or the peer closes the channel.

use bitcoin::Transaction;
use bitcoin::hashes::{Hash, ripemd160};
use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::ln::chan_utils::HTLCClaim;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use longhand_proto::command::payment;
use prost::Message;

use crate::core::Core;
use crate::keys::incoming::IncomingHtlc;
use crate::records::{Claim, Lost};
use crate::spending::NOT_IN_TIME;
use crate::{NodeEvent, PeerNeeded};

/// What a payment's failure begins with when an HTLC of it was lost.
pub(crate) const DEADLINE_MISSED: &str = "DEADLINE_MISSED";

impl Core {
    /// The next height before which an HTLC needs the phone. Most have two: one to be settled in the channel, one on
    /// chain.
    pub fn earliest_deadline(&self) -> Option<u32> {
        let channels = self.manager.list_channels();
        let open = channels.iter().flat_map(|channel| self.deadlines(channel));
        let on_chain = self
            .claims
            .values()
            .flat_map(|claim| claim.in_closed(&channels));
        open.chain(on_chain)
            .filter(|height| *height > self.height)
            .min()
    }

    /// Peers of this hub that are away and have been sent HTLCs, with the next height before which each has to be there.
    pub fn peers_needed(&self) -> Vec<PeerNeeded> {
        let channels = self.manager.list_channels().into_iter();
        let away = channels.filter(|channel| !channel.is_usable);
        let needed = away.filter_map(|channel| {
            let heights = outbound_deadlines(&channel).into_iter();
            Some(PeerNeeded {
                node_id: channel.counterparty.node_id,
                deadline_height: heights.filter(|height| *height > self.height).min()?,
            })
        });
        needed.collect()
    }

    fn deadlines(&self, channel: &ChannelDetails) -> Vec<u32> {
        let mut heights = outbound_deadlines(channel);
        for htlc in self.incoming(channel) {
            heights.push(htlc.cltv_expiry);
            if self.is_ours(&htlc.payment_hash) {
                heights.push(in_channel(htlc.cltv_expiry));
            }
        }
        heights
    }

    /// HTLCs that came in, until our own commitment is without them too. Some are there twice.
    fn incoming(&self, channel: &ChannelDetails) -> Vec<IncomingHtlc> {
        let listed = channel.pending_inbound_htlcs.iter();
        let listed = listed.map(|htlc| IncomingHtlc {
            payment_hash: htlc.payment_hash,
            cltv_expiry: htlc.cltv_expiry,
        });
        let signed = self.remote().map_or_else(Vec::new, |remote| {
            remote.incoming_htlcs(channel.user_channel_id)
        });
        listed.chain(signed).collect()
    }

    /// The preimage is here, or on the phone.
    fn is_ours(&self, hash: &PaymentHash) -> bool {
        let payment = self.payments.get(hash);
        payment.is_some_and(|payment| !payment.preimage.is_empty())
            || self.claims.contains_key(hash)
    }

    /// Forgets claims whose HTLCs have left their channels.
    pub fn end_settled_claims(&mut self) {
        if self.claims.values().any(|claim| claim.claimed) {
            let channels = self.manager.list_channels();
            let is_over = |claim: &Claim| {
                let mut ids = claim.channel_ids();
                claim.claimed && ids.all(|id| self.is_settled(&channels, &id, claim))
            };
            let over = self.claims_that(is_over);
            self.end_claims(&over);
        }
    }

    /// True when the channel is open and has no HTLC of the payment.
    fn is_settled(&self, open: &[ChannelDetails], id: &ChannelId, claim: &Claim) -> bool {
        let channel = open.iter().find(|channel| channel.channel_id == *id);
        channel.is_some_and(|channel| {
            let mut htlcs = self.incoming(channel).into_iter();
            htlcs.all(|htlc| htlc.payment_hash.0[..] != claim.payment_hash[..])
        })
    }

    /// Forgets claims of which nothing is left on chain either.
    pub fn end_resolved_claims(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let channels = self.manager.list_channels();
        let monitors = self.chain_monitor.clone();
        let is_resolved = |id: &ChannelId| {
            let monitor = monitors.get_monitor(*id);
            monitor.map_or(true, |monitor| monitor.get_claimable_balances().is_empty())
        };
        let is_open = |id: &ChannelId| channels.iter().any(|channel| channel.channel_id == *id);
        let is_over = |claim: &Claim| {
            let is_over = |id: ChannelId| match is_open(&id) {
                true => self.is_settled(&channels, &id, claim),
                false => is_resolved(&id),
            };
            !claim.channel_ids().all(|id| is_open(&id)) && claim.channel_ids().all(is_over)
        };
        let over = self.claims_that(is_over);
        self.end_claims(&over);
    }

    fn claims_that(&self, is_over: impl Fn(&Claim) -> bool) -> Vec<PaymentHash> {
        let claims = self.claims.iter();
        let over = claims.filter(|(_, claim)| is_over(claim));
        over.map(|(hash, _)| *hash).collect()
    }

    fn end_claims(&mut self, over: &[PaymentHash]) {
        for hash in over {
            match self.claims.get(hash) {
                Some(claim) if !claim.claimed => self.end_claim(*hash, NOT_IN_TIME),
                Some(claim) => {
                    self.journal.delete(claim.key());
                    self.claims.remove(hash);
                }
                None => {}
            }
        }
    }

    /// Looks who has spent HTLCs of closed channels.
    pub fn see_spends<'a>(&mut self, txs: impl Iterator<Item = &'a Transaction>) {
        if self.claims.is_empty() {
            return;
        }
        for tx in txs {
            for input in &tx.input {
                let taken_back = match HTLCClaim::from_witness(&input.witness) {
                    Some(HTLCClaim::OfferedTimeout | HTLCClaim::AcceptedTimeout) => true,
                    Some(HTLCClaim::OfferedPreimage | HTLCClaim::AcceptedPreimage) => false,
                    Some(HTLCClaim::Revocation) | None => continue,
                };
                let script = input.witness.last().unwrap_or_default();
                let hash = self.claims.keys().find(|hash| is_in(hash, script)).copied();
                if let Some(hash) = hash {
                    self.htlc_spent(hash, &input.previous_output.to_string(), taken_back);
                }
            }
        }
    }

    /// After a reorganisation it may be the other's after all.
    fn htlc_spent(&mut self, hash: PaymentHash, outpoint: &str, taken_back: bool) {
        let Some(claim) = self.claims.get_mut(&hash) else {
            return;
        };
        let known = claim.lost.iter().position(|lost| lost.outpoint == outpoint);
        match (taken_back, known) {
            (true, None) if claim.claimed => {
                let part = claim.htlcs.get(claim.lost.len());
                let part = part.or(claim.htlcs.last()).cloned().unwrap_or_default();
                let lost = Lost {
                    outpoint: outpoint.to_owned(),
                    amount_msat: part.amount_msat,
                    cltv_expiry: part.cltv_expiry,
                };
                self.losses.push(NodeEvent::HtlcLost {
                    payment_hash: hash.0,
                    amount_msat: lost.amount_msat,
                    deadline_height: lost.cltv_expiry,
                });
                claim.lost.push(lost);
            }
            (false, Some(known)) => drop(claim.lost.remove(known)),
            _ => return,
        }
        self.journal.put(claim.key(), claim.encode_to_vec());
        let failure = claim.loss();
        self.update_payment(hash, false, |payment| {
            let state = match failure {
                Some(_) => payment::State::Failed,
                None => payment::State::Succeeded,
            };
            payment.state = state.into();
            payment.failure = failure.unwrap_or_default();
        });
    }
}

impl Claim {
    fn channel_ids(&self) -> impl Iterator<Item = ChannelId> {
        let ids = self.channel_ids.iter();
        ids.filter_map(|id| Some(ChannelId(<[u8; 32]>::try_from(&id[..]).ok()?)))
    }

    /// Deadlines of HTLCs in channels that are closed.
    fn in_closed(&self, open: &[ChannelDetails]) -> Vec<u32> {
        let htlcs = self.channel_ids().zip(&self.htlcs);
        let closed = htlcs.filter(|(id, _)| open.iter().all(|channel| channel.channel_id != *id));
        let left = closed.skip(self.lost.len());
        let deadline = self.deadline().filter(|_| !self.claimed);
        left.map(|(_, htlc)| deadline.unwrap_or(htlc.cltv_expiry))
            .collect()
    }

    /// The height from which on LDK takes the preimage no more: that of the part that expires first. `None` when no expiry
    /// is known.
    pub fn deadline(&self) -> Option<u32> {
        if self.claim_deadline > 0 {
            return Some(self.claim_deadline);
        }
        let expiries = self.htlcs.iter().map(|htlc| htlc.cltv_expiry);
        expiries.filter(|expiry| *expiry > 0).min().map(in_channel)
    }

    /// What was lost, for the owner.
    fn loss(&self) -> Option<String> {
        let deadline = self.lost.iter().map(|lost| lost.cltv_expiry).min()?;
        let lost_msat: u64 = self.lost.iter().map(|lost| lost.amount_msat).sum();
        Some(format!(
            "{DEADLINE_MISSED}: {} sat of this payment were lost: the phone had to be there to claim them before block \
             {deadline}, the channel was closed, and the peer took them back on chain",
            lost_msat / 1000
        ))
    }
}

/// LDK fails what is not claimed by then; three blocks later it goes on chain for what is.
fn in_channel(expiry: u32) -> u32 {
    expiry.saturating_sub(HTLC_FAIL_BACK_BUFFER)
}

/// The expiry with this deadline.
pub(crate) fn expiry_of(in_channel: u32) -> u32 {
    in_channel.saturating_add(HTLC_FAIL_BACK_BUFFER)
}

fn outbound_deadlines(channel: &ChannelDetails) -> Vec<u32> {
    let htlcs = channel.pending_outbound_htlcs.iter();
    htlcs
        .flat_map(|htlc| [in_channel(htlc.cltv_expiry), htlc.cltv_expiry])
        .collect()
}

/// Whether the script is one of an HTLC with this payment hash (BOLT 3: it has the hash of the hash).
fn is_in(hash: &PaymentHash, script: &[u8]) -> bool {
    let hash = ripemd160::Hash::hash(&hash.0).to_byte_array();
    script.windows(hash.len()).any(|part| part == hash)
}

#[cfg(test)]
mod tests {
    use longhand_proto::signer::ClaimableHtlc;

    use super::*;

    fn claim(claim_deadline: u32, expiries: &[u32]) -> Claim {
        let htlc = |expiry: &u32| ClaimableHtlc {
            cltv_expiry: *expiry,
            ..ClaimableHtlc::default()
        };
        let of = |number| vec![number; 32];
        Claim {
            htlcs: expiries.iter().map(htlc).collect(),
            channel_ids: (1..).map(of).take(expiries.len()).collect(),
            claim_deadline,
            ..Claim::default()
        }
    }

    #[test]
    fn the_part_that_expires_first_decides_until_when_a_preimage_may_be_given() {
        // The second is of a database of before.
        for mut claim in [claim(151, &[200, 190]), claim(0, &[200, 190])] {
            assert_eq!(claim.deadline(), Some(151));
            assert_eq!(claim.in_closed(&[]), [151, 151]);
            claim.claimed = true;
            assert_eq!(claim.in_closed(&[]), [200, 190]);
        }
        assert_eq!(claim(0, &[0]).deadline(), None);
    }
}
