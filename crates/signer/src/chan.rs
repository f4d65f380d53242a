//! Channels: keys, parameters, and the sequence of commitments and revocations (BOLT 2 and 3).
//!
//! ```text
//! owner's side   validate n ──▶ release secret of n + 1 ──▶ validate n - 1 ...
//! peer's side    sign n ──▶ peer's secret of n + 1 checked ──▶ sign n - 1 ...
//! ```

use bitcoin::Amount;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    HolderCommitmentTransaction,
};
use lightning::ln::msgs::UnsignedChannelAnnouncement;
use lightning::routing::gossip::NodeId;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner};
use lightning::util::ser::Writeable;
use longhand_proto::signer as proto;

use crate::commitment::{
    FIRST_INDEX, Side, check_commitment, check_peer_signatures, read, read_parameters, same,
    sign_peer_commitment,
};
use crate::engine::{Answer, Change, Signer, channel_keys_id};
use crate::ledger::{Channel, entry};
use crate::node_ops::read_gossip;
use crate::rules::{Refused, Rule};

/// The most points in one answer.
const MAX_POINTS: u32 = 1000;

type Answered = Result<(Answer, Vec<Change>), Refused>;

impl Signer {
    pub(crate) fn new_channel_keys(&self, op: &proto::NewChannelKeys) -> Result<Answer, Refused> {
        let keys_id = self.given_keys_id(&channel_keys_id(&op.channel_keys_id)?);
        let signer = self.keys.channel(&keys_id);
        let points = self.points(&signer, FIRST_INDEX, op.points)?;
        let revocation_basepoint_secret = match self.withholds_revocation_key() {
            true => Vec::new(),
            false => signer.revocation_base_key.secret_bytes().to_vec(),
        };
        let public_keys = signer.pubkeys(&self.keys.secp).encode();
        Ok(Answer::NewChannelKeys(proto::NewChannelKeysAnswer {
            public_keys,
            points,
            revocation_basepoint_secret,
            channel_keys_id: keys_id.to_vec(),
        }))
    }

    pub(crate) fn setup_channel(&self, keys_id: [u8; 32], op: &proto::SetupChannel) -> Answered {
        let parameters = read_parameters(&op.parameters)?;
        let counterparty_node_id = PublicKey::from_slice(&op.counterparty_node_id)
            .map_err(|_| Refused::malformed("the peer's node id is not a public key"))?;
        if let Some(channel) = self.state.channels.get(&keys_id) {
            let same = channel.parameters == parameters
                && channel.counterparty_node_id == counterparty_node_id;
            let changed = || {
                Refused::new(
                    Rule::SetupChanged,
                    "the channel was set up with other parameters before",
                )
            };
            return if same { done() } else { Err(changed()) };
        }
        // A channel that is not in this ledger must be new. The node proposes the ids: without a part that is derived from the
        // ledger's key, a phone that lost its ledger would begin an old channel again, and sign revoked states.
        if !fixed_time_eq(&self.given_keys_id(&keys_id), &keys_id) {
            return Err(Refused::new(
                Rule::SetupLedger,
                "the channel's keys were not given with this ledger: the channel may be an older one",
            ));
        }
        self.check_parameters(&keys_id, &parameters)?;
        let set_up = entry::ChannelSetUp {
            keys_id: keys_id.to_vec(),
            parameters: parameters.encode(),
            counterparty_node_id: op.counterparty_node_id.clone(),
        };
        Ok((
            Answer::Done(proto::Done {}),
            vec![Change::ChannelSetUp(set_up)],
        ))
    }

    pub(crate) fn get_points(
        &self,
        keys_id: [u8; 32],
        op: &proto::GetPoints,
    ) -> Result<Answer, Refused> {
        let points = self.points(&self.keys.channel(&keys_id), op.first_index, op.count)?;
        Ok(Answer::Points(proto::Points { points }))
    }

