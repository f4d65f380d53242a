//! A recorded run: the batches of a node to its phone while a channel was opened, paid through both ways and closed,
//! the phone's replies, and its ledger. `examples/record.rs` records it anew.

use std::sync::OnceLock;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerReply};
use longhand_signer::audit::Audit;
use longhand_spv::Headers;
use prost::Message;

use crate::audited::genesis;

/// The recording.
#[derive(Clone, PartialEq, Message)]
pub struct Tape {
    /// The phone's ledger at the end, record by record.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub ledger: Vec<Vec<u8>>,
    /// The batches, in order.
    #[prost(message, repeated, tag = "2")]
    pub asked: Vec<Asked>,
    /// The phone's invoices.
    #[prost(message, repeated, tag = "3")]
    pub invoices: Vec<Invoice>,
    /// When it was recorded.
    #[prost(uint64, tag = "4")]
    pub unix_s: u64,
}

/// One batch.
#[derive(Clone, PartialEq, Message)]
pub struct Asked {
    /// Records in the ledger before it.
    #[prost(uint64, tag = "1")]
    pub after_records: u64,
    /// The batch.
    #[prost(message, optional, tag = "2")]
    pub batch: Option<SignerBatch>,
    /// The answers.
    #[prost(message, optional, tag = "3")]
    pub reply: Option<SignerReply>,
}

/// One invoice.
#[derive(Clone, PartialEq, Message)]
pub struct Invoice {
    /// Of its payment, 32 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub payment_hash: Vec<u8>,
    /// Its amount.
    #[prost(uint64, tag = "2")]
    pub amount_msat: u64,
}

/// The run that is kept.
pub(crate) fn tape() -> &'static Tape {
    static TAPE: OnceLock<Tape> = OnceLock::new();
    TAPE.get_or_init(|| Tape::decode(&include_bytes!("run.tape")[..]).expect("a tape"))
}

/// A place on the tape: the phone's ledger before batch `number`, and the audit up to there.
pub(crate) fn at(number: usize) -> (&'static [Vec<u8>], Audit) {
    static AUDITS: OnceLock<Vec<Audit>> = OnceLock::new();
    let audits = AUDITS.get_or_init(audits);
    let tape = tape();
    let number = number % audits.len();
    let records = match tape.asked.get(number) {
        Some(asked) => &tape.ledger[..asked.after_records as usize],
        None => &tape.ledger,
    };
    (records, audits[number].clone())
}

/// The headers that the phone knew before batch `number`.
pub(crate) fn headers_at(number: usize) -> Headers {
    static HEADERS: OnceLock<Vec<Headers>> = OnceLock::new();
    let headers = HEADERS.get_or_init(headers);
    headers[number % headers.len()].clone()
}

fn headers() -> Vec<Headers> {
    let mut known = genesis();
    let mut all = vec![known.clone()];
    for asked in &tape().asked {
        let ops = asked.batch.iter().flat_map(|batch| &batch.ops);
        for op in ops {
            if let Some(Op::ExtendHeaders(op)) = &op.op {
                let shown = op.headers.chunks(Header::SIZE);
                let shown = shown.map(|bytes| deserialize(bytes).expect("a header"));
                let shown: Vec<Header> = shown.collect();
                let _ = known.extend(&shown, tape().unix_s).expect("honest headers");
            }
        }
        all.push(known.clone());
    }
    all
}

/// The audits before each batch, and at the end.
fn audits() -> Vec<Audit> {
    let tape = tape();
    let mut audit = Audit::default();
    for invoice in &tape.invoices {
        let hash = invoice.payment_hash.as_slice().try_into();
        let seen = audit.saw_invoice(hash.expect("32 bytes"), invoice.amount_msat);
        seen.expect("one invoice for each payment");
    }
    let mut audits = vec![audit.clone()];
    for asked in &tape.asked {
        let (batch, reply) = (asked.batch.as_ref(), asked.reply.as_ref());
        let ops = batch.map_or(&[][..], |batch| &batch.ops);
        let answers = reply.map_or(&[][..], |reply| &reply.answers);
        for (op, answer) in ops.iter().zip(answers) {
            let answer = answer.answer.as_ref().expect("an answer");
            audit.saw(op, answer).unwrap();
        }
        audits.push(audit.clone());
    }
    audits
}
