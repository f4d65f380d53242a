//! What the host shows the signer by compact filters of its blocks (BIP 157 and 158): that the channels' funding outputs are unspent.
//!
//! No proof of work covers filters: a host that forges them can hide a close. It has to forge them, and to keep on doing so, where without
//! filters it would only keep silent; the answers of a second source count in their place.

use bitcoin::bip158::FilterHeader;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{Block, OutPoint, ScriptBuf};
use longhand_proto::signer::{ShowFilters, WantedFilters};
use longhand_spv::filter::filter_hash;
use longhand_spv::{
    FilterAnswer, FilterChain, FilterError, Headers, SpendWatch, Status, WatchError,
};

use crate::commitment::funding_script;
use crate::engine::{Answer, Signer};
use crate::ledger::Channel;
use crate::rules::{Refused, Rule};

/// The filter headers that are kept: two weeks. For a channel with an earlier funding filters are shown again from there on.
const KEPT_HEADERS: usize = 2_016;
/// The most filters of one operation.
const MOST_FILTERS: usize = 1_000;
/// The version of the stored form.
const VERSION: u8 = 1;

/// See the module. It can be lost: the host then shows the filters again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    watch: SpendWatch,
    /// The filter headers of the last filters; `None` before the first.
    chain: Option<FilterChain>,
    /// The height at which a filter has a script of the phone's, until the block is shown.
    matched: Option<u32>,
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

    /// Whether the filters of all blocks up to the newest show that the output is unspent.
    pub(crate) fn is_unspent(&self, outpoint: &OutPoint, headers: &Headers) -> bool {
        let shown = self.shown_unspent(outpoint);
        shown.is_some_and(|up_to| up_to >= headers.height())
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

    /// Follows these outputs, each with the height of its block, and no others.
    fn follow(&mut self, outputs: &[(OutPoint, ScriptBuf, u32)]) -> Result<(), WatchError> {
        let is_gone = |known: &&OutPoint| !outputs.iter().any(|(outpoint, ..)| outpoint == *known);
        let gone: Vec<OutPoint> = self.watch.outpoints().filter(is_gone).copied().collect();
        gone.iter().for_each(|outpoint| self.watch.forget(outpoint));
        for (outpoint, script, from) in outputs {
            self.watch.follow(*outpoint, script.clone(), *from)?;
        }
        Ok(())
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

    /// Takes the filters of an operation, up to one that needs its block.
    fn take(&mut self, headers: &Headers, op: &ShowFilters) -> Result<(), Shown> {
        let previous = FilterHeader::from_slice(&op.previous_header);
        let previous = previous.map_err(|_| Shown::False("the filter header is not 32 bytes"))?;
        self.join(headers, op.first_height, previous)?;
        for (height, filter) in (op.first_height..).zip(&op.filters) {
            let block = Some(&op.block).filter(|_| height == op.first_height);
            let block = block.filter(|block| !block.is_empty());
            let is_clear = self.take_one(headers, height, filter, block)?;
            if !is_clear {
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
    fn join(&mut self, headers: &Headers, at: u32, previous: FilterHeader) -> Result<(), Shown> {
        let known = self.chain.as_mut().and_then(|chain| {
            chain.sync(headers);
            chain.header(at.checked_sub(1)?)
        });
        match known {
            Some(known) if known == previous => Ok(()),
            Some(_) => Err(Shown::False(
                "the filters are not of one chain with those shown before",
            )),
            None => {
                self.chain = Some(FilterChain::new(at, previous));
                Ok(())
            }
        }
    }

    /// Takes one filter, with its block or without; false when the block is needed.
    fn take_one(
        &mut self,
        headers: &Headers,
        height: u32,
        filter: &[u8],
        block: Option<&Vec<u8>>,
    ) -> Result<bool, Shown> {
        let chain = self
            .chain
            .as_mut()
            .ok_or(Shown::False("no filter headers"))?;
        if chain.next_height() == height {
            chain.extend(headers, &[filter_hash(filter)])?;
        }
        let Some(block) = block else {
            let answer = self.watch.filter(headers, chain, height, filter)?;
            return Ok(answer == FilterAnswer::Clear);
        };
        chain.check(height, filter)?;
        let block: Block =
            deserialize(block).map_err(|_| Shown::False("the block cannot be read"))?;
        self.watch.block(headers, height, &block, Some(filter))?;
        Ok(true)
    }

    /// As bytes, to go on with after a restart: 32 bytes a filter header, at most 2,016 of them, some 90 bytes a channel, and 10 kB.
    pub fn encode(&self) -> Vec<u8> {
        let watch = self.watch.encode();
        let length = u32::try_from(watch.len()).unwrap_or(u32::MAX);
        let chain = self.chain.as_ref().map(FilterChain::encode);
        let mut bytes = vec![VERSION];
        bytes.extend(length.to_le_bytes());
        bytes.extend(watch);
        bytes.extend(chain.unwrap_or_default());
        bytes
    }

    /// Reads [`Filters::encode`]'s bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<Filters, StoredFiltersError> {
        let read = || {
            let rest = bytes.strip_prefix(&[VERSION])?;
            let (length, rest) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (watch, chain) = rest.split_at_checked(length)?;
            let chain = match chain {
                [] => None,
                chain => Some(FilterChain::decode(chain).ok()?),
            };
            Some(Filters {
                watch: SpendWatch::decode(watch).ok()?,
                chain,
                matched: None,
            })
        };
        read().ok_or(StoredFiltersError)
    }
}

impl Signer {
    /// What the host has shown by filters.
    pub fn filters(&self) -> &Filters {
        &self.filters
    }

    /// Sets what was stored of [`Signer::filters`].
    pub fn set_filters(&mut self, filters: Filters) {
        self.filters = filters;
        self.filters.sync(&self.headers);
    }

    /// Takes filters of the host's blocks, and answers which ones are wanted next. Not in the ledger: what is lost is shown again.
    pub(crate) fn show_filters(&mut self, op: &ShowFilters) -> Result<Answer, Refused> {
        if op.filters.len() > MOST_FILTERS {
            return Err(Refused::new(
                Rule::Filters,
                "more than 1,000 filters at once",
            ));
        }
        if !self.limits().second_source.is_empty() {
            // Its answers count, and no filters.
            return Ok(Answer::WantedFilters(WantedFilters::default()));
        }
        let outputs: Vec<_> = self
            .state
            .channels
            .values()
            .filter_map(funding_output)
            .collect();
        let mut filters = self.filters.clone();
        filters.sync(&self.headers);
        filters
            .follow(&outputs)
            .map_err(|error| refused(&error.into()))?;
        // Others are answered by which ones are wanted.
        let is_wanted = filters.wanted(&self.headers).next_height == op.first_height;
        if is_wanted && !op.filters.is_empty() {
            match filters.take(&self.headers, op) {
                Ok(()) => {}
                Err(error) => {
                    // A host that has lied begins anew, from the fundings on.
                    if error.is_lie() {
                        self.filters = Filters::default();
                    }
                    return Err(refused(&error));
                }
            }
        }
        self.filters = filters;
        Ok(Answer::WantedFilters(self.filters.wanted(&self.headers)))
    }
}

/// The funding output of a channel that is proven to be in the chain, its script, and the height of its block.
fn funding_output(channel: &Channel) -> Option<(OutPoint, ScriptBuf, u32)> {
    let funding = channel.funding.as_ref()?;
    let script = funding_script(&channel.parameters)?.to_p2wsh();
    Some((channel.funding()?, script, funding.height))
}

/// The reason for which filters are not taken.
#[derive(Debug)]
enum Shown {
    /// What no honest host shows.
    False(&'static str),
    Watch(WatchError),
}

impl From<WatchError> for Shown {
    fn from(error: WatchError) -> Shown {
        Shown::Watch(error)
    }
}

impl From<FilterError> for Shown {
    fn from(error: FilterError) -> Shown {
        Shown::Watch(error.into())
    }
}

impl Shown {
    /// Whether no honest host shows this.
    fn is_lie(&self) -> bool {
        match self {
            Shown::False(_) => true,
            Shown::Watch(error) => matches!(
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

/// Headers may come yet, or come again after a reorganisation.
fn refused(error: &Shown) -> Refused {
    let message = match error {
        Shown::False(message) => (*message).to_owned(),
        Shown::Watch(error) => error.to_string(),
    };
    match error.is_lie() {
        true => Refused::new(Rule::Filters, message),
        false => Refused::for_now(Rule::Filters, message),
    }
}
