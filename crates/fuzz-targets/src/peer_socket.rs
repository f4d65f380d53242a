//! A peer's bytes: in place of a handshake, and as messages after one (BOLT 1, 2, 7 and 8); at an owner's node, which asks
//! the phone for each handshake, and at a hub. The peer dials the node, or the node the peer.

use std::pin::Pin;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs;
use lightning::types::features::{ChannelTypeFeatures, InitFeatures};
use lightning::util::ser::Writeable;
use longhand_node::Node;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::{Command, ConnectPeer};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use crate::bolt8::{ACT_ONE, ACT_THREE, ACT_TWO, Dialled, Dialling, Sender};
use crate::chain::SmallChain;
use crate::node;

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(bool, tag = "1")]
    hub: bool,
    /// There is a handshake first, and the chunks are messages.
    #[prost(bool, tag = "2")]
    after_handshake: bool,
    /// The first message is not `init`, unless the script has one.
    #[prost(bool, tag = "3")]
    without_init: bool,
    #[prost(message, repeated, tag = "4")]
    chunks: Vec<Chunk>,
    /// The node dials.
    #[prost(bool, tag = "5")]
    dialled: bool,
    /// When the node dials and there is a handshake: a byte of Act Two that is changed.
    #[prost(uint32, tag = "6")]
    at: u32,
    #[prost(uint32, tag = "7")]
    xor: u32,
}

/// Raw bytes, or a message of this type.
#[derive(Clone, PartialEq, Message)]
struct Chunk {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    bytes: Vec<u8>,
    /// Sent in two parts.
    #[prost(uint32, tag = "3")]
    split: u32,
}

const CHUNKS: usize = 12;
/// Virtual time, in which the node finishes all its work.
const A_MOMENT: Duration = Duration::from_millis(20);

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    if script.chunks.is_empty() {
        return;
    }
    node::run(|| async {
        let (mut stream, theirs) = duplex(1 << 20);
        let line = node::Line::new(theirs);
        let node = match script.hub {
            true => node::hub(node::services(SmallChain::new(), line.clone())).await,
            false => {
                let node = node::owner_with(node::registration(), line.clone()).await;
                let node = node.expect("a node starts");
                node::attach(&node);
                node
            }
        };
        match script.dialled {
            true => dialled(&node, &mut stream, &script).await,
            false => {
                let theirs = line.take().expect("it is not dialled yet");
                node.accept(Box::new(theirs));
                dials(&node, &mut stream, &script).await;
            }
        }
        node::is_sound(&node).await;
        drop(stream);
        tokio::time::sleep(A_MOMENT).await;
        let overview = node.overview().await.expect("the node runs");
        assert_eq!((overview.peers, overview.restarts), (0, 0));
        node.stop().await;
    });
}

async fn dials(node: &Node, stream: &mut DuplexStream, script: &Script) {
    match script.after_handshake {
        true => messages(node, stream, script).await,
        false => bytes(stream, script).await,
    }
}

/// A responder that does not prove its key receives only Act One.
async fn dialled(node: &Node, stream: &mut DuplexStream, script: &Script) {
    let connect = Command {
        command: Some(Kind::ConnectPeer(ConnectPeer {
            node_id: Dialled::node_id().serialize().to_vec(),
            address: "127.0.0.1:9735".into(),
        })),
    };
    let asked = tokio::spawn({
        let node = node.clone();
        async move { timeout(node::PATIENCE, node.command(connect)).await }
    });
    let act_one = receive(stream).await;
    assert_eq!(act_one.len(), ACT_ONE, "the node does not dial");
    if !script.after_handshake {
        for chunk in script.chunks.iter().take(CHUNKS) {
            send(stream, &chunk.bytes, chunk.split).await;
            let received = receive(stream).await.len();
            assert_eq!(received, 0, "{received} bytes before the handshake is done");
        }
    } else {
        let (dialled, mut act_two) = Dialled::begin(&act_one);
        act_two[script.at as usize % ACT_TWO] ^= script.xor as u8;
        send(stream, &act_two, script.chunks[0].split).await;
        let mut act_three = receive(stream).await;
        if script.xor.is_multiple_of(256) {
            // The node's first message may follow at once.
            act_three.truncate(ACT_THREE);
            assert_eq!(act_three.len(), ACT_THREE, "a good peer was turned away");
            let sender = dialled.answered(&node.node_id(), &act_three);
            talk(node, stream, sender, script).await;
        } else {
            assert_eq!(act_three.len(), 0, "a changed Act Two was taken");
        }
    }
    asked.abort();
}

