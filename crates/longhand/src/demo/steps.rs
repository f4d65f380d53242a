//! The story, step by step.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::{Address, OutPoint, ScriptBuf, Txid};
use longhand_chain::ChainSource;
use longhand_phone::command::Payment;
use longhand_phone::{DialOptions, Vault};
use longhand_proto::operator::{CreateOwnerRequest, HubAddressRequest, HubOpenChannelRequest};
use tokio::task::JoinHandle;

use super::DemoError;
use super::accounts::{Books, OpenChannel};
use super::board::Board;
use super::report::Report;
use super::rounds::Counter;
use super::view::{View, grouped};
use super::world::{Chain, Host, PASSPHRASE, Phone, World, faucet, until};

const HUB_COINS_SAT: u64 = 10_000_000;
const ALICE_COINS_SAT: u64 = 2_000_000;
const HUB_CHANNEL_SAT: u64 = 1_000_000;
/// What the hub gives to the owner of a new channel, so that the owner can pay at once.
const HUB_GIFT_MSAT: u64 = 30_000_000;
const OWN_CHANNEL_SAT: u64 = 500_000;
/// Enough for any channel to be ready.
const CONFIRMATIONS: u32 = 6;
/// More than the delay of a force-closed channel's own output (LDK's default: 144).
const FORCE_CLOSE_DELAY: u32 = 150;
const ATTACHES: usize = 10;
/// devnet has no fee market: fee rates are at the floor.
const FEERATE_SAT_PER_KW: u64 = 253;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Hub,
    Alice,
    Bob,
}
use Who::{Alice, Bob, Hub};

/// What has happened so far.
struct Story<'a> {
    world: World,
    view: &'a View,
    report: &'a mut Report,
    /// The faucet's payments.
    given: Vec<(Txid, ScriptBuf)>,
    hub_to_alice: Channel,
    hub_to_bob: Channel,
    alices_own: Channel,
    /// Commitments that were asked for.
    asked: Vec<Txid>,
    /// A payment that is under way: alice's to bob, and its amount.
    paying: Option<(JoinHandle<Result<Payment, DemoError>>, u64)>,
}

/// A channel, by its id and its funding output, `txid:vout`.
#[derive(Default)]
struct Channel {
    id: String,
    funding: String,
}

/// Tells all of it. The world is left running.
pub(super) async fn tell(
    dir: &Path,
    view: &Arc<View>,
    report: &mut Report,
) -> Result<World, DemoError> {
    view.begin("a devnet starts");
    let chain = Chain::start(dir).await?;
    report.steps.extend(view.end(true));
    view.begin("a host with a hub starts");
    let host = Host::start(dir, &chain).await?;
    report.steps.extend(view.end(true));
    let _board = Board::start(view, &host);
    let (alice, bob) = (Phone::new(dir, "alice"), Phone::new(dir, "bob"));
    let mut story = Story {
        world: World {
            chain,
            host,
            alice,
            bob,
        },
        view,
        report,
        given: Vec::new(),
        hub_to_alice: Channel::default(),
        hub_to_bob: Channel::default(),
        alices_own: Channel::default(),
        asked: Vec::new(),
        paying: None,
    };
    let told = story.tell().await;
    // Looked at even when something went wrong before.
    let unasked = story.count_unasked_closes().await;
    told?;
    unasked?;
    Ok(story.world)
}

