//! What the story is told with: the chain, the host and the phones, and how each is asked.

use std::time::{Duration, Instant};

use longhand_chain::ChainSource;
use serde_json::json;

use super::DemoError;
use super::chain::Chain;
use super::host::Host;
use super::phone::{PASSPHRASE, Phone};

/// Nothing takes this long; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// Everything.
pub(super) struct World {
    pub chain: Chain,
    pub host: Host,
    pub alice: Phone,
    pub bob: Phone,
}

impl World {
    /// Ends everything in order.
    pub async fn stop(&mut self) {
        // What does not end when asked to is killed with the demo.
        for phone in [&mut self.alice, &mut self.bob] {
            let _ = phone.stop().await;
        }
        let _ = self.host.stop().await;
    }

    /// Mines, and waits until the host has seen it.
    pub async fn mine(&self, blocks: u32) -> Result<(), DemoError> {
        self.chain.rpc.mine(blocks).await?;
        let height = self.chain.rpc.source().tip().await?.height;
        until("the host has seen the new blocks", async || {
            Ok((self.host.status().await?.block_height >= height).then_some(()))
        })
        .await
    }

    /// Lets a block come every `seconds`.
    pub async fn mine_by_timer(&self, seconds: u32) -> Result<(), DemoError> {
        self.chain
            .rpc
            .call("devnet_setminetimer", &[json!(seconds)])
            .await?;
        Ok(())
    }

    /// What a person can do with it.
    pub fn how_to_play(&self, mining_pause_s: u32) -> String {
        let binary = std::env::current_exe().unwrap_or_else(|_| "longhand".into());
        let binary = binary.display();
        let phone = |phone: &Phone| format!("{binary} phone --dir {}", phone.dir.display());
        let (alice, bob) = (phone(&self.alice), phone(&self.bob));
        let admin = format!(
            "{binary} admin --operator unix:{}",
            self.host.socket().display()
        );
        let devnet = format!("{binary} devnet --rpc-bind {}", self.chain.rpc_bind);
        format!(
            "Everything runs until Ctrl-C; a block comes every {mining_pause_s} s. In another terminal:

  export LONGHAND_PASSPHRASE={PASSPHRASE}
  {bob} balance
  {admin} hub invoice 1000000
  {bob} pay INVOICE
  {bob} payments
  {admin} hub open 500000 --owner alice --push-msat 50000000
  {alice} channels
  {alice} invoice 10000 --sat
  {bob} pay INVOICE
  {admin} nodes
  {devnet} faucet \"$({alice} address)\" 1000000
"
        )
    }
}

/// Asks again and again until there is an answer.
pub(super) async fn until<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<Option<T>, DemoError>,
) -> Result<T, DemoError> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        tokio::time::sleep(POLL).await;
    }
    Err(late(what))
}

/// Waits for work, and not for ever.
pub(super) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> Result<T, DemoError> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .map_err(|_| late(what))
}

fn late(what: &str) -> DemoError {
    DemoError::Late {
        what: what.to_owned(),
        seconds: PATIENCE.as_secs(),
    }
}
