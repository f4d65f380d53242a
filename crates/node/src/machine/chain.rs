//! The events of the chain: the order in which the parts get a block.

use longhand_chain::{BlockRef, ChainEvent};

use super::NodeMachine;
use crate::api::NodeEvent;
use crate::parts::chain_feed::{self, Block, Step};
use crate::parts::deadlines;

impl NodeMachine {
    pub(super) fn chain_event(&mut self, event: ChainEvent) {
        for step in self.chain_feed.steps(&self.turn, event) {
            match step {
                Step::Connect(block) => self.connect(block),
                Step::Disconnect(fork) => {
                    self.chain_feed.disconnect(&mut self.turn, fork);
                    self.coop_closes
                        .blocks_disconnected(&self.turn, fork.height);
                }
                Step::Synced(tip) => self.synced(tip),
            }
        }
    }

    fn connect(&mut self, block: Block) {
        self.chain_feed.connect_wallet(&self.turn, &block);
        self.closed_channels
            .find_closings(&self.turn, block.transactions());
        self.claims
            .find_spends(&mut self.turn, &mut self.payments, block.transactions());
        self.chain_feed.confirm(&self.turn, &block);
        self.coop_closes
            .block_connected(&self.turn, block.height, block.transactions());
        if block.height > self.turn.height {
            self.chain_feed.new_best(&self.turn, &block);
            self.fee_bumps.block_connected(&**self.turn.wallet());
            self.turn.height = block.height;
            // At once: after a reorganisation the chain may be lower when the stream is next at its tip.
            self.claims.fail_back_late(&self.turn, &mut self.payments);
        }
    }

    fn synced(&mut self, tip: BlockRef) {
        self.chain_feed.report_tip(&self.turn);
        if let Some(remote) = self.turn.remote() {
            remote.prune(tip.height);
        }
        self.turn
            .ldk
            .chain_monitor
            .archive_fully_resolved_channel_monitors();
        self.coop_closes.forget_deep(&self.turn, tip.height);
        chain_feed::broadcast_again(&self.turn, self.coop_closes.unconfirmed());
        self.claims.end_failed_back(&self.turn, &mut self.payments);
        self.claims.end_resolved(&self.turn, &mut self.payments);
        self.held_forwards.report(&mut self.turn);
        if self.turn.config.is_hub {
            let needed = deadlines::peers_needed(&self.turn);
            self.turn.output.peers_needed.extend(needed);
        }
        if self.session.is_available() {
            self.sweeps.sweep(&self.turn);
        } else if let Some(deadline_height) =
            deadlines::earliest(&self.turn, &self.claims, &self.payments)
        {
            let needed = NodeEvent::SignerNeeded { deadline_height };
            self.turn.output.events.push(needed);
        }
    }
}
