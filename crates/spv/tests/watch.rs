//! An output that is followed is spent or not, whatever a source says.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::ScriptBuf;
use common::source::{Source, after_genesis, look, lying};
use common::{NOW, outpoint, p2wsh, regtest};
use longhand_spv::filter::{Compared, filter_hash};
use longhand_spv::{FilterAnswer, FilterChain, FilterError, Proof, SpendWatch, Status, WatchError};

fn unspent(watch: &SpendWatch, byte: u8) -> Option<u32> {
    match watch.status(&outpoint(byte)) {
        Some(Status::Unspent { up_to }) => Some(up_to),
        _ => None,
    }
}

fn spent_at(watch: &SpendWatch, byte: u8) -> Option<u32> {
    match watch.status(&outpoint(byte)) {
        Some(Status::Spent(spend)) => Some(spend.height),
        _ => None,
    }
}

#[test]
fn outputs_are_unspent_up_to_the_tip_until_a_block_spends_them() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    for spends in [&[][..], &[], &[3], &[], &[1, 9], &[]] {
        source.mine(0, spends);
    }
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    watch.follow(outpoint(1), p2wsh(1), 2).unwrap();
    watch.follow(outpoint(2), p2wsh(2), 4).unwrap();
    assert_eq!(unspent(&watch, 1), Some(1));
    look(&mut watch, &headers, &chain, &source);
    assert_eq!(spent_at(&watch, 1), Some(5));
    assert_eq!(unspent(&watch, 2), Some(6));
    assert_eq!(watch.status(&outpoint(3)), None);
    assert_eq!(watch.next_height(), Some(7));
    let Some(Status::Spent(spend)) = watch.status(&outpoint(1)) else {
        panic!();
    };
    assert_eq!(spend.by, source.blocks[4].txdata[1].compute_txid());
    assert_eq!(spend.position, 1);

    // One that is followed later is looked for from its own block on.
    watch.follow(outpoint(3), p2wsh(3), 1).unwrap();
    assert_eq!(watch.next_height(), Some(1));
    look(&mut watch, &headers, &chain, &source);
    assert_eq!(spent_at(&watch, 3), Some(3));
    assert_eq!(unspent(&watch, 2), Some(6));

    // All of it is there after a restart.
    let bytes = watch.encode();
    let mut restored = SpendWatch::decode(&bytes).unwrap();
    assert_eq!(restored, watch);
    let chain = FilterChain::decode(&chain.encode()).unwrap();
    source.mine(0, &[2]);
    let _ = headers.extend(&[source.blocks[6].header], NOW).unwrap();
    let mut chain = chain;
    chain
        .extend(&headers, &[filter_hash(&source.filters[6])])
        .unwrap();
    look(&mut restored, &headers, &chain, &source);
    assert_eq!(spent_at(&restored, 2), Some(7));
    assert_eq!(restored.next_height(), None);
    restored.forget(&outpoint(2));
    assert_eq!(restored.status(&outpoint(2)), None);
    assert_eq!(restored.outpoints().count(), 2);
}

#[test]
fn a_reorganisation_is_taken_back_also_when_it_was_missed() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    for spends in [&[][..], &[], &[1], &[]] {
        source.mine(0, spends);
    }
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    watch.follow(outpoint(1), p2wsh(1), 1).unwrap();
    watch.follow(outpoint(2), p2wsh(2), 1).unwrap();
    look(&mut watch, &headers, &chain, &source);
    assert_eq!(
        (spent_at(&watch, 1), unspent(&watch, 2)),
        (Some(3), Some(4))
    );

    let mut other = Source {
        blocks: source.blocks[..2].to_vec(),
        filters: source.filters[..2].to_vec(),
    };
    for spends in [&[][..], &[2], &[], &[1], &[]] {
        other.mine(5, spends);
    }
    // The program ran on with stored headers, and with what was known before.
    let mut late = SpendWatch::decode(&watch.encode()).unwrap();
    let mut late_chain = FilterChain::decode(&chain.encode()).unwrap();
    other.tell(&mut headers, &mut chain);
    assert!(watch.sync(&headers));
    assert!(!watch.sync(&headers));
    assert_eq!((unspent(&watch, 1), unspent(&watch, 2)), (Some(2), Some(2)));
    look(&mut watch, &headers, &chain, &other);
    assert_eq!(
        (spent_at(&watch, 1), spent_at(&watch, 2)),
        (Some(6), Some(4))
    );

    assert_eq!(late_chain.sync(&headers), Some(3));
    other.tell(&mut headers, &mut late_chain);
    assert_eq!(late_chain, chain);
    assert!(late.sync(&headers));
    look(&mut late, &headers, &late_chain, &other);
    assert_eq!((spent_at(&late, 1), spent_at(&late, 2)), (Some(6), Some(4)));
}

