//! Filters that do not show that a channel is open: of other blocks, with parts left out, up to an old block, or with a block that is none.

use bitcoin::bip158::FilterHeader;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Block, Transaction};
use longhand_proto::signer::ShowFilters;
use longhand_proto::signer::signer_op::Op;
use longhand_signer::Rule;
use longhand_spv::filter::MAX_FILTER_BYTES;

use super::seen::{AMOUNT_MSAT, commitment_with, paid};
use crate::chain::{funding_transaction, prove};
use crate::funded::{deep, mine_and_prove, reorganise, spend_of};
use crate::scene::*;
use crate::{Case, Cases};

pub(super) fn cases() -> Vec<Case> {
    let mut all = filters();
    all.extend(unwatched());
    all.extend(closed());
    all
}

/// A channel that six blocks confirm, of a phone that wants filters for every payment, and the height of its funding.
fn filtered(phone: &mut Phone) -> (Channel, u32) {
    phone.limit("filters_from_sat", "0");
    let channel = deep(phone, 6);
    let height = phone.chain.height() - 5;
    (channel, height)
}

/// The filter of the funding's block, in which the phone finds its script.
fn first_filter(phone: &mut Phone) -> (Channel, ShowFilters) {
    let (channel, height) = filtered(phone);
    let op = phone.chain.filters(height, height, false);
    (channel, op)
}

/// The same, which the phone was shown, and now with its block.
fn first_block(phone: &mut Phone) -> (Channel, ShowFilters) {
    let (channel, op) = first_filter(phone);
    let height = op.first_height;
    phone.ask(Op::ShowFilters(op)).expect("an honest step");
    let op = phone.chain.filters(height, height, true);
    (channel, op)
}

/// The filters of the blocks after the funding's, all before were shown.
fn next_filters(phone: &mut Phone) -> (Channel, ShowFilters) {
    let (channel, op) = first_block(phone);
    let height = op.first_height;
    phone.ask(Op::ShowFilters(op)).expect("an honest step");
    let (from, to) = (height + 1, phone.chain.height());
    let op = phone.chain.filters(from, to, false);
    (channel, op)
}

/// All filters up to the tip were shown.
fn shown(phone: &mut Phone) -> Channel {
    let (channel, op) = next_filters(phone);
    phone.ask(Op::ShowFilters(op)).expect("an honest step");
    channel
}

/// What the operation with the block has, with another block.
fn with_block(op: ShowFilters, change: impl FnOnce(&mut Block)) -> Op {
    let mut block: Block = deserialize(&op.block).expect("a block");
    change(&mut block);
    Op::ShowFilters(ShowFilters {
        block: serialize(&block),
        ..op
    })
}

