//! A phone's directory with files that were changed: `seed.age` and `host` beside the ledger's files; changed without
//! the passphrase, and written anew with it. The target `phone_ledger` has the content of the ledger.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use async_trait::async_trait;
use longhand_link::{Carrier, LinkError, Rendezvous};
use longhand_phone::testing::OneThread;
use longhand_phone::vault::PairedHost;
use longhand_phone::vault::fuzzing::{seal_host, seal_seed};
use longhand_phone::{Dial, Passphrase, Phone, Seed, Vault, VaultError};
use prost::Message;
use serde_json::json;

use crate::{node, scratch};

#[derive(Clone, PartialEq, Message)]
struct Script {
    /// In place of the text in `seed.age`, under the passphrase; nothing when empty.
    #[prost(bytes = "vec", tag = "1")]
    secrets: Vec<u8>,
    /// In place of the content of `host`, under the key; nothing when empty.
    #[prost(bytes = "vec", tag = "2")]
    host: Vec<u8>,
    /// Changes without passphrase and key.
    #[prost(message, repeated, tag = "3")]
    edits: Vec<Edit>,
    /// A phone is made of what was opened.
    #[prost(bool, tag = "4")]
    phone: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Edit {
    /// Which of [`NAMES`].
    #[prost(uint32, tag = "1")]
    file: u32,
    /// Where, in the file as it is then.
    #[prost(uint32, tag = "2")]
    at: u32,
    #[prost(uint32, tag = "3")]
    xor: u32,
    #[prost(uint32, tag = "4")]
    remove: u32,
    #[prost(bytes = "vec", tag = "5")]
    insert: Vec<u8>,
    /// There is no such file.
    #[prost(bool, tag = "6")]
    missing: bool,
}

const NAMES: [&str; 4] = ["seed.age", "host", "ledger", "ledger.head"];
const SEED: usize = 0;
const HOST: usize = 1;
const EDITS: usize = 16;

const DATA_KEY: [u8; 32] = [5; 32];
const WORDS: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";
/// Scrypt's log2(N) in the files that are made here.
const WORK: u8 = 1;
/// From here up to the limit nothing is tried: it only takes time.
const QUICK: u8 = 8;
/// The limit of a phone, as in `secrets.rs`.
const MAX_WORK: u8 = 22;

type Files = [Option<Vec<u8>>; NAMES.len()];

fn passphrase() -> Passphrase {
    "passphrase".to_owned().into()
}

fn good_secrets() -> String {
    let (data_key, link_key) = ("05".repeat(32), "06".repeat(32));
    format!(
        "longhand phone 1\nnetwork: regtest\nbirthday-height: 7\nmnemonic: {WORDS}\ndata-key: {data_key}\nlink-key: {link_key}\n"
    )
}

fn good_host() -> PairedHost {
    PairedHost {
        key: [9; 32],
        addresses: vec!["grpc://127.0.0.1:1".into()],
        registered: true,
        hub_node_id: node::hub_id().serialize().to_vec(),
        was_registered: false,
        discovery: None,
    }
}

fn sealed_seed(text: &[u8]) -> Vec<u8> {
    seal_seed(text, &passphrase(), WORK).expect("it can be sealed")
}

/// A vault as a phone wrote it.
fn good() -> &'static Files {
    static GOOD: OnceLock<Files> = OnceLock::new();
    GOOD.get_or_init(|| {
        let dir = scratch::dir();
        fs::write(
            dir.path().join(NAMES[SEED]),
            sealed_seed(good_secrets().as_bytes()),
        )
        .unwrap();
        longhand_phone::vault::fuzzing::LedgerFiles::new(dir.path(), &DATA_KEY)
            .create()
            .unwrap();
        let vault = Vault::open(dir.path(), &passphrase()).unwrap();
        vault.set_host(&good_host()).unwrap();
        NAMES.map(|name| Some(fs::read(dir.path().join(name)).unwrap()))
    })
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let mut files = good().clone();
    if !script.secrets.is_empty() {
        files[SEED] = Some(sealed_seed(&script.secrets));
    }
    if !script.host.is_empty() {
        let sealed = seal_host(&DATA_KEY, &script.host);
        files[HOST] = Some(sealed.expect("it can be sealed"));
    }
    let sealed = files.clone();
    for edit in script.edits.iter().take(EDITS) {
        edit.make(&mut files);
    }
    let work = files[SEED].as_deref().and_then(asked_work);
    if work.is_some_and(|work| (QUICK..=MAX_WORK).contains(&work)) {
        return;
    }
    let dir = scratch::dir();
    for (name, file) in NAMES.iter().zip(&files) {
        if let Some(file) = file {
            fs::write(dir.path().join(name), file).expect("there is room");
        }
    }
    let vault = match Vault::open(dir.path(), &passphrase()) {
        Ok(vault) => vault,
        Err(error) => {
            check_error(&error);
            let is_good = script.secrets.is_empty() && files[SEED] == sealed[SEED];
            assert!(!is_good, "a good vault is refused: {error}");
            return;
        }
    };
    assert!(work.is_none_or(|work| work <= MAX_WORK), "too much work");
    let secrets = vault.secrets();
    if script.secrets.is_empty() {
        assert_eq!(
            (secrets.mnemonic.as_str(), *secrets.data_key),
            (WORDS, DATA_KEY)
        );
    }
    let _ = Seed::from_words(&secrets.mnemonic);
    let host = vault.host();
    if let Err(error) = &host {
        check_error(error);
    }
    let is_of_this_key = *secrets.data_key == DATA_KEY;
    if is_of_this_key && script.host.is_empty() {
        check_host(&files[HOST], &sealed[HOST], &host);
    }
    if let Ok(Some(host)) = &host {
        vault.set_host(host).expect("it can be written");
        drop(vault);
        let again = Vault::open(dir.path(), &passphrase()).expect("it can be opened again");
        assert_eq!(again.host().unwrap().as_ref(), Some(host));
        drop(again);
    } else {
        drop(vault);
    }
    if script.phone {
        live(dir.path());
    }
}