    pub(crate) fn validate_holder_commitment(
        &self,
        keys_id: [u8; 32],
        op: &proto::ValidateHolderCommitment,
        now_unix_s: u64,
    ) -> Answered {
        let channel = self.channel(&keys_id)?;
        let commitment: HolderCommitmentTransaction = read(&op.commitment)?;
        let index = commitment.commitment_number();
        let again = channel.holder_index() == Some(index);
        if !again && Some(index) != next_index(channel.holder_index()) {
            return Err(Refused::new(
                Rule::HolderNumber,
                "the holder commitment is not the next one",
            ));
        }
        if again
            && channel
                .holder
                .first()
                .is_some_and(|latest| !same(&latest.commitment, &commitment))
        {
            return Err(Refused::new(
                Rule::HolderNumber,
                "another holder commitment with this number is on record",
            ));
        }
        check_commitment(
            &self.keys.secp,
            &channel.parameters,
            Side::Holder,
            &commitment,
        )?;
        if commitment.per_commitment_point() != self.point(&self.keys.channel(&keys_id), index)? {
            return Err(Refused::new(
                Rule::CommitmentMismatch,
                "the per-commitment point is not the owner's",
            ));
        }
        check_peer_signatures(&self.keys.secp, &channel.parameters, &commitment)?;
        if again {
            return done();
        }
        let encoded = entry::HolderValidated {
            keys_id: keys_id.to_vec(),
            commitment: commitment.encode(),
        };
        let mut changes = vec![Change::HolderValidated(encoded)];
        changes.extend(self.payments_seen(&commitment, now_unix_s));
        Ok((Answer::Done(proto::Done {}), changes))
    }

    pub(crate) fn release_secret(&self, keys_id: [u8; 32], op: &proto::ReleaseSecret) -> Answered {
        let channel = self.channel(&keys_id)?;
        let index = in_range(op.index)?;
        if channel.holder_index().is_none_or(|latest| latest >= index) {
            let message = "no newer holder commitment with the peer's signatures is on record yet";
            return Err(Refused::new(Rule::RevokeBeforeValidate, message));
        }
        // A secret reveals those of some higher indices too (BOLT 3), so that all at or below the signed index stay here.
        if channel.broadcast.is_some_and(|signed| index <= signed) {
            return Err(Refused::new(
                Rule::RevokeSigned,
                "this holder commitment was signed for broadcast",
            ));
        }
        let secret = self.keys.channel(&keys_id).release_commitment_secret(index);
        let secret = secret.map_err(|()| Refused::malformed("there is no such secret"))?;
        let answer = Answer::Secret(secret.to_vec());
        if channel.released.is_some_and(|lowest| lowest <= index) {
            return Ok((answer, Vec::new()));
        }
        Ok((
            answer,
            vec![Change::SecretReleased(entry::ChannelIndex {
                keys_id: keys_id.to_vec(),
                index,
            })],
        ))
    }

    pub(crate) fn sign_counterparty_commitment(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignCounterpartyCommitment,
    ) -> Answered {
        let channel = self.channel(&keys_id)?;
        let commitment: CommitmentTransaction = read(&op.commitment)?;
        check_commitment(
            &self.keys.secp,
            &channel.parameters,
            Side::Peer,
            &commitment,
        )?;
        let again = check_peer_number(channel, &commitment)?;
        let signer = self.keys.channel(&keys_id);
        let secp = &self.keys.secp;
        let (signature, htlcs) =
            sign_peer_commitment(secp, &signer, &channel.parameters, &commitment)?;
        let answer = Answer::CommitmentSignatures(proto::CommitmentSignatures {
            signature: signature.serialize_compact().to_vec(),
            htlc_signatures: htlcs
                .iter()
                .map(|signature| signature.serialize_compact().to_vec())
                .collect(),
        });
        if again {
            return Ok((answer, Vec::new()));
        }
        let signed = entry::PeerCommitmentSigned {
            keys_id: keys_id.to_vec(),
            commitment: commitment.encode(),
        };
        Ok((answer, vec![Change::PeerCommitmentSigned(signed)]))
    }

