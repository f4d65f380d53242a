//! A mailbox: requests of clients that hold the keys of their streams and follow no other rule.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use longhand_link::carrier::MAX_MESSAGE;
use longhand_link::carrier::mailbox::stream::{End, Nonce, Permit, StreamKey};
use longhand_link::{PairingSecret, Rendezvous};
use longhand_mailbox::core::{ConnectionId, Limits, MAX_PAYLOAD, Pace, Relay, Reply, Request};
use longhand_mailbox::protocol::longhand::{Session, write};
use longhand_proto::mailbox::client_message::Body;
use longhand_proto::mailbox::{Attach, ClientMessage, Data, Delete, Detach, ServerMessage};
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    /// The client, one of those that are connected.
    #[prost(uint32, tag = "1")]
    who: u32,
    #[prost(oneof = "What", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    /// A new client, of one of three networks or of none.
    #[prost(uint32, tag = "2")]
    Connect(u32),
    /// Any bytes as a message.
    #[prost(bytes, tag = "3")]
    Bytes(Vec<u8>),
    /// A request as it is.
    #[prost(message, tag = "4")]
    Request(ClientMessage),
    /// An attach that is signed.
    #[prost(message, tag = "5")]
    Attach(Signed),
    /// A delete that is signed.
    #[prost(message, tag = "6")]
    Delete(Signed),
    /// A payload of this many bytes.
    #[prost(message, tag = "7")]
    Send(Large),
    /// So many replies are read.
    #[prost(uint32, tag = "8")]
    Read(u32),
    #[prost(uint32, tag = "9")]
    WaitMs(u32),
}

