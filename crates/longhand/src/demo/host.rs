//! The demo's host: its process, and its operator.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longhand_host::OperatorListen;
use longhand_host::client::{self, Client};
use longhand_proto::operator::*;

use super::DemoError;
use super::chain::Chain;
use super::processes::{Process, Start};
use super::world::{in_time, until};

/// The host's process and its operator.
pub(super) struct Host {
    dir: PathBuf,
    process: Option<Process>,
    /// Where it listens: the same after a restart.
    link_listen: String,
    chain: (String, String, String),
    client: Operator,
}

/// The operator's API while the host runs; shared with those who only look.
pub(super) type Operator = Arc<Mutex<Option<Client>>>;

impl Host {
    pub async fn start(dir: &Path, chain: &Chain) -> Result<Host, DemoError> {
        let ready = chain.ready();
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        let mut host = Host {
            dir: dir.to_owned(),
            process: None,
            link_listen: "127.0.0.1:0".into(),
            chain: (text("rpc"), text("user"), text("password")),
            client: Operator::default(),
        };
        host.start_again().await?;
        Ok(host)
    }

    /// Starts it where it was before, on what it has on the disk.
    pub async fn start_again(&mut self) -> Result<(), DemoError> {
        let data_dir = self.dir.join("host").display().to_string();
        let (url, user, password) = self.chain.clone();
        let args = [
            "host",
            "--json",
            "--network",
            "regtest",
            "--data-dir",
            &data_dir,
            "--chain-url",
            &url,
            "--set",
            "chain.poll_ms=50",
            "--link-listen",
            &self.link_listen,
            "--peer-listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "",
        ];
        let env = vec![
            ("LONGHAND_HOST_CHAIN_USER", user),
            ("LONGHAND_HOST_CHAIN_PASSWORD", password),
        ];
        let args = args.map(str::to_owned).into();
        let process = Process::start(Start {
            name: "host",
            dir: &self.dir,
            args,
            env,
        })
        .await?;
        if let Some(link) = process.ready["link"].as_str() {
            self.link_listen = link.to_owned();
        }
        self.process = Some(process);
        let listen = OperatorListen::Unix(self.socket());
        let client = client::connect(&listen, Path::new("")).await?;
        *lock(&self.client) = Some(client);
        Ok(())
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<(), DemoError> {
        *lock(&self.client) = None;
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM.
    pub async fn stop(&mut self) -> Result<(), DemoError> {
        *lock(&self.client) = None;
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// The operator's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("host").join("operator.sock")
    }

    /// The operator's API.
    pub fn operator(&self) -> Result<Client, DemoError> {
        lock(&self.client)
            .clone()
            .ok_or_else(|| DemoError::Off("the host does not run".into()))
    }

    /// For those who look while others act.
    pub fn shared_operator(&self) -> Operator {
        Arc::clone(&self.client)
    }

    pub async fn status(&self) -> Result<StatusReply, DemoError> {
        Ok(self
            .operator()?
            .status(StatusRequest {})
            .await?
            .into_inner())
    }

    pub async fn node(&self, owner: &str) -> Result<NodeView, DemoError> {
        let request = GetNodeRequest {
            owner: owner.into(),
        };
        Ok(self.operator()?.get_node(request).await?.into_inner())
    }

    pub async fn hub_balance(&self) -> Result<HubBalanceReply, DemoError> {
        Ok(self
            .operator()?
            .hub_balance(HubBalanceRequest {})
            .await?
            .into_inner())
    }

    pub async fn hub_channels(&self) -> Result<Vec<HubChannel>, DemoError> {
        Ok(self
            .operator()?
            .hub_channels(HubChannelsRequest {})
            .await?
            .into_inner()
            .channels)
    }

    pub async fn hub_open(
        &self,
        owner: &str,
        amount_sat: u64,
        push_msat: u64,
    ) -> Result<HubOpenChannelReply, DemoError> {
        let request = HubOpenChannelRequest {
            owner: owner.into(),
            amount_sat,
            push_msat,
            ..HubOpenChannelRequest::default()
        };
        let mut operator = self.operator()?;
        let opened = in_time(
            "the hub opens a channel",
            operator.hub_open_channel(request),
        );
        Ok(opened.await??.into_inner())
    }

    pub async fn hub_invoice(&self, amount_msat: u64) -> Result<String, DemoError> {
        let request = HubInvoiceRequest {
            amount_msat,
            description: "demo".into(),
            expiry_s: 3_600,
        };
        Ok(self
            .operator()?
            .hub_invoice(request)
            .await?
            .into_inner()
            .bolt11)
    }

    pub async fn hub_pay(&self, bolt11: String) -> Result<HubPayReply, DemoError> {
        let request = HubPayRequest {
            bolt11,
            ..HubPayRequest::default()
        };
        let mut operator = self.operator()?;
        let paid = in_time("the hub pays", operator.hub_pay(request));
        Ok(paid.await??.into_inner())
    }

    /// Waits until an owner's node is `active`, with as many usable channels.
    pub async fn usable(&self, owner: &str, channels: u32) -> Result<(), DemoError> {
        until(
            &format!("{owner} has {channels} usable channels"),
            async || {
                let node = self.node(owner).await?;
                Ok((node.state == "active" && node.usable_channels == channels).then_some(()))
            },
        )
        .await
    }
}

/// The client, when there is one.
pub(super) fn lock(operator: &Operator) -> MutexGuard<'_, Option<Client>> {
    operator.lock().unwrap_or_else(PoisonError::into_inner)
}
