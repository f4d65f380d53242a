//! Requests in both directions, for as long as the two processes run.
//!
//! A request of this side stays here until its response is received, and is sent again on a new connection. Requests of the other
//! side are kept by its process, so that one that comes twice is executed once: while it runs the second one joins it, and
//! afterwards it gets the response that was kept. Ids only grow and arrive in order, so an id below the highest one that is neither
//! running nor kept was answered long ago: it is refused with `FORGOTTEN`, never executed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use longhand_proto::Code;
use longhand_proto::link::{Request, RequestError};

use super::{Config, Side};
use crate::error::LinkError;
use crate::key::Instance;

/// Processes of the other side whose requests are remembered.
const INSTANCES: usize = 4;
/// Responses kept for one of them, in number and bytes; the newest is kept whatever its size.
const ANSWERS: usize = 256;
const ANSWER_BYTES: usize = 256 << 10;
/// Room in a frame for all but the payload.
const FRAME_HEAD: usize = 64;

/// The most bytes of a greeting.
pub(crate) const MAX_GREETING: usize = 4 << 10;

/// The payload of a response, or a refusal.
pub type Answer = Result<Vec<u8>, RequestError>;

/// A refusal with a stable code and one line for a person.
pub fn refusal(code: impl Into<String>, message: impl Into<String>) -> RequestError {
    RequestError {
        code: code.into(),
        message: message.into(),
    }
}

/// Requests of this process and of the other side. Outlives connections.
pub struct Requests {
    side: Side,
    config: Config,
    instance: Instance,
    next_id: u64,
    asked: BTreeMap<u64, Asked>,
    /// See [`Requests::set_greeting`].
    greeting: Vec<u8>,
    /// The other side's greeting on the current or last connection.
    pub(crate) remote_greeting: Vec<u8>,
    /// Processes of the other side, newest first; the first is that of the current or last connection.
    remotes: VecDeque<(Instance, Served)>,
    /// Requests in execution of processes that are no longer remembered, and the size of each in bytes: nobody waits for
    /// their responses, and they take room until they end.
    orphans: BTreeMap<(Instance, u64), usize>,
}

struct Asked {
    request: Request,
    /// Whether it was given to a connection.
    sent: bool,
}

#[derive(Default)]
struct Served {
    highest: u64,
    /// Requests in execution, and the size of each in bytes.
    running: BTreeMap<u64, usize>,
    cancelled: BTreeSet<u64>,
    done: VecDeque<(u64, Answer)>,
    bytes: usize,
}

/// The outcome for a request that arrives.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrival {
    /// It is new: execute it.
    New,
    /// It runs already; its response follows.
    Running,
    /// It was answered before.
    Done(Answer),
}

impl Requests {
    /// No requests yet. `instance` is this process, chosen at random.
    pub fn new(side: Side, config: Config, instance: Instance) -> Requests {
        Requests {
            side,
            config,
            instance,
            next_id: side.first_id(),
            asked: BTreeMap::new(),
            greeting: Vec::new(),
            remote_greeting: Vec::new(),
            remotes: VecDeque::new(),
            orphans: BTreeMap::new(),
        }
    }

    /// The side of this process.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The configuration, as given.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// This process.
    pub fn instance(&self) -> Instance {
        self.instance
    }

    /// What the layer above says in the `Hello` of each connection that begins from now on. One of more than 4 KiB is left out.
    pub fn set_greeting(&mut self, greeting: Vec<u8>) {
        self.greeting = match greeting.len() {
            0..=MAX_GREETING => greeting,
            _ => Vec::new(),
        };
    }

    /// As set by [`Requests::set_greeting`].
    pub fn greeting(&self) -> &[u8] {
        &self.greeting
    }

    /// The other side's process of the current or last connection.
    pub fn remote(&self) -> Option<Instance> {
        self.remotes.front().map(|(instance, _)| *instance)
    }

    /// Adds a request of this side, which a session sends; returns its id.
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

    /// Removes a request of this side; a response that still comes is ignored. Returns whether it was pending and may have been
    /// received by the other side.
    pub fn withdraw(&mut self, id: u64) -> bool {
        self.asked.remove(&id).is_some_and(|asked| asked.sent)
    }

    /// Removes all requests of this side when the conversation is down.
    pub fn withdraw_all(&mut self) {
        self.asked.clear();
    }

    /// Removes the kept responses after a detach, when both sides have settled everything, so that an idle conversation takes no
    /// memory. A request that comes again all the same is refused, not executed.
    pub fn forget_answers(&mut self) {
        for (_, served) in &mut self.remotes {
            served.done = VecDeque::new();
            served.bytes = 0;
        }
    }

