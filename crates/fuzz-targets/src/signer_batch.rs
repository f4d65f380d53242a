//! Signer batches, as a hostile host would make them of good ones, at any point of a recorded run.

use longhand_proto::signer::SignerBatch;
use longhand_proto::signer::signer_op::Op;
use prost::Message;

use crate::audited::{AuditedSigner, is_quick};
use crate::tape::{at, headers_at, tape};

#[derive(Clone, PartialEq, Message)]
struct Script {
    /// How many batches of the run the phone has answered before.
    #[prost(uint32, tag = "1")]
    after: u32,
    #[prost(message, repeated, tag = "2")]
    batches: Vec<SignerBatch>,
    #[prost(bool, tag = "3")]
    withholds_revocation_key: bool,
}

const BATCHES: usize = 6;
const OPS: usize = 16;

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let (records, audit) = at(script.after as usize);
    let headers = headers_at(script.after as usize);
    let mut phone = AuditedSigner::with_headers(records.to_vec(), audit, tape().unix_s, headers);
    if script.withholds_revocation_key {
        phone.limit("withhold", "all");
    }
    let mut closes = 0;
    for batch in script.batches.into_iter().take(BATCHES) {
        let mut ops = batch.ops;
        ops.truncate(OPS);
        ops.retain(|op| {
            // A script that is not the owner's is looked for among thousands of addresses.
            closes += u32::from(matches!(op.op, Some(Op::SignClosing(_))));
            is_quick(op) && (closes < 2 || !matches!(op.op, Some(Op::SignClosing(_))))
        });
        phone.ask(&SignerBatch { ops });
    }
    phone.restart();
    phone.compact();
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let asked = (0u32..).zip(&tape().asked);
    asked
        .map(|(after, asked)| {
            Script {
                after,
                batches: asked.batch.clone().into_iter().collect(),
                withholds_revocation_key: after % 8 == 0,
            }
            .encode_to_vec()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhand_proto::signer::signer_answer::Answer;

    /// The phone of the tape and the phone of the fuzz targets are the same, and their answers are.
    #[test]
    fn a_recorded_batch_is_answered_as_it_was() {
        for (number, asked) in tape().asked.iter().enumerate() {
            let (records, audit) = at(number);
            let headers = headers_at(number);
            let mut phone =
                AuditedSigner::with_headers(records.to_vec(), audit, tape().unix_s, headers);
            let answers = phone.ask(asked.batch.as_ref().unwrap());
            let before = asked.reply.as_ref().unwrap().answers.iter();
            let before: Vec<Answer> = before.map(|a| a.answer.clone().unwrap()).collect();
            assert_eq!(answers, before, "batch {number}");
        }
    }
}
