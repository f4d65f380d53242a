//! What the host and the second source show the signer of the chain, each header checked before it counts, and what its owner sees of it.

use bitcoin::OutPoint;
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use longhand_proto::signer::{Done, ExtendHeaders};
use longhand_spv::headers::MAX_BATCH;
use longhand_spv::{HeaderError, SignetProof, StoredChange};

use crate::engine::{Answer, Change, Signer};
use crate::rules::{Refused, Rule};
use crate::source::SourceAnswer;
use crate::view::Close;

/// A channel in the chain, as far as it was proven to the phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            })
        })
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