    pub(crate) fn counterparty_revocation(
        &self,
        keys_id: [u8; 32],
        op: &proto::CounterpartyRevocation,
    ) -> Answered {
        let channel = self.channel(&keys_id)?;
        let index = in_range(op.index)?;
        let bad = || {
            Refused::new(
                Rule::RevocationSecret,
                "the secret does not revoke that commitment of the peer",
            )
        };
        let secret: [u8; 32] = op.secret.as_slice().try_into().map_err(|_| bad())?;
        let key = SecretKey::from_slice(&secret).map_err(|_| bad())?;
        if channel.peer_revoked() <= index {
            // A repeated operation. The peer's old secrets are known to both sides: no secret of the owner's is compared here.
            return if channel.peer_secrets.get_secret(index) == Some(secret) {
                done()
            } else {
                Err(bad())
            };
        }
        let order = |message: &str| Refused::new(Rule::RevocationOrder, message);
        if channel.peer_revoked() - 1 != index {
            return Err(order(
                "an earlier commitment of the peer is to be revoked first",
            ));
        }
        if channel.peer_index().is_none_or(|latest| latest >= index) {
            return Err(order("the peer has no newer commitment yet"));
        }
        let revoked = channel.peer.iter().find(|peer| peer.index == index);
        let point = revoked.map(|peer| peer.commitment.per_commitment_point());
        if point != Some(PublicKey::from_secret_key(&self.keys.secp, &key)) {
            return Err(bad());
        }
        channel
            .peer_secrets
            .clone()
            .provide_secret(index, secret)
            .map_err(|()| bad())?;
        let revoked = entry::PeerRevoked {
            keys_id: keys_id.to_vec(),
            index,
            secret: secret.to_vec(),
        };
        Ok((
            Answer::Done(proto::Done {}),
            vec![Change::PeerRevoked(revoked)],
        ))
    }

    pub(crate) fn sign_channel_announcement(
        &self,
        keys_id: [u8; 32],
        op: &proto::SignChannelAnnouncement,
    ) -> Result<Answer, Refused> {
        let channel = self.channel(&keys_id)?;
        // The announcement is parsed and compared key by key: a funding key that signed any hash would sign a commitment's.
        let message: UnsignedChannelAnnouncement = read_gossip(&op.message)?;
        let ours = (
            NodeId::from_pubkey(&self.keys.node_id()),
            NodeId::from_pubkey(&channel.parameters.holder_pubkeys.funding_pubkey),
        );
        let (first, second) = (
            (message.node_id_1, message.bitcoin_key_1),
            (message.node_id_2, message.bitcoin_key_2),
        );
        let chain = message.chain_hash == ChainHash::using_genesis_block(self.keys.network());
        if !chain || (first != ours && second != ours) {
            return Err(Refused::malformed(
                "the announcement is not of this channel",
            ));
        }
        let signer = self.keys.channel(&keys_id);
        let signed = signer.sign_channel_announcement_with_funding_key(
            &channel.parameters,
            &message,
            &self.keys.secp,
        );
        let signature =
            signed.map_err(|()| Refused::malformed("the announcement cannot be signed"))?;
        Ok(Answer::Signature(signature.serialize_compact().to_vec()))
    }

    /// The channel, if it was set up.
    pub(crate) fn channel(&self, keys_id: &[u8; 32]) -> Result<&Channel, Refused> {
        let channel = self.state.channels.get(keys_id);
        channel.ok_or_else(|| {
            Refused::new(
                Rule::UnknownChannel,
                "this channel was not set up with this phone",
            )
        })
    }

