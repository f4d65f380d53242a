//! What outgoing payments have cost so far: kept with the intents that they are compared with.

use std::collections::BTreeMap;

use bitcoin::hashes::{Hash, sha256};

use crate::commitment::Side;
use crate::engine::{Change, Signer};
use crate::hidden::explain;
use crate::htlcs::Htlcs;
use crate::intents::PaymentIntent;
use crate::ledger::{Channel, hidden_sums};
use crate::proposal::{CounterpartyCommitment, HolderCommitment, KeysId, Revocation, Step};

/// Intents that one operation changes.
type Intents = BTreeMap<[u8; 32], PaymentIntent>;

impl Signer {
    /// A step of the owner's commitments.
    pub(super) fn holder_step(&self, it: &HolderCommitment<'_>, step: &Step) -> Vec<Change> {
        let mut intents = Intents::new();
        self.add_preimages(step, &mut intents);
        let mut changes = changes(intents);
        changes.extend(hidden(&it.keys_id, it.channel, step).map(|(change, _)| change));
        changes
    }

    /// A step of the peer's commitments: HTLCs without outputs that are added, and those that came back.
    pub(super) fn peer_step(&self, it: &CounterpartyCommitment<'_>, step: &Step) -> Vec<Change> {
        let mut intents = Intents::new();
        self.add_preimages(step, &mut intents);
        let hidden = hidden(&it.keys_id, it.channel, step);
        let given_back_msat = hidden.as_ref().map_or(0, |(_, msat)| *msat);
        self.give_back(given_back_msat, &mut intents);
        for htlc in &step.trimmed {
            if let Some(intent) = self.intent_mut(&htlc.payment_hash, &mut intents) {
                intent.trimmed_msat = intent.trimmed_msat.saturating_add(htlc.amount_msat);
            }
        }
        let mut changes = changes(intents);
        changes.extend(hidden.map(|(change, _)| change));
        changes
    }

    /// HTLCs that have left the channel with the commitment that the peer revokes, and were fulfilled.
    pub(super) fn fulfilled(&self, it: &Revocation<'_>) -> Vec<Change> {
        let revoked = it.channel.peer_at(it.index);
        let revoked = revoked.map_or_else(Htlcs::default, |it| Htlcs::of(it, Side::Counterparty));
        let gone = revoked.without(&it.channel.latest_peer_htlcs());
        let mut intents = Intents::new();
        for (htlc, count) in gone.iter().filter(|(htlc, _)| htlc.is_outgoing) {
            let intent = self.intent_mut(&htlc.payment_hash, &mut intents);
            if let Some(intent) = intent.filter(|intent| intent.preimage.is_some()) {
                let sum_msat = htlc.amount_msat.saturating_mul(count);
                intent.spent_msat = intent.spent_msat.saturating_add(sum_msat);
            }
        }
        intents.retain(|hash, intent| self.state.payment_intents.get(hash) != Some(intent));
        changes(intents)
    }

    fn add_preimages(&self, step: &Step, intents: &mut Intents) {
        for preimage in &step.preimages {
            let hash = sha256::Hash::hash(preimage).to_byte_array();
            if let Some(intent) = self.intent_mut(&hash, intents) {
                intent.preimage = Some(*preimage);
            }
        }
    }

    /// HTLCs without outputs were failed. Which ones is not visible, and does not matter: less is out in all.
    fn give_back(&self, mut gained_msat: u64, intents: &mut Intents) {
        let open = self.state.payment_intents.values();
        let open = open.filter(|intent| intent.trimmed_msat > 0 && intent.preimage.is_none());
        for known in open {
            if gained_msat == 0 {
                return;
            }
            let Some(intent) = self.intent_mut(&known.payment_hash, intents) else {
                continue;
            };
            let back_msat = gained_msat.min(intent.trimmed_msat);
            gained_msat -= back_msat;
            intent.trimmed_msat -= back_msat;
            // Commitments show whole satoshis.
            if intent.trimmed_msat < 1000 {
                intent.trimmed_msat = 0;
            }
        }
    }

    fn intent_mut<'i>(
        &self,
        hash: &[u8; 32],
        intents: &'i mut Intents,
    ) -> Option<&'i mut PaymentIntent> {
        let known = self.state.payment_intents.get(hash)?;
        Some(intents.entry(*hash).or_insert_with(|| known.clone()))
    }
}

fn changes(intents: Intents) -> Vec<Change> {
    let intents = intents.values();
    intents
        .map(|intent| Change::PaymentIntent(intent.into()))
        .collect()
}

/// The channel's sums after a step when they change, and what has come back. A step that a warning let pass leaves them.
fn hidden(keys_id: &KeysId, channel: &Channel, step: &Step) -> Option<(Change, u64)> {
    let explained = explain(&channel.hidden, step).ok()?;
    let is_new = explained.hidden != channel.hidden || explained.given_back_msat > 0;
    let change = Change::HiddenSums(hidden_sums(keys_id, &explained.hidden));
    is_new.then_some((change, explained.given_back_msat))
}
