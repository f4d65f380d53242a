//! A phone follows the chain, whatever it is told.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::{CompactTarget, Network, ScriptBuf, block::Header};
use common::{NOW, apply, at, chain, genesis, hash, mine, next, regtest};
use longhand_spv::headers::{MAX_BATCH, MAX_SIDE_HEADERS, STORED_HEADER_BYTES};
use longhand_spv::{
    Checkpoint, CheckpointError, Extended, HeaderError, Headers, Params, StoredError,
};

fn appended(extended: &Extended) -> u32 {
    match extended {
        Extended::Appended { count, .. } => *count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn headers_are_appended_and_found_by_height_and_hash() {
    let mut headers = regtest();
    let blocks = chain(&genesis(), 30, 0);
    assert_eq!(appended(&headers.extend(&blocks[..20], NOW).unwrap()), 20);
    // What overlaps is passed over.
    assert_eq!(appended(&headers.extend(&blocks[10..], NOW).unwrap()), 10);
    assert_eq!(headers.extend(&blocks, NOW), Ok(Extended::Known));
    assert_eq!(headers.extend(&[], NOW), Ok(Extended::Known));
    assert_eq!(headers.height(), 30);
    assert_eq!(headers.tip(), &blocks[29]);
    assert_eq!(headers.tip_hash(), hash(&blocks[29]));
    for (height, block) in (1..).zip(&blocks) {
        assert_eq!(headers.header(height), Some(block));
        assert_eq!(headers.hash(height), Some(hash(block)));
        assert_eq!(headers.height_of(hash(block)), Some(height));
        assert_eq!(headers.confirmations(height), 31 - height);
    }
    assert_eq!(headers.hash(0), Some(hash(&genesis())));
    assert_eq!(headers.header(31), None);
    assert_eq!(headers.hash(31), None);
    assert_eq!(headers.hash(u32::MAX), None);
    assert_eq!(headers.confirmations(31), 0);
    assert_eq!(headers.height_of(hash(&next(&blocks[29], 9))), None);
    assert_eq!(headers.median_time(), blocks[24].time);
}

#[test]
fn a_locator_gets_sparser_towards_the_checkpoint() {
    let mut headers = regtest();
    let blocks = chain(&genesis(), 1_000, 0);
    let _ = headers.extend(&blocks, NOW).unwrap();
    let locator = headers.locator();
    let heights: Vec<u32> = locator.iter().map(|(height, _)| *height).collect();
    assert_eq!(
        heights[..10],
        [1000, 999, 998, 997, 996, 995, 994, 993, 992, 991]
    );
    assert_eq!(heights[10..14], [989, 985, 977, 961]);
    assert_eq!(heights.last(), Some(&0));
    assert!(locator.len() < 20);
    for (height, hash) in locator {
        assert_eq!(headers.hash(height), Some(hash));
    }
}

#[test]
fn the_chain_with_most_work_wins_and_the_other_is_kept() {
    let mut headers = regtest();
    let mut file = headers.stored();
    let shared = chain(&genesis(), 10, 0);
    let ours = chain(&shared[9], 5, 1);
    let theirs = chain(&shared[9], 7, 2);
    for batch in [&shared, &ours] {
        apply(&mut file, &headers.extend(batch, NOW).unwrap());
    }
    // As much work is not more.
    let side = Extended::Side {
        fork_height: 10,
        height: 15,
    };
    assert_eq!(headers.extend(&theirs[..5], NOW), Ok(side));
    assert_eq!((headers.height(), headers.side_headers()), (15, 5));
    assert_eq!(headers.extend(&theirs[2..5], NOW), Ok(Extended::Known));
    // More is: what was kept is used.
    let extended = headers.extend(&theirs[5..], NOW).unwrap();
    apply(&mut file, &extended);
    let Extended::Reorganised {
        fork_height,
        disconnected,
        connected,
        change,
    } = extended
    else {
        panic!("{extended:?}");
    };
    assert_eq!((fork_height, disconnected, connected), (10, 5, 7));
    assert_eq!(change.append.len(), 7 * STORED_HEADER_BYTES);
    assert_eq!((headers.height(), headers.side_headers()), (17, 5));
    assert_eq!(headers.height_of(hash(&ours[0])), None);
    assert_eq!(headers.height_of(hash(&theirs[0])), Some(11));
    // And back.
    let more = chain(&ours[4], 3, 1);
    let extended = headers.extend(&more, NOW).unwrap();
    apply(&mut file, &extended);
    assert!(matches!(
        extended,
        Extended::Reorganised {
            fork_height: 10,
            disconnected: 7,
            connected: 8,
            ..
        }
    ));
    assert_eq!((headers.height(), headers.side_headers()), (18, 7));
    assert_eq!(file, headers.stored());
}

#[test]
fn a_branch_of_a_branch_survives_a_reorganisation() {
    let mut headers = regtest();
    let first = chain(&genesis(), 6, 0);
    let from_first = chain(&first[3], 2, 1);
    let second = chain(&first[0], 7, 2);
    let _ = headers.extend(&first, NOW).unwrap();
    // It forks at height 4 of the chain that is best now.
    assert!(matches!(
        headers.extend(&from_first, NOW).unwrap(),
        Extended::Side {
            fork_height: 4,
            height: 6
        }
    ));
    assert!(matches!(
        headers.extend(&second, NOW).unwrap(),
        Extended::Reorganised {
            fork_height: 1,
            disconnected: 5,
            connected: 7,
            ..
        }
    ));
    // It forks at height 1 now, with the blocks that it shares with the old chain.
    let more = chain(&from_first[1], 3, 1);
    assert!(matches!(
        headers.extend(&more, NOW).unwrap(),
        Extended::Reorganised {
            fork_height: 1,
            disconnected: 7,
            connected: 8,
            ..
        }
    ));
    assert_eq!(headers.height(), 9);
    assert_eq!(headers.height_of(hash(&first[3])), Some(4));
}

/// Tries a batch that is to be refused, and looks whether anything changed.
fn refused(headers: &mut Headers, batch: &[Header]) -> HeaderError {
    let before = (headers.stored(), headers.side_headers(), headers.work());
    let error = headers.extend(batch, NOW).unwrap_err();
    assert_eq!(
        before,
        (headers.stored(), headers.side_headers(), headers.work())
    );
    assert!(!error.to_string().contains('\n'));
    error
}

#[test]
fn a_batch_with_one_bad_header_changes_nothing() {
    let mut headers = regtest();
    let blocks = chain(&genesis(), 20, 0);
    let _ = headers.extend(&blocks[..5], NOW).unwrap();
    let batch = |at: usize, change: &dyn Fn(&mut Header)| {
        let mut batch = blocks[..10].to_vec();
        change(&mut batch[at]);
        batch
    };
    let stranger = chain(&blocks[19], 1, 0);
    assert_eq!(
        refused(&mut headers, &stranger),
        HeaderError::Unconnected(hash(&blocks[19]))
    );
    let gap = [&blocks[..7], &blocks[8..]].concat();
    assert_eq!(refused(&mut headers, &gap), HeaderError::Broken(7));
    let swapped = batch(8, &|header| header.time += 1);
    assert_eq!(refused(&mut headers, &swapped), HeaderError::Broken(9));
    let bits = CompactTarget::from_consensus(0x207f_fffe);
    let easy = batch(9, &|header| header.bits = bits);
    assert_eq!(
        refused(&mut headers, &easy),
        HeaderError::Bits {
            height: 10,
            expected: CompactTarget::from_consensus(0x207f_ffff),
            found: bits
        }
    );
    let unmined = batch(9, &|header| {
        while header.target().is_met_by(header.block_hash()) {
            header.nonce += 1;
        }
    });
    assert_eq!(refused(&mut headers, &unmined), HeaderError::Work(10));
    let long = chain(&blocks[4], MAX_BATCH + 1, 0);
    assert_eq!(refused(&mut headers, &long), HeaderError::TooMany(2017));
    assert_eq!(headers.height(), 5);
}

#[test]
fn times_are_after_the_median_and_not_far_in_the_future() {
    let params = Params::of(Network::Regtest).with_time_rules(true);
    let mut headers = Headers::new(params, Checkpoint::genesis(Network::Regtest));
    let blocks = chain(&genesis(), 20, 0);
    let _ = headers.extend(&blocks, NOW).unwrap();
    let median = headers.median_time();
    assert_eq!(median, blocks[14].time);
    let old = at(&blocks[19], 0, median);
    assert_eq!(
        refused(&mut headers, &[old]),
        HeaderError::TooOld {
            height: 21,
            time: median,
            median
        }
    );
    let now = u64::from(blocks[19].time);
    let limit = blocks[19].time + 7_200;
    let early = at(&blocks[19], 0, limit + 1);
    assert_eq!(
        headers.extend(&[early], now),
        Err(HeaderError::TooNew {
            height: 21,
            time: limit + 1,
            now
        })
    );
    assert!(
        headers
            .clone()
            .extend(&[at(&blocks[19], 0, limit)], now)
            .is_ok()
    );
    let _ = headers
        .extend(&[at(&blocks[19], 0, median + 1)], now)
        .unwrap();
    // Without the rules, as on regtest, both pass.
    let mut lenient = regtest();
    let _ = lenient.extend(&blocks, 0).unwrap();
    assert!(lenient.extend(&[old], 0).is_ok());
}

#[test]
fn a_tip_of_two_hours_is_stale_but_on_regtest() {
    let mut headers = regtest();
    let blocks = chain(&genesis(), 1, 0);
    let _ = headers.extend(&blocks, NOW).unwrap();
    assert!(!headers.is_stale(u64::MAX));
    let params = Params::of(Network::Regtest).with_stale_after(Some(7_200));
    let mut headers = Headers::new(params, Checkpoint::genesis(Network::Regtest));
    let _ = headers.extend(&blocks, NOW).unwrap();
    let tip = u64::from(blocks[0].time);
    assert!(!headers.is_stale(0));
    assert!(!headers.is_stale(tip + 7_200));
    assert!(headers.is_stale(tip + 7_201));
}

#[test]
fn branches_take_a_bounded_memory() {
    let mut headers = regtest();
    let best = chain(&genesis(), 2_000, 0);
    let _ = headers.extend(&best, NOW).unwrap();
    // Branches that leave later have more work, and push the others out.
    for salt in 1..40 {
        let fork = &best[salt as usize * 10];
        let branch = chain(fork, 1_500, salt);
        let extended = headers.extend(&branch, NOW).unwrap();
        assert!(matches!(extended, Extended::Side { .. }));
        assert!(headers.side_headers() <= MAX_SIDE_HEADERS);
    }
    assert_eq!(headers.side_headers(), MAX_SIDE_HEADERS / 1_500 * 1_500);
    // One with less work than all of them finds no room.
    let poor = chain(&genesis(), 1_200, 99);
    assert_eq!(refused(&mut headers, &poor), HeaderError::SideFull);
}

#[test]
fn a_chain_that_grows_in_pieces_beside_the_best_one_wins_in_the_end() {
    let mut headers = regtest();
    let lie = chain(&genesis(), 5_000, 1);
    for batch in lie.chunks(MAX_BATCH) {
        let _ = headers.extend(batch, NOW).unwrap();
    }
    let truth = chain(&genesis(), 5_001, 2);
    let mut last = Extended::Known;
    for batch in truth.chunks(MAX_BATCH) {
        last = headers.extend(batch, NOW).unwrap();
    }
    assert!(matches!(
        last,
        Extended::Reorganised {
            fork_height: 0,
            disconnected: 5_000,
            connected: 5_001,
            ..
        }
    ));
    assert_eq!(headers.tip_hash(), hash(&truth[5_000]));
    assert_eq!(headers.side_headers(), 5_000);
}

#[test]
fn a_checkpoint_of_a_trusted_node_is_gone_on_from() {
    let params = Params::of(Network::Regtest).with_time_rules(true);
    let blocks = chain(&genesis(), 2_040, 0);
    let all = [&[genesis()], &blocks[..]].concat();
    let make = |height: u32, from: usize| {
        Checkpoint::from_trusted_headers(&params, height, &all[from..=height as usize])
    };
    let checkpoint = make(2_030, 2_010).unwrap();
    assert_eq!(checkpoint.hash(), hash(&all[2_030]));
    let mut headers = Headers::new(params.clone(), checkpoint);
    assert_eq!(headers.median_time(), all[2_025].time);
    let _ = headers.extend(&blocks[2_030..], NOW).unwrap();
    assert_eq!(headers.height(), 2_040);
    // Of one whose earlier times are not known the median is a lower bound.
    let mut bare = Headers::new(params.clone(), make(2_016, 2_016).unwrap());
    assert_eq!(bare.median_time(), 0);
    let _ = bare.extend(&blocks[2_016..], NOW).unwrap();
    assert_eq!(bare.median_time(), headers.median_time());
    assert_eq!(bare.header(2_015), None);
    assert_eq!(bare.hash(2_015), None);

    assert_eq!(make(2_030, 2_017), Err(CheckpointError::Period(2_016)));
    assert_eq!(make(2_030, 0), Err(CheckpointError::Count(2_031)));
    let of = |height, headers: &[Header]| {
        Checkpoint::from_trusted_headers(&params, height, headers).unwrap_err()
    };
    assert_eq!(of(3, &[]), CheckpointError::Count(0));
    assert_eq!(of(3, &all[..9]), CheckpointError::Height(3));
    assert_eq!(of(2, &[all[0], all[2], all[3]]), CheckpointError::Broken(1));
    let mut weak = all[1];
    weak.bits = CompactTarget::from_consensus(0x2100_ffff);
    assert_eq!(of(1, &[all[0], weak]), CheckpointError::Work(1));
}

#[test]
fn stored_headers_are_read_back_and_a_torn_record_is_cut() {
    let mut headers = regtest();
    let _ = headers.extend(&chain(&genesis(), 50, 0), NOW).unwrap();
    let bytes = headers.stored();
    let read = |bytes: &[u8]| {
        let params = Params::of(Network::Regtest);
        Headers::from_stored(params, Checkpoint::genesis(Network::Regtest), bytes)
    };
    for cut in 0..=bytes.len() {
        let restored = read(&bytes[..cut]).unwrap();
        let whole = cut.saturating_sub(44) / STORED_HEADER_BYTES;
        assert_eq!(restored.headers.height() as usize, whole);
        let mut file = bytes[..cut].to_vec();
        if let Some(repair) = restored.repair {
            file.truncate(usize::try_from(repair.keep_bytes).unwrap());
            file.extend(repair.append);
        }
        assert_eq!(file, restored.headers.stored());
    }
    let restored = read(&bytes).unwrap();
    assert_eq!(restored.headers.work(), headers.work());
    assert_eq!(restored.headers.tip_hash(), headers.tip_hash());
    assert!(restored.repair.is_none());

    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        read(&bytes).unwrap_err()
    };
    assert_eq!(with(0, b'?'), StoredError::Unknown);
    assert_eq!(with(7, 9), StoredError::Version(9));
    assert_eq!(with(8, 1), StoredError::Checkpoint);
    // One flipped bit is seen in one of two cases at that header, and else at one of those after it.
    assert!(matches!(with(44 + 20, 1), StoredError::Damaged(_)));
    let of_mainnet = Headers::from_stored(
        Params::of(Network::Bitcoin),
        Checkpoint::genesis(Network::Bitcoin),
        &bytes,
    );
    assert_eq!(of_mainnet.unwrap_err(), StoredError::Checkpoint);
}

/// Blocks 1 to 3 of testnet3.
#[test]
fn real_headers_of_testnet3() {
    let hex = |hex: &str| bitcoin::consensus::encode::deserialize_hex::<Header>(hex).unwrap();
    let headers_1_to_3 = [
        "0100000043497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000bac8b0fa927c0ac8234287e33c5f74d38d354820e24756ad709d7038fc5f31f020e7494dffff001d03e4b672",
        "0100000006128e87be8b1b4dea47a7247d5528d2702c96826c7a648497e773b800000000e241352e3bec0a95a6217e10c3abb54adfa05abb12c126695595580fb92e222032e7494dffff001d00d23534",
        "0100000020782a005255b657696ea057d5b98f34defcf75196f64f6eeac8026c0000000041ba5afc532aae03151b8aa87b65e1594f97504a768e010c98c0add79216247186e7494dffff001d058dc2b6",
    ]
    .map(hex);
    let genesis = Checkpoint::genesis(Network::Testnet);
    let mut headers = Headers::new(Params::of(Network::Testnet), genesis);
    assert_eq!(appended(&headers.extend(&headers_1_to_3, NOW).unwrap()), 3);
    assert_eq!(
        headers.tip_hash().to_string(),
        "000000008b896e272758da5297bcd98fdc6d97c9b765ecec401e286dc1fdbe10"
    );
    // Testnet4 begins elsewhere, and this is its block 1.
    let genesis = Checkpoint::genesis(Network::Testnet4);
    let mut testnet4 = Headers::new(Params::of(Network::Testnet4), genesis);
    assert!(matches!(
        testnet4.extend(&headers_1_to_3, NOW),
        Err(HeaderError::Unconnected(_))
    ));
    let block_1 = hex(
        "0000002043f08bdab050e35b567c864b91f47f50ae725ae2de53bcfbbaf284da000000005c78b286f0d46ba2b8b104b6f7aec904fa0e93259e5637aaaac87d59b89d9c6160d63866ffff001da680f8ad",
    );
    assert_eq!(appended(&testnet4.extend(&[block_1], NOW).unwrap()), 1);
    assert_eq!(
        testnet4.tip_hash().to_string(),
        "0000000012982b6d5f621229286b880e909984df669c2afabb102ce311b13f28"
    );
}

#[test]
fn a_signet_with_signers_takes_no_headers_alone() {
    let genesis = Checkpoint::genesis(Network::Signet);
    let mut headers = Headers::new(Params::of(Network::Signet), genesis.clone());
    let header = mine(Header {
        bits: CompactTarget::from_consensus(0x207f_ffff),
        prev_blockhash: genesis.hash(),
        ..*genesis.header()
    });
    assert_eq!(
        headers.extend(&[header], NOW),
        Err(HeaderError::Solutions {
            headers: 1,
            solutions: 0
        })
    );
    let open = Params::custom_signet(ScriptBuf::from_bytes(vec![0x51]));
    let mut headers = Headers::new(open, genesis);
    assert!(matches!(
        headers.extend(&[header], NOW),
        Err(HeaderError::Bits { .. })
    ));
}
