//! Places in the chain from which headers are kept.
//!
//! A checkpoint is a block that is taken for granted, with what the checks of the headers after it need. Built in are the genesis block of
//! every network, and for mainnet, testnet3 and signet a later one: the first block of a period of difficulty, whose whole header two
//! independent public sources agree on. bitcoinj's list of checkpoints has that header; Electrum's has the hash of the block before it,
//! and on mainnet its target. Of testnet4 no second source was found, so that its headers begin at the genesis block, until a
//! [`Checkpoint::from_trusted_headers`] is made with a node of one's own.

use bitcoin::consensus::encode::{deserialize, deserialize_hex, serialize};
use bitcoin::constants::genesis_block;
use bitcoin::{Block, BlockHash, CompactTarget, Network, Target, block::Header};

use crate::bytes::Reader;
use crate::params::{Params, RETARGET_INTERVAL};

/// Blocks whose times the median is taken of.
pub(crate) const MEDIAN_SPAN: usize = 11;

/// What the period of a checkpoint began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeriodStart {
    pub time: u32,
    pub bits: CompactTarget,
}

impl From<&Header> for PeriodStart {
    fn from(header: &Header) -> PeriodStart {
        PeriodStart {
            time: header.time,
            bits: header.bits,
        }
    }
}

/// The reason for which headers make no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// None, or more than a period and the ten before it.
    #[error("a checkpoint is made from 1 to {max} headers, and these are {0}", max = MAX_TRUSTED)]
    Count(usize),
    /// More headers than the height allows.
    #[error("there are more headers than blocks up to height {0}: check the height")]
    Height(u32),
    /// The first block of the period is not among them.
    #[error(
        "the headers for a checkpoint have to begin at height {0} or before, where its period of difficulty begins"
    )]
    Period(u32),
    /// One does not follow the one before it; counted from 0.
    #[error("header {0} of a checkpoint does not follow the one before it: fetch them again")]
    Broken(usize),
    /// One has no proof of work; counted from 0.
    #[error("header {0} of a checkpoint has no proof of work on this network: check the network")]
    Work(usize),
}

const VERSION: u8 = 1;
/// The most headers that a checkpoint is made from.
const MAX_TRUSTED: usize = RETARGET_INTERVAL as usize + MEDIAN_SPAN - 1;

/// A block that is taken for granted. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    network: Network,
    height: u32,
    header: Header,
    hash: BlockHash,
    period: PeriodStart,
    /// Times of the blocks before it, the oldest first, as far as they are known: ten at most.
    earlier_times: Vec<u32>,
}

impl Checkpoint {
    /// The first block of a network.
    pub fn genesis(network: Network) -> Checkpoint {
        let Block { header, .. } = genesis_block(network);
        Checkpoint::period_start(network, 0, header)
    }

    /// The latest one that is built in, for a phone that begins. Of a signet with a challenge of its own that is the genesis block.
    ///
    /// A phone keeps the checkpoint that it began with ([`Checkpoint::encode`]): a later program may have a later one, and what is in
    /// blocks before that could not be proven any more.
    pub fn latest(params: &Params) -> Checkpoint {
        let network = params.network();
        let built_in = BUILT_IN.iter().find(|(of, ..)| *of == network);
        built_in
            .filter(|_| params.challenge() == Params::of(network).challenge())
            .and_then(|&(_, height, hex)| {
                let header = deserialize_hex(hex).ok()?;
                Some(Checkpoint::period_start(network, height, header))
            })
            .unwrap_or_else(|| Checkpoint::genesis(network))
    }

