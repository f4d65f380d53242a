//! The phone against a scripted host, over real links in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod attaching;
mod checking;
mod controlling;
mod dying;
mod idempotency;
mod paying;
mod signing;
mod witnessing;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey as NodeId, Secp256k1, SecretKey};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentHash, PaymentSecret};
use longhand_link::{
    Carrier, CloseCode, Config, Conversation, HostIdentity, IncomingRequests, Link, LinkError,
    LinkKey, LinkKeypair, OwnerId, Pairing, PairingCode, PairingId, PairingSecret, Side, accept,
};
use longhand_proto::command as proto;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Command, CommandReply};
use prost::Message;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::attach::Dial;
use crate::clock::now_unix_s;
use crate::error::PhoneError;
use crate::phone::Phone;
use crate::testing::DiskFaults;
use crate::vault::{Passphrase, Secrets, Vault};

pub(crate) const WORDS: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
pub(crate) const OTHER_WORDS: &str = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";

/// The reaction of a scripted host to a command.
pub(crate) enum Act {
    Say(Reply),
    /// Refuses the request with this for code and message.
    Refuse(&'static str),
    /// Ends the link instead of answering.
    HangUp,
}

type Script = Box<dyn FnMut(&Ask) -> Option<Act> + Send>;

/// A host with one owner; its links are real, its answers are scripted.
pub(crate) struct FakeHost {
    key: LinkKeypair,
    secret: PairingSecret,
    owner: OwnerId,
    pinned: Mutex<Option<LinkKey>>,
    pub(crate) conversation: Conversation,
    /// Cannot be reached while this is set.
    pub(crate) is_down: AtomicBool,
    pub(crate) dials: AtomicUsize,
    links: watch::Sender<usize>,
    script: Mutex<Script>,
    asked: Mutex<Vec<Ask>>,
}

impl FakeHost {
    pub(crate) fn new() -> Arc<FakeHost> {
        let (conversation, requests) =
            Conversation::new(Side::Host, Config::new("fake", &["command"])).unwrap();
        let host = Arc::new(FakeHost {
            key: LinkKeypair::generate().unwrap(),
            secret: PairingSecret::generate().unwrap(),
            owner: OwnerId::generate().unwrap(),
            pinned: Mutex::default(),
            conversation,
            is_down: AtomicBool::new(false),
            dials: AtomicUsize::new(0),
            links: watch::Sender::new(0),
            script: Mutex::new(Box::new(|_| None)),
            asked: Mutex::default(),
        });
        tokio::spawn(Arc::clone(&host).answer(requests));
        host
    }

    /// From now on the host does this; `None` gives the answer of a good host.
    pub(crate) fn script(&self, script: impl FnMut(&Ask) -> Option<Act> + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    /// The commands that were received, without those that only read.
    pub(crate) fn asked(&self) -> Vec<Ask> {
        let asked = self.asked.lock().unwrap();
        let acts = |ask: &&Ask| !matches!(ask, Ask::Register(_) | Ask::GetInfo(_));
        asked.iter().filter(acts).cloned().collect()
    }

    pub(crate) fn registered(&self) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|ask| matches!(ask, Ask::Register(_)))
            .count()
    }

    pub(crate) fn code(&self) -> PairingCode {
        PairingCode {
            addresses: vec!["memory://host".into()],
            host: self.key.public(),
            owner: self.owner,
            secret: self.secret.clone(),
            expires_unix_s: now_unix_s() + 600,
        }
    }

    pub(crate) fn code_text(&self) -> String {
        self.code().to_text().unwrap().to_string()
    }

    pub(crate) fn hang_up(&self, code: CloseCode) {
        if let Some(link) = self.conversation.link() {
            link.close(code, "as scripted");
        }
    }

    /// The newest link, once there have been this many.
    pub(crate) async fn link(&self, count: usize) -> Link {
        self.links
            .subscribe()
            .wait_for(|links| *links >= count)
            .await
            .unwrap();
        self.conversation.link().unwrap()
    }

