//! Incoming payments, from when they can be claimed until none of their HTLCs is in a channel or an output of one.
//!
//! The phone has the preimage (`GetPreimage`), and lets it go only for HTLCs that both sides are committed to. LDK takes
//! it until a height that is known from the start ([`Claim::deadline`]); a claim without its preimage ends there.

use std::collections::HashMap;

use bitcoin::Transaction;
use bitcoin::hashes::{Hash, ripemd160};
use lightning::events::{Event, PaymentPurpose};
use lightning::ln::chan_utils::HTLCClaim;
use lightning::ln::channel_state::{ChannelDetails, InboundHTLCDetails, InboundHTLCStateDetails};
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use longhand_proto::Code;
use longhand_proto::command::payment::State;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ClaimableHtlc, GetPreimage, Refusal};
use prost::Message;

use crate::api::{NodeError, NodeEvent};
use crate::keys::desk::Asked;
use crate::machine::turn::Turn;
use crate::parts::deadlines::{expiry_of, fail_back_height, incoming};
use crate::parts::payments::Payments;
use crate::store::journal::Journal;
use crate::store::schema::{Claim, Lost, key};

/// A payment's failure begins with this when one of its HTLCs was lost.
const DEADLINE_MISSED: &str = Code::DeadlineMissed.as_str();

/// The failure of a payment that was not claimed.
const NOT_IN_TIME: &str = "the phone did not give its preimage in time";
const GIVEN_TOO_LATE: &str = "its preimage came when it could be claimed no more";
const NO_PREIMAGE: &str = "the phone gave something else than its preimage";

/// How a claim ends.
enum ClaimEnd {
    /// All of its HTLCs are settled.
    Settled,
    /// LDK has failed its HTLCs back: the preimage did not come, or came too late.
    FailedBack,
    /// Its HTLCs are to be failed back now, for this reason.
    FailBack(String),
}

/// The claims whose preimage LDK has not claimed yet, or whose HTLCs are still somewhere.
#[derive(Default)]
pub(crate) struct Claims {
    claims: HashMap<PaymentHash, Claim>,
}

impl Claims {
    /// Reads the records back.
    pub fn load(journal: &Journal) -> Result<Claims, NodeError> {
        let bad = || NodeError::Load("a record of a claim".into());
        let mut claims = HashMap::new();
        for (_, bytes) in journal.loaded(key::CLAIM) {
            let claim = Claim::decode(&bytes[..]).map_err(|_| bad())?;
            claims.insert(claim.hash().ok_or_else(bad)?, claim);
        }
        Ok(Claims { claims })
    }

    pub fn contains(&self, hash: &PaymentHash) -> bool {
        self.claims.contains_key(hash)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.claims.values()
    }

    // -- LDK's events.

    /// LDK's `PaymentClaimable`: all parts of a payment are there.
    pub fn claimable(&mut self, turn: &Turn, payments: &mut Payments, event: Event) {
        let Event::PaymentClaimable {
            payment_hash,
            amount_msat,
            purpose,
            receiving_channel_ids,
            claim_deadline,
            ..
        } = event
        else {
            return;
        };
        // Nobody asked for a spontaneous payment: strangers could fill the store with them, at a satoshi each.
        // BOLT 4: nobody is paid twice for one invoice. LDK would leave it there, and an HTLC that nobody settles would
        // keep the phone awake until its deadline.
        let is_spontaneous = matches!(purpose, PaymentPurpose::SpontaneousPayment(_));
        if is_spontaneous && !turn.config.accepts_keysend {
            return turn.ldk.manager.fail_htlc_backwards(&payment_hash);
        }
        if payments.was_received(&payment_hash) {
            return turn.ldk.manager.fail_htlc_backwards(&payment_hash);
        }
        payments.update(turn, payment_hash, false, |it| it.amount_msat = amount_msat);
        if let Some(preimage) = purpose.preimage() {
            return self.claim(turn, payments, payment_hash, preimage);
        }
        let Some(remote) = turn.remote() else {
            return turn.ldk.manager.fail_htlc_backwards(&payment_hash);
        };
        let listed = parts_of(turn, &payment_hash);
        let channels = receiving_channel_ids.iter();
        let ids: Vec<ChannelId> = channels.map(|(channel_id, _)| *channel_id).collect();
        let parts = in_order(&ids, listed, amount_msat, claim_deadline);
        let mut claim = Claim {
            payment_hash: payment_hash.0.to_vec(),
            amount_msat,
            claim_deadline: claim_deadline.unwrap_or_default(),
            ..Claim::default()
        };
        for ((_, user_channel_id), part) in receiving_channel_ids.iter().zip(parts) {
            let keys_id = user_channel_id.and_then(|id| remote.keys_id_of(id));
            claim.channel_ids.push(part.channel_id.0.to_vec());
            claim.htlcs.push(ClaimableHtlc {
                channel_keys_id: keys_id.unwrap_or_default().to_vec(),
                amount_msat: part.amount_msat,
                cltv_expiry: part.cltv_expiry,
            });
        }
        turn.journal.put(claim.key(), claim.encode_to_vec());
        self.claims.insert(payment_hash, claim);
    }

