//! Payments among the two phones and the hub.

use longhand_testkit::KitError;
use longhand_testkit::rounds::Counter;

use super::Story;
use super::Who::{self, Alice, Bob, Hub};
use crate::demo::view::grouped;

impl Story<'_> {
    pub(super) async fn invoice(&self, of: Who, amount_msat: u64) -> Result<String, KitError> {
        Ok(match of {
            Hub => self.world.host.hub_invoice(amount_msat).await?,
            Alice => self.alice().invoice(amount_msat).await?.bolt11,
            Bob => self.bob().invoice(amount_msat).await?.bolt11,
        })
    }

    /// One payment, which must succeed.
    pub(super) async fn pay(
        &mut self,
        from: Who,
        to: Who,
        amount_msat: u64,
    ) -> Result<(), KitError> {
        let bolt11 = self.invoice(to, amount_msat).await?;
        self.report.payments_tried += 1;
        let fee_msat = match from {
            Hub => self.world.host.hub_pay(bolt11).await?.fee_msat,
            Alice => self.alice().pay(bolt11).await?.fee_msat,
            Bob => self.bob().pay(bolt11).await?.fee_msat,
        };
        self.succeeded(from, to, amount_msat, fee_msat);
        Ok(())
    }

    pub(super) fn succeeded(&mut self, from: Who, to: Who, amount_msat: u64, fee_msat: u64) {
        self.report.payments_succeeded += 1;
        let (amount, fee) = (sat(amount_msat), sat(fee_msat));
        self.view
            .say(&format!("{from:?} paid {to:?} {amount} sat, fee {fee}"));
    }

    pub(super) async fn pay_around(&mut self) -> Result<(), KitError> {
        self.pay(Alice, Bob, 50_000_123).await?;
        self.pay(Bob, Alice, 20_000_456).await?;
        self.pay(Hub, Alice, 30_000_789).await?;
        self.pay(Alice, Hub, 10_000_001).await
    }

    pub(super) async fn count_payment(&mut self) -> Result<(), KitError> {
        const AMOUNT_MSAT: u64 = 7_000_007;
        // The hub's keys are with it: when it pays or is paid, only the phone takes time.
        let bolt11 = self.invoice(Hub, AMOUNT_MSAT).await?;
        let counter = Counter::begin(&self.world.host, "alice").await?;
        self.report.payments_tried += 1;
        let paid = self.alice().pay(bolt11).await?;
        self.report.round_trips.pay_to_success = Some(counter.now().await?);
        self.report.round_trips.pay_total = Some(counter.settled().await?);
        self.succeeded(Alice, Hub, AMOUNT_MSAT, paid.fee_msat);

        let bolt11 = self.invoice(Bob, AMOUNT_MSAT).await?;
        let counter = Counter::begin(&self.world.host, "bob").await?;
        self.report.payments_tried += 1;
        let paid = self.world.host.hub_pay(bolt11).await?;
        self.report.round_trips.receive_to_success = Some(counter.now().await?);
        self.report.round_trips.receive_total = Some(counter.settled().await?);
        self.succeeded(Hub, Bob, AMOUNT_MSAT, paid.fee_msat);
        Ok(())
    }
}

/// With three decimals.
fn sat(msat: u64) -> String {
    format!("{}.{:03}", grouped(msat / 1_000), msat % 1_000)
}
