//! Channels' parameters, which the phone must have before it does anything else for a channel (`SetupChannel`).

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::chan_utils::ChannelTransactionParameters;
use lightning::util::ser::Writeable;
use longhand_proto::signer::{ChannelTerms, SetupChannel};

use super::channel_keys::KeysId;

/// Setups that the phone has not answered with yes. Nothing of it is stored: the operations themselves are, and LDK gives a
/// channel's parameters with each commitment that it wants signed.
#[derive(Default)]
pub(super) struct Setups {
    /// Peers of channels that began since the start.
    counterparties: HashMap<KeysId, PublicKey>,
    /// What the peers ask for in these channels.
    terms: HashMap<KeysId, ChannelTerms>,
    /// Encoded parameters that were last sent to the phone.
    requested: HashMap<KeysId, Vec<u8>>,
    /// Reasons of refusals, for people.
    refusals: HashMap<KeysId, String>,
}

impl Setups {
    /// A channel with this peer begins.
    pub fn begin(&mut self, keys_id: KeysId, counterparty: PublicKey) {
        self.counterparties.insert(keys_id, counterparty);
    }

    /// LDK has accepted these terms of the peer's.
    pub fn set_terms(&mut self, keys_id: KeysId, terms: ChannelTerms) {
        self.terms.insert(keys_id, terms);
    }

    /// The operation that gives the phone these parameters; `None` when they were given already.
    pub fn request(
        &mut self,
        keys_id: KeysId,
        user_channel_id: Option<u128>,
        parameters: &ChannelTransactionParameters,
    ) -> Option<SetupChannel> {
        let encoded = parameters.encode();
        if self.requested.get(&keys_id) == Some(&encoded) {
            return None;
        }
        let counterparty = self.counterparties.get(&keys_id);
        // The owner's command gives its id to the channel; a peer's opening has another one.
        let opening_id = user_channel_id.filter(|_| parameters.is_outbound_from_holder);
        let setup = SetupChannel {
            opening_id: opening_id.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
            parameters: encoded.clone(),
            counterparty_node_id: counterparty
                .map(|node_id| node_id.serialize().to_vec())
                .unwrap_or_default(),
            terms: self.terms.get(&keys_id).copied(),
        };
        self.requested.insert(keys_id, encoded);
        Some(setup)
    }

    /// The phone has the parameters.
    pub fn done(&mut self, keys_id: &KeysId) {
        self.requested.remove(keys_id);
        self.terms.remove(keys_id);
    }

    /// The phone refuses the channel, for a reason that people can read.
    pub fn refused(&mut self, keys_id: KeysId, reason: String) {
        self.refusals.insert(keys_id, reason);
    }

    /// The reason for which the phone refuses a channel.
    pub fn refusal(&self, keys_id: &KeysId) -> Option<String> {
        self.refusals.get(keys_id).cloned()
    }

    /// The channel is over before it was set up.
    pub fn remove(&mut self, keys_id: &KeysId) {
        self.counterparties.remove(keys_id);
        self.terms.remove(keys_id);
        self.requested.remove(keys_id);
        self.refusals.remove(keys_id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use lightning::ln::chan_utils::ChannelPublicKeys;
    use lightning::types::features::ChannelTypeFeatures;
    use lightning::util::ser::Readable;

    use super::super::testing::{key, new_keys};
    use super::*;

    const KEYS: KeysId = [1; 32];

    fn parameters(channel_value_satoshis: u64) -> ChannelTransactionParameters {
        let keys = new_keys(KEYS, 7);
        ChannelTransactionParameters {
            holder_pubkeys: ChannelPublicKeys::read(&mut &keys.public_keys[..]).unwrap(),
            holder_selected_contest_delay: 144,
            is_outbound_from_holder: true,
            counterparty_parameters: None,
            funding_outpoint: None,
            splice_parent_funding_txid: None,
            channel_type_features: ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
            channel_value_satoshis,
        }
    }

    #[test]
    fn what_the_peer_asks_for_is_sent_with_the_parameters_of_its_channel() {
        let mut setups = Setups::default();
        let terms = ChannelTerms {
            peer_dust_limit_sat: 354,
            owner_reserve_sat: 1_000,
        };
        setups.set_terms(KEYS, terms);
        let sent = |setups: &mut Setups, keys_id| {
            let setup = setups.request(keys_id, None, &parameters(1_000_000));
            setup.unwrap().terms
        };
        assert_eq!(sent(&mut setups, KEYS), Some(terms));
        assert_eq!(sent(&mut setups, [2; 32]), None);
    }

    #[test]
    fn parameters_are_sent_once_with_the_peer_and_again_when_they_change() {
        let mut setups = Setups::default();
        setups.begin(KEYS, key(2));
        let first = setups
            .request(KEYS, Some(5), &parameters(1_000_000))
            .unwrap();
        assert_eq!(first.parameters, parameters(1_000_000).encode());
        assert_eq!(first.counterparty_node_id, key(2).serialize());
        assert_eq!(first.opening_id, 5u128.to_be_bytes());
        assert_eq!(setups.request(KEYS, Some(5), &parameters(1_000_000)), None);
        assert!(
            setups
                .request(KEYS, Some(5), &parameters(2_000_000))
                .is_some()
        );
    }

    #[test]
    fn a_refusal_is_known_until_the_channel_is_over() {
        let mut setups = Setups::default();
        assert_eq!(setups.refusal(&KEYS), None);
        setups.refused(KEYS, "no".into());
        assert_eq!(setups.refusal(&KEYS), Some("no".into()));
        setups.remove(&KEYS);
        assert_eq!(setups.refusal(&KEYS), None);
    }
}
