#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};

use longhand_proto::Code;

use super::*;
use crate::birthday::Birthday;
use crate::error::PhoneError;
use crate::testing::{DiskFate, DiskFaults, DiskWrite, FaultyDirectory};
use std::sync::atomic::{AtomicUsize, Ordering};

const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                     abandon abandon about";

fn passphrase(text: &str) -> Passphrase {
    text.to_owned().into()
}

fn secrets() -> Secrets {
    Secrets::new(
        bitcoin::Network::Regtest,
        WORDS.to_owned().into(),
        Birthday::Height(7),
    )
    .unwrap()
}

/// A vault whose passphrase is "right"; the least work, so that tests do not wait.
fn new_vault() -> (tempfile::TempDir, Vault) {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), secrets(), &passphrase("right"), Some(1)).unwrap();
    (dir, vault)
}

fn open_on(disk: Arc<dyn DiskFaults>, dir: &tempfile::TempDir) -> Vault {
    let directory = FaultyDirectory::lock(dir.path(), disk).unwrap();
    let locked = directory.vault().unwrap();
    locked.open(&passphrase("right")).unwrap()
}

fn reopen(dir: &tempfile::TempDir) -> Result<(Vault, Ledger, Vec<Vec<u8>>), VaultError> {
    let vault = Vault::open(dir.path(), &passphrase("right"))?;
    let (ledger, records) = vault.ledger()?;
    let records = records.iter().map(|record| record.to_vec()).collect();
    Ok((vault, ledger, records))
}

fn records(texts: &[&str]) -> Records {
    texts
        .iter()
        .map(|text| Zeroizing::new(text.as_bytes().to_vec()))
        .collect()
}

/// A vault with the entries [a b] and [c], closed.
fn written_vault() -> tempfile::TempDir {
    let (dir, vault) = new_vault();
    let (mut ledger, none) = vault.ledger().unwrap();
    assert!(none.is_empty());
    ledger.append(&records(&["a", "b"])).unwrap();
    ledger.append(&records(&["c"])).unwrap();
    dir
}

fn expect_error(dir: &tempfile::TempDir) -> VaultError {
    reopen(dir).err().expect("the vault must not open")
}

/// The code under which an owner sees it.
fn code(error: VaultError) -> String {
    PhoneError::from(error).report().code
}

#[test]
fn what_was_written_is_read_back_in_order() {
    let dir = written_vault();
    let (vault, _, found) = reopen(&dir).unwrap();
    assert_eq!(found, [b"a", b"b", b"c"]);
    assert_eq!(*vault.secrets().mnemonic, WORDS);
    assert_eq!(vault.secrets().network, bitcoin::Network::Regtest);
    assert_eq!(vault.secrets().birthday, Birthday::Height(7));
}

#[test]
fn every_birthday_is_read_back() {
    for birthday in [
        Birthday::New,
        Birthday::Height(7),
        Birthday::UnixS(1_700_000_000),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets {
            birthday,
            ..secrets()
        };
        drop(Vault::create(dir.path(), secrets, &passphrase("right"), Some(1)).unwrap());
        let vault = Vault::open(dir.path(), &passphrase("right")).unwrap();
        assert_eq!(vault.secrets().birthday, birthday);
    }
}

#[test]
fn a_wrong_passphrase_is_named() {
    let (dir, vault) = new_vault();
    drop(vault);
    let error = Vault::open(dir.path(), &passphrase("wrong")).err().unwrap();
    assert!(matches!(error, VaultError::WrongPassphrase), "{error}");
    assert_eq!(code(error), Code::PassphraseWrong);
}

#[test]
fn an_empty_passphrase_makes_no_vault() {
    let dir = tempfile::tempdir().unwrap();
    let error = Vault::create(dir.path(), secrets(), &passphrase(""), Some(1))
        .err()
        .unwrap();
    assert!(matches!(error, VaultError::EmptyPassphrase), "{error}");
    assert_eq!(code(error), Code::PassphraseEmpty);
    assert!(!exists(dir.path()));
}

#[test]
fn a_vault_is_not_made_over_another() {
    let (dir, vault) = new_vault();
    drop(vault);
    let again = Vault::create(dir.path(), secrets(), &passphrase("right"), Some(1));
    assert_eq!(code(again.err().unwrap()), Code::PhoneExists);
}

#[test]
fn a_lost_seed_file_does_not_make_room_for_a_new_vault() {
    let dir = written_vault();
    std::fs::remove_file(dir.path().join(SEED_NAME)).unwrap();
    let again = Vault::create(dir.path(), secrets(), &passphrase("right"), Some(1));
    assert!(matches!(again.err().unwrap(), VaultError::Exists(_)));
}

