//! What the owner asks for on the phone: the only thing that will justify what leaves the owner's balance.
//!
//! Nothing that the host says makes an intent. So far they are recorded and listed, and refuse nothing.

use bitcoin::secp256k1::PublicKey;

use crate::engine::{Change, Recorded, Signer};
use crate::ledger::entry;
use crate::rules::{self, Refused};

/// The owner asked to pay this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentIntent {
    /// The invoice's.
    pub payment_hash: [u8; 32],
    /// To be paid, without fees.
    pub amount_msat: u64,
    /// At most, for routing.
    pub max_fee_msat: u64,
    /// After this the intent justifies nothing.
    pub expires_unix_s: u64,
    /// When it was added.
    pub created_unix_s: u64,
}

/// The owner asked to send this on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnchainIntent {
    /// The command's id.
    pub id: Vec<u8>,
    /// Where to.
    pub address: String,
    /// 0 = all there is.
    pub amount_sat: u64,
    /// At most, for miners.
    pub max_fee_sat: u64,
    /// When it was added.
    pub created_unix_s: u64,
}

/// The owner asked to open or close a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelIntent {
    /// To open one.
    Open {
        /// The command's id, which becomes the channel's `user_channel_id`.
        id: Vec<u8>,
        /// The peer.
        counterparty_node_id: PublicKey,
        /// The channel's capacity.
        amount_sat: u64,
    },
    /// To close one.
    Close {
        /// The channel's id.
        channel_id: Vec<u8>,
        /// Without the peer.
        force: bool,
    },
}

impl Signer {
    /// Records that the owner asked to pay `payment_hash`. The same hash again replaces the intent (a second attempt).
    pub fn add_intent(
        &mut self,
        payment_hash: [u8; 32],
        amount_msat: u64,
        max_fee_msat: u64,
        expires_unix_s: u64,
        now_unix_s: u64,
    ) -> Result<Recorded<()>, Refused> {
        let intent = PaymentIntent {
            payment_hash,
            amount_msat,
            max_fee_msat,
            expires_unix_s,
            created_unix_s: now_unix_s,
        };
        self.owner_call((), Change::PaymentIntent((&intent).into()))
    }

    /// The outgoing payments that the owner asked for.
    pub fn intents(&self) -> impl Iterator<Item = &PaymentIntent> + '_ {
        self.state.payment_intents.values()
    }

    /// Records that the owner asked to send on chain. The same id again must say the same.
    pub fn add_onchain_intent(
        &mut self,
        id: &[u8],
        address: &str,
        amount_sat: u64,
        max_fee_sat: u64,
        now_unix_s: u64,
    ) -> Result<Recorded<()>, Refused> {
        let (id, address) = (id.to_vec(), address.to_string());
        let intent = OnchainIntent {
            id,
            address,
            amount_sat,
            max_fee_sat,
            created_unix_s: now_unix_s,
        };
        if let Some(old) = self.state.onchain_intents.get(&intent.id) {
            let same = OnchainIntent {
                created_unix_s: old.created_unix_s,
                ..intent
            } == *old;
            return if same {
                Ok(Recorded {
                    value: (),
                    records: Vec::new(),
                })
            } else {
                Err(used_id())
            };
        }
        self.owner_call((), Change::OnchainIntent((&intent).into()))
    }

    /// What the owner asked to send on chain.
    pub fn onchain_intents(&self) -> impl Iterator<Item = &OnchainIntent> + '_ {
        self.state.onchain_intents.values()
    }

    /// Records that the owner asked to open or close a channel. The same id again must say the same, but that a close
    /// may become a forced one.
    pub fn add_channel_intent(
        &mut self,
        intent: ChannelIntent,
        now_unix_s: u64,
    ) -> Result<Recorded<()>, Refused> {
        match self.state.channel_intents.get(intent.id()) {
            Some((old, _)) if *old == intent => {
                return Ok(Recorded {
                    value: (),
                    records: Vec::new(),
                });
            }
            Some((ChannelIntent::Open { .. }, _)) => return Err(used_id()),
            _ => {}
        }
        self.owner_call((), Change::ChannelIntent(intent.entry(now_unix_s)))
    }

    /// The channels that the owner asked to open or close.
    pub fn channel_intents(&self) -> impl Iterator<Item = &ChannelIntent> + '_ {
        self.state
            .channel_intents
            .values()
            .map(|(intent, _)| intent)
    }
}

impl ChannelIntent {
    /// The command's id, or the channel's.
    pub fn id(&self) -> &[u8] {
        match self {
            ChannelIntent::Open { id, .. } => id,
            ChannelIntent::Close { channel_id, .. } => channel_id,
        }
    }

    pub(crate) fn entry(&self, created_unix_s: u64) -> entry::ChannelIntentAdded {
        let added = entry::ChannelIntentAdded {
            id: self.id().to_vec(),
            created_unix_s,
            ..Default::default()
        };
        match self {
            ChannelIntent::Open {
                counterparty_node_id,
                amount_sat,
                ..
            } => entry::ChannelIntentAdded {
                counterparty_node_id: counterparty_node_id.serialize().to_vec(),
                amount_sat: *amount_sat,
                ..added
            },
            ChannelIntent::Close { force, .. } => entry::ChannelIntentAdded {
                close: true,
                force: *force,
                ..added
            },
        }
    }
}

impl From<&PaymentIntent> for entry::PaymentIntentAdded {
    fn from(intent: &PaymentIntent) -> Self {
        entry::PaymentIntentAdded {
            payment_hash: intent.payment_hash.to_vec(),
            amount_msat: intent.amount_msat,
            max_fee_msat: intent.max_fee_msat,
            expires_unix_s: intent.expires_unix_s,
            created_unix_s: intent.created_unix_s,
        }
    }
}

impl From<&OnchainIntent> for entry::OnchainIntentAdded {
    fn from(intent: &OnchainIntent) -> Self {
        entry::OnchainIntentAdded {
            id: intent.id.clone(),
            address: intent.address.clone(),
            amount_sat: intent.amount_sat,
            max_fee_sat: intent.max_fee_sat,
            created_unix_s: intent.created_unix_s,
        }
    }
}

fn used_id() -> Refused {
    Refused::new(
        rules::DUPLICATE,
        "this id was used for something else: take a new one",
    )
}
