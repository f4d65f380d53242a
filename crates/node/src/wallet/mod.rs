//! The on-chain wallet of a node: `bdk_wallet` on account-level descriptors, without I/O and, for an owner's node,
//! without keys.
//!
//! It is fed blocks and the node's own broadcasts, hands out scripts, builds transactions (`spend`) and checks what a
//! signer returns (`sign`). What changes is staged and taken with the turn's journal: see [`Wallet::take_staged`].
//!
//! There are thousands of these in one process. So only few scripts are derived ahead, and a block is recorded in
//! BDK's chain only when it concerns the wallet; the tip is kept beside it.

mod error;
mod sign;
mod spend;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;

use bdk_wallet::chain::indexer::Indexer;
use bdk_wallet::chain::{
    CanonicalizationParams, ConfirmationBlockTime, DescriptorExt, FullTxOut, Merge, TxUpdate,
};
use bdk_wallet::{ChangeSet, KeychainKind, Update};
use bitcoin::block::Header;
use bitcoin::{Address, Block, BlockHash, Network, OutPoint, Script, ScriptBuf, Transaction, Txid};
use lightning::util::wallet_utils::Utxo;
use longhand_chain::{BlockRef, WatchList};
use serde::{Deserialize, Serialize};

pub(crate) use error::WalletError;
use sign::{Descriptors, Keys};
pub(crate) use spend::SendAmount;

/// Scripts derived beyond the last one known to be used, on each keychain: BIP 44's gap limit.
const LOOKAHEAD: u32 = 20;

/// Addresses handed out in a row without one of them having been paid, before one is handed out again. A wallet that
/// is restored elsewhere looks no further than BIP 44's gap limit.
const UNUSED_ADDRESSES: u32 = LOOKAHEAD;

/// A spend is final for the wallet when it is this deep; until then its output is watched still.
const FINAL_DEPTH: u32 = 144;

/// Version of the staged changes' encoding.
const VERSION: u8 = 1;

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

/// What [`Wallet::take_staged`] encodes, as JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    version: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tip: Option<(u32, BlockHash)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bdk: Option<ChangeSet>,
}

impl Changes {
    fn merge(&mut self, later: Changes) {
        self.tip = later.tip.or(self.tip);
        match (&mut self.bdk, later.bdk) {
            (Some(bdk), Some(later)) => bdk.merge(later),
            (bdk @ None, later) => *bdk = later,
            (Some(_), None) => {}
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "every map in it has keys that JSON takes"
    )]
    fn encode(self) -> Vec<u8> {
        serde_json::to_vec(&Changes {
            version: VERSION,
            ..self
        })
        .expect("changes are encodable")
    }

    fn decode(bytes: &[u8]) -> Result<Changes, WalletError> {
        let changes: Changes =
            serde_json::from_slice(bytes).map_err(|e| WalletError::Stored(e.to_string()))?;
        if changes.version > VERSION {
            return Err(WalletError::Stored(format!(
                "it has version {}, this program knows up to {VERSION}",
                changes.version
            )));
        }
        Ok(changes)
    }
}

/// Making, loading and storing.
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
        let bdk = load_bdk(changes)?;
        Ok(Wallet::around(bdk, keys, BlockRef { height, hash }))
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

    /// What has changed since the last call, to be stored with the turn; `None` when nothing has.
    pub fn take_staged(&mut self) -> Option<Vec<u8>> {
        let mut changes = mem::take(&mut self.staged);
        changes.merge(Changes {
            bdk: self.bdk.take_staged(),
            ..Changes::default()
        });
        let changed = changes.tip.is_some() || changes.bdk.is_some();
        changed.then(|| changes.encode())
    }

    /// The whole wallet as one change, smaller than all that led to it. It may replace everything that was taken
    /// before; changes that are staged and not taken yet are in it too.
    pub fn compacted(&self) -> Vec<u8> {
        Changes {
            tip: Some((self.tip.height, self.tip.hash)),
            bdk: Some(self.whole()),
            version: VERSION,
        }
        .encode()
    }

    /// All of BDK's state, with only those blocks that a transaction is anchored in.
    fn whole(&self) -> ChangeSet {
        let graph = self.bdk.tx_graph();
        let anchored: std::collections::BTreeSet<u32> = graph
            .all_anchors()
            .values()
            .flatten()
            .map(|anchor| anchor.block_id.height)
            .collect();
        let mut chain = self.bdk.local_chain().initial_changeset();
        chain
            .blocks
            .retain(|height, _| *height == 0 || anchored.contains(height));
        let mut changes = ChangeSet {
            descriptor: Some(self.bdk.public_descriptor(KeychainKind::External).clone()),
            change_descriptor: Some(self.bdk.public_descriptor(KeychainKind::Internal).clone()),
            network: Some(self.bdk.network()),
            local_chain: chain,
            tx_graph: graph.initial_changeset(),
            ..ChangeSet::default()
        };
        for (keychain, index) in self.bdk.spk_index().last_revealed_indices() {
            let id = self.bdk.public_descriptor(keychain).descriptor_id();
            changes.indexer.last_revealed.insert(id, index);
        }
        changes.locked_outpoints.outpoints = self
            .bdk
            .list_locked_outpoints()
            .map(|outpoint| (outpoint, true))
            .collect();
        changes
    }
}

