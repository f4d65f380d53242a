//! Keys: the derivation of every key of the phone from a mnemonic.
//!
//! ```text
//! BIP 39 mnemonic, empty passphrase -> 64-byte seed -> BIP 32 master
//!   master's private key, 32 bytes -> LDK's `KeysManager`: node key, channels (the convention of ldk-node)
//!   m/84'/coin'/0' (BIP 84) and m/86'/coin'/0' (BIP 86): the on-chain accounts
//! ```
//! A seed restores the same keys in any tool that follows LDK's and Bitcoin's conventions.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bip39::Mnemonic;
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, Xpriv, Xpub};
use bitcoin::key::{CompressedPublicKey, TapTweak, UntweakedPublicKey};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, NetworkKind, ScriptBuf};
use lightning::ln::inbound_payment;
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner, Recipient};
use lightning::types::payment::PaymentHash;
use longhand_proto::command::Register;
use miniscript::{Descriptor, DescriptorPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Hardened index below LDK's master at which `KeysManager` finds its inbound payment key.
const INBOUND_PAYMENT_KEY: u32 = 5;

/// The limit of address indices: addresses are given, and swept money is sent, below it only. Those beyond are the owner's too, but a
/// wallet that is restored from the words would not look for them, and the host alone would know where the money is.
pub(crate) const ADDRESSES: u32 = 1 << 20;

/// The number of channels whose derived keys are cached.
const CHANNELS_KEPT: usize = 64;

/// The owner's secret: a BIP 39 mnemonic of 12 or 24 English words, used with the empty passphrase.
///
/// Its memory is wiped when it is dropped, and it never prints.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed {
    mnemonic: Mnemonic,
    /// The BIP 39 seed of the words, derived when it is first needed.
    #[zeroize(skip)]
    stretched: Arc<OnceLock<Zeroizing<[u8; 64]>>>,
}

impl Seed {
    /// A new mnemonic from 16 bytes (12 words) or 32 bytes (24 words) of the caller's entropy.
    pub fn from_entropy(entropy: &[u8]) -> Result<Seed, SeedError> {
        if entropy.len() != 16 && entropy.len() != 32 {
            return Err(SeedError::Length);
        }
        Mnemonic::from_entropy(entropy)
            .map(Seed::new)
            .map_err(|_| SeedError::Length)
    }

    /// Parses 12 or 24 English words, separated by blanks, in either case.
    pub fn from_words(words: &str) -> Result<Seed, SeedError> {
        let words = Zeroizing::new(
            words
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .to_lowercase(),
        );
        match words.split(' ').count() {
            12 | 24 => {}
            _ => return Err(SeedError::Length),
        }
        Mnemonic::parse_in_normalized(bip39::Language::English, &words)
            .map(Seed::new)
            .map_err(|error| match error {
                bip39::Error::InvalidChecksum => SeedError::Checksum,
                bip39::Error::UnknownWord(index) => SeedError::Word(index + 1),
                _ => SeedError::Length,
            })
    }

    fn new(mnemonic: Mnemonic) -> Seed {
        Seed {
            mnemonic,
            stretched: Arc::default(),
        }
    }

    /// The words, to show to the owner once, who writes them down.
    pub fn words(&self) -> Zeroizing<String> {
        Zeroizing::new(self.mnemonic.words().collect::<Vec<_>>().join(" "))
    }

