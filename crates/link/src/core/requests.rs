//! Requests both ways, for as long as the two processes last.
//!
//! What is asked stays here until it is answered, and is sent again on a new connection. What was taken is
//! remembered by the process that asked, so that a request that comes twice is executed once: while it runs
//! the second one joins it, and afterwards it gets the answer that was kept. Ids only grow and arrive in order,
//! so an id below the highest one that is neither running nor kept was answered long ago: it is refused with
//! `FORGOTTEN`, never executed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use longhand_proto::link::{Request, RequestError};

use super::{Config, Side};
use crate::error::LinkError;
use crate::key::Instance;

/// Processes of the other side whose requests are remembered.
const INSTANCES: usize = 4;
/// Answers kept for one of them, in number and bytes; the newest is kept whatever its size.
const ANSWERS: usize = 256;
const ANSWER_BYTES: usize = 256 << 10;
/// Room in a frame for what is not payload.
const FRAME_HEAD: usize = 64;

/// What a request was answered with.
pub type Answer = Result<Vec<u8>, RequestError>;

/// A refusal with a stable code and one line for a person.
pub fn refusal(code: &str, message: impl Into<String>) -> RequestError {
    RequestError {
        code: code.into(),
        message: message.into(),
    }
}

/// What this process asks and what it is asked. Survives connections.
pub struct Requests {
    side: Side,
    config: Config,
    instance: Instance,
    next_id: u64,
    asked: BTreeMap<u64, Asked>,
    /// Newest first; the first is the one of the current or last connection.
    remotes: VecDeque<(Instance, Served)>,
}

struct Asked {
    request: Request,
    /// Whether it was ever given to a connection.
    sent: bool,
}

#[derive(Default)]
struct Served {
    highest: u64,
    /// With the size of each.
    running: BTreeMap<u64, usize>,
    cancelled: BTreeSet<u64>,
    done: VecDeque<(u64, Answer)>,
    bytes: usize,
}

/// What becomes of a request that arrives.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrival {
    /// It is new: execute it.
    New,
    /// It runs already; its answer will come.
    Running,
    /// It was answered before.
    Done(Answer),
}

