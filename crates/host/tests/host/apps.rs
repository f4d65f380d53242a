//! Apps of owners, which call their nodes by lnd's RPC: over Lightning Node Connect through a mailbox, and on the operator's listener.

use std::time::Duration;

use longhand_host::HostConfig;
use longhand_link::carrier::hashmail::{
    Connected, Phrase, PublicKey, SecretKey, connect_by_key, connect_by_words, into_bytes,
};
use longhand_link::{Address, CarrierError, Carriers, DialOptions};
use longhand_mailbox::{Mailbox, MailboxConfig};
use longhand_phone::Phone;
use longhand_phone::approval::Allowances;
use longhand_phone::command::{AppRights, ConnectedApp};
use longhand_proto::Code;
use longhand_proto::operator::{ConnectAppRequest, DisconnectAppRequest, ListAppsRequest};
use longhand_testkit::host::World;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For whatever has to happen.
const SOON: Duration = Duration::from_secs(30);
const CHANNEL_SAT: u64 = 1_000_000;

struct Apps {
    world: World,
    mailbox: Mailbox,
    phone: Phone,
}

impl Apps {
    /// A host with a mailbox for apps and a listener for them, and an owner with a channel, whose phone is attached.
    async fn start() -> Apps {
        let mut config = MailboxConfig::default();
        config.link.listen = vec!["ws://127.0.0.1:0".into()];
        config.metrics.listen = String::new();
        config.hashmail.listen = vec!["grpc://127.0.0.1:0".into()];
        let mailbox = Mailbox::start(config, Carriers::default()).await.unwrap();
        let at = format!("lnc+{}", mailbox.hashmail_addresses()[0]);
        let set = |config: &mut HostConfig| {
            config.link.mailboxes = vec![at];
            config.apps.listen = "grpc://127.0.0.1:0".into();
        };
        let world = World::with(tempfile::tempdir().unwrap(), set)
            .await
            .unwrap();
        let phone = world.phone("ann", Duration::ZERO).await.unwrap();
        let opened = world
            .operator
            .hub_open("ann", CHANNEL_SAT, CHANNEL_SAT * 500);
        opened.await.unwrap();
        world.confirm_channels(1).await.unwrap();
        world.operator.usable("ann", 1).await.unwrap();
        Apps {
            world,
            mailbox,
            phone,
        }
    }

    fn mailbox(&self) -> Address {
        let at = format!("lnc+{}", self.mailbox.hashmail_addresses()[0]);
        at.parse().unwrap()
    }

    async fn connect(&self, name: &str, rights: AppRights) -> ConnectedApp {
        self.phone.connect_app(name, rights, 0).await.unwrap()
    }

    async fn stop(self) {
        self.phone.detach().await.unwrap();
        self.world.stop().await.unwrap();
        self.mailbox.stop().await;
    }
}

/// An app that speaks REST, over any stream.
struct App<S> {
    stream: S,
    macaroon: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> App<S> {
    async fn get(&mut self, path: &str) -> (u16, Value) {
        self.call("GET", path, "").await
    }

    async fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, &body.to_string()).await
    }

    /// Status and body; of a stream of replies the last one.
    async fn call(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: node\r\ngrpc-metadata-macaroon: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.macaroon,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        timeout(SOON, self.answer()).await.unwrap()
    }

    async fn answer(&mut self) -> (u16, Value) {
        let head = self.line_block().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let body = match length {
            Some(length) => self.exactly(length.parse().unwrap()).await,
            None => self.chunks().await,
        };
        let text = String::from_utf8(body).unwrap();
        let last = text
            .lines()
            .rfind(|line| !line.is_empty())
            .unwrap_or("null");
        (status, serde_json::from_str(last).unwrap())
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let size = self.until(b"\r\n").await;
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let chunk = self.exactly(size + 2).await;
            all.extend(&chunk[..size]);
            if size == 0 {
                return all;
            }
        }
    }

    async fn line_block(&mut self) -> String {
        self.until(b"\r\n\r\n").await
    }

    async fn until(&mut self, end: &[u8]) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            read.push(self.stream.read_u8().await.unwrap());
        }
        String::from_utf8(read).unwrap()
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut read = vec![0; length];
        self.stream.read_exact(&mut read).await.unwrap();
        read
    }
}

fn message(answer: &(u16, Value)) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}

