//! Intents: commands of the owner, recorded on the phone. They justify operations that reduce the owner's balance.
//!
//! A host cannot add an intent. An outgoing HTLC (`rules/outgoing.rs`), an on-chain payment (`rules/sends.rs`), an opening
//! (`rules/setups.rs`), a fee for a child of an incoming transaction or a funding
//! (`rules/bumps.rs`), an address for a close, and a close by force (`rules/closes.rs`, which also names the other reasons for one) are
//! signed only for one. A cooperative close to the owner's wallet needs none: a peer may begin one. The wish to close a channel by force
//! does not expire, until a cooperative close of it is asked for.
//!
//! An on-chain send and an opening have an id, which a node carries out once. The intent keeps it until the final result of the command
//! was delivered to the owner: when the same command comes before, the shell sends it with the same id.

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Txid};

use crate::engine::{Change, Recorded, Signer};
use crate::ledger::{KnownChannelIntent, entry};
use crate::rules::{Refused, Rule, outgoing, spending, unless_it_warns};

/// Addresses for the close of one channel.
const CLOSE_ADDRESSES: usize = 8;

/// A transaction that the owner wants to confirm sooner, and the most that a child of it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acceleration {
    pub txid: Txid,
    pub max_fee_sat: u64,
}

impl From<Acceleration> for entry::AccelerationAsked {
    fn from(it: Acceleration) -> entry::AccelerationAsked {
        entry::AccelerationAsked {
            txid: it.txid.to_byte_array().to_vec(),
            max_fee_sat: it.max_fee_sat,
        }
    }
}

/// A payment that the owner asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentIntent {
    /// The payment hash of the invoice.
    pub payment_hash: [u8; 32],
    /// The amount, without fees.
    pub amount_msat: u64,
    /// The most that routing may cost.
    pub max_fee_msat: u64,
    /// The expiry of the invoice, in seconds since 1970. After it the intent justifies nothing.
    pub expires_unix_s: u64,
    /// The time when it was added, in seconds since 1970.
    pub created_unix_s: u64,
    /// The amount of its HTLCs that were fulfilled.
    pub spent_msat: u64,
    /// The amount of its HTLCs that have no output in commitments (BOLT 3, "Trimmed Outputs") and were not failed.
    pub trimmed_msat: u64,
    /// The payee's proof that it was paid.
    pub preimage: Option<[u8; 32]>,
    /// True when its final result was delivered to the owner: from then on it justifies nothing.
    pub is_over: bool,
}

impl PaymentIntent {
    /// The most that may leave the channels for it.
    pub fn limit_msat(&self) -> u64 {
        self.amount_msat.saturating_add(self.max_fee_msat)
    }
}

/// An on-chain send that the owner asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnchainIntent {
    /// The command's id.
    pub id: Vec<u8>,
    /// The address of the payee.
    pub address: String,
    /// The amount; 0 = the whole balance.
    pub amount_sat: u64,
    /// The most that mining may cost, for a transaction of 10,000 weight units; in proportion more for a heavier one.
    pub max_fee_sat: u64,
    /// The time when it was added, in seconds since 1970.
    pub created_unix_s: u64,
    /// True until its final result was delivered to the owner. False in ledgers that did not keep this.
    pub awaits_delivery: bool,
    /// An output that the transaction signed for it spends. Any other transaction for it must spend the same output, so that at
    /// most one of them confirms.
    pub spends: Option<OutPoint>,
    /// The owner has given it up: a transaction that sends everything back to the owner's wallet is signed for it too.
    pub is_abandoned: bool,
}

/// An opening or a close that the owner asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelIntent {
    /// The opening of a channel.
    Open {
        /// The command's id, which becomes the channel's `user_channel_id`.
        id: Vec<u8>,
        /// The peer.
        counterparty_node_id: PublicKey,
        /// The channel's capacity.
        amount_sat: u64,
        /// Whether it is announced (BOLT 7). False in ledgers that did not keep this.
        announced: bool,
        /// The most that its funding may cost, for a transaction of 10,000 weight units, as for [`OnchainIntent::max_fee_sat`].
        max_fee_sat: u64,
    },
    /// The close of a channel.
    Close {
        /// The channel's id.
        channel_id: Vec<u8>,
        /// A unilateral close, without the peer.
        force: bool,
        /// Where the owner's part of a cooperative close goes, beside the owner's wallet: every address that was given for this
        /// channel, separated by spaces. The peer may have agreed on an earlier one.
        address: String,
    },
}

