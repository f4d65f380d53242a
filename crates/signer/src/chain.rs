//! What the host and the second source show the signer of the chain, each header checked before it counts, and what its owner sees of it.

use std::collections::BTreeMap;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use longhand_proto::signer::{Done, ExtendHeaders, ShowFilters, WantedFilters};
use longhand_spv::headers::MAX_BATCH;
use longhand_spv::{HeaderError, SignetProof, StoredChange};

use crate::commitment::funding_script;
use crate::engine::{Answer, Change, Signer};
use crate::filters::{Filters, NotTaken};
use crate::ledger::Channel;
use crate::rules::{Refused, Rule};
use crate::source::SourceAnswer;
use crate::view::Close;

/// The most filters of one operation.
const MOST_FILTERS: usize = 1_000;

/// A channel in the chain, as far as it was proven to the phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenChannel {
    /// The funding output.
    pub funding: OutPoint,
    /// Its value.
    pub value_sat: u64,
    /// How many blocks confirm it; 0 when it is not proven.
    pub confirmations: u32,
    /// From so many on payments over it count.
    pub confirmations_needed: u32,
    /// Whether it is spent.
    pub close: Close,
    /// Up to this block the host's filters show that it is not spent.
    pub shown_open_up_to: Option<u32>,
    /// The HTLCs of the commitment that closed it, when it was proven and is one that the phone has on record.
    pub htlcs: Vec<SeenHtlc>,
}

/// An HTLC with an output in the commitment that closed a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenHtlc {
    /// Whether the owner has offered it.
    pub is_outgoing: bool,
    /// The payment's hash.
    pub payment_hash: [u8; 32],
    /// Its amount, in millisatoshis.
    pub amount_msat: u64,
    /// From the block after this height on who has offered it can take it back (BOLT 3).
    pub cltv_expiry: u32,
    /// The transaction that was proven to spend it, and the height of its block.
    pub spent_by: Option<(Txid, u32)>,
}

impl SeenHtlc {
    /// Whether it was spent with the payment's preimage, as far as its block shows: nobody could spend it otherwise so early.
    pub fn was_claimed(&self) -> bool {
        self.spent_by
            .is_some_and(|(_, height)| height <= self.cltv_expiry)
    }
}

impl Signer {
    /// The channels as the phone sees them in the chain.
    pub fn seen_channels(&self) -> impl Iterator<Item = SeenChannel> + '_ {
        // What is asked here does not depend on the time.
        let sight = self.sight(0);
        self.state.channels.values().filter_map(move |channel| {
            let funding = channel.parameters.funding_outpoint?;
            Some(SeenChannel {
                funding: funding.into_bitcoin_outpoint(),
                value_sat: channel.parameters.channel_value_satoshis,
                confirmations: channel.confirmations(&self.headers),
                confirmations_needed: sight.depth_needed(channel),
                close: sight.close(channel),
                shown_open_up_to: self.filters.shown_unspent(&funding.into_bitcoin_outpoint()),
                htlcs: self.seen_htlcs(channel),
            })
        })
    }

    fn seen_htlcs(&self, channel: &Channel) -> Vec<SeenHtlc> {
        let headers = &self.headers;
        let close = channel.spend(headers);
        let htlcs = close.and_then(|close| channel.closed_htlcs(close.txid));
        let seen = htlcs.into_iter().flatten().map(|it| SeenHtlc {
            is_outgoing: it.htlc.is_outgoing,
            payment_hash: it.htlc.payment_hash,
            amount_msat: it.htlc.amount_msat,
            cltv_expiry: it.htlc.cltv_expiry,
            spent_by: channel
                .htlc_spend(&it.output, headers)
                .map(|spend| (spend.txid, spend.height)),
        });
        seen.collect()
    }

    /// The source has answered for an output of [`Signer::seen_channels`]; others are not kept.
    pub fn source_said(&mut self, outpoint: OutPoint, answer: SourceAnswer) {
        if self.seen_channels().any(|it| it.funding == outpoint) {
            self.source.insert(outpoint, answer);
        }
    }

    /// Takes headers of the second source. Of two chains the one with more work counts, whoever has shown it.
    ///
    /// # Errors
    /// See [`HeaderError`]; nothing was changed.
    pub fn take_headers(
        &mut self,
        headers: &[Header],
        now_unix_s: u64,
    ) -> Result<Option<StoredChange>, HeaderError> {
        let extended = self.headers.extend(headers, now_unix_s)?;
        self.filters.sync(&self.headers);
        Ok(extended.into_change())
    }

    /// Takes the next headers of the host. Not in the ledger: headers that are lost come again.
    pub(crate) fn extend_headers(
        &mut self,
        op: &ExtendHeaders,
        now_unix_s: u64,
        stored: &mut Vec<StoredChange>,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        let headers = read_headers(&op.headers)?;
        let extended = match op.solutions.is_empty() {
            true => self.headers.extend(&headers, now_unix_s),
            false => {
                let solutions = read_solutions(&op.solutions)?;
                self.headers.extend_signed(&headers, &solutions, now_unix_s)
            }
        };
        let extended = extended.map_err(|error| refused(&error))?;
        stored.extend(extended.into_change());
        self.filters.sync(&self.headers);
        Ok((Answer::Done(Done {}), Vec::new()))
    }
}

