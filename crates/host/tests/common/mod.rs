//! A host to talk to, and a phone in its barest form: a link, and a signer when it is given one.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

pub mod embedded;

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Network, OutPoint, Transaction, TxOut};
use longhand_chain::{
    BlockReader, BlockRef, ChainError, FeeRates, FeeSource, OutputLookup, TransactionRelay,
};
use longhand_host::client::{self, Client};
use longhand_host::{Host, HostConfig, HostError};
use longhand_link::{
    Carrier, Carriers, Config, Conversation, Credentials, DialOptions, IncomingRequests, Link,
    LinkError, LinkKeypair, PairingCode, Side, connect_over, dial,
};
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Command, CommandReply, Error, GetInfo, Register};
use longhand_proto::operator::CreateOwnerRequest;
use longhand_proto::signer::SignerBatch;
use longhand_signer::{Seed, Signer};
use longhand_store::{SqliteStore, Store};
use prost::Message;

/// A configuration on free ports, in `dir`.
pub fn config(dir: &tempfile::TempDir) -> HostConfig {
    let mut config = HostConfig {
        data_dir: dir.path().join("host"),
        ..HostConfig::default()
    };
    let any_port = "127.0.0.1:0".parse().unwrap();
    config.link.listen = vec!["grpc://127.0.0.1:0".into()];
    config.peer.listen = any_port;
    config.metrics.listen = any_port.to_string();
    // Nothing listens there.
    config.chain.bitcoind.url = "http://127.0.0.1:1".into();
    config
}

/// A host whose chain source is down, with its operator.
pub async fn host_without_chain(config: HostConfig) -> (Host, Client) {
    let host = Host::start(config.clone()).await.unwrap();
    let client = operator(&host, &config).await;
    (host, client)
}

pub async fn operator(host: &Host, config: &HostConfig) -> Client {
    let listens = &host.addresses().unwrap().operator;
    client::connect(listens, &config.operator_token_file())
        .await
        .unwrap()
}

/// Where phones reach the host, as `link.listen` has it.
pub fn listening(host: &Host) -> Vec<String> {
    let addresses = &host.addresses().unwrap().link;
    addresses.iter().map(ToString::to_string).collect()
}

/// Makes an owner and gives the code that the operator would show.
pub async fn create_owner(operator: &mut Client, name: &str) -> PairingCode {
    let request = CreateOwnerRequest {
        name: name.into(),
        ..CreateOwnerRequest::default()
    };
    let code = operator.create_owner(request).await.unwrap().into_inner();
    code.code.parse().unwrap()
}

/// Gives a host one end of a connection inside this process, and returns the other.
pub fn hand_in(host: &Host) -> Carrier {
    let (phone_end, host_end) = Carrier::pair();
    host.accept_link(host_end);
    phone_end
}

/// A phone: a key and a link. What it is asked to sign waits in `requests`.
pub struct Phone {
    pub key: LinkKeypair,
    pub conversation: Conversation,
    pub requests: IncomingRequests,
    code: PairingCode,
}

impl Phone {
    pub fn new(code: PairingCode) -> Phone {
        Phone::with_key(code, LinkKeypair::generate().unwrap())
    }

    /// Another process of the phone with this key.
    pub fn with_key(code: PairingCode, key: LinkKeypair) -> Phone {
        let config = Config::new("test-phone", &["signer"]);
        let (conversation, requests) = Conversation::new(Side::Phone, config).unwrap();
        Phone {
            key,
            conversation,
            requests,
            code,
        }
    }

    pub async fn pair(&self) -> Result<Link, LinkError> {
        self.pair_over(self.dial().await?).await
    }

    pub async fn attach(&self) -> Result<Link, LinkError> {
        self.attach_over(self.dial().await?).await
    }

    /// Pairs over a connection that was dialled.
    pub async fn pair_over(&self, carrier: Carrier) -> Result<Link, LinkError> {
        let credentials = Credentials::Pair {
            phone: self.key.clone(),
            code: Box::new(self.code.clone()),
        };
        self.begin(carrier, credentials).await
    }

    /// Attaches over a connection that was dialled.
    pub async fn attach_over(&self, carrier: Carrier) -> Result<Link, LinkError> {
        let credentials = Credentials::Attach {
            phone: self.key.clone(),
            host: self.code.host,
        };
        self.begin(carrier, credentials).await
    }

