//! The on-chain wallet: all that a node asks of it, as traits, so that another wallet can stand in BDK's place.
//!
//! An [`OnchainWallet`] is a value that does no I/O. It is fed blocks and the node's own broadcasts, hands out scripts,
//! builds transactions, and checks the signatures that a signer returns. It is called from inside a turn and under a lock,
//! so no call may block, wait for the network or read the clock. Its changes are written with the turn's journal, see
//! [`OnchainWallet::take_changes`]. Coins are outputs that it can spend; amounts are in satoshis.
//!
//! The traits are split by topic, and each is implemented in a file of its own:
//!
//! | trait | topic | BDK |
//! |---|---|---|
//! | [`WalletChain`] | follows the chain, says what to watch | `bdk/chain.rs` |
//! | [`WalletTransactions`] | transactions that it knows, confirmed or not | `bdk/transactions.rs` |
//! | [`WalletCoins`] | scripts, balance, coins for fee bumps | `bdk/coins.rs` |
//! | [`WalletSpends`] | builds transactions, reserves their inputs | `bdk/spend.rs`, `bdk/replace.rs` |
//! | [`WalletSigning`] | PSBTs to a signer and back | `bdk/sign.rs` |
//! | [`OnchainWallet`] | all of these, and its records in the store | `bdk/store.rs` |
//!
//! A [`WalletFactory`] makes and loads them; [`BdkWallets`] is the default. `tests/` says how each has to behave.

mod bdk;
mod error;
mod records;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{Address, Network, OutPoint, Psbt, Script, ScriptBuf, Transaction, Txid};
use lightning::util::wallet_utils::Utxo;
use longhand_chain::{BlockRef, WatchList};
use longhand_store::Write;
use zeroize::Zeroizing;

pub use bdk::BdkWallets;
pub use error::WalletError;
pub(crate) use records::{SharedWallet, load, write_changes};
#[cfg(test)]
pub(crate) use tests::{new_wallet, new_wallet_of};

/// Makes and loads on-chain wallets, one for each node.
pub trait WalletFactory: Send + Sync + 'static {
    /// Loads a wallet from its `records`: every key that [`OnchainWallet::take_changes`] has put and not deleted since,
    /// with its value, in the order of the keys. Without any, it makes a new wallet, whose first changes are there to be
    /// taken.
    ///
    /// # Errors
    /// [`WalletError::Descriptor`] when the descriptors are of a kind that it does not take, [`WalletError::Stored`] when
    /// the records cannot be read or are of another wallet.
    fn load(
        &self,
        setup: &WalletSetup,
        records: Vec<(String, Vec<u8>)>,
    ) -> Result<Box<dyn OnchainWallet>, WalletError>;
}

/// The keys of a wallet, and where in the chain it begins.
pub struct WalletSetup {
    /// The node's namespace in the store: a name that no other wallet of the host has.
    pub namespace: String,
    /// The chain's network.
    pub network: Network,
    /// Descriptor of the scripts to receive at (BIP 380), ranged: with an xpub for a wallet that only watches, with an
    /// xprv for one that can [`WalletSigning::sign_locally`].
    pub external: Zeroizing<String>,
    /// Descriptor of the scripts for change; likewise.
    pub internal: Zeroizing<String>,
    /// For a new wallet: the last block that can have nothing for it. Blocks are connected from the next one on.
    pub birthday: BlockRef,
}

/// A node's wallet. See the module.
pub trait OnchainWallet:
    WalletChain + WalletTransactions + WalletCoins + WalletSpends + WalletSigning + Send + 'static
{
    /// Whether [`OnchainWallet::take_changes`] would return anything.
    fn has_changes(&self) -> bool;

    /// The writes that keep what has changed since the last call, in order: they become durable together with the rest of
    /// the turn, before anything leaves the node because of them. The keys are the wallet's own, without the node's
    /// namespace or any prefix.
    fn take_changes(&mut self) -> Vec<Write>;
}

/// Follows the chain.
pub trait WalletChain {
    /// The last block that was connected.
    fn best_block(&self) -> BlockRef;

    /// Scripts and outpoints to watch besides those of earlier calls; the first call after the wallet was made or loaded
    /// returns all of them. An own output is watched until its spend is buried deep enough to be final.
    fn take_new_watches(&mut self) -> WatchList;

    /// Connects the next block. `txs` are those of its transactions that may concern the wallet, each with its index in the
    /// block, in order; the wallet ignores those that do not concern it.
    ///
    /// A block that is connected again is ignored; a different one at or below the tip's height first disconnects the
    /// blocks that it replaces.
    ///
    /// # Errors
    /// [`WalletError::OutOfOrder`] when blocks before this one are missing; nothing has changed.
    fn connect_block(
        &mut self,
        height: u32,
        header: &Header,
        txs: &[(usize, Arc<Transaction>)],
    ) -> Result<(), WalletError>;

    /// Everything to be watched, whatever [`WalletChain::take_new_watches`] has returned.
    fn watches(&self) -> WatchList;

