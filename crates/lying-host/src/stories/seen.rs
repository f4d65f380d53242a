//! Stories about the chain: channels that nobody funded, closes that are kept back, blocks that do not come, and filters.

use longhand_proto::signer::ShowFilters;
use longhand_proto::signer::signer_op::Op;
use longhand_signer::{OutputState, Rule, SourceAnswer};

use super::{Story, Telling};
use crate::attacks::seen::{AMOUNT_MSAT, claim};
use crate::chain::{Chain, funding_transaction, prove};
use crate::funded::{deep, spend_of};
use crate::scene::*;

const BALANCE_SAT: u64 = 400_000;
/// An expiry that is far enough, and not too far.
const EXPIRY: u32 = 500;

pub(super) fn stories() -> Vec<Story> {
    let story = |name, tell| Story { name, tell };
    vec![
        story("a channel that nobody funded", unfunded),
        story("a close that the second source sees", hidden_from_the_host),
        story("a close whose block is kept back", kept_back),
        story("filters of another chain", other_filters),
        story("an old chain with less work", less_work),
    ]
}

/// The HTLC of an invoice, committed on both sides as state `index`; the claim of its preimage.
fn committed(it: &mut Telling, channel: &Channel, index: u64, before: &[Htlc]) -> (Op, Htlc) {
    let amount_msat = AMOUNT_MSAT + index * 1_000;
    let hash = it.invoice(amount_msat);
    let htlc = Htlc {
        cltv_expiry: EXPIRY,
        ..Htlc::incoming(hash, amount_msat)
    };
    let htlcs = [before, &[htlc]].concat();
    it.all_go(
        "an HTLC for an invoice is committed on both sides",
        [
            validate(&channel.holder(index, BALANCE_SAT, &htlcs)),
            release(index - 1),
            sign(&channel.theirs(index, BALANCE_SAT, &htlcs)),
            channel.revocation(index - 1),
        ],
    );
    (claim(hash, amount_msat, EXPIRY), htlc)
}

/// The phone is shown what was mined.
fn show_headers(it: &mut Telling) {
    let known = it.phone.signer.headers().height();
    let op = it.phone.chain.headers_above(known);
    it.goes("the next headers", op);
}

/// The host shows filters up to the tip, with the blocks that the phone wants.
fn show_filters(it: &mut Telling, from: u32) {
    let tip = it.phone.chain.height();
    let first = it.phone.chain.filters(from, from, false);
    it.goes("the filter of the funding's block", Op::ShowFilters(first));
    let block = it.phone.chain.filters(from, from, true);
    it.goes("that block", Op::ShowFilters(block));
    let rest = it.phone.chain.filters(from + 1, tip, false);
    it.goes("the filters up to the tip", Op::ShowFilters(rest));
}

/// The host and a peer make up a channel, pay an invoice over it, and want its preimage.
fn unfunded(it: &mut Telling) {
    it.phone.has_chain = false;
    let channel = Channel::open(&mut it.phone);
    it.phone.chain.mine_empty(10);
    show_headers(it);
    let (claim, _) = committed(it, &channel, 1, &[]);
    it.stops(Rule::PreimageUnproven, "its preimage", claim.clone());

    let funding = funding_transaction(&channel.parameters);
    let mut alone = Chain::new(b"alone");
    alone.mine(std::slice::from_ref(&funding));
    let proof = prove(&alone.proof(funding.compute_txid()));
    it.stops(Rule::Proof, "a proof of a chain without work", proof);
    it.stops(Rule::PreimageUnproven, "its preimage again", claim.clone());

    // The channel is funded after all.
    it.phone.chain.mine(std::slice::from_ref(&funding));
    it.phone.chain.mine_empty(1);
    show_headers(it);
    let proof = prove(&it.phone.chain.proof(funding.compute_txid()));
    it.goes("the funding's proof", proof);
    it.stops(Rule::PreimageUnproven, "after two blocks", claim.clone());
    it.phone.chain.mine_empty(1);
    show_headers(it);
    it.goes("the preimage after three blocks", claim);
}

/// The channel was closed with the peer; the host goes on in it as if it were open. The owner has a second source.
fn hidden_from_the_host(it: &mut Telling) {
    it.phone
        .limit("second_source", "https://source.example/api");
    let channel = deep(&mut it.phone, 6);
    let (first, htlc) = committed(it, &channel, 1, &[]);
    let close = spend_of(&channel);
    it.phone.chain.mine(std::slice::from_ref(&close));
    it.phone.chain.mine_empty(1);
    it.stops(
        Rule::PreimageUnwatched,
        "a preimage before the source has spoken",
        first.clone(),
    );
    show_headers(it);
    source_says(it, OutputState::Spent(Some(close.compute_txid())));
    it.stops(
        Rule::PreimageUnwatched,
        "the preimage of a closed channel",
        first.clone(),
    );
    let (second, _) = committed(it, &channel, 2, &[htlc]);
    source_says(it, OutputState::Spent(Some(close.compute_txid())));
    it.stops(Rule::PreimageUnwatched, "that of a later payment", second);

    // The close leaves the chain: nothing was lost by waiting.
    let fork = it.phone.chain.height() - 2;
    it.phone.chain = it.phone.chain.fork(fork, b"fork");
    it.phone.chain.mine_empty(3);
    let headers = it.phone.chain.headers_above(fork);
    it.goes("a reorganisation takes the close away", headers);
    source_says(it, OutputState::Unspent);
    it.goes("the first preimage", first);
}

