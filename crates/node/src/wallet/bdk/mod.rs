//! The default on-chain wallet: `bdk_wallet` on account-level descriptors and, for an owner's node, without keys.
//!
//! There are thousands of these in one process. So only few scripts are derived ahead, and a block is recorded in
//! BDK's chain only when it concerns the wallet; the tip is kept beside it.

mod chain;
mod coins;
#[cfg(feature = "testing")]
mod derived;
mod replace;
mod sign;
mod spend;
mod store;
#[cfg(test)]
mod tests;
mod transactions;

use bdk_wallet::KeychainKind;
use bitcoin::OutPoint;
use longhand_chain::BlockRef;

use super::{OnchainWallet, WalletError, WalletFactory, WalletSetup};
use sign::{Descriptors, Keys};
use store::{Changes, load_bdk, take_staged};

/// Scripts derived beyond the last one known to be used, on each keychain: BIP 44's gap limit.
const LOOKAHEAD: u32 = 20;

const KEYCHAINS: [KeychainKind; 2] = [KeychainKind::External, KeychainKind::Internal];

/// Makes and loads wallets on BDK. Their descriptors are each `wpkh` or `tr` of one ranged account key.
#[derive(Clone, Copy, Debug, Default)]
pub struct BdkWallets;

impl WalletFactory for BdkWallets {
    fn load(
        &self,
        setup: &WalletSetup,
        records: Vec<(String, Vec<u8>)>,
    ) -> Result<Box<dyn OnchainWallet>, WalletError> {
        let wallet = if records.is_empty() {
            BdkWallet::create(setup)
        } else {
            BdkWallet::load(setup, records)
        };
        Ok(Box::new(wallet?))
    }
}

/// See the module.
pub(super) struct BdkWallet {
    bdk: bdk_wallet::Wallet,
    keys: Keys,
    tip: BlockRef,
    /// Changes to be written, besides those that `bdk` has staged.
    staged: Changes,
    /// Change records in the store.
    records: u64,
    /// For each keychain, the scripts that were returned to be watched.
    watched_scripts: [u32; 2],
    /// Own outputs that were not yet returned to be watched.
    new_outpoints: Vec<OutPoint>,
    /// Coins confirmed up to this height are held.
    held_up_to: Option<u32>,
}

impl BdkWallet {
    fn create(setup: &WalletSetup) -> Result<BdkWallet, WalletError> {
        let (descriptors, keys) = Descriptors::parse(setup)?;
        let bdk = bdk_wallet::Wallet::create(descriptors.external, descriptors.internal)
            .network(setup.network)
            .lookahead(LOOKAHEAD)
            .create_wallet_no_persist()
            .map_err(|e| WalletError::Descriptor(e.to_string()))?;
        let mut wallet = BdkWallet::around(bdk, keys, setup.birthday);
        wallet.move_tip(setup.birthday);
        Ok(wallet)
    }

    fn load(
        setup: &WalletSetup,
        records: Vec<(String, Vec<u8>)>,
    ) -> Result<BdkWallet, WalletError> {
        let (descriptors, keys) = Descriptors::parse(setup)?;
        let count = records.len() as u64;
        let mut all = Changes::default();
        for (_, bytes) in records {
            let changes = Changes::decode(&bytes)?;
            descriptors.check(changes.bdk.as_ref(), setup.network)?;
            all.merge(changes);
        }
        let (Some((height, hash)), Some(changes)) = (all.tip, all.bdk) else {
            return Err(WalletError::Stored("its beginning is missing".into()));
        };
        let mut bdk = load_bdk(changes)?;
        let staged = Changes {
            bdk: take_staged(&mut bdk),
            ..Changes::default()
        };
        let wallet = BdkWallet::around(bdk, keys, BlockRef { height, hash });
        Ok(BdkWallet {
            staged,
            records: count,
            ..wallet
        })
    }

    fn around(bdk: bdk_wallet::Wallet, keys: Keys, tip: BlockRef) -> BdkWallet {
        BdkWallet {
            bdk,
            keys,
            tip,
            staged: Changes::default(),
            records: 0,
            watched_scripts: [0; 2],
            new_outpoints: Vec::new(),
            held_up_to: None,
        }
    }
}
