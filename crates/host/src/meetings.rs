//! Whom this host expects at mailboxes and on Tor, kept as the book of owners changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use longhand_link::carrier::mailbox::{Expected, Meeting, Meetings};
use longhand_link::{DiscoverySeed, LinkKeypair, OwnerId, Rendezvous};

use crate::owners::OwnerRecord;
use crate::pairing_codes::PairingCodes;
use crate::tor::clients::TorClients;

/// See the module.
pub(crate) struct OwnerMeetings {
    meetings: Meetings,
    /// The host's; without it, a host without mailboxes, nobody is expected and nothing is computed.
    key: Option<LinkKeypair>,
    tor: Option<TorClients>,
    /// With a mailbox at which words pair a phone.
    words: Option<Arc<PairingCodes>>,
    by_owner: Mutex<HashMap<OwnerId, Vec<Expected>>>,
}

impl OwnerMeetings {
    pub fn new(
        key: Option<LinkKeypair>,
        tor: Option<TorClients>,
        words: Option<Arc<PairingCodes>>,
    ) -> OwnerMeetings {
        OwnerMeetings {
            meetings: Meetings::default(),
            key,
            tor,
            words,
            by_owner: Mutex::default(),
        }
    }

    /// For the listeners at mailboxes.
    pub fn meetings(&self) -> &Meetings {
        &self.meetings
    }

    /// Expects the phone of this owner, and the holder of the pairing code, and nobody else who was expected for this owner. A code
    /// that has expired is still met: its holder reads so.
    pub fn set_record(&self, record: &OwnerRecord) {
        if let Some(tor) = &self.tor {
            let service = record.tor_service.unwrap_or_default();
            let pairing = record.pairing.as_ref();
            tor.set(
                record.id,
                service,
                pairing.map(|it| DiscoverySeed::of(&it.secret)),
            );
        }
        let Some(key) = &self.key else { return };
        // A phone that has registered its node no longer comes by its pairing.
        let pairing = record.pairing.as_ref();
        let pairing = pairing.filter(|it| it.used_by.is_none() || !record.is_confirmed());
        let phone = record.phone.map(Expected::Phone);
        let code = pairing.map(|it| Expected::Pairing(it.secret.id()));
        // Who repeats a pairing has the code already.
        let words = pairing.filter(|it| self.words.is_some() && it.used_by.is_none());
        let words = words.map(|it| Expected::Words(it.secret.id()));
        let now: Vec<_> = phone.into_iter().chain(code).chain(words).collect();
        let mut by_owner = self.by_owner.lock().unwrap_or_else(PoisonError::into_inner);
        let before = by_owner.insert(record.id, now.clone()).unwrap_or_default();
        for gone in before.iter().filter(|it| !now.contains(it)) {
            self.meetings.remove(gone);
        }
        for new in now.into_iter().filter(|it| !before.contains(it)) {
            if let Some(meeting) = self.meeting(key, record, &new) {
                self.meetings.add(new, meeting);
            }
        }
    }

    fn meeting(
        &self,
        key: &LinkKeypair,
        record: &OwnerRecord,
        expected: &Expected,
    ) -> Option<Meeting> {
        let pairing = record.pairing.as_ref();
        Some(match expected {
            Expected::Phone(phone) => Rendezvous::of_keys(key, phone).into(),
            Expected::Pairing(_) => Rendezvous::of_pairing(&pairing?.secret).into(),
            Expected::Words(_) => match self.words.as_ref()?.words(record, pairing?) {
                Ok(words) => Meeting::Words(words),
                Err(error) => {
                    tracing::error!(%error, "no words for the pairing code of an owner");
                    return None;
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_link::{LinkKey, PairingSecret};

    use super::*;
    use crate::config::HostConfig;
    use crate::owners::PairingRecord;

    fn record() -> OwnerRecord {
        OwnerRecord {
            tor_service: Some(0),
            ..OwnerRecord::ann()
        }
    }

    fn code(secret: u8) -> Option<PairingRecord> {
        Some(PairingRecord {
            secret: PairingSecret::from_bytes([secret; 16]),
            expires_unix_s: 0,
            used_by: None,
        })
    }

    #[test]
    fn an_owner_is_met_by_the_code_then_by_the_phone_and_a_phone_that_was_replaced_no_more() {
        let expected = OwnerMeetings::new(Some(LinkKeypair::generate().unwrap()), None, None);
        let count = || expected.meetings().len();
        expected.set_record(&record());
        assert_eq!(count(), 0);
        let paired = OwnerRecord {
            pairing: code(1),
            ..record()
        };
        expected.set_record(&paired);
        assert_eq!(count(), 1);
        let phone = LinkKey([7; 32]);
        let mut pinned = OwnerRecord {
            phone: Some(phone),
            ..paired
        };
        pinned.pairing.as_mut().unwrap().used_by = Some(phone);
        expected.set_record(&pinned);
        assert_eq!(count(), 2, "the pairing may have to be repeated");
        let registered = OwnerRecord {
            registered_by: Some(phone),
            ..pinned
        };
        expected.set_record(&registered);
        assert_eq!(count(), 1);
        let renewed = OwnerRecord {
            phone: None,
            pairing: code(2),
            ..registered
        };
        expected.set_record(&renewed);
        assert_eq!(count(), 1);
    }

    #[test]
    fn the_words_of_a_pairing_are_met_until_a_phone_has_used_it() {
        let key = LinkKeypair::generate().unwrap();
        let mut config = HostConfig::default();
        config.link.mailboxes = vec!["lnc+grpcs://relay.example:443".into()];
        let codes = PairingCodes {
            link_key: key.public(),
            config: Arc::new(config),
            tor: None,
        };
        assert_eq!(codes.words_at(), ["lnc+grpcs://relay.example:443"]);
        let expected = OwnerMeetings::new(Some(key), None, Some(Arc::new(codes)));
        let open = OwnerRecord {
            pairing: code(1),
            ..record()
        };
        expected.set_record(&open);
        assert_eq!(expected.meetings().len(), 2);
        let mut used = open;
        used.pairing.as_mut().unwrap().used_by = Some(LinkKey([7; 32]));
        expected.set_record(&used);
        assert_eq!(
            expected.meetings().len(),
            1,
            "the code may have to be used again"
        );
    }

    #[test]
    fn a_host_without_mailboxes_expects_nobody_there() {
        let expected = OwnerMeetings::new(None, None, None);
        expected.set_record(&OwnerRecord {
            pairing: code(1),
            ..record()
        });
        assert!(expected.meetings().is_empty());
    }
}
