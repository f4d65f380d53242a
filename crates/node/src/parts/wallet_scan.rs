//! The search for a restored wallet's coins, in blocks from before its node was at this host.
//!
//! The chain's stream begins at the tip, as for any new node, so that channels and payments work meanwhile. The search
//! goes beside it: [`WalletScan::request`] is for the driver, which has the chain answer it, and each answer moves the
//! search on or adds a block to the wallet. A script that is used lets the wallet derive more of them; the same block is
//! searched again then. Coins that are found are held until the search is complete, since they may be spent in a block
//! that was not searched.
//!
//! The search follows the stream up to its tip. It is complete when a request that was made after the last match finds
//! nothing, and the source had no block more then: whatever the follower matched before it got the last watched script is
//! below that.

use std::time::{Duration, Instant};

use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use longhand_chain::{BlockRef, ScanError, ScanReply, ScanRequest, ScanStep, Searched};
use longhand_proto::command::{Balance, Info};
use prost::Message;

use crate::api::{Keys, NodeError, Registration};
use crate::ldk::objects::unreadable;
use crate::machine::turn::Turn;
use crate::store::schema::{self, key};

/// Pause before a source is asked again that could not be used.
const SOURCE_PAUSE: Duration = Duration::from_secs(10);
/// Pause before a block is asked for again that the source has not.
const BLOCK_PAUSE: Duration = Duration::from_secs(60);
/// Pause before the next attempt when source and stream are not in the same chain: the stream will follow.
const REORG_PAUSE: Duration = Duration::from_secs(5);
/// Blocks that are searched again when one does not build on the last.
const REORG_DEPTH: u32 = 144;

/// See the module.
#[derive(Default)]
pub(crate) struct WalletScan(Option<Box<Scan>>);

struct Scan {
    record: schema::WalletScan,
    /// The stream's tip, while the stream is at it.
    tip: Option<BlockRef>,
    /// The tip of the request that is not answered; `Some(None)` when the answer is of no use, after a reorganisation.
    asked: Option<Option<BlockRef>>,
    /// The source's height at the last answer.
    source_height: u32,
    /// One line for a person, after its code.
    problem: String,
    /// No request is made before.
    retry_at: Option<Instant>,
}

impl WalletScan {
    /// Reads the search back, or begins it when the registration has a birthday and there was none.
    ///
    /// # Errors
    /// [`NodeError::Load`] when the record cannot be read.
    pub fn load(turn: &Turn, tip: BlockRef) -> Result<WalletScan, NodeError> {
        let Keys::Remote(registration) = &turn.config.keys else {
            return Ok(WalletScan::default());
        };
        let record = match turn.journal.loaded_one(key::WALLET_SCAN) {
            Some(bytes) => schema::WalletScan::decode(&*bytes)
                .map_err(|error| unreadable("the wallet's search")(error.to_string()))?,
            None => match first_record(turn, registration, tip) {
                Some(record) => record,
                None => return Ok(WalletScan::default()),
            },
        };
        let held_up_to = (!record.is_complete).then_some(record.held_up_to);
        turn.wallet().hold_coins(held_up_to);
        Ok(WalletScan(Some(Box::new(Scan {
            record,
            tip: None,
            asked: None,
            source_height: 0,
            problem: String::new(),
            retry_at: None,
        }))))
    }

    /// The stream is at the chain's tip.
    pub fn synced(&mut self, tip: BlockRef) {
        if let Some(scan) = &mut self.0 {
            scan.tip = Some(tip);
            // It waited for the stream, not for the source.
            if scan.problem.is_empty() {
                scan.retry_at = None;
            }
        }
    }

    /// Blocks above `fork` have left the chain: those that replace them are searched again. The stream brings them too, but
    /// was not watching all scripts that are known later.
    pub fn disconnected(&mut self, turn: &Turn, fork: BlockRef) {
        let Some(scan) = self.running() else {
            return;
        };
        scan.tip = None;
        scan.asked = scan.asked.map(|_| None);
        if scan.record.next_height > fork.height.saturating_add(1) {
            scan.move_to(turn, fork.height.saturating_add(1), Some(fork.hash));
        }
    }

