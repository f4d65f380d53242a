//! The problems of a host that its operator should know: in `admin status`, in the metrics, and in the log when one begins.
//!
//! [`problems`] judges what is observed, [`Health`] observes, from time to time and when it is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use longhand_chain::{Chain as _, FeeRates, Follower, SourceHealth};
use longhand_link::carrier::tls::Certificate;

use tokio::sync::watch;

use crate::changes::{Changes, Kind};
use crate::clock::now_unix_s;
use crate::hosted::overview_in_time;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::tor::TorState;

/// Satoshis per 1,000 weight units in one satoshi per virtual byte.
const SAT_PER_KW_OF_SAT_PER_VB: u32 = 250;
/// How often problems are looked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// The age of a best block from which something is wrong. With blocks each 10 minutes, two hours without one come about
/// once in three years.
const OLD_TIP_S: u64 = 2 * 3_600;
/// Days before its end from which a certificate should have been renewed: the usual tools do it 30 days before.
const CERTIFICATE_DAYS: i64 = 14;
/// The same on test networks, whose miners come and go.
const OLD_TIP_OF_TESTNETS_S: u64 = 12 * 3_600;

/// A problem that the operator can do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Unreachable,
    InitialDownload,
    OldTip {
        age_s: u64,
    },
    Pruned,
    NoFilters,
    NoFeeEstimate {
        sat_per_kw: u32,
    },
    LowReserve(Reserve),
    /// At these authorities.
    MailboxUnreachable {
        mailboxes: Vec<String>,
    },
    /// Where Tor is stuck.
    TorUnreachable {
        reason: String,
    },
    /// Of the listener at this authority.
    CertificateExpires {
        listener: String,
        days_left: i64,
    },
}

impl Problem {
    /// Every name, for the metric.
    pub const NAMES: [&'static str; 10] = [
        "chain_unreachable",
        "initial_download",
        "old_tip",
        "pruned",
        "no_filters",
        "no_fee_estimate",
        "low_reserve",
        "mailbox_unreachable",
        "tor_unreachable",
        "certificate_expires",
    ];

    /// Stable; it identifies the problem while its numbers change.
    pub fn name(&self) -> &'static str {
        match self {
            Problem::Unreachable => "chain_unreachable",
            Problem::InitialDownload => "initial_download",
            Problem::OldTip { .. } => "old_tip",
            Problem::Pruned => "pruned",
            Problem::NoFilters => "no_filters",
            Problem::NoFeeEstimate { .. } => "no_fee_estimate",
            Problem::LowReserve(_) => "low_reserve",
            Problem::MailboxUnreachable { .. } => "mailbox_unreachable",
            Problem::TorUnreachable { .. } => "tor_unreachable",
            Problem::CertificateExpires { .. } => "certificate_expires",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unreachable => f.write_str(
                "the chain source cannot be reached: nodes see no blocks until it answers; check that it runs",
            ),
            Problem::InitialDownload => f.write_str(
                "the chain source is in its initial block download: nodes see closes and deadlines too late until it has \
                 caught up; wait for it",
            ),
            Problem::OldTip { age_s } => write!(
                f,
                "the best block is {} minutes old: the chain source may have lost its peers, and nodes see no closes and \
                 deadlines; check its connections",
                age_s / 60
            ),
            Problem::Pruned => f.write_str(
                "the chain source is pruned: announced channels in blocks that it has deleted are missing in the hub's \
                 graph, and most payments to other hosts find no route; use one that keeps all blocks (prune=0)",
            ),
            Problem::NoFilters => f.write_str(
                "the chain source has no compact filters of blocks: large payments to owners whose phones have no second source \
                 wait (limit filters_from_sat of a phone); use a Bitcoin Core with blockfilterindex=1",
            ),
            Problem::NoFeeEstimate { sat_per_kw } => write!(
                f,
                "the chain source has no fee estimate, or none for an hour: closes and claims pay about {} sat/vB \
                 (chain.fallback_feerate_sat_per_vb), and `open` and `send-onchain` need --feerate; wait until the source \
                 has seen some blocks, or set a fallback that fits",
                sat_per_kw.div_ceil(SAT_PER_KW_OF_SAT_PER_VB)
            ),
            Problem::LowReserve(reserve) => write!(
                f,
                "the hub has {} sat on chain, wants {} sat to defend its channels (hub.reserve_sat_per_channel) and {} sat \
                 before it takes another: send coins to the address of `admin hub address`",
                reserve.onchain_sat, reserve.wanted_sat, reserve.wanted_for_next_sat
            ),
            Problem::MailboxUnreachable { mailboxes } => write!(
                f,
                "this host is not connected to the mailbox {}: phones that have no other way to it are away; check that the \
                 mailbox runs and can be reached from here (link.mailboxes)",
                mailboxes.join(", ")
            ),
            Problem::TorUnreachable { reason } => write!(
                f,
                "nothing goes through Tor: {reason}; phones that have no other way are away (tor.enabled)"
            ),
            Problem::CertificateExpires { listener, days_left } if *days_left < 0 => write!(
                f,
                "the TLS certificate of {listener} (link.listen) has expired: phones refuse it; renew its files, which are read \
                 anew without a restart"
            ),
            Problem::CertificateExpires { listener, days_left } => write!(
                f,
                "the TLS certificate of {listener} (link.listen) expires in {days_left} days: renew its files, which are read \
                 anew without a restart"
            ),
        }
    }
}