impl Signer {
    /// Records that the owner asked to pay `payment_hash`. The same hash again, for a second attempt, replaces the intent.
    pub fn add_intent(
        &mut self,
        payment_hash: [u8; 32],
        amount_msat: u64,
        max_fee_msat: u64,
        expires_unix_s: u64,
        now_unix_s: u64,
    ) -> Result<Recorded<()>, Refused> {
        if self.state.payments.contains_key(&payment_hash) {
            let message =
                "this is the payment hash of an invoice of this phone's: it cannot pay itself";
            return Err(Refused::new(Rule::PaymentUnasked, message));
        }
        let old = self.state.payment_intents.get(&payment_hash);
        let intent = PaymentIntent {
            payment_hash,
            amount_msat,
            max_fee_msat,
            expires_unix_s,
            created_unix_s: now_unix_s,
            spent_msat: old.map_or(0, |old| old.spent_msat),
            trimmed_msat: old.map_or(0, |old| old.trimmed_msat),
            preimage: old.and_then(|old| old.preimage),
            is_over: false,
        };
        let taken_msat = outgoing::taken_msat(&self.state, &intent, None);
        let has_room = taken_msat.saturating_add(amount_msat) <= intent.limit_msat();
        if taken_msat > 0 && !has_room {
            let message = "an earlier attempt of this payment is still in a channel, or its HTLC in one that was closed: wait until it is \
                 settled, or ask for another invoice";
            return Err(Refused::new(Rule::PaymentLimit, message));
        }
        let mut warnings = Vec::new();
        let checked = spending::check(&self.state, &intent, now_unix_s);
        unless_it_warns(self.limits(), checked, &mut warnings)?;
        self.warned_owner_call((), Change::PaymentIntent((&intent).into()), warnings)
    }

    /// Records that the final result of a payment was delivered to the owner. Nothing more leaves for it, until the owner asks again.
    pub fn payment_ended(&mut self, payment_hash: &[u8; 32]) -> Result<Recorded<()>, Refused> {
        let intent = self.state.payment_intents.get(payment_hash);
        let Some(intent) = intent.filter(|intent| !intent.is_over) else {
            return Ok(Recorded::unchanged(()));
        };
        let ended = PaymentIntent {
            is_over: true,
            ..intent.clone()
        };
        self.owner_call((), Change::PaymentIntent((&ended).into()))
    }

