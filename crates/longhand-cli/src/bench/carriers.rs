//! Each carrier against gRPC, in one run: the time of a payment on loopback, and the round trips of a cold attach, whose
//! connections take their time in a [`Forwarder`]. And the time to recover over Lightning Node Connect ([`outage`]).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use longhand_link::{Address, Carriers};
use longhand_mailbox::{Mailbox, MailboxConfig};
use longhand_phone::{DialOptions, Phone};
use longhand_testkit::KitError;
use longhand_testkit::forwarder::Forwarder;
use longhand_testkit::host::World;

use super::figure::{Measured, Report, Target, median};
use super::outage::{self, OUTAGE, Recovery};
use super::{say, temporary_directory};

const CHANNEL_SAT: u64 = 5_000_000;
const PAYMENT_MSAT: u64 = 1_000_000;
/// Between two payments, so that one has settled before the next.
const SETTLED: Duration = Duration::from_millis(40);
/// Between a phone and its host one way, while attaches are counted.
const DISTANCE: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct CarriersArgs {
    /// How many payments are made over each carrier, in turns
    #[arg(long, default_value_t = 51, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// How often a phone attaches over each carrier
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    attaches: u32,
    /// Leave out the minutes without network
    #[arg(long)]
    no_outage: bool,
}

/// A kind of carrier, and its figures.
struct Kind {
    /// Of the owner whose phone uses no other.
    owner: &'static str,
    scheme: &'static str,
    payment_ms: f64,
    attach_round_trips: f64,
}

impl Kind {
    fn new(owner: &'static str, scheme: &'static str) -> Kind {
        Kind {
            owner,
            scheme,
            payment_ms: 0.0,
            attach_round_trips: 0.0,
        }
    }
}

pub async fn run(args: CarriersArgs) -> Result<Report, KitError> {
    let mut kinds = [
        Kind::new("grpc", "grpc"),
        Kind::new("websocket", "ws"),
        Kind::new("mailbox", "mailbox+ws"),
        Kind::new("hashmail", "hashmail+grpc"),
        Kind::new("lnc", "lnc+grpc"),
    ];
    payments(&args, &mut kinds).await?;
    attaches(&args, &mut kinds).await?;
    let recovery = match args.no_outage {
        true => None,
        false => {
            let mailbox = mailbox().await?;
            let measured = outage::measure(hashmail(&mailbox)?).await?;
            mailbox.stop().await;
            Some(measured)
        }
    };
    Ok(report(&args, &kinds, recovery.as_ref()))
}

