//! A host and its store, as small as the traits allow.
#![allow(dead_code)]

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use longhand_link::{
    Accepted, Carrier, Config, Conversation, Credentials, HostIdentity, IncomingRequests, Link,
    LinkError, LinkKey, LinkKeypair, OwnerId, Pairing, PairingCode, PairingId, PairingSecret, Side,
    accept, connect_over,
};

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
            Conversation::new(Side::Host, Config::new("host", &["command"])).unwrap();
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
    Conversation::new(Side::Phone, Config::new("phone", &["signer"])).unwrap()
}

/// A host that knows the phone with the returned credentials.
pub fn paired() -> (Host, IncomingRequests, Credentials) {
    let (host, incoming) = Host::new();
    let phone = LinkKeypair::generate().unwrap();
    host.phones.lock().unwrap().push(phone.public());
    let credentials = Credentials::Attach {
        phone,
        host: host.public(),
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
