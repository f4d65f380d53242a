//! Payments a second over one channel: a node with its phone on loopback, and the same node with its keys in process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use clap::Args;
use futures::StreamExt;
use longhand_chain::{Follower, FollowerConfig};
use longhand_node::{Dialer, Graph, Keys, Node, NodeConfig, PeerStream, Services};
use longhand_phone::Phone;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State as PaymentState;
use longhand_proto::command::{Command, NewAddress, OpenChannel, Pay};
use longhand_testkit::host::{World, faucet};
use longhand_testkit::{KitError, Patience};
use zeroize::Zeroizing;

use super::figure::{Measured, Report, Target};
use super::{say, world};

const CHANNEL_SAT: u64 = 16_000_000;
/// Above dust, so that each is an output of the commitments with a signature of its own.
const PAYMENT_MSAT: u64 = 2_000_000;
/// The two nodes take turns, so that whatever else the machine does is shared by both.
const TURNS: u32 = 4;
const PATIENCE: Patience = Patience::REAL;

#[derive(Debug, Args)]
pub struct ThroughputArgs {
    /// Payments by each of the two nodes
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u32).range(16..=4_000))]
    payments: u32,
    /// Payments in flight at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=40))]
    in_flight: u32,
}

/// Pays, by one of the two nodes.
enum Payer {
    Phone(Phone),
    Local(Node),
}

pub async fn run(args: ThroughputArgs) -> Result<Report, KitError> {
    let world = world().await?;
    say("two nodes, with a channel to the hub each");
    let phone = world.phone("ann", Duration::ZERO).await?;
    let local = local_node(&world).await?;
    open_both(&world, &phone, &local).await?;
    let payers = [Payer::Phone(phone), Payer::Local(local)];
    for payer in &payers {
        turn(&world, payer, args.in_flight, args.in_flight).await?;
    }
    let mut seconds = [0.0; 2];
    for _ in 0..TURNS {
        for (payer, seconds) in payers.iter().zip(&mut seconds) {
            *seconds += turn(&world, payer, args.payments / TURNS, args.in_flight).await?;
        }
    }
    let [Payer::Phone(phone), Payer::Local(local)] = payers else {
        return Err(KitError::Unexpected("the payers are lost".into()));
    };
    phone.detach().await?;
    local.stop().await;
    world.stop().await?;
    let made = f64::from(args.payments / TURNS * TURNS);
    let [by_phone, by_local] = seconds.map(|seconds| made / seconds);
    Ok(report(&args, by_phone, by_local))
}

fn report(args: &ThroughputArgs, by_phone: f64, by_local: f64) -> Report {
    let rate = |what, key, measured| Measured {
        what,
        key,
        unit: "payments/s",
        measured,
        target: None,
    };
    let ratio = Measured {
        what: "the first against the second",
        key: "ratio_percent",
        unit: "%",
        measured: by_phone / by_local * 100.0,
        target: Some(Target::AtLeast(50.0)),
    };
    Report {
        bench: "throughput",
        figures: vec![
            rate("phone on loopback", "phone_per_s", by_phone),
            rate("keys in process", "local_per_s", by_local),
            ratio,
        ],
        notes: vec![format!(
            "{} payments to the hub by each, {} in flight, in {TURNS} turns one after the other. Both nodes are in \
             the host's database; the phone's commands and signatures go over its link, and its ledger is on the disk.",
            args.payments, args.in_flight
        )],
    }
}

/// Makes this number of payments, with `in_flight` at once. Returns the seconds it took.
async fn turn(
    world: &World,
    payer: &Payer,
    payments: u32,
    in_flight: u32,
) -> Result<f64, KitError> {
    let mut invoices = Vec::new();
    for _ in 0..payments {
        invoices.push(world.operator.hub_invoice(PAYMENT_MSAT).await?);
    }
    let since = Instant::now();
    let in_flight = usize::try_from(in_flight).unwrap_or(1);
    let mut paid = futures::stream::iter(invoices)
        .map(|invoice| payer.pay(invoice))
        .buffer_unordered(in_flight);
    while let Some(paid) = paid.next().await {
        paid?;
    }
    Ok(since.elapsed().as_secs_f64())
}