impl Story<'_> {
    async fn tell(&mut self) -> Result<(), DemoError> {
        self.step("the faucet gives coins to the hub", Self::fund_hub)
            .await?;
        self.step("two phones are made and paired", Self::pair_phones)
            .await?;
        self.step("the hub opens a channel to each", Self::open_from_hub)
            .await?;
        self.step("alice opens one from her own wallet", Self::open_from_alice)
            .await?;
        self.step("payments go both ways", Self::pay_around).await?;
        self.step(
            "signer round trips of a payment are counted",
            Self::count_payment,
        )
        .await?;
        self.step(
            "bob's phone is killed in the middle of a payment",
            Self::kill_bob,
        )
        .await?;
        self.step("bob is back and the payment ends", Self::bring_bob_back)
            .await?;
        self.step("the host is killed with channels open", Self::restart_host)
            .await?;
        self.step("an idle phone leaves and comes back", Self::reconnect)
            .await?;
        self.step("a phone attaches ten times", Self::attach_often)
            .await?;
        self.step(
            "alice force-closes her channel and sweeps it",
            Self::force_close,
        )
        .await?;
        self.step(
            "alice and the hub close a channel together",
            Self::close_together,
        )
        .await?;
        self.step("every satoshi is accounted for", Self::account)
            .await?;
        self.step(
            "round trips are within their targets",
            Self::check_round_trips,
        )
        .await
    }

    async fn step(
        &mut self,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Self) -> Result<(), DemoError>,
    ) -> Result<(), DemoError> {
        self.view.begin(name);
        let done = work(self).await;
        self.report.steps.extend(self.view.end(done.is_ok()));
        done
    }

    // -- Beginning.

    async fn fund_hub(&mut self) -> Result<(), DemoError> {
        let host = &self.world.host;
        // The node of the hub starts when the host has seen the chain.
        until("the hub runs", async || {
            Ok((!host.status().await?.hub_node_id.is_empty()).then_some(()))
        })
        .await?;
        let made = host
            .operator()?
            .hub_address(HubAddressRequest {})
            .await?
            .into_inner();
        self.give(&made.address, HUB_COINS_SAT).await?;
        let host = &self.world.host;
        until("the hub has its coins", async || {
            let balance = host.hub_balance().await?;
            Ok((balance.onchain_confirmed_sat == HUB_COINS_SAT).then_some(()))
        })
        .await
    }

    /// Coins from the faucet, confirmed.
    async fn give(&mut self, address: &str, amount_sat: u64) -> Result<(), DemoError> {
        let txid = faucet(&self.world.chain.rpc, address, amount_sat).await?;
        let wrong = |_| DemoError::Off(format!("{address} is not an address"));
        let script = address
            .parse::<Address<_>>()
            .map_err(wrong)?
            .assume_checked()
            .script_pubkey();
        self.given.push((txid, script));
        self.world.mine(1).await
    }

    async fn pair_phones(&mut self) -> Result<(), DemoError> {
        let World {
            host, alice, bob, ..
        } = &mut self.world;
        for phone in [alice, bob] {
            phone.make().await?;
            let name = phone.name.to_owned();
            let request = CreateOwnerRequest {
                name,
                ..CreateOwnerRequest::default()
            };
            let code = host
                .operator()?
                .create_owner(request)
                .await?
                .into_inner()
                .code;
            phone.pair(&code).await?;
            phone.start().await?;
            host.usable(phone.name, 0).await?;
        }
        Ok(())
    }

    async fn open_from_hub(&mut self) -> Result<(), DemoError> {
        // Keys for channels are on their way when a phone has just come.
        for owner in ["alice", "bob"] {
            let host = &self.world.host;
            until("the node has channel keys", async || {
                Ok((host.node(owner).await?.signer_batches > 0).then_some(()))
            })
            .await?;
            Counter::begin(host, owner).await?;
            let opened = host.hub_open(owner, HUB_CHANNEL_SAT, HUB_GIFT_MSAT).await?;
            let channel = Channel {
                id: hex(&opened.channel_id),
                funding: opened.funding_outpoint,
            };
            self.confirm(&channel).await?;
            self.world.host.usable(owner, 1).await?;
            match owner {
                "alice" => self.hub_to_alice = channel,
                _ => self.hub_to_bob = channel,
            }
        }
        Ok(())
    }

    async fn confirm(&self, channel: &Channel) -> Result<(), DemoError> {
        let txid = channel.funding.split(':').next().unwrap_or_default();
        self.world.chain.in_mempool(txid).await?;
        self.world.mine(CONFIRMATIONS).await
    }

    async fn open_from_alice(&mut self) -> Result<(), DemoError> {
        let address = self.world.alice.address().await?;
        self.give(&address, ALICE_COINS_SAT).await?;
        let host = &self.world.host;
        until("alice has her coins", async || {
            Ok((host.node("alice").await?.onchain_sat == ALICE_COINS_SAT).then_some(()))
        })
        .await?;
        let counter = Counter::begin(host, "alice").await?;
        let opened = self.world.alice.open(OWN_CHANNEL_SAT).await?;
        self.alices_own = Channel {
            id: opened.channel_id,
            funding: opened.funding_outpoint,
        };
        self.confirm(&self.alices_own).await?;
        host.usable("alice", 2).await?;
        self.report.round_trips.open = Some(counter.settled().await?);
        Ok(())
    }

    // -- Payments.

    async fn invoice(&self, of: Who, amount_msat: u64) -> Result<String, DemoError> {
        Ok(match of {
            Hub => self.world.host.hub_invoice(amount_msat).await?,
            Alice => self.world.alice.invoice(amount_msat).await?.bolt11,
            Bob => self.world.bob.invoice(amount_msat).await?.bolt11,
        })
    }

    /// One payment, which must succeed.
    async fn pay(&mut self, from: Who, to: Who, amount_msat: u64) -> Result<(), DemoError> {
        let bolt11 = self.invoice(to, amount_msat).await?;
        self.report.payments_tried += 1;
        let fee_msat = match from {
            Hub => self.world.host.hub_pay(bolt11).await?.fee_msat,
            Alice => self.world.alice.pay(bolt11).await?.fee_msat,
            Bob => self.world.bob.pay(bolt11).await?.fee_msat,
        };
        self.succeeded(from, to, amount_msat, fee_msat);
        Ok(())
    }

    fn succeeded(&mut self, from: Who, to: Who, amount_msat: u64, fee_msat: u64) {
        self.report.payments_succeeded += 1;
        let (amount, fee) = (sat(amount_msat), sat(fee_msat));
        self.view
            .say(&format!("{from:?} paid {to:?} {amount} sat, fee {fee}"));
    }

    async fn pay_around(&mut self) -> Result<(), DemoError> {
        self.pay(Alice, Bob, 50_000_123).await?;
        self.pay(Bob, Alice, 20_000_456).await?;
        self.pay(Hub, Alice, 30_000_789).await?;
        self.pay(Alice, Hub, 10_000_001).await
    }

    async fn count_payment(&mut self) -> Result<(), DemoError> {
        const AMOUNT_MSAT: u64 = 7_000_007;
        // The hub's keys are with it: when it pays or is paid, only the phone takes time.
        let bolt11 = self.invoice(Hub, AMOUNT_MSAT).await?;
        let counter = Counter::begin(&self.world.host, "alice").await?;
        self.report.payments_tried += 1;
        let paid = self.world.alice.pay(bolt11).await?;
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

    // -- A phone that goes away.

    async fn kill_bob(&mut self) -> Result<(), DemoError> {
        const AMOUNT_MSAT: u64 = 40_000_444;
        let bolt11 = self.invoice(Bob, AMOUNT_MSAT).await?;
        let host = &self.world.host;
        Counter::begin(host, "bob").await?;
        let before = host.node("bob").await?.signer_batches;
        self.report.payments_tried += 1;
        let paying = tokio::spawn(self.world.alice.pay(bolt11));
        until("bob's phone is asked to sign", async || {
            Ok((host.node("bob").await?.signer_batches > before).then_some(()))
        })
        .await?;
        self.world.bob.kill().await?;
        let host = &self.world.host;
        until("bob's node is dormant", async || {
            Ok((host.node("bob").await?.state == "dormant").then_some(()))
        })
        .await?;
        self.view
            .say("bob's node is dormant; alice's payment waits");
        let node = host.node("bob").await?;
        if (node.channels, node.peers) != (1, 0) {
            return Err(off(
                "a dormant node keeps its channel and has no peers",
                &node,
            ));
        }
        self.expect_signer_away().await?;
        self.pay(Alice, Hub, 1_000_001).await?;
        self.pay(Hub, Alice, 2_000_002).await?;
        if paying.is_finished() {
            return Err(off("the payment waits for bob's phone", &paying.await));
        }
        self.paying = Some((paying, AMOUNT_MSAT));
        Ok(())
    }

    /// What needs bob's phone answers at once.
    async fn expect_signer_away(&self) -> Result<(), DemoError> {
        let request = HubOpenChannelRequest {
            owner: "bob".into(),
            amount_sat: HUB_CHANNEL_SAT,
            ..HubOpenChannelRequest::default()
        };
        match self.world.host.operator()?.hub_open_channel(request).await {
            Err(status) if status.message().starts_with("SIGNER_AWAY") => {
                self.view.say("a channel to bob? SIGNER_AWAY, at once");
                Ok(())
            }
            other => Err(off("SIGNER_AWAY", &other)),
        }
    }

    async fn bring_bob_back(&mut self) -> Result<(), DemoError> {
        self.world.bob.start().await?;
        let Some((paying, amount_msat)) = self.paying.take() else {
            return Err(DemoError::Off("there is no payment under way".into()));
        };
        let paid = paying.await.map_err(|e| DemoError::Off(e.to_string()))??;
        self.succeeded(Alice, Bob, amount_msat, paid.fee_msat);
        self.world.host.usable("bob", 1).await
    }

    // -- A host that goes away.

    async fn restart_host(&mut self) -> Result<(), DemoError> {
        self.world.host.kill().await?;
        self.world.host.start_again().await?;
        let host = &self.world.host;
        until("the nodes run", async || {
            let nodes = host.status().await?.nodes;
            Ok((nodes == 2).then_some(()))
        })
        .await?;
        host.usable("alice", 2).await?;
        host.usable("bob", 1).await?;
        self.view.say("both phones came back by themselves");
        self.pay(Alice, Bob, 5_000_005).await?;
        self.pay(Bob, Hub, 6_000_006).await
    }

    async fn reconnect(&mut self) -> Result<(), DemoError> {
        let World { host, bob, .. } = &mut self.world;
        Counter::begin(host, "bob").await?;
        bob.stop().await?;
        until("bob's node is dormant", async || {
            Ok((host.node("bob").await?.state == "dormant").then_some(()))
        })
        .await?;
        let counter = Counter::begin(host, "bob").await?;
        bob.start().await?;
        host.usable("bob", 1).await?;
        self.report.round_trips.reconnect = Some(counter.settled().await?);
        Ok(())
    }

    /// In this process and without distance, so that nothing but the attaching is measured: from the first byte until
    /// the node can pay.
    async fn attach_often(&mut self) -> Result<(), DemoError> {
        let World { host, bob, .. } = &mut self.world;
        bob.stop().await?;
        let dir = bob.dir.clone();
        let vault = until("bob's vault is free", async || {
            let dir = dir.clone();
            let open = move || Vault::open(&dir, &PASSPHRASE.to_owned().into());
            Ok(tokio::task::spawn_blocking(open)
                .await
                .ok()
                .and_then(Result::ok))
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
            until("bob's node is dormant", async || {
                Ok((host.node("bob").await?.state == "dormant").then_some(()))
            })
            .await?;
        }
        drop(phone);
        until("bob's vault is free", async || {
            Ok(Vault::lock(&dir).ok().map(drop))
        })
        .await?;
        bob.start().await?;
        host.usable("bob", 1).await
    }

    // -- Closing.

    async fn force_close(&mut self) -> Result<(), DemoError> {
        let World {
            chain, host, alice, ..
        } = &self.world;
        Counter::begin(host, "alice").await?;
        let before = host.node("alice").await?.onchain_sat;
        alice.close(&self.alices_own.id, true).await?;
        self.asked
            .push(chain.spent_in_mempool(&self.alices_own.funding).await?);
        self.world.mine(1).await?;
        self.world.mine(FORCE_CLOSE_DELAY).await?;
        self.mine_until_settled().await?;
        let swept = self
            .world
            .host
            .node("alice")
            .await?
            .onchain_sat
            .saturating_sub(before);
        if swept == 0 {
            return Err(DemoError::Off("nothing came back to alice's wallet".into()));
        }
        self.view.say(&format!(
            "{} sat are back in alice's wallet",
            grouped(swept)
        ));
        Ok(())
    }

    async fn close_together(&mut self) -> Result<(), DemoError> {
        let World {
            chain, host, alice, ..
        } = &self.world;
        let counter = Counter::begin(host, "alice").await?;
        alice.close(&self.hub_to_alice.id, false).await?;
        chain.spent_in_mempool(&self.hub_to_alice.funding).await?;
        self.report.round_trips.close = Some(counter.settled().await?);
        self.world.mine(CONFIRMATIONS).await?;
        self.mine_until_settled().await
    }

    /// Mines until nothing of a closed channel is left to be swept.
    async fn mine_until_settled(&self) -> Result<(), DemoError> {
        let host = &self.world.host;
        until("everything is swept", async || {
            let mut waiting = Vec::new();
            for owner in ["alice", "bob"] {
                let node = host.node(owner).await?;
                waiting.extend([node.closing_sat, node.onchain_pending_sat]);
            }
            let hub = host.hub_balance().await?;
            waiting.extend([hub.closing_sat, hub.onchain_pending_sat]);
            if waiting.iter().all(|sat| *sat == 0) {
                return Ok(Some(()));
            }
            self.world.mine(1).await?;
            // A sweep waits for its signature.
            tokio::time::sleep(super::world::DISTANCE * 3).await;
            Ok(None)
        })
        .await
    }

    // -- The end.

    async fn books(&self) -> Result<Books, DemoError> {
        let source = self.world.chain.rpc.source();
        let mut books = Books::default();
        let fundings = [&self.hub_to_alice, &self.hub_to_bob, &self.alices_own];
        let fundings: Vec<OutPoint> = fundings
            .iter()
            .filter_map(|channel| channel.funding.parse().ok())
            .collect();
        for height in 1..=source.tip().await?.height {
            let block = source.block(&source.hash_at(height).await?).await?;
            books
                .block(&block, &self.given, &fundings)
                .map_err(DemoError::Off)?;
        }
        Ok(books)
    }

    async fn account(&mut self) -> Result<(), DemoError> {
        let host = &self.world.host;
        let hub = host.hub_balance().await?;
        let mut wallets_sat = hub.onchain_confirmed_sat + hub.onchain_pending_sat;
        for owner in ["alice", "bob"] {
            let node = host.node(owner).await?;
            wallets_sat += node.onchain_sat + node.onchain_pending_sat;
        }
        let open = self.open_channels().await?;
        let books = self.books().await?;
        let fees = books.spends.len();
        let balanced = books.balance(wallets_sat, &open).map_err(DemoError::Off)?;
        self.view.say(&format!(
            "{} sat given = {} in wallets + {} in channels + {} set aside there for closing + {} in anchors + {} in fees of {fees} transactions",
            grouped(balanced.given),
            grouped(balanced.wallets),
            grouped(balanced.channels),
            grouped(balanced.set_aside),
            grouped(balanced.anchors),
            grouped(balanced.fees),
        ));
        self.report.accounted = true;
        Ok(())
    }

    /// The one that is still open: the hub's to bob.
    async fn open_channels(&self) -> Result<Vec<OpenChannel>, DemoError> {
        let mut open = Vec::new();
        let of_hub = self.world.host.hub_channels().await?;
        for phone in [&self.world.alice, &self.world.bob] {
            for channel in phone.channels().await? {
                let missing = || off("the hub has the same channel", &channel);
                let same = |c: &&longhand_proto::operator::HubChannel| {
                    hex(&c.channel_id) == channel.channel_id
                };
                let hubs = of_hub.iter().find(same).ok_or_else(missing)?;
                let funding = channel.funding_outpoint.parse().map_err(|_| missing())?;
                open.push(OpenChannel {
                    funding,
                    balances_sat: [hubs.balance_msat / 1_000, channel.balance_msat / 1_000],
                    // Reserves are whole satoshis: what can be sent ends as what is owned.
                    is_split_within_a_satoshi: channel.outbound_msat % 1_000 != 0,
                    feerate_sat_per_kw: FEERATE_SAT_PER_KW,
                });
            }
        }
        Ok(open)
    }

    async fn count_unasked_closes(&mut self) -> Result<(), DemoError> {
        let books = self.books().await?;
        let unasked = books
            .commitments()
            .filter(|spend| !self.asked.contains(&spend.txid))
            .count();
        self.report.force_closes_unasked = u32::try_from(unasked).unwrap_or(u32::MAX);
        Ok(())
    }

    async fn check_round_trips(&mut self) -> Result<(), DemoError> {
        let over = |count: Option<u32>, target| count.is_none_or(|count| count > target);
        match self
            .report
            .round_trips
            .all()
            .find(|(_, count, target)| over(*count, *target))
        {
            None => Ok(()),
            Some((name, count, target)) => Err(DemoError::Off(format!(
                "{name} took {count:?} round trips, not {target}"
            ))),
        }
    }
}

fn off(expected: &str, found: &dyn std::fmt::Debug) -> DemoError {
    DemoError::Off(format!("expected: {expected}; found: {found:?}"))
}

/// With three decimals.
fn sat(msat: u64) -> String {
    format!("{}.{:03}", grouped(msat / 1_000), msat % 1_000)
}

fn hex(bytes: &[u8]) -> String {
    use bitcoin::hex::DisplayHex;
    bytes.to_lower_hex_string()
}
