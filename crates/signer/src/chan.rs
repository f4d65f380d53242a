use crate::engine::{Answer, Change, Signer};
use crate::rules::Refused;
use longhand_proto::signer as proto;

impl Signer {
    pub(crate) fn new_channel_keys(&self, _op: &proto::NewChannelKeys) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn setup_channel(
        &self,
        _id: [u8; 32],
        _op: &proto::SetupChannel,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn get_points(
        &self,
        _id: [u8; 32],
        _op: &proto::GetPoints,
    ) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn validate_holder_commitment(
        &self,
        _id: [u8; 32],
        _op: &proto::ValidateHolderCommitment,
        _now: u64,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn release_secret(
        &self,
        _id: [u8; 32],
        _op: &proto::ReleaseSecret,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_counterparty_commitment(
        &self,
        _id: [u8; 32],
        _op: &proto::SignCounterpartyCommitment,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn counterparty_revocation(
        &self,
        _id: [u8; 32],
        _op: &proto::CounterpartyRevocation,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_channel_announcement(
        &self,
        _id: [u8; 32],
        _op: &proto::SignChannelAnnouncement,
    ) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
}