#[test]
fn a_directory_without_a_vault_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(code(expect_error(&dir)), Code::PhoneMissing);
}

#[test]
fn changes_all_over_the_seed_file_are_noticed() {
    let (dir, vault) = new_vault();
    drop(vault);
    let path = dir.path().join(SEED_NAME);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(23) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        // A changed work factor may cost minutes before it is seen to be wrong; the MAC covers it.
        if String::from_utf8_lossy(&changed).lines().nth(1)
            != String::from_utf8_lossy(&whole).lines().nth(1)
        {
            continue;
        }
        std::fs::write(&path, changed).unwrap();
        assert!(
            Vault::open(dir.path(), &passphrase("right")).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn one_vault_is_open_once() {
    let (dir, vault) = new_vault();
    assert_eq!(code(expect_error(&dir)), Code::PhoneInUse);
    drop(vault);
    reopen(&dir).unwrap();
}

#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, vault) = new_vault();
    vault.set_host(&host()).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn nothing_secret_stands_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), secrets(), &passphrase("right"), Some(1)).unwrap();
    let (mut ledger, _) = vault.ledger().unwrap();
    ledger.append(&records(&["a very secret record"])).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("secret record") && !text.contains("abandon"));
    }
}

#[test]
fn an_unfinished_last_entry_is_cut_off_wherever_it_ends() {
    let dir = written_vault();
    let path = dir.path().join("ledger");
    let whole = std::fs::read(&path).unwrap();
    let head = std::fs::read(dir.path().join("ledger.head")).unwrap();
    let (vault, mut ledger, _) = reopen(&dir).unwrap();
    ledger.append(&records(&["never answered"])).unwrap();
    drop(ledger);
    let longer = std::fs::read(&path).unwrap();

    for end in whole.len()..longer.len() {
        std::fs::write(&path, &longer[..end]).unwrap();
        // The head is written after the entry: at the crash it did not count it yet.
        std::fs::write(dir.path().join("ledger.head"), &head).unwrap();
        let (_ledger, found) = vault.ledger().unwrap();
        assert_eq!(found, records(&["a", "b", "c"]), "cut at {end}");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {end}");
    }
}

#[test]
fn zeros_after_the_last_entry_are_an_unfinished_one() {
    let dir = written_vault();
    let path = dir.path().join("ledger");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [whole.as_slice(), &[0; 100]].concat()).unwrap();
    let (_vault, _ledger, found) = reopen(&dir).unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn every_flipped_bit_of_the_ledger_is_noticed() {
    let dir = written_vault();
    let path = dir.path().join("ledger");
    let whole = std::fs::read(&path).unwrap();
    let vault = Vault::open(dir.path(), &passphrase("right")).unwrap();
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            std::fs::write(&path, changed).unwrap();
            assert!(vault.ledger().is_err(), "bit {bit} of byte {at}");
        }
    }
    std::fs::write(&path, whole).unwrap();
    vault.ledger().unwrap();
}

#[test]
fn an_older_ledger_is_refused() {
    let dir = written_vault();
    let path = dir.path().join("ledger");
    let old = std::fs::read(&path).unwrap();
    let (vault, mut ledger, _) = reopen(&dir).unwrap();
    ledger.append(&records(&["d"])).unwrap();
    drop((vault, ledger));
    let new = std::fs::read(&path).unwrap();

    std::fs::write(&path, old).unwrap();
    let error = expect_error(&dir);
    assert!(matches!(
        error,
        VaultError::Older {
            found: 2,
            expected: 3
        }
    ));
    assert_eq!(code(error), Code::LedgerOld);
    std::fs::write(&path, new).unwrap();
    assert_eq!(reopen(&dir).unwrap().2.len(), 4);
}

/// A header that counts earlier entries was once believed, and the ledger was empty.
#[test]
fn a_header_alone_does_not_stand_for_the_entries_before_it() {
    for claimed in [1, 2, 3, u64::MAX] {
        let dir = written_vault();
        std::fs::write(dir.path().join("ledger"), ledger::header(claimed)).unwrap();
        let error = expect_error(&dir);
        assert!(
            matches!(error, VaultError::Damaged { entry } if entry == claimed),
            "{error}"
        );
        assert_eq!(code(error), Code::LedgerDamaged);
    }
}

#[test]
fn entries_cut_off_at_their_border_are_missed() {
    let dir = written_vault();
    std::fs::write(dir.path().join("ledger"), super::ledger::header(0)).unwrap();
    assert!(matches!(
        expect_error(&dir),
        VaultError::Older {
            found: 0,
            expected: 2
        }
    ));
}

