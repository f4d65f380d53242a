//! Open channels: keys, parameters, commitments and revocations (BOLT 2 and 3), and announcements (BOLT 7).
//!
//! ```text
//! owner's side   validate n ──▶ release secret of n + 1 ──▶ validate n - 1 ...
//! peer's side    sign n ──▶ peer's secret of n + 1 checked ──▶ sign n - 1 ...
//! ```

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HTLCOutputInCommitment, derive_private_key,
};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner};
use lightning::util::ser::Writeable;
use longhand_proto::signer as proto;

use super::{Fault, Signed, done, unrecorded};
use crate::commitment::{FIRST_INDEX, funding_script, htlc_sighash, peer_htlc_transaction};
use crate::engine::{Answer, Change, Signer};
use crate::intents::ChannelIntent;
use crate::ledger::entry;
use crate::limits::Withhold;
use crate::parallel;
use crate::proposal::{
    Announcement, CounterpartyCommitment, HolderCommitment, NewKeys, Points, Release, Revocation,
    Setup,
};

impl Signer {
    pub(super) fn new_channel_keys(&self, it: &NewKeys) -> Result<Answer, Fault> {
        let signer = self.keys.channel(&it.keys_id);
        Ok(Answer::NewChannelKeys(proto::NewChannelKeysAnswer {
            public_keys: signer.pubkeys(&self.keys.secp).encode(),
            points: self.points(&signer, FIRST_INDEX, it.points)?,
            channel_keys_id: it.keys_id.to_vec(),
            funding_depths: self.funding_depths(),
        }))
    }

    fn funding_depths(&self) -> Vec<proto::FundingDepth> {
        let numbers = &self.state.limits.numbers;
        let depth = |from_sat, blocks| proto::FundingDepth {
            from_sat,
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
        };
        vec![
            depth(0, numbers.funding_depth_blocks),
            depth(
                numbers.large_channel_sat,
                numbers.large_funding_depth_blocks,
            ),
        ]
    }

    /// A setup that is repeated has the same answer, so that the secret is given for a channel once or never.
    pub(super) fn set_up(&self, it: &Setup<'_>) -> (Answer, Vec<Change>) {
        let delegated = match it.on_record {
            Some(channel) => channel.delegated,
            None => self.delegates(&it.counterparty_node_id),
        };
        let revocation_basepoint_secret = match delegated {
            true => {
                let signer = self.keys.channel(&it.keys_id);
                signer.revocation_base_key.secret_bytes().to_vec()
            }
            false => Vec::new(),
        };
        let answer = Answer::Setup(proto::SetupAnswer {
            revocation_basepoint_secret,
        });
        let set_up = entry::ChannelSetUp {
            keys_id: it.keys_id.to_vec(),
            parameters: it.parameters.encode(),
            counterparty_node_id: it.counterparty_node_id.serialize().to_vec(),
            delegated,
            opening_id: it.opening_id.clone(),
            is_unannounced: self.opens_unannounced(&it.opening_id),
        };
        let is_new = it.on_record.is_none();
        let changes = is_new.then_some(Change::ChannelSetUp(set_up));
        (answer, changes.into_iter().collect())
    }

    /// Whether this is an opening of the owner's without an announcement.
    fn opens_unannounced(&self, opening_id: &[u8]) -> bool {
        let opening = self.state.channel_intents.get(opening_id);
        opening.is_some_and(
            |known| matches!(known.intent, ChannelIntent::Open { announced, .. } if !announced),
        )
    }

    /// Whether the host gets the revocation basepoint secret of a channel with this peer.
    fn delegates(&self, peer: &PublicKey) -> bool {
        match self.limits().withhold {
            Withhold::Hub => self.hub() != Some(*peer),
            Withhold::All => false,
            Withhold::None => true,
        }
    }

