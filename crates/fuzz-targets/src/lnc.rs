//! Lightning Node Connect: two ends, one of them ours, with packets and acts that are lost, changed, repeated and invented between them.
//!
//! `go_back_n`: what one end gives out to its user was sent by the other, in order and once, as long as nothing was invented. `lnc_handshake`:
//! an act or a message that was changed on the way never ends in a message.

use std::time::{Duration, Instant};

use longhand_lnc::{
    Connection, GoBackN, Handshake, Keys, Phrase, Role, SecretKey, Stretched, Timing, VERSIONS,
    public,
};
use prost::{Message, Oneof};

/// Steps that are carried out of one input, and the longest message of one.
const STEPS: usize = 200;
const MOST_BYTES: usize = 200_000;
/// Time that one step may let pass.
const MOST_MS: u32 = 60_000;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Script {
    #[prost(message, repeated, tag = "1")]
    steps: Vec<Step>,
    /// Of both ends.
    #[prost(uint32, tag = "2")]
    window: u32,
    /// The server has another phrase or key.
    #[prost(bool, tag = "3")]
    is_stranger: bool,
    /// The two know each other's keys.
    #[prost(bool, tag = "4")]
    is_known: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(oneof = "What", tags = "1, 2, 3, 4, 5, 6, 7")]
    what: Option<What>,
    /// At the server, or from it.
    #[prost(bool, tag = "8")]
    at_server: bool,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    /// A message of so many bytes is sent.
    #[prost(uint32, tag = "1")]
    Send(u32),
    /// So many packets arrive.
    #[prost(uint32, tag = "2")]
    Pass(u32),
    /// The next packet is lost.
    #[prost(bool, tag = "3")]
    Lose(bool),
    /// The next packet arrives twice.
    #[prost(bool, tag = "4")]
    Repeat(bool),
    /// The next packet arrives with this byte of it changed.
    #[prost(uint32, tag = "5")]
    Change(u32),
    /// A packet that nobody has sent arrives.
    #[prost(bytes, tag = "6")]
    Invent(Vec<u8>),
    #[prost(uint32, tag = "7")]
    WaitMs(u32),
}

/// One end of either kind.
trait End {
    fn packet(&mut self) -> Option<Vec<u8>>;
    fn received(&mut self, now: Instant, packet: &[u8]);
    fn advance(&mut self, now: Instant);
    fn send(&mut self, now: Instant, message: &[u8]) -> bool;
    fn message(&mut self) -> Option<Vec<u8>>;
}

impl End for GoBackN {
    fn packet(&mut self) -> Option<Vec<u8>> {
        self.next_packet()
    }

    fn received(&mut self, now: Instant, packet: &[u8]) {
        GoBackN::received(self, now, packet);
    }

    fn advance(&mut self, now: Instant) {
        GoBackN::advance(self, now);
        assert!(
            self.next_due()
                .is_none_or(|due| due + Duration::from_secs(3_600) > now)
        );
    }

    fn send(&mut self, now: Instant, message: &[u8]) -> bool {
        GoBackN::send(self, now, message).is_ok()
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        self.next_message()
    }
}

impl End for Connection {
    fn packet(&mut self) -> Option<Vec<u8>> {
        self.next_packet()
    }

    fn received(&mut self, now: Instant, packet: &[u8]) {
        Connection::received(self, now, packet);
    }

    fn advance(&mut self, now: Instant) {
        Connection::advance(self, now);
    }

    fn send(&mut self, now: Instant, message: &[u8]) -> bool {
        Connection::send(self, now, message).is_ok()
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        let message = self.next_message().ok().flatten();
        message.map(|message| message.to_vec())
    }
}

/// What one end has sent, and how much of it the other has given out.
#[derive(Default)]
struct Sent {
    messages: Vec<Vec<u8>>,
    taken: usize,
}

struct World<E> {
    ends: [E; 2],
    /// By the end that has sent it.
    sent: [Sent; 2],
    now: Instant,
    /// Go-back-N believes what is changed and invented, and encrypted messages do not.
    believes: bool,
    was_changed: bool,
}

impl<E: End> World<E> {
    fn play(&mut self, steps: &[Step]) {
        for step in steps.iter().take(STEPS) {
            let at = usize::from(step.at_server);
            if let Some(what) = &step.what {
                self.step(at, what);
            }
            self.take();
        }
    }

