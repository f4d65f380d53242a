//! The mailbox of Lightning Node Connect: requests as protobuf and as JSON, of clients that follow no rule.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use longhand_link::carrier::admission::SourceNetwork;
use longhand_mailbox::hashmail::core::{BoxId, Core, EndId, Pace, Role, Taken};
use longhand_mailbox::hashmail::limits::HashmailLimits;
use longhand_mailbox::hashmail::refusal::Refusal;
use longhand_mailbox::hashmail::{check_auth, check_desc, given_id, json};
use longhand_proto::hashmail::{CipherBox, CipherBoxAuth, CipherBoxDesc, LndAuth, cipher_box_auth};
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    /// One of three networks, or none.
    #[prost(uint32, tag = "1")]
    network: u32,
    /// One of the ends in use.
    #[prost(uint32, tag = "2")]
    end: u32,
    #[prost(
        oneof = "What",
        tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16"
    )]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    #[prost(message, tag = "3")]
    Create(CipherBoxAuth),
    #[prost(bytes, tag = "4")]
    CreateJson(Vec<u8>),
    #[prost(message, tag = "5")]
    Delete(CipherBoxAuth),
    #[prost(bytes, tag = "6")]
    DeleteJson(Vec<u8>),
    #[prost(message, tag = "7")]
    Read(CipherBoxDesc),
    #[prost(bytes, tag = "8")]
    ReadJson(Vec<u8>),
    /// The first message of a writer.
    #[prost(message, tag = "9")]
    Write(CipherBox),
    #[prost(bytes, tag = "10")]
    WriteJson(Vec<u8>),
    /// A message of so many bytes.
    #[prost(uint32, tag = "11")]
    Put(u32),
    #[prost(bool, tag = "12")]
    Take(bool),
    #[prost(bool, tag = "13")]
    Leave(bool),
    #[prost(bool, tag = "14")]
    TakeOver(bool),
    #[prost(uint32, tag = "15")]
    WaitMs(u32),
    /// The id in a query.
    #[prost(string, tag = "16")]
    DeleteQuery(String),
}

const MAX_ENDS: usize = 12;

fn limits() -> HashmailLimits {
    HashmailLimits {
        boxes: 4,
        boxes_per_network: 2,
        message_bytes: 100_000,
        queue_messages: 4,
        queue_bytes: 150_000,
        total_bytes: 400_000,
        bytes_per_network: 250_000,
        bytes_burst: 500_000,
        ..HashmailLimits::default()
    }
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let mut world = World::new();
    for step in script.steps {
        world.play(step);
        world.check();
    }
    world.leave();
}

struct World {
    core: Core,
    now: Duration,
    ends: Vec<(EndId, BoxId)>,
    /// Of each message, which has it at its beginning.
    sent: u64,
    /// The last one that was read of each box.
    read: HashMap<BoxId, u64>,
}

impl World {
    fn new() -> World {
        World {
            core: Core::new(limits()),
            now: Duration::ZERO,
            ends: Vec::new(),
            sent: 0,
            read: HashMap::new(),
        }
    }