    /// Keeps the response to a request of `remote`. Returns it when it is to be sent: the other side is still that process and has
    /// not cancelled the request.
    pub fn answer(&mut self, remote: Instance, id: u64, answer: Answer) -> Option<Answer> {
        self.orphans.remove(&(remote, id));
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
                Code::TooLarge,
                "the answer is too large for the link: ask for less",
            )),
            answer => answer,
        };
        served.keep(id, answer.clone());
        current.then_some(answer)
    }

    /// Requests of the process `remote` in execution.
    pub(crate) fn running(&self, remote: &Instance) -> Vec<u64> {
        let served = self.remotes.iter().find(|(instance, _)| instance == remote);
        served.map_or(Vec::new(), |(_, served)| {
            served.running.keys().copied().collect()
        })
    }

    /// Begins a connection with the process `remote`. Returns the requests of this side that an earlier process of the other side may
    /// have executed, which are removed here; and the requests in execution of a process that is no longer kept, whose responses
    /// nobody waits for.
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
                for (id, size) in served.running {
                    self.orphans.insert((instance, id), size);
                    orphans.push((instance, id));
                }
            }
        }
        (restarted, orphans)
    }

    /// Requests to send on a new connection: all of this side but those that the other side has in execution.
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

    /// A request of this side, marked as sent.
    pub(crate) fn take_to_send(&mut self, id: u64) -> Option<Request> {
        let asked = self.asked.get_mut(&id)?;
        asked.sent = true;
        Some(asked.request.clone())
    }

    /// Removes a request of this side for which a response came. Returns whether it was pending.
    pub(crate) fn answered(&mut self, id: u64) -> bool {
        self.asked.remove(&id).is_some()
    }

    /// Takes a request of the other side.
    pub(crate) fn arrive(&mut self, id: u64, kind: &str, size: usize) -> Arrival {
        let is_busy = self.is_busy(size);
        let known = self.config.serves.iter().any(|served| served == kind);
        let Some((_, served)) = self.remotes.front_mut() else {
            return Arrival::Done(Err(refusal(Code::Unanswered, "there is no session")));
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
            refusal(
                Code::UnknownKind,
                "requests of this kind are not served here",
            )
        } else if is_busy {
            refusal(
                Code::Busy,
                "too many requests are in execution: ask again when some are answered",
            )
        } else {
            served.running.insert(id, size);
            return Arrival::New;
        };
        served.keep(id, Err(refused.clone()));
        Arrival::Done(Err(refused))
    }

    /// Whether a request of `size` bytes is one too many. Those of all processes count, since the other side chooses which
    /// process it is.
    fn is_busy(&self, size: usize) -> bool {
        let remotes = self.remotes.iter();
        let running = remotes.flat_map(|(_, served)| served.running.values());
        let sizes = running.chain(self.orphans.values());
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        count >= self.config.max_in_flight
            || bytes > 0 && bytes + size > self.config.max_in_flight_bytes
    }

    /// The response to a request that this side's `Hello` listed as open; `None` while it runs. One that is no longer kept is refused
    /// as `FORGOTTEN`: the other side does not send it again.
    pub(crate) fn promised(&self, id: u64) -> Option<Answer> {
        let (_, served) = self.remotes.front()?;
        let runs = served.running.contains_key(&id);
        let kept = || served.kept(id).unwrap_or_else(|| Err(forgotten()));
        (!runs).then(kept)
    }

    /// Marks a request as cancelled by the other side. Returns whether it is in execution.
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
        Code::Forgotten,
        "the answer was given and is no longer kept: ask anew",
    )
}

fn size(answer: &Answer) -> usize {
    answer.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_busy(arrival: &Arrival) -> bool {
        matches!(arrival, Arrival::Done(Err(refused)) if refused.code == Code::Busy)
    }

    #[test]
    fn requests_of_earlier_processes_take_room_until_they_end() {
        let config = Config {
            max_in_flight: 2,
            ..Config::new("test", &["command"])
        };
        let mut requests = Requests::new(Side::Host, config, Instance([0; 16]));
        for process in 1..=2 {
            requests.meet(Instance([process; 16]));
            assert_eq!(requests.arrive(1, "command", 1), Arrival::New);
        }
        // The first of them are remembered no more.
        for process in 3..=8 {
            requests.meet(Instance([process; 16]));
            assert!(is_busy(&requests.arrive(1, "command", 1)), "{process}");
        }
        assert_eq!(requests.answer(Instance([1; 16]), 1, Ok(Vec::new())), None);
        assert_eq!(requests.arrive(3, "command", 1), Arrival::New);
        assert!(is_busy(&requests.arrive(5, "command", 1)));
    }

    #[test]
    fn the_bytes_of_earlier_processes_count() {
        let config = Config {
            max_in_flight_bytes: 10,
            ..Config::new("test", &["command"])
        };
        let mut requests = Requests::new(Side::Host, config, Instance([0; 16]));
        requests.meet(Instance([1; 16]));
        assert_eq!(requests.arrive(1, "command", 6), Arrival::New);
        requests.meet(Instance([2; 16]));
        assert!(is_busy(&requests.arrive(1, "command", 6)));
        assert_eq!(requests.arrive(3, "command", 4), Arrival::New);
    }
}