    /// LDK's `PaymentClaimed`. It comes again when the node is loaded while a channel of the payment is still closing.
    pub fn claimed(&mut self, turn: &Turn, payments: &mut Payments, event: Event) {
        let Event::PaymentClaimed {
            payment_hash,
            amount_msat,
            purpose,
            ..
        } = event
        else {
            return;
        };
        if let Some(claim) = self.claims.get_mut(&payment_hash) {
            claim.claimed = true;
            turn.journal.put(claim.key(), claim.encode_to_vec());
        }
        payments.update(turn, payment_hash, false, |payment| {
            payment.amount_msat = amount_msat;
            if !payment.failure.starts_with(DEADLINE_MISSED) {
                payment.state = State::Succeeded.into();
                payment.failure.clear();
            }
            if let Some(preimage) = purpose.preimage() {
                payment.preimage = preimage.0.to_vec();
            }
        });
    }

    // -- The preimage.

    /// Asks the phone for preimages, and gives LDK those that have come.
    pub fn advance(&mut self, turn: &Turn, payments: &mut Payments) {
        let Some(remote) = turn.remote() else {
            return;
        };
        self.fail_back_late(turn, payments);
        let claims = self.claims.iter();
        let waiting = claims.filter(|(hash, _)| !payments.has_preimage(hash));
        let waiting: Vec<(PaymentHash, GetPreimage)> = waiting
            .map(|(hash, claim)| {
                let op = GetPreimage {
                    payment_hash: claim.payment_hash.clone(),
                    htlcs: claim.htlcs.clone(),
                };
                (*hash, op)
            })
            .collect();
        for (hash, op) in waiting {
            match remote.ask_owner(Op::GetPreimage(op)) {
                Asked::Waiting | Asked::Refused(Refusal { retry: true, .. }) => {}
                Asked::Refused(no) => {
                    let reason = format!("the phone refuses it: {}", no.message);
                    self.end(turn, payments, hash, ClaimEnd::FailBack(reason));
                }
                Asked::Answer(answer) => match preimage_of(&answer, &hash) {
                    Some(preimage) => self.claim(turn, payments, hash, preimage),
                    None => {
                        let end = ClaimEnd::FailBack(NO_PREIMAGE.into());
                        self.end(turn, payments, hash, end);
                    }
                },
            }
        }
    }

    /// Gives LDK a preimage, and lets the gate send its fulfils ahead.
    fn claim(
        &mut self,
        turn: &Turn,
        payments: &mut Payments,
        payment_hash: PaymentHash,
        preimage: PaymentPreimage,
    ) {
        turn.ldk.manager.claim_funds(preimage);
        payments.update(turn, payment_hash, false, |payment| {
            payment.preimage = preimage.0.to_vec();
        });
        if let Some(claim) = self.claims.get(&payment_hash) {
            let channels = claim.channels();
            turn.ldk.gate.claimed(preimage, payment_hash, channels);
        }
    }

    // -- The end.

    /// Fails payments back whose preimage is not here when LDK takes none any more. A phone that is asked later would give
    /// away a preimage that nobody can claim with. Of a payment in parts LDK itself fails those whose time is over and
    /// leaves the others, with which it can do nothing.
    pub fn fail_back_late(&mut self, turn: &Turn, payments: &mut Payments) {
        let late = |(hash, claim): (&PaymentHash, &Claim)| {
            let deadline = claim.deadline()?;
            let is_late = turn.height >= deadline && !payments.has_preimage(hash);
            is_late.then_some((*hash, deadline))
        };
        let late: Vec<(PaymentHash, u32)> = self.claims.iter().filter_map(late).collect();
        for (hash, deadline) in late {
            let reason = format!(
                "the phone did not give its preimage before block {deadline}: it goes back to its payer"
            );
            self.end(turn, payments, hash, ClaimEnd::FailBack(reason));
        }
    }

