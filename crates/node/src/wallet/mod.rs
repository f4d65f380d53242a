//! The on-chain wallet of a node: `bdk_wallet` on account-level descriptors, without I/O and, for an owner's node,
//! without keys.
//!
//! It is fed blocks and the node's own broadcasts, hands out scripts, builds transactions (`spend`) and checks what a
//! signer returns (`sign`). What changes is staged and taken with the turn's journal: see [`Wallet::take_staged`].
//!
//! There are thousands of these in one process. So only few scripts are derived ahead, and a block is recorded in
//! BDK's chain only when it concerns the wallet; the tip is kept beside it.

mod chain;
#[cfg(feature = "testing")]
mod derived;
mod error;
mod sign;
mod spend;
mod store;
#[cfg(test)]
mod tests;

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::{CanonicalizationParams, ConfirmationBlockTime, FullTxOut};
use bitcoin::{Address, Network, OutPoint, Script, ScriptBuf, Txid};
use lightning::util::wallet_utils::Utxo;
use longhand_chain::BlockRef;

pub(crate) use error::WalletError;
use sign::{Descriptors, Keys};
pub(crate) use spend::SendAmount;
use store::{Changes, load_bdk, take_staged};

/// Scripts derived beyond the last one known to be used, on each keychain: BIP 44's gap limit.
const LOOKAHEAD: u32 = 20;

/// Addresses handed out in a row without one of them having been paid, before one is handed out again. A wallet that
/// is restored elsewhere looks no further than BIP 44's gap limit.
const UNUSED_ADDRESSES: u32 = LOOKAHEAD;

const KEYCHAINS: [KeychainKind; 2] = [KeychainKind::External, KeychainKind::Internal];

/// See the module's description.
pub(crate) struct Wallet {
    bdk: bdk_wallet::Wallet,
    keys: Keys,
    tip: BlockRef,
    /// What is to be persisted besides what `bdk` has staged.
    staged: Changes,
    /// How many scripts of each keychain [`Wallet::take_new_watches`] has told of.
    watched_scripts: [u32; 2],
    /// Own outputs that [`Wallet::take_new_watches`] has not told of.
    new_outpoints: Vec<OutPoint>,
}

/// Making and loading.
impl Wallet {
    /// A new wallet on account-level descriptors (BIP 380), each `wpkh` or `tr` of one ranged key: with xpubs for a
    /// wallet that only watches, with xprvs for one that can [`Wallet::sign_locally`].
    ///
    /// `birthday` is the last block that can have nothing for it; blocks are connected from the one after.
    ///
    /// # Errors
    /// [`WalletError::Descriptor`] when a descriptor is of another kind, has a wrong checksum or another network's
    /// keys, or both are the same.
    pub fn create(
        external: &str,
        internal: &str,
        network: Network,
        birthday: BlockRef,
    ) -> Result<Wallet, WalletError> {
        let (descriptors, keys) = Descriptors::parse(external, internal, network)?;
        let bdk = bdk_wallet::Wallet::create(descriptors.external, descriptors.internal)
            .network(network)
            .lookahead(LOOKAHEAD)
            .create_wallet_no_persist()
            .map_err(|e| WalletError::Descriptor(e.to_string()))?;
        let mut wallet = Wallet::around(bdk, keys, birthday);
        wallet.move_tip(birthday);
        Ok(wallet)
    }

