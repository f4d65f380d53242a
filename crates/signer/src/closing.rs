use crate::engine::{Answer, Change, Signer};
use crate::rules::Refused;
use longhand_proto::signer as proto;

impl Signer {
    pub(crate) fn sign_closing(
        &self,
        _id: [u8; 32],
        _op: &proto::SignClosing,
    ) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_holder_commitment(
        &self,
        _id: [u8; 32],
        _op: &proto::SignHolderCommitment,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_holder_htlc(
        &self,
        _id: [u8; 32],
        _op: &proto::SignHolderHtlc,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_counterparty_htlc(
        &self,
        _id: [u8; 32],
        _op: &proto::SignCounterpartyHtlc,
    ) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_justice(
        &self,
        _id: [u8; 32],
        _op: &proto::SignJustice,
    ) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_anchor(
        &self,
        _id: [u8; 32],
        _op: &proto::SignAnchor,
    ) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
}
