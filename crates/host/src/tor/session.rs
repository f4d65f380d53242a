//! The supervisor of the Tor process: starts it, tells it what to serve, keeps its reports, and starts it again.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhand_base::text::excerpt;
use longhand_tor::Progress;
use longhand_tor::control::{MAX_LINE, Order, Report, Secret, Service, Setup, from_line, to_line};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::process::Launched;
use super::{Launch, STOP, Shared};
use crate::config::HostConfig;
use crate::files;

/// The pause before it is started again doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A process that ran so long has worked.
const GOOD_AFTER: Duration = Duration::from_secs(30);

/// The first line for the process.
pub(super) fn setup(config: &HostConfig, secret: Secret, arrivals: SocketAddr) -> Setup {
    let network_file = &config.tor.network_file;
    Setup {
        directory: absolute(config.data_dir.join("tor")),
        network_file: (!network_file.as_os_str().is_empty())
            .then(|| absolute(network_file.clone())),
        secret,
        arrivals,
    }
}

/// The process has the same working directory, but Arti wants absolute paths.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Keeps a process running until it is aborted, or the host stops.
pub(super) async fn supervise(launch: Box<dyn Launch>, mut setup: Setup, shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    let mut stopping = shared.is_stopping.subscribe();
    while !*stopping.borrow() {
        let began = Instant::now();
        let ended = run_once(launch.as_ref(), &setup, &shared).await;
        let Err(failure) = ended else { break };
        shared.state.send_modify(|state| {
            state.failure = Some(failure.clone());
            state.ends += 1;
        });
        if began.elapsed() >= GOOD_AFTER {
            pause = FIRST_PAUSE;
        }
        tracing::warn!("the Tor process has ended, and is started again: {failure}");
        let _ = timeout(pause, stopped(&mut stopping)).await;
        pause = LONGEST_PAUSE.min(pause * 2);
        // The next one has a secret of its own: somebody may have bound the port of this one meanwhile.
        if let Ok(secret) = files::random_secret(&setup.directory) {
            setup.secret = Secret::from_bytes(*secret);
            shared.set_secret(&setup.secret);
        }
    }
    shared.state.send_modify(|state| state.has_stopped = true);
}

/// Returns when the host stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await.map(drop);
}

/// One process, from its start to its end. `Ok` when the host stops.
async fn run_once(launch: &dyn Launch, setup: &Setup, shared: &Shared) -> Result<(), String> {
    let launched = launch.launch();
    let mut launched = launched.map_err(|error| format!("it cannot be started: {error}"))?;
    let talked = talk(&mut launched, setup, shared).await;
    // Nobody is sent to its port from here on.
    shared.state.send_modify(|state| {
        state.socks = None;
        state.progress = Progress::none();
    });
    let Launched { orders, child, .. } = launched;
    // The end of its input ends it.
    drop(orders);
    let status = match child {
        Some(mut child) => timeout(STOP, child.wait()).await.ok(),
        None => None,
    };
    match (talked, status) {
        (Ok(()), _) => Ok(()),
        (Err(failure), Some(Ok(status))) => Err(format!("{failure} ({status})")),
        (Err(failure), _) => Err(failure),
    }
}

async fn talk(launched: &mut Launched, setup: &Setup, shared: &Shared) -> Result<(), String> {
    let lost = |error: std::io::Error| format!("it has closed its input: {error}");
    let mut reports = BufReader::new(&mut launched.reports);
    let orders = &mut launched.orders;
    orders.write_all(&to_line(setup)).await.map_err(lost)?;
    let mut services = shared.services.subscribe();
    services.mark_changed();
    let mut stopping = shared.is_stopping.subscribe();
    let (mut served, mut published) = (HashMap::new(), HashSet::new());
    let mut line = Vec::new();
    loop {
        tokio::select! {
            read = read_line(&mut reports, &mut line) => {
                if !read? {
                    return Err("it has ended: its log has the reason".into());
                }
                let report = from_line(&line).map_err(|error| error.to_string())?;
                line.clear();
                take(report, shared, &mut published)?;
            }
            Ok(()) = services.changed() => {
                let wanted = services.borrow_and_update().clone();
                order(&wanted, &mut served, orders).await.map_err(lost)?;
            }
            () = stopped(&mut stopping) => return Ok(()),
        }
    }
}

/// Orders the services that the process does not serve so yet.
async fn order(
    wanted: &HashMap<u32, Service>,
    served: &mut HashMap<u32, Service>,
    orders: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    for (id, service) in wanted {
        if served.get(id) == Some(service) {
            continue;
        }
        orders
            .write_all(&to_line(&Order::Serve(service.clone())))
            .await?;
        served.insert(*id, service.clone());
    }
    orders.flush().await
}

/// Reads on; `true` when `line` is a whole line. May be cancelled: what was read stays in `line`.
async fn read_line(
    from: &mut (impl AsyncBufReadExt + AsyncRead + Unpin),
    line: &mut Vec<u8>,
) -> Result<bool, String> {
    let room = (MAX_LINE + 1).saturating_sub(line.len()) as u64;
    let read = from.take(room).read_until(b'\n', line).await;
    read.map_err(|error| format!("its output cannot be read: {error}"))?;
    match line.last() {
        Some(b'\n') => {
            line.pop();
            Ok(true)
        }
        _ if line.len() > MAX_LINE => Err("it wrote a line that is too long".into()),
        _ => Ok(false),
    }
}

/// `published` are the services that were reported as such.
fn take(report: Report, shared: &Shared, published: &mut HashSet<u32>) -> Result<(), String> {
    match report {
        Report::Listening { socks } if !socks.ip().is_loopback() => {
            return Err("it listens elsewhere than on loopback".into());
        }
        Report::Listening { socks } => shared.state.send_modify(|state| state.socks = Some(socks)),
        Report::Progress(progress) => shared.state.send_modify(|state| {
            if progress.is_ready() && !state.progress.is_ready() {
                tracing::info!("Tor is ready");
            }
            state.progress = Progress {
                problem: progress.problem.map(|text| excerpt(&text)),
                ..progress
            };
        }),
        Report::Service {
            id,
            is_published,
            problem,
        } if shared.services.borrow().contains_key(&id) => {
            if let Some(problem) = problem {
                let problem = excerpt(&problem);
                tracing::warn!(service = id, "an onion service has a problem: {problem}");
            }
            match is_published {
                true if published.insert(id) => {
                    tracing::info!(service = id, "an onion service is published");
                }
                true => {}
                false => drop(published.remove(&id)),
            }
        }
        // None that was ordered.
        Report::Service { .. } => {}
    }
    Ok(())
}
