//! What is done once, however often the owner has to ask for it.
//!
//! A command that spends coins of the wallet has an id, and a node carries out one id once. It is on record before the command
//! leaves the phone. Until the owner has heard an end of it, asking for the same is asking for that one: the node says what
//! became of it, or does it when it never heard of it. After that it is a new one.

use longhand_proto::command::error::Action;
use longhand_signer::{ChannelIntent, Recorded};

use crate::error::PhoneError;
use crate::phone::Phone;
use crate::serve::now_unix_s;
use crate::vault::{VaultError, fill_random};

/// What a node answers when an opening has failed for good: nothing was spent, and nothing will be. Other errors that may pass
/// tell of the host, the node or the phone, and nothing of what became of the command.
const OPEN_FAILED: [&str; 6] = [
    "CHANNEL_CLOSED",
    "CHANNEL_REFUSED",
    "EXPIRED",
    "INTERRUPTED",
    "PEER_UNREACHABLE",
    "SIGNER_REFUSED",
];

/// What the owner is to be told.
pub(crate) struct Told<T> {
    pub(crate) answer: Result<T, PhoneError>,
    /// The id of the command whose end this is; see [`Phone::heard`].
    pub(crate) ends: Option<Vec<u8>>,
}

impl<T> Told<T> {
    /// What came of the command with this id.
    pub(crate) fn of(id: Vec<u8>, answer: Result<T, PhoneError>) -> Told<T> {
        let ends = answer.as_ref().map_or_else(is_end, |_| true);
        Told {
            answer,
            ends: ends.then_some(id),
        }
    }

    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Told<U> {
        Told {
            answer: self.answer.map(map),
            ends: self.ends,
        }
    }
}

impl<T> From<Result<T, PhoneError>> for Told<T> {
    fn from(answer: Result<T, PhoneError>) -> Told<T> {
        Told { answer, ends: None }
    }
}

impl Phone {
    /// Puts on record that the owner wants this sent (`amount_sat` 0 = all there is), and says under which id: that of before,
    /// when no end of it was heard.
    pub(crate) async fn intend_send(
        &self,
        address: &str,
        amount_sat: u64,
        max_fee_sat: u64,
    ) -> Result<Vec<u8>, PhoneError> {
        let (address, new) = (address.to_owned(), random_id()?);
        self.call(move |signer| {
            let known = signer.send_without_end(&address, amount_sat);
            let id = known.map_or(new, <[u8]>::to_vec);
            let now = now_unix_s();
            let Recorded { records, .. } =
                signer.add_onchain_intent(&id, &address, amount_sat, max_fee_sat, now)?;
            Ok(Recorded { value: id, records })
        })
        .await
    }

    /// The same for a channel.
    pub(crate) async fn intend_open(
        &self,
        counterparty_node_id: bitcoin::secp256k1::PublicKey,
        amount_sat: u64,
        announced: bool,
    ) -> Result<Vec<u8>, PhoneError> {
        let new = random_id()?;
        self.call(move |signer| {
            let known = signer.open_without_end(&counterparty_node_id, amount_sat, announced);
            let id = known.map_or(new, <[u8]>::to_vec);
            let intent = ChannelIntent::Open {
                id: id.clone(),
                counterparty_node_id,
                amount_sat,
                announced,
            };
            let Recorded { records, .. } = signer.add_channel_intent(intent, now_unix_s())?;
            Ok(Recorded { value: id, records })
        })
        .await
    }

    /// Takes what was told for heard: the same again is a new command from now on. When that cannot be put on record, the answer
    /// is not given either, and asking again brings it.
    pub(crate) async fn hear<T>(&self, told: Told<T>) -> Result<T, PhoneError> {
        self.heard(told.ends).await?;
        told.answer
    }

    /// Puts on record that the owner has heard the end of the command with this id.
    pub(crate) async fn heard(&self, ends: Option<Vec<u8>>) -> Result<(), PhoneError> {
        match ends {
            Some(id) => self.call(move |signer| signer.end_heard(&id)).await,
            None => Ok(()),
        }
    }
}

/// Whether a command that has an id was not done, and will not be unless it is asked for again.
fn is_end(error: &PhoneError) -> bool {
    match error {
        // Said only of what the node has not begun, or has given up.
        PhoneError::Host(error) => {
            error.action() == Action::FixInput || OPEN_FAILED.contains(&error.code.as_str())
        }
        _ => false,
    }
}

/// Names a command.
fn random_id() -> Result<Vec<u8>, PhoneError> {
    let mut id = vec![0; 16];
    fill_random(&mut id).map_err(VaultError::from)?;
    Ok(id)
}
