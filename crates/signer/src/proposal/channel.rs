//! Operations of an open channel: keys, parameters, commitments and revocations (BOLT 2 and 3), and its announcement (BOLT 7).

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HolderCommitmentTransaction,
};
use lightning::ln::msgs::UnsignedChannelAnnouncement;
use lightning::routing::gossip::NodeId;
use longhand_proto::signer as proto;

use super::node::gossip;
use super::step::{Said, Step};
use super::{KeysId, keys_id};
use crate::commitment::{FIRST_INDEX, Side, read, read_parameters};
use crate::engine::Signer;
use crate::ledger::Channel;
use crate::rules::{Refused, revocations};

/// The most points in one answer.
const MAX_POINTS: u32 = 1000;

/// Keys for a channel that does not exist yet.
pub(crate) struct NewKeys {
    /// The id that the phone gives.
    pub keys_id: KeysId,
    /// The number of points, from the first index down.
    pub points: u32,
}

/// Per-commitment points of the owner; all of them exist.
pub(crate) struct Points {
    pub keys_id: KeysId,
    /// The first index; the others count down from it.
    pub first: u64,
    pub count: u32,
}

/// A channel's parameters.
pub(crate) struct Setup<'a> {
    pub keys_id: KeysId,
    pub parameters: ChannelTransactionParameters,
    pub counterparty_node_id: PublicKey,
    /// The id of the owner's opening that it is said to carry out; empty when the peer opens.
    pub opening_id: Vec<u8>,
    /// What the peer asks for.
    pub terms: Option<proto::ChannelTerms>,
    /// The channel, when it was set up before.
    pub on_record: Option<&'a Channel>,
}

/// The owner's next commitment, or the latest again.
pub(crate) struct HolderCommitment<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub commitment: HolderCommitmentTransaction,
    /// `None` for one that is repeated.
    pub step: Option<Step>,
}

/// The release of the secret of one of the owner's commitments.
pub(crate) struct Release<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub index: u64,
}

/// The peer's next commitment, or an earlier one again.
pub(crate) struct CounterpartyCommitment<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub commitment: CommitmentTransaction,
    /// `None` for one that is repeated.
    pub step: Option<Step>,
}

/// The peer's revocation of one of its commitments.
pub(crate) struct Revocation<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub index: u64,
    pub secret: SecretKey,
}

/// A `channel_announcement` of this channel.
pub(crate) struct Announcement<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub message: UnsignedChannelAnnouncement,
}

impl HolderCommitment<'_> {
    pub fn index(&self) -> u64 {
        self.commitment.commitment_number()
    }

    /// Whether a commitment with this number is the latest on record.
    pub fn is_repeated(&self) -> bool {
        self.step.is_none()
    }
}

impl CounterpartyCommitment<'_> {
    pub fn index(&self) -> u64 {
        self.commitment.commitment_number()
    }

    /// The commitment with this number that was signed before and is not revoked.
    pub fn on_record(&self) -> Option<&CommitmentTransaction> {
        self.channel.peer_at(self.index())
    }
}

impl Revocation<'_> {
    /// Whether the peer has revoked this commitment before.
    pub fn is_repeated(&self) -> bool {
        self.channel.peer_revoked() <= self.index
    }
}

pub(super) fn points(keys_id: KeysId, op: &proto::GetPoints) -> Result<Points, Refused> {
    Ok(Points {
        keys_id,
        first: op.first_index,
        count: count(op.first_index, op.count)?,
    })
}

impl Signer {
    pub(super) fn read_new_keys(&self, op: &proto::NewChannelKeys) -> Result<NewKeys, Refused> {
        Ok(NewKeys {
            keys_id: self.own().given_keys_id(&keys_id(&op.channel_keys_id)?),
            points: count(FIRST_INDEX, op.points)?,
        })
    }

    pub(super) fn read_setup(
        &self,
        keys_id: KeysId,
        op: &proto::SetupChannel,
    ) -> Result<Setup<'_>, Refused> {
        Ok(Setup {
            keys_id,
            parameters: read_parameters(&op.parameters)?,
            counterparty_node_id: PublicKey::from_slice(&op.counterparty_node_id)
                .map_err(|_| Refused::malformed("the peer's node id is not a public key"))?,
            opening_id: op.opening_id.clone(),
            terms: op.terms,
            on_record: self.state.channels.get(&keys_id),
        })
    }

    pub(super) fn read_holder_commitment(
        &self,
        keys_id: KeysId,
        op: &proto::ValidateHolderCommitment,
    ) -> Result<HolderCommitment<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let commitment: HolderCommitmentTransaction = read(&op.commitment)?;
        let said = Said {
            preimages: &op.outbound_preimages,
            trimmed: &[],
        };
        let is_repeated = channel.holder_index() == Some(commitment.commitment_number());
        let step = (!is_repeated).then(|| self.step(channel, Side::Holder, &commitment, &said));
        Ok(HolderCommitment {
            keys_id,
            channel,
            step: step.transpose()?,
            commitment,
        })
    }

    pub(super) fn read_release(
        &self,
        keys_id: KeysId,
        op: &proto::ReleaseSecret,
    ) -> Result<Release<'_>, Refused> {
        Ok(Release {
            keys_id,
            channel: self.channel(&keys_id)?,
            index: in_range(op.index)?,
        })
    }

    pub(super) fn read_counterparty_commitment(
        &self,
        keys_id: KeysId,
        op: &proto::SignCounterpartyCommitment,
    ) -> Result<CounterpartyCommitment<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let commitment: CommitmentTransaction = read(&op.commitment)?;
        let said = Said {
            preimages: &op.outbound_preimages,
            trimmed: &op.trimmed,
        };
        let is_repeated = channel.peer_at(commitment.commitment_number()).is_some();
        let step =
            (!is_repeated).then(|| self.step(channel, Side::Counterparty, &commitment, &said));
        Ok(CounterpartyCommitment {
            keys_id,
            channel,
            step: step.transpose()?,
            commitment,
        })
    }

    pub(super) fn read_revocation(
        &self,
        keys_id: KeysId,
        op: &proto::CounterpartyRevocation,
    ) -> Result<Revocation<'_>, Refused> {
        Ok(Revocation {
            keys_id,
            channel: self.channel(&keys_id)?,
            index: in_range(op.index)?,
            secret: SecretKey::from_slice(&op.secret).map_err(|_| revocations::wrong_secret())?,
        })
    }

    /// The announcement is compared key by key: a funding key that signed any hash would sign a commitment's.
    pub(super) fn read_announcement(
        &self,
        keys_id: KeysId,
        op: &proto::SignChannelAnnouncement,
    ) -> Result<Announcement<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let message: UnsignedChannelAnnouncement = gossip(&op.message)?;
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
        Ok(Announcement {
            keys_id,
            channel,
            message,
        })
    }
}

/// `count`, if there are so many points from index `first` down, and they are given at once.
fn count(first: u64, count: u32) -> Result<u32, Refused> {
    let first = in_range(first)?;
    if count > MAX_POINTS || u64::from(count) > first + 1 {
        return Err(Refused::malformed(
            "more points than there are, or than are given at once",
        ));
    }
    Ok(count)
}

fn in_range(index: u64) -> Result<u64, Refused> {
    if index <= FIRST_INDEX {
        Ok(index)
    } else {
        Err(Refused::malformed("an index above 2^48 - 1"))
    }
}
