//! Requests that the machine has not answered yet, with the senders of their replies.

use std::collections::BTreeMap;

use longhand_proto::command::{CommandReply, Error};
use tokio::sync::oneshot;

use crate::api::Overview;
use crate::machine::output::{Answer, HubAnswer, RequestId};

/// The sender of one reply.
pub(crate) enum ReplyTo {
    Command(oneshot::Sender<CommandReply>),
    Overview(oneshot::Sender<Overview>),
    Hub(oneshot::Sender<Result<HubAnswer, Error>>),
    Done(oneshot::Sender<()>),
}

impl ReplyTo {
    fn is_closed(&self) -> bool {
        match self {
            ReplyTo::Command(sender) => sender.is_closed(),
            ReplyTo::Overview(sender) => sender.is_closed(),
            ReplyTo::Hub(sender) => sender.is_closed(),
            ReplyTo::Done(sender) => sender.is_closed(),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Pending {
    requests: BTreeMap<RequestId, ReplyTo>,
    next_id: RequestId,
}

impl Pending {
    /// Gives a request its id.
    pub fn insert(&mut self, reply_to: ReplyTo) -> RequestId {
        let id = self.next_id;
        self.next_id += 1;
        self.requests.insert(id, reply_to);
        id
    }

    /// Sends an answer. Nobody may wait for it any more.
    pub fn answer(&mut self, id: RequestId, answer: Answer) {
        match (self.requests.remove(&id), answer) {
            (Some(ReplyTo::Command(sender)), Answer::Command(reply)) => {
                let _ = sender.send(reply);
            }
            (Some(ReplyTo::Overview(sender)), Answer::Overview(overview)) => {
                let _ = sender.send(overview);
            }
            (Some(ReplyTo::Hub(sender)), Answer::Hub(answer)) => {
                let _ = sender.send(answer);
            }
            (Some(ReplyTo::Done(sender)), Answer::Done) => {
                let _ = sender.send(());
            }
            _ => {}
        }
    }

    /// Takes the requests out whose caller has gone.
    pub fn take_dropped(&mut self) -> Vec<RequestId> {
        let dropped = self.requests.iter().filter(|(_, it)| it.is_closed());
        let dropped: Vec<RequestId> = dropped.map(|(id, _)| *id).collect();
        for id in &dropped {
            self.requests.remove(id);
        }
        dropped
    }

    /// The node is loaded again: commands are answered with `failure`. The senders of others are dropped: an overview is asked
    /// again, an operator's request fails, and a detach is done, since its signer is not attached again.
    pub fn fail_all(&mut self, failure: &CommandReply) {
        for reply_to in std::mem::take(&mut self.requests).into_values() {
            if let ReplyTo::Command(sender) = reply_to {
                let _ = sender.send(failure.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_answer_reaches_its_caller_and_a_dropped_request_is_reported_once() {
        let mut pending = Pending::default();
        let (sender, mut answer) = oneshot::channel();
        let id = pending.insert(ReplyTo::Done(sender));
        let (sender, gone) = oneshot::channel();
        let dropped = pending.insert(ReplyTo::Command(sender));
        drop(gone);
        assert_eq!(pending.take_dropped(), [dropped]);
        assert!(pending.take_dropped().is_empty());
        pending.answer(id, Answer::Done);
        answer.try_recv().unwrap();
    }

    #[test]
    fn when_the_node_is_loaded_again_commands_fail_and_others_are_asked_again() {
        let mut pending = Pending::default();
        let (sender, mut command) = oneshot::channel();
        pending.insert(ReplyTo::Command(sender));
        let (sender, mut overview) = oneshot::channel::<Overview>();
        pending.insert(ReplyTo::Overview(sender));
        pending.fail_all(&CommandReply::default());
        assert_eq!(command.try_recv().unwrap(), CommandReply::default());
        assert!(overview.try_recv().is_err());
    }
}
