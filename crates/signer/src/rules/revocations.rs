//! Revocations by both sides (BOLT 2, `revoke_and_ack`).

use bitcoin::secp256k1::PublicKey;

use super::{Refused, Rule, refuse_unless};
use crate::proposal::{Release, Revocation};
use crate::view::View;

pub(super) fn has_a_successor(_: &View<'_>, it: &Release<'_>) -> Result<(), Refused> {
    let latest = it.channel.holder_index();
    refuse_unless(
        latest.is_some_and(|latest| latest < it.index),
        Rule::RevokeBeforeValidate,
        "no newer holder commitment with the peer's signatures is on record yet",
    )
}

/// A secret reveals those of some higher indices too (BOLT 3), so that all at or below the signed index stay here.
pub(super) fn is_not_signed_for_broadcast(_: &View<'_>, it: &Release<'_>) -> Result<(), Refused> {
    let signed = it.channel.broadcast;
    refuse_unless(
        signed.is_none_or(|signed| it.index > signed),
        Rule::RevokeSigned,
        "this holder commitment was signed for broadcast",
    )
}

/// An operation that is repeated. The peer's old secrets are known to both sides: no secret of the owner's is
/// compared here.
pub(super) fn is_the_same(_: &View<'_>, it: &Revocation<'_>) -> Result<(), Refused> {
    let known = it.channel.peer_secrets.get_secret(it.index);
    match known == Some(it.secret.secret_bytes()) {
        true => Ok(()),
        false => Err(wrong_secret()),
    }
}

pub(super) fn is_next(_: &View<'_>, it: &Revocation<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.channel.peer_revoked().checked_sub(1) == Some(it.index),
        Rule::RevocationOrder,
        "an earlier commitment of the peer is to be revoked first",
    )
}

pub(super) fn leaves_the_peer_a_newer_one(
    _: &View<'_>,
    it: &Revocation<'_>,
) -> Result<(), Refused> {
    let latest = it.channel.peer_index();
    refuse_unless(
        latest.is_some_and(|latest| latest < it.index),
        Rule::RevocationOrder,
        "the peer has no newer commitment yet",
    )
}

/// The secret must be the commitment's, and those of all later commitments must follow from it (BOLT 3).
pub(super) fn has_the_secret(view: &View<'_>, it: &Revocation<'_>) -> Result<(), Refused> {
    let mut peer = it.channel.peer.iter();
    let revoked = peer.find(|peer| peer.index == it.index);
    let point = revoked.map(|peer| peer.commitment.per_commitment_point());
    if point != Some(PublicKey::from_secret_key(view.own.secp(), &it.secret)) {
        return Err(wrong_secret());
    }
    let mut secrets = it.channel.peer_secrets.clone();
    secrets
        .provide_secret(it.index, it.secret.secret_bytes())
        .map_err(|()| wrong_secret())
}

pub(crate) fn wrong_secret() -> Refused {
    Refused::new(
        Rule::RevocationSecret,
        "the secret does not revoke that commitment of the peer",
    )
}