/// Without the key no change makes the phone belong to another host.
fn check_host(
    file: &Option<Vec<u8>>,
    sealed: &Option<Vec<u8>>,
    host: &Result<Option<PairedHost>, VaultError>,
) {
    match (file, host) {
        (None, host) => assert!(matches!(host, Ok(None)), "{host:?}"),
        (file, Ok(host)) => {
            assert_eq!(file, sealed, "a changed file is accepted");
            assert_eq!(*host, Some(good_host()));
        }
        (file, Err(error)) => assert_ne!(file, sealed, "a good host is refused: {error}"),
    }
}

/// One line, and no secret in it.
fn check_error(error: &VaultError) {
    let line = error.to_string();
    assert!(
        !line.is_empty() && !line.contains(char::is_control),
        "{line:?}"
    );
    assert!(!line.contains(WORDS), "the words are in an error");
}

/// The phone goes as far as it can get without its host.
fn live(dir: &Path) {
    let vault = Vault::open(dir, &passphrase()).expect("it was opened before");
    node::run(|| async {
        let Ok(phone) = Phone::on(OneThread::new(), vault, NoHost) else {
            return;
        };
        phone.attach().await.expect_err("there is no host");
        let hub = phone.connect_peer(None).await;
        hub.expect_err("there is no host");
    });
}

/// No host can be reached.
struct NoHost;

#[async_trait]
impl Dial for NoHost {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        Err(LinkError::Unreachable {
            address: address.into(),
            reason: "there is no host".into(),
        })
    }
}

/// The most work that a `seed.age` asks for.
fn asked_work(file: &[u8]) -> Option<u8> {
    let lines = file.split(|byte| *byte == b'\n');
    let asked = lines.filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.strip_prefix("-> scrypt ")?.split(' ');
        words.nth(1)?.parse().ok()
    });
    asked.max()
}

