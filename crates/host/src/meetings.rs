//! Whom this host expects at mailboxes and on Tor, kept as the book of owners changes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use longhand_link::carrier::mailbox::{Expected, Meetings};
use longhand_link::{DiscoverySeed, LinkKeypair, OwnerId, Rendezvous};

use crate::owners::OwnerRecord;
use crate::tor::clients::TorClients;

/// See the module.
pub(crate) struct OwnerMeetings {
    meetings: Meetings,
    /// The host's; without it, a host without mailboxes, nobody is expected and nothing is computed.
    key: Option<LinkKeypair>,
    tor: Option<TorClients>,
    by_owner: Mutex<HashMap<OwnerId, Vec<Expected>>>,
}

impl OwnerMeetings {
    pub fn new(key: Option<LinkKeypair>, tor: Option<TorClients>) -> OwnerMeetings {
        OwnerMeetings {
            meetings: Meetings::default(),
            key,
            tor,
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
        let now: Vec<_> = phone.into_iter().chain(code).collect();
        let mut by_owner = self.by_owner.lock().unwrap_or_else(PoisonError::into_inner);
        let before = by_owner.insert(record.id, now.clone()).unwrap_or_default();
        for gone in before.iter().filter(|it| !now.contains(it)) {
            self.meetings.remove(gone);
        }
        for new in now.into_iter().filter(|it| !before.contains(it)) {
            let meeting = match (&new, pairing) {
                (Expected::Phone(phone), _) => Rendezvous::of_keys(key, phone),
                (Expected::Pairing(_), Some(pairing)) => Rendezvous::of_pairing(&pairing.secret),
                (Expected::Pairing(_), None) => continue,
            };
            self.meetings.add(new, meeting);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_link::{LinkKey, PairingSecret};

    use super::*;
    use crate::owners::PairingRecord;

    fn record() -> OwnerRecord {
        OwnerRecord {
            name: "ann".into(),
            id: OwnerId([1; 16]),
            wake_url: None,
            phone_wake_urls: Vec::new(),
            pairing: None,
            phone: None,
            registration: None,
            registered_by: None,
            tor_service: Some(0),
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
        let expected = OwnerMeetings::new(Some(LinkKeypair::generate().unwrap()), None);
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
    fn a_host_without_mailboxes_expects_nobody_there() {
        let expected = OwnerMeetings::new(None, None);
        expected.set_record(&OwnerRecord {
            pairing: code(1),
            ..record()
        });
        assert!(expected.meetings().is_empty());
    }
}
