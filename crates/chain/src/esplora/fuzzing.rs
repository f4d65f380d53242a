//! The reading of answers, for fuzz targets: without a server.

use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network, Transaction, Txid};

use super::answers;
use crate::ChainError;

/// Kinds of questions for [`esplora_answer`].
pub const QUESTIONS: u8 = 11;

/// What was read from an answer of an Esplora server.
#[derive(Clone, Debug, PartialEq)]
pub enum EsploraAnswer {
    /// To the first kind of question: a whole block.
    Block(Block),
    /// To the second: its header.
    Header(Header),
    /// To the third: the ids of its transactions.
    Txids(Vec<Txid>),
    /// To the fourth: its last transaction.
    Transaction(Transaction),
    /// To any other: what nothing proves.
    Unproven,
}

/// Reads `body` as the answer to a question of this kind about a block of a regtest.
///
/// # Errors
/// When it is not taken.
pub fn esplora_answer(kind: u8, body: &[u8], asked: &Block) -> Result<EsploraAnswer, ChainError> {
    let (hash, header) = (asked.block_hash(), &asked.header);
    let last = asked.txdata.last().map(Transaction::compute_txid);
    Ok(match kind % QUESTIONS {
        0 => EsploraAnswer::Block(answers::block(body, &hash, Network::Regtest)?),
        1 => EsploraAnswer::Header(answers::header(body, &hash, Network::Regtest)?),
        2 => EsploraAnswer::Txids(answers::txids(body, header)?),
        3 => {
            let txid = last.ok_or_else(|| answers::untrue("a block without transactions"))?;
            EsploraAnswer::Transaction(answers::transaction(body, &txid)?)
        }
        4 => unproven(answers::block_height(body, &hash)?),
        5 => unproven(answers::status(body)?),
        6 => unproven(answers::confirmation(body)?),
        7 => unproven(answers::spend(body)?),
        8 => unproven(answers::fee_estimates(body)?.within(6)),
        9 => unproven(answers::parsed::<BlockHash>(body, "block hash")?),
        _ => unproven(answers::refusal(body)),
    })
}

fn unproven<T>(_: T) -> EsploraAnswer {
    EsploraAnswer::Unproven
}
