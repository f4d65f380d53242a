//! What the story is told with: the chain, the host and the phones, and how each is asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::{Amount, Txid};
use longhand_chain::ChainSource;
use longhand_host::OperatorListen;
use longhand_host::client::{self, Client};
use longhand_phone::command::{Channel, Invoice, OpenedChannel, Payment};
use longhand_phone::control::through_running;
use longhand_phone::{OwnerCommand, OwnerReply, PhoneError};
use longhand_proto::operator::*;
use serde_json::json;

use super::DemoError;
use super::processes::{Process, Start, run};
use crate::devnet_cli::Rpc;

/// Nothing takes this long; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// Of the demo's phones, whose coins are worth nothing.
pub(super) const PASSPHRASE: &str = "demo";
/// scrypt's log2(N): weak on purpose, so that a phone starts at once.
const KDF_WORK_FACTOR: &str = "8";
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
        if let Some(process) = self.host.process.take() {
            let _ = process.stop().await;
        }
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
            "
Everything runs until Ctrl-C; a block comes every {mining_pause_s} s. In another terminal:

  export LONGHAND_PASSPHRASE={PASSPHRASE}
  {bob} balance
  {bob} invoice 10000 --sat
  {alice} channels
  {admin} hub open 500000 --owner alice --push-msat 100000000
  {alice} pay INVOICE
  {bob} payments
  {admin} nodes
  {admin} hub invoice 1000000
  {devnet} faucet \"$({alice} address)\" 1000000
"
        )
    }
}

/// The devnet.
pub(super) struct Chain {
    pub rpc: Rpc,
    rpc_bind: SocketAddr,
    _process: Process,
}

impl Chain {
    pub async fn start(dir: &Path) -> Result<Chain, DemoError> {
        let data_dir = dir.join("devnet").display().to_string();
        let args = [
            "devnet",
            "--json",
            "--rpc-bind",
            "127.0.0.1:0",
            "--data-dir",
            &data_dir,
        ];
        let start = Start {
            name: "devnet",
            dir,
            args: args.map(str::to_owned).into(),
            env: vec![],
        };
        let process = Process::start(start).await?;
        let text = |key: &str| process.ready[key].as_str().unwrap_or_default().to_owned();
        let rpc_bind = text("rpc")
            .trim_start_matches("http://")
            .parse()
            .map_err(|_| {
                DemoError::Off(format!(
                    "devnet does not say where it is: {}",
                    process.ready
                ))
            })?;
        let rpc = Rpc::new(rpc_bind, text("user"), text("password"));
        Ok(Chain {
            rpc,
            rpc_bind,
            _process: process,
        })
    }

    /// Waits until the mempool has a transaction.
    pub async fn in_mempool(&self, txid: &str) -> Result<(), DemoError> {
        until(&format!("{txid} is in the mempool"), async || {
            let pool = self.rpc.call("getrawmempool", &[]).await?;
            Ok(pool
                .as_array()
                .is_some_and(|pool| pool.iter().any(|t| t == txid))
                .then_some(()))
        })
        .await
    }