    /// Adds transactions of a block of the past, at or below the tip and in its chain, that was not looked at when its
    /// height was connected, or not for all scripts that are known now. `txs` as in [`WalletChain::connect_block`];
    /// those that are known already are ignored.
    ///
    /// # Errors
    /// [`WalletError::OutOfOrder`] for a block above the tip, [`WalletError::Stored`] when one at its height cannot be
    /// replaced; nothing has changed.
    fn insert_block(
        &mut self,
        height: u32,
        header: &Header,
        txs: &[(usize, Arc<Transaction>)],
    ) -> Result<(), WalletError>;

    /// Height of the first block with a transaction of the wallet.
    fn first_block(&self) -> Option<u32>;

    /// Holds coins that were confirmed in blocks up to this height: they count in the balance and are not spent, since
    /// later blocks, which may spend them, are still being searched. `None` ends that. It is in no record.
    fn hold_coins(&mut self, up_to: Option<u32>);

    /// Disconnects every block above `fork`. Their transactions are unconfirmed again.
    ///
    /// # Errors
    /// [`WalletError::Stored`] when the wallet cannot go back; nothing has changed.
    fn disconnect_to(&mut self, fork: BlockRef) -> Result<(), WalletError>;
}

/// The transactions that the wallet knows. One of them *counts* when it is confirmed, or unconfirmed and no other that
/// counts conflicts with it.
pub trait WalletTransactions {
    /// Adds a transaction that the node has broadcast, or a package of parents and their child, as unconfirmed; `seen_unix_s`
    /// is the time of the broadcast. Ignored when none of it concerns the wallet, or when all of it counts already. Its
    /// inputs are spent from now on, and no longer reserved. It counts before every unconfirmed transaction that it
    /// conflicts with, whatever the time.
    ///
    /// The whole package is kept when one of it concerns the wallet, so that a conflict with a parent removes the child.
    fn insert_package(&mut self, package: Vec<Transaction>, seen_unix_s: u64);

    /// A transaction that the wallet has kept, confirmed or not.
    fn transaction(&self, txid: Txid) -> Option<Transaction>;

    /// Whether a transaction counts, and is unconfirmed.
    fn is_pending(&self, txid: Txid) -> bool;

    /// Whether a transaction is known and does not count, since another one spends the same output.
    fn is_displaced(&self, txid: Txid) -> bool;

    /// Whether a transaction that the wallet has kept is in a block.
    fn is_confirmed(&self, txid: Txid) -> bool {
        let is_known = self.transaction(txid).is_some();
        is_known && !self.is_pending(txid) && !self.is_displaced(txid)
    }

    /// Whether a transaction that counts spends `outpoint`, confirmed or not.
    fn is_spent(&self, outpoint: OutPoint) -> bool;

    /// Whether a confirmed transaction spends `outpoint`. Of outputs that are not the wallet's, only claims of HTLCs are
    /// known.
    fn is_spent_in_chain(&self, outpoint: OutPoint) -> bool;

    /// Unconfirmed transactions that spend the wallet's coins or pay to it, parents first: payments, fundings, fee bumps
    /// of closes and claims, and sweeps. They are broadcast again, since no one else may have them.
    fn waiting_own(&self) -> Vec<Transaction>;
}

/// Scripts, and the coins that they hold. A keychain is 0 (external) or 1 (internal, for change), as in BIP 44.
pub trait WalletCoins {
    /// An address to receive at, its keychain (0) and its index. A new one with each call, until 20 in a row have not been
    /// paid (the gap limit of BIP 44): from then on the last one, since a restored wallet would look no further.
    fn new_address(&mut self) -> (Address, u32, u32);

    /// An external script for the proceeds of a channel: the same until it is paid.
    fn unused_script(&mut self) -> ScriptBuf;

    /// The external script that a sweep of these outputs pays: that of an earlier sweep which it replaces, else an unused
    /// one. Sweeps of different outputs may pay different scripts, and a restored wallet looks at few scripts.
    fn sweep_script(&mut self, swept: &[OutPoint]) -> ScriptBuf;

    /// The change script of a fee bump for these outputs: that of an earlier bump which it replaces, else an unused one.
    fn claim_change_script(&mut self, claimed: &[OutPoint]) -> ScriptBuf;

    /// Keychain and index of an own script.
    fn path_of(&self, script: &Script) -> Option<(u32, u32)>;

    /// Unspent satoshis, confirmed and unconfirmed. Reserved coins are included; immature coinbase outputs (fewer than 100
    /// blocks) are unconfirmed.
    fn balance(&self) -> (u64, u64);

    /// Coins that LDK may spend to pay for closes, in a fixed order: confirmed ones that are not reserved, and those that
    /// only an unconfirmed transaction with inputs of others spends. Such a transaction is a fee bump too, and LDK must be
    /// able to replace it.
    fn confirmed_utxos(&self) -> Vec<Utxo>;
}

/// The amount of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendAmount {
    /// In satoshis, without the fee.
    Exact(u64),
    /// All that can be spent and is not to be kept, less the fee.
    All,
}

/// The transaction in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// The same payment, to this script. The payee of one that sent all gets less.
    Payment(ScriptBuf, SendAmount),
    /// Everything goes back to the wallet.
    ToWallet,
}

