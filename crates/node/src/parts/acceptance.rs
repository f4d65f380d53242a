//! Channels that peers ask for (`open_channel`), until they are accepted.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use lightning::util::config::{ChannelConfigOverrides, ChannelHandshakeConfigUpdate};

use crate::machine::turn::Turn;
use crate::parts::{reserve, terms};

/// Reasons of refusals, as the peer gets them.
const TOO_MANY: &str = "too many channels wait for their funding here: try again later";
const NO_RESERVE: &str =
    "this node has too few coins on chain to defend another channel: its operator has to add some";

/// Strangers whose channels with the hub are all without a confirmed funding, at one time. LDK takes 50 such peers: the rest is
/// for the nodes of the same host.
const STRANGERS: usize = 40;

/// See the module. Not stored: LDK forgets such channels with the connection.
#[derive(Default)]
pub(crate) struct Acceptance {
    requests: Vec<Request>,
}

/// A peer's `open_channel`, which LDK has accepted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub temporary_channel_id: ChannelId,
    pub counterparty: PublicKey,
    /// The peer's `dust_limit_satoshis` (BOLT 2).
    pub dust_limit_sat: u64,
    pub funding_sat: u64,
}

impl Acceptance {
    /// A peer asks for a channel.
    pub fn request(&mut self, request: Request) {
        self.requests.push(request);
    }

    /// Refuses those that the node could not defend, and accepts as many as there are keys for. The others wait until the phone has given more; LDK drops them after a
    /// while.
    pub fn advance(&mut self, turn: &Turn) {
        for request in std::mem::take(&mut self.requests) {
            if let Some(reason) = reason_to_refuse(turn, &request.counterparty) {
                refuse(turn, &request, reason);
                continue;
            }
            let user_channel_id = turn.random_channel_id();
            if let Some(remote) = turn.remote()
                && remote
                    .reserve(user_channel_id, request.counterparty)
                    .is_none()
            {
                self.requests.push(request);
                continue;
            }
            accept(turn, &request, user_channel_id);
        }
    }

    /// The signer is away, and with it the peers: their requests are void.
    pub fn clear(&mut self) {
        self.requests.clear();
    }
}

fn reason_to_refuse(turn: &Turn, counterparty: &PublicKey) -> Option<&'static str> {
    if !has_room_for(turn, counterparty) {
        return Some(TOO_MANY);
    }
    (!reserve::defends_another(turn, counterparty)).then_some(NO_RESERVE)
}

fn has_room_for(turn: &Turn, counterparty: &PublicKey) -> bool {
    let gate = &turn.ldk.gate;
    if !turn.config.is_hub || gate.is_hosted(counterparty) {
        return true;
    }
    // Whether a stranger has a funded channel.
    let mut strangers: HashMap<PublicKey, bool> = HashMap::new();
    for channel in turn.channels() {
        let peer = channel.counterparty.node_id;
        if !gate.is_hosted(&peer) {
            let is_funded = channel.confirmations.is_some_and(|depth| depth > 0);
            *strangers.entry(peer).or_default() |= is_funded;
        }
    }
    let has_funded = strangers.get(counterparty).is_some_and(|funded| *funded);
    has_funded || strangers.values().filter(|funded| !**funded).count() < STRANGERS
}

/// The peer gets the reason in an `error` (BOLT 1).
fn refuse(turn: &Turn, request: &Request, reason: &str) {
    tracing::info!(peer = %request.counterparty, "a channel was refused: {reason}");
    let closed = turn.ldk.manager.force_close_broadcasting_latest_txn(
        &request.temporary_channel_id,
        &request.counterparty,
        reason.into(),
    );
    if let Err(error) = closed {
        // LDK has forgotten it with the connection.
        tracing::debug!("a channel could not be refused: {error:?}");
    }
}

fn accept(turn: &Turn, request: &Request, user_channel_id: u128) {
    let (id, peer) = (&request.temporary_channel_id, &request.counterparty);
    let manager = &turn.ldk.manager;
    let remote = turn.remote();
    let depth = remote.and_then(|it| it.funding_depth(user_channel_id, request.funding_sat));
    let depth = depth.map(|blocks| ChannelConfigOverrides {
        handshake_overrides: Some(ChannelHandshakeConfigUpdate {
            minimum_depth: Some(blocks),
            ..ChannelHandshakeConfigUpdate::default()
        }),
        update_overrides: None,
    });
    match manager.accept_inbound_channel(id, peer, user_channel_id, depth) {
        Ok(()) => terms::keep(turn, peer, user_channel_id, request.dust_limit_sat),
        Err(error) => {
            tracing::info!("a channel was not accepted: {error:?}");
            if let Some(remote) = turn.remote() {
                remote.forget_channel(user_channel_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_proto::command::OpenChannel;
    use longhand_proto::command::command::Command as Kind;
    use longhand_proto::command::command_reply::Reply;

    use longhand_proto::Code;

    use super::*;
    use crate::machine::testing::World;

    /// A request for a channel that LDK has forgotten meanwhile.
    fn forgotten(counterparty: PublicKey) -> Request {
        Request {
            temporary_channel_id: ChannelId([9; 32]),
            counterparty,
            dust_limit_sat: 354,
            funding_sat: 100_000,
        }
    }

    #[test]
    fn a_request_waits_until_the_phone_has_given_keys() {
        let mut world = World::new();
        let hub = world.add_hub(1);
        let owner = world.add_owner(2, Some(hub));
        let peer = world.nodes[hub].machine.node_id();
        let mut acceptance = Acceptance::default();
        acceptance.request(forgotten(peer));
        acceptance.advance(world.turn(owner));
        assert_eq!(acceptance.requests, [forgotten(peer)]);

        world.attach(owner);
        acceptance.advance(world.turn(owner));
        assert!(acceptance.requests.is_empty());
    }

    #[test]
    fn the_requests_of_peers_are_void_once_the_signer_is_away() {
        let mut world = World::new();
        let hub = world.add_hub(1);
        let peer = world.nodes[hub].machine.node_id();
        let mut acceptance = Acceptance::default();
        acceptance.request(forgotten(peer));
        acceptance.clear();
        assert!(acceptance.requests.is_empty());
    }

    #[test]
    fn a_hub_with_keys_of_its_own_leaves_no_request_waiting() {
        let mut world = World::new();
        let hub = world.add_hub(1);
        let owner = world.add_owner(2, Some(hub));
        let peer = world.nodes[owner].machine.node_id();
        let mut acceptance = Acceptance::default();
        acceptance.request(forgotten(peer));
        acceptance.advance(world.turn(hub));
        assert!(acceptance.requests.is_empty());
    }

    #[test]
    fn a_hub_refuses_a_channel_that_it_could_not_defend_until_it_has_coins() {
        let mut world = World::new();
        let hub = world.add_hub_with_reserve(1, 20_000);
        let owner = world.add_owner(2, Some(hub));
        world.fund(owner, 2_000_000);
        world.attach(owner);
        let open = |number: u8| {
            Kind::OpenChannel(OpenChannel {
                id: vec![number; 16],
                amount_sat: 500_000,
                ..OpenChannel::default()
            })
        };
        let refused = world.ask(owner, open(1)).unwrap_err();
        assert_eq!(refused.code, Code::ChannelClosed);
        assert!(refused.message.contains("too few coins"), "{refused:?}");
        assert!(world.turn(hub).channels().is_empty());

        world.fund(hub, 20_000);
        let opened = world.ask(owner, open(2));
        assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    }
}
