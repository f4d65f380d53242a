//! The limits of the rules, which the owner sets on the phone, and which the ledger keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use bitcoin::hex::{DisplayHex, FromHex};
use longhand_proto::rule::Rule;

/// What URLs of a second source begin with.
const SOURCES: [&str; 3] = ["https://", "http://", "core+http://"];
/// The most characters of one.
const MAX_URL: usize = 500;

/// Makes the struct of the numbers, their defaults and their names. A row: the field, its default, and what it limits.
macro_rules! numbers {
    ($($field:ident = $default:literal, $about:literal;)*) => {
        /// Limits that are numbers. Units stand at the end of each name; per hour and per day count the last 60 minutes and 24 hours.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Numbers {
            $(#[doc = $about] pub $field: u64,)*
        }

        impl Default for Numbers {
            fn default() -> Numbers {
                Numbers { $($field: $default,)* }
            }
        }

        impl Numbers {
            /// The name of each limit, its value, and what it limits.
            pub fn rows(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![$((stringify!($field), self.$field, $about),)*]
            }

            fn named(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($field) => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    spend_per_hour_sat = 20_000_000,
        "The most that payments of the last hour may take together, with their fee limits.";
    spend_per_day_sat = 100_000_000,
        "The most that payments of the last day may take together, with their fee limits.";
    fees_per_day_sat = 1_000_000,
        "The most that the fee limits of payments of the last day may be together.";
    in_flight_sat = 100_000_000,
        "The most that payments which have not ended may take together, with their fee limits.";
    trimmed_per_day_sat = 50_000,
        "The most that payments of the last day may be together which are so small that commitments have no outputs for them.";
    channel_sat = 1_000_000_000,
        "The largest channel.";
    own_commitment_feerate_sat_per_kw = 25_000,
        "The highest fee rate of commitments that the owner pays for, as the funder of the channel.";
    peer_commitment_feerate_sat_per_kw = 250_000,
        "The highest fee rate of commitments that the peer pays for.";
    own_commitment_fee_sat = 200_000,
        "The most that the fee of a commitment may be which the owner pays for.";
    close_fee_sat = 50_000,
        "The most that a transaction which closes a channel, or takes outputs of a closed one, may cost; more if the next limit allows more.";
    close_fee_percent = 10,
        "The most that such a transaction may cost, in percent of what it brings to the owner.";
    send_fee_percent = 5,
        "The most that an on-chain payment or a funding may cost, in percent of its amount; more if the owner gave a fee rate.";
    longest_own_delay_blocks = 2_016,
        "The most blocks for which the owner's outputs of its own commitment may be delayed (`to_self_delay` of the peer's, BOLT 2).";
    shortest_peer_delay_blocks = 144,
        "The fewest blocks for which a peer's outputs of its commitment are to be delayed: so long the phone may sleep.";
    shortest_hub_delay_blocks = 1_008,
        "The same for the host's own hub, which could publish an old commitment together with the host.";
    peer_dust_limit_sat = 10_000,
        "The highest dust limit of a peer: HTLCs below it have no outputs in the peer's commitments (BOLT 2, `dust_limit_satoshis`).";
    own_reserve_percent = 1,
        "The most that a peer may have the owner keep in a channel, in percent of its size; more up to 1,000 sat (BOLT 2, `channel_reserve_satoshis`).";
    any_amount_sat = 0,
        "The most that a payment for an invoice without an amount may be; 0 = no such invoice is made, since a host on the payment's way can keep a part of it.";
    funding_depth_blocks = 3,
        "How many blocks have to confirm a channel which a peer has funded, before payments over it count.";
    large_channel_sat = 50_000_000,
        "The channels from this size on for which the next limit holds in place of that.";
    large_funding_depth_blocks = 6,
        "How many blocks have to confirm a large channel which a peer has funded, before payments over it count.";
    filters_from_sat = 1_000_000,
        "Without a second source: payments from this amount on wait until the host has shown by filters of its blocks (BIP 158, some 20 kB a block) that their channels are open.";
    late_payment_s = 1_209_600,
        "The time for which a payment may still leave after its invoice has expired: the phone may have been away when the node was about to offer the HTLC.";
    invoice_skew_s = 3_600,
        "The largest difference between the date of an invoice that the host wrote and the phone's clock.";
}

/// Whose channels keep their revocation basepoint secret on the phone. With the secret the host can punish a breach while the phone is
/// away; together with the peer it can take HTLCs of commitments that are not revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Withhold {
    /// Channels with the host's own hub.
    #[default]
    Hub,
    /// All channels.
    All,
    /// None.
    None,
}

/// Whose openings the phone accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Inbound {
    /// Anybody's.
    #[default]
    Anybody,
    /// The host's own hub's.
    Hub,
    /// Those of these node ids.
    Listed(BTreeSet<[u8; 33]>),
}

/// All limits of a phone's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Those that are numbers.
    pub numbers: Numbers,
    /// Whose openings are accepted.
    pub inbound: Inbound,
    /// Whose channels keep their revocation key.
    pub withhold: Withhold,
    /// Where the phone asks beside its host what is in the chain: the URL of an Esplora server, or of a Bitcoin Core
    /// (`core+http://user:password@address:port`); empty for nowhere. Over plain `http://` whoever is on the way can answer.
    pub second_source: String,
    /// Rules that warn: what they would refuse is carried out, counted and listed.
    pub warnings: BTreeSet<Rule>,
}

