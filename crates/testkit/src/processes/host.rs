//! The host: its process, and its operator.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use longhand_host::OperatorListen;
use longhand_host::client;
use longhand_proto::operator::CreateOwnerRequest;

use super::chain::ChainProcess;
use super::phone::PhoneProcess;
use super::process::{Launcher, Process, Restartable, Start};
use crate::KitError;
use crate::operator::OperatorClient;

/// The host's process and its operator. It is asked by its [`OperatorClient`].
pub struct HostProcess {
    pub(super) launcher: Launcher,
    settings: HostSettings,
    chain_url: String,
    chain_auth: (String, String),
    process: Restartable,
    operator: OperatorClient,
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

impl Deref for HostProcess {
    type Target = OperatorClient;

    fn deref(&self) -> &OperatorClient {
        &self.operator
    }
}

impl HostProcess {
    /// Starts a host on the chain.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        launcher: &Launcher,
        chain: &ChainProcess,
        settings: HostSettings,
    ) -> Result<HostProcess, KitError> {
        let mut host = HostProcess {
            launcher: launcher.clone(),
            settings,
            chain_url: format!("http://{}", chain.rpc_bind),
            chain_auth: chain.auth.clone(),
            process: Restartable::new("the host"),
            operator: OperatorClient::default(),
        };
        host.start_again().await?;
        Ok(host)
    }

    /// Starts it again on its addresses and its files.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_again(&mut self) -> Result<(), KitError> {
        self.spawn_again()?;
        self.wait_until_ready().await
    }

    /// As [`HostProcess::start_again`], and does not wait for it.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn_again(&mut self) -> Result<(), KitError> {
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
        self.process.spawn(Start {
            launcher: &self.launcher,
            name: "host",
            args,
            env,
        })
    }

    /// Waits until it is ready, and reaches its operator's API.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn wait_until_ready(&mut self) -> Result<(), KitError> {
        let ready = self.process.wait_until_ready().await?;
        if self.operator.is_connected() {
            return Ok(());
        }
        if let Some(link) = ready["link"][0].as_str() {
            self.settings.link_listen = link.to_owned();
        }
        let listen = OperatorListen::Unix(self.socket());
        let client = client::connect(&listen, Path::new("")).await?;
        self.operator.set(Some(client));
        Ok(())
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.running()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the system does not do it.
    pub async fn kill(&mut self) -> Result<(), KitError> {
        self.operator.set(None);
        self.process.kill().await
    }

    /// SIGTERM, and waits until it has exited.
    ///
    /// # Errors
    /// When it does not exit, or with an error.
    pub async fn stop(&mut self) -> Result<(), KitError> {
        self.operator.set(None);
        self.process.stop().await
    }

    /// Its data directory.
    pub fn dir(&self) -> PathBuf {
        self.launcher.dir.join("host")
    }

    /// The operator's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("operator.sock")
    }

    /// Creates an owner for a phone, pairs the phone, and has it attach and stay. It is paired by words at `words_at`, the address of a
    /// mailbox with Lightning Node Connect, or by a code without one.
    ///
    /// # Errors
    /// When any of it fails.
    pub async fn take_in(
        &self,
        phone: &mut PhoneProcess,
        words_at: Option<&str>,
    ) -> Result<(), KitError> {
        phone.make().await?;
        let request = CreateOwnerRequest {
            name: phone.name.clone(),
            ..CreateOwnerRequest::default()
        };
        let made = self.client()?.create_owner(request).await?.into_inner();
        match words_at {
            Some(mailbox) => phone.pair_by_words(&made.words, mailbox).await?,
            None => phone.pair(&made.code).await?,
        }
        phone.start().await?;
        self.usable(&phone.name, 0).await
    }
}
