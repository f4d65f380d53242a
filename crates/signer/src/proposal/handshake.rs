//! Handshakes with peers (BOLT 8).

use bitcoin::secp256k1::PublicKey;
use longhand_bolt8::{ActError, ActOne, ephemeral_key};
use longhand_proto::signer::Ecdh;

use crate::rules::Refused;

/// A handshake that needs the secret of the node key with the peer's ephemeral key.
pub(crate) struct Handshake {
    /// The peer's ephemeral key.
    pub ephemeral: PublicKey,
    pub act: Act,
}

/// The peer's act.
pub(crate) enum Act {
    /// Of a peer that dials. Who it is, its Act Three shows.
    One(ActOne),
    /// Of the peer with this node id, which the node dials. Its tag shows nothing, since the host has the keys that it is made with.
    Two(PublicKey),
}

pub(super) fn read(op: &Ecdh) -> Result<Handshake, Refused> {
    let refused = |error: ActError| Refused::malformed(error.to_string());
    let ephemeral = ephemeral_key(&op.act).map_err(refused)?;
    let act = match op.dialed_node_id.is_empty() {
        true => Act::One(ActOne::parse(&op.act).map_err(refused)?),
        false => Act::Two(
            PublicKey::from_slice(&op.dialed_node_id)
                .map_err(|_| Refused::malformed("the node id of the dialled peer is none"))?,
        ),
    };
    Ok(Handshake { ephemeral, act })
}