    fn master(&self, network: Network) -> Result<Xpriv, SeedError> {
        let stretch = || Zeroizing::new(self.mnemonic.to_seed_normalized(""));
        let bytes = self.stretched.get_or_init(stretch);
        Xpriv::new_master(network, &**bytes).map_err(|_| SeedError::Unusable)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The reason for which words or entropy are no seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// Neither 12 nor 24 words (16 or 32 bytes).
    #[error("a seed has 12 or 24 words: count them again")]
    Length,
    /// A word, counted from 1, is not in the list.
    #[error("word {0} is not in the BIP 39 English list: look at its spelling")]
    Word(usize),
    /// All words are in the list, but their checksum is wrong.
    #[error("the words do not fit together (checksum): look at their order and spelling")]
    Checksum,
    /// No keys can be derived from it (one in 2^127 seeds).
    #[error("no keys can be made from this seed: make a new one")]
    Unusable,
}

/// An on-chain account of the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// Native segwit, `wpkh` (BIP 84). The one that a node is registered with by default.
    Bip84,
    /// Taproot key path, `tr` (BIP 86).
    Bip86,
}

impl Account {
    /// Both, the default first.
    pub const ALL: [Account; 2] = [Account::Bip84, Account::Bip86];

    fn purpose(self) -> u32 {
        match self {
            Account::Bip84 => 84,
            Account::Bip86 => 86,
        }
    }
}

/// The two chains of addresses of an account (BIP 44, "change").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Keychain {
    /// External addresses, to receive.
    External = 0,
    /// Internal addresses, for change.
    Internal = 1,
}

impl Keychain {
    /// Both.
    pub const ALL: [Keychain; 2] = [Keychain::External, Keychain::Internal];
}

impl TryFrom<u32> for Keychain {
    type Error = u32;
    fn try_from(number: u32) -> Result<Keychain, u32> {
        match number {
            0 => Ok(Keychain::External),
            1 => Ok(Keychain::Internal),
            other => Err(other),
        }
    }
}

/// Every key of the phone, derived once.
///
/// Its own copies are zeroized on drop; LDK's `KeysManager` and the key types of `bitcoin` do not zeroize theirs.
pub struct Keys {
    pub(crate) secp: Secp256k1<All>,
    pub(crate) ldk: KeysManager,
    network: Network,
    ldk_seed: Zeroizing<[u8; 32]>,
    inbound_payment_key: Zeroizing<[u8; 32]>,
    node_id: PublicKey,
    fingerprint: Fingerprint,
    accounts: [AccountKeys; 2],
    /// A cache of channel keys: deriving them takes longer than most operations with them.
    channels: Mutex<HashMap<[u8; 32], InMemorySigner>>,
}

impl Drop for AccountKeys {
    fn drop(&mut self) {
        self.xpriv.private_key.non_secure_erase();
    }
}

struct AccountKeys {
    xpriv: Xpriv,
    xpub: Xpub,
    path: DerivationPath,
    descriptors: [String; 2],
}

impl Keys {
    /// Derives the keys of `seed` on `network`.
    pub fn new(seed: &Seed, network: Network) -> Result<Keys, SeedError> {
        let secp = Secp256k1::new();
        let master = seed.master(network)?;
        let fingerprint = master.fingerprint(&secp);
        let ldk_seed = Zeroizing::new(master.private_key.secret_bytes());
        let ldk = ldk_keys(&ldk_seed);
        let node_id = ldk
            .get_node_id(Recipient::Node)
            .map_err(|()| SeedError::Unusable)?;
        let inbound = Xpriv::new_master(network, &*ldk_seed)
            .and_then(|ldk_master| ldk_master.derive_priv(&secp, &[hardened(INBOUND_PAYMENT_KEY)?]))
            .map_err(|_| SeedError::Unusable)?;
        let accounts = [
            AccountKeys::new(&secp, &master, fingerprint, Account::Bip84)?,
            AccountKeys::new(&secp, &master, fingerprint, Account::Bip86)?,
        ];
        Ok(Keys {
            secp,
            ldk,
            network,
            ldk_seed,
            inbound_payment_key: Zeroizing::new(inbound.private_key.secret_bytes()),
            node_id,
            fingerprint,
            accounts,
            channels: Mutex::default(),
        })
    }

    /// The node's id.
    pub fn node_id(&self) -> PublicKey {
        self.node_id
    }

