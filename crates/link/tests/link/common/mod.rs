//! A host and its store, as small as the traits allow.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use longhand_link::runtime::tokio;
use longhand_link::{
    Accepted, Address, Carrier, Carriers, CloseCode, Config, Conversation, Credentials, Dial,
    DialOptions, HostIdentity, IncomingRequests, Link, LinkError, LinkKey, LinkKeypair, Listener,
    OwnerId, Pairing, PairingCode, PairingId, PairingSecret, Rendezvous, Side, accept, connect,
    connect_over,
};
use tempfile::TempDir;

pub const OWNER: OwnerId = OwnerId([5; 16]);

/// A host with one owner.
pub struct Host {
    key: LinkKeypair,
    conversation: Conversation,
    pub codes: Mutex<HashMap<PairingId, Pairing>>,
    pub phones: Mutex<Vec<LinkKey>>,
    /// Makes `pin` fail, as a full disk does.
    pub broken: Mutex<bool>,
}

impl Host {
    pub fn new() -> (Host, IncomingRequests) {
        let (conversation, incoming) =
            Conversation::new(Side::Host, Config::new("host", &["command"]), tokio()).unwrap();
        let host = Host {
            key: LinkKeypair::generate().unwrap(),
            conversation,
            codes: Mutex::default(),
            phones: Mutex::default(),
            broken: Mutex::new(false),
        };
        (host, incoming)
    }

    /// The same host after a restart: its store stays, its conversations are new.
    pub fn restarted(self, conversation: Conversation) -> Host {
        Host {
            conversation,
            ..self
        }
    }

    pub fn code(&self, address: &str) -> PairingCode {
        let secret = PairingSecret::generate().unwrap();
        self.codes
            .lock()
            .unwrap()
            .insert(secret.id(), Pairing::Open(secret.clone()));
        PairingCode {
            addresses: vec![address.to_owned()],
            host: self.key.public(),
            owner: OWNER,
            secret,
            expires_unix_s: 2_000_000_000,
        }
    }

    pub fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    pub fn public(&self) -> LinkKey {
        self.key.public()
    }
}

#[async_trait]
impl HostIdentity for Host {
    fn keypair(&self) -> LinkKeypair {
        self.key.clone()
    }

    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError> {
        let codes = self.codes.lock().unwrap();
        Ok(codes.get(id).cloned().unwrap_or(Pairing::Unknown))
    }

    async fn pin(&self, id: &PairingId, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        if *self.broken.lock().unwrap() {
            return Err(LinkError::Identity("the disk is full".into()));
        }
        let mut codes = self.codes.lock().unwrap();
        let used = match codes.remove(id) {
            Some(Pairing::Open(secret)) => Pairing::UsedBy(secret, *phone),
            Some(Pairing::UsedBy(secret, by)) => Pairing::UsedBy(secret, by),
            other => other.unwrap_or(Pairing::Unknown),
        };
        let taken = matches!(&used, Pairing::UsedBy(_, by) if by == phone);
        codes.insert(*id, used);
        if taken {
            self.phones.lock().unwrap().push(*phone);
        }
        Ok(taken.then_some(OWNER))
    }

    async fn owner_of(&self, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        Ok(self.phones.lock().unwrap().contains(phone).then_some(OWNER))
    }

    fn conversation_of(&self, _owner: &OwnerId) -> Conversation {
        self.conversation.clone()
    }
}

/// A phone's process.
pub fn phone() -> (Conversation, IncomingRequests) {
    Conversation::new(Side::Phone, Config::new("phone", &["signer"]), tokio()).unwrap()
}

/// A host that knows the phone with the returned credentials.
pub fn paired() -> (Host, IncomingRequests, Credentials) {
    let (host, incoming) = Host::new();
    let phone = LinkKeypair::generate().unwrap();
    host.phones.lock().unwrap().push(phone.public());
    let credentials = Credentials::Attach {
        phone,
        host: host.public(),
        discovery: None,
    };
    (host, incoming, credentials)
}

/// Connects both over a carrier in memory.
pub async fn link(
    host: &Host,
    credentials: &Credentials,
    conversation: &Conversation,
) -> (Result<Accepted, LinkError>, Result<Link, LinkError>) {
    let (phone_end, host_end) = Carrier::pair();
    tokio::join!(
        accept(host_end, host),
        connect_over(phone_end, credentials, conversation)
    )
}

