//! A host with one owner whose links are real and whose replies are scripted: for tests of a phone alone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use longhand_link::runtime::tokio;
use longhand_link::{
    Carrier, CloseCode, Config, Conversation, HostIdentity, IncomingRequests, Link, LinkError,
    LinkKey, LinkKeypair, OwnerId, Pairing, PairingCode, PairingId, PairingSecret, Side, accept,
};
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Command, CommandReply, Register};
use prost::Message;
use tokio::sync::watch;

use crate::clock::unix_s;

/// The address in its pairing codes.
pub const ADDRESS: &str = "memory://host";
const PAIRING_S: u64 = 600;

/// The reaction to a command.
pub enum Act {
    /// Answers it.
    Reply(Reply),
    /// Answers it with these bytes, which need not be a reply.
    Bytes(Vec<u8>),
    /// Refuses the request, with this for code and message.
    Refuse(String),
    /// Closes the link instead of answering.
    HangUp,
}

type Answers = Box<dyn FnMut(&Ask) -> Act + Send>;
type Script = Box<dyn FnMut(&Ask) -> Option<Act> + Send>;

/// See the module. It is cheap to make: no two tests share one.
pub struct ScriptedHost {
    key: LinkKeypair,
    secret: PairingSecret,
    owner: OwnerId,
    pinned: Mutex<Option<LinkKey>>,
    /// With its owner's phone.
    pub conversation: Conversation,
    /// While it is set the host cannot be reached.
    pub is_down: AtomicBool,
    /// Its pairing code has expired by its own clock.
    pub has_expired_code: AtomicBool,
    /// Attempts to reach it.
    pub dials: AtomicUsize,
    links: watch::Sender<usize>,
    answers: Mutex<Answers>,
    script: Mutex<Script>,
    asked: Mutex<Vec<Ask>>,
}

impl ScriptedHost {
    /// A host that reacts to each command with `answers`, for a phone that pairs with its [`code`](Self::code).
    ///
    /// # Panics
    /// Without a runtime, and without random bytes.
    pub fn new(answers: impl FnMut(&Ask) -> Act + Send + 'static) -> Arc<ScriptedHost> {
        ScriptedHost::with(None, answers)
    }

    /// The same host, paired with the phone that has this key.
    ///
    /// # Panics
    /// Like [`new`](Self::new).
    pub fn paired(
        phone: LinkKey,
        answers: impl FnMut(&Ask) -> Act + Send + 'static,
    ) -> Arc<ScriptedHost> {
        ScriptedHost::with(Some(phone), answers)
    }

    fn with(
        pinned: Option<LinkKey>,
        answers: impl FnMut(&Ask) -> Act + Send + 'static,
    ) -> Arc<ScriptedHost> {
        let (conversation, requests) =
            Conversation::new(Side::Host, Config::new("scripted", &["command"]), tokio()).unwrap();
        let host = Arc::new(ScriptedHost {
            key: LinkKeypair::generate().unwrap(),
            secret: PairingSecret::generate().unwrap(),
            owner: OwnerId::generate().unwrap(),
            pinned: Mutex::new(pinned),
            conversation,
            is_down: AtomicBool::new(false),
            has_expired_code: AtomicBool::new(false),
            dials: AtomicUsize::new(0),
            links: watch::Sender::new(0),
            answers: Mutex::new(Box::new(answers)),
            script: Mutex::new(Box::new(|_| None)),
            asked: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&host).answer(requests));
        host
    }

    /// Reacts like this from now on; where the script returns `None`, with the host's usual answer.
    pub fn script(&self, script: impl FnMut(&Ask) -> Option<Act> + Send + 'static) {
        *lock(&self.script) = Box::new(script);
    }

    /// The host's public key.
    pub fn key(&self) -> LinkKey {
        self.key.public()
    }

    /// The pairing code of its owner, valid for ten minutes.
    pub fn code(&self) -> PairingCode {
        PairingCode {
            addresses: vec![ADDRESS.into()],
            host: self.key.public(),
            owner: self.owner,
            secret: self.secret.clone(),
            expires_unix_s: unix_s() + PAIRING_S,
        }
    }

