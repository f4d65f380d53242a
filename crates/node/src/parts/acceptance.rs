//! Channels that peers ask for (`open_channel`), until they are accepted.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;

use crate::machine::turn::Turn;

/// See the module. Not stored: LDK forgets such channels with the connection.
#[derive(Default)]
pub(crate) struct Acceptance {
    /// With the peers.
    requests: Vec<(ChannelId, PublicKey)>,
}

impl Acceptance {
    /// A peer asks for a channel.
    pub fn request(&mut self, temporary_channel_id: ChannelId, counterparty: PublicKey) {
        self.requests.push((temporary_channel_id, counterparty));
    }

    /// Accepts as many as there are keys for. The others wait until the phone has given more; LDK drops them after a
    /// while.
    pub fn advance(&mut self, turn: &Turn) {
        for (temporary_channel_id, counterparty) in std::mem::take(&mut self.requests) {
            let user_channel_id = turn.random_channel_id();
            if let Some(remote) = turn.remote()
                && remote.reserve(user_channel_id, counterparty).is_none()
            {
                self.requests.push((temporary_channel_id, counterparty));
                continue;
            }
            accept(turn, temporary_channel_id, counterparty, user_channel_id);
        }
    }

    /// The signer is away, and with it the peers: their requests are void.
    pub fn clear(&mut self) {
        self.requests.clear();
    }
}

fn accept(
    turn: &Turn,
    temporary_channel_id: ChannelId,
    counterparty: PublicKey,
    user_channel_id: u128,
) {
    let accepted = turn.ldk.manager.accept_inbound_channel(
        &temporary_channel_id,
        &counterparty,
        user_channel_id,
        None,
    );
    if let Err(error) = accepted {
        tracing::info!("a channel was not accepted: {error:?}");
        if let Some(remote) = turn.remote() {
            remote.forget_channel(user_channel_id);
        }
    }
}
