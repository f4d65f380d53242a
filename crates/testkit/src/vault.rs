//! Vaults of phones whose coins are worth nothing.

use std::path::Path;

use bitcoin::Network;
use longhand_phone::{Birthday, Passphrase, PhoneError, Secrets, Vault, Words};

/// scrypt's log2(N): weak on purpose, so that a vault opens at once.
const KDF_WORK_FACTOR: u8 = 1;

/// Words of two seeds, from the test vectors of BIP 39.
pub const WORDS: [&str; 2] = [
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
    "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
];

/// The passphrase of all these vaults.
pub fn passphrase() -> Passphrase {
    "passphrase".to_owned().into()
}

/// A new vault in a directory, with a seed of its own.
///
/// # Errors
/// When the files cannot be written.
pub fn create(dir: &Path) -> Result<Vault, PhoneError> {
    let secrets = Secrets::generate(Network::Regtest, Words::Twelve)?;
    create_with(dir, secrets)
}

/// A new vault in a directory, with the seed of these words.
///
/// # Errors
/// When the words are none, or the files cannot be written.
pub fn restore(dir: &Path, words: &str) -> Result<Vault, PhoneError> {
    let secrets = Secrets::restore(Network::Regtest, words, Birthday::New)?;
    create_with(dir, secrets)
}

fn create_with(dir: &Path, secrets: Secrets) -> Result<Vault, PhoneError> {
    let vault = Vault::create(dir, secrets, &passphrase(), Some(KDF_WORK_FACTOR))?;
    Ok(vault)
}