/// The reason for which a limit cannot be set. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// There is no such limit.
    #[error("there is no limit {0}: `longhand phone limits` lists all")]
    Unknown(String),
    /// There is no such rule.
    #[error("there is no rule {0}: `longhand phone limits` lists those that can warn")]
    UnknownRule(String),
    /// The rule cannot be made to warn.
    #[error(
        "the rule {0} cannot warn: without it a signature could not be made, or would give the channel away"
    )]
    MustRefuse(Rule),
    /// The value cannot be read.
    #[error("{value} is no value for {name}: {expected}")]
    Value {
        /// The limit.
        name: String,
        /// What was given.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// Two limits contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

impl Limits {
    /// These limits with `name` set to `value`: a number, or for `inbound` one of `anybody`, `hub` and node ids with commas between them,
    /// for `withhold` one of `hub`, `all` and `none`, for the name of a rule `refuse` or `warn`.
    ///
    /// # Errors
    /// See [`LimitError`].
    pub fn with(&self, name: &str, value: &str) -> Result<Limits, LimitError> {
        let mut limits = self.clone();
        limits.set(name, value)?;
        limits.check()?;
        Ok(limits)
    }

    /// Changes nothing when the name or the value is wrong.
    fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        let wrong = |expected| wrong_value(name, value, expected);
        match name {
            "inbound" => {
                self.inbound = value
                    .parse()
                    .map_err(|()| wrong("anybody, hub, or node ids with commas between them"))?;
            }
            "second_source" => {
                let is_url = SOURCES.iter().any(|scheme| value.starts_with(scheme));
                let is_plain = value.chars().all(|it| it.is_ascii_graphic());
                if !(value == "none" || is_url && is_plain && value.len() <= MAX_URL) {
                    return Err(wrong("none, or a URL of https://, http:// or core+http://"));
                }
                self.second_source = value.strip_prefix("none").unwrap_or(value).to_owned();
            }
            "withhold" => {
                self.withhold = value.parse().map_err(|()| wrong("hub, all or none"))?;
            }
            name => match self.numbers.named(name) {
                Some(number) => {
                    *number = value.parse().map_err(|_| wrong("a number from 0 on"))?;
                }
                None => self.set_mode(name, value)?,
            },
        }
        Ok(())
    }

    fn set_mode(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        let rule = match name.parse::<Rule>() {
            Ok(rule) => rule,
            Err(_) if name.contains('-') => return Err(LimitError::UnknownRule(name.to_owned())),
            Err(_) => return Err(LimitError::Unknown(name.to_owned())),
        };
        match value {
            "refuse" => {
                self.warnings.remove(&rule);
            }
            "warn" if rule.may_warn() => {
                self.warnings.insert(rule);
            }
            "warn" => return Err(LimitError::MustRefuse(rule)),
            _ => return Err(wrong_value(name, value, "refuse or warn")),
        }
        Ok(())
    }

    /// Checks that no limit makes another one pointless, or channels impossible.
    fn check(&self) -> Result<(), LimitError> {
        let it = &self.numbers;
        let contradictions = [
            (
                it.spend_per_hour_sat > it.spend_per_day_sat,
                "more per hour than per day: spend_per_hour_sat is above spend_per_day_sat",
            ),
            (
                it.shortest_peer_delay_blocks > it.shortest_hub_delay_blocks,
                "the hub would have less time than other peers: shortest_peer_delay_blocks is above shortest_hub_delay_blocks",
            ),
            (
                it.shortest_hub_delay_blocks > 2_016,
                "no node accepts a delay of more than 2,016 blocks: shortest_hub_delay_blocks is above it",
            ),
            (
                it.longest_own_delay_blocks < 144,
                "no peer asks for a delay of fewer than 144 blocks: longest_own_delay_blocks is below it",
            ),
            (
                it.peer_dust_limit_sat < 354,
                "no channel has a dust limit below 354 sat: peer_dust_limit_sat is below it",
            ),
            (
                it.own_reserve_percent > 100,
                "a reserve of more than 100 percent",
            ),
            (
                it.close_fee_percent > 100 || it.send_fee_percent > 100,
                "a fee of more than 100 percent",
            ),
            (
                it.own_commitment_feerate_sat_per_kw < 253
                    || it.peer_commitment_feerate_sat_per_kw < 253,
                "the highest fee rate of commitments is below the lowest that nodes relay, 253",
            ),
            (
                it.own_commitment_feerate_sat_per_kw > u64::from(u32::MAX)
                    || it.peer_commitment_feerate_sat_per_kw > u64::from(u32::MAX),
                "a fee rate that no transaction can have",
            ),
        ];
        let found = contradictions.into_iter().find(|(is_so, _)| *is_so);
        found.map_or(Ok(()), |(_, why)| Err(LimitError::Contradiction(why)))
    }

    /// Everything as names and values, for the ledger and for people.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let numbers = self.numbers.rows().into_iter();
        let mut all: BTreeMap<String, String> = numbers
            .map(|(name, value, _)| (name.to_owned(), value.to_string()))
            .collect();
        all.insert("inbound".into(), self.inbound.to_string());
        all.insert("withhold".into(), self.withhold.to_string());
        let second_source = match &self.second_source[..] {
            "" => "none",
            url => url,
        };
        all.insert("second_source".into(), second_source.into());
        let warnings = self.warnings.iter();
        all.extend(warnings.map(|rule| (rule.name().to_owned(), "warn".to_owned())));
        all
    }

    /// The values that differ from the defaults.
    pub(crate) fn changed(&self) -> BTreeMap<String, String> {
        let default = Limits::default().to_map();
        let mut all = self.to_map();
        all.retain(|name, value| default.get(name) != Some(value));
        all
    }

    /// The defaults, with these values set. Those that this version does not know are left out: a later one wrote them.
    pub(crate) fn from_changed<'a>(
        changed: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Limits {
        let mut limits = Limits::default();
        for (name, value) in changed {
            let _ = limits.set(name, value);
        }
        match limits.check() {
            Ok(()) => limits,
            Err(_) => Limits::default(),
        }
    }
}