/// Filters of blocks.
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

    /// Takes filters of the host's blocks, and answers which ones are wanted next. Not in the ledger: what is lost is shown again. `has_new` is
    /// set when [`Signer::filters`] may have changed.
    pub(crate) fn show_filters(
        &mut self,
        op: &ShowFilters,
        has_new: &mut bool,
    ) -> Result<Answer, Refused> {
        if op.filters.len() > MOST_FILTERS {
            let message = "more than 1,000 filters at once";
            return Err(Refused::new(Rule::Filters, message));
        }
        if !self.limits().second_source.is_empty() {
            // Its answers count, and no filters.
            return Ok(Answer::WantedFilters(WantedFilters::default()));
        }
        let outputs = self.open_fundings();
        let wanted = self.filters.follow(&self.headers, &outputs);
        let mut wanted = wanted.map_err(|error| not_taken(&error))?;
        // Others are answered by which ones are wanted.
        let is_wanted = wanted.next_height > 0 && wanted.next_height == op.first_height;
        if is_wanted && !op.filters.is_empty() {
            *has_new = true;
            let shown = self.filters.show(&self.headers, op);
            wanted = shown.map_err(|error| not_taken(&error))?;
        }
        Ok(Answer::WantedFilters(wanted))
    }

    /// The funding outputs of the channels that are proven to be in the chain and not known to be closed, with their scripts and the heights of
    /// their blocks.
    fn open_fundings(&self) -> BTreeMap<OutPoint, (ScriptBuf, u32)> {
        let channels = self.state.channels.values();
        let open = channels.filter(|channel| channel.spend(&self.headers).is_none());
        open.filter_map(funding_output).collect()
    }
}

fn funding_output(channel: &Channel) -> Option<(OutPoint, (ScriptBuf, u32))> {
    let funding = channel.funding.as_ref()?;
    let script = funding_script(&channel.parameters)?.to_p2wsh();
    Some((channel.funding()?, (script, funding.height)))
}

/// What is not a lie may be taken after the next headers, or when fewer channels are open.
fn not_taken(error: &NotTaken) -> Refused {
    let message = error.to_string();
    match error.is_lie() {
        true => Refused::new(Rule::Filters, message),
        false => Refused::for_now(Rule::Filters, message),
    }
}

fn read_headers(bytes: &[u8]) -> Result<Vec<Header>, Refused> {
    let (headers, rest) = bytes.as_chunks::<{ Header::SIZE }>();
    if !rest.is_empty() || headers.len() > MAX_BATCH {
        let message = "the headers are not of 80 bytes each, or more than 2,016";
        return Err(Refused::new(Rule::Headers, message));
    }
    let headers = headers.iter().map(|header| deserialize(header));
    let headers: Result<Vec<Header>, _> = headers.collect();
    headers.map_err(|_| Refused::new(Rule::Headers, "a header cannot be read"))
}

fn read_solutions(encoded: &[Vec<u8>]) -> Result<Vec<SignetProof>, Refused> {
    if encoded.len() > MAX_BATCH {
        let message = "there are more solutions than headers";
        return Err(Refused::new(Rule::Headers, message));
    }
    let solutions = encoded.iter().map(|solution| SignetProof::decode(solution));
    let solutions: Result<Vec<SignetProof>, _> = solutions.collect();
    solutions.map_err(|error| Refused::new(Rule::Headers, error.to_string()))
}

/// A clock that is behind, and headers that come in another order, may be mended.
fn refused(error: &HeaderError) -> Refused {
    let message = error.to_string();
    match error {
        HeaderError::Unconnected(_) | HeaderError::TooNew { .. } | HeaderError::SideFull => {
            Refused::for_now(Rule::Headers, message)
        }
        _ => Refused::new(Rule::Headers, message),
    }
}
