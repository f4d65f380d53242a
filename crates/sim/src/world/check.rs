//! Conditions that must hold after every run.

use std::str::FromStr;
use std::sync::Arc;

use bitcoin::OutPoint;
use longhand_testkit::accounts::{ANCHOR_SAT, Books as ChainBooks, OpenChannel};

use crate::world::coins::{Coins, fees_sat};
use crate::world::fault::{Class, Fault};
use crate::world::scenario::Outcome;
use crate::world::simulator::{OWNERS, Simulator, text};

/// Fee rate of the template's channels.
const FEERATE_SAT_PER_KW: u32 = 253;
/// Cost of a commitment at that rate for the channel's funder (BOLT 3): its fee and its anchors.
const COMMITMENT_SAT: u64 = 284 + 2 * ANCHOR_SAT;

/// Limit of the fees of a run: more than all its transactions have a reason to pay.
const MOST_FEES_SAT: u64 = 20_000;

/// Balances of all parties, at a quiet moment.
#[derive(Clone, Debug)]
pub struct Books {
    owners: Vec<Purse>,
    hub: Purse,
    /// The hub's coins on chain that are pending.
    hub_waiting_sat: u64,
    channels: Vec<OpenChannel>,
    /// Funding outputs of owners' channels that are closed.
    closed: Vec<OutPoint>,
}

/// Balance of one party.
#[derive(Clone, Copy, Debug)]
struct Purse {
    /// In channels.
    lightning_msat: u64,
    /// On chain, confirmed or pending.
    onchain_sat: u64,
    /// In channels that are closed, and not swept.
    closing_sat: u64,
}

impl Purse {
    fn total_msat(&self) -> u64 {
        self.lightning_msat + (self.onchain_sat + self.closing_sat) * 1_000
    }
}

impl Books {
    /// Reads the balances of the hub and the owners.
    pub async fn read(sim: &Arc<Simulator>) -> Result<Books, String> {
        let operator = sim.operator().ok_or("the host is gone")?;
        let of_hub = operator.hub_channels().await.map_err(text)?.channels;
        let balance = operator.hub_balance().await.map_err(text)?;
        let hub = Purse {
            lightning_msat: of_hub.iter().map(|channel| channel.balance_msat).sum(),
            onchain_sat: balance.onchain_confirmed_sat + balance.onchain_pending_sat,
            closing_sat: balance.closing_sat,
        };
        let (mut owners, mut channels, mut closed) = (Vec::new(), Vec::new(), Vec::new());
        for owner in 0..OWNERS.len() {
            let asked = sim.owner(owner, async |phone| {
                Ok((phone.balance().await?, phone.channels().await?))
            });
            let (purse, of_owner) = asked.await.map_err(text)?;
            let gone = of_owner.closed.iter().map(|gone| &gone.funding_outpoint);
            // A channel that failed before it was funded has no funding output.
            for funding in gone.filter(|funding| !funding.is_empty()) {
                closed.push(OutPoint::from_str(funding).map_err(text)?);
            }
            owners.push(Purse {
                lightning_msat: purse.lightning_msat,
                onchain_sat: purse.onchain_confirmed_sat + purse.onchain_pending_sat,
                closing_sat: purse.closing_sat,
            });
            for channel in of_owner.channels {
                let same = of_hub
                    .iter()
                    .find(|other| other.funding_outpoint == channel.funding_outpoint);
                let hubs = same.ok_or("an owner has a channel that the hub does not have")?;
                channels.push(OpenChannel {
                    funding: OutPoint::from_str(&channel.funding_outpoint).map_err(text)?,
                    balances_sat: [hubs.balance_msat / 1_000, channel.balance_msat / 1_000],
                    // Reserves are whole satoshis: what can be sent ends as what is owned.
                    is_split_within_a_satoshi: channel.outbound_msat % 1_000 != 0,
                    feerate_sat_per_kw: FEERATE_SAT_PER_KW.into(),
                });
            }
        }
        Ok(Books {
            owners,
            hub,
            hub_waiting_sat: balance.onchain_pending_sat,
            channels,
            closed,
        })
    }

