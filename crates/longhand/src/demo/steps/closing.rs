//! Channels are closed, and everything is counted.

use bitcoin::OutPoint;
use longhand::cast::accounts::Books;
use longhand::cast::{CastError, audit, until};

use super::{CONFIRMATIONS, Counter, Story, World};
use crate::demo::view::grouped;
use crate::demo::world::DISTANCE;

/// More than the delay of a force-closed channel's own output (LDK's default: 144).
const FORCE_CLOSE_DELAY: u32 = 150;

impl Story<'_> {
    pub(super) async fn force_close(&mut self) -> Result<(), CastError> {
        let World {
            chain, host, alice, ..
        } = &self.world;
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
            return Err(CastError::Off("nothing came back to alice's wallet".into()));
        }
        self.view.say(&format!(
            "{} sat are back in alice's wallet",
            grouped(swept)
        ));
        Ok(())
    }

    pub(super) async fn close_together(&mut self) -> Result<(), CastError> {
        let World {
            chain, host, alice, ..
        } = &self.world;
        let counter = Counter::begin(host, "alice").await?;
        alice.close(&self.hub_to_alice.id, false).await?;
        chain.spent_in_mempool(&self.hub_to_alice.funding).await?;
        self.report.round_trips.close = Some(counter.settled().await?);
        self.world.mine(CONFIRMATIONS).await?;
        self.mine_until_settled().await
    }

    /// Mines until nothing of a closed channel is left to be swept.
    pub(super) async fn mine_until_settled(&self) -> Result<(), CastError> {
        let host = &self.world.host;
        until("everything is swept", async || {
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
            self.world.mine(1).await?;
            // A sweep waits for its signature.
            tokio::time::sleep(DISTANCE * 3).await;
            Ok(None)
        })
        .await
    }

    pub(super) async fn books(&self) -> Result<Books, CastError> {
        let fundings = [&self.hub_to_alice, &self.hub_to_bob, &self.alices_own];
        let fundings: Vec<OutPoint> = fundings
            .iter()
            .filter_map(|channel| channel.funding.parse().ok())
            .collect();
        audit::books(&self.world.chain, &self.given, &fundings).await
    }

    pub(super) async fn account(&mut self) -> Result<(), CastError> {
        let World {
            host, alice, bob, ..
        } = &self.world;
        let wallets_sat = audit::wallets_sat(host, [alice, bob]).await?;
        // The one that is still open is the hub's to bob.
        let open = audit::open_channels(host, [alice, bob]).await?;
        let books = self.books().await?;
        let transactions = books.spends.len();
        let balanced = books
            .balance(wallets_sat, &open)
            .map_err(|off| CastError::Off(off.to_string()))?;
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

    pub(super) async fn count_unasked_closes(&mut self) -> Result<(), CastError> {
        let books = self.books().await?;
        let unasked = books
            .commitments()
            .filter(|spend| !self.asked.contains(&spend.txid))
            .count();
        self.report.force_closes_unasked = u32::try_from(unasked).unwrap_or(u32::MAX);
        Ok(())
    }
}
