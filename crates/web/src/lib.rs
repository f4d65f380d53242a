//! A phone as a WebAssembly module: for a page or a worker of a browser, and for Node.
//!
//! The phone itself is `longhand-phone`. Here are the parts that it is handed on this target: clocks, timers and tasks of JavaScript
//! (`runtime`), WebSockets (`dial`), and a storage that the page provides (`storage`). `WebPhone` is what JavaScript sees.
#![cfg(target_family = "wasm")]

mod dial;
mod error;
mod runtime;
mod storage;

use std::sync::Arc;

use longhand_phone::runtime::Runtime;
use longhand_phone::vault::LockedVault;
use longhand_phone::{Birthday, OwnerCommand, Phone, PhoneError, Secrets, Vault, Words};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use zeroize::Zeroizing;

use dial::WebSockets;
use error::to_js;
use runtime::JsRuntime;
use storage::{JsFiles, JsStorage};

/// A phone. A page or worker has ensured that no other uses its storage, by a Web Lock say, before it makes one. Methods that fail throw an `Error` with a `code`, which is stable, and a message for a person.
#[wasm_bindgen]
pub struct WebPhone {
    phone: Phone,
}

#[wasm_bindgen]
impl WebPhone {
    /// Makes a new phone in an empty storage: with these words (BIP 39), whose coins are searched in the whole chain, or with new ones.
    /// `work_factor` is scrypt's log2(N), 16 without it (64 MiB).
    pub fn create(
        storage: JsStorage,
        network: &str,
        words: Option<String>,
        passphrase: String,
        work_factor: Option<u8>,
    ) -> Result<WebPhone, JsValue> {
        let network = network
            .parse()
            .map_err(|_| error::unknown_network(network))?;
        let secrets = match words.map(Zeroizing::new) {
            Some(words) => Secrets::restore(network, &words, Birthday::Height(1)),
            None => Secrets::generate(network, Words::Twelve),
        };
        let secrets = secrets.map_err(to_js)?;
        let storage = JsFiles::new(storage);
        let vault = Vault::create_in(storage, secrets, &passphrase.into(), work_factor);
        WebPhone::start(vault.map_err(PhoneError::from).map_err(to_js)?)
    }

    /// Opens the phone in a storage.
    pub fn open(storage: JsStorage, passphrase: String) -> Result<WebPhone, JsValue> {
        let locked = LockedVault::new(JsFiles::new(storage));
        let vault = locked.and_then(|locked| locked.open(&passphrase.into()));
        WebPhone::start(vault.map_err(PhoneError::from).map_err(to_js)?)
    }

    fn start(vault: Vault) -> Result<WebPhone, JsValue> {
        let runtime: Arc<dyn Runtime> = Arc::new(JsRuntime::new());
        let dialer = WebSockets {
            runtime: runtime.clone(),
        };
        let phone = Phone::on(runtime, vault, dialer);
        let phone = phone.map_err(to_js)?;
        Ok(WebPhone { phone })
    }

    /// The node's id, by the phone's own keys.
    pub fn node_id(&self) -> String {
        self.phone.node_id().to_string()
    }

    /// The words, for their owner to write down.
    pub fn words(&self) -> JsValue {
        JsValue::from_str(&self.phone.vault().secrets().mnemonic)
    }

    /// Pairs the phone with the host of a pairing code, and attaches it.
    pub async fn pair(&self, code: String) -> Result<(), JsValue> {
        self.phone.pair(&code).await.map_err(to_js)
    }

    /// Attaches the phone to its node. A link that breaks is made again until it is detached.
    pub async fn attach(&self) -> Result<(), JsValue> {
        self.phone.attach().await.map_err(to_js)
    }

    /// Lets the node finish the step in hand, and leaves it.
    pub async fn detach(&self) -> Result<(), JsValue> {
        self.phone.detach().await.map_err(to_js)
    }

    /// The page reports that the network has changed, or that it was suspended.
    pub fn network_changed(&self, network: Option<String>) {
        self.phone.network_changed(network.as_deref());
    }

    /// Stops at once, as when the page is closed: the storage belongs to another page now, say. Nothing is written any more.
    pub fn stop_now(&self) {
        self.phone.stop_now();
    }

    /// Carries out a command of the owner: JSON, as through the control socket of `longhand phone`. Returns its reply, JSON too.
    /// A command whose reply was lost is sent again: nothing is done twice.
    pub async fn command(&self, command: String) -> Result<String, JsValue> {
        let command: OwnerCommand =
            serde_json::from_str(&command).map_err(|error| error::unreadable(&error))?;
        let reply = self.phone.execute(command).await.map_err(to_js)?;
        serde_json::to_string(&reply).map_err(|error| error::unreadable(&error))
    }
}