fn load_bdk(changes: ChangeSet) -> Result<bdk_wallet::Wallet, WalletError> {
    bdk_wallet::Wallet::load()
        .lookahead(LOOKAHEAD)
        .load_wallet_no_persist(changes)
        .map_err(|e| WalletError::Stored(e.to_string()))?
        .ok_or_else(|| WalletError::Stored("its beginning is missing".into()))
}

/// The chain.
impl Wallet {
    /// The last block that was connected.
    pub fn best_block(&self) -> BlockRef {
        self.tip
    }

    /// Every script that may be paid: those handed out and those derived ahead, of both keychains.
    pub fn scripts_to_watch(&self) -> Vec<ScriptBuf> {
        self.bdk
            .spk_index()
            .inner()
            .all_spks()
            .values()
            .cloned()
            .collect()
    }

    /// Own outputs whose spending would be news: the unspent ones, and those whose spending is not final.
    pub fn outpoints_to_watch(&self) -> Vec<OutPoint> {
        self.outputs()
            .filter(|(_, output)| match &output.spent_by {
                Some((position, _)) => position
                    .confirmation_height_upper_bound()
                    .is_none_or(|height| self.tip.height < height.saturating_add(FINAL_DEPTH)),
                None => true,
            })
            .map(|(_, output)| output.outpoint)
            .collect()
    }

    /// What is to be watched besides what the last call returned; the first call since the wallet was made or loaded
    /// returns everything.
    pub fn take_new_watches(&mut self) -> WatchList {
        let first = self.watched_scripts == [0; 2];
        let spks = self.bdk.spk_index().inner().all_spks();
        let mut scripts = Vec::new();
        for (known, keychain) in self.watched_scripts.iter_mut().zip(KEYCHAINS) {
            for ((_, index), script) in spks.range((keychain, *known)..=(keychain, u32::MAX)) {
                scripts.push(script.clone());
                *known = index.saturating_add(1);
            }
        }
        let news = mem::take(&mut self.new_outpoints);
        let outpoints = if first {
            self.outpoints_to_watch()
        } else {
            news
        };
        WatchList {
            outpoints,
            scripts,
            txids: Vec::new(),
        }
    }

    /// Connects the next block; `txs` are those of its transactions that may concern the wallet, with their index in
    /// the block and in order. Others than that are ignored.
    ///
    /// A block that is connected again is ignored; a different one at or below the tip's height first disconnects what
    /// it replaces.
    ///
    /// # Errors
    /// [`WalletError::OutOfOrder`] when blocks before this one are missing; nothing is changed.
    pub fn connect_block(
        &mut self,
        height: u32,
        header: &Header,
        txs: &[(usize, Arc<Transaction>)],
    ) -> Result<(), WalletError> {
        let block = BlockRef {
            height,
            hash: header.block_hash(),
        };
        if block == self.tip {
            return Ok(());
        }
        let before = BlockRef {
            height: height.checked_sub(1).ok_or(self.out_of_order(height))?,
            hash: header.prev_blockhash,
        };
        if height <= self.tip.height {
            self.disconnect_to(before)?;
        } else if before != self.tip {
            return Err(self.out_of_order(height));
        }
        if txs.iter().any(|(_, tx)| self.concerns(tx)) {
            self.record_block(block, header, txs)?;
        }
        self.move_tip(block);
        Ok(())
    }

    /// Puts a block with transactions of the wallet into BDK's chain.
    fn record_block(
        &mut self,
        at: BlockRef,
        header: &Header,
        txs: &[(usize, Arc<Transaction>)],
    ) -> Result<(), WalletError> {
        let txdata: Vec<Transaction> = txs.iter().map(|(_, tx)| tx.as_ref().clone()).collect();
        let block = Block {
            header: *header,
            txdata,
        };
        let last = self.bdk.latest_checkpoint().block_id();
        self.bdk
            .apply_block_connected_to(&block, at.height, last)
            .map_err(|_| self.out_of_order(at.height))?;
        for tx in &block.txdata {
            self.note_outputs(tx);
        }
        Ok(())
    }

    /// Takes back every block above `fork`. Their transactions wait to be confirmed again.
    ///
    /// # Errors
    /// [`WalletError::Stored`] when the wallet cannot be built again; it is left as it was.
    pub fn disconnect_to(&mut self, fork: BlockRef) -> Result<(), WalletError> {
        if fork == self.tip || fork.height > self.tip.height {
            return Ok(());
        }
        let gone: Vec<u32> = self
            .bdk
            .checkpoints()
            .map(|checkpoint| checkpoint.block_id())
            .take_while(|at| {
                at.height > 0
                    && (at.height > fork.height
                        || (at.height == fork.height && at.hash != fork.hash))
            })
            .map(|at| at.height)
            .collect();
        if !gone.is_empty() {
            self.remove_blocks(&gone)?;
        }
        self.move_tip(fork);
        Ok(())
    }

