//! The Esplora source, when its server lies, fails, or forgets; and what it keeps over a restart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bitcoin::consensus::encode::{deserialize, deserialize_hex, serialize, serialize_hex};
use bitcoin::{Block, BlockHash, Network};
use longhand_chain::{
    BlockReader as _, BlockRef, Chain as _, ChainError, ChainEvent, Devnet, EsploraSource,
    FeeSource as _, Follower, FollowerConfig, OutputLookup as _, TransactionRelay as _, WatchList,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::keys::{Key, coin};
use crate::kinds::{Kind, client, is_unreachable};

/// Changes the answer to a path; status and body are those of the devnet.
type Lie = fn(&str, u16, Vec<u8>) -> (u16, Vec<u8>);

const TRUTH: Lie = |_, status, body| (status, body);

/// A server between a source and a devnet.
struct Between {
    to: String,
    http: reqwest::Client,
    lie: Mutex<Lie>,
    /// A path that this server does not have.
    missing: Mutex<&'static str>,
    /// How often a whole block was asked for.
    blocks: watch::Sender<u32>,
}

/// A devnet, a server that may lie, and a source that trusts neither.
struct Setup {
    devnet: Devnet,
    between: Arc<Between>,
    source: Arc<EsploraSource>,
    /// Of the server between.
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(between): State<Arc<Between>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let path = uri.path();
    if path == *between.missing.lock().unwrap() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let asked = between
        .http
        .request(method, format!("{}{path}", between.to))
        .body(body);
    let answer = asked.send().await.unwrap();
    let (status, body) = (answer.status().as_u16(), answer.bytes().await.unwrap());
    let lie = *between.lie.lock().unwrap();
    let (status, body) = lie(path, status, body.to_vec());
    if path.ends_with("/raw") && path.starts_with("/block/") {
        between.blocks.send_modify(|count| *count += 1);
    }
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

impl Setup {
    async fn new() -> Setup {
        let devnet = Kind::Esplora.devnet().await;
        let between = Arc::new(Between {
            to: devnet.esplora_url().unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            lie: Mutex::new(TRUTH),
            missing: Mutex::new(""),
            blocks: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(between.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let source = Arc::new(EsploraSource::new(client(&url, Network::Regtest)));
        Setup {
            devnet,
            between,
            source,
            url,
            task,
        }
    }

    fn lie(&self, lie: Lie) {
        *self.between.lie.lock().unwrap() = lie;
    }
}

fn is_block(path: &str) -> bool {
    path.starts_with("/block/") && path.ends_with("/raw")
}

/// Changes the answer to a request for a whole block.
macro_rules! of_block {
    ($change:expr) => {
        |path, status, body| match is_block(path) {
            true => (status, $change(body)),
            false => (status, body),
        }
    };
}

fn changed(body: &[u8], change: impl FnOnce(&mut Block)) -> Vec<u8> {
    let mut block: Block = deserialize(body).unwrap();
    change(&mut block);
    serialize(&block)
}

/// Lies about blocks, each with a part of the reason for which it is refused.
const LIES: [(&str, Lie); 7] = [
    (
        "",
        of_block!(|body: Vec<u8>| body[..body.len() - 1].to_vec()),
    ),
    ("", of_block!(|_| b"<html>busy</html>".to_vec())),
    ("more than", of_block!(|_| vec![0; 5_000_000])),
    (
        "another block",
        of_block!(|body: Vec<u8>| changed(&body, |block| block.header.time += 1)),
    ),
    (
        "other transactions",
        of_block!(
            |body: Vec<u8>| changed(&body, |block| block.txdata[0].output[0].value =
                bitcoin::Amount::from_sat(1))
        ),
    ),
    (
        "other transactions",
        of_block!(|body: Vec<u8>| changed(&body, |block| {
            let last = block.txdata.last().unwrap().clone();
            block.txdata.push(last);
        })),
    ),
    (
        "witnesses",
        of_block!(|body: Vec<u8>| changed(&body, |block| {
            for tx in &mut block.txdata {
                tx.input[0].witness.clear();
            }
        })),
    ),
];

#[tokio::test]
async fn a_lie_about_a_block_is_an_error_of_one_line_and_never_a_block() {
    let setup = Setup::new().await;
    Key::new(1).fund(&setup.devnet, 100_000);
    let tip = setup.source.tip().await.unwrap();
    for (reason, lie) in LIES {
        setup.lie(lie);
        let error = setup.source.block(&tip.hash).await.unwrap_err();
        let is_refused = match reason {
            "" => matches!(error, ChainError::Malformed(_)),
            reason => matches!(&error, ChainError::False(text) if text.contains(reason)),
        };
        assert!(is_refused, "{error:?} for {reason:?}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    setup.lie(TRUTH);
    assert_eq!(
        setup.source.block(&tip.hash).await.unwrap().block_hash(),
        tip.hash
    );
}

#[tokio::test]
async fn a_follower_waits_while_its_source_lies_about_a_block_and_then_goes_on() {
    let setup = Setup::new().await;
    let from = setup.devnet.tip();
    let config = FollowerConfig {
        poll_interval: Duration::from_millis(5),
        ..FollowerConfig::default()
    };
    let follower = Follower::start(setup.source.clone(), config);
    let mut watcher = follower
        .subscribe(from, WatchList::default())
        .await
        .unwrap();
    let synced = watcher.events.recv().await.unwrap();
    assert!(matches!(synced, ChainEvent::Synced { tip } if tip == from));

    for (_, lie) in LIES {
        setup.lie(lie);
        setup.devnet.mine_to_wallet(1).unwrap();
        let mut asked = setup.between.blocks.subscribe();
        let before = *asked.borrow_and_update();
        // It asks again and again, and takes none of the answers.
        asked.wait_for(|count| *count >= before + 3).await.unwrap();
        assert!(watcher.events.is_empty());
        setup.lie(TRUTH);
        let event = watcher.events.recv().await.unwrap();
        let height = setup.devnet.tip().height;
        assert!(matches!(event, ChainEvent::Connected { height: at, .. } if at == height));
        let event = watcher.events.recv().await.unwrap();
        assert!(matches!(event, ChainEvent::Synced { tip } if tip.height == height));
    }
}

#[tokio::test]
async fn a_header_without_work_is_no_tip() {
    let setup = Setup::new().await;
    setup.source.tip().await.unwrap();
    setup.devnet.mine_to_wallet(1).unwrap();
    // The hash of a header with the first nonce that has no work.
    fn forged(hex: &[u8]) -> bitcoin::block::Header {
        let mut header: bitcoin::block::Header =
            deserialize_hex(std::str::from_utf8(hex).unwrap()).unwrap();
        while header.validate_pow(header.target()).is_ok() {
            header.nonce += 1;
        }
        header
    }
    static FORGED: Mutex<Option<bitcoin::block::Header>> = Mutex::new(None);
    let header = setup.devnet.block(&setup.devnet.tip().hash).unwrap().header;
    *FORGED.lock().unwrap() = Some(forged(serialize_hex(&header).as_bytes()));
    setup.lie(|path, status, body| {
        let header = FORGED.lock().unwrap().unwrap();
        match path {
            "/blocks/tip/hash" => (200, header.block_hash().to_string().into_bytes()),
            path if path.ends_with("/header") => (200, serialize_hex(&header).into_bytes()),
            _ => (status, body),
        }
    });
    let error = setup.source.tip().await.unwrap_err();
    assert!(
        matches!(&error, ChainError::False(text) if text.contains("proof of work")),
        "{error}"
    );
    setup.lie(TRUTH);
    assert_eq!(setup.source.tip().await.unwrap(), setup.devnet.tip());
}

#[tokio::test]
async fn lies_about_transactions_and_their_order_are_found() {
    let setup = Setup::new().await;
    let key = Key::new(1);
    let (outpoint, output) = key.fund(&setup.devnet, 100_000);
    let height = setup.devnet.tip().height;
    assert_eq!(setup.source.unspent(&outpoint).await.unwrap(), Some(output));
    setup.lie(|path, status, body| match path {
        path if path.ends_with("/txids") => {
            let mut txids: Vec<String> = serde_json::from_slice(&body).unwrap();
            txids.reverse();
            (status, serde_json::to_vec(&txids).unwrap())
        }
        path if path.starts_with("/tx/") && path.ends_with("/raw") => {
            let mut tx: bitcoin::Transaction = deserialize(&body).unwrap();
            tx.output[0].value += bitcoin::Amount::ONE_SAT;
            (status, serialize(&tx))
        }
        _ => (status, body),
    });
    let order = setup.source.block_txids(height).await;
    assert!(matches!(order, Err(ChainError::False(_))), "{order:?}");
    let value = setup.source.unspent(&outpoint).await;
    assert!(matches!(value, Err(ChainError::False(_))), "{value:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_packages_gets_their_transactions_one_by_one() {
    let setup = Setup::new().await;
    let key = Key::new(1);
    let spend_twice = |fee| {
        let parent = key.spend(&key.fund(&setup.devnet, 100_000), fee);
        let child = key.spend(&coin(&parent, &key.script()), 1_000);
        [parent, child]
    };
    *setup.between.missing.lock().unwrap() = "/txs/package";
    let package = spend_twice(500);
    setup.source.broadcast(&package).await.unwrap();
    assert_eq!(setup.devnet.mempool(), package);
    setup.devnet.mine_to_wallet(1).unwrap();

    let package = spend_twice(0);
    let refused = setup.source.broadcast(&package).await;
    assert!(
        matches!(&refused, Err(ChainError::Rejected { reason, is_final: false }) if reason.contains("takes no packages")),
        "{refused:?}"
    );
    *setup.between.missing.lock().unwrap() = "";
    setup.source.broadcast(&package).await.unwrap();
    assert_eq!(setup.devnet.mempool(), package);
}

#[tokio::test]
async fn a_server_that_is_busy_elsewhere_or_no_esplora_is_waited_for() {
    let setup = Setup::new().await;
    let busy: [(&str, Lie); 4] = [
        ("HTTP status 429", |_, _, _| (429, b"slow down".to_vec())),
        ("HTTP status 503", |_, _, _| (503, vec![])),
        ("refers to another address", |_, _, _| (301, vec![])),
        ("no Esplora server at this path", |_, _, _| (404, vec![])),
    ];
    for (reason, lie) in busy {
        setup.lie(lie);
        let error = EsploraSource::new(client(&setup.url, Network::Regtest))
            .tip()
            .await
            .unwrap_err();
        let is_waited_for = error.is_source_unavailable() && error.to_string().contains(reason);
        assert!(is_waited_for, "{error} for {reason}");
    }
    setup.lie(|_, _, _| (200, b"<!DOCTYPE html>".to_vec()));
    let page = setup.source.tip().await;
    assert!(matches!(page, Err(ChainError::Malformed(_))), "{page:?}");
    // A server without estimates.
    setup.lie(|path, status, body| match path {
        "/fee-estimates" => (404, vec![]),
        _ => (status, body),
    });
    assert!(!setup.source.fee_rates().await.unwrap().is_estimate);
}

#[tokio::test]
async fn a_node_at_a_block_that_left_the_chain_while_its_host_was_stopped_finds_the_way_back() {
    let devnet = Kind::Esplora.devnet().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("headers");
    let source = || {
        let client = client(&devnet.esplora_url().unwrap(), Network::Regtest);
        Arc::new(EsploraSource::with_headers_file(client, &file).unwrap())
    };
    let fork = devnet.tip();
    devnet.mine_to_wallet(3).unwrap();
    let known = devnet.tip();
    let follower = Follower::start(source(), FollowerConfig::default());
    let mut node = follower
        .subscribe(fork, WatchList::default())
        .await
        .unwrap();
    let mut last = None;
    while last != Some(known) {
        if let ChainEvent::Synced { tip } = node.events.recv().await.unwrap() {
            last = Some(tip);
        }
    }
    drop(follower);

    devnet.reorg(3, vec![]).unwrap();
    // The server itself has forgotten them.
    let forgetful = EsploraSource::new(client(&devnet.esplora_url().unwrap(), Network::Regtest));
    assert!(matches!(
        forgetful.header(&known.hash).await,
        Err(ChainError::NotFound(_))
    ));
    let follower = Follower::start(source(), FollowerConfig::default());
    let mut node = follower
        .subscribe(known, WatchList::default())
        .await
        .unwrap();
    let first = node.events.recv().await.unwrap();
    assert!(
        matches!(first, ChainEvent::Disconnected { fork: at } if at == fork),
        "{first:?}"
    );
    let next = node.events.recv().await.unwrap();
    assert!(matches!(next, ChainEvent::Connected { height, .. } if height == fork.height + 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let source = EsploraSource::new(client(&url, Network::Regtest));
    let tip = source.tip().await;
    assert!(is_unreachable(tip));
}

#[tokio::test]
async fn blocks_of_the_best_chain_have_their_heights() {
    let devnet = Kind::Esplora.devnet().await;
    let client = client(&devnet.esplora_url().unwrap(), Network::Regtest);
    let BlockRef { height, hash } = devnet.tip();
    assert_eq!(client.tip_height().await.unwrap(), height);
    assert_eq!(client.block_height(&hash).await.unwrap(), height);
    assert_eq!(client.block_status(&hash).await.unwrap(), Some(height));
    let nothing: BlockHash = bitcoin::hashes::Hash::all_zeros();
    assert_eq!(client.block_status(&nothing).await.unwrap(), None);
}
