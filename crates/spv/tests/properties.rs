//! Whatever headers come in whatever order: the same as in a naive model that keeps all of them.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use bitcoin::{BlockHash, Network, block::Header};
use common::source::{Source, after_genesis, look};
use common::{NOW, apply, chain, genesis, hash, outpoint, p2wsh, regtest};
use longhand_spv::headers::MAX_BRANCHES;
use longhand_spv::{Checkpoint, Extended, FilterChain, Headers, Params, Proof, SpendWatch, Status};
use proptest::prelude::*;

/// All headers that were taken, with their heights; the best tip is the first one of the greatest height, since all have the same work.
struct Model {
    known: HashMap<BlockHash, (Header, u32)>,
    order: Vec<Header>,
    best: (BlockHash, u32),
}

impl Model {
    fn new() -> Model {
        let genesis = genesis();
        Model {
            known: HashMap::from([(hash(&genesis), (genesis, 0))]),
            order: vec![genesis],
            best: (hash(&genesis), 0),
        }
    }

    /// A whole batch is taken at once: its last header decides.
    fn take(&mut self, batch: &[Header]) {
        for header in batch {
            let (_, height) = self.known[&header.prev_blockhash];
            if self
                .known
                .insert(hash(header), (*header, height + 1))
                .is_none()
            {
                self.order.push(*header);
            }
        }
        if let Some(last) = batch.last() {
            let (_, height) = self.known[&hash(last)];
            if height > self.best.1 {
                self.best = (hash(last), height);
            }
        }
    }

    fn chain(&self) -> Vec<BlockHash> {
        let mut hashes = vec![self.best.0];
        let mut at = self.known[&self.best.0];
        while at.1 > 0 {
            hashes.push(at.0.prev_blockhash);
            at = self.known[&at.0.prev_blockhash];
        }
        hashes.reverse();
        hashes
    }
}

fn check(headers: &Headers, model: &Model) {
    assert_eq!((headers.tip_hash(), headers.height()), model.best);
    for (height, hash) in (0..).zip(model.chain()) {
        assert_eq!(headers.hash(height), Some(hash));
        assert_eq!(headers.height_of(hash), Some(height));
    }
}

/// How far the chain went back is what the event says.
fn check_event(before: &[BlockHash], after: &[BlockHash], extended: &Extended) {
    let shared = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (lost, won) = (before.len() - shared, after.len() - shared);
    match extended {
        Extended::Known | Extended::Side { .. } => assert_eq!((lost, won), (0, 0)),
        Extended::Appended { count, .. } => assert_eq!((0, *count as usize), (lost, won)),
        Extended::Reorganised {
            fork_height,
            disconnected,
            connected,
            ..
        } => {
            assert!(lost > 0);
            assert_eq!(*fork_height as usize, shared - 1);
            assert_eq!((*disconnected as usize, *connected as usize), (lost, won));
        }
    }
}