    /// The shared secret of the node key with a point: SHA-256 of the compressed product (BOLT 4 and 8).
    pub(crate) fn node_secret(&self, point: &PublicKey) -> Option<Zeroizing<[u8; 32]>> {
        let secret = self.ldk.ecdh(Recipient::Node, point, None).ok()?;
        Some(Zeroizing::new(secret.secret_bytes()))
    }

    /// The chain's network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The BIP 380 descriptor of an account's keychain, with its xpub, key origin and checksum.
    pub fn descriptor(&self, account: Account, keychain: Keychain) -> &str {
        &self.account(account).descriptors[keychain as usize]
    }

    /// The script of the address at `index` (below 2^31) of an account's keychain.
    pub fn script(&self, account: Account, keychain: Keychain, index: u32) -> Option<ScriptBuf> {
        let path = [
            ChildNumber::from_normal_idx(keychain as u32).ok()?,
            ChildNumber::from_normal_idx(index).ok()?,
        ];
        let key = self
            .account(account)
            .xpub
            .derive_pub(&self.secp, &path)
            .ok()?
            .public_key;
        Some(match account {
            Account::Bip84 => ScriptBuf::new_p2wpkh(&CompressedPublicKey(key).wpubkey_hash()),
            Account::Bip86 => ScriptBuf::new_p2tr(&self.secp, UntweakedPublicKey::from(key), None),
        })
    }

    /// The registration of the node at its host: public keys, and those that cannot spend (docs/THREATS.md).
    pub fn register(&self, account: Account, birthday_height: u32) -> Register {
        Register {
            node_id: self.node_id.serialize().to_vec(),
            network: self.network.to_string(),
            external_descriptor: self.descriptor(account, Keychain::External).to_string(),
            internal_descriptor: self.descriptor(account, Keychain::Internal).to_string(),
            inbound_payment_key: self.inbound_payment_key.to_vec(),
            peer_storage_key: self.ldk.get_peer_storage_key().inner.to_vec(),
            receive_auth_key: self.ldk.get_receive_auth_key().0.to_vec(),
            birthday_height,
            birthday_unix_s: 0,
        }
    }

    /// The payment secret of an invoice (BOLT 11 `s`) over `amount_msat` (0 = any) that expires `expiry_s` after `made_unix_s`. It has both in
    /// it, and LDK takes a payment by it alone: made with the inbound payment key, as LDK makes it.
    pub(crate) fn payment_secret(
        &self,
        payment_hash: [u8; 32],
        amount_msat: u64,
        made_unix_s: u64,
        expiry_s: u32,
    ) -> Option<[u8; 32]> {
        let made = inbound_payment::create_from_hash(
            &self.ldk.get_expanded_key(),
            (amount_msat > 0).then_some(amount_msat),
            PaymentHash(payment_hash),
            expiry_s,
            &self.ldk,
            made_unix_s,
            None,
            None,
        );
        made.ok().map(|(secret, _)| secret.0)
    }

    /// The keys of one channel.
    pub(crate) fn channel(&self, keys_id: &[u8; 32]) -> InMemorySigner {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: the host may ask for the keys of any number of channels.
        if channels.len() >= CHANNELS_KEPT && !channels.contains_key(keys_id) {
            channels.clear();
        }
        let derived = channels.entry(*keys_id);
        derived
            .or_insert_with(|| self.ldk.derive_channel_keys(keys_id))
            .clone()
    }

    /// A `KeysManager` whose entropy always begins at the same point, so that its signatures are the same every time. (Its entropy only
    /// hedges RFC 6979 nonces, which are safe without.)
    pub(crate) fn deterministic_ldk(&self) -> KeysManager {
        ldk_keys(&self.ldk_seed)
    }

