//! Signing: carries out what was judged. It refuses nothing, and has no condition but that of a repeated operation, which gives the
//! same answer and changes nothing.
//!
//! All signatures are RFC 6979 without added entropy, so that a repeated operation gives the same ones.

mod chain;
mod channel;
mod close;
mod node;
mod outgoing;
mod payment;
mod psbt;

use longhand_proto::signer as proto;
pub(crate) use payment::release_invoice;

use crate::engine::{Answer, Change, Signer};
use crate::proposal::Proposal;
use crate::rules::{Judged, Refused};

/// An answer, and the changes of the ledger that must be durable before it leaves.
pub(crate) type Signed = Result<(Answer, Vec<Change>), Fault>;

/// A failure of a library on input that was read and judged. None is known to happen.
#[derive(Debug)]
pub(crate) struct Fault(pub &'static str);

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::malformed(fault.0)
    }
}

impl Signer {
    /// Carries out an operation.
    pub(crate) fn sign(&self, judged: Judged<Proposal<'_>>, now_unix_s: u64) -> Signed {
        match judged.into_inner() {
            Proposal::Handshake(it) => unrecorded(self.shared_secret(&it.ephemeral)?),
            Proposal::Onion(onion) => self.peel_onion(&onion),
            Proposal::Gossip(gossip) => unrecorded(self.sign_gossip(&gossip)?),
            Proposal::OnChain(tx) => self.sign_psbt(tx),
            Proposal::Sweep(sweep) => unrecorded(close::sweep(&sweep)?),
            Proposal::Preimage(preimage) => payment::release(&preimage, now_unix_s),
            Proposal::NewKeys(keys) => unrecorded(self.new_channel_keys(&keys)?),
            Proposal::Setup(setup) => Ok(self.set_up(&setup)),
            Proposal::Points(points) => unrecorded(self.points_answer(&points)?),
            Proposal::HolderCommitment(it) => Ok(self.validate(&it, now_unix_s)),
            Proposal::Release(release) => self.release(&release),
            Proposal::CounterpartyCommitment(it) => self.sign_counterparty_commitment(&it),
            Proposal::Revocation(revocation) => Ok(self.revoke(&revocation)),
            Proposal::Closing(closing) => Ok(self.sign_closing(&closing)),
            Proposal::Broadcast(broadcast) => self.sign_broadcast(&broadcast),
            Proposal::HolderHtlc(htlc) => self.sign_holder_htlc(&htlc),
            Proposal::CounterpartyHtlc(htlc) => unrecorded(self.sign_counterparty_htlc(&htlc)),
            Proposal::Justice(justice) => Ok(self.sign_justice(&justice)),
            Proposal::Anchor(it) => {
                unrecorded(self.sign_with_funding_key(&it.keys_id, &it.sighash))
            }
            Proposal::Announcement(it) => unrecorded(self.sign_announcement(&it)?),
            Proposal::Proof(it) => chain::keep_proof(&it),
        }
    }
}

/// An answer that changes nothing.
fn unrecorded(answer: Answer) -> Signed {
    Ok((answer, Vec::new()))
}

fn done() -> Answer {
    Answer::Done(proto::Done {})
}