/// An initiator that does not finish the handshake receives at most Act Two.
async fn bytes(stream: &mut DuplexStream, script: &Script) {
    let mut received = 0;
    for chunk in script.chunks.iter().take(CHUNKS) {
        send(stream, &chunk.bytes, chunk.split).await;
        received += receive(stream).await.len();
    }
    assert!(
        received <= ACT_TWO,
        "{received} bytes before the handshake is done"
    );
}

async fn messages(node: &Node, stream: &mut DuplexStream, script: &Script) {
    let (dialling, act_one) = Dialling::begin(&node.node_id());
    send(stream, &act_one, 0).await;
    let act_two = receive(stream).await;
    assert_eq!(act_two.len(), ACT_TWO, "the node does not answer");
    let (sender, act_three) = dialling.answered(&act_two);
    send(stream, &act_three, 0).await;
    talk(node, stream, sender, script).await;
}

async fn talk(node: &Node, stream: &mut DuplexStream, mut sender: Sender, script: &Script) {
    if !script.without_init {
        let init = message(16, &init());
        send(stream, &sender.message(&init), 0).await;
        receive(stream).await;
        let overview = node.overview().await.expect("the node runs");
        assert_eq!(overview.peers, 1, "a good peer was turned away");
    }
    for chunk in script.chunks.iter().take(CHUNKS) {
        let message = message(chunk.kind as u16, &chunk.bytes);
        send(stream, &sender.message(&message), chunk.split).await;
        receive(stream).await;
    }
}

/// A peer that opens a channel, as far as the node accepts it.
pub(crate) async fn open_a_channel(node: &Node, stream: &mut DuplexStream) {
    let (dialling, act_one) = Dialling::begin(&node.node_id());
    send(stream, &act_one, 0).await;
    let act_two = receive(stream).await;
    if act_two.len() != ACT_TWO {
        return;
    }
    let (mut sender, act_three) = dialling.answered(&act_two);
    send(stream, &act_three, 0).await;
    let funding_created = [&[7; 32][..], &[1; 32], &[0, 0], &[1; 64]].concat();
    for (kind, body) in [(16, init()), (32, open_channel()), (34, funding_created)] {
        let message = message(kind, &body);
        send(stream, &sender.message(&message), 0).await;
        receive(stream).await;
    }
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), body].concat()
}

