//! Channels are closed, and everything is counted.

use bitcoin::OutPoint;
use longhand_testkit::KitError;
use longhand_testkit::accounts::Books;
use longhand_testkit::processes::World;
use longhand_testkit::rounds::{Counter, DISTANCE};

use super::{ALICE, PATIENCE, Story};
use crate::demo::view::grouped;

/// More than the delay of a force-closed channel's own output (LDK's default: 144).
const FORCE_CLOSE_DELAY: u32 = 150;
/// Blocks that are mined at once while the hub waits: its commitment may be the one that confirms, and delays its outputs by a week.
const HUB_STEP: u32 = 100;
/// Of a cooperative close.
const CONFIRMATIONS: u32 = 6;

impl Story<'_> {
    pub(super) async fn force_close(&mut self) -> Result<(), KitError> {
        let World {
            chain,
            host,
            phones,
            ..
        } = &self.world;
        let alice = &phones[ALICE];
        Counter::begin(host, "alice").await?;
        let before = host.node("alice").await?.onchain_sat;
        alice.close(&self.alices_own.id, true).await?;
        self.asked
            .push(chain.spent_in_mempool(&self.alices_own.funding).await?);
        self.world.mine(1).await?;
        self.world.mine(FORCE_CLOSE_DELAY).await?;
        self.mine_until_settled().await?;
        let swept = self
            .world
            .host
            .node("alice")
            .await?
            .onchain_sat
            .saturating_sub(before);
        if swept == 0 {
            return Err(KitError::Unexpected(
                "nothing came back to alice's wallet".into(),
            ));
        }
        self.view.say(&format!(
            "{} sat are back in alice's wallet",
            grouped(swept)
        ));
        Ok(())
    }

    pub(super) async fn close_together(&mut self) -> Result<(), KitError> {
        let World {
            chain,
            host,
            phones,
            ..
        } = &self.world;
        let alice = &phones[ALICE];
        let counter = Counter::begin(host, "alice").await?;
        alice.close(&self.hub_to_alice.id, false).await?;
        chain.spent_in_mempool(&self.hub_to_alice.funding).await?;
        self.report.round_trips.close = Some(counter.settled().await?);
        self.world.mine(CONFIRMATIONS).await?;
        self.mine_until_settled().await
    }

    /// Mines until nothing of a closed channel is left to be swept.
    pub(super) async fn mine_until_settled(&self) -> Result<(), KitError> {
        let host = &self.world.host;
        PATIENCE
            .until("everything is swept", async || {
                let mut waiting = Vec::new();
                for owner in ["alice", "bob"] {
                    let node = host.node(owner).await?;
                    waiting.extend([node.closing_sat, node.onchain_pending_sat]);
                }
                let hub = host.hub_balance().await?;
                waiting.extend([hub.closing_sat, hub.onchain_pending_sat]);
                if waiting.iter().all(|sat| *sat == 0) {
                    return Ok(Some(()));
                }
                let blocks = match hub.closing_sat {
                    0 => 1,
                    _ => HUB_STEP,
                };
                self.world.mine(blocks).await?;
                // A sweep waits for its signature.
                tokio::time::sleep(DISTANCE * 3).await;
                Ok(None)
            })
            .await
    }

    pub(super) async fn books(&self) -> Result<Books, KitError> {
        let fundings = [&self.hub_to_alice, &self.hub_to_bob, &self.alices_own];
        let fundings: Vec<OutPoint> = fundings
            .iter()
            .filter_map(|channel| channel.funding.parse().ok())
            .collect();
        self.world.books(&fundings).await
    }

    pub(super) async fn account(&mut self) -> Result<(), KitError> {
        let wallets_sat = self.world.wallets_sat().await?;
        // The one that is still open is the hub's to bob.
        let open = self.world.open_channels().await?;
        let books = self.books().await?;
        let transactions = books.spends.len();
        let balanced = books
            .balance(wallets_sat, &open)
            .map_err(|off| KitError::Unexpected(off.to_string()))?;
        let parts = [
            (balanced.wallets, "in wallets"),
            (balanced.channels, "in channels"),
            (balanced.set_aside, "set aside in channels for closing them"),
            (balanced.anchors, "in anchors that nobody needed"),
        ];
        for (sat, what) in parts {
            self.view.say(&format!("{:>12} sat {what}", grouped(sat)));
        }
        let fees = grouped(balanced.fees);
        self.view.say(&format!(
            "{fees:>12} sat of fees for {transactions} transactions"
        ));
        let given = grouped(balanced.given);
        self.view
            .say(&format!("{given:>12} sat, all that the faucet gave"));
        self.report.accounted = true;
        Ok(())
    }

    pub(super) async fn count_unasked_closes(&mut self) -> Result<(), KitError> {
        let books = self.books().await?;
        let unasked = books
            .commitments()
            .filter(|spend| !self.asked.contains(&spend.txid))
            .count();
        self.report.force_closes_unasked = u32::try_from(unasked).unwrap_or(u32::MAX);
        Ok(())
    }
}