    fn play(&mut self, step: Step) {
        let by = match step.network % 4 {
            3 => None,
            number => Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, number as u8)).into()),
        };
        let end = match self.ends.len() {
            0 => None,
            some => self.ends.get(step.end as usize % some).copied(),
        };
        // A refusal is an answer as any other.
        let _ = match step.what {
            Some(What::Create(auth)) => self.create(check_auth(&auth), by),
            Some(What::CreateJson(text)) => self.create(read_auth(&text), by),
            Some(What::Delete(auth)) => self.delete(check_auth(&auth)),
            Some(What::DeleteJson(text)) => self.delete(read_auth(&text)),
            Some(What::DeleteQuery(text)) => self.delete(read_query(text)),
            Some(What::Read(desc)) => self.attach(BoxId::new(&desc.stream_id), Role::Reader, by),
            Some(What::ReadJson(text)) => json::read_desc(&text)
                .and_then(|desc| self.attach(BoxId::new(&desc.stream_id), Role::Reader, by)),
            Some(What::Write(message)) => self.write(&message, by),
            Some(What::WriteJson(text)) => {
                read_message(&text).and_then(|message| self.write(&message, by))
            }
            Some(What::WaitMs(time)) => {
                self.pass(Duration::from_millis(time.into()));
                Ok(())
            }
            Some(what) => {
                if let Some((end, id)) = end {
                    self.use_end(end, id, &what);
                }
                Ok(())
            }
            None => Ok(()),
        };
    }

    fn use_end(&mut self, end: EndId, id: BoxId, what: &What) {
        match what {
            What::Put(bytes) => self.put(end, *bytes as usize % 120_000),
            What::Take(_) => self.take(end, id),
            What::TakeOver(_) => self.core.take_over(end, self.now),
            What::Leave(_) => {
                self.core.leave(end, self.now);
                self.ends.retain(|(other, _)| *other != end);
            }
            _ => {}
        }
    }

    fn create(
        &mut self,
        id: Result<BoxId, Refusal>,
        by: Option<SourceNetwork>,
    ) -> Result<(), Refusal> {
        let id = id?;
        self.core.create(id, by, self.now)?;
        self.read.remove(&id);
        assert_eq!(self.core.create(id, by, self.now), Err(Refusal::Exists));
        Ok(())
    }

    fn delete(&mut self, id: Result<BoxId, Refusal>) -> Result<(), Refusal> {
        let id = id?;
        self.core.delete(id)?;
        assert_eq!(self.core.delete(id), Err(Refusal::NotFound));
        Ok(())
    }

    fn attach(&mut self, id: BoxId, role: Role, by: Option<SourceNetwork>) -> Result<(), Refusal> {
        if self.ends.len() < MAX_ENDS {
            let end = self.core.attach(id, role, by, self.now)?;
            self.ends.push((end, id));
        }
        Ok(())
    }

    fn write(&mut self, message: &CipherBox, by: Option<SourceNetwork>) -> Result<(), Refusal> {
        let id = check_desc(message.desc.as_ref())?;
        self.attach(id, Role::Writer, by)?;
        if let Some((end, _)) = self.ends.last().copied() {
            self.put(end, message.msg.len());
        }
        Ok(())
    }

    /// At the pace that the mailbox allows.
    fn put(&mut self, end: EndId, bytes: usize) {
        if let Pace::At(time) = self.core.pace(end, self.now) {
            self.pass(time.saturating_sub(self.now));
        }
        if self.core.pace(end, self.now) != Pace::Now {
            return;
        }
        self.sent += 1;
        let mut payload = self.sent.to_be_bytes().to_vec();
        payload.resize(8 + bytes, 0);
        // Refused when it is too large, or when there is no room.
        let _ = self.core.put(end, payload, self.now);
    }

    /// Messages are whole and in their order.
    fn take(&mut self, end: EndId, id: BoxId) {
        let Taken::Message(message) = self.core.take(end, self.now) else {
            return;
        };
        let number = u64::from_be_bytes(*message.first_chunk().unwrap());
        let last = self.read.insert(id, number);
        assert!(last < Some(number), "{number} came after {last:?}");
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.core.next_tick().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.core.tick(self.now);
        }
        self.now = until;
    }

    fn check(&mut self) {
        let (counts, limits) = (self.core.counts(), limits());
        assert!(counts.boxes <= limits.boxes);
        assert!(counts.bytes <= limits.total_bytes);
        assert_eq!(counts.ends, self.ends.len());
        assert!(self.core.woken().count() <= 1_000);
    }

    /// When all are gone and time has passed, nothing is left.
    fn leave(mut self) {
        for (end, _) in std::mem::take(&mut self.ends) {
            self.core.leave(end, self.now);
        }
        self.pass(Duration::from_secs(3_601));
        let counts = self.core.counts();
        assert_eq!((counts.boxes, counts.ends, counts.bytes), (0, 0, 0));
        assert_eq!(self.core.next_tick(), None);
    }
}