    /// The next request, when it can be made now.
    pub fn request(&mut self, turn: &Turn) -> Option<ScanRequest> {
        let scan = self.running()?;
        if scan.asked.is_some() || scan.retry_at.is_some() {
            return None;
        }
        let tip = scan.tip?;
        scan.asked = Some(Some(tip));
        let step = match scan.record.birthday_unix_s {
            0 => ScanStep::FindBlock {
                from: scan.record.next_height,
                parent: BlockHash::from_slice(&scan.record.parent).ok(),
                watch: turn.wallet().watches(),
            },
            unix_s => ScanStep::FindHeight { unix_s },
        };
        Some(ScanRequest { tip, step })
    }

    /// The answer to the last request.
    pub fn answered(&mut self, turn: &Turn, answer: Result<ScanReply, ScanError>) {
        let Some(scan) = self.running() else {
            return;
        };
        let Some(Some(tip)) = scan.asked.take() else {
            return;
        };
        match answer {
            Ok(reply) => {
                scan.problem.clear();
                scan.replied(turn, reply, tip);
            }
            Err(error) => scan.failed(turn, &error),
        }
    }

    /// When the next attempt is due, after a failure.
    pub fn retry_at(&self) -> Option<Instant> {
        self.0.as_ref()?.retry_at
    }

    /// The pause after a failure is over.
    pub fn retry(&mut self) {
        if let Some(scan) = &mut self.0 {
            scan.retry_at = None;
        }
    }

    /// Adds the search to the owner's view of the node.
    pub fn add_to_info(&self, turn: &Turn, info: Info) -> Info {
        match &self.0 {
            Some(scan) => Info {
                scanned_height: scan.scanned_height(),
                scan_target_height: scan.target_height(turn),
                scan_problem: scan.problem.clone(),
                scan_from_height: scan.record.from_height,
                ..info
            },
            None => info,
        }
    }

    /// Adds the search to the balance, which has only the coins that it has found so far.
    pub fn add_to_balance(&self, turn: &Turn, balance: Balance) -> Balance {
        match &self.0 {
            Some(scan) => Balance {
                scanned_height: scan.scanned_height(),
                scan_target_height: scan.target_height(turn),
                scan_problem: scan.problem.clone(),
                ..balance
            },
            None => balance,
        }
    }

    fn running(&mut self) -> Option<&mut Scan> {
        let scan = self.0.as_deref_mut();
        scan.filter(|scan| !scan.record.is_complete)
    }
}

impl Scan {
    fn replied(&mut self, turn: &Turn, reply: ScanReply, tip: BlockRef) {
        match reply {
            ScanReply::Height(height) => {
                let height = height.max(self.record.from_height);
                let height = height.min(tip.height.saturating_add(1));
                self.record.birthday_unix_s = 0;
                self.record.from_height = height;
                tracing::info!(node = %turn.config.namespace, height, "the wallet's birthday was found");
                self.move_to(turn, height, None);
            }
            ScanReply::Searched(searched) => self.searched(turn, searched, tip),
            ScanReply::OtherTip => self.retry_at = Some(turn.now.instant + REORG_PAUSE),
            ScanReply::OtherParent => {
                self.retry_at = Some(turn.now.instant + REORG_PAUSE);
                if self.record.birthday_unix_s == 0 {
                    let back = self.record.next_height.saturating_sub(REORG_DEPTH);
                    self.move_to(turn, back.max(self.record.from_height), None);
                }
            }
        }
    }

    fn searched(&mut self, turn: &Turn, searched: Searched, tip: BlockRef) {
        self.source_height = searched.source_height;
        let Some(reached) = searched.reached else {
            return self.at_tip(turn, tip);
        };
        let Some(found) = searched.found else {
            self.move_to(turn, reached.height.saturating_add(1), Some(reached.hash));
            if reached.height >= tip.height {
                self.at_tip(turn, tip);
            }
            return;
        };
        let mut wallet = turn.wallet();
        let known = wallet.watches().scripts.len();
        let inserted = wallet.insert_block(reached.height, &found.header, &found.txs);
        let derived_more = wallet.watches().scripts.len() > known;
        drop(wallet);
        if let Err(error) = inserted {
            tracing::error!(node = %turn.config.namespace, "{error}");
            self.problem = format!("{}: {error}", error.code());
            self.retry_at = Some(turn.now.instant + BLOCK_PAUSE);
            return;
        }
        match derived_more {
            true => self.move_to(turn, reached.height, Some(found.header.prev_blockhash)),
            false => self.move_to(turn, reached.height.saturating_add(1), Some(reached.hash)),
        }
    }

