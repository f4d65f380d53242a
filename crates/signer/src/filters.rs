//! What the host shows the signer by compact filters of its blocks (BIP 157 and 158): that the channels' funding outputs are unspent.
//!
//! No proof of work covers filters: a host that forges them can hide a close. It has to forge them, and to keep on doing so, where without
//! filters it would only keep silent; the answers of a second source count in their place.

use std::collections::BTreeMap;

use bitcoin::bip158::FilterHeader;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf};
use longhand_proto::signer::{ShowFilters, WantedFilters};
use longhand_spv::filter::filter_hash;
use longhand_spv::{
    FilterAnswer, FilterChain, FilterError, Headers, SpendWatch, Status, WatchError,
};

/// The filter headers that are kept: two weeks. For a channel with an earlier funding filters are shown again from there on.
const KEPT_HEADERS: usize = 2_016;
/// The version of the stored form.
const VERSION: u8 = 1;

/// See the module. It can be lost: the host then shows the filters again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    watch: SpendWatch,
    /// The filter headers of the last filters; `None` before the first.
    chain: Option<FilterChain>,
    /// The last filter header of an earlier chain, with which this one has to agree.
    anchor: Option<Anchor>,
    /// The height at which a filter has a script of the phone's, until the block is shown.
    matched: Option<u32>,
}

/// A filter header that was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Anchor {
    height: u32,
    block: BlockHash,
    header: FilterHeader,
}

/// Stored bytes that are no [`Filters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the phone has seen by filters is damaged: the host shows them again")]
pub struct StoredFiltersError;

impl Filters {
    /// What is known of an output, in the chain that the phone knows.
    pub(crate) fn status(&self, outpoint: &OutPoint) -> Option<Status> {
        self.watch.status(outpoint)
    }

    /// Whether the filters of all blocks from this one, which has made the output, up to the newest show that it is unspent.
    pub(crate) fn is_unspent(&self, outpoint: &OutPoint, from: u32, headers: &Headers) -> bool {
        let shown = self.shown_unspent(outpoint);
        self.watch.followed_from(outpoint) == Some(from)
            && shown.is_some_and(|up_to| up_to >= headers.height().max(from))
    }

    /// Up to which block filters show that the output is unspent.
    pub(crate) fn shown_unspent(&self, outpoint: &OutPoint) -> Option<u32> {
        match self.watch.status(outpoint)? {
            Status::Unspent { up_to } => Some(up_to),
            Status::Spent(_) => None,
        }
    }

    /// Takes back what was learned from blocks that have left the chain.
    pub(crate) fn sync(&mut self, headers: &Headers) {
        if self.watch.sync(headers) {
            self.matched = None;
        }
    }

    /// Follows these outputs, each with its script and the height of its block, and no others; which filters are wanted for them.
    pub(crate) fn follow(
        &mut self,
        headers: &Headers,
        outputs: &BTreeMap<OutPoint, (ScriptBuf, u32)>,
    ) -> Result<WantedFilters, NotTaken> {
        self.sync(headers);
        let known = self.watch.outpoints();
        let gone = known.filter(|outpoint| !outputs.contains_key(outpoint));
        let gone: Vec<OutPoint> = gone.copied().collect();
        gone.iter().for_each(|outpoint| self.watch.forget(outpoint));
        for (outpoint, (script, from)) in outputs {
            self.watch.follow(*outpoint, script.clone(), *from)?;
        }
        Ok(self.wanted(headers))
    }

    /// Takes the filters of an operation that are wanted, and returns which ones are wanted next. After a lie all are wanted anew.
    pub(crate) fn show(
        &mut self,
        headers: &Headers,
        op: &ShowFilters,
    ) -> Result<WantedFilters, NotTaken> {
        let mut shown = self.clone();
        match shown.take(headers, op) {
            Ok(()) => *self = shown,
            Err(error) => {
                if error.is_lie() {
                    self.begin_anew();
                }
                return Err(error);
            }
        }
        Ok(self.wanted(headers))
    }

    /// The next filter that is missing, up to the tip.
    fn wanted(&self, headers: &Headers) -> WantedFilters {
        let next = self.watch.next_height();
        let next = next.filter(|next| *next <= headers.height());
        WantedFilters {
            next_height: next.unwrap_or(0),
            with_block: next.is_some() && self.matched == next,
        }
    }

    /// Takes the filters of an operation, up to one that needs its block, or whose block is not in the chain.
    fn take(&mut self, headers: &Headers, op: &ShowFilters) -> Result<(), NotTaken> {
        let previous = FilterHeader::from_slice(&op.previous_header);
        let previous =
            previous.map_err(|_| NotTaken::False("the filter header is not 32 bytes"))?;
        if op.block_hashes.len() != op.filters.len() {
            return Err(NotTaken::False("the filters do not have a block hash each"));
        }
        let shown = (op.first_height..).zip(op.filters.iter().zip(&op.block_hashes));
        let mut of_chain = shown
            .take_while(|(height, (_, hash))| is_at(headers, *height, hash))
            .peekable();
        if of_chain.peek().is_some() {
            self.join(headers, op.first_height, previous)?;
        }
        for (height, (filter, _)) in of_chain {
            let has_block = height == op.first_height && !op.block.is_empty();
            let block = has_block.then_some(&op.block[..]);
            if !self.take_one(headers, height, filter, block)? {
                self.matched = Some(height);
                break;
            }
            self.matched = None;
        }
        if let Some(chain) = &mut self.chain {
            chain.keep_last(KEPT_HEADERS);
        }
        Ok(())
    }

