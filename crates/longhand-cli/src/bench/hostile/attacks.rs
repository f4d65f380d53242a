//! The attacks. Each goes on until it is aborted, and counts what it sends and how it is answered.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, Secp256k1, rand};
use futures::future::join_all;
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt};
use longhand_phone::input::PeerAddress;
use longhand_phone::{DialOptions, Phone};
use longhand_testkit::{KitError, vault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::interval;

use super::http2::{AttachCall, Frames, MAX_STREAM, PREFACE};
use super::tally::Tally;

/// Connections at one time, from one address: more than the host takes of strangers there.
const CONNECTIONS: usize = 80;
/// Streams that are opened by one write.
const STREAMS_OF_WRITE: u32 = 128;
/// `SO_SNDBUF`, in bytes: streams that wait here were not sent, and are not to be counted.
const SEND_BUFFER: u32 = 16 << 10;
/// Commands that are unanswered at one time: nearly as many as a link takes.
const COMMANDS: usize = 1_000;
/// An address of this machine where nobody listens.
const NOBODY: &str = "127.0.0.1:1";

/// Opens streams at the link's port. A connection that the host closes is followed by another.
///
/// # Errors
/// Never: without the host, connections are refused.
pub async fn streams(link: SocketAddr, tally: Tally) -> Result<(), KitError> {
    let call = AttachCall::to(&link.to_string());
    let each = (0..CONNECTIONS).map(|_| async {
        loop {
            // Its counts say how it ended.
            let _ = connection(link, &call, &tally).await;
        }
    });
    join_all(each).await;
    Ok(())
}

/// One connection, until the host closes it.
async fn connection(link: SocketAddr, call: &AttachCall, tally: &Tally) -> io::Result<()> {
    let refused = || tally.count("connections refused at once", 1);
    let mut stream = connect(link).await.inspect_err(|_| refused())?;
    stream.write_all(PREFACE).await.inspect_err(|_| refused())?;
    // The host's SETTINGS, or the end.
    if !matches!(stream.peek(&mut [0]).await, Ok(1..)) {
        refused();
        return Ok(());
    }
    tally.count("connections taken", 1);
    let (reader, writer) = stream.split();
    tokio::select! {
        read = count_answers(reader, tally) => read,
        written = open_streams(writer, call, tally) => written,
    }
}

async fn connect(link: SocketAddr) -> io::Result<TcpStream> {
    let socket = match link {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.connect(link).await
}

async fn open_streams(
    mut writer: WriteHalf<'_>,
    call: &AttachCall,
    tally: &Tally,
) -> io::Result<()> {
    let mut frames = Vec::new();
    let mut ids = (1..=MAX_STREAM).step_by(2).peekable();
    while ids.peek().is_some() {
        frames.clear();
        let mut opened = 0;
        for id in ids.by_ref().take(STREAMS_OF_WRITE as usize) {
            call.write(id, &mut frames);
            opened += 1;
        }
        writer.write_all(&frames).await?;
        tally.made(opened);
    }
    Ok(())
}

async fn count_answers(mut reader: ReadHalf<'_>, tally: &Tally) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut bytes = [0; 16 << 10];
    loop {
        let read = reader.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let counted = frames.count(bytes.get(..read).unwrap_or_default());
        tally.count("streams refused (RST_STREAM)", counted.reset);
        tally.count("connections ended by the host (GOAWAY)", counted.goaway);
    }
}

/// The attacker's own phone, paired as an owner's.
///
/// # Errors
/// When the host does not take it.
pub async fn paired(dir: &Path, code: &str) -> Result<Phone, KitError> {
    let phone = Phone::new(vault::create(dir)?, DialOptions::default())?;
    phone.pair(code).await?;
    Ok(phone)
}

/// Commands of one owner to connect to nodes that do not exist.
///
/// # Errors
/// Never: refusals are counted.
pub async fn connect_to_nobody(phone: Phone, pace: Pace, tally: Tally) -> Result<(), KitError> {
    connect_peers(&phone, NOBODY, pace, &tally).await;
    Ok(())
}

/// The same to a listener that takes every connection and sends nothing.
///
/// # Errors
/// When it cannot listen.
pub async fn connect_to_tarpits(phone: Phone, pace: Pace, tally: Tally) -> Result<(), KitError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?.to_string();
    tokio::select! {
        held = hold(listener, &tally) => held?,
        () = connect_peers(&phone, &address, pace, &tally) => {}
    }
    Ok(())
}

/// How many commands are sent in a second; `None` for as many as the link takes.
#[derive(Clone, Copy)]
pub struct Pace(pub Option<NonZeroU32>);

impl Pace {
    /// An item for each command, when it is to be sent.
    fn ticks(self) -> impl Stream<Item = ()> {
        let each = self
            .0
            .map(|a_second| Duration::from_secs(1) / a_second.get());
        stream::unfold(each.map(interval), async |mut ticks| {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            Some(((), ticks))
        })
    }
}

/// Commands for nodes at this address, each with another node id, no more than [`COMMANDS`] unanswered.
async fn connect_peers(phone: &Phone, address: &str, pace: Pace, tally: &Tally) {
    let secp = Secp256k1::signing_only();
    let commands = pace.ticks().map(|()| {
        let (_, node_id) = secp.generate_keypair(&mut rand::thread_rng());
        connect_peer(phone, node_id, address, tally)
    });
    commands
        .buffer_unordered(COMMANDS)
        .for_each(std::future::ready)
        .await;
}

async fn connect_peer(phone: &Phone, node_id: PublicKey, address: &str, tally: &Tally) {
    let to = PeerAddress {
        node_id,
        address: address.to_owned(),
    };
    tally.made(1);
    match phone.connect_peer(Some(to)).await {
        Ok(()) => tally.count("connected", 1),
        Err(error) => tally.count(error.code(), 1),
    }
}

/// Takes every connection, and keeps it until its other end closes it.
async fn hold(listener: TcpListener, tally: &Tally) -> io::Result<()> {
    let mut held = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                held.push(until_closed(accepted?.0));
                tally.at_once("connections open at most", held.len() as u64);
            }
            Some(()) = held.next() => {}
        }
    }
}

async fn until_closed(mut stream: TcpStream) {
    let mut bytes = [0; 256];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
}