impl Requests {
    /// Nothing asked, nothing taken. `instance` is this process, at random.
    pub fn new(side: Side, config: Config, instance: Instance) -> Requests {
        let (next_id, asked, remotes) = (side.first_id(), BTreeMap::new(), VecDeque::new());
        Requests {
            side,
            config,
            instance,
            next_id,
            asked,
            remotes,
        }
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// As given.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// This process.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// The other side's process of the current or last connection.
    pub fn remote(&self) -> Option<Instance> {
        self.remotes.front().map(|(instance, _)| *instance)
    }

    /// Adds a request of this side; returns its id. A session sends it.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`].
    pub fn ask(&mut self, kind: &str, payload: Vec<u8>) -> Result<u64, LinkError> {
        let size = payload
            .len()
            .saturating_add(kind.len())
            .saturating_add(FRAME_HEAD);
        if size > self.config.max_frame {
            return Err(LinkError::TooLarge {
                size,
                max: self.config.max_frame,
            });
        }
        let id = self.next_id;
        self.next_id += 2;
        let request = Request {
            id,
            kind: kind.into(),
            payload,
        };
        self.asked.insert(
            id,
            Asked {
                request,
                sent: false,
            },
        );
        Ok(id)
    }

    /// Forgets a request of this side; an answer that still comes is ignored. Returns whether it was waiting
    /// and the other side may know of it.
    pub fn withdraw(&mut self, id: u64) -> bool {
        self.asked.remove(&id).is_some_and(|asked| asked.sent)
    }

    /// Forgets all requests of this side: the conversation is over.
    pub fn withdraw_all(&mut self) {
        self.asked.clear();
    }

    /// Forgets the answers given: both sides have settled everything, and an idle conversation should cost
    /// nothing. A request that comes again all the same is refused, not executed.
    pub fn forget_answers(&mut self) {
        for (_, served) in &mut self.remotes {
            served.done = VecDeque::new();
            served.bytes = 0;
        }
    }

    /// Keeps the answer to a request of `remote`. Returns it when it is to be sent: the other side is still
    /// that process and wants it.
    pub fn answer(&mut self, remote: Instance, id: u64, answer: Answer) -> Option<Answer> {
        let current = self.remote() == Some(remote);
        let max_payload = self.config.max_frame.saturating_sub(FRAME_HEAD);
        let (_, served) = self
            .remotes
            .iter_mut()
            .find(|(instance, _)| *instance == remote)?;
        if served.running.remove(&id).is_none() || served.cancelled.remove(&id) {
            return None;
        }
        let answer = match answer {
            Ok(payload) if payload.len() > max_payload => Err(refusal(
                "TOO_LARGE",
                "the answer is too large for the link: ask for less",
            )),
            answer => answer,
        };
        served.keep(id, answer.clone());
        current.then_some(answer)
    }

    /// Requests of the process `remote` that run now.
    pub(crate) fn running(&self, remote: &Instance) -> Vec<u64> {
        let served = self.remotes.iter().find(|(instance, _)| instance == remote);
        served.map_or(Vec::new(), |(_, served)| {
            served.running.keys().copied().collect()
        })
    }

    /// A connection with the process `remote` is open. Returns the requests of this side that an earlier
    /// process of the other side may have executed, and which are given up here; and those of a process long
    /// gone that nobody waits for any more.
    pub(crate) fn meet(&mut self, remote: Instance) -> (Vec<u64>, Vec<(Instance, u64)>) {
        let mut restarted = Vec::new();
        if self.remote() != Some(remote) {
            restarted = self
                .asked
                .iter()
                .filter(|(_, a)| a.sent)
                .map(|(id, _)| *id)
                .collect();
            self.asked.retain(|_, asked| !asked.sent);
        }
        let known = self
            .remotes
            .iter()
            .position(|(instance, _)| *instance == remote);
        let entry = known.and_then(|at| self.remotes.remove(at));
        self.remotes
            .push_front(entry.unwrap_or_else(|| (remote, Served::default())));
        let mut orphans = Vec::new();
        while self.remotes.len() > INSTANCES {
            if let Some((instance, served)) = self.remotes.pop_back() {
                orphans.extend(served.running.into_keys().map(|id| (instance, id)));
            }
        }
        (restarted, orphans)
    }

    /// What to send on a new connection: all requests of this side but those the other side is still at.
    pub(crate) fn resend(&mut self, open: &BTreeSet<u64>) -> Vec<Request> {
        let waiting = self
            .asked
            .values_mut()
            .filter(|asked| !open.contains(&asked.request.id));
        waiting
            .map(|asked| {
                asked.sent = true;
                asked.request.clone()
            })
            .collect()
    }

    /// One request of this side, to be sent now.
    pub(crate) fn take_to_send(&mut self, id: u64) -> Option<Request> {
        let asked = self.asked.get_mut(&id)?;
        asked.sent = true;
        Some(asked.request.clone())
    }

    /// An answer of the other side. Returns whether it was waited for.
    pub(crate) fn answered(&mut self, id: u64) -> bool {
        self.asked.remove(&id).is_some()
    }

    /// A request of the other side.
    pub(crate) fn arrive(&mut self, id: u64, kind: &str, size: usize) -> Arrival {
        let busy = |served: &Served| {
            let taken: usize = served.running.values().sum();
            served.running.len() >= self.config.max_in_flight
                || taken > 0 && taken + size > self.config.max_in_flight_bytes
        };
        let known = self.config.serves.iter().any(|served| served == kind);
        let Some((_, served)) = self.remotes.front_mut() else {
            return Arrival::Done(Err(refusal("UNANSWERED", "there is no session")));
        };
        if served.running.contains_key(&id) {
            return Arrival::Running;
        }
        if let Some(answer) = served.kept(id) {
            return Arrival::Done(answer);
        }
        if id <= served.highest {
            return Arrival::Done(Err(forgotten()));
        }
        served.highest = id;
        let refused = if !known {
            refusal("UNKNOWN_KIND", "requests of this kind are not served here")
        } else if busy(served) {
            refusal(
                "BUSY",
                "too many requests are in execution: ask again when some are answered",
            )
        } else {
            served.running.insert(id, size);
            return Arrival::New;
        };
        served.keep(id, Err(refused.clone()));
        Arrival::Done(Err(refused))
    }

    /// The answer to a request of the current process that was said to be in execution; `None` while it is. One that is no
    /// longer kept is told to be: nobody asks again for what was promised.
    pub(crate) fn promised(&self, id: u64) -> Option<Answer> {
        let (_, served) = self.remotes.front()?;
        let runs = served.running.contains_key(&id);
        let kept = || served.kept(id).unwrap_or_else(|| Err(forgotten()));
        (!runs).then(kept)
    }

    /// The other side no longer wants an answer. Returns whether the request runs.
    pub(crate) fn cancelled(&mut self, id: u64) -> bool {
        let Some((_, served)) = self.remotes.front_mut() else {
            return false;
        };
        served.running.contains_key(&id) && served.cancelled.insert(id)
    }
}

impl Served {
    fn kept(&self, id: u64) -> Option<Answer> {
        let kept = self.done.iter().find(|(done, _)| *done == id);
        kept.map(|(_, answer)| answer.clone())
    }

    fn keep(&mut self, id: u64, answer: Answer) {
        self.bytes += size(&answer);
        self.done.push_back((id, answer));
        while self.done.len() > ANSWERS || (self.bytes > ANSWER_BYTES && self.done.len() > 1) {
            if let Some((_, forgotten)) = self.done.pop_front() {
                self.bytes -= size(&forgotten);
            }
        }
    }
}

fn forgotten() -> RequestError {
    refusal(
        "FORGOTTEN",
        "the answer was given and is no longer kept: ask anew",
    )
}

fn size(answer: &Answer) -> usize {
    answer.as_ref().map_or(0, Vec::len)
}
