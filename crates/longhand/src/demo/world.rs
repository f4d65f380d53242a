//! What the story is told with: the chain, the host and the phones, and how each is asked.

use std::time::Duration;

use longhand::cast::{self, CastError, Chain, Host, PASSPHRASE, Phone};
use serde_json::json;

/// How far the phones are away, one way: as far as a mobile phone is.
pub(super) const DISTANCE: Duration = Duration::from_millis(50);

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
    pub async fn mine(&self, blocks: u32) -> Result<(), CastError> {
        cast::mine(&self.chain, &self.host, blocks).await
    }

    /// Lets a block come every `seconds`.
    pub async fn mine_by_timer(&self, seconds: u32) -> Result<(), CastError> {
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