fn filters() -> Vec<Case> {
    let mut cases = Cases::of(Rule::Filters);
    cases.honest("the question which filters are wanted", |phone| {
        filtered(phone);
        Op::ShowFilters(ShowFilters::default())
    });
    cases.honest("the question of a phone without channels", |_| {
        Op::ShowFilters(ShowFilters::default())
    });
    cases.honest("the filter of the funding's block", |phone| {
        Op::ShowFilters(first_filter(phone).1)
    });
    cases.honest("that block", |phone| Op::ShowFilters(first_block(phone).1));
    cases.honest("the filters of the next blocks", |phone| {
        Op::ShowFilters(next_filters(phone).1)
    });
    cases.honest("filters that were shown before", |phone| {
        let (_, op) = next_filters(phone);
        let op = Op::ShowFilters(op);
        phone.ask(op.clone()).expect("an honest step");
        op
    });
    cases.honest("filters that the phone does not want yet", |phone| {
        let (_, height) = filtered(phone);
        let tip = phone.chain.height();
        Op::ShowFilters(phone.chain.filters(height + 2, tip, false))
    });
    cases.honest("the filters after a reorganisation", |phone| {
        shown(phone);
        let fork = phone.chain.height() - 2;
        reorganise(phone, fork, 4);
        Op::ShowFilters(phone.chain.filters(fork + 1, fork + 4, false))
    });
    cases.attack("a filter header of another length", |phone| {
        let (_, mut op) = first_filter(phone);
        op.previous_header.pop();
        Op::ShowFilters(op)
    });
    cases.attack("filters that do not follow from those before", |phone| {
        let (_, mut op) = next_filters(phone);
        op.previous_header = FilterHeader::all_zeros().to_byte_array().to_vec();
        Op::ShowFilters(op)
    });
    cases.attack("bytes that are no filter", |phone| {
        let (_, mut op) = first_filter(phone);
        op.filters[0] = vec![0xfe; 40];
        Op::ShowFilters(op)
    });
    cases.attack("a filter without its last byte", |phone| {
        let (_, mut op) = first_filter(phone);
        op.filters[0].pop();
        Op::ShowFilters(op)
    });
    cases.attack("a filter that is too long", |phone| {
        let (_, mut op) = first_filter(phone);
        op.filters[0] = vec![0; MAX_FILTER_BYTES + 1];
        Op::ShowFilters(op)
    });
    cases.attack("more filters than one operation has", |phone| {
        let (_, mut op) = next_filters(phone);
        op.filters.resize(1_001, vec![0]);
        Op::ShowFilters(op)
    });
    cases.attack("a filter without its block's hash", |phone| {
        let (_, mut op) = next_filters(phone);
        op.filters.push(vec![0]);
        Op::ShowFilters(op)
    });
    cases.honest("filters of blocks above the tip", |phone| {
        filtered(phone);
        let tip = phone.chain.height();
        phone.chain.mine_empty(2);
        Op::ShowFilters(phone.chain.filters(tip - 5, tip + 2, false))
    });
    cases.honest("filters of blocks that have left the chain", |phone| {
        shown(phone);
        let before = phone.chain.clone();
        let fork = before.height() - 2;
        reorganise(phone, fork, 4);
        Op::ShowFilters(before.filters(fork + 1, fork + 2, false))
    });
    cases.attack("bytes that are no block", |phone| {
        let (_, op) = first_block(phone);
        let block = op.block[..op.block.len() - 1].to_vec();
        Op::ShowFilters(ShowFilters { block, ..op })
    });
    cases.attack("another block", |phone| {
        let (_, op) = first_block(phone);
        let other = phone.chain.block(op.first_height + 1).clone();
        with_block(op, |block| *block = other)
    });
    cases.attack("the block without its last transaction", |phone| {
        let (_, op) = first_block(phone);
        with_block(op, |block| drop(block.txdata.pop()))
    });
    cases.attack("the block without any transaction", |phone| {
        let (_, op) = first_block(phone);
        with_block(op, |block| block.txdata.clear())
    });
    cases.attack("the block with another filter than before", |phone| {
        let (_, mut op) = first_block(phone);
        op.filters = phone
            .chain
            .filters(op.first_height + 1, op.first_height + 1, false)
            .filters;
        Op::ShowFilters(op)
    });
    cases.attack("a filter that leaves out what its block pays", |phone| {
        let (_, height) = filtered(phone);
        let lie = phone.chain.filters_without_coinbase(height);
        phone
            .ask(Op::ShowFilters(lie.clone()))
            .expect("nobody sees it yet");
        let block = phone.chain.filters(height, height, true).block;
        Op::ShowFilters(ShowFilters { block, ..lie })
    });
    cases.all
}

