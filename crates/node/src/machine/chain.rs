//! The chain's events: which part gets a block, and in which order.

use longhand_chain::{BlockRef, ChainEvent};

use crate::api::NodeEvent;
use crate::machine::turn::Turn;
use crate::parts::chain_feed::{self, Block, ChainFeed, Step};
use crate::parts::claims::Claims;
use crate::parts::closed_channels::ClosedChannels;
use crate::parts::coop_closes::CoopCloses;
use crate::parts::deadlines;
use crate::parts::fee_bumps::FeeBumps;
use crate::parts::funding_proofs::FundingProofs;
use crate::parts::held_forwards::HeldForwards;
use crate::parts::onchain_sends::OnchainSends;
use crate::parts::payments::Payments;
use crate::parts::signer_headers::SignerHeaders;
use crate::parts::signer_session::SignerSession;
use crate::parts::sweeps::Sweeps;
use crate::parts::wallet_scan::WalletScan;

/// The turn, and the parts that blocks reach.
pub(super) struct ChainEvents<'a> {
    pub turn: &'a mut Turn,
    pub chain_feed: &'a mut ChainFeed,
    pub claims: &'a mut Claims,
    pub closed_channels: &'a mut ClosedChannels,
    pub coop_closes: &'a mut CoopCloses,
    pub fee_bumps: &'a mut FeeBumps,
    pub funding_proofs: &'a mut FundingProofs,
    pub held_forwards: &'a mut HeldForwards,
    pub onchain_sends: &'a OnchainSends,
    pub payments: &'a mut Payments,
    pub session: &'a SignerSession,
    pub signer_headers: &'a mut SignerHeaders,
    pub sweeps: &'a mut Sweeps,
    pub wallet_scan: &'a mut WalletScan,
}

impl ChainEvents<'_> {
    /// Passes an event to the parts.
    pub fn handle(&mut self, event: ChainEvent) {
        for step in self.chain_feed.steps(self.turn, event) {
            match step {
                Step::Connect(block) => self.connect(block),
                Step::Disconnect(fork) => {
                    self.chain_feed.disconnect(self.turn, fork);
                    self.coop_closes.blocks_disconnected(self.turn, fork.height);
                    self.wallet_scan.disconnected(self.turn, fork);
                    self.signer_headers.disconnected(fork);
                }
                Step::Synced(tip) => self.synced(tip),
            }
        }
    }

    fn connect(&mut self, block: Block) {
        self.chain_feed.connect_wallet(self.turn, &block);
        self.closed_channels
            .find_closings(self.turn, block.transactions());
        self.claims
            .find_spends(self.turn, self.payments, block.transactions());
        self.chain_feed.confirm(self.turn, &block);
        self.coop_closes
            .block_connected(self.turn, block.height, block.transactions());
        let at = (block.height, block.header.block_hash());
        let journal = &self.turn.journal;
        self.funding_proofs
            .block_connected(journal, at, block.transactions());
        if block.height > self.turn.height {
            self.chain_feed.new_best(self.turn, &block);
            self.fee_bumps.block_connected(&**self.turn.wallet());
            self.turn.height = block.height;
            // At once: after a reorganisation the chain may be lower when the stream is next at its tip.
            self.claims.fail_back_late(self.turn, self.payments);
        }
    }

    fn synced(&mut self, tip: BlockRef) {
        self.chain_feed.report_tip(self.turn);
        self.wallet_scan.synced(tip);
        self.signer_headers.synced(tip);
        self.funding_proofs
            .forget_deep(&self.turn.journal, tip.height);
        if self.signer_headers.follows() {
            self.funding_proofs.look(self.turn);
        }
        self.turn.ldk.gate.prune_onions(tip.height);
        self.turn
            .ldk
            .chain_monitor
            .archive_fully_resolved_channel_monitors();
        self.coop_closes.forget_deep(self.turn, tip.height);
        chain_feed::broadcast_again(self.turn, self.coop_closes.unconfirmed());
        self.onchain_sends.broadcast_children(self.turn);
        self.claims.end_failed_back(self.turn, self.payments);
        self.claims.end_resolved(self.turn, self.payments);
        self.held_forwards.report(self.turn);
        if self.turn.config.is_hub {
            let needed = deadlines::peers_needed(self.turn);
            self.turn.output.peers_needed.extend(needed);
        }
        if self.session.is_available() {
            self.sweeps.sweep(self.turn);
        } else if let Some(deadline_height) =
            deadlines::earliest(self.turn, self.claims, self.payments)
        {
            let needed = NodeEvent::SignerNeeded { deadline_height };
            self.turn.output.events.push(needed);
        }
    }
}
