//! The view: all that a rule may look at beside the proposal that it judges. It is read and never changed; there is no I/O and no
//! clock in it, so that a judgement depends on nothing else.

use bitcoin::bip32::KeySource;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, ScriptBuf, Txid};
use lightning::ln::chan_utils::ChannelPublicKeys;
use lightning::sign::ChannelSigner;
use longhand_spv::{Headers, Status};
use zeroize::Zeroizing;

use crate::filters::Filters;
use crate::handshakes::Handshakes;
use crate::keys::{ADDRESSES, Account, Keychain, Keys, WalletAddress};
use crate::ledger::{Channel, OwnPayment, State};
use crate::limits::Limits;
use crate::points::Points;
use crate::source::Source;

/// A block takes ten minutes, in the long run.
pub(crate) const BLOCK_S: u64 = 600;
/// The number of addresses of each keychain that are tried when the index of a script is not given.
const SEARCH: u32 = 1000;

/// See the module.
pub(crate) struct View<'a> {
    /// The state that the ledger defines: channels, payments, intents.
    pub state: &'a State,
    /// The public side of the phone's keys.
    pub own: Own<'a>,
    /// The host's own hub, as the host said when it registered the phone.
    pub hub: Option<PublicKey>,
    /// Whom the owner wants to connect to, and how many handshakes there were.
    pub handshakes: &'a Handshakes,
    /// The points of the last handshakes and onions.
    pub points: &'a Points,
    pub sight: Sight<'a>,
    /// The time of the phone's clock when the proposal came, in seconds since 1970.
    pub now_unix_s: u64,
}

impl View<'_> {
    /// The owner's limits.
    pub fn limits(&self) -> &Limits {
        &self.state.limits
    }
}

/// How a channel was closed, as far as the phone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Nothing is known of a close.
    Unknown,
    /// By this transaction, which the host has proven or shown with its whole block.
    Proven(Txid),
    /// The second source says so: by this transaction, if it says that.
    Said(Option<Txid>),
}

/// The chain as the phone sees it.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub limits: &'a Limits,
    /// The best chain of those that the host and the second source have shown.
    pub headers: &'a Headers,
    /// What the second source says of the channels, when one is asked.
    pub source: Option<&'a Source>,
    /// What the host has shown by filters.
    pub filters: &'a Filters,
    pub now_unix_s: u64,
}

impl Sight<'_> {
    /// How many blocks have to confirm a channel before HTLCs in it count. A peer that has funded it could take the funding back.
    pub fn depth_needed(&self, channel: &Channel) -> u32 {
        let numbers = &self.limits.numbers;
        let value_sat = channel.parameters.channel_value_satoshis;
        let blocks = match channel.parameters.is_outbound_from_holder {
            true => 1,
            false if value_sat < numbers.large_channel_sat => numbers.funding_depth_blocks,
            false => numbers.large_funding_depth_blocks,
        };
        u32::try_from(blocks).unwrap_or(u32::MAX).max(1)
    }

    /// The height of the newest block. When that is old, also of those that have come since by the phone's clock: a host could keep them back.
    pub fn height_by_now(&self) -> u32 {
        let known = self.headers.height();
        if !self.headers.is_stale(self.now_unix_s) {
            return known;
        }
        let since_s = self
            .now_unix_s
            .saturating_sub(u64::from(self.headers.tip().time));
        let missing = u32::try_from(since_s / BLOCK_S).unwrap_or(u32::MAX);
        known.saturating_add(missing)
    }

    /// Whether the channel's funding is proven to be deep enough in the chain.
    pub fn is_deep(&self, channel: &Channel) -> bool {
        channel.confirmations(self.headers) >= self.depth_needed(channel)
    }

    /// How the channel was closed, as far as the phone knows.
    pub fn close(&self, channel: &Channel) -> Close {
        if let Some(spend) = channel.spend(self.headers) {
            return Close::Proven(spend.txid);
        }
        let funding = channel.funding();
        let shown = funding.and_then(|funding| self.filters.status(&funding));
        if let Some(Status::Spent(spend)) = shown {
            return Close::Proven(spend.by);
        }
        let said = self.source.zip(funding);
        let said = said.and_then(|(source, funding)| source.spent(&funding));
        match said {
            Some(txid) => Close::Said(txid),
            None => Close::Unknown,
        }
    }

    /// Whether the second source has just said that the channel is open or closed. Without such a source: whether the host's filters show
    /// it, which is asked of large payments alone.
    pub fn is_watched(&self, channel: &Channel, payment_msat: u64) -> bool {
        let funding = channel.funding();
        if let Some(source) = self.source {
            let is_sure = |funding| source.is_sure_of(&funding, self.headers, self.now_unix_s);
            return funding.is_some_and(is_sure);
        }
        let from_msat = self.limits.numbers.filters_from_sat.saturating_mul(1_000);
        let is_shown = || {
            let shown = channel.funding.as_ref().zip(funding);
            shown.is_some_and(|(block, funding)| {
                self.filters
                    .is_unspent(&funding, block.height, self.headers)
            })
        };
        payment_msat < from_msat || self.is_proven_closed(channel) || is_shown()
    }

    fn is_proven_closed(&self, channel: &Channel) -> bool {
        matches!(self.close(channel), Close::Proven(_))
    }
}