    /// Makes one from headers of a node that is trusted: those from the first block of the period (the last height up to `height` that
    /// is a multiple of 2,016), or from up to ten blocks before it, to the block at `height`. The caller vouches for them: only their
    /// connection and their own proof of work are checked, and not that the network is on this chain.
    ///
    /// With `bitcoin-cli getblockheader <hash> false` for each height.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn from_trusted_headers(
        params: &Params,
        height: u32,
        headers: &[Header],
    ) -> Result<Checkpoint, CheckpointError> {
        let count = headers.len();
        let Some(last) = headers.last().filter(|_| count <= MAX_TRUSTED) else {
            return Err(CheckpointError::Count(count));
        };
        let before_last = u32::try_from(count - 1).map_err(|_| CheckpointError::Count(count))?;
        let first_height = height
            .checked_sub(before_last)
            .ok_or(CheckpointError::Height(height))?;
        let period_height = height - height % RETARGET_INTERVAL;
        let period = period_height
            .checked_sub(first_height)
            .and_then(|at| headers.get(usize::try_from(at).ok()?))
            .ok_or(CheckpointError::Period(period_height))?;
        let mut previous = headers[0].prev_blockhash;
        for (at, header) in headers.iter().enumerate() {
            if header.prev_blockhash != previous {
                return Err(CheckpointError::Broken(at));
            }
            previous = header.block_hash();
            let target = header.target();
            if target > params.pow_limit() || !target.is_met_by(previous) {
                return Err(CheckpointError::Work(at));
            }
        }
        let earlier = &headers[count.saturating_sub(MEDIAN_SPAN)..count - 1];
        Ok(Checkpoint {
            network: params.network(),
            height,
            header: *last,
            hash: previous,
            period: period.into(),
            earlier_times: earlier.iter().map(|header| header.time).collect(),
        })
    }

    /// As bytes: version 1 (1 byte), the network's magic (4), height (4), header (80), time and bits of the first block of its period (4 each),
    /// how many times of blocks before it are known (1), and these (4 each). Numbers are little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.network.magic().to_bytes());
        bytes.extend(self.height.to_le_bytes());
        bytes.extend(serialize(&self.header));
        bytes.extend(self.period.time.to_le_bytes());
        bytes.extend(self.period.bits.to_consensus().to_le_bytes());
        bytes.push(u8::try_from(self.earlier_times.len()).unwrap_or(u8::MAX));
        for time in &self.earlier_times {
            bytes.extend(time.to_le_bytes());
        }
        bytes
    }

    /// Reads [`Checkpoint::encode`]'s bytes. `None` when they are none, or of another network.
    pub fn decode(params: &Params, bytes: &[u8]) -> Option<Checkpoint> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        let magic: [u8; 4] = reader.array()?;
        let height = reader.u32()?;
        let header: Header = deserialize(reader.take(Header::SIZE)?).ok()?;
        let period = PeriodStart {
            time: reader.u32()?,
            bits: CompactTarget::from_consensus(reader.u32()?),
        };
        let count = usize::from(reader.u8()?);
        let times: Option<Vec<u32>> = (0..count).map(|_| reader.u32()).collect();
        let limit = params.pow_limit();
        let is_possible = version == VERSION
            && magic == params.network().magic().to_bytes()
            && header.target() <= limit
            && header.target().is_met_by(header.block_hash())
            && Target::from_compact(period.bits) <= limit
            && count < MEDIAN_SPAN
            && reader.is_empty();
        is_possible.then_some(Checkpoint {
            network: params.network(),
            height,
            header,
            hash: header.block_hash(),
            period,
            earlier_times: times?,
        })
    }

    fn period_start(network: Network, height: u32, header: Header) -> Checkpoint {
        Checkpoint {
            network,
            height,
            header,
            hash: header.block_hash(),
            period: (&header).into(),
            earlier_times: Vec::new(),
        }
    }

    /// Its network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Its height.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Its hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn period(&self) -> PeriodStart {
        self.period
    }

    pub(crate) fn earlier_times(&self) -> &[u32] {
        &self.earlier_times
    }
}

/// Network, height and header. See the module for where they are from.
const BUILT_IN: [(Network, u32, &str); 3] = [
    (
        // 12 January 2025.
        Network::Bitcoin,
        878_976,
        "0080cb2a84fa5fcdb3c448a0dc7f38c6a7e55f1261fcec2f0b6d00000000000000000000a2282f81592e007e389fa35ed4a9f5559c2ebf12fa76b54f0316668d\
         cba6d961af1f8467618c02178c74d981",
    ),
    (
        // 7 January 2025.
        Network::Testnet,
        3_612_672,
        "00404b2878f7adc4720f60656d31fd5111fa1b526026bf1084d496c90300000000000000552135cb71df767cb6425e703e8223dce06e4f8b60fece9aef7ad54e\
         5e2361fa37ba7d679a0a011953099de5",
    ),
    (
        // 7 January 2025.
        Network::Signet,
        229_824,
        "000000204e1723c21130b4b77d390200eda865cb048c5586a701ac1e2e4d14fddf000000eb17b9fe7e04f19d26ed5860829edafcd8a217d22b18fdc74bff36da\
         9ae76d1105477d67ad46011ec2283200",
    ),
];