    /// Waits until the mempool has a transaction that spends an output, `txid:vout`. Returns its id.
    pub async fn spent_in_mempool(&self, outpoint: &str) -> Result<Txid, DemoError> {
        let (txid, vout) = outpoint.split_once(':').unwrap_or((outpoint, "0"));
        let output = json!([{ "txid": txid, "vout": vout.parse::<u32>().unwrap_or(0) }]);
        until(&format!("{outpoint} is being spent"), async || {
            let spent = self
                .rpc
                .call("gettxspendingprevout", std::slice::from_ref(&output))
                .await?;
            Ok(spent[0]["spendingtxid"]
                .as_str()
                .and_then(|txid| txid.parse().ok()))
        })
        .await
    }
}

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
        let ready = &chain._process.ready;
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

    fn socket(&self) -> PathBuf {
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

/// A phone: its directory and, when it runs, its process.
pub(super) struct Phone {
    pub name: &'static str,
    pub dir: PathBuf,
    base: PathBuf,
    process: Option<Process>,
}

impl Phone {
    pub fn new(base: &Path, name: &'static str) -> Phone {
        Phone {
            name,
            dir: base.join(name),
            base: base.to_owned(),
            process: None,
        }
    }

    fn start_with<'a>(&'a self, command: &[&str]) -> Start<'a> {
        let dir = self.dir.display().to_string();
        let distance = DISTANCE.as_millis().to_string();
        let mut args: Vec<String> = [
            "phone",
            "--json",
            "--dir",
            &dir,
            "--link-delay-ms",
            &distance,
        ]
        .map(str::to_owned)
        .into();
        args.extend(command.iter().map(|&arg| arg.to_owned()));
        let env = vec![("LONGHAND_PASSPHRASE", PASSPHRASE.to_owned())];
        Start {
            name: self.name,
            dir: &self.base,
            args,
            env,
        }
    }

    /// Makes its keys.
    pub async fn make(&self) -> Result<(), DemoError> {
        run(self.start_with(&["--kdf-work-factor", KDF_WORK_FACTOR, "new"]))
            .await
            .map(|_| ())
    }

    /// Meets the host.
    pub async fn pair(&self, code: &str) -> Result<(), DemoError> {
        run(self.start_with(&["pair", code])).await.map(|_| ())
    }

    /// Attaches and stays.
    pub async fn start(&mut self) -> Result<(), DemoError> {
        self.process = Some(Process::start(self.start_with(&["run"])).await?);
        Ok(())
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<(), DemoError> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM: it detaches before it ends.
    pub async fn stop(&mut self) -> Result<(), DemoError> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// Asks the running phone, as `longhand phone` does. What is returned goes on without the phone being borrowed.
    pub fn ask(
        &self,
        command: OwnerCommand,
    ) -> impl Future<Output = Result<OwnerReply, DemoError>> + Send + use<> {
        let (dir, name) = (self.dir.clone(), self.name);
        async move {
            let asked = through_running(&dir, &command);
            match in_time(&format!("{name}'s phone answers"), asked).await? {
                Some(answer) => Ok(answer?),
                None => Err(DemoError::Off(format!("{name}'s phone does not run"))),
            }
        }
    }

    pub async fn channels(&self) -> Result<Vec<Channel>, DemoError> {
        match self.ask(OwnerCommand::Channels).await? {
            OwnerReply::Channels(list) => Ok(list.channels),
            reply => Err(unexpected(&reply)),
        }
    }

    pub async fn address(&self) -> Result<String, DemoError> {
        match self.ask(OwnerCommand::Address).await? {
            OwnerReply::Address(address) => Ok(address.address),
            reply => Err(unexpected(&reply)),
        }
    }

    pub async fn invoice(&self, amount_msat: u64) -> Result<Invoice, DemoError> {
        let command = OwnerCommand::Invoice {
            amount_msat: Some(amount_msat),
            description: "demo".into(),
            expiry_s: 3_600,
        };
        match self.ask(command).await? {
            OwnerReply::Invoice(invoice) => Ok(invoice),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Ends when the payment has succeeded; its proof is checked by the phone.
    pub fn pay(
        &self,
        bolt11: String,
    ) -> impl Future<Output = Result<Payment, DemoError>> + Send + use<> {
        let asked = self.ask(OwnerCommand::Pay {
            bolt11,
            amount_msat: None,
            max_fee_msat: None,
        });
        async move {
            match asked.await? {
                OwnerReply::Paid(payment) => Ok(payment),
                reply => Err(unexpected(&reply)),
            }
        }
    }

    /// To the hub.
    pub async fn open(&self, amount_sat: u64) -> Result<OpenedChannel, DemoError> {
        let command = OwnerCommand::Open {
            amount_sat,
            to: None,
            announced: false,
            wait: false,
        };
        match self.ask(command).await? {
            OwnerReply::Opened(opened) => Ok(opened),
            reply => Err(unexpected(&reply)),
        }
    }

    pub async fn close(&self, channel_id: &str, force: bool) -> Result<(), DemoError> {
        let command = OwnerCommand::Close {
            channel_id: channel_id.to_owned(),
            force,
        };
        match self.ask(command).await? {
            OwnerReply::Closing(_) => Ok(()),
            reply => Err(unexpected(&reply)),
        }
    }
}

/// The client, when there is one.
pub(super) fn lock(operator: &Operator) -> MutexGuard<'_, Option<Client>> {
    operator.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unexpected(reply: &OwnerReply) -> DemoError {
    DemoError::Phone(PhoneError::Control(format!(
        "an answer to another question: {reply:?}"
    )))
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

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> Result<T, DemoError> {
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

/// Sends coins from the faucet, without a block.
pub(super) async fn faucet(rpc: &Rpc, address: &str, amount_sat: u64) -> Result<Txid, DemoError> {
    let txid = rpc.faucet(address, Amount::from_sat(amount_sat)).await?;
    txid.parse()
        .map_err(|_| DemoError::Off("the faucet gave no transaction id".into()))
}
