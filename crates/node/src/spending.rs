//! What takes more than one turn and needs the owner's signature: opening channels, sending on chain,
//! claiming payments.
//!
//! Each is a record with a state. [`Core::advance`] looks at all of them in every turn and does what can be
//! done now; an interrupted one is taken up again after a restart or when the phone is back.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Psbt, Transaction};
use lightning::ln::channel_state::InboundHTLCStateDetails;
use lightning::ln::types::ChannelId;
use lightning::sign::EntropySource;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use longhand_proto::command::OpenChannel;
use longhand_proto::command::payment::State;
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{GetPreimage, Refusal, SignPsbt};
use prost::Message;

use crate::core::Core;
use crate::journal::lock;
use crate::keys::desk::Asked;
use crate::ldk::user_config;
use crate::records::{Claim, Open, Send};

/// A peer forgets a channel whose funding is in no block 2,016 blocks after it has accepted it (BOLT 2). The phone has half
/// of that to sign it, and the miners the rest.
const FUNDING_BLOCKS: u32 = 1_008;

/// What a payment says that was not claimed.
pub(crate) const NOT_IN_TIME: &str = "the phone did not give its preimage in time";
const GIVEN_TOO_LATE: &str = "its preimage came when it could be claimed no more";
const NO_PREIMAGE: &str = "the phone gave something else than its preimage";

/// What came of asking for a signed transaction.
enum Signed {
    Transaction(Box<Transaction>),
    Failed(String),
    Waiting,
}

impl Core {
    /// Does what can be done now. Signers are asked only while one is attached.
    pub fn advance(&mut self) {
        self.accept_channels();
        self.advance_opens();
        self.advance_sends();
        self.advance_claims();
        self.retry_bumps();
    }

    /// A channel id that was never used.
    pub fn random_channel_id(&self) -> u128 {
        let bytes = self.keys.get_secure_random_bytes();
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        u128::from_be_bytes(id)
    }

    /// True when the peer is connected and has said `init`.
    pub fn is_connected(&self, node_id: &PublicKey) -> bool {
        self.peer_manager.peer_by_node_id(node_id).is_some()
    }

    // -- Opening channels.

    /// Begins an opening; the rest happens in [`Core::advance`].
    pub fn begin_open(&mut self, id: u128, request: OpenChannel) {
        let open = Open {
            request: Some(request),
            ..Open::default()
        };
        self.journal.put(open.key(), open.encode_to_vec());
        self.opens.insert(id, open);
    }

    /// Changes an opening that has not failed.
    pub fn update_open(&mut self, id: u128, change: impl FnOnce(&mut Open)) {
        let Some(open) = self.opens.get_mut(&id) else {
            return;
        };
        if !open.has_failed() {
            change(open);
            self.journal.put(open.key(), open.encode_to_vec());
        }
    }

    /// Ends an opening, unless its channel has come to life already.
    pub fn open_failed(&mut self, id: u128, code: &str, reason: &str) {
        let Some(open) = self.opens.get(&id) else {
            return;
        };
        if open.broadcast || open.has_failed() {
            return;
        }
        if let Some(psbt) = open.psbt() {
            lock(&self.wallet).release(&psbt.unsigned_tx);
        }
        self.update_open(id, |open| {
            open.failure_code = code.to_owned();
            open.failure = reason.to_owned();
        });
    }

    /// After a start: LDK keeps no channel whose funding was not safe yet.
    pub fn fail_interrupted_opens(&mut self) {
        let alive: Vec<u128> = self
            .manager
            .list_channels()
            .iter()
            .map(|channel| channel.user_channel_id)
            .collect();
        let interrupted: Vec<u128> = self
            .opens
            .iter()
            .filter(|(id, open)| open.created && !open.broadcast && !alive.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in interrupted {
            self.open_failed(
                id,
                "INTERRUPTED",
                "the host stopped before the channel was funded",
            );
        }
    }

    fn advance_opens(&mut self) {
        let waiting: Vec<u128> = self
            .opens
            .iter()
            .filter(|(_, open)| !open.broadcast && !open.has_failed())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.advance_open(id);
        }
    }