/// Without a second source, for a payment from `filters_from_sat` on.
fn unwatched() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PreimageUnwatched);
    cases.honest(
        "the filters of all blocks show that the channel is open",
        |phone| {
            let channel = shown(phone);
            paid(phone, &channel)
        },
    );
    cases.honest("a payment below the limit, without filters", |phone| {
        let (channel, _) = filtered(phone);
        phone.limit("filters_from_sat", &(AMOUNT_MSAT / 1_000 + 1).to_string());
        paid(phone, &channel)
    });
    cases.attack("a payment of the limit, without filters", |phone| {
        let (channel, _) = filtered(phone);
        phone.limit("filters_from_sat", &(AMOUNT_MSAT / 1_000).to_string());
        paid(phone, &channel)
    });
    cases.attack(
        "a filter that has the channel's script, and no block",
        |phone| {
            let (channel, op) = first_filter(phone);
            phone.ask(Op::ShowFilters(op)).expect("an honest step");
            paid(phone, &channel)
        },
    );
    for missing in 1..=5 {
        cases.attack(
            format!("the filters but for the last {missing}"),
            move |phone| {
                let (channel, mut op) = next_filters(phone);
                op.filters.truncate(5 - missing);
                op.block_hashes.truncate(5 - missing);
                phone.ask(Op::ShowFilters(op)).expect("an honest step");
                paid(phone, &channel)
            },
        );
    }
    cases.attack("a block has come since the filters", |phone| {
        let channel = shown(phone);
        let claim = paid(phone, &channel);
        phone.chain.mine_empty(1);
        phone.show_headers();
        claim
    });
    cases.attack("a reorganisation has come since the filters", |phone| {
        let channel = shown(phone);
        let claim = paid(phone, &channel);
        let fork = phone.chain.height() - 1;
        reorganise(phone, fork, 2);
        claim
    });
    cases.attack(
        "a funding that a reorganisation has moved together with its spend",
        |phone| {
            phone.limit("filters_from_sat", "0");
            phone.chain.mine_empty(4);
            phone.show_headers();
            let channel = deep(phone, 6);
            let funded_at = phone.chain.height() - 5;
            for with_block in [false, true] {
                let op = phone.chain.filters(funded_at, funded_at, with_block);
                phone.ask(Op::ShowFilters(op)).expect("an honest step");
            }
            let claim = paid(phone, &channel);
            // One block earlier, and spent there.
            let funding = funding_transaction(&channel.parameters);
            phone.chain = phone.chain.fork(funded_at - 2, b"fork");
            phone.chain.mine(&[funding.clone(), spend_of(&channel)]);
            phone.chain.mine_empty(8);
            let headers = phone.chain.headers_above(funded_at - 2);
            phone.ask(headers).expect("an honest step");
            let proof = prove(&phone.chain.proof(funding.compute_txid()));
            phone.ask(proof).expect("an honest step");
            let rest = phone.chain.filters(funded_at, phone.chain.height(), false);
            phone.ask(Op::ShowFilters(rest)).expect("not wanted yet");
            claim
        },
    );
    cases.attack("a close whose block the host keeps back", |phone| {
        let channel = shown(phone);
        let claim = paid(phone, &channel);
        phone.chain.mine(&[spend_of(&channel)]);
        phone.show_headers();
        let tip = phone.chain.height();
        let op = phone.chain.filters(tip, tip, false);
        phone.ask(Op::ShowFilters(op)).expect("an honest step");
        claim
    });
    cases.attack("filters that were found to leave something out", |phone| {
        let (channel, height) = filtered(phone);
        let claim = paid(phone, &channel);
        let lie = phone.chain.filters_without_coinbase(height);
        phone
            .ask(Op::ShowFilters(lie.clone()))
            .expect("nobody sees it yet");
        let block = phone.chain.filters(height, height, true).block;
        let op = Op::ShowFilters(ShowFilters { block, ..lie });
        phone.ask(op).expect_err("a lie");
        claim
    });
    cases.attack("a phone whose files of filters are lost", |phone| {
        let channel = shown(phone);
        let claim = paid(phone, &channel);
        phone
            .signer
            .set_filters(longhand_signer::Filters::default());
        claim
    });
    cases.honest("a phone that has started again with its files", |phone| {
        let channel = shown(phone);
        let claim = paid(phone, &channel);
        let stored = phone.signer.filters().encode();
        let restored = longhand_signer::Filters::decode(&stored).expect("its own bytes");
        phone.signer.set_filters(restored);
        claim
    });
    cases.honest(
        "a close by the commitment with the HTLC, by a proof",
        |phone| {
            let (channel, _) = filtered(phone);
            let claim = paid(phone, &channel);
            mine_and_prove(phone, &commitment_with(&channel, &claim));
            claim
        },
    );
    cases.all
}

/// A close that nobody proves, and that the phone finds itself in the block of a filter.
fn closed() -> Vec<Case> {
    let mut cases = Cases::of(Rule::PreimageUnproven);
    let look = |phone: &mut Phone, close: &Transaction| {
        phone.chain.mine(std::slice::from_ref(close));
        phone.show_headers();
        let tip = phone.chain.height();
        for with_block in [false, true] {
            let op = phone.chain.filters(tip, tip, with_block);
            phone.ask(Op::ShowFilters(op)).expect("an honest step");
        }
    };
    cases.attack(
        "a close that a filter has shown, and a lie after it",
        move |phone| {
            let channel = shown(phone);
            let claim = paid(phone, &channel);
            let tip = phone.chain.height() + 1;
            look(phone, &spend_of(&channel));
            let mut lie = phone.chain.filters(tip, tip, false);
            lie.previous_header.clear();
            let _ = phone.ask(Op::ShowFilters(lie));
            claim
        },
    );
    cases.attack("a close of both that a filter shows", move |phone| {
        let channel = shown(phone);
        let claim = paid(phone, &channel);
        look(phone, &spend_of(&channel));
        claim
    });
    cases.honest(
        "a close by the commitment with the HTLC that a filter shows",
        move |phone| {
            let channel = shown(phone);
            let claim = paid(phone, &channel);
            look(phone, &commitment_with(&channel, &claim));
            claim
        },
    );
    cases.all
}