    /// BDK's chain cannot be shortened: a wallet without these blocks takes this one's place. Reorganisations that
    /// reach a wallet's own transactions are rare enough for that.
    fn remove_blocks(&mut self, heights: &[u32]) -> Result<(), WalletError> {
        let mut whole = self.whole();
        for height in heights {
            whole.local_chain.blocks.remove(height);
        }
        let bdk = load_bdk(whole)?;
        let mut changes = self.bdk.take_staged().unwrap_or_default();
        changes
            .local_chain
            .blocks
            .extend(heights.iter().map(|height| (*height, None)));
        self.staged.merge(Changes {
            bdk: Some(changes),
            ..Changes::default()
        });
        self.bdk = bdk;
        Ok(())
    }

    fn move_tip(&mut self, to: BlockRef) {
        self.tip = to;
        self.staged.tip = Some((to.height, to.hash));
    }

    fn out_of_order(&self, height: u32) -> WalletError {
        WalletError::OutOfOrder {
            height,
            tip: self.tip.height,
        }
    }

    /// Whether a transaction pays or spends from the wallet, or makes one that does impossible.
    fn concerns(&self, tx: &Transaction) -> bool {
        self.bdk.spk_index().is_tx_relevant(tx)
            || self.bdk.tx_graph().direct_conflicts(tx).next().is_some()
    }

    fn note_outputs(&mut self, tx: &Transaction) {
        let own = self.bdk.spk_index().txouts_in_tx(tx.compute_txid());
        self.new_outpoints
            .extend(own.map(|(_, (outpoint, _))| outpoint));
    }
}

/// Transactions that are not in a block.
impl Wallet {
    /// Takes in a transaction that the node has broadcast; ignored when it does not concern the wallet. Its inputs are
    /// no longer reserved: they are spent. It counts before every transaction that it conflicts with and that is not
    /// confirmed.
    pub fn insert_unconfirmed(&mut self, tx: Transaction, seen_unix_s: u64) {
        self.insert_package(vec![tx], seen_unix_s);
    }

    /// The same for a package of parents and their child. All of it is kept when one of it concerns the wallet, so
    /// that a conflict with a parent is seen to undo the child.
    pub fn insert_package(&mut self, package: Vec<Transaction>, seen_unix_s: u64) {
        if !package.iter().any(|tx| self.concerns(tx)) {
            return;
        }
        let seen = package
            .iter()
            .fold(seen_unix_s, |seen, tx| seen.max(self.first_moment(tx)));
        for tx in &package {
            for input in &tx.input {
                self.bdk.unlock_outpoint(input.previous_output);
            }
        }
        let txs: Vec<Arc<Transaction>> = package.into_iter().map(Arc::new).collect();
        let mut update = TxUpdate::<ConfirmationBlockTime>::default();
        update.seen_ats = txs.iter().map(|tx| (tx.compute_txid(), seen)).collect();
        update.txs = txs.clone();
        let update = Update {
            tx_update: update,
            ..Update::default()
        };
        // Only an update of the chain can fail.
        let applied = self.bdk.apply_update(update);
        debug_assert!(applied.is_ok());
        for tx in &txs {
            self.note_outputs(tx);
        }
    }

    /// The earliest time at which `tx` would count before its conflicts and its own eviction.
    fn first_moment(&self, tx: &Transaction) -> u64 {
        let graph = self.bdk.tx_graph();
        let last_seen = |txid| graph.get_tx_node(txid).and_then(|node| node.last_seen);
        let conflicts = graph
            .direct_conflicts(tx)
            .filter_map(|(_, txid)| last_seen(txid));
        let evicted = graph.get_last_evicted(tx.compute_txid());
        conflicts
            .chain(evicted)
            .map(|at| at.saturating_add(1))
            .max()
            .unwrap_or(0)
    }

    /// Forgets a transaction that will not be confirmed (replaced, abandoned) and those that build on it: what it
    /// spent can be spent again. Nothing happens when it is unknown or confirmed; it counts again when it is seen in
    /// a block or inserted again.
    pub fn forget_unconfirmed(&mut self, txid: Txid) {
        let graph = self.bdk.tx_graph();
        let descendants = graph.walk_descendants(txid, |_, txid| Some(txid));
        let evicted: Vec<(Txid, u64)> = std::iter::once(txid)
            .chain(descendants)
            .filter_map(|txid| graph.get_tx_node(txid))
            .map(|node| (node.txid, node.last_seen.unwrap_or(0)))
            .collect();
        self.bdk.apply_evicted_txs(evicted);
    }

    /// A transaction that the wallet has kept, confirmed or not.
    pub fn transaction(&self, txid: Txid) -> Option<Transaction> {
        self.bdk
            .tx_graph()
            .get_tx(txid)
            .map(|tx| tx.as_ref().clone())
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
