//! Commands of owners and the operator in a run, however often their processes die meanwhile.
//!
//! - `paying`, `channels`: the usual commands of owners and the operator.
//! - `forced`: channels that end without an agreement, and a peer that cheats.
//! - `asleep`: phones that are away.
//! - `pace`: blocks, polls and latency.

mod asleep;
mod channels;
mod forced;
mod pace;
mod paying;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use forced::close_hubs_channel;
pub(crate) use pace::Pace;

use crate::world::plan::{How, Kind};
use crate::world::simulator::{ANN, BOB, OWNERS, Simulator};

/// Time in which a settled HTLC leaves both commitments, with the longest latency.
const LAST_STEPS: Duration = Duration::from_secs(3);

const SHORT: Duration = Duration::from_secs(6 * 3600);
/// Time limit of scenarios in which days pass.
const LONG: Duration = Duration::from_secs(14 * 24 * 3600);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// One owner pays the other.
    Pay,
    /// One owner pays the other more than one channel can carry.
    PayInParts,
    /// Both pay each other at once.
    PayBothWays,
    /// A payment to a phone that sleeps: the hub holds it, sends wake calls, and gives up.
    Fail,
    /// A payment to a phone that sleeps, and comes after a wake call.
    Woken,
    /// The hub opens a channel to an owner.
    OpenByHub,
    /// An owner opens a channel to the hub from the wallet.
    OpenByPhone,
    /// Fees rise, and the hub agrees on higher ones with its peers.
    RaiseFees,
    /// An owner closes a channel, and both agree.
    Close,
    /// The hub closes a channel by force while the owner's phone is away, with a payment in flight each way.
    ForceCloseByHub,
    /// An owner closes a channel by force, with a payment in flight each way.
    ForceCloseByPhone,
    /// The hub broadcasts a revoked commitment, and the owner's phone is away for a week.
    Breach,
    /// An HTLC nears its deadline with the phone away: it gets a wake call, and comes.
    Deadline,
    /// The phone does not come: the HTLC is lost, and nothing else.
    DeadlineMissed,
    /// Fees rise twentyfold while both phones are away, and fall again.
    FeeSpike,
}

/// The outcome of a scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Paid by each owner, without fees.
    pub paid_msat: [u64; 2],
    /// Received by each owner.
    pub received_msat: [u64; 2],
    /// Fees of each owner's payments.
    pub fee_msat: [u64; 2],
    /// Channels that were opened.
    pub opened: u32,
    /// Channels that were closed because somebody asked for it, both sides agreeing.
    pub closed: u32,
    /// Channels that were closed by force because somebody asked for it.
    pub forced: u32,
    /// Paid by the hub itself, as it reports.
    pub hub_paid_msat: u64,
    /// The part of it that an owner lost because the phone came too late, as reported there.
    pub lost_msat: u64,
    /// The hub still waits for a sweep of outputs that were taken from it.
    pub hub_cheated: bool,
    /// Payments for which payer and payee report different amounts.
    pub disputed: u32,
    /// Taken by each owner from a cheater.
    pub spoils_msat: [u64; 2],
    /// Fee rate of all channels, when it has changed.
    pub feerate_sat_per_kw: Option<u32>,
}