/// An app that comes by its words, and the key by which it comes back.
async fn by_words(apps: &Apps, words: &str, local: SecretKey) -> (App<DuplexStream>, PublicKey) {
    let connected = connected_by_words(apps, words, local).await;
    let macaroon = String::from_utf8(connected.peer.text.to_vec()).unwrap();
    let app = App {
        stream: into_bytes(connected.carrier),
        macaroon: macaroon.strip_prefix("Macaroon: ").unwrap().to_owned(),
    };
    (app, connected.peer.key)
}

async fn connected_by_words(apps: &Apps, words: &str, local: SecretKey) -> Connected {
    let phrase = Phrase::parse(words).unwrap();
    let (mailbox, options) = (apps.mailbox(), DialOptions::default());
    let connected = async {
        loop {
            // The host opens its streams a moment after it has answered the phone.
            if let Ok(connected) = connect_by_words(&phrase, local, &mailbox, &options).await {
                return connected;
            }
        }
    };
    timeout(SOON, connected).await.unwrap()
}

#[tokio::test]
async fn an_app_pays_what_the_phone_allows_and_comes_back_by_its_key() {
    let apps = Apps::start().await;
    apps.phone.set_approver(Allowances {
        app_pay_sat: 20,
        ..Allowances::default()
    });
    let rights = AppRights {
        read: true,
        invoices: true,
        pay: true,
    };
    let connected = apps.connect("Zeus", rights).await;
    let local = SecretKey::from_slice(&[7; 32]).unwrap();
    let (mut app, host) = by_words(&apps, &connected.words, local).await;
    let (status, info) = app.get("/v1/getinfo").await;
    assert_eq!(status, 200, "{info}");
    assert_eq!(info["identity_pubkey"], apps.phone.node_id().to_string());

    let invoice = apps.world.operator.hub_invoice(10_000).await.unwrap();
    let pay = json!({ "payment_request": invoice, "timeout_seconds": 30, "fee_limit_sat": "1" });
    let (status, paid) = app.post("/v2/router/send", &pay).await;
    assert_eq!(
        (status, &paid["result"]["status"]),
        (200, &json!("SUCCEEDED")),
        "{paid}"
    );
    let invoice = apps.world.operator.hub_invoice(100_000).await.unwrap();
    let more = json!({ "payment_request": invoice, "timeout_seconds": 30, "fee_limit_sat": "1" });
    let refused = app.post("/v2/router/send", &more).await;
    assert!(
        refused.1.to_string().contains("above the 20 sat"),
        "{refused:?}"
    );

    let (status, made) = app.post("/v1/invoices", &json!({ "value": "5" })).await;
    assert_eq!(status, 200, "{made}");
    let bolt11 = made["payment_request"].as_str().unwrap().to_owned();
    apps.world.operator.hub_pay(bolt11).await.unwrap();
    let (_, list) = app.get("/v1/invoices").await;
    assert_eq!(list["invoices"][0]["state"], "SETTLED", "{list}");

    drop(app);
    let options = DialOptions::default();
    let mailbox = apps.mailbox();
    let back = async {
        loop {
            if let Ok(back) = connect_by_key(local, host, &mailbox, &options).await {
                return back;
            }
        }
    };
    let back = timeout(SOON, back).await.unwrap();
    let text = String::from_utf8(back.peer.text.to_vec()).unwrap();
    let mut app = App {
        stream: into_bytes(back.carrier),
        macaroon: text.strip_prefix("Macaroon: ").unwrap().to_owned(),
    };
    let (_, balance) = app.get("/v1/balance/channels").await;
    assert_eq!(balance["local_balance"]["msat"], "499995000", "{balance}");

    apps.phone.detach().await.unwrap();
    apps.world.operator.dormant("ann").await.unwrap();
    let away = app.post("/v1/invoices", &json!({ "value": "5" })).await;
    assert_eq!(away.0, 503, "{away:?}");
    assert!(
        message(&away).contains("the owner's phone is away"),
        "{away:?}"
    );
    let other = app.post("/v1/channels", &json!({})).await;
    assert_eq!(other.0, 501, "{other:?}");
    apps.phone.attach().await.unwrap();

    let left = apps.phone.disconnect_app("Zeus").await.unwrap();
    assert_eq!(left.apps, []);
    let mut end = [0; 1];
    let closed = timeout(SOON, app.stream.read(&mut end)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    apps.stop().await;
}

#[tokio::test]
async fn an_app_of_the_operators_reads_and_words_that_were_used_let_nobody_in() {
    let apps = Apps::start().await;
    let mut operator = apps.world.operator.client().unwrap();
    let connect = ConnectAppRequest {
        owner: "ann".into(),
        name: "board".into(),
        expires_unix_s: 0,
    };
    let connected = operator
        .connect_app(connect.clone())
        .await
        .unwrap()
        .into_inner();
    let twice = operator.connect_app(connect).await.unwrap_err();
    assert!(
        twice.message().starts_with(Code::AppNameTaken.as_str()),
        "{twice}"
    );

    let at = apps.world.addresses.apps.unwrap();
    let mut app = App {
        stream: TcpStream::connect(at).await.unwrap(),
        macaroon: connected.macaroon.clone(),
    };
    let (status, balance) = app.get("/v1/balance/channels").await;
    assert_eq!(
        (status, &balance["local_balance"]["msat"]),
        (200, &json!("500000000"))
    );
    let made = app.post("/v1/invoices", &json!({ "value": "5" })).await;
    assert_eq!(made.0, 403, "{made:?}");
    assert!(message(&made).contains("permission denied"), "{made:?}");
    let whole = std::mem::replace(&mut app.macaroon, "00".into());
    let foreign = app.get("/v1/getinfo").await;
    assert_ne!(foreign.0, 200, "{foreign:?}");
    app.macaroon = whole;

    // The words are for one app.
    let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    let (first, _) = by_words(&apps, &connected.words, key(1)).await;
    drop(first);
    let phrase = Phrase::parse(&connected.words).unwrap();
    let (mailbox, options) = (apps.mailbox(), DialOptions::default());
    let used = async {
        loop {
            // The first one's connection ends a moment later.
            let second = connect_by_words(&phrase, key(2), &mailbox, &options).await;
            match second {
                Err(error) if error.to_string().contains("no host waits") => return,
                Err(_) => {}
                Ok(_) => panic!("the words were used twice"),
            }
        }
    };
    timeout(SOON, used).await.unwrap();
    let list = ListAppsRequest {
        owner: "ann".into(),
    };
    let list = operator.list_apps(list).await.unwrap().into_inner().apps;
    assert_eq!(
        (list.len(), list[0].is_paired, list[0].by_operator),
        (1, true, true)
    );

    let disconnect = DisconnectAppRequest {
        owner: "ann".into(),
        name: "board".into(),
    };
    operator.disconnect_app(disconnect.clone()).await.unwrap();
    let gone = app.get("/v1/getinfo").await;
    assert_ne!(gone.0, 200, "{gone:?}");
    let unknown = operator.disconnect_app(disconnect).await.unwrap_err();
    assert!(
        unknown.message().starts_with(Code::AppUnknown.as_str()),
        "{unknown}"
    );
    apps.stop().await;
}

#[tokio::test]
async fn an_apps_connection_ends_in_order_when_its_host_stops() {
    let apps = Apps::start().await;
    let rights = AppRights {
        read: true,
        ..AppRights::default()
    };
    let connected = apps.connect("Zeus", rights).await;
    let local = SecretKey::from_slice(&[7; 32]).unwrap();
    let app = connected_by_words(&apps, &connected.words, local).await;

    apps.phone.detach().await.unwrap();
    apps.world.stop().await.unwrap();
    // An error would be a connection that broke, or a host that did not answer for too long.
    let mut stream = app.carrier.stream;
    let end = async {
        while stream.recv().await?.is_some() {}
        Ok::<_, CarrierError>(())
    };
    timeout(SOON, end).await.unwrap().unwrap();
    apps.mailbox.stop().await;
}

#[tokio::test]
async fn a_host_without_a_mailbox_for_apps_says_so() {
    let world = World::with(tempfile::tempdir().unwrap(), |_| {})
        .await
        .unwrap();
    let phone = world.phone("ann", Duration::ZERO).await.unwrap();
    let code = async |rights| {
        let refused = phone.connect_app("Zeus", rights, 0).await.unwrap_err();
        refused.report().code
    };
    let reads = AppRights {
        read: true,
        ..AppRights::default()
    };
    assert_eq!(code(reads).await, Code::NoAppMailbox.as_str());
    assert_eq!(
        code(AppRights::default()).await,
        Code::BadAppRights.as_str()
    );
    phone.detach().await.unwrap();
    world.stop().await.unwrap();
}
