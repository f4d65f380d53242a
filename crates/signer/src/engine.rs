//! The signer engine: one batch in, one reply and at most one record out.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, ScriptBuf};
use longhand_proto::command::Register;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerAnswer, SignerBatch, SignerOp, SignerReply, signer_answer};
use longhand_spv::{Checkpoint, Headers, Params, StoredChange};

use zeroize::Zeroizing;

use crate::filters::Filters;
use crate::handshakes::Handshakes;
use crate::keys::{ADDRESSES, Account, Keychain, Keys, Seed, SeedError};
use crate::ledger::{Entry, LedgerError, LedgerRecord, State, entry};
use crate::limits::Limits;
use crate::points::Points;
use crate::rules::{Refusals, Refused, Rule, judge};
use crate::source::Source;
use crate::view::{Own, Sight, View};

pub(crate) type Answer = signer_answer::Answer;
pub(crate) type Change = entry::Change;

/// The most bytes of the answers to one batch. An operation may ask for a thousand points: without a bound, a batch of 4 MiB would
/// make a reply of gigabytes, and a link carries 4 MiB.
const MAX_REPLY_BYTES: usize = 3 << 20;

/// The most operations with filters in one batch: each looks at all channels.
const MOST_SHOWN: usize = 16;

/// The phone's signer. See the crate's documentation for the contract with its shell.
pub struct Signer {
    pub(crate) keys: Keys,
    pub(crate) state: State,
    hub: Option<PublicKey>,
    pub(crate) headers: Headers,
    pub(crate) source: Source,
    pub(crate) filters: Filters,
    handshakes: Handshakes,
    points: Points,
    refusals: Refusals,
    account: Account,
    ledger_key: Zeroizing<[u8; 32]>,
}

/// The result of a batch.
#[derive(Clone, Debug)]
#[must_use = "the records are to be on disk before the reply leaves"]
pub struct Outcome {
    /// The answers, for the node.
    pub reply: SignerReply,
    /// Records to write and sync before `reply` is sent. Empty when nothing changed.
    pub records: Vec<LedgerRecord>,
    /// What a rule refused, and what one that only warns would have refused, in order.
    pub notices: Vec<Notice>,
    /// Changes of the stored headers ([`Signer::headers`]), in order. They may be written after the reply is sent: headers that are lost come
    /// again.
    pub headers: Vec<StoredChange>,
    /// [`Signer::filters`] has changed, to be stored in the same way.
    pub has_new_filters: bool,
}

/// A refusal, or a warning in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The rule and the reason.
    pub refused: Refused,
    /// The operation was carried out: the owner has set the rule to warn.
    pub is_warning: bool,
}

/// A value, and the records to write and sync before it is used.
#[derive(Clone, Debug)]
#[must_use = "the records are to be on disk before the value is used"]
pub struct Recorded<T> {
    /// The value.
    pub value: T,
    /// Records to write and sync first. Empty when nothing changed.
    pub records: Vec<LedgerRecord>,
    /// What rules that only warn would have refused.
    pub warnings: Vec<Refused>,
}