impl Scenario {
    /// From the simplest.
    pub const ALL: [Scenario; 15] = [
        Scenario::Pay,
        Scenario::PayInParts,
        Scenario::PayBothWays,
        Scenario::Fail,
        Scenario::Woken,
        Scenario::OpenByHub,
        Scenario::OpenByPhone,
        Scenario::RaiseFees,
        Scenario::Close,
        Scenario::ForceCloseByHub,
        Scenario::ForceCloseByPhone,
        Scenario::Breach,
        Scenario::Deadline,
        Scenario::DeadlineMissed,
        Scenario::FeeSpike,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Pay => "pay",
            Scenario::PayInParts => "pay-in-parts",
            Scenario::PayBothWays => "pay-both-ways",
            Scenario::Fail => "fail",
            Scenario::Woken => "woken",
            Scenario::OpenByHub => "open-by-hub",
            Scenario::OpenByPhone => "open-by-phone",
            Scenario::RaiseFees => "raise-fees",
            Scenario::Close => "close",
            Scenario::ForceCloseByHub => "force-close-by-hub",
            Scenario::ForceCloseByPhone => "force-close-by-phone",
            Scenario::Breach => "breach",
            Scenario::Deadline => "deadline",
            Scenario::DeadlineMissed => "deadline-missed",
            Scenario::FeeSpike => "fee-spike",
        }
    }

    /// Whether days pass in it by themselves.
    pub(crate) fn lasts_days(self) -> bool {
        matches!(self, Scenario::Breach | Scenario::FeeSpike)
    }

    /// Time limit without the time of interruptions.
    fn lasts_at_most(self) -> Duration {
        match self {
            Scenario::Breach | Scenario::FeeSpike => LONG,
            _ => SHORT,
        }
    }

    /// Whether it decides when there is a block.
    fn has_its_own_blocks(self) -> bool {
        use Scenario::{
            Breach, Deadline, DeadlineMissed, FeeSpike, ForceCloseByHub, ForceCloseByPhone,
        };
        matches!(
            self,
            Breach | Deadline | DeadlineMissed | FeeSpike | ForceCloseByHub | ForceCloseByPhone
        )
    }

    /// Whether such an interruption of a step of `kind` has an effect here. Where no phone gets wake calls, a
    /// call has none when it is late, repeated, lost, or delivered and reported as failed.
    pub(crate) fn feels(self, kind: Kind, how: How) -> bool {
        let gets_calls = matches!(self, Scenario::Woken | Scenario::Deadline);
        kind != Kind::WakeCall || gets_calls || how == How::Fails
    }

    /// Channels of each owner at the beginning.
    pub(crate) fn channels(self) -> usize {
        match self {
            Scenario::PayInParts => 2,
            _ => 1,
        }
    }

    /// Plays it to its end.
    pub(crate) async fn play(self, sim: &Arc<Simulator>) -> Result<Outcome, String> {
        let played = async {
            match self {
                Scenario::Pay => paying::pay(sim, ANN, BOB).await,
                Scenario::PayInParts => paying::pay_in_parts(sim).await,
                Scenario::PayBothWays => {
                    let (one, other) =
                        tokio::join!(paying::pay(sim, ANN, BOB), paying::pay(sim, BOB, ANN));
                    Ok(one?.and(other?))
                }
                Scenario::Fail => paying::fail(sim).await,
                Scenario::Woken => paying::woken(sim).await,
                Scenario::OpenByHub => channels::open_by_hub(sim).await,
                Scenario::OpenByPhone => channels::open_by_phone(sim).await,
                Scenario::RaiseFees => channels::raise_fees(sim).await,
                Scenario::Close => channels::close(sim).await,
                Scenario::ForceCloseByHub => forced::close_by_hub(sim).await,
                Scenario::ForceCloseByPhone => forced::close_by_phone(sim).await,
                Scenario::Breach => forced::breach(sim).await,
                Scenario::Deadline => asleep::deadline(sim).await,
                Scenario::DeadlineMissed => asleep::deadline_missed(sim).await,
                Scenario::FeeSpike => asleep::fee_spike(sim).await,
            }
        };
        let to_the_end = async {
            let outcome = played.await?;
            // Both sides report a payment before it is out of their commitments.
            sim.quiet_for(LAST_STEPS).await?;
            Ok(outcome)
        };
        let patience = self.lasts_at_most() + sim.plan.lasts();
        let played = tokio::time::timeout(patience, to_the_end).await;
        played.map_err(|_| "the scenario did not end".to_owned())?
    }
}

impl Outcome {
    fn and(mut self, other: Outcome) -> Outcome {
        for owner in 0..OWNERS.len() {
            self.paid_msat[owner] += other.paid_msat[owner];
            self.received_msat[owner] += other.received_msat[owner];
            self.fee_msat[owner] += other.fee_msat[owner];
        }
        self.disputed += other.disputed;
        self
    }

    /// One payment, as its two sides report it.
    fn sees(&mut self, paid_msat: u64, received_msat: u64) {
        self.disputed += u32::from(paid_msat != received_msat);
    }

    /// Paid by all together.
    pub fn paid(&self) -> u64 {
        self.paid_msat.iter().sum::<u64>() + self.hub_paid_msat
    }

    /// Received by all together; nobody pays the hub.
    pub fn received(&self) -> u64 {
        self.received_msat.iter().sum()
    }

    /// Channels that are left of so many.
    pub fn channels(&self, before: usize) -> usize {
        (before + self.opened as usize).saturating_sub((self.closed + self.forced) as usize)
    }
}
