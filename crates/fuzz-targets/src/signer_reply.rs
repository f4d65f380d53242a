//! Answers of a hostile phone to its node: a host has many owners, and trusts none of them. Either a peer connects and
//! the owner gives some commands; or the node lives a whole life, on chain and in a channel with its hub.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bitcoin::BlockHash;
use longhand_node::{SignerAway, SignerTransport};
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::{Command, ConnectPeer, CreateInvoice, GetInfo};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::{Points, SignerAnswer, SignerBatch, SignerReply};
use longhand_testkit::phone::Phone;
use prost::Message;
use tokio::io::duplex;
use tokio::time::timeout;

use crate::node::{self, PATIENCE};
use crate::peer_socket;

mod life;

#[derive(Clone, PartialEq, Message)]
struct Script {
    /// One for each batch; without one the answers are good.
    #[prost(message, repeated, tag = "1")]
    lies: Vec<Lie>,
    /// The whole life.
    #[prost(bool, tag = "2")]
    life: bool,
    /// Batches that are answered well before the first lie, in a whole life.
    #[prost(uint32, tag = "3")]
    good: u32,
    /// A life's channel is closed by force.
    #[prost(bool, tag = "4")]
    by_force: bool,
}

/// A change of a reply.
#[derive(Clone, PartialEq, Message)]
struct Lie {
    /// In place of the good answers: the first, the second ...; empty ones leave the good one.
    #[prost(message, repeated, tag = "1")]
    answers: Vec<SignerAnswer>,
    /// Answers left out at the end.
    #[prost(uint32, tag = "2")]
    missing: u32,
    /// Answers that were not asked for.
    #[prost(message, repeated, tag = "3")]
    more: Vec<SignerAnswer>,
    /// A byte of the whole reply that is changed.
    #[prost(uint32, tag = "4")]
    at: u32,
    #[prost(uint32, tag = "5")]
    xor: u32,
    /// There is no reply.
    #[prost(bool, tag = "6")]
    away: bool,
}

struct Liar {
    phone: Phone,
    good: Mutex<u32>,
    lies: Mutex<std::vec::IntoIter<Lie>>,
}

#[async_trait]
impl SignerTransport for Liar {
    fn known_blocks(&self) -> Vec<(u32, BlockHash)> {
        self.phone.known_blocks()
    }

    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        let good = self.phone.sign(batch).await?;
        if self.is_good_yet() {
            return Ok(good);
        }
        let lie = {
            let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
            lies.next()
        };
        match lie {
            Some(lie) => lie.of(good),
            None => Ok(good),
        }
    }
}

impl Liar {
    fn new(phone: Phone, good: u32, lies: Vec<Lie>) -> Arc<Liar> {
        Arc::new(Liar {
            phone,
            good: Mutex::new(good),
            lies: Mutex::new(lies.into_iter()),
        })
    }

    fn is_good_yet(&self) -> bool {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = *good > 0;
        *good = good.saturating_sub(1);
        is_good
    }
}

impl Lie {
    fn of(self, mut reply: SignerReply) -> Result<SignerReply, SignerAway> {
        if self.away {
            return Err(SignerAway);
        }
        for (good, lie) in reply.answers.iter_mut().zip(self.answers) {
            if lie.answer.is_some() {
                *good = lie;
            }
        }
        let left = reply.answers.len().saturating_sub(self.missing as usize);
        reply.answers.truncate(left);
        reply.answers.extend(self.more);
        let mut bytes = reply.encode_to_vec();
        let length = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(self.at as usize % length) {
            *byte ^= self.xor as u8;
        }
        // The host closes a link when the answer is no reply.
        SignerReply::decode(&bytes[..]).map_err(|_| SignerAway)
    }
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    if script.lies.is_empty() {
        return;
    }
    if script.life {
        return life::run(script);
    }
    node::run(|| async {
        let node = node::owner(node::registration()).await;
        let node = node.expect("a node starts");
        node.attach(Liar::new(node::phone(), 0, script.lies));
        // The node sends batches for a peer that connects and opens a channel, and for commands.
        let (mut stream, theirs) = duplex(1 << 20);
        node.accept(Box::new(theirs));
        peer_socket::open_a_channel(&node, &mut stream).await;
        let commands = [
            Kind::GetInfo(GetInfo {}),
            Kind::ConnectPeer(ConnectPeer::default()),
            Kind::CreateInvoice(CreateInvoice {
                payment_hash: vec![1; 32],
                payment_secret: vec![1; 32],
                ..CreateInvoice::default()
            }),
        ];
        for command in commands {
            let command = Command {
                command: Some(command),
            };
            let _ = timeout(PATIENCE, node.command(command)).await;
        }
        node::is_sound(&node).await;
        node.stop().await;
    });
}

/// Made of good replies to the first things that a node asks.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let phone = node::phone();
    let keys = |byte: u8| {
        let asked = longhand_proto::signer::NewChannelKeys {
            channel_keys_id: vec![byte; 32],
            points: 16,
        };
        phone.answer(longhand_proto::signer::signer_op::Op::NewChannelKeys(asked))
    };
    let secret = Answer::SharedSecret(vec![7; 32]);
    let points = Answer::Points(Points {
        points: vec![vec![2; 33]; 16],
    });
    let refusal = Answer::Refusal(longhand_proto::signer::Refusal {
        rule: longhand_proto::rule::Rule::Malformed.name().into(),
        message: "no".into(),
        retry: true,
    });
    let answer = |answer: &Answer| SignerAnswer {
        answer: Some(answer.clone()),
    };
    let lie = |answers: &[&Answer]| Lie {
        answers: answers.iter().map(|one| answer(one)).collect(),
        ..Lie::default()
    };
    let (one, other) = (keys(1), keys(2));
    let scripts = [
        vec![Lie::default()],
        vec![lie(&[&one, &other])],
        vec![lie(&[&one, &one]), lie(&[&secret]), lie(&[&points])],
        vec![lie(&[&refusal, &refusal]), lie(&[&refusal])],
        vec![Lie {
            missing: 1,
            ..Lie::default()
        }],
        vec![Lie {
            more: vec![answer(&secret)],
            ..Lie::default()
        }],
        vec![
            Lie {
                at: 300,
                xor: 1,
                ..Lie::default()
            },
            lie(&[&secret]),
        ],
        vec![
            Lie::default(),
            Lie {
                away: true,
                ..Lie::default()
            },
        ],
        vec![Lie::default(), lie(&[&secret]), lie(&[&points, &secret])],
    ];
    let mut scripts = scripts
        .map(|lies| Script {
            lies,
            ..Script::default()
        })
        .to_vec();
    scripts.extend(life::seeds());
    scripts.iter().map(Message::encode_to_vec).collect()
}
