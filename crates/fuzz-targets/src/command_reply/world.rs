//! A phone that is paired with a host, and that host: its links are real, its replies are good ones with a lie each.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Address, Network, ScriptBuf};
use lightning_invoice::{
    Currency, Description, Fallback, InvoiceBuilder, PaymentHash, PaymentSecret,
};
use longhand_link::{
    Carrier, CloseCode, Config, Conversation, HostIdentity, Incoming, IncomingRequests, LinkError,
    LinkKey, LinkKeypair, OwnerId, Pairing, PairingId, Side, accept,
};
use longhand_phone::vault::PairedHost;
use longhand_phone::{Dial, Passphrase, Phone, Secrets, Vault};
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::*;
use longhand_signer::{Keychain, Signer};
use prost::Message;
use tempfile::TempDir;

use super::{InvoiceLie, Lie, PAYEE_ADDRESS};
use crate::{node, scratch};

/// How far the date of an invoice may be from the phone's clock, and a minute for a slow machine.
pub(super) const SKEW: Duration = Duration::from_secs(3_660);
/// Of the payment that the owner pays.
pub(super) const PREIMAGE: [u8; 32] = [0x33; 32];
const AMOUNT_MSAT: u64 = 5_000_000;
const FILES: [&str; 3] = ["seed.age", "ledger", "ledger.head"];

pub(super) struct World {
    pub phone: Phone,
    _dir: TempDir,
}

impl World {
    /// A phone that has never been used, paired with a host that tells these lies.
    pub fn new(lies: Vec<Lie>, is_registered: bool) -> World {
        let host = Host::start(lies);
        let dir = scratch::dir();
        for (name, file) in FILES.iter().zip(new_vault()) {
            fs::write(dir.path().join(name), file).expect("there is room");
        }
        let vault = Vault::open(dir.path(), &passphrase()).expect("a good vault");
        let paired = PairedHost {
            key: host.key.public().0,
            addresses: vec!["memory://host".into()],
            registered: is_registered,
            hub_node_id: Vec::new(),
            was_registered: false,
        };
        vault.set_host(&paired).expect("there is room");
        let phone = Phone::new(vault, ToHost(host)).expect("a good vault");
        World { phone, _dir: dir }
    }
}

fn passphrase() -> Passphrase {
    "passphrase".to_owned().into()
}

/// The files of a vault that was just made.
fn new_vault() -> &'static [Vec<u8>; FILES.len()] {
    static FILE: OnceLock<[Vec<u8>; FILES.len()]> = OnceLock::new();
    FILE.get_or_init(|| {
        let dir = scratch::dir();
        let words = crate::audited::seed().words();
        let secrets = Secrets::restore(Network::Regtest, &words, 0).unwrap();
        drop(Vault::create(dir.path(), secrets, &passphrase(), Some(1)).unwrap());
        FILES.map(|name| fs::read(dir.path().join(name)).unwrap())
    })
}

/// The phone's wallet, by the seed alone.
pub(super) fn own_script(keychain: Keychain, index: u32) -> Option<ScriptBuf> {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    let new = || Signer::new(&crate::audited::seed(), Network::Regtest, &[0; 32]).unwrap();
    SIGNER.get_or_init(new).own_script(keychain, index)
}

pub(super) fn own_address(keychain: Keychain, index: u32) -> String {
    let script = own_script(keychain, index).unwrap();
    let address = Address::from_script(&script, Network::Regtest);
    address.unwrap().to_string()
}

pub(super) fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Duration::from_secs(now.expect("a clock").as_secs())
}

/// Somebody else's invoice.
pub(super) fn invoice_to_pay() -> String {
    let key = SecretKey::from_slice(&[0x22; 32]).unwrap();
    let invoice = InvoiceBuilder::new(Currency::Regtest)
        .description("tea".into())
        .payment_hash(PaymentHash(payment_hash()))
        .payment_secret(PaymentSecret([7; 32]))
        .duration_since_epoch(now())
        .min_final_cltv_expiry_delta(144)
        .basic_mpp()
        .amount_milli_satoshis(AMOUNT_MSAT)
        .build_signed(|hash| crate::secp::secp().sign_ecdsa_recoverable(hash, &key));
    invoice.unwrap().to_string()
}