#[test]
fn without_its_head_a_ledger_is_not_trusted() {
    let dir = written_vault();
    std::fs::remove_file(dir.path().join("ledger.head")).unwrap();
    let error = expect_error(&dir);
    assert!(matches!(error, VaultError::NoHead), "{error}");
    assert_eq!(code(error), Code::LedgerMissing);
}

#[test]
fn one_torn_slot_of_the_head_leaves_the_other() {
    let dir = written_vault();
    let path = dir.path().join("ledger.head");
    let whole = std::fs::read(&path).unwrap();
    for slot in [0, 64] {
        let mut torn = whole.clone();
        torn[slot..slot + 20].fill(0);
        std::fs::write(&path, torn).unwrap();
        assert_eq!(reopen(&dir).unwrap().2.len(), 3, "slot at {slot}");
    }
}

#[test]
fn a_ledger_of_a_newer_format_is_named() {
    let dir = written_vault();
    let path = dir.path().join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[7] = 9;
    std::fs::write(&path, bytes).unwrap();
    let error = expect_error(&dir);
    assert!(matches!(
        error,
        VaultError::NewerFormat { found: 9, known: 1 }
    ));
    assert_eq!(code(error), Code::PhoneNewer);
}

#[test]
fn a_compacted_ledger_holds_the_snapshot_and_goes_on() {
    let dir = written_vault();
    let old = std::fs::read(dir.path().join("ledger")).unwrap();
    let (vault, mut ledger, _) = reopen(&dir).unwrap();
    ledger.compact(&records(&["abc"])).unwrap();
    ledger.append(&records(&["d"])).unwrap();
    drop((vault, ledger));
    let (vault, ledger, found) = reopen(&dir).unwrap();
    assert_eq!(found, [b"abc".to_vec(), b"d".to_vec()]);
    drop((vault, ledger));

    std::fs::write(dir.path().join("ledger"), old).unwrap();
    assert!(matches!(
        expect_error(&dir),
        VaultError::Older {
            found: 2,
            expected: 4
        }
    ));
}

/// The first append after every start once wrote the whole ledger anew, when its snapshot alone was above the threshold.
#[test]
fn a_large_snapshot_is_not_written_anew_after_each_start() {
    let (dir, vault) = new_vault();
    let (mut ledger, _) = vault.ledger().unwrap();
    ledger.append(&records(&["a"])).unwrap();
    let large = "s".repeat(1 << 20);
    ledger.compact(&records(&[&large])).unwrap();
    ledger.append(&records(&["b"])).unwrap();
    drop((vault, ledger));

    let (_vault, mut ledger, _) = reopen(&dir).unwrap();
    ledger.append(&records(&["c"])).unwrap();
    assert!(!ledger.wants_compaction());
    // Once a snapshot takes much less room than the history, it is worth it again.
    for _ in 0..3 {
        assert!(!ledger.wants_compaction());
        ledger.append(&records(&[&large])).unwrap();
    }
    assert!(ledger.wants_compaction());
}

#[test]
fn a_crash_before_a_compacted_ledger_is_in_place_leaves_the_old_one() {
    let dir = written_vault();
    std::fs::write(dir.path().join("ledger.new"), b"half of it").unwrap();
    assert_eq!(reopen(&dir).unwrap().2.len(), 3);
    assert!(!dir.path().join("ledger.new").exists());
}

/// A disk with space for some bytes more. Keeps the bytes that were written, as a real one does.
struct FullDisk {
    room: usize,
    asked: Mutex<Vec<DiskWrite>>,
}

impl DiskFaults for FullDisk {
    fn before(&self, write: DiskWrite, bytes: usize) -> DiskFate {
        self.asked.lock().unwrap().push(write);
        if bytes <= self.room {
            return DiskFate::GoOn;
        }
        DiskFate::Fail {
            error: io::ErrorKind::StorageFull.into(),
            written: self.room,
        }
    }
    fn power_gone(&self) {
        unreachable!("the power is never cut");
    }
}

#[test]
fn a_full_disk_leaves_the_ledger_as_it_was() {
    let dir = written_vault();
    let path = dir.path().join("ledger");
    let before = std::fs::read(&path).unwrap();
    let disk = Arc::new(FullDisk {
        room: 11,
        asked: Mutex::default(),
    });
    let vault = open_on(disk.clone(), &dir);
    let (mut ledger, _) = vault.ledger().unwrap();

    let error = ledger.append(&records(&["does not fit"])).unwrap_err();
    assert!(matches!(error, VaultError::Full), "{error}");
    assert_eq!(
        *disk.asked.lock().unwrap(),
        [DiskWrite::LedgerAppend, DiskWrite::LedgerCut]
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);

    // It accepts nothing more until it was read again.
    let error = ledger.append(&records(&["d"])).unwrap_err();
    assert!(matches!(error, VaultError::NeedsReopening), "{error}");
    drop((ledger, vault));
    let (vault, mut ledger, found) = reopen(&dir).unwrap();
    assert_eq!(found.len(), 3);
    ledger.append(&records(&["d"])).unwrap();
    drop((ledger, vault));
    assert_eq!(reopen(&dir).unwrap().2.len(), 4);
}