    /// The filter headers go on at this height, or begin there.
    fn join(&mut self, headers: &Headers, at: u32, previous: FilterHeader) -> Result<(), NotTaken> {
        let known = self.chain.as_mut().and_then(|chain| {
            chain.sync(headers);
            chain.header(at.checked_sub(1)?)
        });
        match known {
            Some(known) if known == previous => return Ok(()),
            Some(_) => return Err(NOT_ONE_CHAIN),
            None => {}
        }
        // An earlier chain above is reached again.
        let before = self.chain.as_ref().and_then(|chain| anchor(chain, headers));
        let before = before.or(self.anchor);
        self.anchor = before.filter(|before| before.height >= at);
        self.chain = Some(FilterChain::new(at, previous));
        Ok(())
    }

    /// Takes one filter, with its block or without; false when the block is needed.
    fn take_one(
        &mut self,
        headers: &Headers,
        height: u32,
        filter: &[u8],
        block: Option<&[u8]>,
    ) -> Result<bool, NotTaken> {
        let chain = self.chain.as_mut().ok_or(NOT_ONE_CHAIN)?;
        if chain.next_height() == height {
            chain.extend(headers, &[filter_hash(filter)])?;
        }
        if let Some(before) = self.anchor.take_if(|before| before.height == height) {
            let is_same = chain.header(height) == Some(before.header);
            if headers.hash(height) == Some(before.block) && !is_same {
                return Err(NOT_ONE_CHAIN);
            }
        }
        let Some(block) = block else {
            let answer = self.watch.filter(headers, chain, height, filter)?;
            return Ok(answer == FilterAnswer::Clear);
        };
        chain.check(height, filter)?;
        let block: Block =
            deserialize(block).map_err(|_| NotTaken::False("the block cannot be read"))?;
        self.watch.block(headers, height, &block, Some(filter))?;
        Ok(true)
    }

    /// The host has lied: filters are wanted anew from the fundings on. What a block has shown to be spent stays so.
    fn begin_anew(&mut self) {
        self.watch.look_again();
        (self.chain, self.anchor, self.matched) = (None, None, None);
    }

    /// As bytes, to go on with after a restart: 32 bytes a filter header, at most 2,016 of them, some 90 bytes a channel, and 10 kB.
    pub fn encode(&self) -> Vec<u8> {
        let watch = self.watch.encode();
        let length = u32::try_from(watch.len()).unwrap_or(u32::MAX);
        let mut bytes = vec![VERSION];
        bytes.extend(length.to_le_bytes());
        bytes.extend(watch);
        bytes.push(self.anchor.is_some().into());
        if let Some(anchor) = &self.anchor {
            bytes.extend(anchor.height.to_le_bytes());
            bytes.extend(anchor.block.as_byte_array());
            bytes.extend(anchor.header.as_byte_array());
        }
        let chain = self.chain.as_ref().map(FilterChain::encode);
        bytes.extend(chain.unwrap_or_default());
        bytes
    }

    /// Reads [`Filters::encode`]'s bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<Filters, StoredFiltersError> {
        read(bytes).ok_or(StoredFiltersError)
    }
}

fn read(bytes: &[u8]) -> Option<Filters> {
    let rest = bytes.strip_prefix(&[VERSION])?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (watch, rest) = rest.split_at_checked(length)?;
    let (anchor, chain) = match rest.split_first()? {
        (0, rest) => (None, rest),
        (1, rest) => {
            let (height, rest) = rest.split_first_chunk()?;
            let (block, rest) = rest.split_first_chunk()?;
            let (header, rest) = rest.split_first_chunk()?;
            let anchor = Anchor {
                height: u32::from_le_bytes(*height),
                block: BlockHash::from_byte_array(*block),
                header: FilterHeader::from_byte_array(*header),
            };
            (Some(anchor), rest)
        }
        _ => return None,
    };
    let chain = match chain {
        [] => None,
        chain => Some(FilterChain::decode(chain).ok()?),
    };
    Some(Filters {
        watch: SpendWatch::decode(watch).ok()?,
        chain,
        anchor,
        matched: None,
    })
}

/// Whether the phone's chain has this block at this height.
fn is_at(headers: &Headers, height: u32, hash: &[u8]) -> bool {
    let known = headers.hash(height);
    known.is_some_and(|known| known.as_byte_array()[..] == *hash)
}

/// The last filter header of a chain.
fn anchor(chain: &FilterChain, headers: &Headers) -> Option<Anchor> {
    let height = chain.next_height().checked_sub(1)?;
    Some(Anchor {
        height,
        block: headers.hash(height)?,
        header: chain.header(height)?,
    })
}

const NOT_ONE_CHAIN: NotTaken =
    NotTaken::False("the filters are not of one chain with those shown before");

