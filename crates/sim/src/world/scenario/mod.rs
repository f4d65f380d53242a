//! What is done in a run, by owners and the operator, however often their processes die meanwhile.

//!
//! - `paying`, `channels`: what an owner or the operator does by day.
//! - `asleep`: what happens while a phone is away.

mod asleep;
mod channels;
mod paying;

use std::sync::Arc;

use crate::world::stage::{ANN, BOB, OWNERS, PATIENCE, Stage};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// One owner pays the other.
    Pay,
    /// Both pay each other at once.
    PayBothWays,
    /// A payment to somebody who sleeps: the hub holds it, calls, and gives up.
    Fail,
    /// The hub opens a channel to an owner.
    OpenByHub,
    /// An owner opens a channel to the hub from the wallet.
    OpenByPhone,
    /// Fees rise, and the hub agrees on higher ones with its peers.
    RaiseFees,
    /// An owner closes a channel, and both agree.
    Close,
}

/// What a scenario came to, in the end.
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
    /// Channels that were closed because somebody asked for it.
    pub closed: u32,
}

impl Scenario {
    /// From the simplest.
    pub const ALL: [Scenario; 7] = [
        Scenario::Pay,
        Scenario::PayBothWays,
        Scenario::Fail,
        Scenario::OpenByHub,
        Scenario::OpenByPhone,
        Scenario::RaiseFees,
        Scenario::Close,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Pay => "pay",
            Scenario::PayBothWays => "pay-both-ways",
            Scenario::Fail => "fail",
            Scenario::OpenByHub => "open-by-hub",
            Scenario::OpenByPhone => "open-by-phone",
            Scenario::RaiseFees => "raise-fees",
            Scenario::Close => "close",
        }
    }

    /// Plays it to its end.
    pub(crate) async fn play(self, stage: &Arc<Stage>) -> Result<Outcome, String> {
        let played = async {
            match self {
                Scenario::Pay => paying::pay(stage, ANN, BOB).await,
                Scenario::PayBothWays => {
                    let (one, other) =
                        tokio::join!(paying::pay(stage, ANN, BOB), paying::pay(stage, BOB, ANN));
                    Ok(one?.and(other?))
                }
                Scenario::Fail => paying::fail(stage).await,
                Scenario::OpenByHub => channels::open_by_hub(stage).await,
                Scenario::OpenByPhone => channels::open_by_phone(stage).await,
                Scenario::RaiseFees => channels::raise_fees(stage).await,
                Scenario::Close => channels::close(stage).await,
            }
        };
        let played = tokio::time::timeout(PATIENCE, played).await;
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
        self
    }
}