fn wrong_value(name: &str, value: &str, expected: &'static str) -> LimitError {
    LimitError::Value {
        name: name.to_owned(),
        value: value.to_owned(),
        expected,
    }
}

impl fmt::Display for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Inbound::Anybody => f.write_str("anybody"),
            Inbound::Hub => f.write_str("hub"),
            Inbound::Listed(peers) => {
                let peers: Vec<String> = peers.iter().map(|id| id.to_lower_hex_string()).collect();
                f.write_str(&peers.join(","))
            }
        }
    }
}

impl FromStr for Inbound {
    type Err = ();

    fn from_str(text: &str) -> Result<Inbound, ()> {
        match text {
            "anybody" => Ok(Inbound::Anybody),
            "hub" => Ok(Inbound::Hub),
            listed => {
                let id = |text: &str| <[u8; 33]>::from_hex(text).ok();
                let ids: Option<BTreeSet<[u8; 33]>> = listed.split(',').map(id).collect();
                Ok(Inbound::Listed(ids.ok_or(())?))
            }
        }
    }
}

impl fmt::Display for Withhold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Withhold::Hub => "hub",
            Withhold::All => "all",
            Withhold::None => "none",
        })
    }
}

impl FromStr for Withhold {
    type Err = ();

    fn from_str(text: &str) -> Result<Withhold, ()> {
        match text {
            "hub" => Ok(Withhold::Hub),
            "all" => Ok(Withhold::All),
            "none" => Ok(Withhold::None),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_are_set_by_name_and_survive_the_ledger() {
        let id = "02".repeat(33);
        let limits = Limits::default();
        let limits = limits.with("spend_per_day_sat", "200000000").unwrap();
        let limits = limits.with("inbound", &format!("{id},{id}")).unwrap();
        let limits = limits.with("withhold", "all").unwrap();
        let limits = limits.with("balance", "warn").unwrap();
        let limits = limits.with("second_source", "https://a/api").unwrap();
        let changed = limits.changed();
        assert_eq!(changed.len(), 5);
        assert_eq!(changed["inbound"], id);
        assert_eq!(Limits::from_changed(&changed), limits);
        assert_eq!(limits.with("balance", "refuse").unwrap().changed().len(), 4);
        assert_eq!(
            limits
                .with("second_source", "none")
                .unwrap()
                .changed()
                .len(),
            4
        );
    }

    #[test]
    fn what_a_later_version_wrote_is_left_out() {
        let mut changed = Limits::default()
            .with("withhold", "none")
            .unwrap()
            .changed();
        changed.insert("a_new_limit".into(), "7".into());
        changed.insert("a-new-rule".into(), "warn".into());
        let limits = Limits::from_changed(&changed);
        assert_eq!(limits.withhold, Withhold::None);
        assert_eq!(limits.changed().len(), 1);
    }

    #[test]
    fn a_wrong_limit_changes_nothing_and_says_why() {
        for (name, value, why) in [
            ("spend", "1", "there is no limit spend"),
            ("no-rule", "warn", "there is no rule no-rule"),
            ("holder-number", "warn", "cannot warn"),
            ("balance", "maybe", "refuse or warn"),
            ("withhold", "some", "hub, all or none"),
            ("inbound", "02", "node ids"),
            ("second_source", "ftp://server", "a URL"),
            ("second_source", "https://a b", "a URL"),
            ("channel_sat", "-1", "a number"),
            (
                "spend_per_hour_sat",
                "100000001",
                "more per hour than per day",
            ),
            ("shortest_hub_delay_blocks", "100", "less time"),
            ("shortest_hub_delay_blocks", "2017", "2,016"),
            ("longest_own_delay_blocks", "143", "144"),
            ("close_fee_percent", "101", "100 percent"),
            ("own_commitment_feerate_sat_per_kw", "252", "253"),
            (
                "peer_commitment_feerate_sat_per_kw",
                "4294967296",
                "no transaction",
            ),
        ] {
            let refused = Limits::default().with(name, value).unwrap_err().to_string();
            assert!(refused.contains(why), "{name}: {refused}");
        }
    }
}