impl Payer {
    async fn pay(&self, bolt11: String) -> Result<(), KitError> {
        match self {
            Payer::Phone(phone) => {
                phone.pay(&bolt11, None, None).await?;
                Ok(())
            }
            Payer::Local(node) => {
                let max_fee_msat = Some(PAYMENT_MSAT);
                let pay = Pay {
                    bolt11,
                    max_fee_msat,
                    ..Pay::default()
                };
                match ask(node, Ask::Pay(pay)).await? {
                    Reply::Payment(payment) if payment.state() == PaymentState::Succeeded => Ok(()),
                    reply => Err(KitError::Unexpected(format!("not paid: {reply:?}"))),
                }
            }
        }
    }
}

/// A node like an owner's, with its keys here, beside the host's nodes: on the same store and the same chain.
async fn local_node(world: &World) -> Result<Node, KitError> {
    let hub = PublicKey::from_slice(&world.hub_node_id)
        .map_err(|error| KitError::Unexpected(format!("the hub's node id: {error}")))?;
    let poll_interval = Duration::from_millis(50);
    let source = Arc::new(world.devnet.source());
    let follower = Arc::new(Follower::start(
        source,
        FollowerConfig {
            poll_interval,
            ..FollowerConfig::default()
        },
    ));
    let mut tips = follower.tips();
    let _ = tips.wait_for(Option::is_some).await;
    let keys = Keys::Local(Zeroizing::new([7; 32]));
    let config = NodeConfig {
        hub: Some(hub),
        ..NodeConfig::new("bench/local", Network::Regtest, keys)
    };
    let services = Services {
        store: world.store.clone(),
        chain: follower,
        graph: Arc::new(Graph::new(Network::Regtest)),
        dialer: Arc::new(HubDialer(world.addresses.peer)),
    };
    let started = Node::start(config, services).await;
    started.map_err(|error| KitError::Unexpected(error.to_string()))
}

/// Each payer funds its own channel.
async fn open_both(world: &World, phone: &Phone, local: &Node) -> Result<(), KitError> {
    let Reply::Address(address) = ask(local, Ask::NewAddress(NewAddress {})).await? else {
        return Err(KitError::Unexpected("the node gave no address".into()));
    };
    faucet(&world.devnet, &address.address, CHANNEL_SAT + 100_000)?;
    world.fund_phone(phone, CHANNEL_SAT + 100_000).await?;
    let funded = PATIENCE.until("the node has its coins", async || {
        let overview = local.overview().await;
        let has = overview.is_some_and(|node| node.onchain_sat >= CHANNEL_SAT);
        Ok::<_, KitError>(has.then_some(()))
    });
    funded.await?;
    // More in a minute than an owner spends in a day.
    for limit in [
        "spend_per_day_sat",
        "spend_per_hour_sat",
        "fees_per_day_sat",
    ] {
        phone.set_limit(limit.into(), u64::MAX.to_string()).await?;
    }
    phone.open(CHANNEL_SAT, None, false, false, None).await?;
    let open = OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: world.hub_node_id.clone(),
        amount_sat: CHANNEL_SAT,
        ..OpenChannel::default()
    };
    ask(local, Ask::OpenChannel(open)).await?;
    world.confirm_channels(2).await?;
    world.operator.usable("ann", 1).await?;
    let usable = PATIENCE.until("the node's channel is usable", async || {
        let overview = local.overview().await;
        Ok(overview.and_then(|node| (node.usable_channels == 1).then_some(())))
    });
    usable.await
}

/// A command that must succeed.
async fn ask(node: &Node, ask: Ask) -> Result<Reply, KitError> {
    let command = Command { command: Some(ask) };
    match node.command(command).await.reply {
        Some(Reply::Error(error)) => Err(KitError::Unexpected(format!(
            "{}: {}",
            error.code, error.message
        ))),
        Some(reply) => Ok(reply),
        None => Err(KitError::Unexpected("the node gave no answer".into())),
    }
}

/// Connects to the hub on the address for its peers.
struct HubDialer(SocketAddr);

#[async_trait]
impl Dialer for HubDialer {
    async fn dial(&self, _: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
        let stream = tokio::net::TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
