//! The owner's signature under a transaction of the on-chain wallet.

use bitcoin::{Psbt, Transaction};
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{Refusal, SignPsbt};

use crate::keys::desk::Asked;
use crate::keys::remote::Remote;
use crate::machine::turn::Turn;

/// Where the signature of a transaction stands.
pub(crate) enum Signed {
    Transaction(Box<Transaction>),
    /// With the reason, for a person.
    Failed(String),
    Waiting,
}

/// Signs with local keys, or asks the phone; asked again, the same question has the same answer. `keys_id` names the
/// channel that the transaction funds.
pub(crate) fn sign(
    turn: &Turn,
    unsigned: &Psbt,
    purpose: Purpose,
    keys_id: Option<[u8; 32]>,
) -> Signed {
    let signed = match turn.remote() {
        None => {
            let mut signed = unsigned.clone();
            match turn.wallet().sign_locally(&mut signed) {
                Ok(()) => signed,
                Err(error) => return Signed::Failed(error.to_string()),
            }
        }
        Some(remote) => match ask(remote, unsigned, purpose, keys_id) {
            Ok(signed) => signed,
            Err(unsigned) => return unsigned,
        },
    };
    match turn.wallet().finalize(&signed, unsigned) {
        Ok(tx) => Signed::Transaction(Box::new(tx)),
        Err(error) => Signed::Failed(error.to_string()),
    }
}

fn ask(
    remote: &Remote,
    unsigned: &Psbt,
    purpose: Purpose,
    keys_id: Option<[u8; 32]>,
) -> Result<Psbt, Signed> {
    let op = Op::SignPsbt(SignPsbt {
        psbt: unsigned.serialize(),
        purpose: purpose.into(),
    });
    let asked = match keys_id {
        Some(keys_id) => remote.ask_channel(keys_id, op),
        None => remote.ask_owner(op),
    };
    match asked {
        Asked::Waiting | Asked::Refused(Refusal { retry: true, .. }) => Err(Signed::Waiting),
        Asked::Refused(refusal) => Err(Signed::Failed(refusal.message)),
        Asked::Answer(Answer::Psbt(bytes)) => {
            Psbt::deserialize(&bytes).map_err(|error| Signed::Failed(error.to_string()))
        }
        Asked::Answer(_) => Err(Signed::Failed(
            "the signer's answer is not a signed transaction".into(),
        )),
    }
}
