//! What the owner asks for, and what the owner is paid: invoices, preimages, intents.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::PublicKey;
use lightning_invoice::Bolt11Invoice;
use longhand_proto::command::UnsignedInvoice;
use longhand_proto::signer::GetPreimage;

use crate::engine::{Answer, Change, Recorded, Signer};
use crate::ledger::entry;
use crate::rules::{self, Refused};

/// How far an invoice's timestamp may be from the phone's own clock, in seconds.
const CLOCK_SKEW_S: u64 = 3600;

/// What the owner asked the host to make an invoice of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceRequest {
    /// Of [`Signer::new_payment`].
    pub payment_hash: [u8; 32],
    /// 0 = any amount.
    pub amount_msat: u64,
    /// As it is to stand in the invoice.
    pub description: String,
    /// How long the invoice can be paid, from its timestamp.
    pub expiry_s: u32,
}

/// An incoming payment that the phone made a preimage for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// SHA-256 of the preimage.
    pub payment_hash: [u8; 32],
    /// What was asked; 0 = any amount.
    pub amount_msat: u64,
    /// When it was made.
    pub created_unix_s: u64,
    /// The signed invoice, in BOLT 11; empty before [`Signer::finish_invoice`].
    pub bolt11: String,
    /// When the invoice expires; 0 before there is one.
    pub expires_unix_s: u64,
    /// When the first HTLC for it was validated.
    pub seen_unix_s: Option<u64>,
    /// When the preimage left the phone, and what was irrevocably committed to it then.
    pub released: Option<Released>,
}

/// See [`Payment::released`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Sum of the HTLCs, in millisatoshis.
    pub received_msat: u64,
    /// When.
    pub at_unix_s: u64,
}

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
    /// Makes a preimage of 32 bytes of the caller's fresh `entropy`, and gives its hash for an invoice over
    /// `amount_msat` (0 = any amount).
    pub fn new_payment(
        &mut self,
        amount_msat: u64,
        entropy: [u8; 32],
        now_unix_s: u64,
    ) -> Result<Recorded<[u8; 32]>, Refused> {
        let value = payment_hash(&entropy);
        if self.state.payments.contains_key(&value) {
            return Err(Refused::new(
                rules::DUPLICATE,
                "this preimage was made before: give fresh entropy",
            ));
        }
        let made = entry::PaymentMade {
            preimage: entropy.to_vec(),
            amount_msat,
            created_unix_s: now_unix_s,
        };
        self.owner_call(value, Change::PaymentMade(made))
    }

    /// Checks the host's unsigned invoice against what the owner `asked`, signs it with the node key and puts it
    /// together (BOLT 11).
    ///
    /// Refused ([`rules::INVOICE_MISMATCH`]) when anything in it is not what was asked: network, amount, payment hash,
    /// description, expiry, a timestamp more than an hour from `now_unix_s`, another payee, or an on-chain fallback
    /// address (which would let the host have the money).
    pub fn finish_invoice(
        &mut self,
        unsigned: &UnsignedInvoice,
        asked: &InvoiceRequest,
        now_unix_s: u64,
    ) -> Result<Recorded<Bolt11Invoice>, Refused> {
        let payment = self.state.payments.get(&asked.payment_hash);
        let payment = payment.ok_or_else(|| {
            Refused::new(rules::PREIMAGE_UNKNOWN, "no such payment was made here")
        })?;
        if payment.public.amount_msat != asked.amount_msat {
            return Err(mismatch("its amount is not that of the payment"));
        }
        if !payment.public.bolt11.is_empty() {
            return Err(Refused::new(
                rules::DUPLICATE,
                "this payment has its invoice already: make a new payment",
            ));
        }
        let invoice = self.sign_invoice(unsigned)?;
        self.check_invoice(&invoice, asked, now_unix_s)?;
        let expires_unix_s = invoice
            .duration_since_epoch()
            .as_secs()
            .saturating_add(invoice.expiry_time().as_secs());
        let signed = entry::InvoiceSigned {
            payment_hash: asked.payment_hash.to_vec(),
            bolt11: invoice.to_string(),
            expires_unix_s,
        };
        self.owner_call(invoice, Change::InvoiceSigned(signed))
    }

    /// The incoming payments that the phone made preimages for, in no particular order.
    pub fn payments(&self) -> impl Iterator<Item = &Payment> + '_ {
        self.state.payments.values().map(|payment| &payment.public)
    }

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

    fn owner_call<T>(&mut self, value: T, change: Change) -> Result<Recorded<T>, Refused> {
        let mut changes = Vec::new();
        self.change(vec![change], &mut changes)?;
        Ok(Recorded {
            value,
            records: self.record(changes),
        })
    }

    fn sign_invoice(&self, _unsigned: &UnsignedInvoice) -> Result<Bolt11Invoice, Refused> {
        Err(unreadable())
    }

    fn check_invoice(
        &self,
        _invoice: &Bolt11Invoice,
        _asked: &InvoiceRequest,
        _now: u64,
    ) -> Result<(), Refused> {
        Err(mismatch("not checked"))
    }

    pub(crate) fn get_preimage(
        &self,
        _op: &GetPreimage,
        _now: u64,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        Err(Refused::malformed("not understood by this version"))
    }
}

/// SHA-256 of a preimage.
pub(crate) fn payment_hash(preimage: &[u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(preimage).to_byte_array()
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

fn mismatch(what: &str) -> Refused {
    Refused::new(
        rules::INVOICE_MISMATCH,
        format!("the host's invoice is not what was asked for: {what}"),
    )
}

fn unreadable() -> Refused {
    mismatch("it cannot be read")
}

fn used_id() -> Refused {
    Refused::new(
        rules::DUPLICATE,
        "this id was used for something else: take a new one",
    )
}
