//! A phone goes away, and a host: nothing is lost.

use std::time::{Duration, Instant};

use longhand_phone::command::Payment;
use longhand_phone::{DialOptions, Vault};
use longhand_proto::Code;
use longhand_proto::operator::HubOpenChannelRequest;
use longhand_testkit::KitError;
use longhand_testkit::processes::PASSPHRASE;
use longhand_testkit::rounds::Counter;
use tokio::task::JoinHandle;

use super::Who::{Alice, Bob, Hub};
use super::{BOB, HUB_CHANNEL_SAT, PATIENCE, Story, off};

const ATTACHES: usize = 10;

/// A payment that waits for its payee's phone.
pub(super) struct UnderWay {
    amount_msat: u64,
    work: JoinHandle<Result<Payment, KitError>>,
}

impl Story<'_> {
    pub(super) async fn kill_bob(&mut self) -> Result<(), KitError> {
        let (first, second) = (
            self.invoice(Bob, 40_000_444).await?,
            self.invoice(Bob, 3_000_333).await?,
        );
        let host = &self.world.host;
        Counter::begin(host, "bob").await?;
        let before = host.node("bob").await?.signer_batches;
        self.begin_payment(40_000_444, first);
        let host = &self.world.host;
        PATIENCE
            .until("bob's phone is asked to sign", async || {
                Ok::<_, KitError>((host.node("bob").await?.signer_batches > before).then_some(()))
            })
            .await?;
        self.world.phones[BOB].process.kill().await?;
        self.bob_is_dormant().await?;
        self.view
            .say("bob's node is dormant; what alice paid waits there");
        let node = self.world.host.node("bob").await?;
        if (node.channels, node.peers) != (1, 0) {
            return Err(off(
                "a dormant node keeps its channel and has no peers",
                &node,
            ));
        }
        self.expect_signer_away().await?;
        self.begin_payment(3_000_333, second);
        self.pay(Alice, Hub, 1_000_001).await?;
        self.pay(Hub, Alice, 2_000_002).await?;
        self.view.say("a second payment to bob waits at the hub");
        self.expect_both_waiting().await
    }

    /// Neither payment to bob may end without his phone; the error has the result of one that did.
    async fn expect_both_waiting(&mut self) -> Result<(), KitError> {
        for UnderWay { amount_msat, work } in &mut self.under_way {
            if work.is_finished() {
                let what = format!("a payment of {amount_msat} msat that waits for bob's phone");
                return Err(off(&what, &work.await));
            }
        }
        Ok(())
    }

    /// Alice pays bob.
    fn begin_payment(&mut self, amount_msat: u64, bolt11: String) {
        self.report.payments_tried += 1;
        let work = tokio::spawn(self.alice().pay(bolt11));
        self.under_way.push(UnderWay { amount_msat, work });
    }

    async fn bob_is_dormant(&self) -> Result<(), KitError> {
        let host = &self.world.host;
        PATIENCE
            .until("bob's node is dormant", async || {
                Ok::<_, KitError>((host.node("bob").await?.state == "dormant").then_some(()))
            })
            .await
    }

    /// A request that needs bob's phone is refused at once.
    async fn expect_signer_away(&self) -> Result<(), KitError> {
        let request = HubOpenChannelRequest {
            owner: "bob".into(),
            amount_sat: HUB_CHANNEL_SAT,
            ..HubOpenChannelRequest::default()
        };
        match self.world.host.client()?.hub_open_channel(request).await {
            Err(status) if status.message().starts_with(Code::SignerAway.as_str()) => {
                self.view.say("a channel to bob? SIGNER_AWAY, at once");
                Ok(())
            }
            other => Err(off(Code::SignerAway.as_str(), &other)),
        }
    }

    pub(super) async fn bring_bob_back(&mut self) -> Result<(), KitError> {
        self.world.phones[BOB].start().await?;
        for UnderWay { amount_msat, work } in std::mem::take(&mut self.under_way) {
            let paid = work
                .await
                .map_err(|e| KitError::Unexpected(e.to_string()))??;
            self.succeeded(Alice, Bob, amount_msat, paid.fee_msat);
        }
        self.world.host.usable("bob", 1).await
    }

    pub(super) async fn restart_host(&mut self) -> Result<(), KitError> {
        self.world.host.kill().await?;
        self.world.host.start_again().await?;
        let host = &self.world.host;
        PATIENCE
            .until("the nodes run", async || {
                let nodes = host.status().await?.nodes;
                Ok::<_, KitError>((nodes == 2).then_some(()))
            })
            .await?;
        host.usable("alice", 2).await?;
        host.usable("bob", 1).await?;
        self.view.say("both phones came back by themselves");
        self.pay(Alice, Bob, 5_000_005).await?;
        self.pay(Bob, Hub, 6_000_006).await
    }

    pub(super) async fn reconnect(&mut self) -> Result<(), KitError> {
        Counter::begin(&self.world.host, "bob").await?;
        self.world.phones[BOB].process.stop().await?;
        self.bob_is_dormant().await?;
        let host = &self.world.host;
        let counter = Counter::begin(host, "bob").await?;
        self.world.phones[BOB].start().await?;
        host.usable("bob", 1).await?;
        self.report.round_trips.reconnect = Some(counter.settled().await?);
        Ok(())
    }

    /// In this process and without distance, so that nothing but the attaching is measured: from the first byte until
    /// the node can pay.
    pub(super) async fn attach_often(&mut self) -> Result<(), KitError> {
        self.world.phones[BOB].process.stop().await?;
        let dir = self.bob().dir.clone();
        let vault = PATIENCE
            .until("bob's vault is free", async || {
                let dir = dir.clone();
                let open = move || Vault::open(&dir, &PASSPHRASE.to_owned().into());
                Ok::<_, KitError>(
                    tokio::task::spawn_blocking(open)
                        .await
                        .ok()
                        .and_then(Result::ok),
                )
            })
            .await?;
        let phone = longhand_phone::Phone::new(vault, DialOptions::default())?;
        for _ in 0..ATTACHES {
            let since = Instant::now();
            phone.attach().await?;
            while phone.info().await?.usable_channels == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.report
                .attach_ms
                .push(since.elapsed().as_secs_f64() * 1_000.0);
            phone.detach().await?;
            self.bob_is_dormant().await?;
        }
        drop(phone);
        PATIENCE
            .until("bob's vault is free", async || {
                Ok::<_, KitError>(Vault::lock(&dir).ok().map(drop))
            })
            .await?;
        self.world.phones[BOB].start().await?;
        self.world.host.usable("bob", 1).await
    }
}
