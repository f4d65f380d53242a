//! What must be so after every run.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::OutPoint;

use crate::world::scenario::Outcome;
use crate::world::stage::{OWNERS, Stage, text};

/// What may be wrong after a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A channel was closed that nobody asked to close, or one is missing.
    Closed,
    /// A payment that its two sides see differently.
    Payment,
    /// Somebody has more or less than should be.
    Unaccounted,
    /// A phone signed what was revoked, or two things where there can be one, or gave away what it must keep.
    Signed,
    /// A panic, caught or not.
    Panic,
    /// A task that outlived what it belongs to.
    Leak,
    /// It did not come to its end, or a process could not go on.
    Stuck,
}

impl Class {
    /// In order, as in a table.
    pub const NAMES: [&str; 7] = [
        "closed unasked",
        "payments lost",
        "unaccounted",
        "signed twice or revoked",
        "panics",
        "tasks left",
        "stuck",
    ];
}

/// One thing that is wrong, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of what kind.
    pub class: Class,
    /// For a person.
    pub what: String,
}

impl Fault {
    pub(crate) fn new(class: Class, what: impl Into<String>) -> Fault {
        let what = what.into();
        Fault { class, what }
    }
}

/// Who has what, at a quiet moment.
#[derive(Clone, Debug)]
pub struct Books {
    /// In channels, of each owner.
    lightning_msat: [u64; 2],
    /// On chain and on the way there, of each owner.
    onchain_sat: [u64; 2],
    hub_msat: u64,
    /// Fundings of channels that are open.
    fundings: Vec<OutPoint>,
}

impl Books {
    /// Waits until nothing is under way, and reads them.
    pub async fn read(stage: &Arc<Stage>) -> Result<Books, String> {
        let mut lightning_msat = [0; 2];
        let mut onchain_sat = [0; 2];
        for owner in 0..OWNERS.len() {
            let balance = stage
                .owner(owner, async |phone| phone.balance().await)
                .await;
            let balance = balance.map_err(text)?;
            lightning_msat[owner] = balance.lightning_msat;
            onchain_sat[owner] = balance.onchain_confirmed_sat + balance.onchain_pending_sat;
        }
        let operator = stage.operator().ok_or("the host is gone")?;
        let hub = operator.hub_channels().await.map_err(text)?.channels;
        let fundings = hub
            .iter()
            .map(|channel| OutPoint::from_str(&channel.funding_outpoint).map_err(text))
            .collect::<Result<_, _>>()?;
        Ok(Books {
            lightning_msat,
            onchain_sat,
            hub_msat: hub.iter().map(|channel| channel.balance_msat).sum(),
            fundings,
        })
    }

    /// What is not as `outcome` has it, in words; nothing when all is well.
    pub fn compare(&self, after: &Books, outcome: &Outcome, stage: &Stage) -> Vec<Fault> {
        let mut wrong = Vec::new();
        let mut unless = |is_so: bool, class: Class, what: String| {
            if !is_so {
                wrong.push(Fault::new(class, what));
            }
        };
        let spent = |funding: &&OutPoint| is_spent(stage, funding);
        let closed = self.fundings.iter().filter(spent).count();
        unless(
            closed == outcome.closed as usize,
            Class::Closed,
            format!(
                "{closed} channels were closed, {} were to be",
                outcome.closed
            ),
        );
        unless(
            after.fundings.len() + closed == self.fundings.len() + outcome.opened as usize,
            Class::Closed,
            format!(
                "{} channels after, {} before",
                after.fundings.len(),
                self.fundings.len()
            ),
        );
        unless(
            outcome.paid_msat.iter().sum::<u64>() == outcome.received_msat.iter().sum::<u64>(),
            Class::Payment,
            format!("paid and received differ: {outcome:?}"),
        );
        if outcome.opened + outcome.closed == 0 {
            for (owner, name) in OWNERS.iter().enumerate() {
                let expected = self.lightning_msat[owner] + outcome.received_msat[owner]
                    - outcome.paid_msat[owner]
                    - outcome.fee_msat[owner];
                unless(
                    after.lightning_msat[owner] == expected,
                    Class::Unaccounted,
                    format!(
                        "{name} has {} msat and should have {expected}",
                        after.lightning_msat[owner]
                    ),
                );
                unless(
                    after.onchain_sat[owner] == self.onchain_sat[owner],
                    Class::Unaccounted,
                    format!("{name}'s coins have changed"),
                );
            }
            let fees: u64 = outcome.fee_msat.iter().sum();
            let total = |books: &Books| books.hub_msat + books.lightning_msat.iter().sum::<u64>();
            unless(
                total(self) == total(after),
                Class::Unaccounted,
                format!(
                    "{} msat in channels before, {} after ({fees} in fees)",
                    total(self),
                    total(after)
                ),
            );
        }
        wrong
    }
}

/// Spent in a block or by a transaction that waits for one.
fn is_spent(stage: &Stage, funding: &OutPoint) -> bool {
    let waiting = stage.devnet.mempool();
    let mut inputs = waiting.iter().flat_map(|tx| &tx.input);
    stage.devnet.unspent(funding).is_none() || inputs.any(|input| input.previous_output == *funding)
}
