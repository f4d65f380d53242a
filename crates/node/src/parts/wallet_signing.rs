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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::Network;

    use super::*;
    use crate::machine::input::Input;
    use crate::machine::testing::{Id, World};
    use crate::wallet::SendAmount;

    /// A payment of 100,000 sat of a node to itself, unsigned.
    fn unsigned(world: &mut World, id: Id) -> Psbt {
        world.fund(id, 1_000_000);
        let mut wallet = world.turn(id).wallet();
        let script = wallet.unused_script();
        let amount = SendAmount::Exact(100_000);
        wallet.send(script, amount, 253, 0).unwrap()
    }

    fn is_signed(signed: &Signed, unsigned: &Psbt) -> bool {
        let txid = unsigned.unsigned_tx.compute_txid();
        matches!(signed, Signed::Transaction(tx) if tx.compute_txid() == txid)
    }

    #[test]
    fn local_keys_sign_at_once() {
        let mut world = World::new();
        let hub = world.add_hub(1);
        let psbt = unsigned(&mut world, hub);
        let signed = sign(world.turn(hub), &psbt, Purpose::Send, None);
        assert!(is_signed(&signed, &psbt));
    }

    #[test]
    fn a_coin_of_others_cannot_be_signed() {
        let mut world = World::new();
        let (hub, other) = (world.add_hub(1), world.add_hub(2));
        let psbt = unsigned(&mut world, other);
        let signed = sign(world.turn(hub), &psbt, Purpose::Send, None);
        assert!(matches!(signed, Signed::Failed(_)));
    }

    #[test]
    fn a_signature_of_the_phone_is_waited_for() {
        let mut world = World::new();
        let owner = world.add_owner(2, None);
        let psbt = unsigned(&mut world, owner);
        world.attach(owner);
        let payee = &psbt.unsigned_tx.output;
        let payee = payee.iter().find(|output| output.value.to_sat() == 100_000);
        let address =
            bitcoin::Address::from_script(&payee.unwrap().script_pubkey, Network::Regtest);
        let signer = world.nodes[owner].signer.as_mut().unwrap();
        let asked =
            signer.add_onchain_intent(&[1], &address.unwrap().to_string(), 100_000, 20_000, 1);
        let _ = asked.unwrap();
        let signed = sign(world.turn(owner), &psbt, Purpose::Send, None);
        assert!(matches!(signed, Signed::Waiting));
        world.input(owner, Input::TimerExpired);
        let signed = sign(world.turn(owner), &psbt, Purpose::Send, None);
        assert!(is_signed(&signed, &psbt));
    }
}