    /// A request has found nothing up to the stream's tip.
    fn at_tip(&mut self, turn: &Turn, tip: BlockRef) {
        if self.source_height > tip.height {
            // The stream will bring the blocks that the source has more.
            self.retry_at = (self.tip == Some(tip)).then(|| turn.now.instant + REORG_PAUSE);
            return;
        }
        // The stream has moved on since the request: so does the search.
        if self.tip != Some(tip) {
            return;
        }
        self.record.is_complete = true;
        self.write(turn);
        turn.wallet().hold_coins(None);
        tracing::info!(
            node = %turn.config.namespace,
            from = self.record.from_height,
            to = tip.height,
            "the search for the wallet's coins is complete"
        );
    }

    fn failed(&mut self, turn: &Turn, error: &ScanError) {
        let problem = format!("{}: {error}", error.code());
        if problem != self.problem {
            tracing::warn!(node = %turn.config.namespace, "the search for the wallet's coins waits: {error}");
        }
        self.problem = problem;
        let pause = match error.is_source_unavailable() {
            true => SOURCE_PAUSE,
            false => BLOCK_PAUSE,
        };
        self.retry_at = Some(turn.now.instant + pause);
    }

    /// The search goes on at this height; `parent` is the block before, when it is known.
    fn move_to(&mut self, turn: &Turn, height: u32, parent: Option<BlockHash>) {
        self.record.next_height = height;
        let parent = parent.map(|hash| hash.to_byte_array().to_vec());
        self.record.parent = parent.unwrap_or_default();
        self.write(turn);
    }

    fn write(&self, turn: &Turn) {
        turn.journal
            .put(key::WALLET_SCAN, self.record.encode_to_vec());
    }

    fn scanned_height(&self) -> u32 {
        match self.record.birthday_unix_s {
            0 => self.record.next_height.saturating_sub(1),
            _ => 0,
        }
    }

    /// Above the scanned height until the search is complete.
    fn target_height(&self, turn: &Turn) -> u32 {
        let scanned = self.scanned_height();
        match self.record.is_complete {
            true => scanned,
            false => {
                let known = turn.height.max(self.source_height);
                known.max(scanned.saturating_add(1))
            }
        }
    }
}

/// The record of a search that begins; `None` for a wallet that is new.
fn first_record(
    turn: &Turn,
    registration: &Registration,
    tip: BlockRef,
) -> Option<schema::WalletScan> {
    let (height, unix_s) = (registration.birthday_height, registration.birthday_unix_s);
    if height == 0 && unix_s == 0 {
        return None;
    }
    let first_height = first_height(turn.config.network, registration);
    let next_of_stream = tip.height.saturating_add(1);
    let from_height = height.max(first_height).min(next_of_stream);
    // The wallet of a node from before the search existed has coins that its stream has followed.
    let first = turn.wallet().first_block();
    let record = schema::WalletScan {
        birthday_unix_s: if height == 0 { unix_s } else { 0 },
        from_height,
        next_height: from_height,
        parent: Vec::new(),
        held_up_to: first.map_or(tip.height, |first| first.saturating_sub(1)),
        is_complete: false,
    };
    turn.journal.put(key::WALLET_SCAN, record.encode_to_vec());
    Some(record)
}

/// The first block that can matter to a wallet, whatever its age: the one with which the deployment became active that
/// its descriptors need, segwit for `wpkh` (BIP 141) and taproot for `tr` (BIP 341). Before that anybody could spend such
/// an output, so that no wallet gave an address for one. The heights are those of Bitcoin Core's `kernel/chainparams.cpp`;
/// testnet4, signet and regtest had both from their first block on.
fn first_height(network: Network, registration: &Registration) -> u32 {
    let is_taproot = registration.external_descriptor.starts_with("tr(");
    match (network, is_taproot) {
        (Network::Bitcoin, false) => 481_824,
        (Network::Bitcoin, true) => 709_632,
        (Network::Testnet, false) => 834_624,
        (Network::Testnet, true) => 2_011_968,
        _ => 1,
    }
}

#[cfg(test)]
#[path = "tests/wallet_scan.rs"]
mod tests;
