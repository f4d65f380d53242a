//! The signer's ledger, with records that it may not have written, or not in this form. Records are authenticated
//! before it reads them, so that this is about damage and other versions rather than about an attacker.

use longhand_proto::signer::SignerBatch;
use prost::Message;

use crate::audited::{AuditedSigner, is_quick};
use crate::tape::{Tape, at, tape};

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(bytes = "vec", repeated, tag = "1")]
    records: Vec<Vec<u8>>,
    /// A batch of the recorded run to ask afterwards.
    #[prost(uint32, tag = "2")]
    then: u32,
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let mut phone = AuditedSigner::new(Vec::new(), Default::default(), tape().unix_s);
    if phone.signer.replay(&script.records).is_err() {
        return;
    }
    let signer = &mut phone.signer;
    if signer.version() > 0 {
        let snapshot = signer.snapshot();
        let again = signer.replay([snapshot.as_bytes()]);
        again.expect("a snapshot is read back");
        assert_eq!(
            signer.snapshot(),
            snapshot,
            "the snapshot has another state"
        );
    }
    let batches = &tape().asked;
    let batch = &batches[script.then as usize % batches.len()].batch;
    let ops = batch.iter().flat_map(|batch| batch.ops.clone());
    let ops: Vec<_> = ops.filter(is_quick).collect();
    // Not audited: the history is not known.
    let outcome = signer.handle(&SignerBatch { ops }, tape().unix_s);
    let _ = outcome.reply;
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let Tape { ledger, asked, .. } = tape();
    let mut scripts = Vec::new();
    for then in (0..asked.len()).step_by(8) {
        let (records, _) = at(then);
        scripts.push((records.to_vec(), then));
        let mut phone = AuditedSigner::new(records.to_vec(), Default::default(), tape().unix_s);
        phone.compact();
        scripts.push((phone.disk, then));
    }
    scripts.push((ledger.clone(), asked.len() - 1));
    let script = |(records, then): (Vec<Vec<u8>>, usize)| Script {
        records,
        then: then as u32,
    };
    scripts
        .into_iter()
        .map(|s| script(s).encode_to_vec())
        .collect()
}
