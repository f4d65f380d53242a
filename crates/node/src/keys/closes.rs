//! Cooperative closes that wait for the phone's signature, as LDK knows them.
//!
//! LDK forgets the fee of a close when its peer disconnects (BOLT 2: the negotiation begins anew after a reconnection), but not
//! that it waits for a signature: until it has proposed a fee again it must not be unblocked for that channel, which it
//! asserts.

use std::collections::HashMap;

use super::channel_keys::KeysId;

/// See the module.
#[derive(Default)]
pub(crate) struct Closes(HashMap<KeysId, Negotiation>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Negotiation {
    /// LDK waits for the signature of this fee.
    Current,
    /// The peer has disconnected since.
    Interrupted,
}

impl Closes {
    /// LDK has asked for the signature of a close, and got it or not.
    pub fn asked(&mut self, keys_id: KeysId, is_signed: bool) {
        match is_signed {
            true => self.0.remove(&keys_id),
            false => self.0.insert(keys_id, Negotiation::Current),
        };
    }

    /// The peer of this channel has disconnected.
    pub fn interrupt(&mut self, keys_id: &KeysId) {
        if let Some(negotiation) = self.0.get_mut(keys_id) {
            *negotiation = Negotiation::Interrupted;
        }
    }

    /// Whether the close of this channel is interrupted.
    pub fn is_interrupted(&self, keys_id: &KeysId) -> bool {
        self.0.get(keys_id) == Some(&Negotiation::Interrupted)
    }

    /// Removes those of other channels than `open`.
    pub fn retain(&mut self, open: &[KeysId]) {
        self.0.retain(|keys_id, _| open.contains(keys_id));
    }

    /// Whether any close is interrupted.
    pub fn any_interrupted(&self) -> bool {
        let mut all = self.0.values();
        all.any(|negotiation| *negotiation == Negotiation::Interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: KeysId = [1; 32];

    #[test]
    fn a_close_is_interrupted_from_the_disconnection_until_it_is_asked_for_again() {
        let mut closes = Closes::default();
        closes.interrupt(&KEYS);
        assert!(!closes.any_interrupted());

        closes.asked(KEYS, false);
        assert!(!closes.is_interrupted(&KEYS));
        closes.interrupt(&KEYS);
        assert!(closes.is_interrupted(&KEYS) && closes.any_interrupted());
        closes.asked(KEYS, false);
        assert!(!closes.is_interrupted(&KEYS));

        closes.interrupt(&KEYS);
        closes.asked(KEYS, true);
        assert!(!closes.any_interrupted());
    }

    #[test]
    fn an_interrupted_close_is_over_when_its_channel_is() {
        let mut closes = Closes::default();
        closes.asked(KEYS, false);
        closes.interrupt(&KEYS);
        closes.retain(&[KEYS]);
        assert!(closes.any_interrupted());
        closes.retain(&[]);
        assert!(!closes.any_interrupted());
    }
}