impl Edit {
    fn make(&self, files: &mut Files) {
        let file = &mut files[self.file as usize % NAMES.len()];
        if self.missing {
            *file = None;
        }
        let Some(file) = file else { return };
        let at = (self.at as usize).min(file.len());
        let end = at.saturating_add(self.remove as usize).min(file.len());
        file.splice(at..end, self.insert.iter().copied());
        if let Some(there) = file.get_mut(at) {
            *there ^= self.xor as u8;
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let edit = |file, at, remove, insert: &[u8]| Edit {
        file,
        at,
        remove,
        insert: insert.to_vec(),
        ..Edit::default()
    };
    let missing = |file| Edit {
        file,
        missing: true,
        ..Edit::default()
    };
    let xor = |file, at| Edit {
        xor: 1,
        ..edit(file, at, 0, b"")
    };
    let edited = |edits: &[Edit]| Script {
        edits: edits.to_vec(),
        ..Script::default()
    };
    let secrets = |from: &str, to: &str| Script {
        secrets: good_secrets().replace(from, to).into_bytes(),
        ..Script::default()
    };
    let host = |host: serde_json::Value| Script {
        host: host.to_string().into_bytes(),
        phone: true,
        ..Script::default()
    };
    // "age-encryption.org/v1\n-> scrypt ", 22 characters of salt, a space: here is the work factor.
    let work = 22 + 10 + 22 + 1;
    let stanza =
        b"-> scrypt AAAAAAAAAAAAAAAAAAAAAA 1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
    let scripts = [
        Script::default(),
        Script {
            phone: true,
            ..Script::default()
        },
        edited(&[edit(0, work, 1, b"23")]),
        edited(&[edit(0, work, 1, b"255")]),
        edited(&[edit(0, work, 1, b"63")]),
        edited(&[edit(0, work, 1, b"0")]),
        edited(&[edit(0, 22, 0, stanza)]),
        edited(&[edit(0, 20, 1, b"2")]),
        edited(&[xor(0, 200)]),
        edited(&[edit(0, 100, 10_000, b"")]),
        edited(&[xor(1, 30)]),
        edited(&[edit(1, 0, 10_000, b"")]),
        edited(&[missing(0)]),
        edited(&[missing(1), missing(2)]),
        edited(&[missing(3)]),
        secrets("phone 1", "phone 2"),
        secrets("regtest", "bitcoin"),
        secrets("yellow", "yellow yellow"),
        secrets("0505", "05"),
        secrets("height: 7", "height: 4294967296"),
        secrets("link-key", "key"),
        Script {
            secrets: vec![0xff; 40],
            ..Script::default()
        },
        host(json!(good_host())),
        host(json!({ "key": [1], "addresses": [], "registered": true, "hub_node_id": [] })),
        host(json!(PairedHost {
            hub_node_id: vec![2; 7],
            addresses: vec!["grpc://\u{1b}[2J:1".into(), String::new()],
            ..good_host()
        })),
        host(json!(PairedHost {
            registered: false,
            hub_node_id: Vec::new(),
            ..good_host()
        })),
    ];
    scripts.iter().map(Message::encode_to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_asks_for_too_much_work_is_refused_at_once() {
        let mut files = good().clone();
        let work = Script::decode(&seeds()[2][..]).unwrap().edits;
        assert_eq!(asked_work(files[SEED].as_ref().unwrap()), Some(WORK));
        work[0].make(&mut files);
        let seed = files[SEED].as_ref().unwrap();
        assert_eq!(asked_work(seed), Some(MAX_WORK + 1));
        let dir = scratch::dir();
        fs::write(dir.path().join(NAMES[SEED]), seed).unwrap();
        let error = Vault::open(dir.path(), &passphrase()).err();
        let is_reported = matches!(
            error,
            Some(VaultError::DamagedSeed("it asks for too much work"))
        );
        assert!(is_reported, "{error:?}");
    }
}
