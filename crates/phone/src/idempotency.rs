//! Idempotent commands: an opening or an on-chain send is done once, however often its owner has to repeat the command.
//!
//! Such a command has an id, and a node carries out each id once. The id is in the ledger before the command leaves the phone. Until a
//! final result is delivered to the owner, the same command is sent with the same id: a node that knows it returns its result, one
//! that does not carries it out. After that the same command is a new one, with a new id.

use longhand_proto::Code;
use longhand_proto::command::error::Action;
use longhand_signer::ChannelIntent;

use crate::error::PhoneError;
use crate::phone::Phone;
use crate::vault::{VaultError, fill_random};

/// The result of an owner's command.
pub(crate) struct Outcome<T> {
    pub(crate) result: Result<T, PhoneError>,
    /// The id of the command that has ended with this result; see [`Phone::delivered`].
    pub(crate) ended: Option<Vec<u8>>,
}

impl<T> Outcome<T> {
    /// The result of the command with this id.
    pub(crate) fn of(id: Vec<u8>, result: Result<T, PhoneError>) -> Outcome<T> {
        let is_final = result.as_ref().map_or_else(is_final, |_| true);
        Outcome {
            result,
            ended: is_final.then_some(id),
        }
    }

    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Outcome<U> {
        Outcome {
            result: self.result.map(map),
            ended: self.ended,
        }
    }
}

impl<T> From<Result<T, PhoneError>> for Outcome<T> {
    fn from(result: Result<T, PhoneError>) -> Outcome<T> {
        Outcome {
            result,
            ended: None,
        }
    }
}

impl Phone {
    /// Records that the owner wants this sent (`amount_sat` 0 = all there is). Returns the id for it: the recorded one of the same
    /// command, while its result is not delivered.
    pub(crate) async fn intend_send(
        &self,
        address: &str,
        amount_sat: u64,
        max_fee_sat: u64,
    ) -> Result<Vec<u8>, PhoneError> {
        let (address, new, now) = (address.to_owned(), random_id()?, self.now_unix_s());
        self.call(move |signer| {
            let known = signer.undelivered_send(&address, amount_sat);
            let id = known.map_or(new, <[u8]>::to_vec);
            let added = signer.add_onchain_intent(&id, &address, amount_sat, max_fee_sat, now)?;
            Ok(added.with(id))
        })
        .await
    }

    /// The same for the opening of a channel.
    pub(crate) async fn intend_open(
        &self,
        counterparty_node_id: bitcoin::secp256k1::PublicKey,
        amount_sat: u64,
        announced: bool,
        max_fee_sat: u64,
    ) -> Result<Vec<u8>, PhoneError> {
        let (new, now) = (random_id()?, self.now_unix_s());
        self.call(move |signer| {
            let known = signer.undelivered_open(&counterparty_node_id, amount_sat, announced);
            let id = known.map_or(new, <[u8]>::to_vec);
            let intent = ChannelIntent::Open {
                id: id.clone(),
                counterparty_node_id,
                amount_sat,
                announced,
                max_fee_sat,
            };
            Ok(signer.add_channel_intent(intent, now)?.with(id))
        })
        .await
    }

    /// Returns the result to the owner, once it is on record that it is delivered: the same command is a new one from then on. When
    /// that cannot be recorded, that error is returned instead, and the same command returns the result again.
    pub(crate) async fn deliver<T>(&self, outcome: Outcome<T>) -> Result<T, PhoneError> {
        self.delivered(outcome.ended).await?;
        outcome.result
    }

    /// Records that the final result of the command with this id was delivered to the owner.
    pub(crate) async fn delivered(&self, ended: Option<Vec<u8>>) -> Result<(), PhoneError> {
        match ended {
            Some(id) => self.call(move |signer| signer.result_delivered(&id)).await,
            None => Ok(()),
        }
    }
}

/// Whether a command with an id has ended with this, so that it is a new one when it is sent again.
fn is_final(error: &PhoneError) -> bool {
    match error {
        // A node returns these only for a command that it has not begun, or that is over.
        PhoneError::Host(error) => {
            // A host of an earlier version does not say whether it is final.
            let by_code = Code::from_name(&error.code).is_some_and(Code::is_final);
            error.is_final || by_code || error.action() == Action::FixInput
        }
        _ => false,
    }
}

/// A new id of a command.
fn random_id() -> Result<Vec<u8>, PhoneError> {
    let mut id = vec![0; 16];
    fill_random(&mut id).map_err(VaultError::from)?;
    Ok(id)
}