#[test]
fn one_deeper_than_what_is_remembered_begins_anew() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    (0..150).for_each(|_| source.mine(0, &[]));
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    watch.follow(outpoint(1), p2wsh(1), 2).unwrap();
    look(&mut watch, &headers, &chain, &source);
    assert_eq!(unspent(&watch, 1), Some(150));
    let mut other = Source::default();
    (0..151).for_each(|_| other.mine(1, &[]));
    other.tell(&mut headers, &mut chain);
    assert_eq!(chain.next_height(), 152);
    assert!(watch.sync(&headers));
    assert_eq!(unspent(&watch, 1), Some(1));
    look(&mut watch, &headers, &chain, &other);
    assert_eq!(unspent(&watch, 1), Some(151));
}

#[test]
fn a_filter_that_leaves_something_out_is_found_with_its_block() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    source.mine(0, &[]);
    source.mine(0, &[1]);
    let lie = lying(&source.blocks[1]);
    let truth = std::mem::replace(&mut source.filters[1], lie.clone());
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    watch.follow(outpoint(1), p2wsh(1), 1).unwrap();
    assert_eq!(
        watch.filter(&headers, &chain, 1, &source.filters[0]),
        Ok(FilterAnswer::Clear)
    );
    // The block shows the lie, and nothing is passed over.
    assert_eq!(
        watch.block(&headers, 2, &source.blocks[1], Some(&lie)),
        Err(WatchError::LyingFilter(2))
    );
    assert_eq!(unspent(&watch, 1), Some(1));
    // A second source shows it without the block.
    let mut second = after_genesis();
    let hashes = [&source.filters[0], &truth].map(|bytes| filter_hash(bytes));
    second.extend(&headers, &hashes).unwrap();
    assert_eq!(chain.first_difference(&second), Some(2));
    let of_second = second.header(2).unwrap();
    assert_eq!(chain.compare(2, of_second), Compared::Differs);
    assert_eq!(chain.compare(1, second.header(1).unwrap()), Compared::Same);
    assert_eq!(chain.compare(3, of_second), Compared::Unknown);
    // The honest filter is not the one that the first source's headers name.
    assert_eq!(
        watch.filter(&headers, &chain, 2, &truth),
        Err(WatchError::Filter(FilterError::Hash(2)))
    );
    assert_eq!(
        watch.filter(&headers, &second, 2, &truth),
        Ok(FilterAnswer::BlockNeeded)
    );
    let spends = watch
        .block(&headers, 2, &source.blocks[1], Some(&truth))
        .unwrap();
    assert_eq!((spends.len(), spends[0].height), (1, 2));
}

#[test]
fn a_filter_that_has_the_outputs_and_not_what_is_spent_is_found_too() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    source.mine(0, &[1]);
    let block = source.blocks[0].clone();
    let mut lie = Vec::new();
    let mut writer = bitcoin::bip158::BlockFilterWriter::new(&mut lie, &block);
    writer.add_output_scripts();
    writer.finish().unwrap();
    source.filters[0] = lie.clone();
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    watch.follow(outpoint(1), p2wsh(1), 1).unwrap();
    assert_eq!(
        watch.block(&headers, 1, &block, Some(&lie)),
        Err(WatchError::LyingFilter(1))
    );
    assert_eq!(watch.block(&headers, 1, &block, None).unwrap().len(), 1);
}

#[test]
fn blocks_are_those_of_the_headers_and_come_in_order() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    (0..3).for_each(|_| source.mine(0, &[5]));
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    let not_next = |height, next| WatchError::NotNext { height, next };
    assert_eq!(
        watch.block(&headers, 1, &source.blocks[0], None),
        Err(not_next(1, None))
    );
    watch.follow(outpoint(1), p2wsh(1), 1).unwrap();
    assert_eq!(
        watch.filter(&headers, &chain, 2, &source.filters[1]),
        Err(not_next(2, Some(1)))
    );
    let hash = source.blocks[0].block_hash();
    assert_eq!(
        watch.block(&headers, 1, &source.blocks[1], None),
        Err(WatchError::OtherBlock(hash))
    );
    let mut short = source.blocks[0].clone();
    short.txdata.pop();
    assert_eq!(
        watch.block(&headers, 1, &short, None),
        Err(WatchError::Transactions(hash))
    );
    short.txdata.clear();
    assert_eq!(
        watch.block(&headers, 1, &short, None),
        Err(WatchError::Transactions(hash))
    );
    assert_eq!(
        watch.block(&headers, 4, &source.blocks[0], None),
        Err(WatchError::Header(4))
    );
    assert_eq!(
        watch.block(&headers, 1, &source.blocks[0], None),
        Ok(vec![])
    );
    assert_eq!(unspent(&watch, 1), Some(1));
}

