//! A phone that is paired with a host of real links, whose replies are good ones with a lie each.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{Address, Network, ScriptBuf};
use lightning_invoice::{
    Currency, Description, Fallback, InvoiceBuilder, PaymentHash, PaymentSecret,
};
use longhand_link::{Carrier, LinkError, LinkKeypair, Rendezvous};
use longhand_phone::testing::{OneThread, open_once};
use longhand_phone::vault::PairedHost;
use longhand_phone::{Birthday, Dial, Passphrase, Phone, Secrets, Vault};
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::*;
use longhand_signer::{Keychain, Signer};
use longhand_testkit::clock::unix_s;
use longhand_testkit::invoices::{self, InvoiceSpec, PAYMENT_SECRET};
use longhand_testkit::scripted::{ADDRESS, Act, ScriptedHost};
use prost::Message;
use tempfile::TempDir;

use super::{InvoiceLie, Lie, PAYEE_ADDRESS};
use crate::{node, scratch};

/// How far the date of an invoice may be from the phone's clock, and a minute for a slow machine.
pub(super) const SKEW: Duration = Duration::from_secs(3_660);
const FILES: [&str; 3] = ["seed.age", "ledger", "ledger.head"];

pub(super) struct World {
    pub phone: Phone,
    _dir: TempDir,
}

impl World {
    /// A phone that has never been used, paired with a host that tells these lies.
    pub fn new(lies: Vec<Lie>, is_registered: bool) -> World {
        let dir = scratch::dir();
        for (name, file) in FILES.iter().zip(new_vault()) {
            fs::write(dir.path().join(name), file).expect("there is room");
        }
        let locked = Vault::lock(dir.path()).expect("a good vault");
        let vault = open_once(locked, &passphrase()).expect("a good vault");
        let link_key = LinkKeypair::from_bytes(*vault.secrets().link_key);
        let mut lies = lies.into_iter();
        let host = ScriptedHost::paired(link_key.public(), move |ask| {
            react(ask, lies.next().unwrap_or_default())
        });
        let paired = PairedHost {
            key: host.key().0,
            addresses: vec![ADDRESS.into()],
            registered: is_registered,
            hub_node_id: Vec::new(),
            was_registered: false,
            discovery: None,
        };
        vault.set_host(&paired).expect("there is room");
        let phone = Phone::on(OneThread::new(), vault, ToHost(host)).expect("a good vault");
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
        let secrets = Secrets::restore(Network::Regtest, &words, Birthday::New).unwrap();
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
    Duration::from_secs(unix_s())
}

/// An invoice of somebody else.
pub(super) fn invoice_to_pay() -> String {
    InvoiceSpec::default().text()
}

/// The host's reaction: a good reply, with this lie.
fn react(ask: &Ask, lie: Lie) -> Act {
    if lie.hangs_up {
        return Act::HangUp;
    }
    if !lie.refuses.is_empty() {
        return Act::Refuse(lie.refuses);
    }
    let good = || CommandReply {
        reply: Some(good_reply(ask, lie.invoice.as_ref())),
    };
    let mut bytes = lie.reply.unwrap_or_else(good).encode_to_vec();
    let length = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(lie.at as usize % length) {
        *byte ^= lie.xor as u8;
    }
    Act::Bytes(bytes)
}

/// Dials the host, whatever the address.
struct ToHost(Arc<ScriptedHost>);

#[async_trait]
impl Dial for ToHost {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        self.0.dial(address)
    }
}

/// The reply of a good host.
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
            next: Vec::new(),
        }),
        Ask::GetPayment(_) => Reply::FoundPayment(FoundPayment {
            payment: Some(payment(State::Succeeded)),
        }),
        Ask::ListInvoices(_) => Reply::Invoices(Invoices {
            invoices: vec![OpenInvoice {
                payment_hash: vec![0xef; 32],
                description: "coffee".into(),
                ..OpenInvoice::default()
            }],
        }),
        Ask::ListSends(_) => Reply::Sends(Sends {
            // Of another payment than the one that is bumped, which the phone was not asked for.
            sends: vec![Send {
                txid: "ef".repeat(32),
                ..Send::default()
            }],
        }),
        Ask::BumpTransaction(_) | Ask::AbandonTransaction(_) => Reply::SentOnchain(SentOnchain {
            txid: "cd".repeat(32),
            fee_sat: 1,
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
        Ask::SetWakeUrls(set) => Reply::WakeUrls(WakeUrls {
            urls: set.urls.clone(),
            operator_has_one: true,
        }),
        Ask::ListWakeUrls(_) => Reply::WakeUrls(WakeUrls::default()),
        Ask::ConnectApp(_) => Reply::ConnectedApp(ConnectedApp {
            words: "abandon ".repeat(10),
            mailboxes: vec!["relay.example:443".into()],
            ..ConnectedApp::default()
        }),
        Ask::ListApps(_) | Ask::DisconnectApp(_) => Reply::Apps(Apps {
            apps: vec![App {
                name: "Zeus".into(),
                ..App::default()
            }],
        }),
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
        created_unix_s: 0,
        ..InvoiceSpec::default().payment(state)
    }
}

/// The invoice that was asked for, with this lie.
fn unsigned(create: &CreateInvoice, lie: Option<&InvoiceLie>) -> UnsignedInvoice {
    let no_lie = InvoiceLie::default();
    let lie = lie.unwrap_or(&no_lie);
    let amount_msat = lie.amount_msat.unwrap_or(create.amount_msat);
    let description = lie.description.as_ref().unwrap_or(&create.description);
    let expiry_s = lie.expiry_s.unwrap_or(create.expiry_s);
    let other_hash = <[u8; 32]>::try_from(&lie.payment_hash[..]).ok();
    let asked_hash = || create.payment_hash[..].try_into().expect("32 bytes");
    let asked_secret = <[u8; 32]>::try_from(&create.payment_secret[..]).unwrap_or(PAYMENT_SECRET);
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
        .payment_secret(PaymentSecret(asked_secret))
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
    let mut unsigned = invoices::unsigned(&raw);
    let length = unsigned.data.len();
    unsigned.data[lie.at as usize % length] ^= lie.xor as u8;
    unsigned
}