    /// Loads a wallet from all that [`Wallet::take_staged`] returned, in that order, or from [`Wallet::compacted`] and
    /// what was staged after.
    ///
    /// # Errors
    /// [`WalletError::Stored`] when the changes cannot be read or are another wallet's.
    pub fn load(
        external: &str,
        internal: &str,
        network: Network,
        changesets: Vec<Vec<u8>>,
    ) -> Result<Wallet, WalletError> {
        let (descriptors, keys) = Descriptors::parse(external, internal, network)?;
        let mut all = Changes::default();
        for bytes in changesets {
            let changes = Changes::decode(&bytes)?;
            descriptors.check(changes.bdk.as_ref(), network)?;
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
        let wallet = Wallet::around(bdk, keys, BlockRef { height, hash });
        Ok(Wallet { staged, ..wallet })
    }

    fn around(bdk: bdk_wallet::Wallet, keys: Keys, tip: BlockRef) -> Wallet {
        Wallet {
            bdk,
            keys,
            tip,
            staged: Changes::default(),
            watched_scripts: [0; 2],
            new_outpoints: Vec::new(),
        }
    }
}

/// Scripts and what they hold.
impl Wallet {
    /// An address to receive at, its keychain (0, external) and its index. A new one with each call, until
    /// 20 in a row are unpaid: then the last one again, since a restored wallet would look no further.
    pub fn new_address(&mut self) -> (Address, u32, u32) {
        let index = self.bdk.spk_index();
        let used = index
            .last_used_index(KeychainKind::External)
            .map_or(0, |used| used + 1);
        let next = index
            .last_revealed_index(KeychainKind::External)
            .map_or(0, |last| last + 1);
        let info = if next >= used.saturating_add(UNUSED_ADDRESSES) {
            self.bdk.peek_address(KeychainKind::External, next - 1)
        } else {
            self.bdk.reveal_next_address(KeychainKind::External)
        };
        (info.address, number(info.keychain), info.index)
    }

    /// A script for change, its keychain (1, internal) and its index: the same until it is used.
    pub fn change_script(&mut self) -> (ScriptBuf, u32, u32) {
        self.unused(KeychainKind::Internal)
    }

    /// A script for the proceeds of a channel, its keychain (0, external) and its index: the same until it is used.
    pub fn unused_script(&mut self) -> (ScriptBuf, u32, u32) {
        self.unused(KeychainKind::External)
    }

    /// Where a sweep of these outputs goes: to the script of the one before, which it takes the place of, or else to an
    /// unused one. Each has a moment of its own in which it may be in a block, and a restored wallet looks at few scripts.
    pub fn sweep_script(&mut self, swept: &[OutPoint]) -> ScriptBuf {
        self.paid_by_spends(swept, KeychainKind::External)
            .unwrap_or_else(|| self.unused_script().0)
    }

    /// Where the change goes of what pays for the claim of these outputs: to the script of an earlier one, which it takes
    /// the place of, or else to an unused one.
    pub fn claim_change_script(&mut self, claimed: &[OutPoint]) -> ScriptBuf {
        self.paid_by_spends(claimed, KeychainKind::Internal)
            .unwrap_or_else(|| self.change_script().0)
    }

    /// The script of this keychain that is paid by what is known to spend these outputs, whether that counts or not; the
    /// first one when there are more.
    fn paid_by_spends(&self, spent: &[OutPoint], keychain: KeychainKind) -> Option<ScriptBuf> {
        let graph = self.bdk.tx_graph();
        let spends = spent.iter().flat_map(|outpoint| graph.outspends(*outpoint));
        let paid = spends
            .filter_map(|txid| graph.get_tx(*txid))
            .flat_map(|tx| tx.output.clone())
            .map(|output| output.script_pubkey);
        let ours = paid.filter_map(|script| {
            let (of, index) = self.bdk.derivation_of_spk(script.clone())?;
            (of == keychain).then_some((index, script))
        });
        ours.min_by_key(|(index, _)| *index)
            .map(|(_, script)| script)
    }

    fn unused(&mut self, keychain: KeychainKind) -> (ScriptBuf, u32, u32) {
        let info = self.bdk.next_unused_address(keychain);
        (
            info.address.script_pubkey(),
            number(info.keychain),
            info.index,
        )
    }

    /// Keychain (0 external, 1 internal) and index of an own script.
    pub fn path_of(&self, script: &Script) -> Option<(u32, u32)> {
        let (keychain, index) = self.bdk.derivation_of_spk(script.to_owned())?;
        Some((number(keychain), index))
    }

