use crate::engine::{Answer, Signer};
use crate::rules::Refused;
use longhand_proto::signer as proto;

impl Signer {
    pub(crate) fn sign_psbt(&self, _id: &[u8], _op: &proto::SignPsbt) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn spend_outputs(&self, _op: &proto::SpendOutputs) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
}
