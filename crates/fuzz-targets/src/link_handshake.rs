//! The handshake of a link: records to a host from any initiator, and to a phone from any responder.
//!
//! An attacker between the two may change records. Then they have no session.

use longhand_link::core::handshake::{Established, Initiator, Responder};
use longhand_link::{CloseCode, Instance, LinkError, LinkKeypair, PairingSecret};
use longhand_proto::Code;
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(oneof = "What", tags = "1, 2, 3, 4, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    /// The first record to a host, from any initiator.
    #[prost(bytes, tag = "1")]
    First(Vec<u8>),
    /// The first record to a phone, from any responder.
    #[prost(message, tag = "2")]
    Reply(Reply),
    /// A pairing, with changes on the way.
    #[prost(message, tag = "3")]
    Pair(Changes),
    /// An attach, with changes on the way.
    #[prost(message, tag = "4")]
    Attach(Changes),
    /// The host refuses.
    #[prost(message, tag = "5")]
    Refuse(Refuse),
}

#[derive(Clone, PartialEq, Message)]
struct Reply {
    #[prost(bool, tag = "1")]
    pairing: bool,
    #[prost(bytes = "vec", tag = "2")]
    record: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Changes {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<ChangeOf>,
}

/// The byte at `at` of a record is XORed; or the record ends there; or a byte is added.
#[derive(Clone, PartialEq, Message)]
struct ChangeOf {
    #[prost(uint32, tag = "1")]
    record: u32,
    #[prost(uint32, tag = "2")]
    at: u32,
    #[prost(uint32, tag = "3")]
    xor: u32,
    #[prost(bool, tag = "4")]
    cut: bool,
    #[prost(bool, tag = "5")]
    longer: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Refuse {
    #[prost(bool, tag = "1")]
    pairing: bool,
    #[prost(string, tag = "2")]
    code: String,
    #[prost(string, tag = "3")]
    message: String,
}

const PHONE: Instance = Instance([0xaa; 16]);

fn phone_key() -> LinkKeypair {
    LinkKeypair::from_bytes([1; 32])
}

fn host_key() -> LinkKeypair {
    LinkKeypair::from_bytes([2; 32])
}

fn secret() -> PairingSecret {
    PairingSecret::from_bytes([3; 16])
}

fn begin(pairing: bool) -> (Initiator, Vec<u8>) {
    let host = host_key().public();
    let begun = match pairing {
        true => Initiator::pair(&phone_key(), &host, &secret(), PHONE),
        false => Initiator::attach(&phone_key(), &host, PHONE),
    };
    begun.expect("a handshake can be begun")
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(Script { what: Some(what) }) = Script::decode(data) else {
        return;
    };
    match what {
        What::First(record) => first(&record),
        What::Reply(Reply { pairing, record }) => {
            let answered = begin(pairing).0.receive(&record);
            assert!(answered.is_err(), "an answer was made without the host");
        }
        What::Pair(changes) => pair(&changes),
        What::Attach(changes) => attach(&changes),
        What::Refuse(refuse) => refused(&refuse),
    }
}

fn first(record: &[u8]) {
    match Responder::receive(&host_key(), record) {
        Ok(Responder::Pair(pairing)) => {
            let _ = pairing.id();
            let (awaiting, _) = pairing.welcome(&secret()).expect("a code is welcome");
            assert!(awaiting.receive(record).is_err(), "a code is no proof");
        }
        Ok(Responder::Attach(attach)) => {
            // A replay may come this far; it cannot read the answer.
            assert_eq!(*attach.phone(), phone_key().public());
            attach.welcome().expect("a phone is welcome");
        }
        Err(rejected) => assert!((1..=3).contains(&rejected.reply.len())),
    }
}

impl Changes {
    /// The record as it arrives, and whether that is another.
    fn on(&self, number: u32, record: Vec<u8>) -> (Vec<u8>, bool) {
        let mut arrives = record.clone();
        for change in self.changes.iter().filter(|c| c.record % 3 == number) {
            let at = change.at as usize;
            if change.cut {
                arrives.truncate(at);
            } else if change.longer {
                arrives.push(change.xor as u8);
            } else if let Some(byte) = arrives.get_mut(at) {
                *byte ^= change.xor as u8;
            }
        }
        let changed = arrives != record;
        (arrives, changed)
    }
}

/// Both have a session, or the host has none.
fn pair(changes: &Changes) {
    let (phone, record) = begin(true);
    let (record, mut changed) = changes.on(0, record);
    let ended = (|| {
        let Ok(Responder::Pair(pairing)) = Responder::receive(&host_key(), &record) else {
            return None;
        };
        let (awaiting, answer) = pairing.welcome(&secret()).ok()?;
        let (answer, other) = changes.on(1, answer);
        changed |= other;
        let (phone, last) = phone.receive(&answer).ok()?;
        assert!(!changed, "the phone took a pairing that was changed");
        let (last, other) = changes.on(2, last.expect("a pairing has three records"));
        changed |= other;
        let host = awaiting.receive(&last).ok()?;
        Some((phone, host))
    })();
    assert_eq!(ended.is_some(), !changed);
    if let Some((phone, host)) = ended {
        met(phone, host);
    }
}

fn attach(changes: &Changes) {
    let (phone, record) = begin(false);
    let (record, mut changed) = changes.on(0, record);
    let ended = (|| {
        let Ok(Responder::Attach(attach)) = Responder::receive(&host_key(), &record) else {
            return None;
        };
        assert!(!changed, "the host took a record that was changed");
        let (host, answer) = attach.welcome().ok()?;
        let (answer, other) = changes.on(1, answer);
        changed |= other;
        let (phone, last) = phone.receive(&answer).ok()?;
        assert!(last.is_none());
        Some((phone, host))
    })();
    assert_eq!(ended.is_some(), !changed);
    if let Some((phone, host)) = ended {
        met(phone, host);
    }
}

fn met(mut phone: Established, mut host: Established) {
    assert_eq!(phone.remote, host_key().public());
    assert_eq!(host.remote, phone_key().public());
    assert_eq!(host.instance, Some(PHONE));
    for (from, to) in [(true, b"there"), (false, b"again")] {
        let (from, to_end) = match from {
            true => (&mut phone, &mut host),
            false => (&mut host, &mut phone),
        };
        let records = from.transport.seal(to).expect("a frame is sealed");
        let opened = to_end.transport.open(&records[0], 100);
        assert_eq!(opened, Ok(Some(to.to_vec())));
    }
}

fn refused(refuse: &Refuse) {
    let (phone, record) = begin(refuse.pairing);
    let code = CloseCode::from_name(&refuse.code);
    let reply = match Responder::receive(&host_key(), &record) {
        Ok(Responder::Pair(pairing)) => pairing.refuse(code, &refuse.message),
        Ok(Responder::Attach(attach)) => attach.refuse(code, &refuse.message),
        Err(rejected) => panic!("{}", rejected.error),
    };
    // A refusal that does not fit into a handshake record is not sent.
    let Ok(reply) = reply else { return };
    match phone.receive(&reply) {
        Err(LinkError::Closed(reason)) => {
            let texts = [reason.code.as_str(), &reason.message];
            let steers = |text: &str| text.chars().any(char::is_control);
            assert!(reason.by_peer && !texts.into_iter().any(steers));
            assert!(reason.message.chars().count() <= 200);
        }
        // An empty refusal has no reason.
        Err(_) => {}
        Ok(_) => assert!(
            refuse.message.is_empty() && refuse.code.is_empty(),
            "a refusal was taken for a welcome"
        ),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let change = |record, at, xor, cut, longer| Changes {
        changes: vec![ChangeOf {
            record,
            at,
            xor,
            cut,
            longer,
        }],
    };
    let genuine = |pairing| {
        let (_, first) = begin(pairing);
        let reply = match Responder::receive(&host_key(), &first) {
            Ok(Responder::Pair(p)) => p.welcome(&secret()).unwrap().1,
            Ok(Responder::Attach(a)) => a.welcome().unwrap().1,
            Err(_) => panic!(),
        };
        (first, reply)
    };
    let mut whats = Vec::new();
    for pairing in [true, false] {
        let (first, record) = genuine(pairing);
        whats.push(What::First(first));
        whats.push(What::Reply(Reply { pairing, record }));
        whats.push(What::Refuse(Refuse {
            pairing,
            code: Code::UnknownOwner.into(),
            message: "this phone is not paired".into(),
        }));
    }
    for changes in [
        Changes::default(),
        change(0, 40, 1, false, false),
        change(1, 60, 0x80, false, false),
        change(2, 30, 1, false, false),
        change(1, 20, 0, true, false),
        change(0, 0, 3, false, true),
    ] {
        whats.push(What::Pair(changes.clone()));
        whats.push(What::Attach(changes));
    }
    let encode = |what| Script { what: Some(what) }.encode_to_vec();
    whats.into_iter().map(encode).collect()
}