    /// Ends claims whose HTLCs LDK has failed back: their preimage never came, or LDK did not take it.
    pub fn end_failed_back(&mut self, turn: &Turn, payments: &mut Payments) {
        if self.claims.is_empty() {
            return;
        }
        let channels = turn.channels();
        let is_failed_back = |(hash, claim): &(&PaymentHash, &Claim)| {
            let is_late = claim.deadline().is_some_and(|it| turn.height >= it);
            let waits = !payments.has_preimage(hash) || (is_late && !claim.claimed);
            let mut ids = claim.channel_ids();
            waits
                && !is_in_a_channel(&channels, hash)
                && ids.all(|id| find(&channels, &id).is_some())
        };
        let claims = self.claims.iter().filter(is_failed_back);
        let failed_back: Vec<PaymentHash> = claims.map(|(hash, _)| *hash).collect();
        for hash in failed_back {
            self.end(turn, payments, hash, ClaimEnd::FailedBack);
        }
    }

    /// Ends claims whose HTLCs have left their channels.
    pub fn end_settled(&mut self, turn: &Turn, payments: &mut Payments) {
        if self.claims.values().any(|claim| claim.claimed) {
            let channels = turn.channels();
            let settled = self.claims_that(|claim| {
                let mut ids = claim.channel_ids();
                claim.claimed && ids.all(|id| is_settled(turn, find(&channels, &id), claim))
            });
            self.end_all(turn, payments, settled);
        }
    }

    /// Ends claims in closed channels of which nothing is left on chain either.
    pub fn end_resolved(&mut self, turn: &Turn, payments: &mut Payments) {
        if self.claims.is_empty() {
            return;
        }
        let channels = turn.channels();
        let is_resolved = |id: &ChannelId| {
            let monitor = turn.ldk.chain_monitor.get_monitor(*id);
            monitor.map_or(true, |monitor| monitor.get_claimable_balances().is_empty())
        };
        let resolved = self.claims_that(|claim| {
            let is_over = |id: ChannelId| match find(&channels, &id) {
                Some(channel) => is_settled(turn, Some(channel), claim),
                None => is_resolved(&id),
            };
            let mut ids = claim.channel_ids();
            let has_closed = ids.any(|id| find(&channels, &id).is_none());
            has_closed && claim.channel_ids().all(is_over)
        });
        self.end_all(turn, payments, resolved);
    }

    fn claims_that(&self, is_over: impl Fn(&Claim) -> bool) -> Vec<PaymentHash> {
        let claims = self.claims.iter().filter(|(_, claim)| is_over(claim));
        claims.map(|(hash, _)| *hash).collect()
    }

    fn end_all(&mut self, turn: &Turn, payments: &mut Payments, over: Vec<PaymentHash>) {
        for hash in over {
            let end = match self.claims.get(&hash) {
                Some(claim) if claim.claimed => ClaimEnd::Settled,
                _ => ClaimEnd::FailedBack,
            };
            self.end(turn, payments, hash, end);
        }
    }

    fn end(&mut self, turn: &Turn, payments: &mut Payments, hash: PaymentHash, end: ClaimEnd) {
        if let Some(claim) = self.claims.remove(&hash) {
            turn.journal.delete(claim.key());
        }
        let failure = match end {
            ClaimEnd::Settled => return,
            ClaimEnd::FailedBack => NOT_IN_TIME.to_owned(),
            ClaimEnd::FailBack(reason) => {
                turn.ldk.manager.fail_htlc_backwards(&hash);
                reason
            }
        };
        payments.update(turn, hash, false, |payment| {
            let is_given = !payment.preimage.is_empty();
            if is_given && payment.state() != State::Pending {
                return;
            }
            payment.state = State::Failed.into();
            payment.failure = match is_given {
                true => GIVEN_TOO_LATE.to_owned(),
                false => failure,
            };
        });
    }

    // -- On chain.

