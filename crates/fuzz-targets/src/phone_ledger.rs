//! The phone's ledger on its disk: files that were cut, changed and put together anew without the key, and entries
//! that were made with it.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use longhand_phone::vault::fuzzing::LedgerFiles;
use prost::{Message, Oneof};

use crate::scratch::dir;

#[derive(Clone, PartialEq, Message)]
struct Script {
    /// Entries that were written.
    #[prost(uint32, tag = "1")]
    entries: u32,
    /// The ledger was compacted before the last one.
    #[prost(bool, tag = "2")]
    compacted: bool,
    #[prost(message, repeated, tag = "3")]
    edits: Vec<Edit>,
}

#[derive(Clone, PartialEq, Message)]
struct Edit {
    /// `ledger.head` rather than `ledger`.
    #[prost(bool, tag = "1")]
    head: bool,
    /// Where, in the file as it is then.
    #[prost(uint32, tag = "2")]
    at: u32,
    #[prost(oneof = "What", tags = "3, 4, 5, 6, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(uint32, tag = "3")]
    Xor(u32),
    #[prost(bytes, tag = "4")]
    Insert(Vec<u8>),
    #[prost(uint32, tag = "5")]
    Remove(u32),
    #[prost(bytes, tag = "6")]
    Overwrite(Vec<u8>),
    /// An entry with the key.
    #[prost(message, tag = "7")]
    Sealed(Sealed),
}

#[derive(Clone, PartialEq, Message)]
struct Sealed {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(uint64, tag = "2")]
    number: u64,
    #[prost(bytes = "vec", tag = "3")]
    inside: Vec<u8>,
}

const KEY: [u8; 32] = [5; 32];
const ENTRIES: u32 = 4;
const EDITS: usize = 16;

/// The two files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    ledger: Vec<u8>,
    head: Vec<u8>,
}

/// A ledger as a phone wrote it, and the records in it.
struct Written {
    files: Files,
    records: Vec<Vec<u8>>,
}

impl Files {
    fn read(dir: &Path) -> Files {
        let read = |name| fs::read(dir.join(name)).expect("the file is there");
        Files {
            ledger: read("ledger"),
            head: read("ledger.head"),
        }
    }

    fn write(&self, dir: &Path) {
        fs::write(dir.join("ledger"), &self.ledger).expect("there is room");
        fs::write(dir.join("ledger.head"), &self.head).expect("there is room");
    }
}

/// Every ledger that a script can begin with, by entries, plain and compacted.
fn written() -> &'static [[Written; 2]] {
    static WRITTEN: OnceLock<Vec<[Written; 2]>> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        (0..=ENTRIES)
            .map(|entries| [write(entries, false), write(entries, true)])
            .collect()
    })
}

fn write(entries: u32, compacted: bool) -> Written {
    let dir = dir();
    let files = LedgerFiles::new(dir.path(), &KEY);
    files.create().unwrap();
    let mut ledger = files.open().unwrap();
    for number in 0..entries {
        if compacted && number + 1 == entries {
            ledger.compact(&[b"all before"]).unwrap();
        }
        let record = format!("record {number}");
        ledger.append(&[record.as_bytes(), b""]).unwrap();
    }
    drop(ledger);
    let records = files.open().unwrap().records;
    let files = Files::read(dir.path());
    Written { files, records }
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let kinds = &written()[(script.entries % (ENTRIES + 1)) as usize];
    let before = &kinds[usize::from(script.compacted)];
    let mut files = before.files.clone();
    let mut with_key = false;
    for edit in script.edits.into_iter().take(EDITS) {
        with_key |= matches!(edit.what, Some(What::Sealed(_)));
        edit.make(&mut files);
    }
    let dir = dir();
    files.write(dir.path());
    let ledger_files = LedgerFiles::new(dir.path(), &KEY);
    let Ok(mut ledger) = ledger_files.open() else {
        assert!(files != before.files, "a good ledger is refused");
        return;
    };
    let found = std::mem::take(&mut ledger.records);
    if !with_key {
        assert!(before.records.starts_with(&found), "records never written");
        if files.head == before.files.head {
            assert_eq!(found, before.records, "records are lost without an error");
        }
    }
    if ledger.entries() < u64::MAX / 2 {
        ledger.append(&[b"one more"]).expect("it can be written to");
    }
    let appended = ledger.entries() < u64::MAX / 2;
    drop(ledger);
    let again = ledger_files.open().expect("it can be opened again");
    let more = if appended {
        &[b"one more".to_vec()][..]
    } else {
        &[]
    };
    assert_eq!(again.records, [&found, more].concat());
}

impl Edit {
    fn make(self, files: &mut Files) {
        let file = match self.head {
            true => &mut files.head,
            false => &mut files.ledger,
        };
        let at = (self.at as usize).min(file.len());
        let end = |length: usize| at.saturating_add(length).min(file.len());
        match self.what {
            None => {}
            Some(What::Xor(byte)) => {
                if let Some(there) = file.get_mut(at) {
                    *there ^= byte as u8;
                }
            }
            Some(What::Insert(bytes)) => drop(file.splice(at..at, bytes)),
            Some(What::Remove(length)) => drop(file.drain(at..end(length as usize))),
            Some(What::Overwrite(bytes)) => drop(file.splice(at..end(bytes.len()), bytes)),
            Some(What::Sealed(entry)) => {
                let anywhere = LedgerFiles::new(Path::new(""), &KEY);
                let sealed = anywhere.seal(entry.first, entry.number, &entry.inside);
                file.splice(at..at, sealed.expect("an entry can be sealed"));
            }
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let edit = |at, what| Edit {
        at,
        what: Some(what),
        head: false,
    };
    let in_head = |at, what| Edit {
        head: true,
        ..edit(at, what)
    };
    let end = u32::MAX;
    let header = |first: u64| [&b"LHLEDG\0\x01"[..], &first.to_be_bytes()].concat();
    let sealed = |first, number, inside: &[u8]| {
        What::Sealed(Sealed {
            first,
            number,
            inside: inside.to_vec(),
        })
    };
    let edits = [
        vec![],
        vec![edit(end, What::Insert(vec![0; 9]))],
        vec![edit(
            end,
            What::Insert(vec![0, 0, 0, 64, 255, 255, 255, 191, 1]),
        )],
        vec![edit(100, What::Remove(1_000))],
        vec![
            edit(0, What::Remove(1_000)),
            edit(0, What::Insert(header(3))),
        ],
        vec![edit(0, What::Overwrite(header(1)))],
        vec![edit(20, What::Xor(1))],
        vec![in_head(3, What::Xor(1))],
        vec![in_head(0, What::Remove(64)), edit(120, What::Remove(1_000))],
        vec![edit(end, sealed(0, 3, b"\0\0\0\x02hi"))],
        vec![edit(end, sealed(0, 3, b"\0\0\0\x09hi"))],
        vec![
            edit(0, What::Remove(1_000)),
            edit(0, What::Insert(header(u64::MAX))),
            edit(end, sealed(u64::MAX, u64::MAX, b"")),
        ],
    ];
    let mut scripts = Vec::new();
    for edits in edits {
        for compacted in [false, true] {
            let script = Script {
                entries: 3,
                compacted,
                edits: edits.clone(),
            };
            scripts.push(script.encode_to_vec());
        }
    }
    scripts.push(Vec::new());
    scripts
}
