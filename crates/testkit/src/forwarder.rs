//! A TCP forwarder that stands for distance: each byte arrives later than it was sent. It also stands for a network that is gone for a
//! while ([`Forwarder::silence`]).

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Chunks on their way, at most: enough for 50 ms at 300 MB/s.
const UNDER_WAY: usize = 1_024;

/// See the module. It ends, with its connections, when it is dropped.
pub struct Forwarder {
    address: SocketAddr,
    is_silent: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Forwarder {
    /// Forwards connections from a port of loopback that the system chooses to `to`. Bytes take `one_way` in each direction; so do
    /// the opening and the end of a connection.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(to: SocketAddr, one_way: Duration) -> std::io::Result<Forwarder> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (is_silent, silent) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, to, one_way, silent));
        Ok(Forwarder {
            address,
            is_silent,
            _tasks: tasks,
        })
    }

    /// Where it takes connections.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, until [`Forwarder::end_silence`], nothing is forwarded. The connections that there are, and those that are opened
    /// meanwhile, stay open and never carry anything again: as when a phone has lost its network, and its address with it.
    pub fn silence(&self) {
        self.is_silent.send_replace(true);
    }

    /// Connections that are opened from now on work.
    pub fn end_silence(&self) {
        self.is_silent.send_replace(false);
    }
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    one_way: Duration,
    silent: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let mut silent = silent.clone();
        connections.spawn(async move {
            let mut forwarding = pin!(connection(near, to, one_way));
            tokio::select! {
                biased;
                // Fails when the forwarder is dropped, and this with it.
                _ = silent.wait_for(|is_silent| *is_silent) => {}
                () = &mut forwarding => return,
            }
            // Its sockets stay open.
            std::future::pending::<()>().await;
        });
    }
}

async fn connection(near: TcpStream, to: SocketAddr, one_way: Duration) {
    // A handshake of TCP takes a round trip: the system has answered this one at once.
    let opened = Instant::now() + 2 * one_way;
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(
        forward(near_read, far_write, one_way, opened),
        forward(far_read, near_write, one_way, opened),
    );
}

/// Forwards one direction until it ends. Bytes sent before `opened` wait for it: the sender could not have sent them yet.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    one_way: Duration,
    opened: Instant,
) {
    let (sender, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let chunk = buffer.get(..count).unwrap_or_default().to_vec();
            let due = Instant::now().max(opened) + one_way;
            if sender.send((due, chunk)).await.is_err() {
                return;
            }
        }
        let _ = sender.send((Instant::now() + one_way, Vec::new())).await;
    };
    let write = async move {
        while let Some((due, chunk)) = under_way.recv().await {
            sleep_until(due).await;
            let written = match chunk.is_empty() {
                true => to.shutdown().await,
                false => to.write_all(&chunk).await,
            };
            if written.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
