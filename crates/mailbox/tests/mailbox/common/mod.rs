//! A client that does what its script says.
#![allow(dead_code)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use longhand_base::wake::{WakeError, WakeHook};
use longhand_link::carrier::mailbox::stream::{End, Nonce, Permit, StreamKey};
use longhand_link::{Carrier, Carriers, Dial, DialOptions, PairingSecret, Rendezvous};
use longhand_mailbox::{Mailbox, MailboxConfig};
use longhand_proto::mailbox::client_message::Body as Asked;
use longhand_proto::mailbox::server_message::Body;
use longhand_proto::mailbox::{
    Attach, Attached, ClientMessage, Data, Delete, Detach, Ping, ServerMessage,
};
use prost::Message;
use tokio::sync::Notify;

/// Listens on ports that the system chooses.
pub fn config() -> MailboxConfig {
    let mut config = MailboxConfig::default();
    config.link.listen = vec!["grpc://127.0.0.1:0".into()];
    config.metrics.listen = String::new();
    config
}

pub async fn started() -> Mailbox {
    start(config()).await
}

pub async fn start(config: MailboxConfig) -> Mailbox {
    let carriers = Carriers::default();
    Mailbox::start(config, carriers).await.unwrap()
}

/// The key of a stream.
pub fn key(secret: u8) -> StreamKey {
    let secret = PairingSecret::from_bytes([secret; 16]);
    StreamKey::new(&Rendezvous::of_pairing(&secret), "relay.example:443")
}

/// A connection to a mailbox.
pub struct Client {
    carrier: Carrier,
    pub nonce: Nonce,
    pub has_routes: bool,
}

impl Client {
    /// Inside this process.
    pub async fn connect(mailbox: &Mailbox) -> Client {
        let (near, far) = Carrier::pair();
        mailbox.take(far);
        Client::welcomed(near).await
    }

    /// Over gRPC.
    pub async fn dial(mailbox: &Mailbox) -> Client {
        let address = mailbox.addresses()[0].to_string();
        let meeting = Rendezvous::of_pairing(&PairingSecret::from_bytes([0; 16]));
        let dialled = DialOptions::default().dial(&address, &meeting).await;
        Client::welcomed(dialled.unwrap()).await
    }

    async fn welcomed(carrier: Carrier) -> Client {
        let mut client = Client {
            carrier,
            nonce: [0; 32],
            has_routes: false,
        };
        let Some(Body::Welcome(welcome)) = client.next().await else {
            panic!("the first message is no Welcome");
        };
        assert_eq!(welcome.version, 1);
        client.nonce = welcome.nonce.try_into().unwrap();
        client.has_routes = welcome.has_routes;
        client
    }

    pub async fn send_bytes(&mut self, message: Vec<u8>) {
        self.carrier.sink.send(message).await.unwrap();
    }

    async fn ask(&mut self, body: Asked) {
        let message = ClientMessage { body: Some(body) };
        self.send_bytes(message.encode_to_vec()).await;
    }

    /// The next message; `None` when the mailbox has closed the connection.
    pub async fn next(&mut self) -> Option<Body> {
        let message = self.carrier.stream.recv().await.ok().flatten()?;
        ServerMessage::decode(&message[..]).unwrap().body
    }

    /// Asks to attach with a signature for this nonce.
    pub async fn ask_attach(&mut self, handle: u32, key: &StreamKey, end: End, nonce: Nonce) {
        let mut attach = Attach {
            handle,
            public_key: key.public().to_vec(),
            signature: key.sign(Permit::Attach(end), &nonce).to_vec(),
            ..Attach::default()
        };
        attach.set_end(end.to_wire());
        self.ask(Asked::Attach(attach)).await;
    }

    /// Attaches; whether the other end has a reader.
    pub async fn attach(&mut self, handle: u32, key: &StreamKey, end: End) -> bool {
        self.ask_attach(handle, key, end, self.nonce).await;
        match self.next().await {
            Some(Body::Attached(Attached { handle: at, is_met })) if at == handle => is_met,
            other => panic!("not attached: {other:?}"),
        }
    }

    pub async fn ping(&mut self) {
        self.ask(Asked::Ping(Ping {})).await;
    }

    pub async fn detach(&mut self, handle: u32) {
        self.ask(Asked::Detach(Detach { handle })).await;
    }

    pub async fn delete(&mut self, key: &StreamKey) {
        let delete = Delete {
            public_key: key.public().to_vec(),
            signature: key.sign(Permit::Delete, &self.nonce).to_vec(),
        };
        self.ask(Asked::Delete(delete)).await;
    }

    pub async fn send(&mut self, handle: u32, payload: &[u8]) {
        let payload = payload.to_vec();
        self.ask(Asked::Data(Data { handle, payload })).await;
    }

    /// The next message, which is from the other end.
    pub async fn data(&mut self) -> (u32, Vec<u8>) {
        match self.next().await {
            Some(Body::Data(data)) => (data.handle, data.payload),
            other => panic!("no data: {other:?}"),
        }
    }

    /// The next message, which is the end of an attachment.
    pub async fn ended(&mut self) -> (u32, String) {
        match self.next().await {
            Some(Body::Ended(ended)) => (ended.handle, ended.code),
            other => panic!("not ended: {other:?}"),
        }
    }
}

/// A push service that keeps the calls.
#[derive(Clone, Default)]
pub struct Push {
    calls: Arc<Mutex<Vec<(String, String)>>>,
    called: Arc<Notify>,
}

impl Push {
    /// URLs and bodies of all calls, once there is one.
    pub async fn calls(&self) -> Vec<(String, String)> {
        self.called.notified().await;
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl WakeHook for Push {
    async fn call(&self, url: &str, body: Vec<u8>) -> Result<(), WakeError> {
        let body = String::from_utf8(body).unwrap();
        self.calls.lock().unwrap().push((url.to_owned(), body));
        self.called.notify_one();
        Ok(())
    }
}