/// A node that closes the connection is no failure.
async fn send(stream: &mut DuplexStream, bytes: &[u8], split: u32) {
    let (first, second) = bytes.split_at(bytes.len().min(split as usize));
    for part in [first, second] {
        if !part.is_empty() && stream.write_all(part).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

/// All bytes that the node sends, until it sends no more.
async fn receive(stream: &mut DuplexStream) -> Vec<u8> {
    let mut received = Vec::new();
    let mut stream = Pin::new(stream);
    loop {
        match timeout(A_MOMENT, stream.read_buf(&mut received)).await {
            Ok(Ok(1..)) => {}
            _ => return received,
        }
    }
}

fn init() -> Vec<u8> {
    let mut features = InitFeatures::empty();
    features.set_data_loss_protect_required();
    features.set_variable_length_onion_required();
    features.set_payment_secret_required();
    features.set_static_remote_key_required();
    features.set_anchors_zero_fee_htlc_tx_optional();
    features.set_channel_type_required();
    msgs::Init {
        features,
        networks: None,
        remote_network_address: None,
    }
    .encode()
}

fn some_key(byte: u8) -> PublicKey {
    let secret = bitcoin::secp256k1::SecretKey::from_slice(&[byte; 32]).unwrap();
    secret.public_key(crate::secp::secp())
}

fn open_channel() -> Vec<u8> {
    msgs::OpenChannel {
        common_fields: msgs::CommonOpenChannelFields {
            chain_hash: bitcoin::constants::ChainHash::REGTEST,
            temporary_channel_id: lightning::ln::types::ChannelId([7; 32]),
            funding_satoshis: 1_000_000,
            dust_limit_satoshis: 354,
            max_htlc_value_in_flight_msat: 1_000_000_000,
            htlc_minimum_msat: 1,
            commitment_feerate_sat_per_1000_weight: 253,
            to_self_delay: 144,
            max_accepted_htlcs: 50,
            funding_pubkey: some_key(1),
            revocation_basepoint: some_key(2),
            payment_basepoint: some_key(3),
            delayed_payment_basepoint: some_key(4),
            htlc_basepoint: some_key(5),
            first_per_commitment_point: some_key(6),
            channel_flags: 0,
            shutdown_scriptpubkey: Some(bitcoin::ScriptBuf::new()),
            channel_type: Some(ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()),
        },
        push_msat: 0,
        channel_reserve_satoshis: 10_000,
    }
    .encode()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let chunk = |kind, bytes: Vec<u8>| Chunk {
        kind,
        bytes,
        split: 0,
    };
    let hash = bitcoin::constants::ChainHash::REGTEST.to_bytes();
    let point = some_key(9).serialize();
    let of_channel = |rest: &[u8]| [&[7; 32][..], rest].concat();
    let good = vec![
        chunk(18, vec![0, 8, 0, 2, 0, 0]),
        chunk(17, of_channel(b"\0\x05error")),
        chunk(1, of_channel(b"\0\x07warning")),
        chunk(32, open_channel()),
        chunk(34, of_channel(&[&[1; 32][..], &[0, 0], &[1; 64]].concat())),
        chunk(36, of_channel(&point)),
        chunk(38, of_channel(b"\0\x16\0\x14aaaaaaaaaaaaaaaaaaaa")),
        chunk(39, of_channel(&[0; 72])),
        chunk(
            128,
            of_channel(&[&[0; 16][..], &[1; 32], &[0; 4], &[0], &point, &[2; 1332]].concat()),
        ),
        chunk(130, of_channel(&[&[0; 8][..], &[3; 32]].concat())),
        chunk(131, of_channel(&[0; 10])),
        chunk(132, of_channel(&[&[1; 64][..], &[0, 0]].concat())),
        chunk(133, of_channel(&[&[1; 32][..], &point].concat())),
        chunk(134, of_channel(&[0, 0, 1, 0])),
        chunk(135, of_channel(&[0; 42])),
        chunk(136, of_channel(&[&[0; 16][..], &[0; 32], &point].concat())),
        chunk(
            256,
            [
                &[1; 256][..],
                &[0, 0],
                &hash,
                &[0; 8],
                &point,
                &point,
                &point,
                &point,
            ]
            .concat(),
        ),
        chunk(
            257,
            [&[1; 64][..], &[0, 0], &[0; 4], &point, &[0; 35], &[0, 0]].concat(),
        ),
        chunk(
            258,
            [
                &[1; 64][..],
                &hash,
                &[0; 8],
                &[0; 4],
                &[1, 0, 0, 40],
                &[0; 24],
            ]
            .concat(),
        ),
        chunk(261, [&hash[..], &[0, 9, 0], &[0; 8]].concat()),
        chunk(262, [&hash[..], &[1]].concat()),
        chunk(263, [&hash[..], &[0; 4], &[0, 0, 0, 9]].concat()),
        chunk(
            264,
            [&hash[..], &[0; 4], &[0, 0, 0, 9, 1, 0, 1, 0]].concat(),
        ),
        chunk(265, [&hash[..], &[0; 4], &[255; 4]].concat()),
        chunk(513, [&point[..], &[0, 66], &[0; 66]].concat()),
        chunk(7, vec![0, 3, 1, 2, 3]),
        chunk(64, [&hash[..], &[7; 32], &[0; 64]].concat()),
        chunk(32769, vec![1, 2, 3]),
    ];
    let mut scripts = Vec::new();
    for hub in [false, true] {
        let script = |after_handshake, without_init, chunks: Vec<Chunk>| Script {
            hub,
            after_handshake,
            without_init,
            chunks,
            ..Script::default()
        };
        for chunk in &good {
            scripts.push(script(true, false, vec![chunk.clone()]));
        }
        scripts.push(script(true, false, good[..8].to_vec()));
        scripts.push(script(true, true, vec![chunk(18, vec![0, 1, 0, 0])]));
        scripts.push(script(true, true, vec![chunk(16, init())]));
        let (_, act_one) = Dialling::begin(&some_key(1));
        let split = Chunk {
            split: 20,
            ..chunk(0, act_one.clone())
        };
        scripts.push(script(false, false, vec![split, chunk(0, vec![0; 66])]));
        scripts.push(script(false, false, vec![chunk(0, vec![0; 50])]));
        let rest = act_one.iter().map(|byte| chunk(0, vec![*byte]));
        scripts.push(script(false, false, rest.collect()));
        let dialled = |script| Script {
            dialled: true,
            ..script
        };
        let changed = |at, xor| Script {
            at,
            xor,
            ..dialled(script(true, false, good[..1].to_vec()))
        };
        scripts.push(dialled(script(true, false, good[..8].to_vec())));
        scripts.push(dialled(script(true, true, vec![chunk(16, init())])));
        scripts.push(dialled(script(false, false, vec![chunk(0, vec![0; 50])])));
        scripts.push(dialled(script(false, false, vec![chunk(0, act_one)])));
        scripts.extend([(0, 1), (1, 6), (20, 1), (40, 1)].map(|(at, xor)| changed(at, xor)));
    }
    scripts.iter().map(Message::encode_to_vec).collect()
}
