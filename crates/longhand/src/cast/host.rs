//! The host: its process, and its operator.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longhand_host::OperatorListen;
use longhand_host::client::{self, Client};
use longhand_proto::operator::*;

use super::chain::Chain;
use super::phone::Phone;
use super::process::{Process, Stage, Start};
use super::{CastError, in_time, until};

/// The host's process and its operator.
pub struct Host {
    stage: Stage,
    settings: HostSettings,
    chain_url: String,
    chain_auth: (String, String),
    process: Option<Process>,
    operator: Operator,
}

/// How a host is set up.
#[derive(Clone, Debug)]
pub struct HostSettings {
    /// The address where phones attach; with port 0 a free one, and the same after a restart.
    pub link_listen: String,
    /// `KEY=VALUE`, as docs/host.example.toml has them.
    pub set: Vec<String>,
}

impl Default for HostSettings {
    fn default() -> HostSettings {
        HostSettings {
            link_listen: "grpc://127.0.0.1:0".into(),
            set: vec!["chain.poll_ms=50".into()],
        }
    }
}

/// The host's operator: what can be asked of a host while it runs, also by those who do not start and kill it.
#[derive(Clone, Default)]
pub struct Operator(Arc<Mutex<Option<Client>>>);

/// A host is asked as its operator asks it.
impl Deref for Host {
    type Target = Operator;

    fn deref(&self) -> &Operator {
        &self.operator
    }
}

impl Host {
    /// Starts a host on the chain.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        stage: &Stage,
        chain: &Chain,
        settings: HostSettings,
    ) -> Result<Host, CastError> {
        let mut host = Host {
            stage: stage.clone(),
            settings,
            chain_url: format!("http://{}", chain.rpc_bind),
            chain_auth: chain.auth.clone(),
            process: None,
            operator: Operator::default(),
        };
        host.start_again().await?;
        Ok(host)
    }

    /// Starts it where it was before, on what it has on the disk.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_again(&mut self) -> Result<(), CastError> {
        self.spawn_again()?;
        self.wait_until_ready().await
    }

    /// As [`Host::start_again`], and does not wait for it.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn_again(&mut self) -> Result<(), CastError> {
        let data_dir = self.dir().display().to_string();
        let args = [
            "host",
            "--json",
            "--network",
            "regtest",
            "--data-dir",
            &data_dir,
            "--chain-url",
            &self.chain_url,
            "--link-listen",
            &self.settings.link_listen,
            "--peer-listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "",
        ];
        let mut args: Vec<String> = args.map(str::to_owned).into();
        for setting in &self.settings.set {
            args.extend(["--set".to_owned(), setting.clone()]);
        }
        let (user, password) = self.chain_auth.clone();
        let env = vec![
            ("LONGHAND_HOST_CHAIN_BITCOIND_USER", user),
            ("LONGHAND_HOST_CHAIN_BITCOIND_PASSWORD", password),
        ];
        self.process = Some(Process::spawn(Start {
            stage: &self.stage,
            name: "host",
            args,
            env,
        })?);
        Ok(())
    }

    /// Waits until it is ready, and reaches its operator's API.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn wait_until_ready(&mut self) -> Result<(), CastError> {
        let process = self.process.as_mut().ok_or_else(does_not_run)?;
        process.wait_until_ready().await?;
        if self.operator.lock().is_some() {
            return Ok(());
        }
        if let Some(link) = process.ready()["link"][0].as_str() {
            self.settings.link_listen = link.to_owned();
        }
        let listen = OperatorListen::Unix(self.socket());
        let client = client::connect(&listen, Path::new("")).await?;
        *self.operator.lock() = Some(client);
        Ok(())
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the system does not do it.
    pub async fn kill(&mut self) -> Result<(), CastError> {
        *self.operator.lock() = None;
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(&mut self) -> Result<(), CastError> {
        *self.operator.lock() = None;
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// All that it keeps.
    pub fn dir(&self) -> PathBuf {
        self.stage.dir.join("host")
    }

    /// The operator's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("operator.sock")
    }

    /// Makes an owner for a phone, which meets the host, attaches and stays.
    ///
    /// # Errors
    /// When any of it does not come about.
    pub async fn take_in(&self, phone: &mut Phone) -> Result<(), CastError> {
        phone.make().await?;
        let request = CreateOwnerRequest {
            name: phone.name.clone(),
            ..CreateOwnerRequest::default()
        };
        let made = self.client()?.create_owner(request).await?;
        phone.pair(&made.into_inner().code).await?;
        phone.start().await?;
        self.usable(&phone.name, 0).await
    }
}

impl Operator {
    /// The operator's API.
    ///
    /// # Errors
    /// When the host does not run.
    pub fn client(&self) -> Result<Client, CastError> {
        self.lock().clone().ok_or_else(does_not_run)
    }

    /// How it is.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn status(&self) -> Result<StatusReply, CastError> {
        Ok(self.client()?.status(StatusRequest {}).await?.into_inner())
    }

    /// One owner's node.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn node(&self, owner: &str) -> Result<NodeView, CastError> {
        let request = GetNodeRequest {
            owner: owner.into(),
        };
        Ok(self.client()?.get_node(request).await?.into_inner())
    }

    /// What the hub has.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn hub_balance(&self) -> Result<HubBalanceReply, CastError> {
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
    pub async fn hub_channels(&self) -> Result<Vec<HubChannel>, CastError> {
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
    ) -> Result<HubOpenChannelReply, CastError> {
        let request = HubOpenChannelRequest {
            owner: owner.into(),
            amount_sat,
            push_msat,
            ..HubOpenChannelRequest::default()
        };
        let mut operator = self.client()?;
        let opened = in_time(
            "the hub opens a channel",
            operator.hub_open_channel(request),
        );
        Ok(opened.await??.into_inner())
    }

    /// An invoice of the hub's.
    ///
    /// # Errors
    /// When the host does not answer, or refuses.
    pub async fn hub_invoice(&self, amount_msat: u64) -> Result<String, CastError> {
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
    pub async fn hub_pay(&self, bolt11: String) -> Result<HubPayReply, CastError> {
        let request = HubPayRequest {
            bolt11,
            ..HubPayRequest::default()
        };
        let mut operator = self.client()?;
        let paid = in_time("the hub pays", operator.hub_pay(request));
        Ok(paid.await??.into_inner())
    }

    /// Waits until the hub runs, which it does when the host has seen the chain. Returns an address of the hub's.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn hub_address(&self) -> Result<String, CastError> {
        until("the hub runs", async || {
            Ok((!self.status().await?.hub_node_id.is_empty()).then_some(()))
        })
        .await?;
        let made = self.client()?.hub_address(HubAddressRequest {}).await?;
        Ok(made.into_inner().address)
    }

    /// Waits until an owner's node is `active`, with as many usable channels.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn usable(&self, owner: &str, channels: u32) -> Result<(), CastError> {
        until(
            &format!("{owner} has {channels} usable channels"),
            async || {
                let node = self.node(owner).await?;
                Ok((node.state == "active" && node.usable_channels == channels).then_some(()))
            },
        )
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Client>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn does_not_run() -> CastError {
    CastError::Away("the host".into())
}