    fn check_parameters(
        &self,
        keys_id: &[u8; 32],
        parameters: &ChannelTransactionParameters,
    ) -> Result<(), Refused> {
        if !parameters.is_populated() {
            return Err(Refused::malformed(
                "the channel parameters lack the peer's part or the funding outpoint",
            ));
        }
        let features = &parameters.channel_type_features;
        if parameters.splice_parent_funding_txid.is_some() {
            return Err(Refused::new(
                Rule::SetupType,
                "spliced channels are not supported",
            ));
        }
        if features.supports_any_optional_bits()
            || features.supports_anchors_nonzero_fee_htlc_tx()
            || !features.supports_static_remote_key()
                && !features.supports_anchor_zero_fee_commitments()
        {
            return Err(Refused::new(
                Rule::SetupType,
                "this channel type is not supported",
            ));
        }
        if parameters.holder_pubkeys != self.keys.channel(keys_id).pubkeys(&self.keys.secp) {
            return Err(Refused::new(
                Rule::SetupKeys,
                "the owner's keys in the parameters are not this phone's",
            ));
        }
        let theirs = parameters.counterparty_pubkeys().map_or([None; 5], keys);
        if keys(&parameters.holder_pubkeys)
            .iter()
            .any(|key| theirs.contains(key))
        {
            return Err(Refused::new(
                Rule::SetupKeys,
                "a key of the peer's in the parameters is this phone's",
            ));
        }
        let value = Amount::from_sat(parameters.channel_value_satoshis);
        if value == Amount::ZERO || value > Amount::MAX_MONEY {
            return Err(Refused::malformed("the channel's value is out of range"));
        }
        Ok(())
    }

    fn points(
        &self,
        signer: &InMemorySigner,
        first: u64,
        count: u32,
    ) -> Result<Vec<Vec<u8>>, Refused> {
        let first = in_range(first)?;
        if count > MAX_POINTS || u64::from(count) > first + 1 {
            return Err(Refused::malformed(
                "more points than there are, or than are given at once",
            ));
        }
        let indices = (0..u64::from(count)).map(|step| first - step);
        indices
            .map(|index| {
                self.point(signer, index)
                    .map(|point| point.serialize().to_vec())
            })
            .collect()
    }

    fn point(&self, signer: &InMemorySigner, index: u64) -> Result<PublicKey, Refused> {
        signer
            .get_per_commitment_point(index, &self.keys.secp)
            .map_err(|()| Refused::malformed("there is no such per-commitment point"))
    }
}

/// Every key of one side of a channel.
fn keys(keys: &ChannelPublicKeys) -> [Option<PublicKey>; 5] {
    [
        keys.funding_pubkey,
        keys.revocation_basepoint.0,
        keys.payment_point,
        keys.delayed_payment_basepoint.0,
        keys.htlc_basepoint.0,
    ]
    .map(Some)
}

/// Checks that `commitment` may be signed for the peer; `true` when it was signed before.
fn check_peer_number(
    channel: &Channel,
    commitment: &CommitmentTransaction,
) -> Result<bool, Refused> {
    let index = commitment.commitment_number();
    let other = |message: &str| Refused::new(Rule::CounterpartyNumber, message);
    if let Some(signed) = channel.peer.iter().find(|peer| peer.index == index) {
        let same = same(&signed.commitment, commitment);
        let refused = || other("another commitment with this number was signed for the peer");
        return if same { Ok(true) } else { Err(refused()) };
    }
    if Some(index) != next_index(channel.peer_index()) {
        return Err(other("the commitment is not the peer's next one"));
    }
    // The peer holds index + 1; index + 2 must be revoked before it may hold a third.
    if index + 2 <= FIRST_INDEX && channel.peer_revoked() > index + 2 {
        let message = "the peer has not revoked its commitment before the last yet";
        return Err(Refused::new(Rule::CounterpartyUnrevoked, message));
    }
    Ok(false)
}

/// The index that follows `latest`; `None` when there is none left.
fn next_index(latest: Option<u64>) -> Option<u64> {
    match latest {
        None => Some(FIRST_INDEX),
        Some(latest) => latest.checked_sub(1),
    }
}

fn in_range(index: u64) -> Result<u64, Refused> {
    if index <= FIRST_INDEX {
        Ok(index)
    } else {
        Err(Refused::malformed("an index above 2^48 - 1"))
    }
}

fn done() -> Answered {
    Ok((Answer::Done(proto::Done {}), Vec::new()))
}
