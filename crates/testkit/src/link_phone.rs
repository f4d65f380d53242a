//! A phone in its barest form: a key and a link, and a signer when a test gives it one. For tests of a host.

use longhand_host::Host;
use longhand_link::runtime::tokio;
use longhand_link::{
    Carrier, Config, Conversation, Credentials, Dial, DialOptions, IncomingRequests, Link,
    LinkError, LinkKeypair, PairingCode, Rendezvous, Side, connect_over,
};
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Command, CommandReply, Error, GetInfo, Info, Registered};
use longhand_proto::signer::SignerBatch;
use prost::Message;

use crate::phone::{Phone, registration};

/// See the module. Signer batches wait in `requests` until it signs.
pub struct LinkPhone {
    /// Pinned by the host once it is paired.
    pub key: LinkKeypair,
    /// With the host.
    pub conversation: Conversation,
    /// From the host.
    pub requests: IncomingRequests,
    code: PairingCode,
}

impl LinkPhone {
    /// A phone of this owner's, with a key of its own.
    pub fn new(code: PairingCode) -> LinkPhone {
        LinkPhone::with_key(code, LinkKeypair::generate().unwrap())
    }

    /// Another process of the phone with this key.
    pub fn with_key(code: PairingCode, key: LinkKeypair) -> LinkPhone {
        let config = Config::new("test-phone", &["signer"]);
        let (conversation, requests) = Conversation::new(Side::Phone, config, tokio()).unwrap();
        LinkPhone {
            key,
            conversation,
            requests,
            code,
        }
    }

    /// Dials the first address of its code, and pairs.
    pub async fn pair(&self) -> Result<Link, LinkError> {
        self.pair_over(self.dial().await?).await
    }

    /// Dials the first address of its code, and attaches.
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
            discovery: None,
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

    /// Dials one address.
    pub async fn dial_at(
        &self,
        address: &str,
        options: &DialOptions,
    ) -> Result<Carrier, LinkError> {
        let meeting = Rendezvous::of_pairing(&self.code.secret);
        options.dial(address, &meeting).await
    }

    async fn dial(&self) -> Result<Carrier, LinkError> {
        self.dial_at(&self.code.addresses[0], &DialOptions::default())
            .await
    }

    /// Returns when the link is live on both sides: the host has answered a command.
    async fn begin(&self, carrier: Carrier, credentials: Credentials) -> Result<Link, LinkError> {
        let link = connect_over(carrier, &credentials, &self.conversation).await?;
        self.command(Body::GetInfo(GetInfo {})).await;
        Ok(link)
    }

    /// The reply to a command.
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

impl LinkPhone {
    /// Answers signer batches with the keys of the phone with this number. Its ledger is in memory.
    pub fn sign_with(&mut self, number: u8) {
        let (_, none) = Conversation::new(Side::Phone, Config::new("none", &[]), tokio()).unwrap();
        let mut requests = std::mem::replace(&mut self.requests, none);
        let signer = Phone::at(number, 0);
        tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let batch = SignerBatch::decode(&*request.payload).unwrap();
                let reply = signer.handle(&batch);
                request.responder.respond(reply.encode_to_vec());
            }
        });
    }

    /// Registers the keys of the phone with this number.
    pub async fn register(&self, number: u8) -> Registered {
        match self.command(Body::Register(registration(number))).await {
            Reply::Registered(registered) => registered,
            other => panic!("must be registered, not answered with {other:?}"),
        }
    }

    /// The state of its node.
    pub async fn info(&self) -> Info {
        match self.command(Body::GetInfo(GetInfo {})).await {
            Reply::Info(info) => info,
            other => panic!("must be the node's info, not {other:?}"),
        }
    }
}

/// The code that the host closed a link with, or did not let a phone in.
pub fn close_code(error: &LinkError) -> String {
    match error {
        LinkError::Closed(reason) => reason.code.to_string(),
        other => panic!("the host must say why, not {other:?}"),
    }
}

/// Gives a host one end of a connection inside this process, and returns the other.
pub fn hand_in(host: &Host) -> Carrier {
    let (phone_end, host_end) = Carrier::pair();
    host.accept_link(host_end);
    phone_end
}