/// Answers every request with its payload reversed.
pub fn serve(mut incoming: IncomingRequests) {
    tokio::spawn(async move {
        while let Some(request) = incoming.next().await {
            let payload = request.payload.into_iter().rev().collect();
            request.responder.respond(payload);
        }
    });
}

/// Listens at an address.
pub async fn listen(address: &str) -> Box<dyn Listener> {
    let address = address.parse().unwrap();
    Carriers::default().listen(&address).await.unwrap()
}

/// The listener's address of this scheme, at `localhost`.
pub fn address(listener: &dyn Listener, scheme: &str) -> String {
    let found = listener.addresses().into_iter();
    let mut found = found.filter(|address| address.scheme() == scheme);
    let address = found.next().unwrap().to_string();
    address.replace("127.0.0.1", "localhost")
}

/// A certificate for `localhost` and its key, in PEM.
pub struct Pem {
    pub certificate: String,
    pub key: String,
}

impl Pem {
    /// Valid from the first day of this year on, for a year.
    pub fn of_year(year: i32) -> Pem {
        let mut made = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        made.not_before = rcgen::date_time_ymd(year, 1, 1);
        made.not_after = rcgen::date_time_ymd(year + 1, 1, 1);
        Pem::of(made)
    }

    pub fn valid() -> Pem {
        Pem::of(rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap())
    }

    fn of(made: rcgen::CertificateParams) -> Pem {
        let key = rcgen::KeyPair::generate().unwrap();
        Pem {
            certificate: made.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Dials hosts with this certificate only.
    pub fn trusted(&self) -> DialOptions {
        DialOptions {
            ca_pem: Some(self.certificate.clone().into_bytes()),
            ..DialOptions::default()
        }
    }
}

/// The files of a listener with TLS.
pub struct TlsFiles(TempDir);

impl TlsFiles {
    pub fn new(pem: &Pem) -> TlsFiles {
        let files = TlsFiles(tempfile::tempdir().unwrap());
        files.write(&pem.certificate, &pem.key);
        files
    }

    pub fn write(&self, certificate: &str, key: &str) {
        std::fs::write(self.path("host.pem"), certificate).unwrap();
        std::fs::write(self.path("the key.pem"), key).unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A free port of this machine.
    pub fn address(&self, scheme: &str) -> String {
        let address = Address::new(scheme, "127.0.0.1:0")
            .and_then(|it| it.with("certificate", &self.path("host.pem")))
            .and_then(|it| it.with("key", &self.path("the key.pem")));
        address.unwrap().to_string()
    }
}

/// Pairs at the listener's address of this scheme, sends requests both ways, detaches, attaches again.
pub async fn meet(listener: &mut dyn Listener, scheme: &str, options: &DialOptions) {
    let (host, commands) = Host::new();
    serve(commands);
    let code = host.code(&address(listener, scheme));
    let (conversation, signing) = phone();
    serve(signing);
    let key = LinkKeypair::generate().unwrap();
    let addresses = code.addresses.clone();
    let pair = Credentials::Pair {
        phone: key.clone(),
        code: Box::new(code),
    };
    let attach = Credentials::Attach {
        phone: key,
        host: host.public(),
        discovery: None,
    };

    for credentials in [pair, attach] {
        let (accepted, connected) = tokio::join!(
            async { accept(listener.accept().await.unwrap(), &host).await },
            connect(&addresses, &credentials, options, &conversation),
        );
        let (node, (link, _)) = (accepted.unwrap().link, connected.unwrap());
        let (answer, signed) = tokio::join!(
            link.request("command", vec![1; 300_000]),
            node.request("signer", b"batch".to_vec()),
        );
        assert_eq!(answer.unwrap().len(), 300_000);
        assert_eq!(signed.unwrap(), b"hctab");
        let (left, ()) = tokio::join!(link.detach(), async {
            node.detach_requested().await;
            node.confirm_detach();
        });
        left.unwrap();
        link.ended().await;
        assert_eq!(node.closed().await.code, CloseCode::Detached);
    }
}

/// Dials an address that needs no meeting.
pub async fn dial(address: &str, options: &DialOptions) -> Result<Carrier, LinkError> {
    let secret = PairingSecret::from_bytes([1; 16]);
    options
        .dial(address, &Rendezvous::of_pairing(&secret))
        .await
}