#[derive(Clone, PartialEq, Message)]
struct Signed {
    #[prost(uint32, tag = "1")]
    handle: u32,
    /// One of four.
    #[prost(uint32, tag = "2")]
    key: u32,
    #[prost(bool, tag = "3")]
    is_host: bool,
    /// The nonce of another connection is signed.
    #[prost(bool, tag = "4")]
    is_stolen: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Large {
    #[prost(uint32, tag = "1")]
    handle: u32,
    #[prost(uint32, tag = "2")]
    bytes: u32,
}

const CLIENTS: usize = 6;

fn limits() -> Limits {
    Limits {
        connections_per_network: 2,
        ends_per_network: 3,
        ends: 6,
        queue_messages: 4,
        queue_bytes: 150_000,
        total_bytes: 400_000,
        bytes_per_network: 250_000,
        bytes_burst: 500_000,
        ..Limits::default()
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

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let step = |who, what| Step {
        who,
        what: Some(what),
    };
    let signed = |handle, key, is_host| Signed {
        handle,
        key,
        is_host,
        is_stolen: false,
    };
    let send = |handle, bytes| What::Send(Large { handle, bytes });
    let small = ClientMessage {
        body: Some(Body::Data(Data {
            handle: 1,
            payload: b"hello".to_vec(),
        })),
    };
    let detach = ClientMessage {
        body: Some(Body::Detach(Detach { handle: 1 })),
    };
    let meet = vec![
        step(0, What::Connect(0)),
        step(1, What::Connect(1)),
        step(0, What::Attach(signed(1, 0, true))),
        step(1, What::Attach(signed(1, 0, false))),
        step(0, What::Request(small)),
        step(1, send(1, 60_000)),
        step(0, What::Read(4)),
        step(1, What::Read(4)),
        step(1, What::Request(detach)),
    ];
    let mut overflow = meet.clone();
    overflow.extend((0..8).map(|_| step(0, send(1, 60_000))));
    let mut taken_over = meet.clone();
    taken_over.extend([
        step(2, What::Connect(2)),
        step(2, What::Attach(signed(7, 0, true))),
        step(0, What::Read(2)),
        step(2, What::Delete(signed(0, 0, true))),
        step(1, What::WaitMs(61_000)),
    ]);
    let stolen = Signed {
        is_stolen: true,
        ..signed(2, 1, true)
    };
    let mut replayed = meet.clone();
    replayed.extend((0..3).map(|_| step(1, What::Attach(stolen.clone()))));
    replayed.push(step(0, What::Bytes(b"GET / HTTP/1.1".to_vec())));
    [meet, overflow, taken_over, replayed]
        .map(|steps| Script { steps }.encode_to_vec())
        .into()
}

struct Client {
    id: ConnectionId,
    session: Session,
    nonce: Nonce,
}

struct World {
    relay: Relay,
    now: Duration,
    clients: Vec<Client>,
    connected: u8,
    keys: Vec<StreamKey>,
    /// Messages begin with their number.
    sent: u64,
    /// The number of the last message that was read under a handle since it was attached.
    read: HashMap<(ConnectionId, u32), u64>,
}

impl World {
    fn new() -> World {
        let key = |n| {
            let meeting = Rendezvous::of_pairing(&PairingSecret::from_bytes([n; 16]));
            StreamKey::new(&meeting, "relay.example:443")
        };
        World {
            relay: Relay::new(limits()),
            now: Duration::ZERO,
            clients: Vec::new(),
            connected: 0,
            keys: (0..4).map(key).collect(),
            sent: 0,
            read: HashMap::new(),
        }
    }

    fn play(&mut self, step: Step) {
        let who = step.who as usize % self.clients.len().max(1);
        match step.what {
            None => {}
            Some(What::Connect(network)) => self.connect(network),
            Some(What::WaitMs(ms)) => {
                self.now += Duration::from_millis(ms.into());
                self.relay.tick(self.now);
            }
            Some(What::Read(replies)) => {
                for _ in 0..replies.min(100) {
                    self.take(who);
                }
            }
            Some(What::Bytes(bytes)) => self.receive(who, &bytes),
            Some(What::Request(request)) => self.receive(who, &request.encode_to_vec()),
            Some(What::Attach(signed)) => self.attach(who, &signed),
            Some(What::Delete(signed)) => self.delete(who, &signed),
            Some(What::Send(large)) => {
                let most = u32::try_from(MAX_PAYLOAD).unwrap() + 2;
                let payload = vec![0; (large.bytes % most) as usize];
                let handle = large.handle;
                self.ask(who, Body::Data(Data { handle, payload }));
            }
        }
        let closed = self.relay.output().closed;
        self.clients.retain(|client| !closed.contains(&client.id));
    }

    fn connect(&mut self, network: u32) {
        if self.clients.len() == CLIENTS {
            let oldest = self.clients.remove(0);
            self.relay.close(oldest.id);
        }
        self.connected = self.connected.wrapping_add(1);
        let source = match network % 4 {
            0 => None,
            n => Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, n as u8)).into()),
        };
        let nonce = [self.connected; 32];
        let Some(id) = self.relay.open(source, self.now) else {
            return;
        };
        let client = Client {
            id,
            session: Session::new(nonce),
            nonce,
        };
        self.clients.push(client);
    }

    fn attach(&mut self, who: usize, signed: &Signed) {
        let end = if signed.is_host {
            End::Host
        } else {
            End::Phone
        };
        let Some((public_key, signature)) = self.sign(who, signed, Permit::Attach(end)) else {
            return;
        };
        let attach = Attach {
            handle: signed.handle,
            public_key,
            end: end.to_wire().into(),
            signature,
        };
        self.ask(who, Body::Attach(attach));
    }

    fn delete(&mut self, who: usize, signed: &Signed) {
        if let Some((public_key, signature)) = self.sign(who, signed, Permit::Delete) {
            let delete = Delete {
                public_key,
                signature,
            };
            self.ask(who, Body::Delete(delete));
        }
    }

    fn sign(&self, who: usize, signed: &Signed, permit: Permit) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut nonce = self.clients.get(who)?.nonce;
        if signed.is_stolen {
            nonce = [0; 32];
        }
        let key = &self.keys[signed.key as usize % self.keys.len()];
        Some((key.public().to_vec(), key.sign(permit, &nonce).to_vec()))
    }

    fn ask(&mut self, who: usize, body: Body) {
        let message = ClientMessage { body: Some(body) };
        self.receive(who, &message.encode_to_vec());
    }

    /// At the pace that the relay allows.
    fn receive(&mut self, who: usize, message: &[u8]) {
        let Some(client) = self.clients.get(who) else {
            return;
        };
        let id = client.id;
        let Ok(mut request) = client.session.read(message) else {
            self.relay.close(id);
            self.clients.remove(who);
            return;
        };
        if let Request::Attach { stream, .. } | Request::Delete { stream } = &request {
            let known = self.keys.iter().any(|key| key.id() == *stream);
            assert!(known, "a stream without its key");
        }
        if let Request::Send { payload, .. } = &mut request
            && let Some(head) = payload.get_mut(..8)
        {
            self.sent += 1;
            head.copy_from_slice(&self.sent.to_be_bytes());
        }
        if let Pace::At(time) = self.relay.pace(id, self.now) {
            self.now = self.now.max(time.min(self.now + Duration::from_secs(600)));
        }
        if self.relay.pace(id, self.now) == Pace::Now {
            self.relay.receive(id, request, self.now);
        }
    }

    /// One reply, which a client can read. Messages are whole and in their order.
    fn take(&mut self, who: usize) {
        let Some(client) = self.clients.get(who) else {
            return;
        };
        let Some(reply) = self.relay.take(client.id) else {
            return;
        };
        match &reply {
            Reply::Attached { handle, .. } => drop(self.read.remove(&(client.id, *handle))),
            Reply::Data { handle, payload } => {
                assert!(payload.len() <= MAX_PAYLOAD);
                if let Some(number) = payload.first_chunk() {
                    let number = u64::from_be_bytes(*number);
                    let last = self.read.insert((client.id, *handle), number);
                    assert!(last < Some(number), "{number} came after {last:?}");
                }
            }
            _ => {}
        }
        let written = write(reply);
        assert!(written.len() <= MAX_MESSAGE);
        let read = ServerMessage::decode(&written[..]).unwrap();
        assert!(read.body.is_some());
    }

    fn check(&self) {
        let (counts, limits) = (self.relay.counts(), limits());
        assert!(counts.ends <= limits.ends);
        assert!(counts.queued_bytes <= limits.total_bytes);
        assert_eq!(counts.connections, self.clients.len());
        assert!(counts.streams <= self.keys.len());
    }

    /// When all are gone and time has passed, nothing is left.
    fn leave(mut self) {
        for client in self.clients.drain(..) {
            self.relay.close(client.id);
        }
        self.relay.tick(self.now + Duration::from_secs(61));
        let counts = self.relay.counts();
        assert_eq!((counts.connections, counts.ends), (0, 0));
        assert_eq!((counts.streams, counts.queued_bytes), (0, 0));
        assert_eq!(self.relay.next_tick(), None);
    }
}