/// The hub's coins on chain, also those that are not confirmed yet, and those that it keeps for its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserve {
    pub onchain_sat: u64,
    /// For the channels that it has.
    pub wanted_sat: u64,
    /// With one more.
    pub wanted_for_next_sat: u64,
}

/// The observations by which problems are found.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub network: Network,
    /// Whether the chain source answered the last poll.
    pub is_reachable: bool,
    pub source: SourceHealth,
    /// Age of the best block by its header, as far as it is known.
    pub tip_age_s: Option<u64>,
    pub fee_rates: FeeRates,
    /// `None` while the hub does not run.
    pub reserve: Option<Reserve>,
    /// Mailboxes to which the host is not connected.
    pub mailboxes_away: Vec<String>,
    /// Why nothing goes through Tor, when it is enabled.
    pub tor_stuck: Option<String>,
    /// Days until the certificates of listeners expire, by the listeners' authorities.
    pub certificate_days_left: Vec<(String, i64)>,
}

/// The problems now. Of a source that does not answer, nothing else is known.
pub(crate) fn problems(observed: &Observed) -> Vec<Problem> {
    let mailboxes = observed.mailboxes_away.clone();
    let away = (!mailboxes.is_empty()).then_some(Problem::MailboxUnreachable { mailboxes });
    let mut certificates = observed.certificate_days_left.iter();
    let expires = certificates.find(|(_, days_left)| *days_left < CERTIFICATE_DAYS);
    let expires = expires.map(|(listener, days_left)| Problem::CertificateExpires {
        listener: listener.clone(),
        days_left: *days_left,
    });
    let mut all = chain_problems(observed);
    all.extend(away);
    let tor_stuck = observed.tor_stuck.clone();
    all.extend(tor_stuck.map(|reason| Problem::TorUnreachable { reason }));
    all.extend(expires);
    all
}

fn chain_problems(observed: &Observed) -> Vec<Problem> {
    // On regtest nobody mines but the operator, and nothing has a value.
    let oldest_tip_s = match observed.network {
        Network::Regtest => return vec![],
        Network::Bitcoin | Network::Signet => OLD_TIP_S,
        _ => OLD_TIP_OF_TESTNETS_S,
    };
    if !observed.is_reachable {
        return vec![Problem::Unreachable];
    }
    let source = observed.source;
    let is_old = |age_s: &u64| *age_s >= oldest_tip_s;
    // A source that downloads the chain has an old tip anyhow.
    let chain = match observed.tip_age_s.filter(is_old) {
        _ if source.is_initial_download => Some(Problem::InitialDownload),
        age_s => age_s.map(|age_s| Problem::OldTip { age_s }),
    };
    let pruned = source.is_pruned.then_some(Problem::Pruned);
    let filters = source.lacks_filters.then_some(Problem::NoFilters);
    let rates = observed.fee_rates;
    let fees = (!rates.is_estimate).then_some(Problem::NoFeeEstimate {
        sat_per_kw: rates.normal,
    });
    let is_low = |reserve: &Reserve| reserve.onchain_sat < reserve.wanted_for_next_sat;
    let reserve = observed.reserve.filter(is_low).map(Problem::LowReserve);
    let all = [chain, pruned, filters, fees, reserve];
    all.into_iter().flatten().collect()
}

