//! Answers of a broken Bitcoin Core to its host: in place of a good answer another one, of any JSON, an error, an HTTP
//! status. The questions are asked one by one, or by the follower.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Network, OutPoint, Transaction};
use longhand_chain::fuzzing::NodeAnswer;
use longhand_chain::{
    BitcoindSource, BlockReader, BlockRef, Chain, ChainError, ChainEvent, FeeRates, FeeSource,
    Follower, FollowerConfig, OutputLookup, TransactionRelay, WatchList,
};
use longhand_spv::filter::MAX_FILTER_BYTES;
use prost::Message;
use serde_json::Value;

use self::core::Core;
use crate::node;

mod core;

#[derive(Clone, PartialEq, Message)]
struct Script {
    /// One for each call; without one the answer is good.
    #[prost(message, repeated, tag = "1")]
    lies: Vec<Lie>,
    /// Asked in this order.
    #[prost(message, repeated, tag = "2")]
    questions: Vec<Question>,
    /// Then the follower runs.
    #[prost(bool, tag = "3")]
    follow: bool,
    /// After this many calls another chain is the best; never when 0.
    #[prost(uint32, tag = "4")]
    reorganised_after: u32,
}

/// A change of an answer.
#[derive(Clone, PartialEq, Message)]
struct Lie {
    /// The answer, or one field of it; nothing is changed when empty, and text that is not JSON is no JSON-RPC.
    #[prost(string, tag = "1")]
    json: String,
    #[prost(string, tag = "2")]
    field: String,
    /// The node's own error.
    #[prost(sint64, tag = "3")]
    code: i64,
    #[prost(string, tag = "4")]
    message: String,
    /// An HTTP status without a body.
    #[prost(uint32, tag = "5")]
    status: u32,
    /// A byte of the good answer that is changed.
    #[prost(uint32, tag = "6")]
    at: u32,
    #[prost(uint32, tag = "7")]
    xor: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(enumeration = "What", tag = "1")]
    what: i32,
    /// A height, or which block or transaction.
    #[prost(uint32, tag = "2")]
    which: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum What {
    Tip = 0,
    Header = 1,
    HashAt = 2,
    Block = 3,
    FeeRates = 4,
    Broadcast = 5,
    BroadcastPackage = 6,
    Unspent = 7,
    BlockTxids = 8,
    Verify = 9,
    Filter = 10,
}

const LIES: usize = 64;
const QUESTIONS: usize = 16;
/// A reorganisation comes within this many calls.
const CALLS: u32 = 128;
/// Checks of the follower, `APART` from each other, until it has to be at the tip.
const LOOKS: u32 = 300;
const APART: Duration = Duration::from_secs(10);

/// A good node, and the changes of its answers.
struct Liar {
    core: Core,
    lies: std::vec::IntoIter<Lie>,
    calls: u32,
    reorganised_after: u32,
}

impl Liar {
    fn answer(&mut self, method: &str, params: &[Value]) -> NodeAnswer {
        self.calls += 1;
        if self.calls == self.reorganised_after {
            self.core.reorganise();
        }
        let good = self.core.answer(method, params);
        match self.lies.next() {
            Some(lie) => lie.of(good),
            None => good,
        }
    }
}

impl Lie {
    fn of(self, good: NodeAnswer) -> NodeAnswer {
        if self.status > 0 {
            return NodeAnswer::Status(self.status as u16);
        }
        if self.code != 0 {
            return NodeAnswer::Error {
                code: self.code,
                message: self.message,
            };
        }
        let NodeAnswer::Result(mut value) = good else {
            return good;
        };
        let json = serde_json::from_str::<Value>(&self.json).ok();
        if let Some(fields) = value.as_object_mut().filter(|_| !self.field.is_empty()) {
            match json {
                Some(json) => fields.insert(self.field, json),
                None => fields.remove(&self.field),
            };
            return NodeAnswer::Result(value);
        }
        if !self.json.is_empty() {
            return json.map_or(NodeAnswer::Unreadable, NodeAnswer::Result);
        }
        let mut text = value.to_string().into_bytes();
        let at = self.at as usize % text.len();
        text[at] ^= self.xor as u8;
        serde_json::from_slice(&text).map_or(NodeAnswer::Unreadable, NodeAnswer::Result)
    }
}

