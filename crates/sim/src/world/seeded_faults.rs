//! Faults that the checks must find: each is injected into a run without any other, and shows that a check can fail.

use std::mem;
use std::sync::Arc;

use bitcoin::{Address, Network, ScriptBuf};
use longhand_phone::input::OnchainAmount;

use crate::world::scenario::{Outcome, close_hubs_channel};
use crate::world::simulator::{ANN, Simulator, text};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededFault {
    /// The hub closes a channel by force, and nobody asked for it.
    ClosedChannel,
    /// A payment was made that no payee has received.
    LostPayment,
    /// An owner's coins are sent to a foreign address.
    SpentCoins,
    /// A preimage is released that nobody has paid for.
    SoldPreimage,
    /// A panic that is caught.
    Panic,
    /// One in a thread that several runs share, such as those in which signatures are checked.
    PanicElsewhere,
    /// A task never ends.
    Task,
    /// A connection is never closed.
    Connection,
    /// The relay ends, and nobody starts it again.
    RelayGone,
}

impl SeededFault {
    pub(crate) async fn inject(
        self,
        sim: &Arc<Simulator>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        match self {
            SeededFault::ClosedChannel => {
                close_hubs_channel(sim).await?;
                sim.mine(1).await?;
            }
            SeededFault::LostPayment => outcome.paid_msat[ANN] += 1,
            SeededFault::SpentCoins => {
                let address = Address::p2wsh(&ScriptBuf::new(), Network::Regtest).to_string();
                let amount = OnchainAmount::Sat(100_000);
                let sent = sim.owner(ANN, async |phone| {
                    phone.send_onchain(&address, amount, None).await
                });
                sent.await.map_err(text)?;
            }
            SeededFault::SoldPreimage => sim.sell_preimage(ANN),
            SeededFault::PanicElsewhere => {
                let _ = std::thread::spawn(|| panic!("a seeded fault")).join();
            }
            SeededFault::Panic => {
                let task = tokio::spawn(async { panic!("a seeded fault") });
                let _ = task.await;
            }
            SeededFault::Task => drop(tokio::spawn(std::future::pending::<()>())),
            SeededFault::Connection => mem::forget(sim.connected.clone()),
            SeededFault::RelayGone => sim.end_relay(),
        }
        Ok(())
    }
}