/// The problems that were there before, so that each is logged when it begins and when it ends.
#[derive(Default)]
struct Known(BTreeMap<&'static str, Problem>);

impl Known {
    /// Takes the problems of now; those that have begun, and the names of those that have ended.
    fn update(&mut self, now: Vec<Problem>) -> (Vec<Problem>, Vec<&'static str>) {
        let now: BTreeMap<_, _> = now.into_iter().map(|it| (it.name(), it)).collect();
        let begun = now.iter().filter(|(name, _)| !self.0.contains_key(*name));
        let begun = begun.map(|(_, problem)| problem.clone()).collect();
        let ended = self.0.keys().filter(|name| !now.contains_key(*name));
        let ended = ended.copied().collect();
        self.0 = now;
        (begun, ended)
    }
}

/// See the module.
pub(crate) struct Health {
    pub network: Network,
    pub chain: Arc<Follower>,
    pub hub: Arc<Hub>,
    pub metrics: Metrics,
    pub changes: Arc<Changes>,
    /// As it was when the hub was last looked at.
    pub reserve: Mutex<Option<Reserve>>,
    /// Whether the host is connected to each of its mailboxes, by their authorities.
    pub mailboxes: Mutex<Vec<(String, watch::Receiver<bool>)>>,
    /// The certificates of listeners, by the listeners' authorities.
    pub certificates: OnceLock<Vec<(String, Certificate)>>,
    /// The Tor process, when it is enabled.
    pub tor: Option<watch::Receiver<TorState>>,
}

impl Health {
    /// From now on this mailbox is watched.
    pub fn watch_mailbox(&self, authority: String, connected: watch::Receiver<bool>) {
        self.lock_mailboxes().push((authority, connected));
    }

    /// The mailboxes to which the host is not connected.
    fn mailboxes_away(&self) -> Vec<String> {
        let mailboxes = self.lock_mailboxes();
        let away = mailboxes.iter().filter(|(_, is)| !*is.borrow());
        away.map(|(authority, _)| authority.clone()).collect()
    }

    /// Days until the certificate of each listener with TLS expires.
    pub fn certificate_days_left(&self) -> Vec<(String, i64)> {
        let certificates = self.certificates.get().into_iter().flatten();
        let left = certificates.map(|(listener, it)| (listener.clone(), it.days_left()));
        left.collect()
    }

    fn lock_mailboxes(&self) -> MutexGuard<'_, Vec<(String, watch::Receiver<bool>)>> {
        let mailboxes = self.mailboxes.lock();
        mailboxes.unwrap_or_else(PoisonError::into_inner)
    }

    /// The problems now.
    pub fn problems(&self) -> Vec<Problem> {
        problems(&Observed {
            network: self.network,
            is_reachable: self.chain.reachable(),
            source: self.chain.source_health(),
            tip_age_s: self.tip_age_s(),
            fee_rates: self.chain.fee_rates(),
            reserve: *self.reserve(),
            mailboxes_away: self.mailboxes_away(),
            tor_stuck: self.tor.as_ref().and_then(|tor| tor.borrow().problem()),
            certificate_days_left: self.certificate_days_left(),
        })
    }

    /// Looks at the hub's reserve, and sets its metrics.
    pub async fn look_at_hub(&self) -> Option<Reserve> {
        let overview = match self.hub.node() {
            Some(hub) => overview_in_time(&hub).await,
            None => None,
        };
        let reserve = overview.map(|overview| Reserve {
            onchain_sat: overview
                .onchain_sat
                .saturating_add(overview.onchain_pending_sat),
            wanted_sat: overview.reserve_sat,
            wanted_for_next_sat: overview.reserve_for_next_sat,
        });
        if let Some(reserve) = reserve {
            self.metrics
                .set_hub_reserve(reserve.onchain_sat, reserve.wanted_sat);
        }
        *self.reserve() = reserve;
        reserve
    }

    fn reserve(&self) -> MutexGuard<'_, Option<Reserve>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Age of the best block by its header, in seconds; a block of the future has none. `None` when it is not known.
    pub fn tip_age_s(&self) -> Option<u64> {
        let tip_unix_s = self.chain.source_health().tip_unix_s?;
        Some(now_unix_s().saturating_sub(tip_unix_s.into()))
    }

    /// Logs problems as they begin and end, until the host ends.
    pub async fn watch(self: Arc<Self>) {
        let mut known = Known::default();
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.look_at_hub().await;
            let now = self.problems();
            self.metrics.set_problems(now.iter().map(Problem::name));
            let (begun, ended) = known.update(now);
            for problem in begun {
                tracing::warn!("{problem}");
                self.changes
                    .report(Kind::ProblemBegan, "", problem.to_string());
            }
            for name in ended {
                tracing::info!("no longer a problem: {name}");
                self.changes.report(Kind::ProblemEnded, "", name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well(network: Network) -> Observed {
        Observed {
            network,
            is_reachable: true,
            source: SourceHealth::default(),
            tip_age_s: Some(600),
            fee_rates: FeeRates::FLOOR,
            reserve: None,
            mailboxes_away: Vec::new(),
            tor_stuck: None,
            certificate_days_left: vec![("0.0.0.0:443".into(), CERTIFICATE_DAYS)],
        }
    }

    const LOW: Reserve = Reserve {
        onchain_sat: 29_999,
        wanted_sat: 20_000,
        wanted_for_next_sat: 30_000,
    };

    fn ill(network: Network) -> Observed {
        let fee_rates = FeeRates {
            normal: 5_000,
            is_estimate: false,
            ..FeeRates::FLOOR
        };
        let source = SourceHealth {
            is_initial_download: true,
            is_pruned: true,
            lacks_filters: true,
            ..SourceHealth::default()
        };
        Observed {
            source,
            fee_rates,
            tip_age_s: Some(1_000_000),
            reserve: Some(LOW),
            ..well(network)
        }
    }

    #[test]
    fn a_host_whose_chain_source_is_well_has_no_problem() {
        assert_eq!(problems(&well(Network::Bitcoin)), []);
    }

    #[test]
    fn a_chain_that_stands_still_is_a_problem_later_on_a_test_network() {
        let of = |network, age_s| {
            problems(&Observed {
                tip_age_s: Some(age_s),
                ..well(network)
            })
        };
        assert_eq!(of(Network::Bitcoin, OLD_TIP_S - 1), []);
        let old = Problem::OldTip { age_s: OLD_TIP_S };
        assert_eq!(of(Network::Bitcoin, OLD_TIP_S), [old]);
        assert_eq!(of(Network::Testnet4, OLD_TIP_S), []);
    }

    #[test]
    fn each_problem_of_a_source_is_reported_with_its_remedy() {
        let found = problems(&ill(Network::Bitcoin));
        let names: Vec<_> = found.iter().map(Problem::name).collect();
        assert_eq!(
            names,
            [
                "initial_download",
                "pruned",
                "no_filters",
                "no_fee_estimate",
                "low_reserve"
            ]
        );
        let text = found.iter().map(ToString::to_string).collect::<String>();
        let parts = [
            "wait for it",
            "prune=0",
            "blockfilterindex=1",
            "20 sat/vB",
            "hub address",
        ];
        for part in parts {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_mailbox_that_cannot_be_reached_is_a_problem_on_every_network() {
        let seen = Observed {
            mailboxes_away: vec!["relay.example:443".into()],
            tor_stuck: None,
            ..well(Network::Regtest)
        };
        let found = problems(&seen);
        let line = found.first().map(ToString::to_string).unwrap_or_default();
        assert!(line.contains("relay.example:443") && line.contains("link.mailboxes"));
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_certificate_that_was_not_renewed_is_a_problem_before_and_after_it_expires() {
        for (days_left, part) in [(13, "expires in 13 days"), (-1, "has expired")] {
            let seen = Observed {
                certificate_days_left: vec![("0.0.0.0:443".into(), days_left)],
                ..well(Network::Bitcoin)
            };
            let found = problems(&seen);
            let line = found.first().map(ToString::to_string).unwrap_or_default();
            assert!(
                line.contains("0.0.0.0:443") && line.contains(part),
                "{line}"
            );
        }
    }

    #[test]
    fn a_hub_that_would_refuse_the_next_channel_has_a_problem() {
        let of = |onchain_sat| {
            let reserve = Reserve { onchain_sat, ..LOW };
            let seen = Observed {
                reserve: Some(reserve),
                ..well(Network::Bitcoin)
            };
            problems(&seen)
        };
        assert_eq!(of(29_999), [Problem::LowReserve(LOW)]);
        assert_eq!(of(30_000), []);
    }

    #[test]
    fn of_a_source_that_does_not_answer_nothing_else_is_reported() {
        let away = Observed {
            is_reachable: false,
            ..ill(Network::Bitcoin)
        };
        assert_eq!(problems(&away), [Problem::Unreachable]);
    }

    #[test]
    fn regtest_has_no_problem_with_its_chain() {
        assert_eq!(problems(&ill(Network::Regtest)), []);
    }

    #[test]
    fn a_problem_is_logged_when_it_begins_and_when_it_ends() {
        let mut known = Known::default();
        let old = |age_s| vec![Problem::OldTip { age_s }];
        assert_eq!(known.update(old(7_200)), (old(7_200), vec![]));
        assert_eq!(known.update(old(7_260)), (vec![], vec![]));
        assert_eq!(known.update(vec![]), (vec![], vec!["old_tip"]));
    }

    #[test]
    fn every_problem_has_its_name_in_the_metric() {
        let mut found = problems(&ill(Network::Bitcoin));
        let mailboxes = vec!["relay.example:443".into()];
        found.extend([
            Problem::Unreachable,
            Problem::OldTip { age_s: 1 },
            Problem::MailboxUnreachable { mailboxes },
            Problem::TorUnreachable {
                reason: "no relay answers".into(),
            },
            Problem::CertificateExpires {
                listener: "0.0.0.0:443".into(),
                days_left: 0,
            },
        ]);
        assert_eq!(found.len(), Problem::NAMES.len());
        assert!(found.iter().all(|it| Problem::NAMES.contains(&it.name())));
    }
}
