//! The rules of each network that a chain of headers has to keep.

use bitcoin::params::Params as Consensus;
use bitcoin::{CompactTarget, Network, ScriptBuf, Target};

use crate::signet::default_challenge;

/// Blocks of one difficulty; with the first block of the next period it is set anew.
pub const RETARGET_INTERVAL: u32 = 2016;
/// A header may be so many seconds ahead of the clock.
pub const MAX_FUTURE_S: u64 = 2 * 60 * 60;
/// On testnet4 the first block of a period is at most so many seconds older than the block before it (BIP 94).
pub const MAX_TIMEWARP_S: u32 = 600;
/// On testnets a block that is more than so many seconds younger than the one before it has the lowest difficulty.
pub const MIN_DIFFICULTY_AFTER_S: u32 = 20 * 60;
/// A tip that is so many seconds old is stale: a healthy network goes without a block for so long once in some 160,000 blocks.
pub const STALE_AFTER_S: u32 = 2 * 60 * 60;

/// What differs from network to network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    network: Network,
    challenge: Option<ScriptBuf>,
    time_rules: bool,
    stale_after_s: Option<u32>,
}

impl Params {
    /// Those of a network; of signet, those of the default one.
    pub fn of(network: Network) -> Params {
        let is_regtest = network == Network::Regtest;
        Params {
            network,
            challenge: (network == Network::Signet).then(default_challenge),
            time_rules: !is_regtest,
            stale_after_s: (!is_regtest).then_some(STALE_AFTER_S),
        }
    }

    /// A signet whose blocks solve another challenge (BIP 325). Its genesis block is that of every signet.
    pub fn custom_signet(challenge: ScriptBuf) -> Params {
        Params {
            challenge: Some(challenge),
            ..Params::of(Network::Signet)
        }
    }

    /// With or without the rules about the time of a block. Off on regtest, where blocks are mined on request.
    #[must_use]
    pub fn with_time_rules(self, time_rules: bool) -> Params {
        Params { time_rules, ..self }
    }

    /// With another age in seconds after which a tip is stale; `None` for never.
    #[must_use]
    pub fn with_stale_after(self, stale_after_s: Option<u32>) -> Params {
        Params {
            stale_after_s,
            ..self
        }
    }

    /// The network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The script that a signet's blocks have to solve (BIP 325).
    pub fn challenge(&self) -> Option<&ScriptBuf> {
        self.challenge.as_ref()
    }

    /// The highest target, which is the lowest difficulty.
    pub fn pow_limit(&self) -> Target {
        let Consensus {
            max_attainable_target,
            ..
        } = self.consensus();
        *max_attainable_target
    }

    /// The same in the form that a header has it.
    pub fn pow_limit_bits(&self) -> CompactTarget {
        self.pow_limit().to_compact_lossy()
    }

    /// Whether the difficulty is set anew with each period. Not on regtest.
    pub fn retargets(&self) -> bool {
        !self.consensus().no_pow_retargeting
    }

    /// Whether a late block has the lowest difficulty: on testnet3 and testnet4 (BIP 94, rule 1). Never the first of a period.
    pub fn has_min_difficulty_blocks(&self) -> bool {
        self.retargets() && self.consensus().allow_min_difficulty_blocks
    }

    /// Whether the rules of BIP 94 hold: a period's difficulty follows from the first block of the one before it (rule 2), and its
    /// first block is at most [`MAX_TIMEWARP_S`] older than the block before it (rule 3).
    pub fn has_bip94(&self) -> bool {
        self.network == Network::Testnet4
    }

    /// Whether the median time past and the limit of [`MAX_FUTURE_S`] are checked.
    pub fn has_time_rules(&self) -> bool {
        self.time_rules
    }

    /// The age in seconds after which a tip is stale; `None` for never.
    pub fn stale_after_s(&self) -> Option<u32> {
        self.stale_after_s
    }

    pub(crate) fn consensus(&self) -> &'static Consensus {
        self.network.params()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_rules() {
        // network, bits of the limit, retargets, minimum difficulty, BIP 94, time rules, challenge
        for (network, bits, retargets, min_difficulty, bip94, times, signed) in [
            (
                Network::Bitcoin,
                0x1d00_ffff,
                true,
                false,
                false,
                true,
                false,
            ),
            (
                Network::Testnet,
                0x1d00_ffff,
                true,
                true,
                false,
                true,
                false,
            ),
            (
                Network::Testnet4,
                0x1d00_ffff,
                true,
                true,
                true,
                true,
                false,
            ),
            (Network::Signet, 0x1e03_77ae, true, false, false, true, true),
            (
                Network::Regtest,
                0x207f_ffff,
                false,
                false,
                false,
                false,
                false,
            ),
        ] {
            let params = Params::of(network);
            assert_eq!(params.pow_limit_bits().to_consensus(), bits, "{network}");
            assert_eq!(params.retargets(), retargets, "{network}");
            assert_eq!(
                params.has_min_difficulty_blocks(),
                min_difficulty,
                "{network}"
            );
            assert_eq!(params.has_bip94(), bip94, "{network}");
            assert_eq!(params.has_time_rules(), times, "{network}");
            assert_eq!(params.stale_after_s().is_some(), times, "{network}");
            assert_eq!(params.challenge().is_some(), signed, "{network}");
        }
    }
}
