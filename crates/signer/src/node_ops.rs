use crate::engine::{Answer, Signer};
use crate::rules::Refused;
use longhand_proto::signer as proto;

impl Signer {
    pub(crate) fn ecdh(&self, _op: &proto::Ecdh) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn peel_onion(&self, _op: &proto::PeelOnion) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
    pub(crate) fn sign_gossip(&self, _op: &proto::SignGossip) -> Result<Answer, Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
}
