//! The Tor process of a host. It is a process of its own because Arti may end the process that it runs in: that then ends a carrier
//! alone, and the host starts it again. See [`crate::control`] for what it says to its host.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
    copy_bidirectional,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tor_socksproto::{
    Handshake, NextStep, SocksAuth, SocksCmd, SocksProxyHandshake, SocksRequest, SocksStatus,
};

use crate::arti::{Arrived, OnionService, Tor, TorConfig, TorError};
use crate::control::{
    Arrival, LineError, MAX_LINE, Order, Report, Secret, Service, Setup, from_line, to_line,
};

/// From a connection of the host's to its request.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a stream through Tor: the host has shorter limits of its own.
const CONNECT: Duration = Duration::from_secs(120);
/// Connections of the host at once.
const CONNECTIONS: usize = 16_384;
/// Looks at the client's progress so often.
const LOOK: Duration = Duration::from_millis(250);
/// Pause before the network is tried again, after Arti has given up.
const AGAIN: Duration = Duration::from_secs(5);

/// Why the process has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The input is none of the protocol.
    #[error(transparent)]
    Line(#[from] LineError),
    /// Arti.
    #[error(transparent)]
    Tor(#[from] TorError),
    /// Input, output or loopback.
    #[error("the Tor process has lost its host: {0}")]
    Io(#[from] io::Error),
    /// It was started by hand.
    #[error(
        "`longhand tor` is started by a host, which writes to its standard input: set tor.enabled in the host's settings"
    )]
    NoSetup,
}

/// Serves a host until the end of `orders`.
///
/// # Errors
/// [`ProcessError`].
pub async fn run(
    orders: impl AsyncRead + Unpin,
    reports: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), ProcessError> {
    let mut orders = BufReader::new(orders);
    let Some(line) = read_line(&mut orders).await? else {
        return Err(ProcessError::NoSetup);
    };
    let setup: Setup = from_line(&line)?;
    let tor = Tor::start(&TorConfig {
        directory: setup.directory.clone(),
        network_file: setup.network_file.clone(),
        is_service: true,
    })?;
    // A host's service is never without use.
    let _awake = tor.keep_awake();
    let (reporter, reported) = mpsc::unbounded_channel();
    let writing = tokio::spawn(write_reports(reported, reports));
    let socks = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = socks.local_addr()?;
    let _ = reporter.send(Report::Listening { socks: address });
    let proxy = tokio::spawn(serve_socks(socks, tor.clone(), setup.secret.clone()));
    let progress = tokio::spawn(report_progress(tor.clone(), reporter.clone()));
    let mut services = Services {
        tor,
        setup: Arc::new(setup),
        reporter,
        running: HashMap::new(),
    };
    let ended = async {
        while let Some(line) = read_line(&mut orders).await? {
            match from_line(&line)? {
                Order::Serve(service) => services.serve_or_report(service),
            }
        }
        Ok(())
    };
    let ended = ended.await;
    for task in [proxy, progress, writing] {
        task.abort();
    }
    ended
}

/// A line without its end; `None` at the end of the input.
async fn read_line(from: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut bounded = from.take(MAX_LINE as u64 + 1);
    bounded.read_until(b'\n', &mut line).await?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}

