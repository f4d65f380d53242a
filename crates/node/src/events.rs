//! What LDK's events mean to a node.

use bitcoin::secp256k1::PublicKey;
use lightning::chain::transaction::OutPoint;
use lightning::events::{Event, PaymentPurpose};
use lightning::ln::channel_state::{InboundHTLCDetails, InboundHTLCStateDetails};
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use longhand_proto::command::{ClosedChannel, Payment, payment};
use longhand_proto::signer::ClaimableHtlc;
use prost::Message;

use crate::PeerNeeded;
use crate::core::{Core, unix_s};
use crate::deadlines::{DEADLINE_MISSED, expiry_of};
use crate::journal::lock;
use crate::records::Claim;

/// Kept on chain when a channel is funded, to pay for closing it.
pub(crate) const ANCHOR_RESERVE_SAT: u64 = 10_000;

impl Core {
    /// Acts on one event. What must last goes into the journal, so that it is committed together with
    /// LDK's own record that the event was handled.
    pub fn on_event(&mut self, event: Event, held: &mut Vec<PeerNeeded>) {
        match event {
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                user_channel_id,
            } => self.fund(
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                user_channel_id,
            ),
            Event::FundingTxBroadcastSafe {
                channel_id,
                user_channel_id,
                funding_txo,
                ..
            } => {
                let height = self.height;
                self.update_open(user_channel_id, |open| {
                    open.safe = true;
                    open.safe_height = height;
                    open.channel_id = channel_id.0.to_vec();
                    open.funding_outpoint = funding_txo.to_string();
                });
            }
            Event::ChannelReady {
                user_channel_id, ..
            } => {
                self.update_open(user_channel_id, |open| open.ready = true);
            }
            Event::ChannelClosed {
                channel_id,
                user_channel_id,
                reason,
                counterparty_node_id,
                channel_capacity_sats,
                channel_funding_txo,
                ..
            } => {
                self.put_closed(ClosedChannel {
                    channel_id: channel_id.0.to_vec(),
                    counterparty_node_id: counterparty_node_id
                        .map(|id| id.serialize().to_vec())
                        .unwrap_or_default(),
                    funding_outpoint: channel_funding_txo
                        .map(|txo| txo.into_bitcoin_outpoint().to_string())
                        .unwrap_or_default(),
                    capacity_sat: channel_capacity_sats.unwrap_or_default(),
                    reason: reason.to_string(),
                    closed_unix_s: unix_s(),
                    closing_txid: String::new(),
                });
                self.gate.forget_channel(&channel_id);
                if let Some(remote) = self.remote() {
                    remote.forget_channel(user_channel_id);
                }
                tracing::info!("a channel was closed: {reason}");
                self.open_failed(user_channel_id, "CHANNEL_CLOSED", &reason.to_string());
            }
            Event::OpenChannelRequest {
                temporary_channel_id,
                counterparty_node_id,
                ..
            } => {
                self.requests
                    .push((temporary_channel_id, counterparty_node_id));
                self.accept_channels();
            }
            Event::PaymentClaimable {
                payment_hash,
                amount_msat,
                purpose,
                receiving_channel_ids,
                claim_deadline,
                ..
            } => self.claimable(
                payment_hash,
                amount_msat,
                &purpose,
                &receiving_channel_ids,
                claim_deadline,
            ),
            Event::PaymentClaimed {
                payment_hash,
                amount_msat,
                purpose,
                ..
            } => {
                if let Some(claim) = self.claims.get_mut(&payment_hash) {
                    claim.claimed = true;
                    self.journal.put(claim.key(), claim.encode_to_vec());
                }
                let preimage = purpose.preimage();
                self.update_payment(payment_hash, false, |payment| {
                    payment.amount_msat = amount_msat;
                    // LDK tells it again when it is loaded while the channel is still closing.
                    if !payment.failure.starts_with(DEADLINE_MISSED) {
                        payment.state = payment::State::Succeeded.into();
                        payment.failure.clear();
                    }
                    if let Some(preimage) = preimage {
                        payment.preimage = preimage.0.to_vec();
                    }
                });
            }
            Event::PaymentSent {
                payment_preimage,
                payment_hash,
                fee_paid_msat,
                ..
            } => {
                self.update_payment(payment_hash, true, |payment| {
                    payment.state = payment::State::Succeeded.into();
                    payment.preimage = payment_preimage.0.to_vec();
                    payment.fee_msat = fee_paid_msat.unwrap_or_default();
                });
            }
            Event::PaymentFailed {
                payment_id,
                payment_hash,
                reason,
            } => {
                let hash = payment_hash.unwrap_or(PaymentHash(payment_id.0));
                let reason = reason.map_or("no reason given".to_owned(), |r| format!("{r:?}"));
                self.update_payment(hash, true, |payment| {
                    payment.state = payment::State::Failed.into();
                    payment.failure = reason;
                });
            }
            Event::SpendableOutputs {
                outputs,
                channel_id,
                counterparty_node_id,
            } => {
                // Static outputs pay to the on-chain wallet, which finds them by itself.
                let tracked = self.sweeper.track_spendable_outputs(
                    outputs,
                    channel_id,
                    counterparty_node_id,
                    true,
                    None,
                );
                if tracked.is_err() {
                    tracing::error!("outputs of a closed channel could not be kept for sweeping");
                }
            }
            Event::BumpTransaction(event) => self.bumps.ask(event),
            Event::HTLCIntercepted {
                intercept_id,
                requested_next_hop_scid,
                expected_outbound_amount_msat,
                outgoing_htlc_expiry_block_height,
                ..
            } => held.extend(self.hold(
                intercept_id,
                requested_next_hop_scid,
                expected_outbound_amount_msat,
                outgoing_htlc_expiry_block_height,
            )),
            Event::PaymentPathSuccessful { path, .. } => self.score(|scorer| {
                use lightning::routing::scoring::ScoreUpdate;
                scorer.payment_path_successful(&path, since_1970());
            }),
            Event::PaymentPathFailed {
                path,
                short_channel_id: Some(scid),
                ..
            } => {
                self.score(|scorer| {
                    use lightning::routing::scoring::ScoreUpdate;
                    scorer.payment_path_failed(&path, scid, since_1970());
                });
            }
            _ => {}
        }
    }

    fn score(&self, update: impl FnOnce(&mut crate::graph::Scorer)) {
        let scorer = self.services.graph.scorer();
        update(
            &mut scorer
                .write()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
    }

    fn fund(
        &mut self,
        temporary_channel_id: ChannelId,
        counterparty: PublicKey,
        amount_sat: u64,
        script: bitcoin::ScriptBuf,
        user_channel_id: u128,
    ) {
        let feerate = self.services.chain.fee_rates().normal;
        let psbt = lock(&self.wallet).fund(script.clone(), amount_sat, feerate, ANCHOR_RESERVE_SAT);
        let psbt = match psbt {
            Ok(psbt) => psbt,
            Err(error) => {
                self.open_failed(user_channel_id, error.code(), &error.to_string());
                return self.abandon(&temporary_channel_id, &counterparty, &error.to_string());
            }
        };
        let tx = &psbt.unsigned_tx;
        let vout = tx
            .output
            .iter()
            .position(|output| output.script_pubkey == script);
        let index = vout
            .and_then(|vout| u16::try_from(vout).ok())
            .unwrap_or_default();
        let outpoint = OutPoint {
            txid: tx.compute_txid(),
            index,
        };
        self.update_open(user_channel_id, |open| open.psbt = psbt.serialize());
        let told = self.manager.unsafe_manual_funding_transaction_generated(
            temporary_channel_id,
            counterparty,
            outpoint,
        );
        if let Err(error) = told {
            self.open_failed(user_channel_id, "CHANNEL_CLOSED", &format!("{error:?}"));
        }
    }

    /// Gives up a channel that has no funding yet.
    fn abandon(&self, channel_id: &ChannelId, counterparty: &PublicKey, reason: &str) {
        let _ = self.manager.force_close_broadcasting_latest_txn(
            channel_id,
            counterparty,
            reason.to_owned(),
        );
    }

    /// Accepts the channels that peers have asked for, as far as there are keys for them. The others wait for the phone
    /// to give more; LDK gives them up after a while.
    pub fn accept_channels(&mut self) {
        for (temporary_channel_id, counterparty) in std::mem::take(&mut self.requests) {
            let user_channel_id = self.random_channel_id();
            if let Some(remote) = self.remote()
                && remote.reserve(user_channel_id, counterparty).is_none()
            {
                self.requests.push((temporary_channel_id, counterparty));
                continue;
            }
            self.accept_channel(temporary_channel_id, counterparty, user_channel_id);
        }
    }

    fn accept_channel(
        &mut self,
        temporary_channel_id: ChannelId,
        counterparty: PublicKey,
        user_channel_id: u128,
    ) {
        let accepted = self.manager.accept_inbound_channel(
            &temporary_channel_id,
            &counterparty,
            user_channel_id,
            None,
        );
        if let Err(error) = accepted {
            tracing::info!("a channel was not accepted: {error:?}");
            if let Some(remote) = self.remote() {
                remote.forget_channel(user_channel_id);
            }
        }
    }

    fn claimable(
        &mut self,
        payment_hash: PaymentHash,
        amount_msat: u64,
        purpose: &PaymentPurpose,
        channels: &[(ChannelId, Option<u128>)],
        claim_deadline: Option<u32>,
    ) {
        // BOLT 4: nobody is paid twice for one invoice. LDK would let it be, and an HTLC that nobody settles would bring the
        // phone to its deadline.
        let known = self.payments.get(&payment_hash);
        if known.is_some_and(|payment| !payment.outbound && !payment.preimage.is_empty()) {
            return self.manager.fail_htlc_backwards(&payment_hash);
        }
        self.update_payment(payment_hash, false, |payment| {
            payment.amount_msat = amount_msat
        });
        if let Some(preimage) = purpose.preimage() {
            return self.claim(payment_hash, preimage);
        }
        let Some(remote) = self.remote() else {
            return self.manager.fail_htlc_backwards(&payment_hash);
        };
        let listed = self.parts_of(&payment_hash);
        let ids: Vec<ChannelId> = channels.iter().map(|(channel_id, _)| *channel_id).collect();
        let parts = in_order(&ids, listed, amount_msat, claim_deadline);
        let mut claim = Claim {
            payment_hash: payment_hash.0.to_vec(),
            amount_msat,
            claim_deadline: claim_deadline.unwrap_or_default(),
            ..Claim::default()
        };
        for ((_, user_channel_id), part) in channels.iter().zip(parts) {
            let keys_id = user_channel_id
                .and_then(|id| remote.keys_id_of(id))
                .unwrap_or_default();
            claim.channel_ids.push(part.channel_id.0.to_vec());
            claim.htlcs.push(ClaimableHtlc {
                channel_keys_id: keys_id.to_vec(),
                amount_msat: part.amount_msat,
                cltv_expiry: part.cltv_expiry,
            });
        }
        self.journal.put(claim.key(), claim.encode_to_vec());
        self.claims.insert(payment_hash, claim);
    }

    /// The HTLCs of a payment in channels that are open.
    fn parts_of(&self, payment_hash: &PaymentHash) -> Vec<Part> {
        use InboundHTLCStateDetails::Committed;
        let mut parts = Vec::new();
        for channel in self.manager.list_channels() {
            let htlcs = channel.pending_inbound_htlcs.iter();
            // One of an earlier attempt may be on its way out.
            let is_part = |htlc: &&InboundHTLCDetails| {
                htlc.payment_hash == *payment_hash && htlc.state == Some(Committed)
            };
            let htlcs = htlcs.filter(is_part);
            parts.extend(htlcs.map(|htlc| Part {
                channel_id: channel.channel_id,
                amount_msat: htlc.amount_msat,
                cltv_expiry: htlc.cltv_expiry,
            }));
        }
        parts
    }

    /// Gives LDK a preimage, and the gate leave to send it ahead.
    pub fn claim(&mut self, payment_hash: PaymentHash, preimage: PaymentPreimage) {
        self.manager.claim_funds(preimage);
        self.update_payment(payment_hash, false, |payment| {
            payment.preimage = preimage.0.to_vec()
        });
        if let Some(claim) = self.claims.get(&payment_hash) {
            self.gate.claimed(preimage, payment_hash, claim.channels());
        }
    }

    /// Changes the record of a payment, or begins it.
    pub fn update_payment(
        &mut self,
        hash: PaymentHash,
        outbound: bool,
        change: impl FnOnce(&mut Payment),
    ) {
        let payment = self.payments.entry(hash).or_insert_with(|| Payment {
            payment_hash: hash.0.to_vec(),
            outbound,
            state: payment::State::Pending.into(),
            created_unix_s: unix_s(),
            ..Payment::default()
        });
        change(payment);
        let key = format!("pay/{}", crate::hex::hex(&hash.0));
        self.journal.put(key, payment.encode_to_vec());
    }
}

/// An HTLC of an incoming payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    channel_id: ChannelId,
    amount_msat: u64,
    cltv_expiry: u32,
}

/// The parts of a payment in the order of its channels, of which one may be there several times. A channel that was closed
/// before the last part came is not listed: its part is what is left of the amount, and expires no earlier than LDK says.
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

fn since_1970() -> std::time::Duration {
    std::time::Duration::from_secs(unix_s())
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
}
