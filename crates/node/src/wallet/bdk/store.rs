//! The wallet's records: BDK's change sets and the tip, as JSON, one for each turn that changed something.

use std::collections::BTreeSet;
use std::mem;

use bdk_wallet::chain::{DescriptorExt, Merge};
use bdk_wallet::{ChangeSet, KeychainKind};
use bitcoin::BlockHash;
use longhand_store::Write;
use serde::{Deserialize, Serialize};

use super::{BdkWallet, LOOKAHEAD, WalletError};
use crate::wallet::OnchainWallet;

/// Version of a record's encoding.
const VERSION: u8 = 1;

/// Change records in the store; more are replaced by one of the whole wallet.
const MAX_RECORDS: u64 = 64;

/// Key of a change record. The records are read back in the order of their keys.
fn key(record: u64) -> String {
    format!("{record:04}")
}

impl OnchainWallet for BdkWallet {
    fn has_changes(&self) -> bool {
        self.staged.tip.is_some() || self.staged.bdk.is_some() || self.bdk.staged().is_some()
    }

    fn take_changes(&mut self) -> Vec<Write> {
        let mut changes = mem::take(&mut self.staged);
        changes.merge(Changes {
            bdk: take_staged(&mut self.bdk),
            ..Changes::default()
        });
        if changes.tip.is_none() && changes.bdk.is_none() {
            return Vec::new();
        }
        if self.records < MAX_RECORDS {
            let write = Write::Put(key(self.records), changes.encode());
            self.records += 1;
            return vec![write];
        }
        let mut writes: Vec<Write> = (1..self.records)
            .map(|record| Write::Delete(key(record)))
            .collect();
        writes.push(Write::Put(key(0), self.compacted()));
        self.records = 1;
        writes
    }
}

impl BdkWallet {
    /// The whole wallet as one change, smaller than all changes that led to it: of the blocks, it has only those that a
    /// transaction is anchored in. It replaces all earlier changes.
    pub(super) fn compacted(&self) -> Vec<u8> {
        let mut whole = self.whole();
        let graph = self.bdk.tx_graph();
        let anchored: BTreeSet<u32> = graph
            .all_anchors()
            .values()
            .flatten()
            .map(|anchor| anchor.block_id.height)
            .collect();
        let blocks = &mut whole.local_chain.blocks;
        blocks.retain(|height, _| *height == 0 || anchored.contains(height));
        Changes {
            tip: Some((self.tip.height, self.tip.hash)),
            bdk: Some(whole),
            version: VERSION,
        }
        .encode()
    }

    /// All of BDK's state.
    pub(super) fn whole(&self) -> ChangeSet {
        let mut changes = ChangeSet {
            descriptor: Some(self.bdk.public_descriptor(KeychainKind::External).clone()),
            change_descriptor: Some(self.bdk.public_descriptor(KeychainKind::Internal).clone()),
            network: Some(self.bdk.network()),
            local_chain: self.bdk.local_chain().initial_changeset(),
            tx_graph: self.bdk.tx_graph().initial_changeset(),
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

/// One record: the changes of one turn.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    pub version: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tip: Option<(u32, BlockHash)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bdk: Option<ChangeSet>,
}

impl Changes {
    pub fn merge(&mut self, later: Changes) {
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
    pub fn encode(self) -> Vec<u8> {
        serde_json::to_vec(&Changes {
            version: VERSION,
            ..self
        })
        .expect("changes are encodable")
    }

    pub fn decode(bytes: &[u8]) -> Result<Changes, WalletError> {
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

pub(super) fn load_bdk(changes: ChangeSet) -> Result<bdk_wallet::Wallet, WalletError> {
    #[cfg(feature = "testing")]
    let changes = super::derived::recall(changes);
    bdk_wallet::Wallet::load()
        .lookahead(LOOKAHEAD)
        .use_spk_cache(cfg!(feature = "testing"))
        .load_wallet_no_persist(changes)
        .map_err(|e| WalletError::Stored(e.to_string()))?
        .ok_or_else(|| WalletError::Stored("its beginning is missing".into()))
}

/// Takes BDK's staged changes, without scripts: those are derived again from the descriptors.
pub(super) fn take_staged(bdk: &mut bdk_wallet::Wallet) -> Option<ChangeSet> {
    let mut staged = bdk.take_staged()?;
    let scripts = mem::take(&mut staged.indexer.spk_cache);
    #[cfg(feature = "testing")]
    super::derived::keep(scripts);
    #[cfg(not(feature = "testing"))]
    drop(scripts);
    (!staged.is_empty()).then_some(staged)
}