impl<T> Recorded<T> {
    /// A call that changed nothing.
    pub fn unchanged(value: T) -> Recorded<T> {
        Recorded {
            value,
            records: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The same with another value.
    pub fn with<U>(self, value: U) -> Recorded<U> {
        Recorded {
            value,
            records: self.records,
            warnings: self.warnings,
        }
    }
}

/// The reason for which a signer cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// No keys can be derived from the seed.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Signer {
    /// A signer that has never signed. Only for a new seed, or one that has no channels: for any other, the ledger keeps it from
    /// signing an old state.
    ///
    /// `ledger_key`: 32 secret random bytes that are made with the ledger, kept as long as it, and lost with it. By them the signer
    /// recognises the channel keys that it gave with this ledger: a channel of an earlier one cannot be set up as if it were new.
    pub fn new(
        seed: &Seed,
        network: Network,
        ledger_key: &[u8; 32],
    ) -> Result<Signer, SignerError> {
        let keys = Keys::new(seed, network)?;
        let state = State::new(keys.node_id(), network);
        Ok(Signer {
            keys,
            state,
            hub: None,
            headers: no_headers(network),
            source: Source::default(),
            filters: Filters::default(),
            handshakes: Handshakes::default(),
            points: Points::default(),
            refusals: Refusals::default(),
            account: Account::Bip84,
            ledger_key: Zeroizing::new(*ledger_key),
        })
    }

    /// Restores the signer that wrote `records`, given in order (a snapshot first, if there is one). `ledger_key` as for
    /// [`Signer::new`].
    pub fn restore<R: AsRef<[u8]>>(
        seed: &Seed,
        network: Network,
        ledger_key: &[u8; 32],
        records: impl IntoIterator<Item = R>,
    ) -> Result<Signer, SignerError> {
        let mut signer = Signer::new(seed, network, ledger_key)?;
        signer.state.replay(records)?;
        Ok(signer)
    }

    /// Takes the state of `records`, as [`Signer::restore`] does, but keeps the derived keys: deriving them would take nearly all of a
    /// fuzz target's time. On an error nothing is changed.
    #[cfg(feature = "fuzzing")]
    pub fn replay<R: AsRef<[u8]>>(
        &mut self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<(), LedgerError> {
        let mut state = State::new(self.keys.node_id(), self.keys.network());
        state.replay(records)?;
        self.state = state;
        Ok(())
    }

    /// Answers every operation of `batch`, in order. An operation that is refused changes nothing, and the others are carried out. When
    /// the answers exceed 3 MiB together, the rest is refused for now.
    pub fn handle(&mut self, batch: &SignerBatch, now_unix_s: u64) -> Outcome {
        self.handle_within(batch, now_unix_s, MAX_REPLY_BYTES)
    }

    fn handle_within(&mut self, batch: &SignerBatch, now_unix_s: u64, mut room: usize) -> Outcome {
        let mut changes = Vec::new();
        let mut notices = Vec::new();
        let (mut headers, mut has_new_filters) = (Vec::new(), false);
        let mut times_shown = 0;
        let mut answers = Vec::with_capacity(batch.ops.len());
        for op in &batch.ops {
            let mut warned = Vec::new();
            let answer = match &op.op {
                Some(Op::ExtendHeaders(more)) => {
                    self.extend_headers(more, now_unix_s, &mut headers)
                }
                Some(Op::ShowFilters(more)) => {
                    times_shown += 1;
                    let shown = match times_shown <= MOST_SHOWN {
                        true => self.show_filters(more, &mut has_new_filters),
                        false => Err(full()),
                    };
                    shown.map(|answer| (answer, Vec::new()))
                }
                _ => self.operate(op, now_unix_s, &mut room, &mut warned),
            };
            let answer = match answer {
                Ok((answer, new)) => {
                    self.answered(op, now_unix_s);
                    self.change(new, &mut changes).map(|()| answer)
                }
                Err(refused) => Err(refused),
            };
            let is_warning = answer.is_ok();
            let refused = answer.as_ref().err().cloned();
            let warned = warned.into_iter().filter(|_| is_warning);
            for refused in warned.chain(refused) {
                self.refusals.count(&refused);
                notices.push(Notice {
                    refused,
                    is_warning,
                });
            }
            let answer = answer.unwrap_or_else(|refused| Answer::Refusal(refused.into()));
            answers.push(SignerAnswer {
                answer: Some(answer),
            });
        }
        Outcome {
            reply: SignerReply { answers },
            records: self.record(changes),
            notices,
            headers,
            has_new_filters,
        }
    }

    /// The registration of the node at its host (account BIP 84). `birthday_height`: see the message.
    pub fn register(&self, birthday_height: u32) -> Register {
        self.keys.register(self.account, birthday_height)
    }

    /// The phone's keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The number of the last record. Of two ledgers of one seed, the one with the higher version is the newer.
    pub fn version(&self) -> u64 {
        self.state.version()
    }

    /// The whole state as one record, in place of all records up to [`Signer::version`].
    pub fn snapshot(&self) -> LedgerRecord {
        self.state.snapshot()
    }

    /// Counts of refusals by rule, since this engine was made.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The script of the owner's address at `index` of `keychain`, to check that an address from the host is the owner's. `None` from
    /// index 2^20 on, where a wallet that is restored from the words would not find it.
    pub fn own_script(&self, keychain: Keychain, index: u32) -> Option<ScriptBuf> {
        let script = || self.keys.script(self.account, keychain, index);
        (index < ADDRESSES).then(script).flatten()
    }

    /// The limits of the rules.
    pub fn limits(&self) -> &Limits {
        &self.state.limits
    }

    /// Sets the limits of the rules.
    pub fn set_limits(&mut self, limits: &Limits) -> Result<Recorded<()>, Refused> {
        if limits.second_source != self.limits().second_source {
            self.source.clear();
        }
        let values = limits.changed().into_iter();
        let values = values.map(|(name, value)| entry::Limit { name, value });
        let limits = entry::LimitsSet {
            changed: values.collect(),
        };
        self.owner_call((), Change::LimitsSet(limits))
    }

    /// Switches a rule off, whichever it is, to show that nothing else refuses what it does.
    #[cfg(feature = "audit")]
    pub fn switch_off(&mut self, rule: Rule) {
        self.state.limits.warnings.insert(rule);
    }

    /// Sets the host's own hub. Its channels have rules of their own, see [`Limits`], and the node may always connect to it. Not kept in the
    /// ledger.
    pub fn set_hub(&mut self, hub: Option<PublicKey>) {
        self.hub = hub;
    }

    /// The owner wants the node to connect to this peer. Not kept in the ledger: after a restart the owner asks again.
    pub fn want_peer(&mut self, peer: PublicKey) {
        self.handshakes.want(peer);
    }

    /// An operation was carried out.
    fn answered(&mut self, op: &SignerOp, now_unix_s: u64) {
        if self.points.answered(op) {
            self.handshakes.count(now_unix_s);
        }
    }

    pub(crate) fn hub(&self) -> Option<PublicKey> {
        self.hub
    }

    pub(crate) fn own(&self) -> Own<'_> {
        Own::new(&self.keys, &self.ledger_key)
    }

    /// The chain as the phone sees it.
    pub(crate) fn sight(&self, now_unix_s: u64) -> Sight<'_> {
        Sight {
            limits: &self.state.limits,
            headers: &self.headers,
            source: (!self.state.limits.second_source.is_empty()).then_some(&self.source),
            filters: &self.filters,
            now_unix_s,
        }
    }