fn report(args: &CarriersArgs, kinds: &[Kind; 5], recovery: Option<&Recovery>) -> Report {
    let [grpc, websocket, mailbox, hashmail, lnc] = kinds;
    let ratio = |kind: &Kind| kind.payment_ms / grpc.payment_ms;
    // Adding zero makes a rounded -0 a 0.
    let more = |kind: &Kind| {
        let more = kind.attach_round_trips - grpc.attach_round_trips;
        (more * 10.0).round() / 10.0 + 0.0
    };
    let figure = |key, what, unit, measured, target| Measured {
        what,
        key,
        unit,
        measured,
        target,
    };
    let payment = |key, what, kind, most| {
        let target = Some(Target::AtMost(most));
        figure(key, what, "", ratio(kind), target)
    };
    let attach = |key, what, kind, most| {
        let target = Some(Target::AtMost(most));
        figure(key, what, "round trips", more(kind), target)
    };
    let mut figures = vec![
        figure(
            "grpc_payment_ms",
            "a payment over gRPC, median",
            "ms",
            grpc.payment_ms,
            None,
        ),
        payment(
            "websocket_payment_ratio",
            "over WebSocket against gRPC",
            websocket,
            1.2,
        ),
        payment(
            "mailbox_payment_ratio",
            "over a mailbox against gRPC",
            mailbox,
            1.5,
        ),
        payment(
            "hashmail_payment_ratio",
            "over hashmail against gRPC",
            hashmail,
            1.5,
        ),
        payment(
            "lnc_payment_ratio",
            "over Lightning Node Connect against gRPC",
            lnc,
            1.5,
        ),
        figure(
            "grpc_attach_round_trips",
            "a cold attach over gRPC, median",
            "round trips",
            grpc.attach_round_trips,
            None,
        ),
        attach(
            "websocket_attach_round_trips_more",
            "over WebSocket, more than that",
            websocket,
            2.0,
        ),
        attach(
            "mailbox_attach_round_trips_more",
            "over a mailbox, more than that",
            mailbox,
            2.0,
        ),
        attach(
            "hashmail_attach_round_trips_more",
            "over hashmail, more than that",
            hashmail,
            2.0,
        ),
        attach(
            "lnc_attach_round_trips_more",
            "over Lightning Node Connect, more than that",
            lnc,
            2.0,
        ),
    ];
    let mut notes = vec![format!(
        "{} payments to the hub over each carrier on loopback, in turns. {} attaches over each, with a TCP forwarder that \
         holds every byte for {} ms one way between phone and host, and the mailbox half way: time by that round trip.",
        args.runs,
        args.attaches,
        DISTANCE.as_millis()
    )];
    if let Some(recovery) = recovery {
        figures.extend(recovered(recovery));
        notes.push(format!(
            "{} s in which a TCP forwarder between the phones and the mailbox, then between the host and the mailbox, forwards \
             nothing. Connections of before and of meanwhile never carry anything again.",
            OUTAGE.as_secs()
        ));
    }
    Report {
        bench: "carriers",
        figures,
        notes,
    }
}

fn recovered(recovery: &Recovery) -> [Measured; 3] {
    let figure = |key, what, measured_ms: f64, target| Measured {
        what,
        key,
        unit: "s",
        measured: measured_ms / 1e3,
        target,
    };
    [
        figure(
            "lnc_recovery_s",
            "after 60 s without network, until the next call is answered (LNC)",
            recovery.told_ms,
            Some(Target::AtMost(2.0)),
        ),
        figure(
            "lnc_recovery_unreported_s",
            "the same, of a phone that is not told that its network is back",
            recovery.untold_ms,
            None,
        ),
        figure(
            "lnc_recovery_of_host_s",
            "the same, when the host was without network",
            recovery.of_host_ms,
            None,
        ),
    ]
}

/// All carriers on loopback. The payments are made in turns, so that whatever else this machine does is the same for all.
async fn payments(args: &CarriersArgs, kinds: &mut [Kind]) -> Result<(), KitError> {
    let mailbox = mailbox().await?;
    let mut at = vec![format!("mailbox+{}", first(&mailbox)?)];
    at.extend(hashmail_at(hashmail(&mailbox)?));
    let world = World::with(temporary_directory()?, |config| {
        config.link.mailboxes = at;
    })
    .await?;
    let phones = phones(&world, kinds).await?;
    say("opening a channel to each phone");
    for kind in kinds.iter() {
        let opened = world
            .operator
            .hub_open(kind.owner, CHANNEL_SAT, CHANNEL_SAT * 900);
        opened.await?;
    }
    world.confirm_channels(kinds.len()).await?;
    for kind in kinds.iter() {
        world.operator.usable(kind.owner, 1).await?;
    }
    say(&format!("paying {} times over each carrier", args.runs));
    let mut times_ms = vec![Vec::new(); kinds.len()];
    for _ in 0..args.runs {
        for (phone, times_ms) in phones.iter().zip(&mut times_ms) {
            let invoice = world.operator.hub_invoice(PAYMENT_MSAT).await?;
            tokio::time::sleep(SETTLED).await;
            let since = Instant::now();
            phone.pay(&invoice, None, None).await?;
            times_ms.push(since.elapsed().as_secs_f64() * 1e3);
        }
    }
    for (kind, times_ms) in kinds.iter_mut().zip(times_ms) {
        kind.payment_ms = median(times_ms);
    }
    stop(phones, world, mailbox).await
}

