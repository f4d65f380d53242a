//! Compact filters of blocks (BIP 158) for a phone that does not take the node's word for it that its channels are open.
//!
//! Filters are some 20 kB a block: they are shown only when the phone has refused a preimage for want of them, from the block on that it
//! wants, up to the tip. The phone answers each time which one it wants next, and whether its block too. What could not be shown is tried
//! again when the preimage was refused again: refused operations are asked again from time to time.

use bitcoin::Block;
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use longhand_chain::{ChainError, FiltersReply, FiltersRequest};
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ShowFilters, WantedFilters};

use crate::machine::turn::Turn;

/// See the module.
#[derive(Default)]
pub(crate) struct BlockFilters {
    asks: Asks,
    /// Some were shown since the phone refused a preimage.
    has_shown: bool,
    /// What was shown last.
    last: Option<FiltersRequest>,
}

#[derive(Default)]
enum Asks {
    /// No preimage waits for filters.
    #[default]
    Nothing,
    /// The phone is asked which filters it wants, or has been shown some.
    Phone,
    /// The chain is to be asked.
    Due(FiltersRequest),
    /// The chain is asked.
    Chain,
}

impl BlockFilters {
    /// The phone is gone, or another one is there.
    pub fn signer_changed(&mut self) {
        *self = BlockFilters::default();
    }

    /// Takes the phone's answers to the last batch.
    pub fn take_answers(&mut self, turn: &Turn) {
        let Some(remote) = turn.remote() else { return };
        let is_unwatched = remote.take_unwatched();
        match (remote.take_wanted_filters(), &self.asks) {
            (Some(answer), Asks::Phone) => self.answered_by_phone(turn, answer),
            (_, Asks::Nothing) if is_unwatched => {
                (self.has_shown, self.last) = (false, None);
                self.asks = Asks::Phone;
                remote.ask_first(Op::ShowFilters(ShowFilters::default()));
            }
            _ => {}
        }
    }

    fn answered_by_phone(&mut self, turn: &Turn, answer: Option<WantedFilters>) {
        self.asks = Asks::Nothing;
        // It has refused them.
        let Some(wanted) = answer else { return };
        let request = FiltersRequest {
            from: wanted.next_height,
            with_block: wanted.with_block,
        };
        if wanted.next_height == 0 {
            self.end(turn);
        } else if self.last.as_ref() != Some(&request) {
            // The same again is wanted of a phone that has not taken it, since its chain is another one.
            self.asks = Asks::Due(request);
        }
    }

    /// The preimage is asked for again at once, if anything has changed.
    fn end(&mut self, turn: &Turn) {
        if let Some(remote) = turn.remote().filter(|_| self.has_shown) {
            remote.clear_retries();
        }
    }

    /// A request to be answered with [`BlockFilters::answered`].
    pub fn request(&mut self) -> Option<FiltersRequest> {
        match std::mem::take(&mut self.asks) {
            Asks::Due(request) => {
                self.asks = Asks::Chain;
                self.last = Some(request.clone());
                Some(request)
            }
            other => {
                self.asks = other;
                None
            }
        }
    }

    /// The chain has answered a request.
    pub fn answered(&mut self, turn: &Turn, reply: Result<FiltersReply, ChainError>) {
        let (Some(remote), Asks::Chain) = (turn.remote(), &self.asks) else {
            return;
        };
        match reply {
            Ok(reply) => {
                self.has_shown = true;
                self.asks = Asks::Phone;
                remote.ask_first(Op::ShowFilters(operation(reply)));
            }
            Err(error) => {
                tracing::warn!(%error, "no filters of blocks for the phone: a preimage waits for them");
                self.asks = Asks::Nothing;
            }
        }
    }
}

fn operation(reply: FiltersReply) -> ShowFilters {
    let blocks = reply.blocks.iter();
    ShowFilters {
        first_height: reply.first_height,
        previous_header: reply.previous.to_byte_array().to_vec(),
        block_hashes: blocks.map(|hash| hash.to_byte_array().to_vec()).collect(),
        filters: reply.filters,
        block: reply.block.map(without_witnesses).unwrap_or_default(),
    }
}

/// No spend is in a witness, and the header does not need them: at most 1 MB.
fn without_witnesses(mut block: Block) -> Vec<u8> {
    let transactions = block.txdata.iter_mut();
    for input in transactions.flat_map(|transaction| &mut transaction.input) {
        input.witness.clear();
    }
    serialize(&block)
}

#[cfg(test)]
#[path = "tests/block_filters.rs"]
mod tests;
