//! Channels: opened, closed, and their fees.

use std::sync::Arc;
use std::time::Duration;

use longhand_chain::FeeRates;
use longhand_proto::operator::HubOpenChannelRequest;

use super::Outcome;
use super::paying::pay;
use crate::world::simulator::{ANN, BOB, OWNERS, Simulator, text};
use crate::world::template::{CONFIRMATIONS, all_usable};

const OPENED_SAT: u64 = 1_000_000;
/// Commitments pay the lowest fee rate that mempools accept; anchors pay the rest.
const RAISED_SAT_PER_KW: u32 = 1_000;
/// LDK polls fee rates once a minute.
const FEE_UPDATE: Duration = Duration::from_secs(150);

pub async fn open_by_hub(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    opened(sim, async || {
        // The request is not idempotent: an operator lists channels before a retry.
        loop {
            let Some(operator) = sim.operator() else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let known = operator.hub_channels().await.map(|hub| hub.channels.len());
            if known.as_ref().is_ok_and(|known| *known > OWNERS.len()) {
                return Ok(());
            }
            let open = HubOpenChannelRequest {
                owner: OWNERS[ANN].into(),
                amount_sat: OPENED_SAT,
                ..HubOpenChannelRequest::default()
            };
            if known.is_ok() && operator.hub_open_channel(open).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    })
    .await
}

pub async fn open_by_phone(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    opened(sim, async || {
        let open = sim.owner(ANN, async |phone| {
            if phone.channels().await?.channels.len() > 1 {
                return Ok(());
            }
            phone
                .open(OPENED_SAT, None, false, false, None)
                .await
                .map(drop)
        });
        open.await.map_err(text)
    })
    .await
}

/// Opens a channel if there is none, and waits until it is usable. An opening may fail with nothing paid: then it is
/// requested again.
async fn opened(
    sim: &Arc<Simulator>,
    open: impl AsyncFn() -> Result<(), String>,
) -> Result<Outcome, String> {
    open().await?;
    for _ in 0..CONFIRMATIONS {
        sim.mine(1).await?;
    }
    // The funding may be sent only after a while, and blocks come all the time.
    let all_usable = || all_usable(sim, OWNERS.len() + 1);
    let hour = Duration::from_secs(3600);
    while tokio::time::timeout(hour, all_usable()).await.is_err() {
        open().await?;
        sim.mine(1).await?;
    }
    Ok(Outcome {
        opened: 1,
        ..Outcome::default()
    })
}

pub async fn raise_fees(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    let rates = FeeRates {
        urgent: 5_000,
        normal: 3_000,
        background: RAISED_SAT_PER_KW,
        minimum: RAISED_SAT_PER_KW,
        is_estimate: true,
    };
    sim.devnet.set_fee_rates(rates);
    tokio::time::sleep(FEE_UPDATE).await;
    let paid = pay(sim, ANN, BOB).await?;
    // If interrupted, it begins when both are back.
    all_usable(sim, OWNERS.len()).await?;
    tokio::time::sleep(FEE_UPDATE).await;
    Ok(Outcome {
        feerate_sat_per_kw: Some(RAISED_SAT_PER_KW),
        ..paid
    })
}

pub async fn close(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    sim.owner(ANN, async |phone| {
        let channels = phone.channels().await?.channels;
        let Some(channel) = channels.first() else {
            return Ok(());
        };
        phone.close(&channel.channel_id, false).await.map(drop)
    })
    .await
    .map_err(text)?;
    sim.until("the channel is closed", async |operator| {
        let hub = operator.hub_channels().await.ok()?.channels;
        Some(hub.len() < OWNERS.len())
    })
    .await?;
    sim.mine(CONFIRMATIONS).await?;
    Ok(Outcome {
        closed: 1,
        ..Outcome::default()
    })
}