pub(super) fn payment_hash() -> [u8; 32] {
    sha256::Hash::hash(&PREIMAGE).to_byte_array()
}

/// A host with one owner.
struct Host {
    key: LinkKeypair,
    conversation: Conversation,
    lies: Mutex<std::vec::IntoIter<Lie>>,
}

const OWNER: OwnerId = OwnerId([1; 16]);

impl Host {
    fn start(lies: Vec<Lie>) -> Arc<Host> {
        let (conversation, requests) =
            Conversation::new(Side::Host, Config::new("liar", &["command"])).unwrap();
        let host = Arc::new(Host {
            key: LinkKeypair::from_bytes([4; 32]),
            conversation,
            lies: Mutex::new(lies.into_iter()),
        });
        tokio::spawn(host.clone().serve(requests));
        host
    }

    fn lies(&self) -> MutexGuard<'_, std::vec::IntoIter<Lie>> {
        self.lies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Host>, mut requests: IncomingRequests) {
        while let Some(request) = requests.next().await {
            let command = Command::decode(&request.payload[..]).expect("a phone sends commands");
            let lie = self.lies().next().unwrap_or_default();
            self.answer(request, &command.command.expect("it has a kind"), lie);
        }
    }

    fn answer(&self, request: Incoming, ask: &Ask, lie: Lie) {
        if lie.hangs_up {
            if let Some(link) = self.conversation.link() {
                link.close(CloseCode::Unavailable, "as scripted");
            }
            return;
        }
        if !lie.refuses.is_empty() {
            return request.responder.refuse(&lie.refuses, &lie.refuses);
        }
        let good = || CommandReply {
            reply: Some(good_reply(ask, lie.invoice.as_ref())),
        };
        let mut bytes = lie.reply.unwrap_or_else(good).encode_to_vec();
        let length = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(lie.at as usize % length) {
            *byte ^= lie.xor as u8;
        }
        request.responder.respond(bytes);
    }
}

#[async_trait]
impl HostIdentity for Host {
    fn keypair(&self) -> LinkKeypair {
        self.key.clone()
    }
    async fn pairing(&self, _: &PairingId) -> Result<Pairing, LinkError> {
        Ok(Pairing::Unknown)
    }
    async fn pin(&self, _: &PairingId, _: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        Ok(None)
    }
    async fn owner_of(&self, _: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        Ok(Some(OWNER))
    }
    fn conversation_of(&self, _: &OwnerId) -> Conversation {
        self.conversation.clone()
    }
}

/// Reaches the host, whatever the addresses.
struct ToHost(Arc<Host>);

#[async_trait]
impl Dial for ToHost {
    async fn dial(&self, _: &[String]) -> Result<Carrier, LinkError> {
        let host = self.0.clone();
        let (ours, theirs) = Carrier::pair();
        tokio::spawn(async move {
            if let Ok(accepted) = accept(theirs, host.as_ref()).await {
                accepted.link.detach_requested().await;
                accepted.link.confirm_detach();
            }
        });
        Ok(ours)
    }
}

/// What a good host says.
pub(super) fn good_reply(ask: &Ask, lie: Option<&InvoiceLie>) -> Reply {
    let own_id = || node::registration().node_id;
    let hub_node_id = || node::hub_id().serialize().to_vec();
    match ask {
        Ask::Register(register) => Reply::Registered(Registered {
            node_id: register.node_id.clone(),
            hub_node_id: hub_node_id(),
        }),
        Ask::GetInfo(_) => Reply::Info(Info {
            node_id: own_id(),
            network: "regtest".into(),
            state: "active".into(),
            hub_node_id: hub_node_id(),
            ..Info::default()
        }),
        Ask::GetBalance(_) => Reply::Balance(Balance {
            lightning_msat: 42_000,
            ..Balance::default()
        }),
        Ask::ListChannels(_) => Reply::Channels(Channels {
            channels: vec![channel()],
            closed: vec![ClosedChannel {
                channel_id: vec![0xcd; 32],
                reason: "the peer closed it".into(),
                ..ClosedChannel::default()
            }],
        }),
        Ask::ListPayments(_) => Reply::Payments(Payments {
            payments: vec![payment(State::Succeeded)],
        }),
        Ask::NewAddress(_) => Reply::Address(address(Keychain::External, 3)),
        Ask::OpenChannel(open) => Reply::OpenedChannel(OpenedChannel {
            id: open.id.clone(),
            channel_id: vec![0xab; 32],
            funding_outpoint: format!("{}:0", "cd".repeat(32)),
        }),
        Ask::AwaitChannel(_) => Reply::Channel(channel()),
        Ask::CreateInvoice(create) => Reply::UnsignedInvoice(unsigned(create, lie)),
        Ask::Pay(_) | Ask::AwaitPayment(_) => Reply::Payment(payment(State::Succeeded)),
        Ask::SendOnchain(_) => Reply::SentOnchain(SentOnchain {
            txid: "ef".repeat(32),
            fee_sat: 300,
        }),
        Ask::CloseChannel(_) => Reply::ClosingChannel(ClosingChannel {
            txid: String::new(),
        }),
        Ask::ConnectPeer(_) => Reply::PeerConnected(PeerConnected {}),
    }
}

