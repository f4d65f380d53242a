//! What the checks must find: each is done to a run of which nothing else is wrong, and shows that a check can fail.

use std::mem;
use std::sync::Arc;

use bitcoin::{Address, Network, ScriptBuf};
use longhand_phone::input::OnchainAmount;

use crate::world::scenario::{Outcome, close_hubs_channel};
use crate::world::stage::{ANN, Stage, text};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The hub closes a channel by force, and nobody asked for it.
    ClosedChannel,
    /// A payment was made that nobody has received.
    LostPayment,
    /// An owner's coins go to somebody else.
    SpentCoins,
    /// A preimage is given away that nobody has paid for.
    SoldPreimage,
    /// A panic that is caught.
    Panic,
    /// One in a thread that several runs share, such as those in which signatures are checked.
    PanicElsewhere,
    /// A task goes on for ever.
    Task,
    /// A connection is never let go.
    Connection,
}

impl Planted {
    pub(crate) async fn plant(
        self,
        stage: &Arc<Stage>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        match self {
            Planted::ClosedChannel => {
                close_hubs_channel(stage).await?;
                stage.mine(1).await?;
            }
            Planted::LostPayment => outcome.paid_msat[ANN] += 1,
            Planted::SpentCoins => {
                let address = Address::p2wsh(&ScriptBuf::new(), Network::Regtest).to_string();
                let amount = OnchainAmount::Sat(100_000);
                let sent = stage.owner(ANN, async |phone| {
                    phone.send_onchain(&address, amount, None).await
                });
                sent.await.map_err(text)?;
            }
            Planted::SoldPreimage => stage.sell_preimage(ANN),
            Planted::PanicElsewhere => {
                let _ = std::thread::spawn(|| panic!("planted")).join();
            }
            Planted::Panic => {
                let task = tokio::spawn(async { panic!("planted") });
                let _ = task.await;
            }
            Planted::Task => drop(tokio::spawn(std::future::pending::<()>())),
            Planted::Connection => mem::forget(stage.connected.clone()),
        }
        Ok(())
    }
}
