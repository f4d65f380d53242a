//! Replies of a hostile host to an owner's commands, at a whole phone over a link in memory: in place of a good reply
//! another one, a changed one, a refusal, or none.

use std::collections::HashSet;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{Address, Network};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef};
use longhand_phone::command::{AppRights, CloseHow, Invoice, OwnAddress, Payment, PaymentState};
use longhand_phone::input::OnchainAmount;
use longhand_phone::{OwnerCommand, OwnerReply, Phone, PhoneError};
use longhand_proto::command::CommandReply;
use longhand_signer::Keychain;
use longhand_testkit::invoices::InvoiceSpec;
use prost::Message;
use serde_json::Value;
use tokio::time::timeout;

use self::world::World;
use crate::node;

mod seeds;
mod world;

pub(crate) use seeds::seeds;

#[derive(Clone, PartialEq, Message)]
struct Script {
    /// One for each command that comes; without one the reply is good.
    #[prost(message, repeated, tag = "1")]
    lies: Vec<Lie>,
    #[prost(message, repeated, tag = "2")]
    calls: Vec<Call>,
    /// The phone has not registered yet.
    #[prost(bool, tag = "3")]
    registers: bool,
}

/// A change of a reply.
#[derive(Clone, PartialEq, Message)]
struct Lie {
    /// The reply in its place.
    #[prost(message, optional, tag = "1")]
    reply: Option<CommandReply>,
    /// A byte of it that is changed.
    #[prost(uint32, tag = "2")]
    at: u32,
    #[prost(uint32, tag = "3")]
    xor: u32,
    /// The link is closed.
    #[prost(bool, tag = "4")]
    hangs_up: bool,
    /// The request is refused with this code.
    #[prost(string, tag = "5")]
    refuses: String,
    /// An unsigned invoice is made like this.
    #[prost(message, optional, tag = "6")]
    invoice: Option<InvoiceLie>,
}

/// Fields of an invoice in place of those requested.
#[derive(Clone, PartialEq, Message)]
struct InvoiceLie {
    #[prost(uint64, optional, tag = "1")]
    amount_msat: Option<u64>,
    #[prost(string, optional, tag = "2")]
    description: Option<String>,
    #[prost(uint32, optional, tag = "3")]
    expiry_s: Option<u32>,
    #[prost(bytes = "vec", tag = "4")]
    payment_hash: Vec<u8>,
    #[prost(bool, tag = "5")]
    fallback: bool,
    #[prost(bool, tag = "6")]
    other_payee: bool,
    #[prost(sint64, tag = "7")]
    late_s: i64,
    #[prost(bool, tag = "8")]
    other_network: bool,
    /// A group of the data part that is changed.
    #[prost(uint32, tag = "9")]
    at: u32,
    #[prost(uint32, tag = "10")]
    xor: u32,
}

/// A command of the owner.
#[derive(Clone, PartialEq, Message)]
struct Call {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    amount: u64,
    #[prost(string, tag = "3")]
    text: String,
    #[prost(uint32, tag = "4")]
    number: u32,
    #[prost(bool, tag = "5")]
    flag: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Info = 0,
    Balance = 1,
    Address = 2,
    Open = 3,
    Invoice = 4,
    Pay = 5,
    SendOnchain = 6,
    Channels = 7,
    Payments = 8,
    Close = 9,
    Connect = 10,
    Payment = 11,
    OpenInvoices = 12,
    Sends = 13,
    Bump = 14,
    Abandon = 15,
    WakeUrls = 16,
    SetWakeUrls = 17,
    ConnectApp = 18,
    Apps = 19,
    DisconnectApp = 20,
}

const CALLS: usize = 6;
const LIES: usize = 32;
/// Virtual time after which a call waits for an event that never happens.
const PATIENCE: Duration = Duration::from_secs(120);
/// The address of on-chain payments.
const PAYEE_ADDRESS: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(mut script) = Script::decode(data) else {
        return;
    };
    script.lies.truncate(LIES);
    if script.calls.is_empty() {
        return;
    }
    node::run(|| async {
        let world = World::new(script.lies, !script.registers);
        let phone = &world.phone;
        match timeout(PATIENCE, phone.attach()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return check_error(&error),
            Err(_) => return,
        }
        let mut hashes = HashSet::new();
        for call in script.calls.iter().take(CALLS) {
            let command = call.command();
            let ended = timeout(PATIENCE, phone.execute(command.clone())).await;
            match ended {
                Err(_) => {}
                Ok(Err(error)) => check_error(&error),
                Ok(Ok(reply)) => check(phone, &command, &reply, &mut hashes),
            }
        }
        phone.stop_now();
    });
}