    async fn answer(self: Arc<Self>, mut requests: IncomingRequests) {
        while let Some(request) = requests.next().await {
            let ask = Command::decode(request.payload.as_slice())
                .unwrap()
                .command
                .unwrap();
            self.asked.lock().unwrap().push(ask.clone());
            let act = (self.script.lock().unwrap())(&ask);
            match act.unwrap_or_else(|| Act::Say(good_answer(&ask))) {
                Act::Say(reply) => {
                    let reply = CommandReply { reply: Some(reply) };
                    request.responder.respond(reply.encode_to_vec());
                }
                Act::Refuse(text) => request.responder.refuse(text, text),
                Act::HangUp => self.hang_up(CloseCode::Unavailable),
            }
        }
    }
}

fn good_answer(ask: &Ask) -> Reply {
    match ask {
        Ask::Register(register) => Reply::Registered(proto::Registered {
            node_id: register.node_id.clone(),
            hub_node_id: node_id(&payee_key()).serialize().to_vec(),
        }),
        Ask::GetBalance(_) => Reply::Balance(proto::Balance {
            lightning_msat: 42_000,
            ..Default::default()
        }),
        Ask::CreateInvoice(create) => Reply::UnsignedInvoice(unsigned_invoice(create)),
        _ => error("UNSCRIPTED", proto::error::Action::GiveUp),
    }
}

pub(crate) fn error(code: &str, action: proto::error::Action) -> Reply {
    let message = "the host says no".into();
    Reply::Error(proto::Error {
        code: code.into(),
        message,
        action: action.into(),
    })
}

fn unsigned_invoice(create: &proto::CreateInvoice) -> proto::UnsignedInvoice {
    let invoice = InvoiceBuilder::new(Currency::Regtest)
        .description(create.description.clone())
        .payment_hash(PaymentHash(create.payment_hash.clone().try_into().unwrap()))
        .payment_secret(PaymentSecret([7; 32]))
        .duration_since_epoch(std::time::Duration::from_secs(now_unix_s()))
        .expiry_time(std::time::Duration::from_secs(create.expiry_s.into()))
        .min_final_cltv_expiry_delta(144)
        .basic_mpp();
    let invoice = match create.amount_msat {
        0 => invoice,
        amount_msat => invoice.amount_milli_satoshis(amount_msat),
    };
    let (hrp, data) = invoice.build_raw().unwrap().to_raw();
    proto::UnsignedInvoice {
        hrp,
        data: data.iter().map(|group| group.to_u8()).collect(),
    }
}

#[async_trait]
impl HostIdentity for FakeHost {
    fn keypair(&self) -> LinkKeypair {
        self.key.clone()
    }
    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError> {
        if *id != self.secret.id() {
            return Ok(Pairing::Unknown);
        }
        Ok(match *self.pinned.lock().unwrap() {
            Some(phone) => Pairing::UsedBy(self.secret.clone(), phone),
            None => Pairing::Open(self.secret.clone()),
        })
    }
    async fn pin(&self, _: &PairingId, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        let mut pinned = self.pinned.lock().unwrap();
        let is_new = pinned.is_none_or(|pinned| pinned == *phone);
        *pinned = Some(pinned.unwrap_or(*phone));
        Ok(is_new.then_some(self.owner))
    }
    async fn owner_of(&self, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        Ok((*self.pinned.lock().unwrap() == Some(*phone)).then_some(self.owner))
    }
    fn conversation_of(&self, _: &OwnerId) -> Conversation {
        self.conversation.clone()
    }
}

/// Reaches one [`FakeHost`], whatever the addresses.
pub(crate) struct ToHost(pub(crate) Arc<FakeHost>);

#[async_trait]
impl Dial for ToHost {
    async fn dial(&self, addresses: &[String]) -> Result<Carrier, LinkError> {
        let host = Arc::clone(&self.0);
        host.dials.fetch_add(1, Ordering::SeqCst);
        if host.is_down.load(Ordering::SeqCst) {
            let address = addresses.first().cloned().unwrap_or_default();
            return Err(LinkError::Unreachable {
                address,
                reason: "it is down".into(),
            });
        }
        let (ours, theirs) = Carrier::pair();
        tokio::spawn(async move {
            if let Ok(accepted) = accept(theirs, host.as_ref()).await {
                host.links.send_modify(|links| *links += 1);
                accepted.link.detach_requested().await;
                accepted.link.confirm_detach();
            }
        });
        Ok(ours)
    }
}