/// The source's answer, of now, at the newest block.
fn source_says(it: &mut Telling, state: OutputState) {
    let answer = SourceAnswer {
        height: it.phone.signer.headers().height(),
        at_unix_s: it.phone.now_unix_s,
        state,
    };
    let funding = it.phone.funding;
    it.phone.signer.source_said(funding, answer);
}

/// The host shows every filter, and not the block that closes the channel; then it shows nothing.
fn kept_back(it: &mut Telling) {
    it.phone.limit("filters_from_sat", "0");
    let channel = deep(&mut it.phone, 6);
    let funded_at = it.phone.chain.height() - 5;
    let (first, htlc) = committed(it, &channel, 1, &[]);
    it.stops(
        Rule::PreimageUnwatched,
        "a preimage without filters",
        first.clone(),
    );
    show_filters(it, funded_at);
    it.goes("the preimage with them", first);

    let (second, _) = committed(it, &channel, 2, &[htlc]);
    it.phone.chain.mine(&[spend_of(&channel)]);
    it.phone.chain.mine_empty(2);
    show_headers(it);
    it.stops(
        Rule::PreimageUnwatched,
        "a preimage after a close",
        second.clone(),
    );
    let closed_at = it.phone.chain.height() - 2;
    let filter = it.phone.chain.filters(closed_at, closed_at, false);
    it.goes("the filter of the close's block", Op::ShowFilters(filter));
    it.stops(
        Rule::PreimageUnwatched,
        "a preimage without that block",
        second.clone(),
    );
    let others = it.phone.chain.filters(closed_at + 1, closed_at + 2, false);
    it.goes("filters that are not wanted yet", Op::ShowFilters(others));
    it.stops(
        Rule::PreimageUnwatched,
        "a preimage by those",
        second.clone(),
    );
    let block = it.phone.chain.filters(closed_at, closed_at, true);
    it.goes("the block", Op::ShowFilters(block));
    it.stops(
        Rule::PreimageUnproven,
        "the preimage of a channel that is closed",
        second,
    );
    it.goes(
        "the question which filters are wanted",
        Op::ShowFilters(ShowFilters::default()),
    );
}

/// The host shows filters that are not those of its blocks.
fn other_filters(it: &mut Telling) {
    it.phone.limit("filters_from_sat", "0");
    let channel = deep(&mut it.phone, 6);
    let funded_at = it.phone.chain.height() - 5;
    let (preimage, _) = committed(it, &channel, 1, &[]);
    let mut other = it.phone.chain.fork(funded_at, b"other");
    other.mine_empty(5);
    let lie = it.phone.chain.filters_without_coinbase(funded_at);
    it.goes(
        "a filter that leaves something out",
        Op::ShowFilters(lie.clone()),
    );
    let block = it.phone.chain.filters(funded_at, funded_at, true).block;
    let lie = ShowFilters { block, ..lie };
    it.stops(Rule::Filters, "its block shows it", Op::ShowFilters(lie));
    it.stops(Rule::PreimageUnwatched, "the preimage", preimage.clone());
    let first = it.phone.chain.filters(funded_at, funded_at, false);
    it.goes("the right filter", Op::ShowFilters(first));
    let block = it.phone.chain.filters(funded_at, funded_at, true);
    it.goes("its block", Op::ShowFilters(block));
    let mut wrong = other.filters(funded_at + 1, funded_at + 5, false);
    let own = it.phone.chain.filters(funded_at + 1, funded_at + 5, false);
    wrong.block_hashes = own.block_hashes;
    wrong.previous_header[0] ^= 1;
    it.stops(
        Rule::Filters,
        "filters that do not follow",
        Op::ShowFilters(wrong),
    );
    it.stops(
        Rule::PreimageUnwatched,
        "the preimage again",
        preimage.clone(),
    );
    show_filters(it, funded_at);
    it.goes("the preimage with all filters", preimage);
}

/// The host shows a chain of its own, in which a close is not; and an old tip.
fn less_work(it: &mut Telling) {
    let channel = deep(&mut it.phone, 6);
    let (preimage, _) = committed(it, &channel, 1, &[]);
    let height = it.phone.chain.height();
    let mut own = it.phone.chain.fork(height - 5, b"own");
    own.mine_empty(3);
    it.goes(
        "headers of a fork with less work",
        own.headers_above(height - 5),
    );
    let bad = match own.headers_above(height - 5) {
        Op::ExtendHeaders(mut op) => {
            op.headers.truncate(79);
            Op::ExtendHeaders(op)
        }
        other => other,
    };
    it.stops(Rule::Headers, "half a header", bad);
    // A fork with more work does not have the funding.
    let mut longer = it.phone.chain.fork(0, b"longer");
    longer.mine_empty(height + 2);
    it.goes("a fork with more work", longer.headers_above(0));
    it.stops(Rule::PreimageUnproven, "a preimage there", preimage.clone());
    // The first chain goes on.
    it.phone.chain.mine_empty(4);
    let headers = it.phone.chain.headers_above(0);
    it.goes("the chain with the funding has most work again", headers);
    it.goes("the preimage", preimage);
}