#[test]
fn an_output_that_was_made_at_another_height_is_looked_for_anew_and_a_spend_stays_when_all_others_are()
 {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    for spends in [&[][..], &[2], &[], &[]] {
        source.mine(0, spends);
    }
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    watch.follow(outpoint(1), p2wsh(1), 2).unwrap();
    watch.follow(outpoint(2), p2wsh(2), 1).unwrap();
    look(&mut watch, &headers, &chain, &source);
    assert_eq!(
        (unspent(&watch, 1), spent_at(&watch, 2)),
        (Some(4), Some(2))
    );

    watch.look_again();
    assert_eq!(
        (unspent(&watch, 1), spent_at(&watch, 2)),
        (Some(1), Some(2))
    );
    look(&mut watch, &headers, &chain, &source);
    assert_eq!(watch.followed_from(&outpoint(1)), Some(2));
    watch.follow(outpoint(1), p2wsh(1), 1).unwrap();
    assert_eq!(watch.followed_from(&outpoint(1)), Some(1));
    assert_eq!(watch.next_height(), Some(1));
}

#[test]
fn what_no_filter_has_is_not_followed() {
    let mut watch = SpendWatch::new();
    for script in [vec![], vec![0x6a, 1, 1], vec![0x51; 129]] {
        let script = ScriptBuf::from_bytes(script);
        assert_eq!(
            watch.follow(outpoint(1), script, 1),
            Err(WatchError::Script)
        );
    }
    watch.follow(outpoint(1), p2wsh(1), 0).unwrap();
    watch.follow(outpoint(1), p2wsh(1), 1).unwrap();
    assert_eq!(unspent(&watch, 1), Some(0));
    assert_eq!(
        watch.follow(outpoint(1), p2wsh(2), 1),
        Err(WatchError::OtherScript)
    );
    for at in 0..longhand_spv::watch::MAX_FOLLOWED - 1 {
        let mut other = outpoint(2);
        other.vout = u32::try_from(at).unwrap();
        watch.follow(other, p2wsh(1), 1).unwrap();
    }
    assert_eq!(
        watch.follow(outpoint(3), p2wsh(1), 1),
        Err(WatchError::TooMany)
    );
    let bytes = watch.encode();
    assert_eq!(SpendWatch::decode(&bytes), Ok(watch));
    for length in (0..bytes.len()).step_by(997) {
        assert!(SpendWatch::decode(&bytes[..length]).is_err());
    }
}

#[test]
fn filter_headers_do_not_go_beyond_the_tip_and_are_bounded() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    source.mine(0, &[]);
    source.tell(&mut headers, &mut chain);
    let hash = filter_hash(&[0]);
    assert_eq!(
        chain.extend(&headers, &[hash]),
        Err(FilterError::BeyondTip(1))
    );
    assert_eq!(
        chain.extend(&headers, &vec![hash; 2_017]),
        Err(FilterError::TooMany(2_017))
    );
    assert_eq!(chain.check(2, &[0]), Err(FilterError::Unknown(2)));
    assert_eq!(chain.check(0, &[0]), Err(FilterError::Unknown(0)));
    assert_eq!(chain.check(1, &source.filters[0]), Ok(()));
    let bytes = chain.encode();
    for length in 0..bytes.len() {
        assert_eq!(
            FilterChain::decode(&bytes[..length]),
            Err(FilterError::Stored)
        );
    }
    assert_eq!(FilterChain::decode(&bytes), Ok(chain));
}

/// A close is shown by its proof alone, at any time; a reorganisation takes it back.
#[test]
fn a_proven_transaction_spends_too() {
    let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
    for spends in [&[][..], &[], &[], &[1], &[]] {
        source.mine(0, spends);
    }
    source.tell(&mut headers, &mut chain);
    let mut watch = SpendWatch::new();
    watch.follow(outpoint(1), p2wsh(1), 1).unwrap();
    watch.follow(outpoint(2), p2wsh(2), 1).unwrap();
    let proof = Proof::prove(&source.blocks[3], 1).unwrap();
    let proven = proof.verify(&headers).unwrap();
    let spends = watch.proven(&headers, &proven).unwrap();
    assert_eq!((spends.len(), spends[0].height), (1, 4));
    assert_eq!(watch.proven(&headers, &proven), Ok(vec![]));
    assert_eq!(
        (spent_at(&watch, 1), unspent(&watch, 2)),
        (Some(4), Some(0))
    );
    look(&mut watch, &headers, &chain, &source);
    assert_eq!(
        (spent_at(&watch, 1), unspent(&watch, 2)),
        (Some(4), Some(5))
    );

    let mut other = Source {
        blocks: source.blocks[..2].to_vec(),
        filters: source.filters[..2].to_vec(),
    };
    (0..4).for_each(|_| other.mine(8, &[]));
    other.tell(&mut headers, &mut chain);
    assert!(watch.sync(&headers));
    assert_eq!((unspent(&watch, 1), unspent(&watch, 2)), (Some(2), Some(2)));
    let gone = source.blocks[3].block_hash();
    assert_eq!(watch.proven(&headers, &proven), Err(WatchError::Gone(gone)));
    look(&mut watch, &headers, &chain, &other);
    assert_eq!((unspent(&watch, 1), unspent(&watch, 2)), (Some(6), Some(6)));
}
