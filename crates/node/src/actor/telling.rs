//! What a node says of itself, and to its owner's commands.

use std::sync::atomic::Ordering;

use lightning::ln::channel_state::{
    ChannelDetails, InboundHTLCStateDetails, OutboundHTLCStateDetails,
};
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Command, CommandReply, SignerStats};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Actor;
use crate::commands::{self, Outcome, refused};
use crate::{NodeEvent, Overview, State};

impl Actor {
    /// Reading commands see the turn's end, never its middle.
    pub(super) fn answer_questions(&mut self) {
        for (command, reply) in std::mem::take(&mut self.questions) {
            self.carry_out(command, reply);
        }
        for reply in std::mem::take(&mut self.overviews) {
            let overview = self.overview();
            self.outgoing.overviews.push((reply, overview));
        }
    }

    pub(super) fn command(&mut self, command: Command, reply: oneshot::Sender<CommandReply>) {
        if commands::only_reads(&command) {
            return self.questions.push((command, reply));
        }
        let away = !self.signer_is_there() || self.detaching.is_some();
        if away && commands::needs_signer(&command) {
            self.outgoing
                .replies
                .push((reply, refused(commands::signer_away())));
            return;
        }
        let waking = self.state != State::Active && Instant::now() < self.awake_by;
        if waking && commands::needs_channels(&command) {
            return self.deferred.push((command, reply));
        }
        self.carry_out(command, reply);
    }

    /// Goes on with the commands that waited for the channels, when those are usable or it takes too long.
    pub(super) fn take_deferred(&mut self) {
        if self.deferred.is_empty() {
            return;
        }
        let away = !self.signer_is_there();
        if !away && self.state != State::Active && Instant::now() < self.awake_by {
            return;
        }
        for (command, reply) in std::mem::take(&mut self.deferred) {
            if away {
                let refusal = refused(commands::signer_away());
                self.outgoing.replies.push((reply, refusal));
            } else {
                self.carry_out(command, reply);
            }
        }
    }

    pub(super) fn carry_out(&mut self, command: Command, reply: oneshot::Sender<CommandReply>) {
        match self.core.command(command) {
            Ok(Outcome::Now(mut answer)) => {
                if let Reply::Info(info) = &mut answer {
                    info.state = self.state.to_string();
                    info.signer_stats = Some(SignerStats {
                        batches: self.count.batches,
                        ops: self.count.ops,
                    });
                }
                self.outgoing.replies.push((
                    reply,
                    CommandReply {
                        reply: Some(answer),
                    },
                ));
            }
            Ok(Outcome::Later(wait)) => self.waiters.push((wait, reply)),
            Err(error) => self.outgoing.replies.push((reply, refused(error))),
        }
    }

    pub(super) fn answer_waiters(&mut self) {
        let core = &self.core;
        self.waiters.retain(|(_, reply)| !reply.is_closed());
        let mut still = Vec::new();
        for (wait, reply) in std::mem::take(&mut self.waiters) {
            match core.fulfilled(&wait) {
                None => still.push((wait, reply)),
                Some(Ok(answer)) => {
                    self.outgoing.replies.push((
                        reply,
                        CommandReply {
                            reply: Some(answer),
                        },
                    ));
                }
                Some(Err(error)) => self.outgoing.replies.push((reply, refused(error))),
            }
        }
        self.waiters = still;
    }

    pub(super) fn update_state(&mut self) {
        let state = if !self.signer_is_there() {
            State::Dormant
        } else if self.core.config.is_hub || self.all_channels_are_usable() {
            // A hub waits for nobody: its peers come and go as they like.
            State::Active
        } else {
            State::Waking
        };
        self.set_state(state);
    }

    fn all_channels_are_usable(&self) -> bool {
        let channels = self.core.manager.list_channels();
        channels
            .iter()
            .all(|channel| !channel.is_channel_ready || self.core.is_usable(channel))
    }

    pub(super) fn set_state(&mut self, state: State) {
        if state != self.state {
            self.state = state;
            self.outgoing.events.push(NodeEvent::State(state));
        }
    }

    /// HTLCs in both commitments of a channel, and not on their way out of them.
    fn pending_htlcs(&self) -> u32 {
        let in_channel = |channel: &ChannelDetails| {
            let inbound = channel.pending_inbound_htlcs.iter();
            let inbound =
                inbound.filter(|htlc| htlc.state == Some(InboundHTLCStateDetails::Committed));
            let outbound = channel.pending_outbound_htlcs.iter();
            let outbound =
                outbound.filter(|htlc| htlc.state == Some(OutboundHTLCStateDetails::Committed));
            inbound.count() + outbound.count()
        };
        let channels = self.core.manager.list_channels();
        let sum: usize = channels.iter().map(in_channel).sum();
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    pub(super) fn overview(&self) -> Overview {
        let balance = self.core.balance();
        let info = self.core.info();
        Overview {
            node_id: self.core.keys.node_id(),
            state: self.state,
            channels: info.channels,
            usable_channels: info.usable_channels,
            peers: info.peers,
            lightning_msat: balance.lightning_msat,
            onchain_sat: balance.onchain_confirmed_sat,
            onchain_pending_sat: balance.onchain_pending_sat,
            closing_sat: balance.closing_sat,
            pending_htlcs: self.pending_htlcs(),
            earliest_deadline: self.core.earliest_deadline(),
            restarts: self.restarts.load(Ordering::Relaxed),
            signer_batches: self.count.batches,
            signer_chain: self.count.answered,
        }
    }
}