    fn step(&mut self, at: usize, what: &What) {
        match what {
            What::Send(bytes) => {
                let length = usize::try_from(*bytes)
                    .unwrap_or(MOST_BYTES)
                    .min(MOST_BYTES);
                let number = self.sent[at].messages.len() as u8;
                let message = vec![number; length];
                if self.ends[at].send(self.now, &message) {
                    self.sent[at].messages.push(message);
                }
            }
            What::Pass(count) => {
                for _ in 0..(*count).min(100) {
                    self.pass(at, |packet| vec![packet]);
                }
            }
            What::Lose(_) => self.pass(at, |_| Vec::new()),
            What::Repeat(_) => self.pass(at, |packet| vec![packet.clone(), packet]),
            What::Change(place) => {
                self.was_changed = true;
                let place = *place as usize;
                self.pass(at, |mut packet| {
                    let length = packet.len().max(1);
                    if let Some(byte) = packet.get_mut(place % length) {
                        *byte ^= 1 << (place / length % 8);
                    }
                    vec![packet]
                });
            }
            What::Invent(packet) => {
                self.was_changed = true;
                self.ends[1 - at].received(self.now, packet);
            }
            What::WaitMs(ms) => {
                self.now += Duration::from_millis((*ms).min(MOST_MS).into());
                self.ends.iter_mut().for_each(|end| end.advance(self.now));
            }
        }
    }

    /// The next packet of an end arrives, as `way` has it.
    fn pass(&mut self, from: usize, way: impl FnOnce(Vec<u8>) -> Vec<Vec<u8>>) {
        if let Some(packet) = self.ends[from].packet() {
            for packet in way(packet) {
                self.ends[1 - from].received(self.now, &packet);
            }
        }
    }

    /// Both ends give out what they have.
    fn take(&mut self) {
        for to in 0..2 {
            while let Some(message) = self.ends[to].message() {
                let sent = &mut self.sent[1 - to];
                if self.believes && self.was_changed {
                    continue;
                }
                assert_eq!(
                    Some(&message),
                    sent.messages.get(sent.taken),
                    "another message"
                );
                sent.taken += 1;
            }
        }
    }
}

/// Tries one input at go-back-N alone.
pub fn go_back_n(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let now = Instant::now();
    let mut timing = Timing::default();
    timing.window = script.window as u8;
    let end = |role| GoBackN::new(role, timing.clone(), now);
    World {
        ends: [end(Role::Client), end(Role::Server)],
        sent: Default::default(),
        now,
        believes: true,
        was_changed: false,
    }
    .play(&script.steps);
}

/// Tries one input at the handshake, and the messages after it.
pub fn handshake(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let now = Instant::now();
    World {
        ends: [Role::Client, Role::Server].map(|role| end(role, &script, now)),
        sent: Default::default(),
        now,
        believes: false,
        was_changed: false,
    }
    .play(&script.steps);
}

fn end(role: Role, script: &Script, now: Instant) -> Connection {
    let key = |byte| SecretKey::from_slice(&[byte; 32]).expect("a key");
    let (own, other) = match role {
        Role::Client => (1, 2),
        Role::Server => (2, 1),
    };
    let is_stranger = script.is_stranger && role == Role::Server;
    let keys = match script.is_known {
        true => Keys::Known(public(&key(if is_stranger { 9 } else { other }))),
        false => Keys::Phrase(phrase(is_stranger)),
    };
    let text = match role {
        Role::Client => Vec::new(),
        Role::Server => b"text".to_vec(),
    };
    let made = Handshake::new(role, keys, key(own), key(own + 4), text.into(), VERSIONS);
    Connection::encrypted(made.expect("a handshake"), Timing::default(), now)
}

/// scrypt is for once: an input takes no longer than its steps.
fn phrase(is_other: bool) -> Stretched {
    use std::sync::OnceLock;
    static PHRASES: OnceLock<[Stretched; 2]> = OnceLock::new();
    let phrases = PHRASES.get_or_init(|| {
        ["abandon ", "ability "].map(|word| {
            let phrase = Phrase::parse(&word.repeat(10)).expect("a phrase");
            phrase.stretch().expect("a point")
        })
    });
    phrases[usize::from(is_other)].clone()
}

/// Stories that work, and one of each fault.
pub fn seeds() -> Vec<Vec<u8>> {
    let step = |at_server, what| Step {
        what: Some(what),
        at_server,
    };
    let both = |count| {
        [
            step(false, What::Pass(count)),
            step(true, What::Pass(count)),
        ]
    };
    let open: Vec<Step> = (0..8).flat_map(|_| both(3)).collect();
    let talk = [
        step(false, What::Send(70_000)),
        step(true, What::Send(10)),
        step(false, What::Pass(2)),
        step(false, What::Lose(true)),
        step(false, What::Repeat(true)),
        step(false, What::WaitMs(1_500)),
    ];
    let whole: Vec<Step> = [&open[..], &talk, &open, &open].concat();
    let changed = [&open[..3], &[step(false, What::Change(40))], &open].concat();
    let invented = [
        &open[..],
        &[step(true, What::Invent(vec![2, 0, 1, 0, 9]))],
        &talk,
    ]
    .concat();
    let script = |steps: &[Step], is_stranger, is_known| {
        Script {
            steps: steps.to_vec(),
            window: 20,
            is_stranger,
            is_known,
        }
        .encode_to_vec()
    };
    vec![
        script(&whole, false, true),
        script(&whole, false, false),
        script(&open, true, true),
        script(&changed, false, false),
        script(&invented, false, true),
    ]
}
