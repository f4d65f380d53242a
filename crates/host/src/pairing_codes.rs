//! Pairing codes of owners, and the words that stand for them.

use std::sync::Arc;

use longhand_link::carrier::hashmail;
use longhand_link::carrier::mailbox::Words;
use longhand_link::{Address, LinkKey, PairingCode, PairingCodeError};

use crate::config::HostConfig;
use crate::owners::{OwnerRecord, PairingRecord};
use crate::tor::Tor;

/// See the module.
pub(crate) struct PairingCodes {
    pub config: Arc<HostConfig>,
    /// The host's key on links.
    pub link_key: LinkKey,
    pub tor: Option<Arc<Tor>>,
}

impl PairingCodes {
    /// The code of an owner's pairing.
    pub fn code(&self, owner: &OwnerRecord, pairing: &PairingRecord) -> PairingCode {
        PairingCode {
            addresses: self.link_addresses(owner),
            host: self.link_key,
            owner: owner.id,
            secret: pairing.secret.clone(),
            expires_unix_s: pairing.expires_unix_s,
        }
    }

    /// The words for it, for who waits at mailboxes.
    pub fn words(
        &self,
        owner: &OwnerRecord,
        pairing: &PairingRecord,
    ) -> Result<Words, PairingCodeError> {
        Ok(Words {
            phrase: pairing.secret.words(),
            code: self.code(owner, pairing).to_text()?,
        })
    }

    /// The mailboxes at which words pair a phone.
    pub fn words_at(&self) -> Vec<String> {
        let is_lnc = |text: &&String| text.parse().is_ok_and(|it: Address| hashmail::is_lnc(&it));
        self.config
            .link
            .mailboxes
            .iter()
            .filter(is_lnc)
            .cloned()
            .collect()
    }

    /// The addresses at which this owner's phone reaches the host: with restricted discovery each hundred owners have an onion
    /// service of their own.
    fn link_addresses(&self, owner: &OwnerRecord) -> Vec<String> {
        let mut addresses = self.config.link.addresses.clone();
        let tor = self.tor.as_ref().filter(|tor| tor.is_restricted());
        let number = owner.tor_service.unwrap_or_default();
        if let Some(tor) = tor
            && let (Some(first), Some(own)) = (tor.link_address(0), tor.link_address(number))
        {
            let is_first = |address: &&mut String| **address == first;
            if let Some(address) = addresses.iter_mut().find(is_first) {
                *address = own;
            }
        }
        addresses
    }
}
