//! Proposals: operations of the host, read.
//!
//! Reading parses an operation, finds what it names on record (its channel, its payment, its intents), and rebuilds its transactions
//! with LDK's builders. It refuses what cannot be read ([`Rule::Malformed`](crate::Rule::Malformed)) or is not on record. A proposal
//! justifies nothing: [`judge`](crate::rules::judge) does, and `sign/*` carries it out.

mod chain;
mod channel;
mod close;
mod handshake;
mod node;
mod onion;
mod payment;
mod psbt;
mod step;

use longhand_proto::signer::{SignerOp, signer_op};

pub(crate) use chain::{ChainProof, Role};
pub(crate) use channel::{
    Announcement, CounterpartyCommitment, HolderCommitment, NewKeys, Points, Release, Revocation,
    Setup,
};
pub(crate) use close::{
    Anchor, Broadcast, Claim, Closing, CounterpartyHtlc, HolderHtlc, Justice, Sweep,
};
pub(crate) use handshake::{Act, Handshake};
pub(crate) use node::Gossip;
pub(crate) use onion::{Content, Onion};
pub(crate) use payment::{Committed, Invoice, Preimage};
pub(crate) use psbt::{OnChain, OwnInput, Send, Spent};
pub(crate) use step::Step;

use crate::engine::Signer;
use crate::ledger::Channel;
use crate::rules::{Refused, Rule};

/// The id of a channel's keys.
pub(crate) type KeysId = [u8; 32];

/// An operation of the host, read. It lives for one operation, on the stack.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(crate) enum Proposal<'a> {
    Handshake(Handshake),
    Onion(Onion<'a>),
    Gossip(Gossip),
    OnChain(OnChain<'a>),
    Sweep(Sweep),
    Preimage(Preimage<'a>),
    NewKeys(NewKeys),
    Setup(Setup<'a>),
    Points(Points),
    HolderCommitment(HolderCommitment<'a>),
    Release(Release<'a>),
    CounterpartyCommitment(CounterpartyCommitment<'a>),
    Revocation(Revocation<'a>),
    Closing(Closing<'a>),
    Broadcast(Broadcast<'a>),
    HolderHtlc(HolderHtlc<'a>),
    CounterpartyHtlc(CounterpartyHtlc<'a>),
    Justice(Justice<'a>),
    Anchor(Anchor),
    Announcement(Announcement<'a>),
    Proof(ChainProof<'a>),
}

impl Signer {
    /// Reads an operation, which came at this time.
    pub(crate) fn read<'a>(
        &'a self,
        op: &'a SignerOp,
        now_unix_s: u64,
    ) -> Result<Proposal<'a>, Refused> {
        use signer_op::Op;
        let operation = op
            .op
            .as_ref()
            .ok_or_else(|| Refused::malformed("an operation this version does not know"))?;
        let of_channel = || keys_id(&op.channel_keys_id);
        Ok(match operation {
            Op::Ecdh(o) => Proposal::Handshake(handshake::read(o)?),
            Op::PeelOnion(o) => Proposal::Onion(self.read_onion(keys_id(&o.channel_keys_id)?, o)?),
            Op::SignGossip(o) => Proposal::Gossip(self.read_gossip(o)?),
            Op::SignPsbt(o) => Proposal::OnChain(self.read_psbt(&op.channel_keys_id, o)?),
            Op::SpendOutputs(o) => Proposal::Sweep(self.read_sweep(o)?),
            Op::GetPreimage(o) => Proposal::Preimage(self.read_preimage(o, now_unix_s)?),
            Op::NewChannelKeys(o) => Proposal::NewKeys(self.read_new_keys(o)?),
            Op::SetupChannel(o) => Proposal::Setup(self.read_setup(of_channel()?, o)?),
            Op::GetPoints(o) => Proposal::Points(channel::points(of_channel()?, o)?),
            Op::ValidateHolderCommitment(o) => {
                Proposal::HolderCommitment(self.read_holder_commitment(of_channel()?, o)?)
            }
            Op::ReleaseSecret(o) => Proposal::Release(self.read_release(of_channel()?, o)?),
            Op::SignCounterpartyCommitment(o) => Proposal::CounterpartyCommitment(
                self.read_counterparty_commitment(of_channel()?, o)?,
            ),
            Op::CounterpartyRevocation(o) => {
                Proposal::Revocation(self.read_revocation(of_channel()?, o)?)
            }
            Op::SignClosing(o) => Proposal::Closing(self.read_closing(of_channel()?, o)?),
            Op::SignHolderCommitment(o) => {
                Proposal::Broadcast(self.read_broadcast(of_channel()?, o)?)
            }
            Op::SignHolderHtlc(o) => Proposal::HolderHtlc(self.read_holder_htlc(of_channel()?, o)?),
            Op::SignCounterpartyHtlc(o) => {
                Proposal::CounterpartyHtlc(self.read_counterparty_htlc(of_channel()?, o)?)
            }
            Op::SignJustice(o) => Proposal::Justice(self.read_justice(of_channel()?, o)?),
            Op::SignAnchor(o) => Proposal::Anchor(self.read_anchor(of_channel()?, o)?),
            Op::SignChannelAnnouncement(o) => {
                Proposal::Announcement(self.read_announcement(of_channel()?, o)?)
            }
            Op::ProveTransaction(o) => Proposal::Proof(self.read_proof(of_channel()?, o)?),
            // They change what the others are judged by, and are taken before those are read.
            Op::ExtendHeaders(_) | Op::ShowFilters(_) => {
                return Err(Refused::malformed("headers and filters are not proposed"));
            }
        })
    }

    /// The channel, if it was set up.
    fn channel(&self, keys_id: &KeysId) -> Result<&Channel, Refused> {
        self.state.channels.get(keys_id).ok_or_else(|| {
            Refused::new(
                Rule::UnknownChannel,
                "this channel was not set up with this phone",
            )
        })
    }
}

fn keys_id(bytes: &[u8]) -> Result<KeysId, Refused> {
    bytes
        .try_into()
        .map_err(|_| Refused::malformed("channel_keys_id is not 32 bytes"))
}