/// Phone and host are as far apart over every carrier: the mailbox is half way.
async fn attaches(args: &CarriersArgs, kinds: &mut [Kind]) -> Result<(), KitError> {
    let mailbox = mailbox().await?;
    let to_mailbox = Forwarder::start(socket(first(&mailbox)?)?, DISTANCE / 2).await?;
    let to_hashmail = Forwarder::start(hashmail(&mailbox)?, DISTANCE / 2).await?;
    let mut at = vec![format!("mailbox+ws://{}", to_mailbox.address())];
    at.extend(hashmail_at(to_hashmail.address()));
    let listen = free_port().await?;
    let to_host = Forwarder::start(listen, DISTANCE).await?;
    let world = World::with(temporary_directory()?, |config| {
        config.link.listen = vec![format!("grpc://{listen}")];
        let direct = ["grpc", "ws"].map(|scheme| format!("{scheme}://{}", to_host.address()));
        config.link.addresses = direct.to_vec();
        config.link.mailboxes = at;
    })
    .await?;
    let phones = phones(&world, kinds).await?;
    say(&format!(
        "attaching {} times over each carrier",
        args.attaches
    ));
    for (kind, phone) in kinds.iter_mut().zip(&phones) {
        let mut round_trips = Vec::new();
        for _ in 0..args.attaches {
            phone.detach().await?;
            world.operator.dormant(kind.owner).await?;
            let since = Instant::now();
            phone.attach().await?;
            round_trips.push(since.elapsed().as_secs_f64() / (2.0 * DISTANCE.as_secs_f64()));
        }
        kind.attach_round_trips = median(round_trips);
    }
    stop(phones, world, mailbox).await
}

async fn mailbox() -> Result<Mailbox, KitError> {
    let mut config = MailboxConfig::default();
    config.link.listen = vec!["ws://127.0.0.1:0".into()];
    config.hashmail.listen = vec!["grpc://127.0.0.1:0".into()];
    config.metrics.listen = String::new();
    let started = Mailbox::start(config, Carriers::default()).await;
    started.map_err(|error| KitError::Unexpected(error.to_string()))
}

fn first(mailbox: &Mailbox) -> Result<&Address, KitError> {
    let none = || KitError::Unexpected("the mailbox has no address".into());
    mailbox.addresses().first().ok_or_else(none)
}

/// Where the mailbox serves hashmail.
fn hashmail(mailbox: &Mailbox) -> Result<SocketAddr, KitError> {
    let none = || KitError::Unexpected("the mailbox does not serve hashmail".into());
    socket(mailbox.hashmail_addresses().first().ok_or_else(none)?)
}

/// The two carriers through hashmail there.
fn hashmail_at(place: SocketAddr) -> [String; 2] {
    ["hashmail", "lnc"].map(|kind| format!("{kind}+grpc://{place}"))
}

fn socket(address: &Address) -> Result<SocketAddr, KitError> {
    let wrong = |_| KitError::Unexpected(format!("{address} has no port"));
    address.authority().parse().map_err(wrong)
}

/// A port that nobody uses now.
async fn free_port() -> Result<SocketAddr, KitError> {
    Ok(tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await?
        .local_addr()?)
}

/// A phone for each carrier, which attaches over no other.
async fn phones(world: &World, kinds: &[Kind]) -> Result<Vec<Phone>, KitError> {
    let mut phones = Vec::new();
    for kind in kinds {
        let options = DialOptions {
            schemes: Some(vec![kind.scheme.to_owned()]),
            ..DialOptions::default()
        };
        phones.push(world.phone_with(kind.owner, options).await?);
    }
    Ok(phones)
}

async fn stop(phones: Vec<Phone>, world: World, mailbox: Mailbox) -> Result<(), KitError> {
    for phone in &phones {
        phone.detach().await?;
    }
    world.stop().await?;
    mailbox.stop().await;
    Ok(())
}