    /// Looks for transactions that spend HTLCs of closed channels, and reports HTLCs that the peer has taken back.
    pub fn find_spends<'a>(
        &mut self,
        turn: &mut Turn,
        payments: &mut Payments,
        txs: impl Iterator<Item = &'a Transaction>,
    ) {
        if self.claims.is_empty() {
            return;
        }
        for input in txs.flat_map(|tx| &tx.input) {
            let taken_back = match HTLCClaim::from_witness(&input.witness) {
                Some(HTLCClaim::OfferedTimeout | HTLCClaim::AcceptedTimeout) => true,
                Some(HTLCClaim::OfferedPreimage | HTLCClaim::AcceptedPreimage) => false,
                Some(HTLCClaim::Revocation) | None => continue,
            };
            let script = input.witness.last().unwrap_or_default();
            let hash = self.claims.keys().find(|hash| is_in(hash, script)).copied();
            if let Some(hash) = hash {
                let outpoint = input.previous_output.to_string();
                self.htlc_spent(turn, payments, hash, &outpoint, taken_back);
            }
        }
    }

    /// After a reorganisation the HTLC may be spent by the other side after all.
    fn htlc_spent(
        &mut self,
        turn: &mut Turn,
        payments: &mut Payments,
        hash: PaymentHash,
        outpoint: &str,
        taken_back: bool,
    ) {
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
                turn.output.events.push(NodeEvent::HtlcLost {
                    payment_hash: hash.0,
                    amount_msat: lost.amount_msat,
                    deadline_height: lost.cltv_expiry,
                });
                claim.lost.push(lost);
            }
            (false, Some(known)) => drop(claim.lost.remove(known)),
            _ => return,
        }
        turn.journal.put(claim.key(), claim.encode_to_vec());
        let failure = claim.loss();
        payments.update(turn, hash, false, |payment| {
            let state = match failure {
                Some(_) => State::Failed,
                None => State::Succeeded,
            };
            payment.state = state.into();
            payment.failure = failure.unwrap_or_default();
        });
    }
}

impl Claim {
    /// Heights before which the phone is needed for HTLCs in closed channels.
    pub fn deadlines_in_closed(&self, open: &[ChannelDetails]) -> Vec<u32> {
        let htlcs = self.channel_ids().zip(&self.htlcs);
        let closed = htlcs.filter(|(id, _)| find(open, id).is_none());
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
        let first = expiries.filter(|expiry| *expiry > 0).min();
        first.map(fail_back_height)
    }

    /// The loss, for the owner; `None` when no HTLC is lost.
    fn loss(&self) -> Option<String> {
        let deadline = self.lost.iter().map(|lost| lost.cltv_expiry).min()?;
        let lost_msat = self.lost.iter().map(|lost| lost.amount_msat);
        let lost_msat = lost_msat.fold(0, u64::saturating_add);
        Some(format!(
            "{DEADLINE_MISSED}: {} sat of this payment were lost: the phone had to be there to claim them before block \
             {deadline}, the channel was closed, and the peer took them back on chain",
            lost_msat / 1000
        ))
    }
}

fn preimage_of(answer: &Answer, hash: &PaymentHash) -> Option<PaymentPreimage> {
    let Answer::Preimage(bytes) = answer else {
        return None;
    };
    let preimage = PaymentPreimage(<[u8; 32]>::try_from(&bytes[..]).ok()?);
    (PaymentHash::from(preimage) == *hash).then_some(preimage)
}

fn find<'a>(open: &'a [ChannelDetails], id: &ChannelId) -> Option<&'a ChannelDetails> {
    open.iter().find(|channel| channel.channel_id == *id)
}

/// Whether an open channel has an HTLC of the payment that is not on its way out.
fn is_in_a_channel(open: &[ChannelDetails], hash: &PaymentHash) -> bool {
    let failing = Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFail);
    let mut htlcs = open
        .iter()
        .flat_map(|channel| &channel.pending_inbound_htlcs);
    htlcs.any(|htlc| htlc.payment_hash == *hash && htlc.state != failing)
}

/// True when the channel is open and has no HTLC of the payment.
fn is_settled(turn: &Turn, channel: Option<&ChannelDetails>, claim: &Claim) -> bool {
    channel.is_some_and(|channel| {
        let mut htlcs = incoming(turn, channel).into_iter();
        htlcs.all(|htlc| htlc.payment_hash.0[..] != claim.payment_hash[..])
    })
}