fn lock(liar: &Mutex<Liar>) -> MutexGuard<'_, Liar> {
    liar.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(mut script) = Script::decode(data) else {
        return;
    };
    script.lies.truncate(LIES);
    script.questions.truncate(QUESTIONS);
    script.reorganised_after %= CALLS;
    if script.questions.is_empty() && !script.follow {
        return;
    }
    node::run(|| async {
        let liar = Arc::new(Mutex::new(Liar {
            core: Core::new(),
            lies: script.lies.into_iter(),
            calls: 0,
            reorganised_after: script.reorganised_after,
        }));
        let answering = liar.clone();
        let source = Arc::new(BitcoindSource::answered_by(
            Box::new(move |method, params| lock(&answering).answer(method, params)),
            Network::Regtest,
        ));
        for question in &script.questions {
            if let Err(error) = ask(&source, question).await {
                let line = error.to_string();
                assert!(!line.is_empty());
            }
        }
        if script.follow {
            follow(source, &liar).await;
        }
    });
}

/// Every result belongs to the question, or is an error.
async fn ask(source: &BitcoindSource, question: &Question) -> Result<(), ChainError> {
    let core = Core::new();
    let which = question.which;
    match question.what() {
        What::Tip => drop(source.tip().await?),
        What::Header => {
            let hash = core.some_hash(which);
            let (header, _) = source.header(&hash).await?;
            assert_eq!(header.block_hash(), hash, "another header");
        }
        What::HashAt => drop(source.hash_at(which).await?),
        What::Block => {
            let hash = core.some_hash(which);
            let block = source.block(&hash).await?;
            assert_eq!(block.block_hash(), hash, "another block");
            assert!(block.check_merkle_root(), "other transactions");
        }
        What::Filter => {
            let filter = source.filter(&core.some_hash(which)).await?.filter;
            assert!(
                filter.len() <= MAX_FILTER_BYTES,
                "a filter that is too long"
            );
        }
        What::FeeRates => check_rates(&source.fee_rates().await?),
        What::Broadcast => source.broadcast(&[core.some_transaction(which)]).await?,
        What::BroadcastPackage => {
            let package = [core.some_transaction(which), core.some_transaction(0)];
            source.broadcast(&package).await?;
        }
        What::Unspent => {
            let txid = core.some_transaction(which).compute_txid();
            drop(source.unspent(&OutPoint::new(txid, which)).await?);
        }
        What::BlockTxids => drop(source.block_txids(which).await?),
        What::Verify => source.verify().await?,
    }
    Ok(())
}

fn check_rates(rates: &FeeRates) {
    let most = FeeRates::MAX_SAT_PER_KW;
    let ordered = [
        rates.minimum,
        rates.background,
        rates.normal,
        rates.urgent,
        most,
    ];
    assert!(ordered.is_sorted(), "{rates:?}");
    assert!(rates.minimum >= FeeRates::FLOOR.minimum, "{rates:?}");
}

/// A node's events are a valid chain, whatever the source answers; once all answers are good again, they are the
/// source's chain.
async fn follow(source: Arc<BitcoindSource>, liar: &Mutex<Liar>) {
    let config = FollowerConfig::default();
    let follower = Follower::start(source, config);
    let (genesis, watched) = {
        let liar = lock(liar);
        (liar.core.at(0), liar.core.some_transaction(0))
    };
    let watch = watch_list(&watched);
    let subscribed = follower.subscribe(genesis, watch).await;
    let mut subscription = subscribed.expect("it never fails");
    let key = SecretKey::from_slice(&[1; 32]).expect("it is a key");
    let node_id = key.public_key(&Secp256k1::signing_only());
    follower.broadcast(node_id, vec![watched]);
    let mut at = genesis;
    let mut synced = None;
    for _ in 0..LOOKS {
        tokio::time::sleep(APART).await;
        while let Ok(event) = subscription.events.try_recv() {
            synced = next(&mut at, &event);
        }
        check_rates(&follower.fee_rates());
        let liar = lock(liar);
        let settled = liar.lies.len() == 0 && liar.calls > liar.reorganised_after;
        if settled && synced == Some(liar.core.tip()) {
            return;
        }
    }
    panic!("the follower stays at {at:?}, and the source's answers are good");
}

fn watch_list(transaction: &Transaction) -> WatchList {
    WatchList {
        outpoints: transaction
            .input
            .iter()
            .map(|i| i.previous_output)
            .collect(),
        scripts: transaction
            .output
            .iter()
            .map(|o| o.script_pubkey.clone())
            .collect(),
        txids: vec![transaction.compute_txid()],
    }
}