    /// Pairs with a host of this process.
    pub async fn pair_inside(&self, host: &Host) -> Result<Link, LinkError> {
        self.pair_over(hand_in(host)).await
    }

    /// Attaches to a host of this process.
    pub async fn attach_inside(&self, host: &Host) -> Result<Link, LinkError> {
        self.attach_over(hand_in(host)).await
    }

    async fn dial(&self) -> Result<Carrier, LinkError> {
        dial(&self.code.addresses, &DialOptions::default()).await
    }

    /// Returns when the link is live on both sides: the host has answered a command.
    async fn begin(&self, carrier: Carrier, credentials: Credentials) -> Result<Link, LinkError> {
        let link = connect_over(carrier, &credentials, &self.conversation).await?;
        self.command(Body::GetInfo(GetInfo {})).await;
        Ok(link)
    }

    pub async fn command(&self, body: Body) -> Reply {
        let command = Command {
            command: Some(body),
        };
        let answer = self
            .conversation
            .request("command", command.encode_to_vec())
            .await
            .unwrap();
        CommandReply::decode(&*answer).unwrap().reply.unwrap()
    }

    /// The error that a command is answered with.
    pub async fn refused(&self, body: Body) -> Error {
        match self.command(body).await {
            Reply::Error(error) => error,
            other => panic!("must be refused, not answered with {other:?}"),
        }
    }
}

impl Phone {
    /// From now on this phone signs, with the keys of `seed`. Its ledger lives as long as the test.
    pub fn sign_with(&mut self, seed: u8) {
        let (_, nobody) = Conversation::new(Side::Phone, Config::new("nobody", &[])).unwrap();
        let mut requests = std::mem::replace(&mut self.requests, nobody);
        let mut signer = signer(seed);
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let batch = SignerBatch::decode(&*request.payload).unwrap();
                let reply = signer.handle(&batch, 0).reply;
                request.responder.respond(reply.encode_to_vec());
            }
        });
    }
}

fn signer(seed_byte: u8) -> Signer {
    let seed = Seed::from_entropy(&[seed_byte; 16]).unwrap();
    Signer::new(&seed, Network::Regtest, &[seed_byte; 32]).unwrap()
}

/// What a phone with this seed registers.
pub fn registration(seed: u8) -> Register {
    signer(seed).register(0)
}

/// The code that the host closed a link with, or did not let a phone in.
pub fn close_code(error: &LinkError) -> String {
    match error {
        LinkError::Closed(reason) => reason.code.to_string(),
        other => panic!("the host must say why, not {other:?}"),
    }
}

/// A chain source of one's own that answers everything with the same error.
pub struct FailingSource(pub fn() -> ChainError);

impl FailingSource {
    /// Starts a host on it.
    pub async fn start_host(self, config: HostConfig) -> Result<Host, HostError> {
        self.start_host_on(config, &Carriers::default()).await
    }

    /// The same on these carriers.
    pub async fn start_host_on(
        self,
        config: HostConfig,
        carriers: &Carriers,
    ) -> Result<Host, HostError> {
        std::fs::create_dir_all(&config.data_dir).unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(config.database_file()).unwrap());
        Host::start_with(config, store, Arc::new(self), carriers).await
    }
}

#[async_trait]
impl BlockReader for FailingSource {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        Err((self.0)())
    }
    async fn header(&self, _: &BlockHash) -> Result<(Header, u32), ChainError> {
        Err((self.0)())
    }
    async fn hash_at(&self, _: u32) -> Result<BlockHash, ChainError> {
        Err((self.0)())
    }
    async fn block(&self, _: &BlockHash) -> Result<Block, ChainError> {
        Err((self.0)())
    }
}

#[async_trait]
impl FeeSource for FailingSource {
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        Err((self.0)())
    }
}

#[async_trait]
impl TransactionRelay for FailingSource {
    async fn broadcast(&self, _: &[Transaction]) -> Result<(), ChainError> {
        Err((self.0)())
    }
}

#[async_trait]
impl OutputLookup for FailingSource {
    async fn unspent(&self, _: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        Err((self.0)())
    }
    async fn transaction_at(&self, _: u32, _: u32) -> Result<Option<Transaction>, ChainError> {
        Err((self.0)())
    }
}