impl Call {
    fn command(&self) -> OwnerCommand {
        match self.kind() {
            Kind::Info => OwnerCommand::Info,
            Kind::Balance => OwnerCommand::Balance,
            Kind::Address => OwnerCommand::Address,
            Kind::Open => OwnerCommand::Open {
                amount_sat: self.amount,
                to: None,
                announced: false,
                wait: self.flag,
                feerate_sat_per_kw: None,
            },
            Kind::Invoice => OwnerCommand::Invoice {
                amount_msat: Some(self.amount).filter(|amount| *amount > 0),
                description: self.text.clone(),
                expiry_s: self.number,
            },
            Kind::Pay => OwnerCommand::Pay {
                bolt11: world::invoice_to_pay(),
                amount_msat: None,
                max_fee_msat: Some(self.amount),
            },
            Kind::SendOnchain => OwnerCommand::SendOnchain {
                address: PAYEE_ADDRESS.into(),
                amount: match self.flag {
                    true => OnchainAmount::All,
                    false => OnchainAmount::Sat(self.amount),
                },
                feerate_sat_per_kw: Some(self.number).filter(|rate| *rate > 0),
            },
            Kind::Channels => OwnerCommand::Channels,
            Kind::Payments => OwnerCommand::Payments {
                limit: (self.number > 0).then_some(self.number),
                before: self.flag.then(|| self.text.clone()),
            },
            Kind::Payment => OwnerCommand::Payment {
                payment_hash: match self.flag {
                    true => self.text.clone(),
                    false => InvoiceSpec::default().hash().to_lower_hex_string(),
                },
            },
            Kind::OpenInvoices => OwnerCommand::Invoices,
            Kind::Sends => OwnerCommand::Sends,
            Kind::Bump => OwnerCommand::Bump {
                txid: "ab".repeat(32),
                feerate_sat_per_kw: Some(self.number).filter(|rate| *rate > 0),
            },
            Kind::Abandon => OwnerCommand::Abandon {
                txid: "ab".repeat(32),
                feerate_sat_per_kw: Some(self.number).filter(|rate| *rate > 0),
            },
            Kind::Close => OwnerCommand::Close {
                channel_id: "ab".repeat(32),
                how: CloseHow {
                    force: self.flag,
                    ..CloseHow::default()
                },
            },
            Kind::Connect => OwnerCommand::Connect { to: None },
            Kind::WakeUrls => OwnerCommand::WakeUrls,
            Kind::SetWakeUrls => OwnerCommand::SetWakeUrls {
                urls: vec![format!("https://push.example/{}", self.text)],
            },
            Kind::ConnectApp => OwnerCommand::ConnectApp {
                name: self.text.clone(),
                rights: AppRights {
                    read: true,
                    ..AppRights::default()
                },
                expires_unix_s: self.amount,
            },
            Kind::Apps => OwnerCommand::Apps,
            Kind::DisconnectApp => OwnerCommand::DisconnectApp {
                name: self.text.clone(),
            },
        }
    }
}

/// An error has a code and a message, without characters that control a terminal.
fn check_error(error: &PhoneError) {
    let report = error.report();
    assert!(!report.code.is_empty() && !report.message.is_empty());
    for text in [&report.code, &report.message] {
        assert!(!steers(text), "{text:?}");
    }
}

fn steers(text: &str) -> bool {
    let marks = ['\u{061c}', '\u{200e}', '\u{200f}'];
    let turns =
        |c| marks.contains(&c) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().any(|c| c.is_control() || turns(c))
}