/// The public side of the phone's keys: with it a rule can recognise them, and not sign.
#[derive(Clone, Copy)]
pub(crate) struct Own<'a> {
    keys: &'a Keys,
    ledger_key: &'a [u8; 32],
}

impl<'a> Own<'a> {
    pub fn new(keys: &'a Keys, ledger_key: &'a [u8; 32]) -> Own<'a> {
        Own { keys, ledger_key }
    }

    pub fn secp(&self) -> &'a Secp256k1<All> {
        &self.keys.secp
    }

    pub fn node_id(&self) -> PublicKey {
        self.keys.node_id()
    }

    pub fn network(&self) -> Network {
        self.keys.network()
    }

    /// The secret of the node key with the ephemeral key of a peer (BOLT 8).
    pub fn handshake_secret(&self, ephemeral: &PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        self.keys.node_secret(ephemeral)
    }

    /// The owner's public keys of a channel.
    pub fn channel_keys(&self, keys_id: &[u8; 32]) -> ChannelPublicKeys {
        self.keys.channel(keys_id).pubkeys(self.secp())
    }

    /// The owner's per-commitment point.
    pub fn point(&self, keys_id: &[u8; 32], index: u64) -> Option<PublicKey> {
        let signer = self.keys.channel(keys_id);
        signer.get_per_commitment_point(index, self.secp()).ok()
    }

    /// The channel keys id that is given for the id `asked` by a node: the first half of it, and a MAC of that with the ledger's key. For
    /// an id that was given with this ledger, the same id.
    pub fn given_keys_id(&self, asked: &[u8; 32]) -> [u8; 32] {
        let mut mac = HmacEngine::<sha256::Hash>::new(self.ledger_key);
        mac.input(b"longhand channel keys id");
        mac.input(&asked[..16]);
        let mac = Hmac::from_engine(mac).to_byte_array();
        let mut given = *asked;
        given[16..].copy_from_slice(&mac[..16]);
        given
    }

    /// The payment secret of the invoice of a payment, see [`Keys::payment_secret`].
    pub fn payment_secret(&self, payment: &OwnPayment, expiry_s: u32) -> Option<[u8; 32]> {
        let payment = &payment.public;
        let (hash, made_unix_s) = (payment.payment_hash, payment.created_unix_s);
        self.keys
            .payment_secret(hash, payment.amount_msat, made_unix_s, expiry_s)
    }

    /// The address of the on-chain wallet with this key source (BIP 32), as a PSBT names it.
    pub fn wallet_address(&self, (fingerprint, path): &KeySource) -> Option<WalletAddress> {
        self.keys.wallet_address(*fingerprint, path)
    }

    /// Whether `script` is an address of the owner's: the one at the given index, or one of the first of each keychain.
    pub fn is_script(&self, script: &ScriptBuf, keychain: u32, index: u32) -> bool {
        self.is_script_at(script, keychain, index)
            || (0..SEARCH).any(|index| {
                Keychain::ALL.iter().any(|keychain| {
                    Account::ALL.iter().any(|account| {
                        self.keys.script(*account, *keychain, index).as_ref() == Some(script)
                    })
                })
            })
    }

    /// Whether `script` is the address of one of the accounts at (keychain, index), and money may be sent there.
    pub fn is_script_at(&self, script: &ScriptBuf, keychain: u32, index: u32) -> bool {
        if index >= ADDRESSES {
            return false;
        }
        let Ok(keychain) = Keychain::try_from(keychain) else {
            return false;
        };
        let is_of = |account| self.keys.script(account, keychain, index).as_ref() == Some(script);
        Account::ALL.into_iter().any(is_of)
    }
}
