//! What a phone reads of the chain: a host's proofs, solutions and filters, and its own files about them.
//!
//! The first byte selects what is read. With an even second byte the rest is that; with an odd one it is a good one, changed: three bytes
//! each time, where (two bytes) and how.

use crate::scratch::changed;
use bitcoin::Network;
use bitcoin::bip158::FilterHeader;
use bitcoin::hashes::Hash as _;
use longhand_lying_host::chain::{Chain, transaction};
use longhand_proto::signer::ShowFilters;
use longhand_signer::Filters;
use longhand_spv::filter::filter_hash;
use longhand_spv::{
    Checkpoint, Filter, FilterChain, Headers, Params, Proof, SignetProof, SpendWatch,
};

const KINDS: u8 = 8;
/// A time after all blocks.
const NOW_UNIX_S: u64 = 1_700_000_000;

/// Tries one input.
pub fn run(data: &[u8]) {
    let [kind, mode, rest @ ..] = data else {
        return;
    };
    let seen = Seen::new();
    let bytes = match mode % 2 {
        0 => rest.to_vec(),
        _ => changed(seen.good(*kind), rest),
    };
    seen.read(*kind, &bytes);
}

/// A short chain, and what a phone knows of it.
struct Seen {
    chain: Chain,
    headers: Headers,
}

impl Seen {
    fn new() -> Seen {
        let mut chain = Chain::new(b"seen");
        chain.mine_empty(2);
        let coinbase = &chain.block(1).txdata[0];
        let outpoint = bitcoin::OutPoint::new(coinbase.compute_txid(), 0);
        chain.mine(&[transaction(outpoint, coinbase.output[0].clone())]);
        let params = Params::of(Network::Regtest);
        let mut headers = Headers::new(params, Checkpoint::genesis(Network::Regtest));
        let blocks = (1..=chain.height()).map(|height| chain.block(height).header);
        let blocks: Vec<_> = blocks.collect();
        let extended = headers.extend(&blocks, NOW_UNIX_S);
        let _ = extended.expect("an honest chain");
        Seen { chain, headers }
    }

    /// What an honest host or the phone itself has written.
    fn good(&self, kind: u8) -> Vec<u8> {
        let tip = self.chain.height();
        let block = self.chain.block(tip);
        match kind % KINDS {
            0 => Proof::prove(block, 1).expect("a block").encode(),
            1 => SignetProof::prove(block).expect("a block").encode(),
            2 => self.shown().filters.swap_remove(0),
            3 => self.filter_chain().encode(),
            4 => self.watch().encode(),
            5 => self.filters(),
            6 => self.headers.stored(),
            _ => self.headers.checkpoint().encode(),
        }
    }

    fn read(&self, kind: u8, bytes: &[u8]) {
        match kind % KINDS {
            0 => self.proof(bytes),
            1 => solution(bytes),
            2 => self.filter(bytes),
            3 => {
                if let Ok(mut chain) = FilterChain::decode(bytes) {
                    assert_eq!(FilterChain::decode(&chain.encode()).as_ref(), Ok(&chain));
                    chain.sync(&self.headers);
                    chain.keep_last(1);
                    let _ = chain.extend(&self.headers, &[filter_hash(&[])]);
                }
            }
            4 => {
                if let Ok(mut watch) = SpendWatch::decode(bytes) {
                    assert_eq!(SpendWatch::decode(&watch.encode()).as_ref(), Ok(&watch));
                    watch.sync(&self.headers);
                    let _ = watch.next_height();
                }
            }
            5 => {
                if let Ok(filters) = Filters::decode(bytes) {
                    assert_eq!(Filters::decode(&filters.encode()).as_ref(), Ok(&filters));
                }
            }
            6 => {
                if let Some(headers) = restored(bytes) {
                    let again = restored(&headers.stored()).expect("its own bytes");
                    assert_eq!(again.tip_hash(), headers.tip_hash());
                }
            }
            _ => {
                let params = Params::of(Network::Regtest);
                if let Some(checkpoint) = Checkpoint::decode(&params, bytes) {
                    assert_eq!(checkpoint.network(), Network::Regtest);
                }
            }
        }
    }

    /// A proof that is accepted shows a transaction of its block.
    fn proof(&self, bytes: &[u8]) {
        assert!(bytes.len() <= Proof::MAX_BYTES || Proof::decode(bytes).is_err());
        let Ok(proof) = Proof::decode(bytes) else {
            return;
        };
        assert_eq!(proof.encode(), bytes);
        let Ok(proven) = proof.verify(&self.headers) else {
            return;
        };
        let block = self.chain.block(proven.height);
        let at = usize::try_from(proven.position).expect("a position");
        let is_there = block.txdata.get(at).map(|it| it.compute_txid());
        assert_eq!(is_there, Some(proven.txid));
        assert_eq!(block.block_hash(), proven.block);
    }

    /// A filter has no more scripts than its bytes have room for.
    fn filter(&self, bytes: &[u8]) {
        let tip = self.chain.height();
        let block = self.chain.block(tip);
        if let Ok(filter) = Filter::parse(block.block_hash(), bytes) {
            assert!(filter.count() <= bytes.len() * 8 / 20);
            let _ = filter.has_outputs_of(block);
        }
    }

    fn shown(&self) -> ShowFilters {
        let tip = self.chain.height();
        self.chain.filters(1, tip, false)
    }

    fn filter_chain(&self) -> FilterChain {
        let shown = self.shown();
        let previous = FilterHeader::from_slice(&shown.previous_header);
        let mut chain = FilterChain::new(1, previous.expect("32 bytes"));
        let hashes: Vec<_> = shown.filters.iter().map(|it| filter_hash(it)).collect();
        chain
            .extend(&self.headers, &hashes)
            .expect("an honest chain");
        chain
    }

    fn watch(&self) -> SpendWatch {
        let coinbase = &self.chain.block(1).txdata[0];
        let outpoint = bitcoin::OutPoint::new(coinbase.compute_txid(), 0);
        let script = coinbase.output[0].script_pubkey.clone();
        let mut watch = SpendWatch::new();
        watch.follow(outpoint, script, 1).expect("a script");
        let tip = self.chain.height();
        for height in 1..=tip {
            let block = self.chain.block(height);
            let _ = watch.block(&self.headers, height, block, None);
        }
        watch
    }

    /// As a phone stores it.
    fn filters(&self) -> Vec<u8> {
        let watch = self.watch().encode();
        let length = u32::try_from(watch.len()).expect("a short watch");
        let chain = self.filter_chain().encode();
        [&[1][..], &length.to_le_bytes(), &watch, &chain].concat()
    }
}

fn restored(bytes: &[u8]) -> Option<Headers> {
    let params = Params::of(Network::Regtest);
    let checkpoint = Checkpoint::genesis(Network::Regtest);
    let restored = Headers::from_stored(params, checkpoint, bytes).ok()?;
    Some(restored.headers)
}

fn solution(bytes: &[u8]) {
    let Ok(solution) = SignetProof::decode(bytes) else {
        return;
    };
    assert!(bytes.len() <= SignetProof::MAX_BYTES);
    assert_eq!(solution.encode(), bytes);
    let genesis = bitcoin::constants::genesis_block(Network::Signet).header;
    let challenge = longhand_spv::signet::default_challenge();
    let _ = solution.verify(&genesis, &challenge);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seen = Seen::new();
    let whole = (0..KINDS).map(|kind| [vec![kind, 0], seen.good(kind)].concat());
    let changed = (0..KINDS).map(|kind| vec![kind, 1, 5, 0, 1]);
    whole.chain(changed).collect()
}
