//! Reading a phone's answer to a signer batch, with its size and its number of elements bounded before it costs memory:
//! an empty element takes two bytes on the wire and some hundred in memory.

use prost::Message;

use crate::signer::signer_op::Op;
use crate::signer::{SignerBatch, SignerReply};

/// A reply may have this many bytes for each operation, and as many more as the batch itself allows.
const BYTES_PER_OP: usize = 4 * 1024;
/// Bytes of one answer for each point or HTLC that it is about.
const BYTES_PER_ELEMENT: usize = 80;
/// The most HTLCs of one commitment transaction: 483 in each direction (BOLT 2).
const HTLCS: usize = 2 * 483;
/// Elements of one answer that no list makes.
const FIELDS: usize = 8;

/// Why a reply is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// It is longer than any answer to this batch.
    TooLong,
    /// It has other answers than the batch has operations, or more elements than were asked for.
    TooMany,
    /// It is not a `SignerReply`.
    Unreadable,
}

/// Reads the reply to `batch`.
///
/// # Errors
/// [`BadReply`]; nothing was decoded then.
pub fn read_reply(batch: &SignerBatch, bytes: &[u8]) -> Result<SignerReply, BadReply> {
    let most: usize = batch.ops.iter().map(|op| most_bytes(op.op.as_ref())).sum();
    if bytes.len() > most {
        return Err(BadReply::TooLong);
    }
    for (nth, answer) in Fields::new(bytes).enumerate() {
        let (_, answer) = answer?;
        let op = batch.ops.get(nth).ok_or(BadReply::TooMany)?;
        if elements_of(answer)? > most_elements(op.op.as_ref()) {
            return Err(BadReply::TooMany);
        }
    }
    SignerReply::decode(bytes).map_err(|_| BadReply::Unreadable)
}

/// The lists in an answer that the operation asks for.
fn most_elements(op: Option<&Op>) -> usize {
    let points = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let asked = match op {
        Some(Op::GetPoints(asked)) => points(asked.count),
        Some(Op::NewChannelKeys(asked)) => points(asked.points),
        Some(Op::SignCounterpartyCommitment(_) | Op::SignHolderCommitment(_)) => HTLCS,
        _ => 0,
    };
    asked.saturating_add(FIELDS)
}

fn most_bytes(op: Option<&Op>) -> usize {
    // A signed transaction has the bytes of the unsigned one, in a PSBT twice, and a witness for each input.
    let returned = match op {
        Some(Op::SignPsbt(sign)) => sign.psbt.len().saturating_mul(3),
        Some(Op::SpendOutputs(spend)) => {
            let descriptors = spend.descriptors.iter().map(Vec::len);
            descriptors.sum::<usize>().saturating_mul(3)
        }
        _ => 0,
    };
    let elements = most_elements(op).saturating_mul(BYTES_PER_ELEMENT);
    BYTES_PER_OP
        .saturating_add(returned)
        .saturating_add(elements)
}

/// The numbers of `SignerAnswer`'s fields that are messages with a list: `NewChannelKeysAnswer`, `Points` and
/// `CommitmentSignatures`.
const LISTS: [u64; 3] = [10, 31, 34];

/// The number of fields of an answer, and of the messages in it that have a list.
fn elements_of(answer: &[u8]) -> Result<usize, BadReply> {
    let mut elements: usize = 0;
    for field in Fields::new(answer) {
        let (number, body) = field?;
        elements = elements.saturating_add(1);
        if LISTS.contains(&number) {
            elements = elements.saturating_add(Fields::new(body).count());
        }
    }
    Ok(elements)
}

/// The fields of a Protobuf message: the number of each, and its bytes when it is length-delimited.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn new(rest: &'a [u8]) -> Fields<'a> {
        Fields { rest }
    }

    fn next_field(&mut self) -> Option<(u64, &'a [u8])> {
        let key = self.varint()?;
        let number = key >> 3;
        let length = match key & 7 {
            0 => {
                self.varint()?;
                return Some((number, &[]));
            }
            1 => 8,
            2 => usize::try_from(self.varint()?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (field, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some((number, if key & 7 == 2 { field } else { &[] }))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), BadReply>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(BadReply::Unreadable))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::signer::signer_answer::Answer;
    use crate::signer::{
        CommitmentSignatures, Ecdh, GetPoints, Points, SignCounterpartyCommitment, SignPsbt,
        SignerAnswer, SignerOp,
    };

    fn batch(ops: Vec<Op>) -> SignerBatch {
        let op = |op| SignerOp {
            channel_keys_id: Vec::new(),
            op: Some(op),
        };
        SignerBatch {
            ops: ops.into_iter().map(op).collect(),
        }
    }

    fn reply(answers: Vec<Answer>) -> Vec<u8> {
        let answer = |answer| SignerAnswer {
            answer: Some(answer),
        };
        let answers = answers.into_iter().map(answer).collect();
        SignerReply { answers }.encode_to_vec()
    }

    fn get_points(count: u32) -> Op {
        Op::GetPoints(GetPoints {
            first_index: 7,
            count,
        })
    }

    fn points(count: usize) -> Answer {
        Answer::Points(Points {
            points: vec![vec![2; 33]; count],
        })
    }

    #[test]
    fn the_largest_good_answers_are_read() {
        let batch = batch(vec![
            get_points(100),
            Op::SignCounterpartyCommitment(SignCounterpartyCommitment::default()),
            Op::SignPsbt(SignPsbt {
                psbt: vec![1; 100_000],
                ..SignPsbt::default()
            }),
        ]);
        let bytes = reply(vec![
            points(100),
            Answer::CommitmentSignatures(CommitmentSignatures {
                signature: vec![1; 64],
                htlc_signatures: vec![vec![0xff; 64]; 966],
            }),
            Answer::Psbt(vec![0x0a; 200_000]),
        ]);
        assert_eq!(read_reply(&batch, &bytes).unwrap().answers.len(), 3);
        assert_eq!(read_reply(&batch, &[]).unwrap().answers.len(), 0);
    }

    #[test]
    fn more_answers_than_operations_are_refused() {
        let batch = batch(vec![Op::Ecdh(Ecdh::default())]);
        let secret = || Answer::SharedSecret(vec![1; 32]);
        let two = reply(vec![secret(), secret()]);
        assert_eq!(read_reply(&batch, &two), Err(BadReply::TooMany));
        let empty = [0x0a, 0x00].repeat(2_000);
        assert_eq!(read_reply(&batch, &empty), Err(BadReply::TooMany));
    }

    #[test]
    fn more_elements_than_were_asked_for_are_refused() {
        let batch = batch(vec![get_points(10)]);
        assert!(read_reply(&batch, &reply(vec![points(10)])).is_ok());
        let more = reply(vec![points(20)]);
        assert_eq!(read_reply(&batch, &more), Err(BadReply::TooMany));
    }

    #[test]
    fn an_answer_longer_than_any_to_the_batch_is_refused() {
        let batch = batch(vec![Op::Ecdh(Ecdh::default())]);
        let long = reply(vec![Answer::SharedSecret(vec![1; 8 * 1024])]);
        assert_eq!(read_reply(&batch, &long), Err(BadReply::TooLong));
    }

    #[test]
    fn bytes_that_are_no_reply_are_refused() {
        let batch = batch(vec![Op::Ecdh(Ecdh::default())]);
        for bytes in [&[0x0a, 0x05][..], &[0x0b], &[0xff; 12], &[0x0a, 0x01, 0x0a]] {
            assert_eq!(read_reply(&batch, bytes), Err(BadReply::Unreadable));
        }
    }
}