fn host() -> PairedHost {
    PairedHost {
        key: [3; 32],
        addresses: vec!["grpc://127.0.0.1:1".into()],
        registered: false,
        hub_node_id: Vec::new(),
        was_registered: false,
        discovery: None,
    }
}

#[test]
fn the_paired_host_is_remembered_and_protected() {
    let (dir, vault) = new_vault();
    assert_eq!(vault.host().unwrap(), None);
    vault.set_host(&host()).unwrap();
    assert_eq!(vault.host().unwrap(), Some(host()));

    let path = dir.path().join(HOST_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    drop(vault);
    let vault = Vault::open(dir.path(), &passphrase("right")).unwrap();
    assert_eq!(code(vault.host().unwrap_err()), Code::PhoneDamaged);
    vault.forget_host().unwrap();
    assert_eq!(vault.host().unwrap(), None);
}

#[test]
fn a_paired_host_of_an_earlier_version_is_read() {
    let mut old = serde_json::to_value(host()).unwrap();
    for later in ["was_registered", "discovery"] {
        old.as_object_mut().unwrap().remove(later);
    }
    assert_eq!(serde_json::from_value::<PairedHost>(old).unwrap(), host());
}

/// The power goes at the first write of one kind.
struct PowerCut {
    at: DiskWrite,
    fate: fn() -> DiskFate,
    asked: AtomicUsize,
    cuts: AtomicUsize,
}

impl DiskFaults for PowerCut {
    fn before(&self, write: DiskWrite, _: usize) -> DiskFate {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if write == self.at {
            (self.fate)()
        } else {
            DiskFate::GoOn
        }
    }
    fn power_gone(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }
}

const BEFORE: fn() -> DiskFate = || DiskFate::PowerGoneBefore;
const TORN: fn() -> DiskFate = || DiskFate::PowerGoneTorn { written: 13 };
const AFTER: fn() -> DiskFate = || DiskFate::PowerGoneAfter;

fn new_host() -> PairedHost {
    PairedHost {
        registered: true,
        ..host()
    }
}

/// One write of each kind, on a vault with three records and a host.
fn do_write(write: DiskWrite, vault: &Vault, dir: &tempfile::TempDir) -> Result<(), VaultError> {
    match write {
        DiskWrite::LedgerAppend | DiskWrite::HeadRaise => {
            vault.ledger()?.0.append(&records(&["d"]))
        }
        DiskWrite::LedgerCompact => vault.ledger()?.0.compact(&records(&["abc"])),
        DiskWrite::LedgerCut => {
            let path = dir.path().join("ledger");
            let half = [std::fs::read(&path).unwrap(), vec![0; 20]].concat();
            std::fs::write(&path, half).unwrap();
            vault.ledger().map(drop)
        }
        DiskWrite::LedgerSync => {
            let head = dir.path().join("ledger.head");
            let before = std::fs::read(&head).unwrap();
            vault.ledger()?.0.append(&records(&["d"]))?;
            std::fs::write(&head, before).unwrap();
            vault.ledger().map(drop)
        }
        DiskWrite::Host => vault.set_host(&new_host()),
        DiskWrite::HostForget => vault.forget_host(),
    }
}

/// Counts a vault's writes by kind, in their order, and fails at one of them.
struct Listed {
    writes: Mutex<Vec<DiskWrite>>,
    fails_at: Option<DiskWrite>,
}

impl DiskFaults for Listed {
    fn before(&self, write: DiskWrite, _: usize) -> DiskFate {
        self.writes.lock().unwrap().push(write);
        match self.fails_at == Some(write) {
            true => DiskFate::Fail {
                error: std::io::Error::other("a failed disk"),
                written: 0,
            },
            false => DiskFate::GoOn,
        }
    }
    fn power_gone(&self) {}
}

/// A process was killed when its last entry was in memory, and a power cut may still take it.
#[test]
fn what_a_killed_process_left_is_on_the_disk_before_the_head_counts_it() {
    use DiskWrite::{HeadRaise, LedgerSync};
    let dir = written_vault();
    let ledger = dir.path().join("ledger");
    let durable = std::fs::read(&ledger).unwrap();
    let head = std::fs::read(dir.path().join("ledger.head")).unwrap();
    let (vault, mut open, _) = reopen(&dir).unwrap();
    open.append(&records(&["d"])).unwrap();
    std::fs::write(dir.path().join("ledger.head"), head).unwrap();
    drop((vault, open));

    let open_with = |fails_at| {
        let listed = Arc::new(Listed {
            writes: Mutex::default(),
            fails_at,
        });
        let vault = open_on(listed.clone(), &dir);
        let opened = vault.ledger().map(drop);
        (opened, listed.writes.lock().unwrap().clone())
    };
    // The disk fails, and then the power does.
    let (failed, writes) = open_with(Some(LedgerSync));
    assert_eq!(code(failed.unwrap_err()), Code::PhoneIo);
    assert_eq!(writes, [LedgerSync]);
    let whole = std::fs::read(&ledger).unwrap();
    std::fs::write(&ledger, durable).unwrap();
    let (opened, _) = open_with(None);
    opened.expect("it is what was durable, and no old copy");

    std::fs::write(&ledger, whole).unwrap();
    let (opened, writes) = open_with(None);
    opened.unwrap();
    assert_eq!(writes, [LedgerSync, HeadRaise]);
    // All that is counted is durable.
    let (opened, writes) = open_with(None);
    opened.unwrap();
    assert_eq!(writes, []);
}

#[test]
fn power_that_goes_at_a_write_leaves_the_old_or_the_new_and_writes_nothing_more() {
    use DiskWrite::{
        HeadRaise, Host, HostForget, LedgerAppend, LedgerCompact, LedgerCut, LedgerSync,
    };
    let old: &[&str] = &["a", "b", "c"];
    let with_d: &[&str] = &["a", "b", "c", "d"];
    let snapshot: &[&str] = &["abc"];
    let cases = [
        (LedgerAppend, [old, old, with_d]),
        (HeadRaise, [with_d; 3]),
        (LedgerCompact, [old, old, snapshot]),
        (LedgerCut, [old; 3]),
        // Written whole, but not durable before.
        (LedgerSync, [with_d; 3]),
        (Host, [old; 3]),
        (HostForget, [old; 3]),
    ];
    for (at, expected) in cases {
        for (fate, expected) in [BEFORE, TORN, AFTER].into_iter().zip(expected) {
            let story = format!("{at:?}, {:?}", fate());
            let dir = written_vault();
            let vault = Vault::open(dir.path(), &passphrase("right")).unwrap();
            vault.set_host(&host()).unwrap();
            let cut = Arc::new(PowerCut {
                at,
                fate,
                asked: AtomicUsize::new(0),
                cuts: AtomicUsize::new(0),
            });
            drop(vault);
            let vault = open_on(cut.clone(), &dir);
            let error = do_write(at, &vault, &dir).unwrap_err();
            assert!(matches!(error, VaultError::Io(_)), "{story}: {error}");
            assert_eq!(cut.cuts.load(Ordering::SeqCst), 1, "{story}");

            // Without power from here on, for all files of the vault.
            let asked = cut.asked.load(Ordering::SeqCst);
            let files = || {
                ["ledger", "ledger.head", HOST_NAME]
                    .map(|name| std::fs::read(dir.path().join(name)).ok())
            };
            let left = files();
            for write in [LedgerAppend, LedgerCompact, Host, HostForget] {
                do_write(write, &vault, &dir).unwrap_err();
            }
            assert_eq!(files(), left, "{story}");
            assert_eq!(cut.asked.load(Ordering::SeqCst), asked, "{story}");
            drop(vault);

            let (vault, _ledger, found) = reopen(&dir).unwrap();
            let expected: Vec<_> = expected.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(found, expected, "{story}");
            let is_after = matches!(fate(), DiskFate::PowerGoneAfter);
            let host = match at {
                Host if is_after => Some(new_host()),
                // Forgetting has no bytes that could be torn: it is done or not.
                HostForget if is_after => None,
                _ => Some(host()),
            };
            assert_eq!(vault.host().unwrap(), host, "{story}");
        }
    }
}

#[test]
fn the_least_work_is_the_least_there_is() {
    let dir = written_vault();
    let sealed =
        String::from_utf8_lossy(&std::fs::read(dir.path().join(SEED_NAME)).unwrap()).into_owned();
    // The work factor is in the file: scrypt with N = 2.
    let work = sealed.lines().nth(1).unwrap();
    assert!(
        work.starts_with("-> scrypt ") && work.ends_with(" 1"),
        "{work}"
    );
}