    /// The address at `path` from the master with `fingerprint`, when it is one of the accounts'.
    pub(crate) fn wallet_address(
        &self,
        fingerprint: Fingerprint,
        path: &DerivationPath,
    ) -> Option<WalletAddress> {
        if fingerprint != self.fingerprint {
            return None;
        }
        let account = Account::ALL
            .into_iter()
            .find(|a| starts_with(path, &self.account(*a).path))?;
        let own = &self.account(account).path;
        let [keychain, index]: [ChildNumber; 2] = path[own.len()..].try_into().ok()?;
        if !keychain.is_normal() || !index.is_normal() {
            return None;
        }
        let keychain = Keychain::try_from(u32::from(keychain)).ok()?;
        let index = u32::from(index);
        Some(WalletAddress {
            account,
            keychain,
            index,
            script: self.script(account, keychain, index)?,
        })
    }

    /// The private key of an address.
    pub(crate) fn wallet_key(&self, address: &WalletAddress) -> Option<WalletKey> {
        let path = [
            ChildNumber::from_normal_idx(address.keychain as u32).ok()?,
            ChildNumber::from_normal_idx(address.index).ok()?,
        ];
        let account = self.account(address.account);
        let key = account.xpriv.derive_priv(&self.secp, &path).ok()?;
        Some(WalletKey {
            secret: key.private_key,
        })
    }

    fn account(&self, account: Account) -> &AccountKeys {
        match account {
            Account::Bip84 => &self.accounts[0],
            Account::Bip86 => &self.accounts[1],
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.node_id)
    }
}

/// An address of the on-chain wallet.
pub(crate) struct WalletAddress {
    pub account: Account,
    pub keychain: Keychain,
    pub index: u32,
    pub script: ScriptBuf,
}

/// One private key of the on-chain wallet.
pub(crate) struct WalletKey {
    pub secret: bitcoin::secp256k1::SecretKey,
}

impl WalletKey {
    /// The key pair that signs for the BIP 86 output key.
    pub(crate) fn taproot_keypair(&self, secp: &Secp256k1<All>) -> bitcoin::secp256k1::Keypair {
        self.secret.keypair(secp).tap_tweak(secp, None).to_keypair()
    }
}

impl Drop for WalletKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl AccountKeys {
    fn new(
        secp: &Secp256k1<All>,
        master: &Xpriv,
        origin: Fingerprint,
        account: Account,
    ) -> Result<Self, SeedError> {
        let coin = match master.network {
            NetworkKind::Main => 0,
            NetworkKind::Test => 1,
        };
        let steps = [account.purpose(), coin, 0].map(hardened);
        let path: DerivationPath = steps
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| SeedError::Unusable)?
            .into();
        let xpriv = master
            .derive_priv(secp, &path)
            .map_err(|_| SeedError::Unusable)?;
        let xpub = Xpub::from_priv(secp, &xpriv);
        let descriptor = |keychain: Keychain| {
            let key = format!("[{origin}/{path}]{xpub}/{}/*", keychain as u32);
            let text = match account {
                Account::Bip84 => format!("wpkh({key})"),
                Account::Bip86 => format!("tr({key})"),
            };
            // Written by miniscript, so that it has a checksum and can be parsed again.
            Descriptor::<DescriptorPublicKey>::from_str(&text)
                .map(|d| d.to_string())
                .map_err(|_| SeedError::Unusable)
        };
        let descriptors = [
            descriptor(Keychain::External)?,
            descriptor(Keychain::Internal)?,
        ];
        Ok(AccountKeys {
            xpriv,
            xpub,
            path,
            descriptors,
        })
    }
}

fn ldk_keys(seed: &[u8; 32]) -> KeysManager {
    KeysManager::new(seed, 0, 0, true)
}

fn hardened(index: u32) -> Result<ChildNumber, bitcoin::bip32::Error> {
    ChildNumber::from_hardened_idx(index)
}

fn starts_with(path: &DerivationPath, prefix: &DerivationPath) -> bool {
    path.len() > prefix.len() && path.into_iter().zip(prefix).all(|(a, b)| a == b)
}
