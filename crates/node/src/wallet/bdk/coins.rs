//! Scripts, and the coins that they hold.

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::{CanonicalizationParams, ChainPosition, ConfirmationBlockTime, FullTxOut};
use bitcoin::{Address, OutPoint, Script, ScriptBuf, Txid};
use lightning::util::wallet_utils::Utxo;

use super::{BdkWallet, LOOKAHEAD};
use crate::wallet::WalletCoins;

/// Addresses returned in a row without one of them having been paid, before one is returned again. A wallet that is
/// restored elsewhere looks no further than BIP 44's gap limit.
const UNUSED_ADDRESSES: u32 = LOOKAHEAD;

impl WalletCoins for BdkWallet {
    fn new_address(&mut self) -> (Address, u32, u32) {
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

    fn unused_script(&mut self) -> ScriptBuf {
        self.unused(KeychainKind::External)
    }

    fn sweep_script(&mut self, swept: &[OutPoint]) -> ScriptBuf {
        self.paid_by_spends(swept, KeychainKind::External)
            .unwrap_or_else(|| self.unused_script())
    }

    fn claim_change_script(&mut self, claimed: &[OutPoint]) -> ScriptBuf {
        self.paid_by_spends(claimed, KeychainKind::Internal)
            .unwrap_or_else(|| self.unused(KeychainKind::Internal))
    }

    fn path_of(&self, script: &Script) -> Option<(u32, u32)> {
        let (keychain, index) = self.bdk.derivation_of_spk(script.to_owned())?;
        Some((number(keychain), index))
    }

    fn balance(&self) -> (u64, u64) {
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

    fn confirmed_utxos(&self) -> Vec<Utxo> {
        let mut utxos: Vec<Utxo> = self
            .outputs()
            .filter(|(_, output)| self.is_settled(output) && !self.is_held(output))
            .filter(|(_, output)| self.is_free_for_bump(output))
            .filter_map(|(_, output)| utxo(&output))
            .collect();
        utxos.sort_unstable_by_key(|utxo| utxo.outpoint);
        utxos
    }
}

impl BdkWallet {
    /// The script of `keychain` that a known transaction which spends these outputs pays, whether it counts or not: the
    /// one with the lowest index when there are more.
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

    fn unused(&mut self, keychain: KeychainKind) -> ScriptBuf {
        let info = self.bdk.next_unused_address(keychain);
        info.address.script_pubkey()
    }

    fn is_free_for_bump(&self, output: &FullTxOut<ConfirmationBlockTime>) -> bool {
        match &output.spent_by {
            None => !self.bdk.is_outpoint_locked(output.outpoint),
            Some((position, txid)) => !position.is_confirmed() && !self.is_wholly_own(*txid),
        }
    }

    /// Own outputs of all transactions that count, by keychain and index.
    pub(super) fn outputs(
        &self,
    ) -> impl Iterator<Item = ((KeychainKind, u32), FullTxOut<ConfirmationBlockTime>)> + '_ {
        self.bdk.tx_graph().filter_chain_txouts(
            self.bdk.local_chain(),
            self.bdk.local_chain().tip().block_id(),
            CanonicalizationParams::default(),
            self.bdk.spk_index().outpoints().iter().cloned(),
        )
    }

    pub(super) fn unspent(
        &self,
    ) -> impl Iterator<Item = ((KeychainKind, u32), FullTxOut<ConfirmationBlockTime>)> + '_ {
        self.outputs()
            .filter(|(_, output)| output.spent_by.is_none())
    }

    /// Confirmed, and mature when it is a coinbase's.
    pub(super) fn is_settled(&self, output: &FullTxOut<ConfirmationBlockTime>) -> bool {
        output.chain_position.is_confirmed() && output.is_mature(self.tip.height)
    }

    /// Whether a block that is still to be searched may spend it.
    pub(super) fn is_held(&self, output: &FullTxOut<ConfirmationBlockTime>) -> bool {
        match &output.chain_position {
            ChainPosition::Confirmed { anchor, .. } => {
                self.held_up_to >= Some(anchor.block_id.height)
            }
            ChainPosition::Unconfirmed { .. } => false,
        }
    }

    /// Whether a transaction spends outputs of this wallet only.
    pub(super) fn is_wholly_own(&self, txid: Txid) -> bool {
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