/// Builds transactions. The inputs of each are reserved until it is released, inserted with
/// [`WalletTransactions::insert_package`] or confirmed.
pub trait WalletSpends {
    /// Builds the funding transaction of a channel: `amount_sat` to `script`. At least `keep_sat` of what can be spent stays
    /// in the wallet (change counts), to pay for closes later. It does not signal replacement (BIP 125), since the
    /// channel is bound to its txid.
    ///
    /// # Errors
    /// [`WalletError::InsufficientFunds`], [`WalletError::BelowDust`], [`WalletError::FeeRate`],
    /// [`WalletError::TooManyInputs`], [`WalletError::Build`]; nothing is reserved.
    fn fund(
        &mut self,
        script: ScriptBuf,
        amount_sat: u64,
        feerate_sat_per_kw: u32,
        keep_sat: u64,
    ) -> Result<Psbt, WalletError>;

    /// Builds a payment to `script` that leaves at least `keep_sat` in the wallet. It signals replacement.
    ///
    /// # Errors
    /// As [`WalletSpends::fund`].
    fn send(
        &mut self,
        script: ScriptBuf,
        amount: SendAmount,
        feerate_sat_per_kw: u32,
        keep_sat: u64,
    ) -> Result<Psbt, WalletError>;

    /// Builds another transaction in the place of an unconfirmed one of the wallet's (BIP 125): it spends the same coins, and
    /// more where the fee needs them, at this fee rate.
    ///
    /// # Errors
    /// [`WalletError::NotReplaceable`] for one that is not the wallet's own, is confirmed or does not signal replacement,
    /// [`WalletError::HasChild`], [`WalletError::FeeTooLow`] when the fee rate is not above the old one's; otherwise as
    /// [`WalletSpends::fund`]. The fee may be above the rate, as far as relay needs it (BIP 125).
    fn replace(
        &mut self,
        txid: Txid,
        by: Replacement,
        feerate_sat_per_kw: u32,
    ) -> Result<Psbt, WalletError>;

    /// Builds a child of an unconfirmed transaction that is the wallet's own (CPFP, BIP 331): it spends the wallet's outputs
    /// of it to the wallet, with a fee that brings both together to this fee rate.
    ///
    /// # Errors
    /// [`WalletError::NotReplaceable`] for a transaction that is not known, is confirmed, or has no output of the wallet's that
    /// is unspent; [`WalletError::FeeTooLow`] when it has this fee rate already; [`WalletError::InsufficientFunds`] when
    /// those outputs do not cover the fee.
    fn accelerate(&mut self, txid: Txid, feerate_sat_per_kw: u32) -> Result<Psbt, WalletError>;

    /// The fee rate of an unconfirmed transaction in satoshis per 1,000 weight units; `None` when it is not the wallet's own.
    fn feerate_of(&self, txid: Txid) -> Option<u32>;

    /// Releases the inputs of a transaction that will not be broadcast. Its change script may be used again.
    fn release(&mut self, tx: &Transaction);
}

/// Prepares transactions for a signer, checks its signatures, and signs when the wallet has the keys.
pub trait WalletSigning {
    /// Fills in what a signer needs to recognise its own inputs and outputs: the outputs that are spent, their
    /// transactions, and the paths of the keys (BIP 174, BIP 371). Inputs and outputs of others are left as they are.
    fn describe(&self, psbt: Psbt) -> Psbt;

    /// Makes the transaction of `unsigned` with the signatures in `signed`, of which nothing else is used. It must be the
    /// same transaction, and have a valid signature of the whole transaction (`SIGHASH_ALL` or the default) on every own
    /// input. Inputs of others (an anchor's, an HTLC's) are left as they are in `unsigned`.
    ///
    /// # Errors
    /// [`WalletError::Changed`], [`WalletError::Unsigned`], [`WalletError::BadSignature`].
    fn finalize_own(&self, signed: &Psbt, unsigned: &Psbt) -> Result<Transaction, WalletError>;

    /// As [`WalletSigning::finalize_own`], for a transaction that must be signed in whole.
    ///
    /// # Errors
    /// As [`WalletSigning::finalize_own`]; [`WalletError::Unsigned`] also for an input of others without a witness.
    fn finalize(&self, signed: &Psbt, unsigned: &Psbt) -> Result<Transaction, WalletError> {
        let tx = self.finalize_own(signed, unsigned)?;
        match tx.input.iter().position(|input| input.witness.is_empty()) {
            Some(input) => Err(WalletError::Unsigned { input }),
            None => Ok(tx),
        }
    }

    /// Describes `psbt` and signs its own inputs with the keys in the wallet's descriptors.
    ///
    /// # Errors
    /// [`WalletError::NoKeys`] when it only watches, [`WalletError::Unsigned`] when an own input cannot be signed.
    fn sign_locally(&self, psbt: &mut Psbt) -> Result<(), WalletError>;

    /// Whether the wallet has private keys. A wallet of an owner, whose keys are on a phone, must not.
    fn holds_keys(&self) -> bool;
}
