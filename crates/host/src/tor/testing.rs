#![allow(clippy::unwrap_used, clippy::expect_used)]
//! A Tor process of the test's own: its control protocol over pipes in memory, and its SOCKS over loopback.

use std::sync::Mutex as StdMutex;

use longhand_tor::Step;
use longhand_tor::control::{Order, Report, Setup, from_line, to_line};
use tempfile::TempDir;
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf,
    WriteHalf, split,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::process::Launched;
use super::*;

/// A process that the host has started, as the test plays it.
pub struct FakeProcess {
    pub orders: Lines<BufReader<ReadHalf<DuplexStream>>>,
    pub reports: WriteHalf<DuplexStream>,
    pub setup: Setup,
}

impl FakeProcess {
    pub async fn new(end: DuplexStream) -> FakeProcess {
        let (read, reports) = split(end);
        let mut orders = BufReader::new(read).lines();
        let setup = orders.next_line().await.unwrap().unwrap();
        FakeProcess {
            setup: from_line(setup.as_bytes()).unwrap(),
            orders,
            reports,
        }
    }

    pub async fn ordered(&mut self) -> Service {
        let line = self.orders.next_line().await.unwrap().unwrap();
        let Order::Serve(service) = from_line(line.as_bytes()).unwrap();
        service
    }

    pub async fn report(&mut self, report: Report) {
        self.reports.write_all(&to_line(&report)).await.unwrap();
    }

    /// Serves SOCKS at a port of the test's.
    pub async fn listen(&mut self) -> TcpListener {
        let socks = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socks.local_addr().unwrap();
        self.report(Report::Listening { socks: address }).await;
        let ready = Progress {
            step: Step::Service,
            percent: 100,
            problem: None,
        };
        self.report(Report::Progress(ready)).await;
        socks
    }
}

/// Starts processes that the test plays.
pub struct FakeLaunch(StdMutex<mpsc::UnboundedSender<DuplexStream>>);

impl FakeLaunch {
    /// And the ends of the processes that it starts, for [`FakeProcess::new`].
    pub fn new() -> (FakeLaunch, mpsc::UnboundedReceiver<DuplexStream>) {
        let (launches, launched) = mpsc::unbounded_channel();
        (FakeLaunch(StdMutex::new(launches)), launched)
    }
}

impl Launch for FakeLaunch {
    fn launch(&self) -> Result<Launched> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let sent = self.0.lock().unwrap().send(far);
        sent.map_err(|_| Error::from(ErrorKind::NotFound))?;
        let (reports, orders) = split(near);
        Ok(Launched {
            orders: Box::new(orders),
            reports: Box::new(reports),
            child: None,
        })
    }
}

pub struct World {
    pub tor: Arc<Tor>,
    pub arrivals: Option<Arrivals>,
    pub launched: mpsc::UnboundedReceiver<DuplexStream>,
    _dir: TempDir,
}

impl World {
    pub async fn new(change: impl FnOnce(&mut HostConfig)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut config = HostConfig {
            data_dir: dir.path().to_owned(),
            ..HostConfig::default()
        };
        config.tor.enabled = true;
        change(&mut config);
        let (launch, launched) = FakeLaunch::new();
        let open = OpenTor::with(&config, Box::new(launch)).await.unwrap();
        World {
            tor: open.tor,
            arrivals: Some(open.arrivals),
            launched,
            _dir: dir,
        }
    }

    pub async fn process(&mut self) -> FakeProcess {
        FakeProcess::new(self.launched.recv().await.unwrap()).await
    }

    pub async fn ready(&self) {
        let mut state = self.tor.state();
        let ready = |state: &TorState| state.socks.is_some() && state.problem().is_none();
        state.wait_for(ready).await.unwrap();
    }
}

/// What one connection asks a SOCKS proxy for (RFC 1928, 1929): user, password, host and port. It is answered with `status`.
pub async fn asked(socks: &TcpListener, status: u8) -> (TcpStream, [String; 3], u16) {
    let (mut stream, _) = socks.accept().await.unwrap();
    let methods = read_counted(&mut stream, 1).await;
    assert!(methods.contains(&2), "it offers a password");
    stream.write_all(&[5, 2]).await.unwrap();
    let user = read_counted(&mut stream, 1).await;
    let password = read_counted(&mut stream, 0).await;
    stream.write_all(&[1, 0]).await.unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head, [5, 1, 0, 3], "a connection to a name");
    let host = read_counted(&mut stream, 0).await;
    let port = stream.read_u16().await.unwrap();
    let answer = [5, status, 0, 1, 0, 0, 0, 0, 0, 0];
    stream.write_all(&answer).await.unwrap();
    let text = [user, password, host].map(|bytes| String::from_utf8(bytes).unwrap());
    (stream, text, port)
}

/// Skips some bytes; then a length, and so many bytes.
async fn read_counted(stream: &mut TcpStream, skipped: usize) -> Vec<u8> {
    stream.read_exact(&mut vec![0; skipped]).await.unwrap();
    let mut bytes = vec![0; stream.read_u8().await.unwrap().into()];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}
