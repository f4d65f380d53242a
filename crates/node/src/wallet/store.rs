//! What of the wallet is kept: BDK's change sets and the tip, as JSON, one for each turn that changed something.

use std::collections::BTreeSet;
use std::mem;

use bdk_wallet::chain::{DescriptorExt, Merge};
use bdk_wallet::{ChangeSet, KeychainKind};
use bitcoin::BlockHash;
use serde::{Deserialize, Serialize};

use super::{LOOKAHEAD, Wallet, WalletError};

/// Version of the staged changes' encoding.
const VERSION: u8 = 1;

impl Wallet {
    /// Whether anything has changed since [`Wallet::take_staged`].
    pub fn is_staged(&self) -> bool {
        self.staged.tip.is_some() || self.staged.bdk.is_some() || self.bdk.staged().is_some()
    }

    /// What has changed since the last call, to be stored with the turn; `None` when nothing has.
    pub fn take_staged(&mut self) -> Option<Vec<u8>> {
        let mut changes = mem::take(&mut self.staged);
        changes.merge(Changes {
            bdk: take_staged(&mut self.bdk),
            ..Changes::default()
        });
        let changed = changes.tip.is_some() || changes.bdk.is_some();
        changed.then(|| changes.encode())
    }

    /// The whole wallet as one change, smaller than all that led to it: of the blocks, only those remain that a
    /// transaction is anchored in. It may replace everything that was taken
    /// before; changes that are staged and not taken yet are in it too.
    pub fn compacted(&self) -> Vec<u8> {
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

/// What [`Wallet::take_staged`] encodes, as JSON.
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

/// What BDK has staged, without scripts: they follow from the descriptors.
pub(super) fn take_staged(bdk: &mut bdk_wallet::Wallet) -> Option<ChangeSet> {
    let mut staged = bdk.take_staged()?;
    let scripts = mem::take(&mut staged.indexer.spk_cache);
    #[cfg(feature = "testing")]
    super::derived::keep(scripts);
    #[cfg(not(feature = "testing"))]
    drop(scripts);
    (!staged.is_empty()).then_some(staged)
}