/// A phone with these words, in a directory of its own.
pub(crate) fn phone_with(words: &str, host: &Arc<FakeHost>) -> (TempDir, Phone) {
    phone_on(None, words, host)
}

pub(crate) fn new_vault(dir: &Path, words: &str) -> Vault {
    let secrets = Secrets::restore(Network::Regtest, words, 0).unwrap();
    Vault::create(dir, secrets, &passphrase(), Some(1)).unwrap()
}

fn phone_on(
    disk: Option<Arc<dyn DiskFaults>>,
    words: &str,
    host: &Arc<FakeHost>,
) -> (TempDir, Phone) {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = new_vault(dir.path(), words);
    if let Some(disk) = disk {
        vault = vault.with_disk_faults(disk);
    }
    let phone = Phone::new(vault, ToHost(Arc::clone(host))).unwrap();
    (dir, phone)
}

/// The passphrase of all phones here.
pub(crate) fn passphrase() -> Passphrase {
    "passphrase".to_owned().into()
}

/// A phone that is paired and attached, and its host.
pub(crate) async fn attached() -> (TempDir, Phone, Arc<FakeHost>) {
    attached_on(None).await
}

/// The same, with a disk that may fail.
pub(crate) async fn attached_on(
    disk: Option<Arc<dyn DiskFaults>>,
) -> (TempDir, Phone, Arc<FakeHost>) {
    let host = FakeHost::new();
    let (dir, phone) = phone_on(disk, WORDS, &host);
    phone.pair(&host.code_text()).await.unwrap();
    (dir, phone, host)
}

pub(crate) fn payee_key() -> SecretKey {
    SecretKey::from_slice(&[0x22; 32]).unwrap()
}

pub(crate) fn node_id(key: &SecretKey) -> NodeId {
    key.public_key(&Secp256k1::new())
}

pub(crate) struct InvoiceSpec {
    pub(crate) currency: Currency,
    pub(crate) amount_msat: Option<u64>,
    pub(crate) preimage: [u8; 32],
    pub(crate) age_s: u64,
}

impl Default for InvoiceSpec {
    fn default() -> InvoiceSpec {
        InvoiceSpec {
            currency: Currency::Regtest,
            amount_msat: Some(5_000_000),
            preimage: [0x33; 32],
            age_s: 0,
        }
    }
}

impl InvoiceSpec {
    pub(crate) fn hash(&self) -> [u8; 32] {
        use bitcoin::hashes::{Hash, sha256};
        sha256::Hash::hash(&self.preimage).to_byte_array()
    }

    /// An invoice of somebody else, valid for an hour from `age_s` ago.
    pub(crate) fn build(&self) -> Bolt11Invoice {
        let at = std::time::Duration::from_secs(now_unix_s() - self.age_s);
        let invoice = InvoiceBuilder::new(self.currency.clone())
            .description("tea".into())
            .payment_hash(PaymentHash(self.hash()))
            .payment_secret(PaymentSecret([7; 32]))
            .duration_since_epoch(at)
            .min_final_cltv_expiry_delta(144)
            .basic_mpp();
        let invoice = match self.amount_msat {
            Some(amount_msat) => invoice.amount_milli_satoshis(amount_msat),
            None => invoice,
        };
        let secp = Secp256k1::new();
        invoice
            .build_signed(|hash| secp.sign_ecdsa_recoverable(hash, &payee_key()))
            .unwrap()
    }

    pub(crate) fn text(&self) -> String {
        self.build().to_string()
    }

    /// The host's report of this payment.
    pub(crate) fn payment(&self, state: proto::payment::State) -> proto::Payment {
        let preimage = match state {
            proto::payment::State::Succeeded => self.preimage.to_vec(),
            _ => Vec::new(),
        };
        proto::Payment {
            payment_hash: self.hash().to_vec(),
            outbound: true,
            amount_msat: self.amount_msat.unwrap_or(0),
            fee_msat: 12,
            state: state.into(),
            preimage,
            created_unix_s: now_unix_s(),
            failure: "no route".into(),
        }
    }
}

pub(crate) fn code_of<T: std::fmt::Debug>(result: Result<T, PhoneError>) -> String {
    let report = result.expect_err("must be refused").report();
    assert!(!report.message.contains('\n'), "{report:?}");
    report.code
}
