//! The wallet's records in the node's namespace.

use std::sync::{Arc, Mutex};

use longhand_store::Write;

use super::{OnchainWallet, WalletError, WalletFactory, WalletSetup};
use crate::store::journal::Journal;
use crate::store::schema;

/// A node's wallet, for its turns and for what LDK calls from inside them.
pub(crate) type SharedWallet = Arc<Mutex<Box<dyn OnchainWallet>>>;

/// Loads the wallet from the records that the journal has loaded, or makes a new one when there are none.
///
/// # Errors
/// As [`WalletFactory::load`].
pub(crate) fn load(
    factory: &dyn WalletFactory,
    setup: &WalletSetup,
    journal: &Journal,
) -> Result<SharedWallet, WalletError> {
    let wallet = factory.load(setup, journal.loaded(schema::key::WALLET))?;
    Ok(Arc::new(Mutex::new(wallet)))
}

/// Writes the wallet's changes to the journal.
pub(crate) fn write_changes(wallet: &mut dyn OnchainWallet, journal: &Journal) {
    for write in wallet.take_changes() {
        match write {
            Write::Put(key, value) => journal.put(format!("{}{key}", schema::key::WALLET), value),
            Write::Delete(key) => journal.delete(format!("{}{key}", schema::key::WALLET)),
        }
    }
}