fn read_auth(text: &[u8]) -> Result<BoxId, Refusal> {
    json::read_auth(text).and_then(|auth| check_auth(&auth))
}

fn read_query(text: String) -> Result<BoxId, Refusal> {
    let desc = json::read_query(&[("desc.stream_id".into(), text)]);
    check_desc(desc.as_ref())
}

/// What is read is written and read again.
fn read_message(text: &[u8]) -> Result<CipherBox, Refusal> {
    let message = json::read_message(text)?;
    let stream_id = message.desc.as_ref().map(|it| &*it.stream_id);
    let stream_id = given_id(stream_id.unwrap_or_default());
    let written = json::write_message(stream_id, &message.msg);
    let inner = written.strip_prefix(r#"{"result":"#).unwrap();
    let inner = inner.strip_suffix('}').unwrap();
    assert!(inner.len() <= json::longest(message.msg.len()));
    let again = json::read_message(inner.as_bytes()).unwrap();
    assert_eq!(again.msg, message.msg);
    assert_eq!(again.desc.unwrap().stream_id, stream_id);
    Ok(message)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let step = |network, end, what| Step {
        network,
        end,
        what: Some(what),
    };
    let desc = |id: &[u8]| CipherBoxDesc {
        stream_id: id.to_vec(),
    };
    let auth = |id: &[u8]| CipherBoxAuth {
        desc: Some(desc(id)),
        auth: Some(cipher_box_auth::Auth::LndAuth(LndAuth {})),
    };
    let message = |id: &[u8], msg: &[u8]| CipherBox {
        desc: Some(desc(id)),
        msg: msg.to_vec(),
    };
    let meet = vec![
        step(0, 0, What::Create(auth(b"a"))),
        step(0, 0, What::Read(desc(b"a"))),
        step(1, 0, What::Write(message(b"a", b"hello"))),
        step(1, 1, What::Put(60_000)),
        step(0, 0, What::Take(true)),
        step(0, 0, What::Take(true)),
        step(0, 0, What::Leave(true)),
        step(2, 0, What::Read(desc(b"a"))),
        step(2, 0, What::Read(desc(b"a\0"))),
        step(2, 2, What::TakeOver(true)),
        step(0, 0, What::Delete(auth(b"a"))),
    ];
    let json = |text: &str| text.as_bytes().to_vec();
    let in_json = vec![
        step(
            0,
            0,
            What::CreateJson(json(r#"{"desc":{"stream_id":"YQ=="},"lnd_auth":{}}"#)),
        ),
        step(1, 0, What::ReadJson(json(r#"{"streamId":"YQ"}"#))),
        step(
            2,
            0,
            What::WriteJson(json(r#"{"desc":{"stream_id":"YQ=="},"msg":"-_8="}"#)),
        ),
        step(2, 1, What::Take(true)),
        step(2, 0, What::WaitMs(11_000)),
        step(
            0,
            0,
            What::DeleteJson(json(r#"{"desc":{"stream_id":"YQ=="},"lndAuth":{}}"#)),
        ),
        step(0, 0, What::DeleteQuery("YQ==".into())),
    ];
    let mut full = vec![
        step(0, 0, What::Create(auth(b"a"))),
        step(0, 0, What::Create(auth(b"b"))),
        step(0, 0, What::Create(auth(b"c"))),
        step(1, 0, What::Write(message(b"a", b""))),
        step(1, 0, What::Write(message(b"b", b""))),
    ];
    full.extend((0..8).map(|end| step(1, end, What::Put(90_000))));
    full.push(step(0, 0, What::WaitMs(3_700_000)));
    [meet, in_json, full]
        .into_iter()
        .map(|steps| Script { steps }.encode_to_vec())
        .collect()
}