    /// Unspent satoshis, confirmed and not. Reserved outputs count; immature coinbase outputs are not confirmed.
    pub fn balance(&self) -> (u64, u64) {
        let mut balance = (0u64, 0u64);
        for (_, output) in self.unspent() {
            let part = if self.is_settled(&output) {
                &mut balance.0
            } else {
                &mut balance.1
            };
            *part = part.saturating_add(output.txout.value.to_sat());
        }
        balance
    }

    /// What LDK may spend to pay for closes, in a fixed order: confirmed outputs that are not reserved, and those that
    /// only an unconfirmed transaction with inputs of others spends. Such a one is a close's too, and LDK must be able
    /// to replace it.
    pub fn confirmed_utxos(&self) -> Vec<Utxo> {
        let mut utxos: Vec<Utxo> = self
            .outputs()
            .filter(|(_, output)| self.is_settled(output) && self.is_free_for_bump(output))
            .filter_map(|(_, output)| utxo(&output))
            .collect();
        utxos.sort_unstable_by_key(|utxo| utxo.outpoint);
        utxos
    }

    fn is_free_for_bump(&self, output: &FullTxOut<ConfirmationBlockTime>) -> bool {
        match &output.spent_by {
            None => !self.bdk.is_outpoint_locked(output.outpoint),
            Some((position, txid)) => !position.is_confirmed() && !self.is_wholly_own(*txid),
        }
    }

    /// Own outputs of all transactions that count, by keychain and index.
    fn outputs(
        &self,
    ) -> impl Iterator<Item = ((KeychainKind, u32), FullTxOut<ConfirmationBlockTime>)> + '_ {
        self.bdk.tx_graph().filter_chain_txouts(
            self.bdk.local_chain(),
            self.bdk.local_chain().tip().block_id(),
            CanonicalizationParams::default(),
            self.bdk.spk_index().outpoints().iter().cloned(),
        )
    }

    fn unspent(
        &self,
    ) -> impl Iterator<Item = ((KeychainKind, u32), FullTxOut<ConfirmationBlockTime>)> + '_ {
        self.outputs()
            .filter(|(_, output)| output.spent_by.is_none())
    }

    /// Confirmed, and mature when it is a coinbase's.
    fn is_settled(&self, output: &FullTxOut<ConfirmationBlockTime>) -> bool {
        output.chain_position.is_confirmed() && output.is_mature(self.tip.height)
    }

    /// Whether a transaction spends outputs of this wallet only.
    fn is_wholly_own(&self, txid: Txid) -> bool {
        let own = |outpoint| self.bdk.spk_index().txout(outpoint).is_some();
        let tx = self.bdk.tx_graph().get_tx(txid);
        tx.is_some_and(|tx| tx.input.iter().all(|input| own(input.previous_output)))
    }
}

/// The number of a keychain in BIP 44 paths.
fn number(keychain: KeychainKind) -> u32 {
    match keychain {
        KeychainKind::External => 0,
        KeychainKind::Internal => 1,
    }
}

fn utxo(output: &FullTxOut<ConfirmationBlockTime>) -> Option<Utxo> {
    let (outpoint, value) = (output.outpoint, output.txout.value);
    let script = &output.txout.script_pubkey;
    let program = script.as_bytes().get(2..)?;
    if script.is_p2wpkh() {
        let hash = bitcoin::hashes::Hash::from_slice(program).ok()?;
        return Some(Utxo::new_v0_p2wpkh(outpoint, value, &hash));
    }
    let key = bitcoin::XOnlyPublicKey::from_slice(program).ok()?;
    let key = bitcoin::key::TweakedPublicKey::dangerous_assume_tweaked(key);
    script
        .is_p2tr()
        .then(|| Utxo::new_v1_p2tr(outpoint, value, key))
}