/// Applies one event. Returns the tip of `Synced`.
fn next(at: &mut BlockRef, event: &ChainEvent) -> Option<BlockRef> {
    match event {
        ChainEvent::Connected {
            height,
            header,
            txs,
        } => {
            assert_eq!((*height, header.prev_blockhash), (at.height + 1, at.hash));
            assert!(txs.is_sorted_by_key(|(index, _)| *index));
            *at = BlockRef {
                height: *height,
                hash: header.block_hash(),
            };
            None
        }
        ChainEvent::Disconnected { fork } => {
            assert!(fork.height < at.height, "{fork:?} is not below {at:?}");
            *at = *fork;
            None
        }
        ChainEvent::Synced { tip } => {
            assert_eq!(tip, at, "synced elsewhere");
            Some(*tip)
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let lie = |json: &str| Lie {
        json: json.into(),
        ..Lie::default()
    };
    let field = |field: &str, json: &str| Lie {
        field: field.into(),
        ..lie(json)
    };
    let error = |code, message: &str| Lie {
        code,
        message: message.into(),
        ..Lie::default()
    };
    let good = Lie::default;
    let ask = |what: What, which, lies: &[Lie]| Script {
        // The first call checks the network.
        lies: [&[good()][..], lies].concat(),
        questions: vec![Question {
            what: what.into(),
            which,
        }],
        ..Script::default()
    };
    let core = Core::new();
    let hex = |transaction| format!("{:?}", serialize_hex(transaction));
    let other = hex(&core.some_transaction(1));
    let hash = |height| format!("\"{}\"", core.at(height).hash);
    let follow = |lies: &[Lie], reorganised_after| Script {
        lies: lies.to_vec(),
        follow: true,
        reorganised_after,
        ..Script::default()
    };
    let spent = error(-25, "bad-txns-inputs-missingorspent");
    let status = |status| Lie {
        status,
        ..Lie::default()
    };
    let all = 0..=10;
    let all = all.map(|what| Question { what, which: 1 }).collect();
    let scripts = [
        Script {
            questions: all,
            ..Script::default()
        },
        ask(What::Tip, 0, &[field("blocks", "-1")]),
        ask(What::Tip, 0, &[field("bestblockhash", "\"00\"")]),
        ask(What::Header, 2, &[good(), lie(&hash(2))]),
        ask(What::Header, 2, &[field("height", "4294967296")]),
        ask(What::HashAt, 2, &[lie("{\"a\": [1, null]}")]),
        ask(What::HashAt, 2, &[error(-8, "Block height out of range")]),
        ask(What::Block, 1, &[lie("\"00ff\"")]),
        ask(What::Filter, 1, &[field("filter", "\"0\"")]),
        ask(What::Filter, 1, &[field("header", "[]")]),
        ask(
            What::Filter,
            1,
            &[error(-1, "Index is not enabled for filtertype basic")],
        ),
        ask(
            What::FeeRates,
            0,
            &[
                field("mempoolminfee", "1e300"),
                good(),
                field("feerate", "0.00012"),
                field("feerate", "-1"),
            ],
        ),
        ask(
            What::FeeRates,
            0,
            &[good(), field("feerate", "0.5"), field("feerate", "1e-9")],
        ),
        ask(What::Broadcast, 0, &[spent.clone(), lie(&other)]),
        ask(What::Broadcast, 0, &[error(-27, "known"), good()]),
        ask(
            What::BroadcastPackage,
            1,
            &[
                lie("{\"package_msg\": \"no\", \"tx-results\": {\"a\": {\"error\": \"fee\"}}}"),
                spent,
                error(-26, "min relay fee not met"),
            ],
        ),
        ask(What::Unspent, 0, &[lie("null")]),
        ask(
            What::Unspent,
            0,
            &[field("scriptPubKey", "{\"hex\": \"0\"}")],
        ),
        ask(What::BlockTxids, 1, &[good(), field("tx", "[1, 2]")]),
        ask(What::Verify, 0, &[field("chain", "\"main\"")]),
        Script {
            lies: vec![status(401), status(503), error(-28, "Loading"), lie("{")],
            ..follow(&[], 0)
        },
        follow(&[], 9),
        follow(&[good(), field("blocks", "9"), good(), lie(&hash(2))], 20),
        follow(
            &[
                good(),
                field("bestblockhash", &hash(1)),
                good(),
                lie(&hash(3)),
                Lie {
                    at: 99,
                    xor: 1,
                    ..Lie::default()
                },
            ],
            0,
        ),
    ];
    scripts.iter().map(Message::encode_to_vec).collect()
}