#[cfg(test)]
mod tests {
    use bitcoin::ScriptBuf;

    use super::*;

    #[test]
    fn genesis_blocks_are_those_of_the_networks() {
        for (network, hash) in [
            (
                Network::Bitcoin,
                "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
            ),
            (
                Network::Testnet,
                "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
            ),
            // BIP 94.
            (
                Network::Testnet4,
                "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
            ),
            // BIP 325.
            (
                Network::Signet,
                "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
            ),
            (
                Network::Regtest,
                "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
            ),
        ] {
            assert_eq!(Checkpoint::genesis(network).hash().to_string(), hash);
        }
    }

    #[test]
    fn a_checkpoint_is_read_back_and_damaged_ones_are_not() {
        for network in [Network::Bitcoin, Network::Testnet4, Network::Regtest] {
            let params = Params::of(network);
            let mut checkpoint = Checkpoint::latest(&params);
            checkpoint.earlier_times = vec![1, 2, 3];
            let bytes = checkpoint.encode();
            assert_eq!(Checkpoint::decode(&params, &bytes), Some(checkpoint));
            let other = Params::of(Network::Signet);
            assert_eq!(Checkpoint::decode(&other, &bytes), None);
            for length in 0..bytes.len() {
                assert_eq!(Checkpoint::decode(&params, &bytes[..length]), None);
            }
            let long = [&bytes[..], &[0]].concat();
            assert_eq!(Checkpoint::decode(&params, &long), None);
        }
        let params = Params::of(Network::Bitcoin);
        let mut bytes = Checkpoint::latest(&params).encode();
        bytes[20] ^= 1;
        assert_eq!(Checkpoint::decode(&params, &bytes), None);
    }

    /// The hash of the block before each is Electrum's, of its list `chains/*/checkpoints.json`.
    #[test]
    fn built_in_checkpoints_have_work_and_follow_the_block_of_the_second_source() {
        let sources = [
            (
                Network::Bitcoin,
                "00000000000000000002819359a9af460f342404bec23e7478512a619584083b",
                "000000000000000000006d0b2fecfc61125fe5a7c6387fdca048c4b3cd5ffa84",
            ),
            (
                Network::Testnet,
                "00000000000000000b030eae079897a2f81ec5da0b623bad6808bd64537cc103",
                "0000000000000003c996d48410bf2660521bfa1151fd316d65600f72c4adf778",
            ),
            (
                Network::Signet,
                "000000bac742cfc8d76fda4ad387b7aafa577b17d3684c61d8a089dcd08fa374",
                "000000dffd144d2e1eac01a786558c04cb65a8ed0002397db7b43011c223174e",
            ),
        ];
        for ((network, hash, before), (of, height, _)) in sources.into_iter().zip(BUILT_IN) {
            let checkpoint = Checkpoint::latest(&Params::of(network));
            assert_eq!((checkpoint.network(), checkpoint.height()), (of, height));
            assert_eq!(checkpoint.hash().to_string(), hash);
            assert_eq!(checkpoint.header().prev_blockhash.to_string(), before);
            assert_eq!(height % RETARGET_INTERVAL, 0);
            let target = checkpoint.header().target();
            assert!(target.is_met_by(checkpoint.hash()));
            assert!(target <= Params::of(network).pow_limit());
        }
        for params in [
            Params::of(Network::Testnet4),
            Params::of(Network::Regtest),
            Params::custom_signet(ScriptBuf::from_bytes(vec![0x51])),
        ] {
            let genesis = Checkpoint::genesis(params.network());
            assert_eq!(Checkpoint::latest(&params), genesis);
        }
    }
}
