//! Bitcoin Core's consensus library, as far as devnet needs it: it validates blocks, chooses the best chain, and
//! verifies scripts. Its database is in memory; devnet's block log is durable.

use std::path::Path;
use std::sync::{Arc, Mutex, Once, PoisonError};

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash, Transaction, TxOut};
use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    ChainType, ChainstateManager, Context, ContextBuilder, PrecomputedTransactionData,
    ProcessBlockResult, ScriptPubkey, TxCheckResult, VERIFY_ALL,
};

use super::DevnetError;

static PREPARE: Once = Once::new();

/// More than each of the library's caches of signatures and scripts, which are 16 MiB, and less than the 32 MiB up to
/// which glibc adapts its threshold for `mmap`.
const KEPT_BYTES: usize = 31 << 20;

/// Called once in a process.
fn prepare() {
    // The library's log is process-wide, and buffered until it is read or turned off.
    bitcoinkernel::disable_logging();
    // The library allocates and clears its caches when it starts. glibc would `mmap` them each time, page by page,
    // which takes five times as long as all the rest; after a larger piece was freed, it keeps such pieces instead.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BYTES)));
}

/// A regtest chainstate.
pub(super) struct Kernel {
    // In this order: the manager is dropped before its context.
    chainman: ChainstateManager,
    _context: Context,
    /// Why the last block was rejected.
    refusal: Arc<Mutex<Option<String>>>,
}

impl Kernel {
    /// A chainstate that holds only the genesis block. Block files go to `scratch`, which must be empty.
    pub(super) fn new(scratch: &Path) -> Result<Kernel, DevnetError> {
        PREPARE.call_once(prepare);
        let refusal = Arc::new(Mutex::new(None));
        let seen = refusal.clone();
        let context = ContextBuilder::new()
            .chain_type(ChainType::Regtest)
            .validation(move |registry| {
                registry.register_block_checked(
                    move |_: bitcoinkernel::Block,
                          state: bitcoinkernel::BlockValidationStateRef<'_>| {
                        let mode = state.mode();
                        let reason = (mode != bitcoinkernel::ValidationMode::Valid)
                            .then(|| format!("{:?}", state.result()));
                        *seen.lock().unwrap_or_else(PoisonError::into_inner) = reason;
                    },
                );
            })
            .build()
            .map_err(failed)?;
        let path = scratch
            .to_str()
            .ok_or_else(|| DevnetError::Data("the path is not UTF-8".into()))?;
        let blocks = scratch.join("blocks");
        std::fs::create_dir_all(&blocks)
            .map_err(|e| DevnetError::Data(format!("{}: {e}", blocks.display())))?;
        let blocks = blocks
            .to_str()
            .ok_or_else(|| DevnetError::Data("the path is not UTF-8".into()))?;
        let chainman = ChainstateManager::builder(&context, path, blocks)
            .map_err(failed)?
            .block_tree_db_in_memory(true)
            .chainstate_db_in_memory(true)
            .worker_threads(0)
            .build()
            .map_err(failed)?;
        chainman.import_blocks().map_err(failed)?;
        Ok(Kernel {
            chainman,
            _context: context,
            refusal,
        })
    }

    /// Validates a block, and makes its chain the best one when that has the most work.
    pub(super) fn process(&self, block: &Block) -> Result<(), DevnetError> {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let kernel_block = bitcoinkernel::Block::new(&serialize(block)).map_err(failed)?;
        let result = self.chainman.process_block(&kernel_block);
        // A block of the best chain with invalid transactions is stored first and rejected when it is connected.
        let refusal = self
            .refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (result, refusal) {
            (ProcessBlockResult::Rejected, refusal) => Err(DevnetError::Block(
                refusal.unwrap_or_else(|| "its header does not fit".into()),
            )),
            (_, Some(refusal)) => Err(DevnetError::Block(refusal)),
            (ProcessBlockResult::NewBlock | ProcessBlockResult::Duplicate, None) => Ok(()),
        }
    }

    /// The best block.
    pub(super) fn tip(&self) -> BlockHash {
        BlockHash::from_byte_array(self.chainman.active_chain().tip().block_hash().to_bytes())
    }
}

/// The consensus rules for a transaction that need no context.
pub(super) fn check_transaction(tx: &Transaction) -> Result<(), DevnetError> {
    let tx = bitcoinkernel::Transaction::new(&serialize(tx)).map_err(failed)?;
    match tx.check() {
        TxCheckResult::Valid => Ok(()),
        TxCheckResult::Invalid(reason) => Err(DevnetError::Rejected(format!("{reason:?}"))),
    }
}

/// Verifies the script of every input against the outputs that they spend, given in the order of the inputs;
/// `Err` with the first input that fails.
pub(super) fn verify_scripts(tx: &Transaction, spent: &[TxOut]) -> Result<(), usize> {
    let bytes = serialize(tx);
    let kernel_tx = bitcoinkernel::Transaction::new(&bytes).map_err(|_| 0_usize)?;
    let scripts: Vec<ScriptPubkey> = spent
        .iter()
        .map(|out| ScriptPubkey::new(out.script_pubkey.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(|_| 0_usize)?;
    let amounts: Vec<i64> = spent
        .iter()
        .map(|out| i64::try_from(out.value.to_sat()))
        .collect::<Result<_, _>>()
        .map_err(|_| 0_usize)?;
    let outputs: Vec<bitcoinkernel::TxOut> = scripts
        .iter()
        .zip(&amounts)
        .map(|(script, amount)| bitcoinkernel::TxOut::new(script, *amount))
        .collect();
    let data = PrecomputedTransactionData::new(&kernel_tx, &outputs).map_err(|_| 0_usize)?;
    for (index, (script, amount)) in scripts.iter().zip(&amounts).enumerate() {
        bitcoinkernel::verify(
            script,
            Some(*amount),
            &kernel_tx,
            index,
            Some(VERIFY_ALL),
            &data,
        )
        .map_err(|_| index)?;
    }
    Ok(())
}

fn failed(error: bitcoinkernel::KernelError) -> DevnetError {
    DevnetError::Kernel(error.to_string())
}