/// Whether the script is one of an HTLC with this payment hash (BOLT 3: it has the hash of the hash).
fn is_in(hash: &PaymentHash, script: &[u8]) -> bool {
    let hash = ripemd160::Hash::hash(&hash.0).to_byte_array();
    script.windows(hash.len()).any(|part| part == hash)
}

/// An HTLC of an incoming payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    channel_id: ChannelId,
    amount_msat: u64,
    cltv_expiry: u32,
}

/// The HTLCs of a payment in channels that are open.
fn parts_of(turn: &Turn, payment_hash: &PaymentHash) -> Vec<Part> {
    // One of an earlier attempt may be on its way out.
    let committed = Some(InboundHTLCStateDetails::Committed);
    let is_part =
        |htlc: &&InboundHTLCDetails| htlc.payment_hash == *payment_hash && htlc.state == committed;
    let mut parts = Vec::new();
    for channel in turn.channels() {
        let htlcs = channel.pending_inbound_htlcs.iter().filter(is_part);
        parts.extend(htlcs.map(|htlc| Part {
            channel_id: channel.channel_id,
            amount_msat: htlc.amount_msat,
            cltv_expiry: htlc.cltv_expiry,
        }));
    }
    parts
}

/// The parts of a payment in the order of its channels, of which one may be there several times. A channel that was closed
/// before the last part came is not listed: its part is the rest of the amount, and expires no earlier than LDK says.
fn in_order(
    channels: &[ChannelId],
    mut listed: Vec<Part>,
    amount_msat: u64,
    claim_deadline: Option<u32>,
) -> Vec<Part> {
    let known = listed.iter().map(|part| part.amount_msat);
    let mut left_msat = amount_msat.saturating_sub(known.fold(0, u64::saturating_add));
    let parts = channels.iter().map(|channel_id| {
        let at = listed
            .iter()
            .position(|part| part.channel_id == *channel_id);
        match at {
            Some(at) => listed.remove(at),
            None => Part {
                channel_id: *channel_id,
                amount_msat: std::mem::take(&mut left_msat),
                cltv_expiry: claim_deadline.map_or(0, expiry_of),
            },
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(channel: u8, amount_msat: u64, cltv_expiry: u32) -> Part {
        Part {
            channel_id: ChannelId([channel; 32]),
            amount_msat,
            cltv_expiry,
        }
    }

    #[test]
    fn each_part_of_a_payment_has_an_expiry_of_its_own_though_two_are_in_one_channel() {
        let listed = vec![part(1, 20, 200), part(1, 30, 190), part(2, 40, 210)];
        let channels = [1, 2, 1].map(|channel| ChannelId([channel; 32]));
        let parts = in_order(&channels, listed, 90, Some(151));
        assert_eq!(
            parts,
            [part(1, 20, 200), part(2, 40, 210), part(1, 30, 190)]
        );
    }

    #[test]
    fn a_part_in_a_channel_that_was_closed_meanwhile_has_the_rest_and_an_expiry() {
        let channels = [1, 2].map(|channel| ChannelId([channel; 32]));
        let parts = in_order(&channels, vec![part(2, 40, 210)], 90, Some(151));
        assert_eq!(parts, [part(1, 50, 190), part(2, 40, 210)]);
    }

    fn claim(claim_deadline: u32, expiries: &[u32]) -> Claim {
        let htlc = |expiry: &u32| ClaimableHtlc {
            cltv_expiry: *expiry,
            ..ClaimableHtlc::default()
        };
        let id = |number| vec![number; 32];
        Claim {
            htlcs: expiries.iter().map(htlc).collect(),
            channel_ids: (1..).map(id).take(expiries.len()).collect(),
            claim_deadline,
            ..Claim::default()
        }
    }

    #[test]
    fn the_part_that_expires_first_decides_until_when_a_preimage_may_be_given() {
        // The second is a record without the deadline.
        for mut claim in [claim(151, &[200, 190]), claim(0, &[200, 190])] {
            assert_eq!(claim.deadline(), Some(151));
            assert_eq!(claim.deadlines_in_closed(&[]), [151, 151]);
            claim.claimed = true;
            assert_eq!(claim.deadlines_in_closed(&[]), [200, 190]);
        }
        assert_eq!(claim(0, &[0]).deadline(), None);
    }
}

#[cfg(test)]
#[path = "tests/claims.rs"]
mod stories;