/// A phone's reply to its owner has passed the phone's own checks.
fn check(phone: &Phone, command: &OwnerCommand, reply: &OwnerReply, hashes: &mut HashSet<String>) {
    match (command, reply) {
        (OwnerCommand::Info, OwnerReply::Info(info)) => {
            assert_eq!(info.node_id, phone.node_id().to_string());
        }
        (OwnerCommand::Address, OwnerReply::Address(own)) => check_address(own),
        (OwnerCommand::Invoice { .. }, OwnerReply::Invoice(invoice)) => {
            check_invoice(phone, command, invoice);
            let is_new = hashes.insert(invoice.payment_hash.clone());
            assert!(is_new, "two invoices with one payment hash");
        }
        (OwnerCommand::Pay { bolt11, .. }, OwnerReply::Paid(payment)) => {
            check_payment(bolt11, payment);
        }
        (OwnerCommand::Balance, OwnerReply::Balance(_))
        | (OwnerCommand::Open { .. }, OwnerReply::Opened(_))
        | (OwnerCommand::SendOnchain { .. }, OwnerReply::Sent(_))
        | (OwnerCommand::Channels, OwnerReply::Channels(_))
        | (OwnerCommand::Payments { .. }, OwnerReply::Payments(_))
        | (OwnerCommand::Payment { .. }, OwnerReply::Payment(_))
        | (OwnerCommand::Invoices, OwnerReply::Invoices(_))
        | (OwnerCommand::Sends, OwnerReply::Sends(_))
        | (OwnerCommand::Bump { .. } | OwnerCommand::Abandon { .. }, OwnerReply::Sent(_))
        | (OwnerCommand::Close { .. }, OwnerReply::Closing(_))
        | (OwnerCommand::Connect { .. }, OwnerReply::Connected {})
        | (OwnerCommand::WakeUrls | OwnerCommand::SetWakeUrls { .. }, OwnerReply::WakeUrls(_))
        | (OwnerCommand::ConnectApp { .. }, OwnerReply::ConnectedApp(_))
        | (OwnerCommand::Apps | OwnerCommand::DisconnectApp { .. }, OwnerReply::Apps(_)) => {}
        _ => panic!("{reply:?} to {command:?}"),
    }
    let printed = serde_json::to_value(reply).expect("a reply can be printed");
    if !matches!(command, OwnerCommand::Invoice { .. }) {
        check_texts(&printed);
    }
}

fn check_texts(value: &Value) {
    match value {
        Value::String(text) => assert!(!steers(text), "{text:?}"),
        Value::Array(values) => values.iter().for_each(check_texts),
        Value::Object(values) => values.values().for_each(check_texts),
        _ => {}
    }
}

/// The address is the wallet's own, at an index that a restored wallet looks at.
fn check_address(own: &OwnAddress) {
    let script = world::own_script(Keychain::External, own.index);
    let script = script.expect("an index that is looked at");
    let address: Address<NetworkUnchecked> = own.address.parse().expect("an address");
    let address = address.require_network(Network::Regtest);
    assert_eq!(address.expect("of this network").script_pubkey(), script);
}

/// The invoice pays this node, with the fields requested and no others.
fn check_invoice(phone: &Phone, command: &OwnerCommand, made: &Invoice) {
    let OwnerCommand::Invoice {
        amount_msat,
        description,
        expiry_s,
    } = command
    else {
        return;
    };
    let invoice: Bolt11Invoice = made.bolt11.parse().expect("an invoice can be read");
    assert_eq!(invoice.get_payee_pub_key(), phone.node_id());
    assert_eq!(invoice.network(), Network::Regtest);
    assert_eq!(invoice.amount_milli_satoshis(), *amount_msat);
    assert_eq!(made.amount_msat, amount_msat.unwrap_or(0));
    assert_eq!(invoice.payment_hash().to_string(), made.payment_hash);
    assert_eq!(invoice.expiry_time().as_secs(), u64::from(*expiry_s));
    assert!(invoice.fallbacks().is_empty(), "another way to be paid");
    let Bolt11InvoiceDescriptionRef::Direct(said) = invoice.description() else {
        panic!("no description");
    };
    assert_eq!(said.as_inner().0, *description);
    let skew_s = invoice.duration_since_epoch().abs_diff(world::now());
    assert!(skew_s <= world::SKEW, "another timestamp");
}

/// A payment reported as succeeded has its preimage.
fn check_payment(bolt11: &str, payment: &Payment) {
    let invoice: Bolt11Invoice = bolt11.parse().unwrap();
    assert_eq!(payment.state, PaymentState::Succeeded);
    assert_eq!(payment.payment_hash, invoice.payment_hash().to_string());
    let preimage = <[u8; 32]>::from_hex(&payment.preimage).expect("a preimage");
    let hash = sha256::Hash::hash(&preimage);
    assert_eq!(hash.to_byte_array(), invoice.payment_hash().0);
}
