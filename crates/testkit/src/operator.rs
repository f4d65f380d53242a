//! A host's operator: its API, with the questions that a program asks again and again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longhand_host::client::Client;
use longhand_proto::operator::*;

use crate::{KitError, Patience};

const PATIENCE: Patience = Patience::REAL;

/// A client of one host's operator API, for as long as that host runs. Clones share the connection.
#[derive(Clone, Default)]
pub struct OperatorClient(Arc<Mutex<Option<Client>>>);

impl OperatorClient {
    /// A client over this connection.
    pub fn new(client: Client) -> OperatorClient {
        OperatorClient(Arc::new(Mutex::new(Some(client))))
    }

    /// The host runs, and is asked over this connection; `None` when it runs no more.
    pub fn set(&self, client: Option<Client>) {
        *self.lock() = client;
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.lock().is_some()
    }

    /// The operator's API.
    ///
    /// # Errors
    /// When the host does not run.
    pub fn client(&self) -> Result<Client, KitError> {
        self.lock()
            .clone()
            .ok_or_else(|| KitError::Away("the host".into()))
    }

    /// The state of the host.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn status(&self) -> Result<StatusReply, KitError> {
        Ok(self.client()?.status(StatusRequest {}).await?.into_inner())
    }

    /// One owner's node.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn node(&self, owner: &str) -> Result<NodeView, KitError> {
        let request = GetNodeRequest {
            owner: owner.into(),
        };
        Ok(self.client()?.get_node(request).await?.into_inner())
    }

    /// The hub's balance.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn hub_balance(&self) -> Result<HubBalanceReply, KitError> {
        Ok(self
            .client()?
            .hub_balance(HubBalanceRequest {})
            .await?
            .into_inner())
    }

    /// The hub's channels.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn hub_channels(&self) -> Result<Vec<HubChannel>, KitError> {
        Ok(self
            .client()?
            .hub_channels(HubChannelsRequest {})
            .await?
            .into_inner()
            .channels)
    }

    /// The hub opens a channel to an owner, and gives the owner `push_msat` of it.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn hub_open(
        &self,
        owner: &str,
        amount_sat: u64,
        push_msat: u64,
    ) -> Result<HubOpenChannelReply, KitError> {
        let request = HubOpenChannelRequest {
            owner: owner.into(),
            amount_sat,
            push_msat,
            ..HubOpenChannelRequest::default()
        };
        let mut operator = self.client()?;
        let opening = operator.hub_open_channel(request);
        let opened = PATIENCE.in_time("the hub opens a channel", opening);
        Ok(opened.await??.into_inner())
    }

    /// An invoice of the hub's.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn hub_invoice(&self, amount_msat: u64) -> Result<String, KitError> {
        let request = HubInvoiceRequest {
            amount_msat,
            description: "a payment".into(),
            expiry_s: 3_600,
        };
        Ok(self
            .client()?
            .hub_invoice(request)
            .await?
            .into_inner()
            .bolt11)
    }

    /// The hub pays; ends when the payment does.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn hub_pay(&self, bolt11: String) -> Result<HubPayReply, KitError> {
        let request = HubPayRequest {
            bolt11,
            ..HubPayRequest::default()
        };
        let mut operator = self.client()?;
        let paid = PATIENCE.in_time("the hub pays", operator.hub_pay(request));
        Ok(paid.await??.into_inner())
    }

    /// Waits until the hub runs, which it does when the host has seen the chain. Returns its node id.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn hub_node_id(&self) -> Result<Vec<u8>, KitError> {
        let running = PATIENCE.until("the hub runs", async || {
            let node_id = self.status().await?.hub_node_id;
            Ok((!node_id.is_empty()).then_some(node_id))
        });
        running.await
    }

    /// Waits until the host has seen the chain up to a block.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn at_height(&self, height: u32) -> Result<(), KitError> {
        let seen = PATIENCE.until("the host has seen the new blocks", async || {
            Ok((self.status().await?.block_height >= height).then_some(()))
        });
        seen.await
    }

    /// Waits until the hub has so much on chain, confirmed.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn hub_has_coins(&self, amount_sat: u64) -> Result<(), KitError> {
        let funded = PATIENCE.until("the hub has its coins", async || {
            let balance = self.hub_balance().await?;
            Ok((balance.onchain_confirmed_sat >= amount_sat).then_some(()))
        });
        funded.await
    }

    /// An address of the hub's, once it runs.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn hub_address(&self) -> Result<String, KitError> {
        self.hub_node_id().await?;
        let made = self.client()?.hub_address(HubAddressRequest {}).await?;
        Ok(made.into_inner().address)
    }

    /// Waits until an owner's node is `active`, with as many usable channels.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn usable(&self, owner: &str, channels: u32) -> Result<(), KitError> {
        PATIENCE
            .until(
                &format!("{owner} has {channels} usable channels"),
                async || {
                    let node = self.node(owner).await?;
                    Ok((node.state == "active" && node.usable_channels == channels).then_some(()))
                },
            )
            .await
    }

    /// Waits until an owner's node is dormant: its phone is away, and it has no peers.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn dormant(&self, owner: &str) -> Result<(), KitError> {
        let what = format!("{owner} is dormant");
        let dormant = PATIENCE.until(&what, async || {
            let node = self.node(owner).await?;
            Ok((node.state == "dormant" && node.peers == 0).then_some(()))
        });
        dormant.await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
