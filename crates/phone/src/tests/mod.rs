//! The phone against a scripted host, over real links in memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accelerating;
mod apps;
mod attaching;
mod checking;
mod controlling;
mod dying;
mod idempotency;
mod limiting;
mod paying;
mod roaming;
mod seeing;
mod signing;
mod waking;
mod witnessing;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::Network;
use lightning_invoice::Bolt11Invoice;
use longhand_link::{Carrier, CloseCode, Dial, LinkError, PairingSecret, Rendezvous};
use longhand_proto::Code;
use longhand_proto::command as proto;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_testkit::invoices::{InvoiceSpec, payee_id, unsigned_invoice};
use longhand_testkit::scripted::{Act, ScriptedHost};
use tempfile::TempDir;

use crate::birthday::Birthday;
use crate::error::PhoneError;
use crate::phone::Phone;
use crate::testing::{DiskFaults, FaultyDirectory, OneThread};
use crate::vault::{Passphrase, Secrets, Vault};

pub(crate) const WORDS: &str =
    "legal winner thank year wave sausage worth useful legal winner thank yellow";
pub(crate) const OTHER_WORDS: &str = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";

/// A host that answers registrations, balances and invoices.
pub(crate) fn scripted_host() -> Arc<ScriptedHost> {
    ScriptedHost::new(|ask| Act::Reply(good_reply(ask)))
}

/// A pairing code as its owner types it.
pub(crate) fn code_text(host: &ScriptedHost) -> String {
    host.code().to_text().unwrap().to_string()
}

fn good_reply(ask: &Ask) -> Reply {
    match ask {
        Ask::Register(register) => Reply::Registered(proto::Registered {
            node_id: register.node_id.clone(),
            hub_node_id: payee_id().serialize().to_vec(),
        }),
        Ask::GetBalance(_) => Reply::Balance(proto::Balance {
            lightning_msat: 42_000,
            ..Default::default()
        }),
        Ask::CreateInvoice(create) => Reply::UnsignedInvoice(unsigned_invoice(create)),
        _ => error("UNSCRIPTED", proto::error::Action::GiveUp),
    }
}

pub(crate) fn error(code: impl Into<String>, action: proto::error::Action) -> Reply {
    let code = code.into();
    Reply::Error(proto::Error {
        is_final: Code::from_name(&code).is_some_and(Code::is_final),
        code,
        message: "the host says no".into(),
        action: action.into(),
    })
}

/// Dials one [`ScriptedHost`], whatever the address.
pub(crate) struct ToHost(pub(crate) Arc<ScriptedHost>);

#[async_trait]
impl Dial for ToHost {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        self.0.dial(address)
    }
}

/// A phone with these words, in a directory of its own.
pub(crate) fn phone_with(words: &str, host: &Arc<ScriptedHost>) -> (TempDir, Phone) {
    phone_on(None, words, host)
}

pub(crate) fn now_unix_s() -> u64 {
    longhand_base::runtime::tokio().now_unix_s()
}

/// A phone whose work for the disk is done in order with everything else.
pub(crate) fn start(vault: Vault, dialer: impl Dial + 'static) -> Result<Phone, PhoneError> {
    Phone::on(OneThread::new(), vault, dialer)
}

/// The vault in `dir`, on a disk with faults.
pub(crate) fn open_on(disk: Arc<dyn DiskFaults>, dir: &Path) -> Vault {
    let directory = FaultyDirectory::lock(dir, disk).unwrap();
    directory.vault().unwrap().open(&passphrase()).unwrap()
}

pub(crate) fn new_vault(dir: &Path, words: &str) -> Vault {
    let secrets = Secrets::restore(Network::Regtest, words, Birthday::New).unwrap();
    Vault::create(dir, secrets, &passphrase(), Some(1)).unwrap()
}

fn phone_on(
    disk: Option<Arc<dyn DiskFaults>>,
    words: &str,
    host: &Arc<ScriptedHost>,
) -> (TempDir, Phone) {
    let dir = tempfile::tempdir().unwrap();
    let vault = new_vault(dir.path(), words);
    let vault = match disk {
        Some(disk) => {
            drop(vault);
            open_on(disk, dir.path())
        }
        None => vault,
    };
    let phone = start(vault, ToHost(Arc::clone(host))).unwrap();
    (dir, phone)
}

/// The passphrase of all phones here.
pub(crate) fn passphrase() -> Passphrase {
    "passphrase".to_owned().into()
}

/// A phone that is paired and attached, and its host.
pub(crate) async fn attached() -> (TempDir, Phone, Arc<ScriptedHost>) {
    attached_on(None).await
}

/// The same, with a disk that may fail.
pub(crate) async fn attached_on(
    disk: Option<Arc<dyn DiskFaults>>,
) -> (TempDir, Phone, Arc<ScriptedHost>) {
    let host = scripted_host();
    let (dir, phone) = phone_on(disk, WORDS, &host);
    phone.pair(&code_text(&host)).await.unwrap();
    (dir, phone, host)
}

pub(crate) fn code_of<T: std::fmt::Debug>(result: Result<T, PhoneError>) -> String {
    let report = result.expect_err("must be refused").report();
    assert!(!report.message.contains('\n'), "{report:?}");
    report.code
}
