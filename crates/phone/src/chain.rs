//! What the phone sees of the chain by itself, for its owner.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use longhand_signer::{Close, SeenChannel, SeenHtlc, Signer};

use crate::command::{ChainView, ChannelInChain, Deadline, HtlcInChain};
use crate::error::PhoneError;
use crate::events::PhoneEvent;
use crate::phone::Phone;
use crate::source::SecondSource;

/// How often [`Phone::run`] looks whether a deadline is near.
const LOOK_EACH: Duration = Duration::from_secs(60);
/// A deadline is near when it may be so far away: blocks come faster than on average now and then.
const NEAR_S: u64 = 6 * 60 * 60;

impl Phone {
    /// What the phone sees of the chain: the newest block that its host has shown it, its channels in it, and the next deadline.
    pub async fn chain(&self) -> Result<ChainView, PhoneError> {
        let now_unix_s = self.now_unix_s();
        let second_source = self.inner.sources.last();
        let view = self.look(move |signer| view(signer, now_unix_s)).await?;
        Ok(ChainView {
            second_source,
            ..view
        })
    }

    /// Has the second source of the owner's limits (`second_source`) made by `make` from now on, and asked. A phone whose program makes none
    /// receives no payments while its limits name one.
    pub async fn make_sources_with(
        &self,
        make: impl Fn(&str, Network) -> Result<Arc<dyn SecondSource>, String> + Send + Sync + 'static,
    ) -> Result<(), PhoneError> {
        let limits = self.look(|signer| signer.limits().clone()).await?;
        self.inner.sources.make_with(Arc::new(make));
        self.inner.sources.follow(&limits);
        Ok(())
    }

    /// Before when the phone has to attach next for an incoming payment, by its own records: for the alarm of a platform that puts programs to
    /// sleep. To be asked again after each attach. `None` when no payment is on its way.
    pub async fn next_deadline(&self) -> Result<Option<Deadline>, PhoneError> {
        self.look(deadline).await
    }

    /// Reports each deadline once when it is near, and has the host dialled at once.
    pub(crate) async fn watch_deadlines(&self) {
        let mut reported: Option<Deadline> = None;
        loop {
            if let Ok(Some(next)) = self.next_deadline().await {
                let is_near = next.at_unix_s <= self.now_unix_s().saturating_add(NEAR_S);
                let is_same = reported.as_ref().is_some_and(|it| {
                    (&it.payment_hash, it.height) == (&next.payment_hash, next.height)
                });
                if is_near && !is_same {
                    self.inner.wanted.notify_one();
                    self.inner
                        .events
                        .report(PhoneEvent::DeadlineNear(next.clone()));
                    reported = Some(next);
                }
            }
            self.inner.runtime.sleep(LOOK_EACH).await;
        }
    }
}

fn view(signer: &Signer, now_unix_s: u64) -> ChainView {
    let headers = signer.headers();
    ChainView {
        height: headers.height(),
        block_hash: headers.tip_hash().to_string(),
        time_unix_s: headers.tip().time.into(),
        is_stale: headers.is_stale(now_unix_s),
        channels: signer.seen_channels().map(channel).collect(),
        next_deadline: deadline(signer),
        second_source: None,
    }
}

fn channel(seen: SeenChannel) -> ChannelInChain {
    ChannelInChain {
        funding_outpoint: seen.funding.to_string(),
        amount_sat: seen.value_sat,
        confirmations: seen.confirmations,
        confirmations_needed: seen.confirmations_needed,
        filtered_up_to: seen.shown_open_up_to.unwrap_or(0),
        is_closed: seen.close != Close::Unknown,
        closed_by: match seen.close {
            Close::Proven(txid) | Close::Said(Some(txid)) => txid.to_string(),
            Close::Unknown | Close::Said(None) => String::new(),
        },
        htlcs: seen.htlcs.iter().map(htlc).collect(),
    }
}

fn htlc(seen: &SeenHtlc) -> HtlcInChain {
    HtlcInChain {
        outbound: seen.is_outgoing,
        payment_hash: seen.payment_hash.to_lower_hex_string(),
        amount_msat: seen.amount_msat,
        expiry_height: seen.cltv_expiry,
        spent_by: seen
            .spent_by
            .map_or_else(String::new, |(txid, _)| txid.to_string()),
        spent_height: seen.spent_by.map_or(0, |(_, height)| height),
        claimed: seen.was_claimed(),
    }
}

fn deadline(signer: &Signer) -> Option<Deadline> {
    let next = signer.next_deadline()?;
    Some(Deadline {
        payment_hash: next.payment_hash.to_lower_hex_string(),
        amount_msat: next.amount_msat,
        height: next.height,
        at_unix_s: next.at_unix_s,
    })
}
