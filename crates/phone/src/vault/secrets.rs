//! Secrets of the phone in `seed.age`: an age file (scrypt recipient) around a few lines of text.
//!
//! A holder of the passphrase can read it with the `age` tool, and the text explains the words, so
//! that an owner can leave without Longhand.

use bitcoin::Network;
use bitcoin::hex::{DisplayHex, FromHex};
use longhand_signer::Seed;
use zeroize::Zeroizing;

use super::{Passphrase, VaultError, fill_random, random_key};
use crate::birthday::Birthday;
use crate::error::PhoneError;
use age::secrecy::ExposeSecret;

const FIRST_LINE: &str = "longhand phone 1";

/// The highest work factor of scrypt, log2(N); files with more are refused (2^22: some ten seconds and 4 GiB, which is all of a
/// WebAssembly module's memory).
const MAX_WORK_FACTOR: u8 = if cfg!(target_family = "wasm") { 19 } else { 22 };

/// The work factor where the time of a trial cannot be measured: 64 MiB, a second of an average phone.
const WORK_FACTOR_UNMEASURED: u8 = 16;

/// The number of words of a new mnemonic (BIP 39).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// 128 bits.
    Twelve,
    /// 256 bits.
    TwentyFour,
}

impl Words {
    fn entropy_bytes(self) -> usize {
        match self {
            Words::Twelve => 16,
            Words::TwentyFour => 32,
        }
    }
}

/// The phone's secrets. All are wiped when dropped.
pub struct Secrets {
    /// The chain the phone was made for; it signs for no other.
    pub network: Network,
    /// BIP 39 words, English, one space between them.
    pub mnemonic: Zeroizing<String>,
    /// From where on the wallet can have a history.
    pub birthday: Birthday,
    /// Encrypts the ledger.
    pub data_key: Zeroizing<[u8; 32]>,
    /// The phone's static key in the link's Noise handshakes.
    pub link_key: Zeroizing<[u8; 32]>,
}

impl Secrets {
    /// A new mnemonic of 12 or 24 words.
    pub fn generate(network: Network, words: Words) -> Result<Secrets, PhoneError> {
        let mut entropy = Zeroizing::new([0; 32]);
        fill_random(entropy.as_mut_slice()).map_err(VaultError::from)?;
        let seed = Seed::from_entropy(&entropy[..words.entropy_bytes()])?;
        Ok(Secrets::new(network, seed.words(), Birthday::New)?)
    }

    /// An owner's own words.
    pub fn restore(
        network: Network,
        words: &str,
        birthday: Birthday,
    ) -> Result<Secrets, PhoneError> {
        let seed = Seed::from_words(words)?;
        Ok(Secrets::new(network, seed.words(), birthday)?)
    }

    /// Fresh keys beside the given words, which the caller has checked.
    pub(crate) fn new(
        network: Network,
        mnemonic: Zeroizing<String>,
        birthday: Birthday,
    ) -> Result<Secrets, VaultError> {
        let (data_key, link_key) = (random_key()?, random_key()?);
        Ok(Secrets {
            network,
            mnemonic,
            birthday,
            data_key,
            link_key,
        })
    }

    pub(super) fn encrypt(
        &self,
        passphrase: &Passphrase,
        work_factor: Option<u8>,
    ) -> Result<Vec<u8>, VaultError> {
        if passphrase.expose_secret().is_empty() {
            return Err(VaultError::EmptyPassphrase);
        }
        let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
        let unmeasured = cfg!(target_family = "wasm").then_some(WORK_FACTOR_UNMEASURED);
        if let Some(factor) = work_factor.or(unmeasured) {
            recipient.set_work_factor(factor.clamp(1, MAX_WORK_FACTOR));
        }
        age::encrypt(&recipient, self.to_text().as_bytes())
            .map_err(|error| std::io::Error::other(error).into())
    }

    pub(super) fn decrypt(sealed: &[u8], passphrase: &Passphrase) -> Result<Secrets, VaultError> {
        use age::DecryptError as E;
        let mut identity = age::scrypt::Identity::new(passphrase.clone());
        identity.set_max_work_factor(MAX_WORK_FACTOR);
        let text = age::decrypt(&identity, sealed).map(Zeroizing::new);
        let text = text.map_err(|error| match error {
            E::DecryptionFailed | E::KeyDecryptionFailed => VaultError::WrongPassphrase,
            E::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => error.into(),
            E::ExcessiveWork { .. } => VaultError::DamagedSeed("it asks for too much work"),
            E::UnknownFormat => VaultError::DamagedSeed("not an age file that is known"),
            E::NoMatchingKeys => VaultError::DamagedSeed("not encrypted by a passphrase"),
            _ => VaultError::DamagedSeed("it was changed or cut short"),
        })?;
        let text = std::str::from_utf8(&text).map_err(|_| VaultError::DamagedSeed("not text"))?;
        Secrets::from_text(text)
    }

    fn to_text(&self) -> Zeroizing<String> {
        let data_key = Zeroizing::new(self.data_key.to_lower_hex_string());
        let link_key = Zeroizing::new(self.link_key.to_lower_hex_string());
        // A program from before the line `birthday-unix-s` needs the other one, and takes 0 for a new wallet.
        let birthday = match self.birthday {
            Birthday::New => "birthday-height: 0".to_owned(),
            Birthday::Height(height) => format!("birthday-height: {height}"),
            Birthday::UnixS(unix_s) => format!("birthday-height: 0\nbirthday-unix-s: {unix_s}"),
        };
        Zeroizing::new(format!(
            "{FIRST_LINE}\nnetwork: {}\n{birthday}\nmnemonic: {}\ndata-key: {}\nlink-key: {}\n",
            self.network, *self.mnemonic, *data_key, *link_key,
        ))
    }

    fn from_text(text: &str) -> Result<Secrets, VaultError> {
        if text.lines().next() != Some(FIRST_LINE) {
            return Err(VaultError::DamagedSeed("its first line is not known"));
        }
        let optional = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let field = |name: &str| optional(name).ok_or(VaultError::DamagedSeed("a line is missing"));
        let malformed = VaultError::DamagedSeed("a line cannot be read");
        let key = |name: &str| match <[u8; 32]>::from_hex(field(name)?) {
            Ok(key) => Ok(Zeroizing::new(key)),
            Err(_) => Err(VaultError::DamagedSeed("a key cannot be read")),
        };
        let unix_s = optional("birthday-unix-s").map_or(Ok(0), str::parse);
        let (Ok(network), Ok(height), Ok(unix_s)) = (
            field("network")?.parse(),
            field("birthday-height")?.parse(),
            unix_s,
        ) else {
            return Err(malformed);
        };
        let birthday = match (height, unix_s) {
            (0, 0) => Birthday::New,
            (0, unix_s) => Birthday::UnixS(unix_s),
            (height, _) => Birthday::Height(height),
        };
        Ok(Secrets {
            network,
            mnemonic: Zeroizing::new(field("mnemonic")?.to_owned()),
            birthday,
            data_key: key("data-key")?,
            link_key: key("link-key")?,
        })
    }
}
