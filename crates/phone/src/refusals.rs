//! What the phone has refused: kept with its files, for its owner to see afterwards.

use std::sync::Mutex;

use longhand_base::text::plain;
use longhand_signer::Notice;

use crate::command::{Refusal, RefusalList};
use crate::vault::Vault;

/// The most refusals that are kept; the oldest are removed.
pub const KEPT: usize = 100;

/// See the module.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Option<RefusalList>>);

impl Refusals {
    /// Those that are kept.
    pub fn list(&self, vault: &Vault) -> RefusalList {
        let mut list = lock(&self.0);
        list.get_or_insert_with(|| read(vault)).clone()
    }

    /// Adds what a batch was refused. Best effort: a phone that cannot write this goes on.
    pub fn add(&self, vault: &Vault, notices: &[Notice], now_unix_s: u64) {
        // What may be answered later is no news, unless the owner has to allow it.
        let may_be_news = |it: &Notice| !it.refused.retry || it.refused.rule.waits_for_the_owner();
        if !notices.iter().any(may_be_news) {
            return;
        }
        let mut list = lock(&self.0);
        let list = list.get_or_insert_with(|| read(vault));
        // The node asks again every half a minute for what may be answered later.
        let is_listed = |it: &Notice| list.refusals.iter().any(|old| is_same(old, it));
        let is_repeated = |it: &Notice| it.refused.retry && is_listed(it);
        let is_news = |it: &&Notice| may_be_news(it) && !is_repeated(it);
        let news: Vec<&Notice> = notices.iter().filter(is_news).collect();
        if news.is_empty() {
            return;
        }
        news.into_iter()
            .for_each(|notice| add(list, notice, now_unix_s));
        let written = serde_json::to_vec(list).map_err(std::io::Error::other);
        let written = written.and_then(|bytes| vault.save_refusals(&bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "what was refused is not kept");
        }
    }
}

fn add(list: &mut RefusalList, notice: &Notice, now_unix_s: u64) {
    let before = list.refusals.iter().position(|it| is_same(it, notice));
    let count = before.map_or(0, |index| list.refusals.remove(index).count);
    let refusal = Refusal {
        rule: notice.refused.rule.name().to_owned(),
        message: plain(&notice.refused.message),
        is_warning: notice.is_warning,
        last_unix_s: now_unix_s,
        count: count.saturating_add(1),
    };
    list.refusals.insert(0, refusal);
    list.refusals.truncate(KEPT);
}

fn is_same(it: &Refusal, notice: &Notice) -> bool {
    it.rule == notice.refused.rule.name()
        && it.message == plain(&notice.refused.message)
        && it.is_warning == notice.is_warning
}

/// Nothing when there is no such file yet, or it cannot be read.
fn read(vault: &Vault) -> RefusalList {
    serde_json::from_slice(&vault.refusals()).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_signer::rules::{Refused, Rule};

    use super::*;
    use crate::tests::{WORDS, new_vault};

    fn notice(message: &str, retry: bool) -> Notice {
        Notice {
            refused: Refused {
                rule: Rule::Balance,
                message: message.into(),
                retry,
            },
            is_warning: false,
        }
    }

    #[test]
    fn what_waits_for_the_owner_is_listed_once_and_what_passes_by_itself_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let vault = new_vault(dir.path(), WORDS);
        let waits = |rule| Notice {
            refused: Refused {
                rule,
                message: "channel 1".into(),
                retry: true,
            },
            is_warning: false,
        };
        let refusals = Refusals::default();
        for second in 1..4 {
            let notices = [waits(Rule::CloseUnasked), waits(Rule::HtlcRemovedEarly)];
            refusals.add(&vault, &notices, second);
        }
        let listed = refusals.list(&vault).refusals;
        let shown: Vec<_> = listed.iter().map(|it| (&it.rule[..], it.count)).collect();
        assert_eq!(shown, [("close-unasked", 1)]);
    }

    #[test]
    fn the_same_refusal_is_counted_and_the_oldest_goes() {
        let mut list = RefusalList::default();
        for second in 0..=KEPT as u64 {
            add(&mut list, &notice(&second.to_string(), false), second);
        }
        assert_eq!(list.refusals.len(), KEPT);
        assert_eq!(list.refusals[0].message, KEPT.to_string());
        assert!(list.refusals.iter().all(|it| it.message != "0"));
        add(&mut list, &notice("7", false), 500);
        let first = &list.refusals[0];
        let shown = (&first.message[..], first.count, first.last_unix_s);
        assert_eq!(shown, ("7", 2, 500));
        assert_eq!(list.refusals.len(), KEPT);
    }
}
