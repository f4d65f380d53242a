//! The limits of the phone's rules, and what these have refused, for its owner.

use longhand_signer::rules::Rule;
use longhand_signer::{Limits, Recorded};

use crate::command::{Limit, LimitList, RefusalList};
use crate::error::PhoneError;
use crate::phone::Phone;

impl Phone {
    /// The limits, each with its meaning.
    pub async fn limits(&self) -> Result<LimitList, PhoneError> {
        let limits = self.look(|signer| signer.limits().clone()).await?;
        Ok(list(&limits))
    }

    /// Sets a limit by its name, or whether a rule refuses or warns. Returns all of them.
    ///
    /// # Errors
    /// [`PhoneError::Limit`]; nothing was changed.
    pub async fn set_limit(&self, name: String, value: String) -> Result<LimitList, PhoneError> {
        // Checked inside the call, so that of two callers none undoes the other's.
        let set = self.call(move |signer| match signer.limits().with(&name, &value) {
            Ok(limits) => Ok(signer.set_limits(&limits)?.with(Ok(limits))),
            Err(error) => Ok(Recorded::unchanged(Err(error))),
        });
        let limits = set.await??;
        self.inner.sources.follow(&limits);
        Ok(list(&limits))
    }

    /// What the phone has refused, the latest first.
    pub async fn refusals(&self) -> Result<RefusalList, PhoneError> {
        Ok(self.inner.signer.refusals())
    }
}

fn list(limits: &Limits) -> LimitList {
    let (values, defaults) = (limits.to_map(), Limits::default().to_map());
    let row = |name: &str, about: String, otherwise: &str| {
        let value_in = |map: &std::collections::BTreeMap<String, String>| {
            map.get(name).map_or(otherwise, String::as_str).to_owned()
        };
        Limit {
            name: name.to_owned(),
            value: value_in(&values),
            default: value_in(&defaults),
            about,
        }
    };
    let numbers = limits.numbers.rows().into_iter();
    let numbers = numbers.map(|(name, _, about)| row(name, about.to_owned(), ""));
    let choices = [
        (
            "inbound",
            "Whose openings are accepted: anybody, hub, or node ids with commas between them.",
        ),
        (
            "withhold",
            "Whose channels keep their revocation key on the phone: hub, all or none.",
        ),
        (
            "second_source",
            "Where the phone asks beside its host what is in the chain: none, the URL of an Esplora server, or core+http://user:password@address:port of a Bitcoin Core. Payments are received only while it answers; over plain http:// whoever is on the way can answer.",
        ),
    ];
    let choices = choices.map(|(name, about)| row(name, about.to_owned(), ""));
    let rules = Rule::ALL.iter().filter(|rule| rule.may_warn());
    let rules = rules.map(|rule| {
        row(
            rule.name(),
            format!("Refuses {}.", rule.summary()),
            "refuse",
        )
    });
    LimitList {
        limits: numbers.chain(choices).chain(rules).collect(),
    }
}