    /// Channels that are open.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Differences from `outcome`, in words; none when all is well. `coins` are those of the beginning.
    pub fn compare(
        &self,
        after: &Books,
        outcome: &Outcome,
        coins: &Coins,
        sim: &Simulator,
    ) -> Vec<Fault> {
        let fundings: Vec<_> = (self.channels.iter().chain(&after.channels))
            .map(|channel| channel.funding)
            .chain(after.closed.iter().copied())
            .collect();
        let chain = match coins.follow(&sim.devnet, &sim.given(), &fundings) {
            Ok(chain) => chain,
            Err(what) => return vec![Fault::new(Class::Unaccounted, what)],
        };
        let closed = self.closed_unasked(after, outcome, &chain, sim);
        let mut wrong: Vec<_> = closed.into_iter().collect();
        if outcome.paid() != outcome.received() + outcome.lost_msat {
            let what = format!("paid and received differ: {outcome:?}");
            wrong.push(Fault::new(Class::Payment, what));
        }
        if outcome.disputed > 0 {
            let what = format!("payer and payee do not say the same: {outcome:?}");
            wrong.push(Fault::new(Class::Payment, what));
        }
        let fees_sat = fees_sat(&chain) - coins.fees_sat();
        if fees_sat > MOST_FEES_SAT {
            let what = format!("{fees_sat} sat went to miners");
            wrong.push(Fault::new(Class::Unaccounted, what));
        }
        wrong.extend(self.unaccounted(after, outcome, fees_sat));
        wrong.extend(after.against_chain(outcome, chain));
        wrong
    }

    fn closed_unasked(
        &self,
        after: &Books,
        outcome: &Outcome,
        chain: &ChainBooks,
        sim: &Simulator,
    ) -> Option<Fault> {
        let (agreed, forced) = (
            chain.cooperative_closes().count(),
            chain.commitments().count(),
        );
        let waiting = sim.devnet.mempool().len();
        let (had, have) = (self.channels.len(), after.channels.len());
        let is_right = agreed == outcome.closed as usize
            && forced == outcome.forced as usize
            && have + agreed + forced == had + outcome.opened as usize
            && waiting == 0;
        let what = format!(
            "{agreed} channels were closed with both sides agreeing and {forced} by force, {} and {} were to be; {have} \
             channels, before {had}; {waiting} transactions wait",
            outcome.closed, outcome.forced
        );
        (!is_right).then(|| Fault::new(Class::Closed, what))
    }

    /// An owner has the balance from before, changed by payments; `fees_sat` at most were paid to miners.
    fn unaccounted(&self, after: &Books, outcome: &Outcome, fees_sat: u64) -> Vec<Fault> {
        let changed = outcome.opened + outcome.closed + outcome.forced;
        // Amounts on chain are whole satoshis: each change of a channel rounds.
        let costs_sat = fees_sat + u64::from(changed) * (COMMITMENT_SAT + 2);
        let check = |owner: usize| {
            let purse = &after.owners[owner];
            let should = self.owners[owner].total_msat()
                + outcome.received_msat[owner]
                + outcome.spoils_msat[owner]
                - outcome.paid_msat[owner]
                - outcome.fee_msat[owner];
            let has = purse.total_msat();
            let is_right =
                has <= should && has + costs_sat * 1_000 >= should && purse.closing_sat == 0;
            let what = format!(
                "{} has {has} msat and should have {should} but for {costs_sat} sat: {purse:?}",
                OWNERS[owner]
            );
            (!is_right).then(|| Fault::new(Class::Unaccounted, what))
        };
        (0..OWNERS.len()).filter_map(check).collect()
    }

    /// Every satoshi that is reported is in the chain, and the reverse.
    fn against_chain(&self, outcome: &Outcome, chain: ChainBooks) -> Option<Fault> {
        let purses = self.owners.iter().chain([&self.hub]);
        let waiting_sat = match outcome.hub_cheated {
            true => self.hub_waiting_sat,
            false => 0,
        };
        let wallets_sat = purses.map(|purse| purse.onchain_sat).sum::<u64>() - waiting_sat;
        let feerate = outcome.feerate_sat_per_kw.unwrap_or(FEERATE_SAT_PER_KW);
        let channels: Vec<_> = self
            .channels
            .iter()
            .map(|channel| OpenChannel {
                feerate_sat_per_kw: feerate.into(),
                ..channel.clone()
            })
            .collect();
        let unbalanced = chain.balance(wallets_sat, &channels).err()?;
        Some(Fault::new(Class::Unaccounted, unbalanced.to_string()))
    }
}