    /// All that a rule may look at.
    pub(crate) fn view(&self, now_unix_s: u64) -> View<'_> {
        View {
            state: &self.state,
            own: self.own(),
            hub: self.hub,
            handshakes: &self.handshakes,
            points: &self.points,
            sight: self.sight(now_unix_s),
            now_unix_s,
        }
    }

    /// Applies `new` to the state and adds it to `changes`, for the record.
    pub(crate) fn change(
        &mut self,
        new: Vec<Change>,
        changes: &mut Vec<Change>,
    ) -> Result<(), Refused> {
        for change in new {
            let applied = self.state.apply(change.clone());
            applied.map_err(|_| Refused::malformed("the change cannot be put on record"))?;
            changes.push(change);
        }
        Ok(())
    }

    /// The changes of one call as one record.
    pub(crate) fn record(&mut self, changes: Vec<Change>) -> Vec<LedgerRecord> {
        if changes.is_empty() {
            return Vec::new();
        }
        let begun = (self.version() == 0).then(|| self.state.begun());
        let entries = begun.into_iter().chain(changes).map(Entry::from).collect();
        let sequence = self.version().saturating_add(1);
        self.state.set_version(sequence);
        vec![LedgerRecord::new(sequence, false, entries)]
    }

    /// One change by the owner, as one record.
    pub(crate) fn owner_call<T>(
        &mut self,
        value: T,
        change: Change,
    ) -> Result<Recorded<T>, Refused> {
        self.warned_owner_call(value, change, Vec::new())
    }

    /// The same, with what rules that only warn would have refused.
    pub(crate) fn warned_owner_call<T>(
        &mut self,
        value: T,
        change: Change,
        warnings: Vec<Refused>,
    ) -> Result<Recorded<T>, Refused> {
        let mut changes = Vec::new();
        self.change(vec![change], &mut changes)?;
        let records = self.record(changes);
        let counts = &mut self.refusals;
        warnings.iter().for_each(|refused| counts.count(refused));
        Ok(Recorded {
            value,
            records,
            warnings,
        })
    }

    /// The block headers that the phone knows.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Sets the headers that were stored: those of a new signer begin at the latest checkpoint of the network.
    pub fn set_headers(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// Answers `op` if its answer fits into `room` bytes, and reduces `room` by its size.
    fn operate(
        &self,
        op: &SignerOp,
        now_unix_s: u64,
        room: &mut usize,
        warned: &mut Vec<Refused>,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        if *room == 0 {
            return Err(full());
        }
        let done = self.answer(op, now_unix_s, warned)?;
        let left = room.checked_sub(done.0.encoded_len());
        *room = left.unwrap_or(0);
        left.map(|_| done).ok_or_else(full)
    }

    /// Reads, judges and carries out one operation.
    fn answer(
        &self,
        op: &SignerOp,
        now_unix_s: u64,
        warned: &mut Vec<Refused>,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        let proposal = self.read(op, now_unix_s)?;
        let judged = judge(&self.view(now_unix_s), proposal, warned)?;
        Ok(self.sign(judged, now_unix_s)?)
    }
}

fn full() -> Refused {
    let message = "the batch has more answers than one reply can hold: ask for less";
    Refused::for_now(Rule::Malformed, message)
}

/// The checkpoint alone.
fn no_headers(network: Network) -> Headers {
    let params = Params::of(network);
    let checkpoint = Checkpoint::latest(&params);
    Headers::new(params, checkpoint)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use longhand_proto::signer::{GetPoints, signer_op};

    use super::*;

    #[test]
    fn a_reply_takes_no_more_than_its_room() {
        let seed = Seed::from_entropy(&[1; 16]).unwrap();
        let mut signer = Signer::new(&seed, Network::Regtest, &[4; 32]).unwrap();
        let op = SignerOp {
            channel_keys_id: vec![3; 32],
            op: Some(signer_op::Op::GetPoints(GetPoints {
                first_index: 9,
                count: 10,
            })),
        };
        let batch = SignerBatch { ops: vec![op; 5] };
        let outcome = signer.handle_within(&batch, 0, 3 * 10 * 40);
        let answers = outcome.reply.answers.iter();
        let answered = answers.map(|answer| match &answer.answer {
            Some(Answer::Points(points)) => points.points.len(),
            Some(Answer::Refusal(refusal)) if refusal.retry => 0,
            other => panic!("{other:?}"),
        });
        assert_eq!(answered.collect::<Vec<_>>(), [10, 10, 10, 0, 0]);
    }
}
