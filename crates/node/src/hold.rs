//! Payments that a hub holds for a peer that is away.
//!
//! LDK hands them over (`HTLCIntercepted`) instead of failing them. They go on when the peer is back, and
//! back when the host gives up; LDK itself fails them before their expiry.

use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId;
use prost::Message;

use bitcoin::secp256k1::PublicKey;

use crate::PeerNeeded;
use crate::core::Core;
use crate::hex::hex;

/// Blocks before the expiry of what would go out at which LDK fails an HTLC that it has handed over: its receiver has to
/// be there before.
const MARGIN_BLOCKS: u32 = HTLC_FAIL_BACK_BUFFER;

/// One held payment.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Held {
    #[prost(bytes = "vec", tag = "1")]
    intercept_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    channel_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    node_id: Vec<u8>,
    #[prost(uint64, tag = "4")]
    amount_msat: u64,
    /// Height before which the peer has to be there.
    #[prost(uint32, tag = "5")]
    deadline_height: u32,
}

impl Held {
    fn intercept(&self) -> Option<InterceptId> {
        Some(InterceptId(
            <[u8; 32]>::try_from(&self.intercept_id[..]).ok()?,
        ))
    }

    fn peer(&self) -> Option<PublicKey> {
        PublicKey::from_slice(&self.node_id).ok()
    }

    fn channel(&self) -> Option<ChannelId> {
        Some(ChannelId(<[u8; 32]>::try_from(&self.channel_id[..]).ok()?))
    }

    fn key(&self) -> String {
        format!("hold/{}", hex(&self.intercept_id))
    }
}

impl Core {
    /// Holds a payment for the peer of channel `scid`, or fails it when there is no such channel.
    pub fn hold(
        &mut self,
        intercept_id: InterceptId,
        scid: u64,
        amount_msat: u64,
        expiry_height: Option<u32>,
    ) -> Option<PeerNeeded> {
        let channels = self.manager.list_channels();
        let channel = channels.iter().find(|channel| {
            channel.short_channel_id == Some(scid) || channel.outbound_scid_alias == Some(scid)
        });
        let Some(channel) = channel else {
            let _ = self.manager.fail_intercepted_htlc(intercept_id);
            return None;
        };
        let node_id = channel.counterparty.node_id;
        let expiry = expiry_height.unwrap_or(self.height);
        let deadline_height = expiry.saturating_sub(MARGIN_BLOCKS);
        let held = Held {
            intercept_id: intercept_id.0.to_vec(),
            channel_id: channel.channel_id.0.to_vec(),
            node_id: node_id.serialize().to_vec(),
            amount_msat,
            deadline_height,
        };
        self.journal.put(held.key(), held.encode_to_vec());
        self.held.push(held);
        Some(PeerNeeded {
            node_id,
            deadline_height,
        })
    }

    /// Lets those go on whose peer is back. True when there were any.
    pub fn release_held(&mut self) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| self.is_back(held));
        self.held = waiting;
        for held in &ready {
            self.journal.delete(held.key());
            let (Some(id), Some(channel), Some(peer)) =
                (held.intercept(), held.channel(), held.peer())
            else {
                continue;
            };
            let amount_msat = held.amount_msat;
            if let Err(error) =
                self.manager
                    .forward_intercepted_htlc(id, &channel, peer, amount_msat)
            {
                tracing::info!("a held payment could not go on: {error:?}");
                let _ = self.manager.fail_intercepted_htlc(id);
            }
        }
        !ready.is_empty()
    }

    /// True when the peer can be sent the payment.
    fn is_back(&self, held: &Held) -> bool {
        let Some(peer) = held.peer() else {
            return false;
        };
        let channels = self.manager.list_channels_with_counterparty(&peer);
        channels
            .iter()
            .any(|channel| Some(channel.channel_id) == held.channel() && channel.is_usable)
    }

    /// What is still held, to be told again with each block: after a restart nobody else remembers it. Gives up what
    /// is past its deadline.
    pub fn still_held(&mut self) -> Vec<PeerNeeded> {
        let height = self.height;
        let is_over = |held: &Held| held.deadline_height <= height;
        let over: Vec<PublicKey> = self
            .held
            .iter()
            .filter(|held| is_over(held))
            .filter_map(Held::peer)
            .collect();
        for node_id in over {
            self.fail_held(&node_id);
        }
        let held = self.held.iter().filter_map(|held| {
            Some(PeerNeeded {
                node_id: held.peer()?,
                deadline_height: held.deadline_height,
            })
        });
        held.collect()
    }

    /// Fails back all that is held for `node_id`.
    pub fn fail_held(&mut self, node_id: &PublicKey) {
        let (failed, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| held.peer().as_ref() == Some(node_id));
        self.held = kept;
        for held in failed {
            self.journal.delete(held.key());
            if let Some(id) = held.intercept() {
                let _ = self.manager.fail_intercepted_htlc(id);
            }
        }
    }

    /// Reads back what was held when the process ended.
    pub fn load_held(&mut self) {
        let stored = self.journal.loaded("hold/");
        self.held = stored
            .into_iter()
            .filter_map(|(_, bytes)| Held::decode(&bytes[..]).ok())
            .collect();
    }
}
