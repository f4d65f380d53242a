//! A cache of derived scripts for the whole process, in tests only. Deriving takes milliseconds of each load: a simulation
//! loads the same wallets again and again, while a host loads each once and needs the memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bdk_wallet::ChangeSet;
use bdk_wallet::chain::{DescriptorExt, DescriptorId};
use bitcoin::ScriptBuf;

use crate::store::journal::lock;

type Scripts = BTreeMap<DescriptorId, BTreeMap<u32, ScriptBuf>>;

static KEPT: Mutex<Scripts> = Mutex::new(Scripts::new());

/// Adds the cached scripts to a wallet's changes.
pub fn recall(mut changes: ChangeSet) -> ChangeSet {
    let kept = lock(&KEPT);
    let descriptors = changes.descriptor.iter().chain(&changes.change_descriptor);
    for id in descriptors.map(DescriptorExt::descriptor_id) {
        if let Some(scripts) = kept.get(&id) {
            changes.indexer.spk_cache.insert(id, scripts.clone());
        }
    }
    changes
}

/// Caches derived scripts.
pub fn keep(scripts: Scripts) {
    let mut kept = lock(&KEPT);
    for (id, scripts) in scripts {
        kept.entry(id).or_default().extend(scripts);
    }
}
