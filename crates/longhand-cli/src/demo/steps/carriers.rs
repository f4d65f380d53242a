//! A payment each way over each kind of carrier.

use std::time::Instant;

use longhand_testkit::KitError;
use longhand_testkit::rounds::Counter;

use super::ALICE;
use super::Story;
use super::Who::{Alice, Hub};
use crate::demo::report::CarrierTried;

const AMOUNT_MSAT: u64 = 1_000_001;

impl Story<'_> {
    /// Alice's phone attaches over one kind of carrier after the other, pays the hub and is paid.
    pub(super) async fn try_carriers(&mut self) -> Result<(), KitError> {
        for kind in self.report.wanted_carriers() {
            self.attach_over(Some(kind)).await?;
            let tried = self.try_carrier().await?;
            self.view.say(&format!("{kind}: {tried}"));
            self.report.carriers.push((kind, tried));
        }
        self.attach_over(None).await
    }

    async fn attach_over(&mut self, kind: Option<&'static str>) -> Result<(), KitError> {
        let phone = &mut self.world.phones[ALICE];
        phone.process.stop().await?;
        phone.only_over(kind);
        phone.start().await?;
        self.world.host.usable("alice", 2).await
    }

    async fn try_carrier(&mut self) -> Result<CarrierTried, KitError> {
        let bolt11 = self.invoice(Hub, AMOUNT_MSAT).await?;
        let counter = Counter::begin(&self.world.host, "alice").await?;
        self.report.payments_tried += 1;
        let began = Instant::now();
        let paid = self.alice().pay(bolt11).await?;
        let took = began.elapsed();
        let pay = counter.now().await?;
        counter.settled().await?;
        self.succeeded(Alice, Hub, AMOUNT_MSAT, paid.fee_msat);

        let bolt11 = self.invoice(Alice, AMOUNT_MSAT).await?;
        let counter = Counter::begin(&self.world.host, "alice").await?;
        self.report.payments_tried += 1;
        let paid = self.world.host.hub_pay(bolt11).await?;
        let receive = counter.now().await?;
        counter.settled().await?;
        self.succeeded(Hub, Alice, AMOUNT_MSAT, paid.fee_msat);
        Ok(CarrierTried {
            round_trips: [pay, receive],
            took,
        })
    }
}
