//! A port of this machine that leads to one place through Tor, for a library that dials itself. Others on this machine reach that
//! place too: it must ask for credentials.

use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use longhand_link::Connect;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::TorConnector;

/// Pause after an error of the operating system.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at once.
const MOST: usize = 64;

pub(super) async fn listen(
    tor: TorConnector,
    host: &str,
    port: u16,
) -> Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let host = host.to_owned();
    let serving = async move {
        let mut open = JoinSet::new();
        loop {
            while open.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) if open.len() < MOST => {
                    open.spawn(join(stream, tor.clone(), host.clone(), port));
                }
                Ok(_) => tracing::warn!(
                    "too many connections of this machine go through Tor to {host}: one was closed"
                ),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be forwarded");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    Ok((address, tokio::spawn(serving)))
}

async fn join(mut near: TcpStream, tor: TorConnector, host: String, port: u16) {
    let joined = async {
        near.set_nodelay(true)?;
        let mut far = tor.connect(&host, port).await?;
        copy_bidirectional(&mut near, &mut far).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(%error, "a forwarded connection has ended");
    }
}
