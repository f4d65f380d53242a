//! The steps of the demo, in order.

mod away;
mod carriers;
mod closing;
mod payments;

use std::path::Path;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};
use longhand_testkit::processes::{
    ChainProcess, HostProcess, HostSettings, Launcher, MailboxProcess, PhoneProcess, World,
};
use longhand_testkit::rounds::{Counter, DISTANCE};
use longhand_testkit::{KitError, Patience};

use super::board::Board;
use super::report::Report;
use super::view::View;
use crate::tor;
use away::UnderWay;

const HUB_COINS_SAT: u64 = 10_000_000;
const ALICE_COINS_SAT: u64 = 2_000_000;
const HUB_CHANNEL_SAT: u64 = 1_000_000;
/// Amount that the hub gives to the owner of a new channel, so that the owner can pay at once.
const HUB_GIFT_MSAT: u64 = 30_000_000;
const OWN_CHANNEL_SAT: u64 = 500_000;
/// Index among the world's phones.
pub(super) const ALICE: usize = 0;
pub(super) const BOB: usize = 1;
const PATIENCE: Patience = Patience::REAL;

/// The parties of payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Hub,
    Alice,
    Bob,
}

/// The state between the steps.
struct Story<'a> {
    world: World,
    view: &'a View,
    report: &'a mut Report,
    hub_to_alice: Channel,
    hub_to_bob: Channel,
    alices_own: Channel,
    /// Commitments that were asked for.
    asked: Vec<Txid>,
    /// Alice's payments that wait for bob's phone.
    under_way: Vec<UnderWay>,
}

/// A channel, by its id and its funding output, `txid:vout`.
#[derive(Default)]
struct Channel {
    id: String,
    funding: String,
}

/// Runs all steps. The world is left running.
pub(super) async fn tell(
    dir: &Path,
    view: &Arc<View>,
    report: &mut Report,
) -> Result<World, KitError> {
    view.begin("a devnet starts");
    let launcher = Launcher::of_this_binary(dir)?;
    let free = ([127, 0, 0, 1], 0).into();
    let esplora = report.over_esplora.then_some(free);
    let chain = ChainProcess::start_with(&launcher, free, esplora).await?;
    report.steps.extend(view.end(true));
    view.begin("a mailbox and a host with a hub start");
    let mailbox = MailboxProcess::start(&launcher, "ws://127.0.0.1:0").await?;
    let mut settings = HostSettings::default();
    let [hashmail, lnc] = &mailbox.hashmail;
    let mailboxes = [&mailbox.address, hashmail, lnc].map(String::as_str);
    let mailboxes = format!("link.mailboxes={}", mailboxes.join(","));
    settings.set.push(mailboxes);
    if let Some(address) = chain.esplora_bind {
        settings.set.push("chain.kind=esplora".into());
        settings
            .set
            .push(format!("chain.esplora.url=http://{address}"));
    }
    if report.has_tor {
        settings.set.push("tor.enabled=true".into());
        let network_file = std::env::var(tor::NETWORK_FILE).ok();
        let network_file = network_file.map(|file| format!("tor.network_file={file}"));
        settings.set.extend(network_file);
    }
    let host = HostProcess::start(&launcher, &chain, settings).await?;
    report.steps.extend(view.end(true));
    let _board = Board::start(view, &host);
    let mut world = World::new(chain, host);
    world.mailbox = Some(mailbox);
    let mut story = Story {
        world,
        view,
        report,
        hub_to_alice: Channel::default(),
        hub_to_bob: Channel::default(),
        alices_own: Channel::default(),
        asked: Vec::new(),
        under_way: Vec::new(),
    };
    let ended = story.play().await;
    // Counted also after a step that failed.
    let unasked = story.count_unasked_closes().await;
    ended?;
    unasked?;
    Ok(story.world)
}

impl Story<'_> {
    async fn play(&mut self) -> Result<(), KitError> {
        self.step("the faucet gives coins to the hub", Self::fund_hub)
            .await?;
        self.step(
            "two phones are made and paired, one of them by ten words",
            Self::pair_phones,
        )
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
        self.step("payments go over each carrier", Self::try_carriers)
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

    fn alice(&self) -> &PhoneProcess {
        &self.world.phones[ALICE]
    }

    fn bob(&self) -> &PhoneProcess {
        &self.world.phones[BOB]
    }

    async fn step(
        &mut self,
        name: &'static str,
        work: impl AsyncFnOnce(&mut Self) -> Result<(), KitError>,
    ) -> Result<(), KitError> {
        self.view.begin(name);
        let done = work(self).await;
        self.report.steps.extend(self.view.end(done.is_ok()));
        done
    }

    // -- Beginning.

    async fn fund_hub(&mut self) -> Result<(), KitError> {
        self.world.fund_hub(HUB_COINS_SAT).await
    }

    async fn pair_phones(&mut self) -> Result<(), KitError> {
        self.world.add_phone("alice", DISTANCE).await?;
        self.world.add_phone_by_words("bob", DISTANCE).await
    }

    async fn open_from_hub(&mut self) -> Result<(), KitError> {
        for owner in ["alice", "bob"] {
            let host = &self.world.host;
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

    async fn confirm(&self, channel: &Channel) -> Result<(), KitError> {
        let wrong = |_| off("a funding outpoint", &channel.funding);
        let funding: OutPoint = channel.funding.parse().map_err(wrong)?;
        self.world.confirm(funding).await
    }

    async fn open_from_alice(&mut self) -> Result<(), KitError> {
        let address = self.alice().address().await?;
        self.world.give(&address, ALICE_COINS_SAT).await?;
        let host = &self.world.host;
        PATIENCE
            .until("alice has her coins", async || {
                Ok::<_, KitError>(
                    (host.node("alice").await?.onchain_sat == ALICE_COINS_SAT).then_some(()),
                )
            })
            .await?;
        let counter = Counter::begin(host, "alice").await?;
        let opened = self.alice().open(OWN_CHANNEL_SAT).await?;
        self.alices_own = Channel {
            id: opened.channel_id,
            funding: opened.funding_outpoint,
        };
        self.confirm(&self.alices_own).await?;
        host.usable("alice", 2).await?;
        self.report.round_trips.open = Some(counter.settled().await?);
        Ok(())
    }

    async fn check_round_trips(&mut self) -> Result<(), KitError> {
        let over = |count: Option<u32>, target| count.is_none_or(|count| count > target);
        match self
            .report
            .round_trips
            .all()
            .find(|(_, count, target)| over(*count, *target))
        {
            None => Ok(()),
            Some((name, count, target)) => Err(KitError::Unexpected(format!(
                "{name} took {count:?} round trips, not {target}"
            ))),
        }
    }
}

fn off(expected: &str, found: &dyn std::fmt::Debug) -> KitError {
    KitError::Unexpected(format!("expected: {expected}; found: {found:?}"))
}

fn hex(bytes: &[u8]) -> String {
    use bitcoin::hex::DisplayHex;
    bytes.to_lower_hex_string()
}