/// Where the blocks of the best chain spend an output, looked up one by one.
fn spent_height(source: &Source, byte: u8) -> Option<u32> {
    let spends = |block: &bitcoin::Block| {
        let mut inputs = block.txdata.iter().flat_map(|one| &one.input);
        inputs.any(|input| input.previous_output == outpoint(byte))
    };
    let at = source.blocks.iter().position(spends)?;
    Some(u32::try_from(at).unwrap() + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_chain_is_that_of_a_model_that_keeps_all(
        // So many batches make no more branches than are kept.
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..6usize, 0..3u32, 0..4usize), 1..=MAX_BRANCHES),
    ) {
        let (mut headers, mut model) = (regtest(), Model::new());
        let mut file = headers.stored();
        for (at, count, salt, overlap) in steps {
            // New headers on any block there is, and some of those before it once more.
            let fork = *at.get(&model.order);
            let mut batch = Vec::new();
            let mut before = fork;
            for _ in 0..overlap {
                let (header, height) = model.known[&hash(&before)];
                if height == 0 {
                    break;
                }
                batch.insert(0, header);
                before = model.known[&header.prev_blockhash].0;
            }
            batch.extend(chain(&fork, count, salt));
            let old = model.chain();
            model.take(&batch);
            let extended = headers.extend(&batch, NOW).unwrap();
            apply(&mut file, &extended);
            check_event(&old, &model.chain(), &extended);
            check(&headers, &model);
        }
        prop_assert_eq!(&file, &headers.stored());
        let restored = Headers::from_stored(
            Params::of(Network::Regtest),
            Checkpoint::genesis(Network::Regtest),
            &file,
        ).unwrap();
        prop_assert!(restored.repair.is_none());
        check(&restored.headers, &model);
        prop_assert_eq!(restored.headers.work(), headers.work());
        prop_assert_eq!(restored.headers.stored(), file);
    }

    #[test]
    fn damaged_files_are_refused_or_are_the_same_chain_cut(
        at in 0..44 * 21usize,
        bit in 0..8u8,
    ) {
        let mut headers = regtest();
        let _ = headers.extend(&chain(&genesis(), 20, 0), NOW).unwrap();
        let mut bytes = headers.stored();
        bytes[at] ^= 1 << bit;
        let restored = Headers::from_stored(
            Params::of(Network::Regtest),
            Checkpoint::genesis(Network::Regtest),
            &bytes,
        );
        // At this difficulty every second hash is good, so that a changed header may pass; never as the same one.
        if let Ok(restored) = restored {
            prop_assert_ne!(restored.headers.tip_hash(), headers.tip_hash());
        }
    }

    #[test]
    fn bytes_of_an_adversary_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = bytes;
        let all = |bytes: &[u8]| {
            let _ = Proof::decode(bytes);
            let _ = SpendWatch::decode(bytes);
            let _ = FilterChain::decode(bytes);
            let _ = longhand_spv::SignetProof::decode(bytes);
            let _ = longhand_spv::Filter::parse(hash(&genesis()), bytes);
            let params = Params::of(Network::Regtest);
            let _ = Headers::from_stored(params, Checkpoint::genesis(Network::Regtest), bytes);
        };
        all(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        all(&bytes);
    }

    /// How many blocks are lost, how many are mined beside that, which output is spent at each, whether the phone looks at the blocks,
    /// and whether it is started anew before that.
    #[test]
    fn what_is_spent_is_what_the_blocks_of_the_best_chain_spend(
        steps in prop::collection::vec(
            (0..4usize, prop::collection::vec(0..8u8, 1..4), any::<bool>(), any::<bool>()),
            1..12,
        ),
    ) {
        const FOLLOWED: u8 = 4;
        let (mut headers, mut chain, mut source) = (regtest(), after_genesis(), Source::default());
        let mut watch = SpendWatch::new();
        for byte in 0..FOLLOWED {
            watch.follow(outpoint(byte), p2wsh(byte), 1).unwrap();
        }
        for (salt, (lost, choices, looks, restarts)) in (0..).zip(steps) {
            let kept = source.blocks.len().saturating_sub(lost);
            let lost = source.blocks.len() - kept;
            source.blocks.truncate(kept);
            source.filters.truncate(kept);
            for choice in choices.iter().cycle().take(lost + choices.len()) {
                let spends = spent_height(&source, *choice).is_none().then_some(*choice);
                source.mine(salt, spends.as_slice());
            }
            if restarts {
                watch = SpendWatch::decode(&watch.encode()).unwrap();
                chain = FilterChain::decode(&chain.encode()).unwrap();
            }
            source.tell(&mut headers, &mut chain);
            prop_assert_eq!(headers.height() as usize, source.blocks.len());
            watch.sync(&headers);
            if looks {
                look(&mut watch, &headers, &chain, &source);
            }
            for byte in 0..FOLLOWED {
                let really = spent_height(&source, byte);
                match watch.status(&outpoint(byte)).unwrap() {
                    Status::Spent(spend) => prop_assert_eq!(Some(spend.height), really),
                    Status::Unspent { up_to } => {
                        prop_assert!(really.is_none_or(|height| height > up_to));
                        prop_assert!(!looks || up_to >= headers.height());
                    }
                }
            }
        }
    }

    /// Headers that nobody mined, with any times, difficulties and nonces.
    #[test]
    fn headers_of_an_adversary_change_nothing(
        fields in prop::collection::vec(
            (any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>()),
            1..8,
        ),
        now in any::<u64>(),
    ) {
        for network in [Network::Bitcoin, Network::Testnet, Network::Testnet4] {
            let params = Params::of(network);
            let mut headers = Headers::new(params.clone(), Checkpoint::latest(&params));
            let before = headers.stored();
            let mut previous = *headers.tip();
            let batch: Vec<Header> = fields.iter().map(|&(time, bits, nonce, soon, same)| {
                previous = Header {
                    prev_blockhash: hash(&previous),
                    time: if soon { previous.time.saturating_add(600) } else { time },
                    bits: if same { previous.bits } else { bitcoin::CompactTarget::from_consensus(bits) },
                    nonce,
                    ..previous
                };
                previous
            }).collect();
            prop_assert!(headers.extend(&batch, now).is_err());
            prop_assert_eq!(headers.stored(), before);
            // With the checkpoint they make no other one either.
            let height = headers.height();
            let made = Checkpoint::from_trusted_headers(&params, height + 1, &[*headers.tip(), batch[0]]);
            prop_assert!(made.is_err());
        }
    }
}
