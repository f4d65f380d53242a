//! A node's state and events, as its host sees them.

use std::fmt;

use bitcoin::secp256k1::PublicKey;

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No signer: the chain is watched, read-only calls work.
    Dormant,
    /// A signer is there; peers are being connected.
    Waking,
    /// Every channel's peer is connected and reestablished (or there is none).
    Active,
}

/// An event that a node reports to its host.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// The state changed.
    State(State),
    /// Payments to these peers wait at the hub because the peers are not connected. Reported as payments come, and again with
    /// each block.
    PaymentsHeld(Vec<PeerNeeded>),
    /// These peers are back, and the hub has forwarded all payments that it held for them.
    HeldForwarded(Vec<PublicKey>),
    /// The hub has failed back the payments that it held for this peer.
    HeldFailed(PublicKey),
    /// The signer is needed before this height, for an HTLC in flight. Reported with each block, however far away the height
    /// is.
    SignerNeeded {
        /// The HTLC's deadline.
        deadline_height: u32,
    },
    /// These peers are needed, for HTLCs that they were sent, and are not connected. Reported with each block, however far
    /// away their heights are: a node that went away before it got an HTLC does not know it.
    PeersNeeded(Vec<PeerNeeded>),
    /// An HTLC that was the owner's is lost: the signer was not there to claim it, and the peer has taken it back.
    HtlcLost {
        /// The hash of its payment.
        payment_hash: [u8; 32],
        /// The lost amount.
        amount_msat: u64,
        /// Height before which it had to be claimed.
        deadline_height: u32,
    },
    /// A panic was caught; the node was loaded again from its store.
    Restarted,
    /// The node has ended by itself, and another attempt would fail too: its store is damaged, say, or belongs to another
    /// host now. The text is the error, for the operator.
    Failed(String),
}

/// A peer of a hub that should be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNeeded {
    /// Its node.
    pub node_id: PublicKey,
    /// Height before which it has to be there.
    pub deadline_height: u32,
}

/// A snapshot of a node, which needs no signer.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The node's id.
    pub node_id: PublicKey,
    /// Where in its life it is.
    pub state: State,
    /// Channels, whatever their state.
    pub channels: u32,
    /// Channels that can carry a payment now.
    pub usable_channels: u32,
    /// Connected peers.
    pub peers: u32,
    /// Spendable in channels.
    pub lightning_msat: u64,
    /// In the on-chain wallet, confirmed.
    pub onchain_sat: u64,
    /// In the on-chain wallet, not confirmed.
    pub onchain_pending_sat: u64,
    /// Of the on-chain wallet, kept to defend the channels.
    pub reserve_sat: u64,
    /// The same with one more channel: with less, a hub refuses channels that peers ask for.
    pub reserve_for_next_sat: u64,
    /// From closed channels, not swept.
    pub closing_sat: u64,
    /// HTLCs in flight that both sides are committed to (BOLT 2).
    pub pending_htlcs: u32,
    /// Next height before which an HTLC in flight needs the signer.
    pub earliest_deadline: Option<u32>,
    /// Times a panic was caught.
    pub restarts: u32,
    /// Signer batches since the start, and the longest run of them that waited for each other since the last
    /// [`Node::reset_signer_chain`](crate::Node::reset_signer_chain).
    pub signer_batches: u64,
    /// See `signer_batches`.
    pub signer_chain: u32,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Dormant => "dormant",
            State::Waking => "waking",
            State::Active => "active",
        })
    }
}