    pub(super) fn revoke(&self, it: &Revocation<'_>) -> (Answer, Vec<Change>) {
        if it.is_repeated() {
            return (done(), Vec::new());
        }
        let revoked = entry::PeerRevoked {
            keys_id: it.keys_id.to_vec(),
            index: it.index,
            secret: it.secret.secret_bytes().to_vec(),
        };
        let mut changes = vec![Change::PeerRevoked(revoked)];
        changes.extend(self.fulfilled(it));
        (done(), changes)
    }

    pub(super) fn points_answer(&self, it: &Points) -> Result<Answer, Fault> {
        let points = self.points(&self.keys.channel(&it.keys_id), it.first, it.count)?;
        Ok(Answer::Points(proto::Points { points }))
    }

    pub(super) fn validate(
        &self,
        it: &HolderCommitment<'_>,
        now_unix_s: u64,
    ) -> (Answer, Vec<Change>) {
        if it.is_repeated() {
            return (done(), Vec::new());
        }
        let validated = entry::HolderValidated {
            keys_id: it.keys_id.to_vec(),
            commitment: it.commitment.encode(),
        };
        let mut changes = vec![Change::HolderValidated(validated)];
        changes.extend(self.payments_seen(&it.commitment, now_unix_s));
        changes.extend(it.step.iter().flat_map(|step| self.holder_step(it, step)));
        (done(), changes)
    }

    pub(super) fn release(&self, it: &Release<'_>) -> Signed {
        let signer = self.keys.channel(&it.keys_id);
        let secret = signer.release_commitment_secret(it.index);
        let secret = secret.map_err(|()| Fault("there is no such secret"))?;
        let answer = Answer::Secret(secret.to_vec());
        if it.channel.released.is_some_and(|lowest| lowest <= it.index) {
            return unrecorded(answer);
        }
        let released = entry::ChannelIndex {
            keys_id: it.keys_id.to_vec(),
            index: it.index,
        };
        Ok((answer, vec![Change::SecretReleased(released)]))
    }

    pub(super) fn sign_counterparty_commitment(&self, it: &CounterpartyCommitment<'_>) -> Signed {
        let signer = self.keys.channel(&it.keys_id);
        let parameters = &it.channel.parameters;
        let secp = &self.keys.secp;
        let (signature, htlcs) = sign_commitment(secp, &signer, parameters, &it.commitment)?;
        let compact = |signature: &Signature| signature.serialize_compact().to_vec();
        let answer = Answer::CommitmentSignatures(proto::CommitmentSignatures {
            signature: compact(&signature),
            htlc_signatures: htlcs.iter().map(compact).collect(),
        });
        if it.on_record().is_some() {
            return unrecorded(answer);
        }
        let signed = entry::PeerCommitmentSigned {
            keys_id: it.keys_id.to_vec(),
            commitment: it.commitment.encode(),
        };
        let step = it.step.iter().flat_map(|step| self.peer_step(it, step));
        let changes = std::iter::once(Change::PeerCommitmentSigned(signed)).chain(step);
        Ok((answer, changes.collect()))
    }

    pub(super) fn sign_announcement(&self, it: &Announcement<'_>) -> Result<Answer, Fault> {
        let signer = self.keys.channel(&it.keys_id);
        let signature = signer.sign_channel_announcement_with_funding_key(
            &it.channel.parameters,
            &it.message,
            &self.keys.secp,
        );
        let signature = signature.map_err(|()| Fault("the announcement cannot be signed"))?;
        Ok(Answer::Signature(signature.serialize_compact().to_vec()))
    }

    /// `count` points from index `first` down, which must exist.
    fn points(
        &self,
        signer: &InMemorySigner,
        first: u64,
        count: u32,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let indices = (0..u64::from(count)).map(|step| first - step);
        indices
            .map(|index| {
                let point = signer.get_per_commitment_point(index, &self.keys.secp);
                let point = point.map_err(|()| Fault("there is no such per-commitment point"))?;
                Ok(point.serialize().to_vec())
            })
            .collect()
    }
}