async fn write_reports(
    mut reports: mpsc::UnboundedReceiver<Report>,
    mut to: impl AsyncWrite + Unpin,
) {
    while let Some(report) = reports.recv().await {
        let line = to_line(&report);
        if to.write_all(&line).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// Loads the directory, again and again until it is there, and reports each change.
async fn report_progress(tor: Tor, reporter: mpsc::UnboundedSender<Report>) {
    let loading = async {
        while let Err(error) = tor.bootstrap().await {
            tracing::warn!("the Tor network is not reached: {error}");
            tokio::time::sleep(AGAIN).await;
        }
        std::future::pending::<()>().await;
    };
    let reporting = async {
        let mut last = None;
        loop {
            let now = tor.progress();
            if last.as_ref() != Some(&now) {
                let _ = reporter.send(Report::Progress(now.clone()));
                last = Some(now);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::join!(loading, reporting);
}

struct Services {
    tor: Tor,
    setup: Arc<Setup>,
    reporter: mpsc::UnboundedSender<Report>,
    /// Tasks that serve them, and changes of their clients.
    running: HashMap<u32, (Service, mpsc::UnboundedSender<Service>, JoinHandle<()>)>,
}

impl Services {
    /// One service that cannot be served ends no other.
    fn serve_or_report(&mut self, service: Service) {
        let id = service.id;
        if let Err(error) = self.serve(service) {
            let _ = self.reporter.send(Report::Service {
                id,
                is_published: false,
                problem: Some(error.to_string()),
            });
        }
    }

    fn serve(&mut self, service: Service) -> Result<(), TorError> {
        if let Some((known, changes, _)) = self.running.get_mut(&service.id)
            && known.seed == service.seed
        {
            known.clients.clone_from(&service.clients);
            let _ = changes.send(service);
            return Ok(());
        }
        let onion = self.tor.serve(service.clone())?;
        let (changes, changed) = mpsc::unbounded_channel();
        let setup = self.setup.clone();
        let reporter = self.reporter.clone();
        let task = tokio::spawn(hand_over(onion, service.id, setup, reporter, changed));
        let before = self.running.insert(service.id, (service, changes, task));
        if let Some((_, _, task)) = before {
            task.abort();
        }
        Ok(())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for (_, _, task) in self.running.values() {
            task.abort();
        }
    }
}

/// Gives the connections of one service to the host, and reports its state.
async fn hand_over(
    mut onion: OnionService,
    id: u32,
    setup: Arc<Setup>,
    reporter: mpsc::UnboundedSender<Report>,
    mut changes: mpsc::UnboundedReceiver<Service>,
) {
    let mut states = onion.states();
    loop {
        tokio::select! {
            Some(arrived) = onion.accept() => {
                tokio::spawn(join(arrived, id, setup.clone()));
            }
            Some(state) = states.next() => {
                let _ = reporter.send(Report::Service {
                    id,
                    is_published: state.is_published,
                    problem: state.problem,
                });
            }
            Some(service) = changes.recv() => {
                if let Err(error) = onion.set_clients(service.clients) {
                    tracing::error!(id, "{error}");
                }
            }
            else => return,
        }
    }
}

/// One connection, until either end closes it.
async fn join(arrived: Arrived, service: u32, setup: Arc<Setup>) {
    let Arrived {
        circuit,
        mut stream,
    } = arrived;
    let joined = async {
        let mut host = TcpStream::connect(setup.arrivals).await?;
        host.set_nodelay(true)?;
        let arrival = Arrival { service, circuit };
        host.write_all(arrival.to_bytes(&setup.secret).as_ref())
            .await?;
        copy_bidirectional(&mut stream, &mut host).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(%error, "a connection of a client has ended");
    }
}

/// Serves SOCKS 5 to the host.
async fn serve_socks(listener: TcpListener, tor: Tor, secret: Secret) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (tor, secret) = (tor.clone(), secret.clone());
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = proxy(stream, &tor, &secret).await {
                        tracing::debug!(%error, "a connection through Tor has ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of the host could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn proxy(mut stream: TcpStream, tor: &Tor, secret: &Secret) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let handshake = tokio::time::timeout(HANDSHAKE, read_request(&mut stream));
    let request = handshake.await??;
    let refuse = async |stream: &mut TcpStream, status| {
        let reply = reply(&request, status)?;
        stream.write_all(&reply).await
    };
    let SocksAuth::Username(isolation, password) = request.auth() else {
        return refuse(&mut stream, SocksStatus::NOT_ALLOWED).await;
    };
    if !secret.is_password(password) {
        return refuse(&mut stream, SocksStatus::NOT_ALLOWED).await;
    }
    if request.command() != SocksCmd::CONNECT {
        return refuse(&mut stream, SocksStatus::COMMAND_NOT_SUPPORTED).await;
    }
    let isolation = String::from_utf8_lossy(isolation);
    let host = request.addr().to_string();
    let connecting = tor.connect(&host, request.port(), &isolation);
    let mut through = match tokio::time::timeout(CONNECT, connecting).await {
        Ok(Ok(through)) => through,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a stream through Tor was not opened");
            return refuse(&mut stream, SocksStatus::HOST_UNREACHABLE).await;
        }
        Err(_) => return refuse(&mut stream, SocksStatus::TTL_EXPIRED).await,
    };
    stream
        .write_all(&reply(&request, SocksStatus::SUCCEEDED)?)
        .await?;
    copy_bidirectional(&mut stream, &mut through).await?;
    Ok(())
}

async fn read_request(stream: &mut TcpStream) -> io::Result<SocksRequest> {
    let invalid = |error: tor_socksproto::Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut handshake = SocksProxyHandshake::new();
    let mut buffer = tor_socksproto::Buffer::new();
    loop {
        match handshake.step(&mut buffer).map_err(invalid)? {
            NextStep::Send(bytes) => stream.write_all(&bytes).await?,
            NextStep::Recv(mut receive) => {
                let read = stream.read(receive.buf()).await?;
                receive.note_received(read).map_err(invalid)?;
            }
            NextStep::Finished(finished) => {
                return finished.into_output_forbid_pipelining().map_err(invalid);
            }
        }
    }
}

fn reply(request: &SocksRequest, status: SocksStatus) -> io::Result<Vec<u8>> {
    request
        .reply(status, None)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