pub(super) fn address(keychain: Keychain, index: u32) -> longhand_proto::command::Address {
    longhand_proto::command::Address {
        address: own_address(keychain, index),
        keychain: u32::from(keychain == Keychain::Internal),
        index,
    }
}

fn channel() -> Channel {
    Channel {
        channel_id: vec![0xab; 32],
        user_channel_id: vec![1; 16],
        counterparty_node_id: node::hub_id().serialize().to_vec(),
        capacity_sat: 1_000_000,
        state: "open".into(),
        usable: true,
        ..Channel::default()
    }
}

pub(super) fn payment(state: State) -> Payment {
    Payment {
        payment_hash: payment_hash().to_vec(),
        outbound: true,
        amount_msat: AMOUNT_MSAT,
        state: state.into(),
        preimage: PREIMAGE.to_vec(),
        failure: "no route".into(),
        ..Payment::default()
    }
}

/// What was asked for, with what is to be other.
fn unsigned(create: &CreateInvoice, lie: Option<&InvoiceLie>) -> UnsignedInvoice {
    let no_lie = InvoiceLie::default();
    let lie = lie.unwrap_or(&no_lie);
    let amount_msat = lie.amount_msat.unwrap_or(create.amount_msat);
    let description = lie.description.as_ref().unwrap_or(&create.description);
    let expiry_s = lie.expiry_s.unwrap_or(create.expiry_s);
    let other_hash = <[u8; 32]>::try_from(&lie.payment_hash[..]).ok();
    let asked_hash = || create.payment_hash[..].try_into().expect("32 bytes");
    let currency = match lie.other_network {
        true => Currency::Bitcoin,
        false => Currency::Regtest,
    };
    let late = Duration::from_secs(lie.late_s.unsigned_abs().min(1 << 33));
    let at = match lie.late_s {
        0.. => now().checked_sub(late).unwrap_or_default(),
        _ => now().saturating_add(late),
    };
    let mut invoice = InvoiceBuilder::new(currency)
        .invoice_description(lightning_invoice::Bolt11InvoiceDescription::Direct(
            Description::new(description.clone()).unwrap_or_else(|_| Description::empty()),
        ))
        .payment_hash(PaymentHash(other_hash.unwrap_or_else(asked_hash)))
        .payment_secret(PaymentSecret([7; 32]))
        .duration_since_epoch(at)
        .expiry_time(Duration::from_secs(expiry_s.into()))
        .min_final_cltv_expiry_delta(144)
        .basic_mpp();
    if amount_msat > 0 {
        invoice = invoice.amount_milli_satoshis(amount_msat);
    }
    if lie.other_payee {
        invoice = invoice.payee_pub_key(node::hub_id());
    }
    if lie.fallback {
        let address: Address<_> = PAYEE_ADDRESS.parse().unwrap();
        let script = address.assume_checked().script_pubkey();
        invoice = invoice.fallback(Fallback::SegWitProgram {
            version: bitcoin::WitnessVersion::V0,
            program: script.as_bytes()[2..].to_vec(),
        });
    }
    let Ok(raw) = invoice.build_raw() else {
        return UnsignedInvoice::default();
    };
    let (hrp, data) = raw.to_raw();
    let mut data: Vec<u8> = data.iter().map(|group| group.to_u8()).collect();
    let length = data.len();
    data[lie.at as usize % length] ^= lie.xor as u8;
    UnsignedInvoice { hrp, data }
}