/// Signs the peer's commitment and its HTLC transactions (BOLT 3).
///
/// The signatures are those of LDK's `InMemorySigner`, which would derive its key for each of them again.
fn sign_commitment(
    secp: &Secp256k1<All>,
    keys: &InMemorySigner,
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
) -> Result<(Signature, Vec<Signature>), Fault> {
    let funding = funding_script(parameters).ok_or(Fault("the peer's keys are missing"))?;
    let mut funding_key = keys.funding_key(parameters.splice_parent_funding_txid);
    let signature = commitment
        .trust()
        .built_transaction()
        .sign_counterparty_commitment(
            &funding_key,
            &funding,
            parameters.channel_value_satoshis,
            secp,
        );
    funding_key.non_secure_erase();
    let point = commitment.per_commitment_point();
    let mut htlc_key = derive_private_key(secp, &point, &keys.htlc_base_key);
    let sign = |htlc: &HTLCOutputInCommitment| {
        let transaction = peer_htlc_transaction(parameters, commitment, htlc);
        let sighash = htlc_sighash(commitment, htlc, &transaction);
        let sighash = sighash.ok_or(Fault("the transaction has no such input"))?;
        Ok(secp.sign_ecdsa_low_r(&sighash, &htlc_key))
    };
    let htlcs = parallel::try_map(commitment.nondust_htlcs(), sign);
    htlc_key.non_secure_erase();
    Ok((signature, htlcs?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::Txid;
    use bitcoin::hashes::Hash;
    use lightning::chain::transaction::OutPoint;
    use lightning::ln::chan_utils::{
        CounterpartyChannelTransactionParameters, HTLCOutputInCommitment,
    };
    use lightning::sign::KeysManager;
    use lightning::types::features::ChannelTypeFeatures;
    use lightning::types::payment::PaymentHash;

    use super::*;

    #[test]
    fn the_peers_commitment_is_signed_as_by_ldks_own_signer() {
        let secp = Secp256k1::new();
        let keys =
            |byte| KeysManager::new(&[byte; 32], 0, 0, true).derive_channel_keys(&[byte; 32]);
        let (ours, theirs) = (keys(1), keys(2));
        for features in [
            ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
            ChannelTypeFeatures::only_static_remote_key(),
        ] {
            let parameters = ChannelTransactionParameters {
                holder_pubkeys: ours.pubkeys(&secp),
                holder_selected_contest_delay: 144,
                is_outbound_from_holder: true,
                counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                    pubkeys: theirs.pubkeys(&secp),
                    selected_contest_delay: 288,
                }),
                funding_outpoint: Some(OutPoint {
                    txid: Txid::from_byte_array([7; 32]),
                    index: 0,
                }),
                splice_parent_funding_txid: None,
                channel_type_features: features,
                channel_value_satoshis: 1_000_000,
            };
            let htlc = |byte: u8| HTLCOutputInCommitment {
                offered: byte.is_multiple_of(2),
                amount_msat: 50_000_000 + u64::from(byte),
                cltv_expiry: 500,
                payment_hash: PaymentHash([byte; 32]),
                transaction_output_index: None,
            };
            let commitment = CommitmentTransaction::new(
                FIRST_INDEX,
                &theirs.get_per_commitment_point(FIRST_INDEX, &secp).unwrap(),
                300_000,
                390_000,
                1000,
                (1..6).map(htlc).collect(),
                &parameters.as_counterparty_broadcastable(),
                &secp,
            );
            let by_ldk = ours
                .sign_counterparty_commitment(&parameters, &commitment, vec![], vec![], &secp)
                .unwrap();
            let by_us = sign_commitment(&secp, &ours, &parameters, &commitment).unwrap();
            assert_eq!(by_us.0, by_ldk.0);
            assert_eq!(by_us.1.len(), 5);
            assert_eq!(by_us.1, by_ldk.1);
        }
    }
}