    /// The outgoing payments that the owner asked for.
    pub fn intents(&self) -> impl Iterator<Item = &PaymentIntent> + '_ {
        self.state.payment_intents.values()
    }

    /// Records that the owner asked to send on chain, and that the result is to be delivered. The same id again must be for the same
    /// send, except that the fee limit may rise until the result was delivered.
    pub fn add_onchain_intent(
        &mut self,
        id: &[u8],
        address: &str,
        amount_sat: u64,
        max_fee_sat: u64,
        now_unix_s: u64,
    ) -> Result<Recorded<()>, Refused> {
        let mut intent = OnchainIntent {
            id: id.to_vec(),
            address: address.to_owned(),
            amount_sat,
            max_fee_sat,
            created_unix_s: now_unix_s,
            awaits_delivery: true,
            spends: None,
            is_abandoned: false,
        };
        if let Some(old) = self.state.onchain_intents.get(id) {
            intent.spends = old.spends;
            intent.is_abandoned = old.is_abandoned;
            intent.created_unix_s = old.created_unix_s;
            intent.awaits_delivery = old.awaits_delivery;
            if old.awaits_delivery {
                intent.max_fee_sat = max_fee_sat.max(old.max_fee_sat);
            }
            if intent == *old {
                return Ok(Recorded::unchanged(()));
            }
            let of_before = OnchainIntent {
                max_fee_sat: old.max_fee_sat,
                ..intent.clone()
            };
            if !old.awaits_delivery || of_before != *old {
                return Err(used_id());
            }
        }
        self.owner_call((), Change::OnchainIntent((&intent).into()))
    }

    /// Records that the owner wants a higher fee for a send whose transaction waits, or gives the send up.
    pub fn allow_replacement(
        &mut self,
        id: &[u8],
        max_fee_sat: u64,
        abandon: bool,
    ) -> Result<Recorded<()>, Refused> {
        let old = self.state.onchain_intents.get(id).ok_or_else(|| {
            let message = "this phone was not asked for this payment";
            Refused::new(Rule::SendUnasked, message)
        })?;
        let intent = OnchainIntent {
            max_fee_sat: max_fee_sat.max(old.max_fee_sat),
            is_abandoned: abandon || old.is_abandoned,
            ..old.clone()
        };
        match intent == *old {
            true => Ok(Recorded::unchanged(())),
            false => self.owner_call((), Change::OnchainIntent((&intent).into())),
        }
    }

    /// Records that the owner wants a transaction to confirm sooner that is no payment of the owner's: a child of it may cost so much (CPFP).
    pub fn want_acceleration(
        &mut self,
        txid: Txid,
        max_fee_sat: u64,
    ) -> Result<Recorded<()>, Refused> {
        let asked = Acceleration { txid, max_fee_sat };
        match self.state.accelerations.back() == Some(&asked) {
            true => Ok(Recorded::unchanged(())),
            false => self.owner_call((), Change::Acceleration(asked.into())),
        }
    }

    /// The on-chain sends that the owner asked for.
    pub fn onchain_intents(&self) -> impl Iterator<Item = &OnchainIntent> + '_ {
        self.state.onchain_intents.values()
    }

    /// The id of the owner's send of `amount_sat` (0 = the whole balance) to `address` whose result is not delivered yet.
    pub fn undelivered_send(&self, address: &str, amount_sat: u64) -> Option<&[u8]> {
        let is_it = |intent: &&OnchainIntent| {
            intent.awaits_delivery && intent.address == address && intent.amount_sat == amount_sat
        };
        let intent = self.onchain_intents().find(is_it)?;
        Some(&intent.id)
    }

    /// Records that the owner asked to open or close a channel, and that the result of an opening is to be delivered. The same id again
    /// must be for the same, except that a close may become a forced one, or one to another address.
    pub fn add_channel_intent(
        &mut self,
        intent: ChannelIntent,
        now_unix_s: u64,
    ) -> Result<Recorded<()>, Refused> {
        let known = self.state.channel_intents.get(intent.id());
        let old = known.map(|known| &known.intent);
        let intent = match old {
            Some(old) => with_higher_fee(with_earlier_addresses(intent, old)?, old),
            None => intent,
        };
        match old {
            Some(old) if *old == intent => return Ok(Recorded::unchanged(())),
            Some(old @ ChannelIntent::Open { .. }) if !old.is_same_opening(&intent) => {
                return Err(used_id());
            }
            _ => {}
        }
        let known = KnownChannelIntent {
            awaits_delivery: matches!(intent, ChannelIntent::Open { .. }),
            intent,
            created_unix_s: now_unix_s,
            spends: known.and_then(|known| known.spends),
        };
        self.owner_call((), Change::ChannelIntent((&known).into()))
    }

    /// The channels that the owner asked to open or close.
    pub fn channel_intents(&self) -> impl Iterator<Item = &ChannelIntent> + '_ {
        let known = self.state.channel_intents.values();
        known.map(|known| &known.intent)
    }

    /// The id of the owner's opening of this channel whose result is not delivered yet.
    pub fn undelivered_open(
        &self,
        peer: &PublicKey,
        sat: u64,
        is_announced: bool,
    ) -> Option<&[u8]> {
        let mut waiting = self.state.channel_intents.values();
        waiting.find_map(|known| match &known.intent {
            ChannelIntent::Open {
                id,
                counterparty_node_id,
                amount_sat,
                announced,
                ..
            } if known.awaits_delivery
                && counterparty_node_id == peer
                && *amount_sat == sat
                && *announced == is_announced =>
            {
                Some(&id[..])
            }
            _ => None,
        })
    }

    /// Records that the final result of the command with this id was delivered to the owner: it was done, or it was not and will not be.
    /// The same command is a new one from then on.
    pub fn result_delivered(&mut self, id: &[u8]) -> Result<Recorded<()>, Refused> {
        let send = self.state.onchain_intents.get(id);
        if let Some(send) = send.filter(|send| send.awaits_delivery) {
            let ended = OnchainIntent {
                awaits_delivery: false,
                ..send.clone()
            };
            return self.owner_call((), Change::OnchainIntent((&ended).into()));
        }
        let open = self.state.channel_intents.get(id);
        if let Some(open) = open.filter(|open| open.awaits_delivery) {
            let ended = KnownChannelIntent {
                awaits_delivery: false,
                ..open.clone()
            };
            return self.owner_call((), Change::ChannelIntent((&ended).into()));
        }
        Ok(Recorded::unchanged(()))
    }
}

impl ChannelIntent {
    /// The command's id, or the channel's.
    pub fn id(&self) -> &[u8] {
        match self {
            ChannelIntent::Open { id, .. } => id,
            ChannelIntent::Close { channel_id, .. } => channel_id,
        }
    }

    /// Whether both are the same opening, whatever its fee limit.
    fn is_same_opening(&self, other: &ChannelIntent) -> bool {
        with_higher_fee(other.clone(), self) == with_higher_fee(self.clone(), other)
    }
}

/// The same opening, with the higher of both fee limits.
fn with_higher_fee(mut intent: ChannelIntent, old: &ChannelIntent) -> ChannelIntent {
    if let (
        ChannelIntent::Open { max_fee_sat, .. },
        ChannelIntent::Open {
            max_fee_sat: old_sat,
            ..
        },
    ) = (&mut intent, old)
    {
        *max_fee_sat = (*max_fee_sat).max(*old_sat);
    }
    intent
}

