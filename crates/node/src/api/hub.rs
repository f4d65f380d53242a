//! A hub's forwarding of payments, as its operator sees it.

/// The fees that a hub takes for forwarding a payment (BOLT 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingFees {
    /// For each payment.
    pub base_msat: u32,
    /// For each amount, in millionths of it.
    pub proportional_millionths: u32,
}

/// The payments that a hub has forwarded and that were paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwards {
    /// All of them.
    pub count: u64,
    /// Sent on, in all.
    pub amount_msat: u64,
    /// Earned, in all, without the payments whose fee is not known.
    pub fee_msat: u64,
    /// The newest of them, the newest first.
    pub newest: Vec<Forward>,
}

/// A payment that a hub has forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// When it was paid, in seconds since 1970.
    pub unix_s: u64,
    /// The channel that it came from.
    pub from_channel_id: Vec<u8>,
    /// The node at the other end of that; empty when it is not known.
    pub from_node_id: Vec<u8>,
    /// The channel that it was sent to.
    pub to_channel_id: Vec<u8>,
    /// The node at the other end of that; empty when it is not known.
    pub to_node_id: Vec<u8>,
    /// The amount that was sent on.
    pub amount_msat: u64,
    /// The fee; `None` when it was claimed on chain in a way that leaves it unknown.
    pub fee_msat: Option<u64>,
    /// It was claimed on chain, not in the channel.
    pub claimed_on_chain: bool,
}
