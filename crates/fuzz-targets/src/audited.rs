//! A phone's engine under an audit. It goes back to a known state for every input; its keys are derived once for the process.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bitcoin::Network;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerOp};
use longhand_signer::audit::Audit;
use longhand_signer::{LedgerRecord, Seed, Signer};
use longhand_spv::{Checkpoint, Headers, Params};
use longhand_testkit::phone::LEDGER_KEY;

/// The phone of the testkit with which the tape was recorded.
pub(crate) const PHONE: u8 = 1;

/// The phone's seed.
pub(crate) fn seed() -> Seed {
    longhand_testkit::phone::seed(PHONE)
}

/// The engine, with its keys derived once for the process.
fn engine() -> MutexGuard<'static, Signer> {
    static ENGINE: OnceLock<Mutex<Signer>> = OnceLock::new();
    let engine = ENGINE
        .get_or_init(|| Mutex::new(Signer::new(&seed(), Network::Regtest, &LEDGER_KEY).unwrap()));
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The headers of a new phone.
pub(crate) fn genesis() -> Headers {
    let params = Params::of(Network::Regtest);
    let checkpoint = Checkpoint::latest(&params);
    Headers::new(params, checkpoint)
}

/// An engine, its ledger, and the audit of all that it has answered.
pub(crate) struct AuditedSigner {
    pub signer: MutexGuard<'static, Signer>,
    pub disk: Vec<Vec<u8>>,
    pub audit: Audit,
    pub now_unix_s: u64,
}

impl AuditedSigner {
    /// The engine with the ledger `disk`, of which `audit` has seen everything. It knows the genesis block.
    pub fn new(disk: Vec<Vec<u8>>, audit: Audit, now_unix_s: u64) -> AuditedSigner {
        AuditedSigner::with_headers(disk, audit, now_unix_s, genesis())
    }

    /// The same, with these headers.
    pub fn with_headers(
        disk: Vec<Vec<u8>>,
        audit: Audit,
        now_unix_s: u64,
        headers: Headers,
    ) -> AuditedSigner {
        let mut signer = engine();
        signer.replay(&disk).expect("a ledger is read back");
        signer.set_headers(headers);
        AuditedSigner {
            signer,
            disk,
            audit,
            now_unix_s,
        }
    }

    /// Sends a batch, audits the answers, and returns them.
    pub fn ask(&mut self, batch: &SignerBatch) -> Vec<Answer> {
        let answers = self.ask_once(batch);
        if let ([op], [answer]) = (&batch.ops[..], &answers[..])
            && !is_refusal(answer)
        {
            let again = self.ask_once(batch);
            assert_eq!(again[0], *answer, "another answer to {op:?}");
        }
        answers
    }

    fn ask_once(&mut self, batch: &SignerBatch) -> Vec<Answer> {
        let outcome = self.signer.handle(batch, self.now_unix_s);
        assert_eq!(outcome.reply.answers.len(), batch.ops.len());
        let answers = outcome.reply.answers.into_iter();
        let answers: Vec<Answer> = answers
            .map(|answer| answer.answer.expect("every operation has an answer"))
            .collect();
        if answers.iter().all(is_refusal) {
            assert!(outcome.records.is_empty(), "a refusal wrote records");
        }
        for (op, answer) in batch.ops.iter().zip(&answers) {
            self.audit.saw(op, answer).unwrap();
        }
        self.keep(&outcome.records);
        answers
    }

    pub fn ask_one(&mut self, keys_id: &[u8], op: Op) -> Answer {
        let op = SignerOp {
            channel_keys_id: keys_id.to_vec(),
            op: Some(op),
        };
        self.ask(&SignerBatch { ops: vec![op] }).swap_remove(0)
    }

    /// The owner sets a limit.
    pub fn limit(&mut self, name: &str, value: &str) {
        let limits = self.signer.limits().with(name, value);
        let set = self.signer.set_limits(&limits.expect("a limit"));
        self.keep(&set.expect("a limit").records);
    }

    pub fn keep(&mut self, records: &[LedgerRecord]) {
        let bytes = records.iter().map(|record| record.as_bytes().to_vec());
        self.disk.extend(bytes);
    }

    /// The phone stops and starts again. Its state must be the same then.
    pub fn restart(&mut self) {
        let before = self.signer.snapshot();
        self.signer
            .replay(&self.disk)
            .expect("a ledger is read back");
        assert_eq!(
            self.signer.snapshot(),
            before,
            "the ledger has another state"
        );
    }

    /// Replaces all records by one snapshot.
    pub fn compact(&mut self) {
        if self.signer.version() > 0 {
            self.disk = vec![self.signer.snapshot().as_bytes().to_vec()];
            self.restart();
        }
    }
}

pub(crate) fn is_refusal(answer: &Answer) -> bool {
    matches!(answer, Answer::Refusal(_))
}

/// Whether an operation is fast enough to be tried: the time of some grows with the number of points asked for.
pub(crate) fn is_quick(op: &SignerOp) -> bool {
    match &op.op {
        Some(Op::GetPoints(points)) => points.count <= 32 || points.count > 1_000,
        Some(Op::NewChannelKeys(keys)) => keys.points <= 32 || keys.points > 1_000,
        _ => true,
    }
}