impl From<&KnownChannelIntent> for entry::ChannelIntentAdded {
    fn from(known: &KnownChannelIntent) -> Self {
        let added = entry::ChannelIntentAdded {
            id: known.intent.id().to_vec(),
            created_unix_s: known.created_unix_s,
            awaits_delivery: known.awaits_delivery,
            spends: known.spends.as_ref().map_or_else(Vec::new, serialize),
            ..Default::default()
        };
        match &known.intent {
            ChannelIntent::Open {
                counterparty_node_id,
                amount_sat,
                announced,
                max_fee_sat,
                ..
            } => entry::ChannelIntentAdded {
                max_fee_sat: *max_fee_sat,
                counterparty_node_id: counterparty_node_id.serialize().to_vec(),
                amount_sat: *amount_sat,
                announced: *announced,
                ..added
            },
            ChannelIntent::Close { force, address, .. } => entry::ChannelIntentAdded {
                close: true,
                force: *force,
                address: address.clone(),
                ..added
            },
        }
    }
}

impl From<&PaymentIntent> for entry::PaymentIntentAdded {
    fn from(intent: &PaymentIntent) -> Self {
        entry::PaymentIntentAdded {
            payment_hash: intent.payment_hash.to_vec(),
            amount_msat: intent.amount_msat,
            max_fee_msat: intent.max_fee_msat,
            expires_unix_s: intent.expires_unix_s,
            created_unix_s: intent.created_unix_s,
            spent_msat: intent.spent_msat,
            trimmed_msat: intent.trimmed_msat,
            preimage: intent.preimage.map_or_else(Vec::new, |it| it.to_vec()),
            is_over: intent.is_over,
        }
    }
}

impl From<&OnchainIntent> for entry::OnchainIntentAdded {
    fn from(intent: &OnchainIntent) -> Self {
        entry::OnchainIntentAdded {
            id: intent.id.clone(),
            address: intent.address.clone(),
            amount_sat: intent.amount_sat,
            max_fee_sat: intent.max_fee_sat,
            created_unix_s: intent.created_unix_s,
            awaits_delivery: intent.awaits_delivery,
            spends: intent.spends.as_ref().map_or_else(Vec::new, serialize),
            is_abandoned: intent.is_abandoned,
        }
    }
}

/// The same close, with the addresses that were given for it before.
fn with_earlier_addresses(
    intent: ChannelIntent,
    old: &ChannelIntent,
) -> Result<ChannelIntent, Refused> {
    let (
        ChannelIntent::Close {
            channel_id,
            force,
            address,
        },
        ChannelIntent::Close { address: given, .. },
    ) = (&intent, old)
    else {
        return Ok(intent);
    };
    let mut all: Vec<&str> = given.split(' ').filter(|it| !it.is_empty()).collect();
    if !address.is_empty() && !all.contains(&&**address) {
        all.push(address);
    }
    if all.len() > CLOSE_ADDRESSES {
        let message = "too many addresses were given for the close of this channel: close it to one of them, or by force";
        return Err(Refused::new(Rule::Duplicate, message));
    }
    Ok(ChannelIntent::Close {
        channel_id: channel_id.clone(),
        force: *force,
        address: all.join(" "),
    })
}

fn used_id() -> Refused {
    Refused::new(
        Rule::Duplicate,
        "this id was used for something else: take a new one",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bitcoin::Network;

    use super::*;
    use crate::Seed;
    use crate::ledger::LedgerRecord;

    /// A field that is false is not encoded, so that these are the records of earlier versions.
    #[test]
    fn nothing_of_a_ledger_without_ends_is_asked_for_again() {
        let seed = Seed::from_entropy(&[1; 16]).unwrap();
        let new = Signer::new(&seed, Network::Regtest, &[4; 32]).unwrap();
        let send = entry::OnchainIntentAdded {
            id: b"send".to_vec(),
            address: "bcrt1q".into(),
            amount_sat: 7,
            ..Default::default()
        };
        let open = entry::ChannelIntentAdded {
            id: b"open".to_vec(),
            counterparty_node_id: new.keys().node_id().serialize().to_vec(),
            amount_sat: 20_000,
            ..Default::default()
        };
        let changes = [
            new.state.begun(),
            Change::OnchainIntent(send),
            Change::ChannelIntent(open),
        ];
        let entries = changes.into_iter().map(Into::into).collect();
        let record = LedgerRecord::new(1, false, entries);
        let old = Signer::restore(&seed, Network::Regtest, &[4; 32], [record.as_bytes()]).unwrap();

        let peer = new.keys().node_id();
        assert_eq!(old.onchain_intents().count(), 1);
        assert_eq!(old.channel_intents().count(), 1);
        assert_eq!(old.undelivered_send("bcrt1q", 7), None);
        assert_eq!(old.undelivered_open(&peer, 20_000, false), None);
    }
}