    fn advance_open(&mut self, id: u128) {
        let Some(open) = self.opens.get(&id) else {
            return;
        };
        if !open.created {
            return self.create_channel(id);
        }
        let keys_id = self.remote().and_then(|remote| remote.keys_id_of(id));
        let refusal = keys_id.and_then(|keys_id| self.remote()?.setup_refusal(&keys_id));
        if let Some(reason) = refusal {
            self.open_failed(id, "SIGNER_REFUSED", &reason);
            return self.abandon_open(id, &reason);
        }
        if !open.safe {
            return;
        }
        if self.height.saturating_sub(open.safe_height) > FUNDING_BLOCKS {
            let reason = format!(
                "the phone did not sign the funding within {FUNDING_BLOCKS} blocks, and the peer may have forgotten the \
                 channel: nothing was spent; open another"
            );
            self.open_failed(id, "EXPIRED", &reason);
            return self.abandon_open(id, &reason);
        }
        let Some(psbt) = open.psbt() else { return };
        match self.sign_wallet_psbt(&psbt, Purpose::Funding, keys_id) {
            Signed::Waiting => {}
            Signed::Failed(reason) => {
                self.open_failed(id, "SIGNER_REFUSED", &reason);
                self.abandon_open(id, &reason);
            }
            Signed::Transaction(tx) => {
                self.broadcaster.push(vec![*tx]);
                self.update_open(id, |open| {
                    open.broadcast = true;
                    open.psbt = Vec::new();
                });
            }
        }
    }

    fn abandon_open(&self, id: u128, reason: &str) {
        for channel in self.manager.list_channels() {
            if channel.user_channel_id == id {
                let _ = self.manager.force_close_broadcasting_latest_txn(
                    &channel.channel_id,
                    &channel.counterparty.node_id,
                    reason.to_owned(),
                );
            }
        }
    }

    fn create_channel(&mut self, id: u128) {
        let Some(request) = self.opens.get(&id).and_then(|open| open.request.clone()) else {
            return;
        };
        let Ok(peer) = PublicKey::from_slice(&request.counterparty_node_id) else {
            return;
        };
        if !self.is_connected(&peer) {
            return;
        }
        if let Some(remote) = self.remote()
            && remote.reserve(id, peer).is_none()
        {
            return;
        }
        let mut config = user_config(self.config.is_hub);
        config.channel_handshake_config.announce_for_forwarding = request.announced;
        if self.config.hub == Some(peer) {
            // The side that does not pay picks the highest fee that the other would still pay to avoid a forced
            // close. The hub has the same fee rates as we do: nothing has to be offered on top.
            config.channel_config.force_close_avoidance_max_fee_satoshis = 0;
        }
        let created = self.manager.create_channel(
            peer,
            request.amount_sat,
            request.push_msat,
            id,
            None,
            Some(config),
        );
        match created {
            Ok(_) => self.update_open(id, |open| open.created = true),
            Err(error) => {
                self.open_failed(id, "CHANNEL_REFUSED", &format!("{error:?}"));
                if let Some(remote) = self.remote() {
                    remote.forget_channel(id);
                }
            }
        }
    }

    // -- Sending on chain.

    fn advance_sends(&mut self) {
        let waiting: Vec<Send> = self
            .sends
            .values()
            .filter(|send| send.txid.is_empty() && send.failure.is_empty())
            .cloned()
            .collect();
        for mut send in waiting {
            let Ok(psbt) = Psbt::deserialize(&send.psbt) else {
                continue;
            };
            match self.sign_wallet_psbt(&psbt, Purpose::Send, None) {
                Signed::Waiting => continue,
                Signed::Failed(reason) => {
                    lock(&self.wallet).release(&psbt.unsigned_tx);
                    send.failure = reason;
                }
                Signed::Transaction(tx) => {
                    send.txid = tx.compute_txid().to_string();
                    self.broadcaster.push(vec![*tx]);
                }
            }
            self.put_send(send);
        }
    }

    /// Keeps the record of an on-chain payment.
    pub fn put_send(&mut self, send: Send) {
        self.journal.put(send.key(), send.encode_to_vec());
        self.sends.insert(send.id.clone(), send);
    }

    fn sign_wallet_psbt(
        &self,
        unsigned: &Psbt,
        purpose: Purpose,
        keys_id: Option<[u8; 32]>,
    ) -> Signed {
        let wallet = lock(&self.wallet);
        let signed = match self.remote() {
            None => {
                let mut signed = unsigned.clone();
                wallet.sign_locally(&mut signed).map(|()| signed)
            }
            Some(remote) => {
                let op = Op::SignPsbt(SignPsbt {
                    psbt: unsigned.serialize(),
                    purpose: purpose.into(),
                });
                let asked = match keys_id {
                    Some(keys_id) => remote.ask_channel(keys_id, op),
                    None => remote.ask_owner(op),
                };
                match asked {
                    Asked::Waiting | Asked::Refused(Refusal { retry: true, .. }) => {
                        return Signed::Waiting;
                    }
                    Asked::Refused(refusal) => return Signed::Failed(refusal.message),
                    Asked::Answer(Answer::Psbt(bytes)) => match Psbt::deserialize(&bytes) {
                        Ok(psbt) => Ok(psbt),
                        Err(error) => return Signed::Failed(error.to_string()),
                    },
                    Asked::Answer(_) => {
                        return Signed::Failed("the signer gave something else".into());
                    }
                }
            }
        };
        match signed.and_then(|signed| wallet.finalize(&signed, unsigned)) {
            Ok(tx) => Signed::Transaction(Box::new(tx)),
            Err(error) => Signed::Failed(error.to_string()),
        }
    }