    /// The commands received, in order, without registrations and look-ups of the node's state.
    pub fn asked(&self) -> Vec<Ask> {
        let asked = lock(&self.asked);
        let acts = |ask: &&Ask| !matches!(ask, Ask::Register(_) | Ask::GetInfo(_));
        asked.iter().filter(acts).cloned().collect()
    }

    /// The number of registrations received.
    pub fn registered(&self) -> usize {
        self.registrations().len()
    }

    /// The registrations received, in order.
    pub fn registrations(&self) -> Vec<Register> {
        let asked = lock(&self.asked).clone().into_iter();
        let registrations = asked.filter_map(|ask| match ask {
            Ask::Register(register) => Some(register),
            _ => None,
        });
        registrations.collect()
    }

    /// Its pairing code is open again, as after the host's operator renewed it.
    pub fn forget_phone(&self) {
        *lock(&self.pinned) = None;
    }

    /// Closes the live link, if there is one.
    pub fn hang_up(&self, code: CloseCode) {
        if let Some(link) = self.conversation.link() {
            link.close(code, "as scripted");
        }
    }

    /// The newest link, as soon as there were `count`.
    ///
    /// # Panics
    /// When the link was closed meanwhile.
    pub async fn link(&self, count: usize) -> Link {
        let mut links = self.links.subscribe();
        links.wait_for(|links| *links >= count).await.unwrap();
        self.conversation.link().unwrap()
    }

    /// A carrier to the host, whichever address is dialled.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`] while it is down.
    pub fn dial(self: &Arc<Self>, address: &str) -> Result<Carrier, LinkError> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(LinkError::Unreachable {
                address: address.into(),
                reason: "it is down".into(),
            });
        }
        let (phone_end, host_end) = Carrier::pair();
        tokio::spawn(Arc::clone(self).serve(host_end));
        Ok(phone_end)
    }

    async fn serve(self: Arc<Self>, carrier: Carrier) {
        if let Ok(accepted) = accept(carrier, self.as_ref()).await {
            self.links.send_modify(|links| *links += 1);
            accepted.link.detach_requested().await;
            accepted.link.confirm_detach();
        }
    }

    async fn answer(self: Arc<Self>, mut requests: IncomingRequests) {
        while let Some(request) = requests.next().await {
            let command = Command::decode(&*request.payload).unwrap();
            let ask = command.command.unwrap();
            lock(&self.asked).push(ask.clone());
            let scripted = lock(&self.script)(&ask);
            match scripted.unwrap_or_else(|| lock(&self.answers)(&ask)) {
                Act::Reply(reply) => {
                    let reply = CommandReply { reply: Some(reply) };
                    request.responder.respond(reply.encode_to_vec());
                }
                Act::Bytes(bytes) => request.responder.respond(bytes),
                Act::Refuse(text) => request.responder.refuse(text.as_str(), &text),
                Act::HangUp => self.hang_up(CloseCode::Unavailable),
            }
        }
    }
}

/// Fuzz targets catch panics and go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl HostIdentity for ScriptedHost {
    fn keypair(&self) -> LinkKeypair {
        self.key.clone()
    }

    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError> {
        if *id != self.secret.id() {
            return Ok(Pairing::Unknown);
        }
        if self.has_expired_code.load(Ordering::SeqCst) {
            return Ok(Pairing::Expired);
        }
        Ok(match *lock(&self.pinned) {
            Some(phone) => Pairing::UsedBy(self.secret.clone(), phone),
            None => Pairing::Open(self.secret.clone()),
        })
    }

    async fn pin(&self, _: &PairingId, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        let mut pinned = lock(&self.pinned);
        let is_new = pinned.is_none_or(|pinned| pinned == *phone);
        *pinned = Some(pinned.unwrap_or(*phone));
        Ok(is_new.then_some(self.owner))
    }

    async fn owner_of(&self, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        Ok((*lock(&self.pinned) == Some(*phone)).then_some(self.owner))
    }

    fn conversation_of(&self, _: &OwnerId) -> Conversation {
        self.conversation.clone()
    }
}
