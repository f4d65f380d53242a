//! Connections of clients of the host's onion services, as the Tor process hands them over: over loopback, with the session's secret
//! in front.

use std::io::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longhand_link::carrier::admission::{Admission, Places, SourceNetwork};
use longhand_link::carrier::guest::{self, Guest};
use longhand_tor::control::{Arrival, Secret};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::PEERS;

/// From a connection to its first bytes.
const FIRST_BYTES: Duration = Duration::from_secs(5);
/// Connections of which the first bytes are not read yet.
const UNREAD: usize = 128;
/// Connections that wait to be taken.
const ARRIVING: usize = 64;
/// Pause after an error of the operating system.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the Tor process connects.
pub(crate) struct Arrivals {
    listener: TcpListener,
    address: SocketAddr,
    /// Of the process that runs now.
    secret: Arc<Mutex<Secret>>,
}

/// The connections, by their service.
pub(crate) struct Arriving {
    /// To the services for phones.
    pub links: mpsc::Receiver<Guest>,
    /// To the service for the hub's peers.
    pub peers: mpsc::Receiver<Guest>,
}

impl Arrivals {
    pub async fn bind(secret: Arc<Mutex<Secret>>) -> Result<Arrivals> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Arrivals {
            address: listener.local_addr()?,
            listener,
            secret,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections from now on, as the future is polled.
    pub fn take(self) -> (impl Future<Output = ()> + Send + 'static, Arriving) {
        let (links, links_arriving) = mpsc::channel(ARRIVING);
        let (peers, peers_arriving) = mpsc::channel(ARRIVING);
        let arriving = Arriving {
            links: links_arriving,
            peers: peers_arriving,
        };
        (self.run(links, peers), arriving)
    }

    async fn run(self, links: mpsc::Sender<Guest>, peers: mpsc::Sender<Guest>) {
        let doors = Arc::new(Doors {
            secret: self.secret,
            links: Door::new(links),
            peers: Door::new(peers),
        });
        let unread = Arc::new(Semaphore::new(UNREAD));
        loop {
            let Ok(permit) = unread.clone().acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let doors = doors.clone();
                    tokio::spawn(async move {
                        doors.admit(stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of Tor could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A way in, with places of its own: strangers who come by Tor take none of those who come otherwise.
struct Door {
    guests: mpsc::Sender<Guest>,
    admission: Admission<SourceNetwork>,
}

impl Door {
    fn new(guests: mpsc::Sender<Guest>) -> Door {
        Door {
            guests,
            admission: Admission::new(Places::STRANGERS),
        }
    }
}

struct Doors {
    secret: Arc<Mutex<Secret>>,
    links: Door,
    peers: Door,
}

impl Doors {
    async fn admit(&self, mut stream: TcpStream) {
        let mut head = [0; Arrival::BYTES];
        let read = timeout(FIRST_BYTES, stream.read_exact(&mut head)).await;
        let Ok(Ok(_)) = read else { return };
        let secret = self.secret.lock();
        let secret = secret.unwrap_or_else(PoisonError::into_inner).clone();
        let Some(arrival) = Arrival::from_bytes(&head, &secret) else {
            tracing::debug!("a connection without the secret of the Tor process was closed");
            return;
        };
        let door = match arrival.service {
            PEERS => &self.peers,
            _ => &self.links,
        };
        if let Some(guest) = guest::admit(stream, source_of(arrival.circuit), &door.admission) {
            let _ = door.guests.send(guest).await;
        }
    }
}

/// An address that stands for a circuit, each in a network of its own: a client's circuit is all by which it can be told from others.
fn source_of(circuit: u64) -> IpAddr {
    const UNIQUE_LOCAL: u64 = 0xfd00_0000_0000_0000;
    let network = UNIQUE_LOCAL | (circuit & !0xff00_0000_0000_0000);
    IpAddr::V6(Ipv6Addr::from_bits(u128::from(network) << 64))
}