/// The reason for which filters are not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    /// What no honest host shows.
    #[error("{0}")]
    False(&'static str),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl From<FilterError> for NotTaken {
    fn from(error: FilterError) -> NotTaken {
        NotTaken::Watch(error.into())
    }
}

impl NotTaken {
    /// Whether no honest host shows this.
    pub fn is_lie(&self) -> bool {
        match self {
            NotTaken::False(_) => true,
            NotTaken::Watch(error) => matches!(
                error,
                WatchError::OtherBlock(_)
                    | WatchError::Transactions(_)
                    | WatchError::LyingFilter(_)
                    | WatchError::Filter(
                        FilterError::TooLong(_) | FilterError::Malformed | FilterError::Hash(_)
                    )
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bitcoin::{Amount, Network, TxOut, Txid};
    use longhand_lying_host::chain::{Chain, transaction};
    use longhand_spv::{Checkpoint, Params};

    use super::*;

    const NOW_UNIX_S: u64 = 1_700_000_000;

    /// An output of its own script in each of the blocks 1 to 6, and what a phone knows of the chain.
    fn chain() -> (Chain, Headers, Vec<(OutPoint, ScriptBuf)>) {
        let mut chain = Chain::new(b"filters");
        let mut outputs = Vec::new();
        for number in 1..=6 {
            let script = ScriptBuf::from_bytes(vec![0x51, number]);
            let output = TxOut {
                value: Amount::from_sat(1_000),
                script_pubkey: script.clone(),
            };
            let before = OutPoint::new(Txid::from_byte_array([number; 32]), 0);
            let made = transaction(before, output);
            outputs.push((OutPoint::new(made.compute_txid(), 0), script));
            chain.mine(&[made]);
        }
        let params = Params::of(Network::Regtest);
        let mut headers = Headers::new(params, Checkpoint::genesis(Network::Regtest));
        let blocks = (1..=6).map(|height| chain.block(height).header);
        let blocks: Vec<_> = blocks.collect();
        let _ = headers.extend(&blocks, NOW_UNIX_S).unwrap();
        (chain, headers, outputs)
    }

    /// Shows the filters of these heights one by one, each with its block, after `previous` in place of the true filter header.
    fn show(
        filters: &mut Filters,
        (chain, headers): (&Chain, &Headers),
        heights: std::ops::RangeInclusive<u32>,
        mut previous: FilterHeader,
    ) -> Result<(), NotTaken> {
        for height in heights {
            let op = ShowFilters {
                previous_header: previous.to_byte_array().to_vec(),
                ..chain.filters(height, height, true)
            };
            filters.take(headers, &op)?;
            previous = filter_hash(&op.filters[0]).filter_header(&previous);
        }
        Ok(())
    }

    fn previous(chain: &Chain, height: u32) -> FilterHeader {
        FilterHeader::from_slice(&chain.filters(height, height, false).previous_header).unwrap()
    }

    fn followed(
        outputs: &[(OutPoint, ScriptBuf)],
        at: &[u32],
    ) -> BTreeMap<OutPoint, (ScriptBuf, u32)> {
        let output = |at: &u32| {
            let (outpoint, script) = outputs[*at as usize - 1].clone();
            (outpoint, (script, *at))
        };
        at.iter().map(output).collect()
    }

    #[test]
    fn an_earlier_channel_is_followed_by_filters_that_agree_with_those_before() {
        let (chain, headers, outputs) = chain();
        let mut filters = Filters::default();
        filters.follow(&headers, &followed(&outputs, &[4])).unwrap();
        show(&mut filters, (&chain, &headers), 4..=6, previous(&chain, 4)).unwrap();
        assert_eq!(filters.wanted(&headers).next_height, 0);

        filters
            .follow(&headers, &followed(&outputs, &[2, 4]))
            .unwrap();
        assert_eq!(filters.wanted(&headers).next_height, 2);
        show(&mut filters, (&chain, &headers), 2..=3, previous(&chain, 2)).unwrap();
        // All of it is there after a restart.
        let mut filters = Filters::decode(&filters.encode()).unwrap();
        show(&mut filters, (&chain, &headers), 4..=6, previous(&chain, 4)).unwrap();
        assert!(filters.is_unspent(&outputs[1].0, 2, &headers));
        assert!(filters.is_unspent(&outputs[3].0, 4, &headers));
        assert!(!filters.is_unspent(&outputs[3].0, 3, &headers));
    }

    #[test]
    fn filters_that_contradict_an_earlier_chain_of_filter_headers_are_a_lie() {
        let (chain, headers, outputs) = chain();
        let mut filters = Filters::default();
        filters.follow(&headers, &followed(&outputs, &[4])).unwrap();
        let forged = FilterHeader::from_byte_array([9; 32]);
        show(&mut filters, (&chain, &headers), 4..=6, forged).unwrap();

        filters
            .follow(&headers, &followed(&outputs, &[2, 4]))
            .unwrap();
        let shown = show(&mut filters, (&chain, &headers), 2..=6, previous(&chain, 2));
        assert!(shown.unwrap_err().is_lie());
    }
}