    // -- Claiming payments.

    fn advance_claims(&mut self) {
        let Some(remote) = self.remote().cloned() else {
            return;
        };
        self.give_back_late_claims();
        let waiting: Vec<PaymentHash> = self
            .claims
            .keys()
            .filter(|hash| self.waits_for_preimage(hash))
            .copied()
            .collect();
        for hash in waiting {
            let Some(claim) = self.claims.get(&hash) else {
                continue;
            };
            let op = GetPreimage {
                payment_hash: claim.payment_hash.clone(),
                htlcs: claim.htlcs.clone(),
            };
            match remote.ask_owner(Op::GetPreimage(op)) {
                Asked::Waiting | Asked::Refused(Refusal { retry: true, .. }) => {}
                Asked::Refused(no) => {
                    self.give_up_claim(hash, &format!("the phone refuses it: {}", no.message));
                }
                Asked::Answer(Answer::Preimage(bytes)) => {
                    let preimage = <[u8; 32]>::try_from(&bytes[..]).map(PaymentPreimage);
                    match preimage {
                        Ok(preimage) if PaymentHash::from(preimage) == hash => {
                            self.claim(hash, preimage);
                        }
                        _ => self.give_up_claim(hash, NO_PREIMAGE),
                    }
                }
                Asked::Answer(_) => self.give_up_claim(hash, NO_PREIMAGE),
            }
        }
    }

    fn waits_for_preimage(&self, hash: &PaymentHash) -> bool {
        let payment = self.payments.get(hash);
        payment.is_none_or(|payment| payment.preimage.is_empty())
    }

    /// Gives up payments whose preimage is not here when LDK stops taking it. A phone that is asked for one later would give
    /// away what nobody can claim any more. Of a payment in parts LDK itself fails those whose time has come and leaves the
    /// others, with which it can do nothing.
    pub fn give_back_late_claims(&mut self) {
        let late = |(hash, claim): (&PaymentHash, &Claim)| {
            let deadline = claim.deadline()?;
            let is_late = self.height >= deadline && self.waits_for_preimage(hash);
            is_late.then_some((*hash, deadline))
        };
        let late: Vec<(PaymentHash, u32)> = self.claims.iter().filter_map(late).collect();
        for (hash, deadline) in late {
            self.manager.fail_htlc_backwards(&hash);
            let failure = format!(
                "the phone did not give its preimage before block {deadline}: it goes back to its payer"
            );
            self.end_claim(hash, &failure);
        }
    }

    /// Gives up payments whose HTLCs LDK has failed back: because their preimage never came, or because LDK did not take it.
    pub fn drop_lost_claims(&mut self) {
        if self.claims.is_empty() {
            return;
        }
        let channels = self.manager.list_channels();
        let is_lost = |hash: &PaymentHash, claim: &Claim| {
            let is_late = claim.deadline().is_some_and(|it| self.height >= it);
            let waits = self.waits_for_preimage(hash) || (is_late && !claim.claimed);
            let open =
                |(id, _): &(ChannelId, _)| channels.iter().any(|channel| channel.channel_id == *id);
            let mut htlcs = channels
                .iter()
                .flat_map(|channel| &channel.pending_inbound_htlcs);
            let is_there = htlcs.any(|htlc| {
                let failing = Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFail);
                htlc.payment_hash == *hash && htlc.state != failing
            });
            waits && !is_there && claim.channels().iter().all(open)
        };
        let lost: Vec<PaymentHash> = self
            .claims
            .iter()
            .filter(|(hash, claim)| is_lost(hash, claim))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in lost {
            self.end_claim(hash, NOT_IN_TIME);
        }
    }

    fn give_up_claim(&mut self, hash: PaymentHash, failure: &str) {
        self.manager.fail_htlc_backwards(&hash);
        self.end_claim(hash, failure);
    }

    /// Ends a claim that has come to nothing.
    pub fn end_claim(&mut self, hash: PaymentHash, failure: &str) {
        if let Some(claim) = self.claims.remove(&hash) {
            self.journal.delete(claim.key());
        }
        self.update_payment(hash, false, |payment| {
            let is_given = !payment.preimage.is_empty();
            if is_given && payment.state() != State::Pending {
                return;
            }
            payment.state = State::Failed.into();
            payment.failure = match is_given {
                true => GIVEN_TOO_LATE.to_owned(),
                false => failure.to_owned(),
            };
        });
    }
}
