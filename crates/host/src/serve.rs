//! The host's listeners: all are bound before anything runs, so that a port in use stops the start.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use longhand_base::system::suspensions;
use longhand_link::carrier::admission::{Admission, Places};
use longhand_link::carrier::guest::{self, Guest};
use longhand_link::carrier::hashmail::{HashmailListener, is_hashmail, is_lnc};
use longhand_link::carrier::mailbox::{MailboxListener, Reconnect};
use longhand_link::carrier::stream;
use longhand_link::carrier::tls::Certificate;
use longhand_link::{Address, Carrier, Carriers, DialOptions, LinkError, Listener};
use longhand_proto::operator::operator_server::OperatorServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;

use crate::apps::listen::AppListener;
use crate::config::{ConfigError, HostConfig, OperatorListen};
use crate::files::{self, FileError};
use crate::hub::Hub;
use crate::hub::socket::StrangerSocket;
use crate::operator::{self, Operator, OperatorApi, TokenCheck};
use crate::services::Services;
use crate::tor::{Arriving, OpenTor};
use crate::{Addresses, HostError, metrics};

/// Connections of peers that wait for the hub to take them.
const ARRIVING: usize = 16;

/// Listeners that are bound, and not served yet.
pub(crate) struct Listeners {
    pub addresses: Addresses,
    links: Vec<Box<dyn Listener>>,
    mailboxes: Vec<Address>,
    /// For dialling them.
    mailbox_options: DialOptions,
    peer: TcpListener,
    operator: OperatorSocket,
    metrics: Option<TcpListener>,
    apps: Option<AppListener>,
    tor: Option<OpenTor>,
}

enum OperatorSocket {
    Unix(UnixListener),
    Tcp(TcpListener, TokenCheck),
}

impl Listeners {
    pub async fn bind(
        config: &HostConfig,
        carriers: &Carriers,
        tor: Option<OpenTor>,
    ) -> Result<Listeners, HostError> {
        let mut links = Vec::new();
        for address in config.link_listen()? {
            links.push(carriers.listen(&address).await.map_err(link_error)?);
        }
        let mailboxes = config.link_mailboxes()?;
        let connector = tor.as_ref().map(|it| it.tor.mailbox_connector());
        let mailbox_options = DialOptions {
            carriers: carriers.clone(),
            ca_pem: read_ca(&config.link.mailbox_ca_file)?,
            connect: connector,
            ..DialOptions::default()
        };
        for mailbox in &mailboxes {
            check_mailbox(mailbox).map_err(mailbox_error)?;
        }
        let (peer, peer_address) = bind_tcp("peer.listen", config.peer.listen).await?;
        let (operator, operator_address) = bind_operator(config).await?;
        let (metrics, metrics_address) = match config.metrics_listen()? {
            Some(address) => {
                let (listener, bound) = bind_tcp("metrics.listen", address).await?;
                (Some(listener), Some(bound))
            }
            None => (None, None),
        };
        let apps = match config.apps_listen()? {
            Some(address) => Some(AppListener::bind(&address).await?),
            None => None,
        };
        let addresses = Addresses {
            apps: apps.as_ref().and_then(AppListener::address),
            link: links
                .iter()
                .flat_map(|link| link.addresses())
                .chain(mailboxes.iter().cloned())
                .chain(tor.as_ref().and_then(OpenTor::link_address))
                .collect(),
            peer: peer_address,
            peer_onion: tor.as_ref().and_then(|it| it.tor.peer_address()),
            operator: operator_address,
            metrics: metrics_address,
        };
        Ok(Listeners {
            addresses,
            links,
            mailboxes,
            mailbox_options,
            peer,
            operator,
            metrics,
            apps,
            tor,
        })
    }

    /// The addresses in pairing codes.
    pub fn link_addresses(&self, config: &HostConfig) -> Vec<String> {
        if !config.link.addresses.is_empty() {
            let mut addresses = config.link.addresses.clone();
            let onion = self.tor.as_ref().and_then(OpenTor::link_address);
            for address in self.mailboxes.iter().chain(&onion).map(Address::to_string) {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            return addresses;
        }
        let listening = &self.addresses.link;
        if listening.iter().any(is_unspecified) {
            tracing::warn!(
                "link.addresses is empty: pairing codes will not say where this host is"
            );
        }
        listening.iter().map(Address::to_string).collect()
    }

    /// Serves all of them until the host ends.
    pub fn serve(self, services: &Arc<Services>) {
        services.addresses.get_or_init(|| self.addresses);
        let certificates = self
            .links
            .iter()
            .filter_map(|it| certificate_of(&**it))
            .collect();
        services.health.certificates.get_or_init(|| certificates);
        let tasks = &services.tasks;
        for listener in self.links {
            tasks.spawn(services.links.clone().listen(listener));
        }
        for mailbox in &self.mailboxes {
            match wait_at(services, mailbox, self.mailbox_options.clone()) {
                Ok(reconnect) => {
                    tasks.spawn(reconnect_after_suspensions(reconnect));
                }
                // It was checked when the host was bound.
                Err(error) => tracing::error!(%error, "a mailbox is left out"),
            }
        }
        if let Some(tor) = self.tor {
            listen_on_tor(services, tor);
        }
        tasks.spawn(listen_for_peers(services.hub.clone(), self.peer));
        tasks.spawn(serve_operator(services.operator(), self.operator));
        if let Some(listener) = self.apps {
            tasks.spawn(listener.serve(services.apps.clone()));
        }
        if let Some(listener) = self.metrics {
            tasks.spawn(serve_metrics(services.clone(), listener));
        }
    }
}

/// Waits at a mailbox for all whom the host expects, until the host ends.
pub(crate) fn wait_at(
    services: &Arc<Services>,
    mailbox: &Address,
    options: DialOptions,
) -> Result<Reconnect, LinkError> {
    let meetings = services.meetings.meetings();
    let (listener, connected, reconnect): (Box<dyn Listener>, _, _) = match is_hashmail(mailbox) {
        true => {
            if is_lnc(mailbox) {
                services.apps.wait_at(mailbox, options.clone())?;
            }
            let listener = HashmailListener::open(mailbox, options, meetings)?;
            let (connected, reconnect) = (listener.connected(), listener.reconnect());
            (Box::new(listener), connected, reconnect)
        }
        false => {
            let listener = MailboxListener::open(mailbox, options, meetings)?;
            let (connected, reconnect) = (listener.connected(), listener.reconnect());
            (Box::new(listener), connected, reconnect)
        }
    };
    services
        .health
        .watch_mailbox(mailbox.to_string(), connected);
    let listening = services.links.clone().listen(listener);
    services.tasks.spawn(listening);
    Ok(reconnect)
}

fn check_mailbox(address: &Address) -> Result<(), LinkError> {
    match is_hashmail(address) {
        true => HashmailListener::check(address),
        false => MailboxListener::check(address).map(drop),
    }
}

/// The certificate of a listener with TLS, by the listener's authority.
fn certificate_of(listener: &dyn Listener) -> Option<(String, Certificate)> {
    let address = listener.addresses().into_iter().next()?;
    Some((address.authority().to_owned(), listener.certificate()?))
}

async fn bind_tcp(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), HostError> {
    let failed = |e| listen_error(key, address.to_string(), &e);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn bind_operator(config: &HostConfig) -> Result<(OperatorSocket, OperatorListen), HostError> {
    const KEY: &str = "operator.listen";
    match config.operator_listen()? {
        OperatorListen::Unix(path) => {
            let failed = |e| listen_error(KEY, path.display().to_string(), &e);
            let listener = operator::bind_socket(&path).map_err(failed)?;
            Ok((OperatorSocket::Unix(listener), OperatorListen::Unix(path)))
        }
        OperatorListen::Tcp(address) => {
            let (listener, bound) = bind_tcp(KEY, address).await?;
            let token = files::read_or_make_secret(&config.operator_token_file())?;
            let socket = OperatorSocket::Tcp(listener, TokenCheck::new(&token));
            Ok((socket, OperatorListen::Tcp(bound)))
        }
    }
}

fn listen_error(key: &'static str, address: String, error: &std::io::Error) -> HostError {
    let reason = match error.kind() {
        std::io::ErrorKind::AddrInUse => "it is in use".into(),
        _ => error.to_string(),
    };
    HostError::Listen {
        key,
        address,
        reason,
    }
}

/// Why a carrier cannot listen, with the setting that its address is from.
fn link_error(error: LinkError) -> HostError {
    match error {
        LinkError::Listen { address, reason } => HostError::Listen {
            key: "link.listen",
            address,
            reason,
        },
        LinkError::Unreadable { path, reason } => FileError::Io { path, reason }.into(),
        error @ (LinkError::Address { .. } | LinkError::UnknownCarrier(_)) => {
            ConfigError::Invalid(format!("link.listen: {error}")).into()
        }
        error => error.into(),
    }
}

fn mailbox_error(error: LinkError) -> HostError {
    ConfigError::Invalid(format!("link.mailboxes: {error}")).into()
}

/// Certificates to trust at mailboxes; `None` = the web's authorities.
fn read_ca(path: &Path) -> Result<Option<Vec<u8>>, HostError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let read = std::fs::read(path).map_err(|e| FileError::Io {
        path: path.to_owned(),
        reason: e.to_string(),
    });
    Ok(Some(read?))
}

/// Whether an address is that of all interfaces, which cannot be dialled.
fn is_unspecified(address: &Address) -> bool {
    let socket: Result<SocketAddr, _> = address.authority().parse();
    socket.is_ok_and(|socket| socket.ip().is_unspecified())
}

/// A machine that was suspended has lost its connection to the mailbox, and does not know it.
async fn reconnect_after_suspensions(reconnect: Reconnect) {
    let mut suspensions = suspensions();
    while let Some(()) = suspensions.recv().await {
        tracing::info!("this machine was suspended: dialling a mailbox anew");
        reconnect.now();
    }
}

/// Takes in the connections of the host's onion services.
fn listen_on_tor(services: &Arc<Services>, tor: OpenTor) {
    let addresses = tor.link_address().into_iter().collect();
    let (taking, arriving) = tor.arrivals.take();
    let Arriving { links, mut peers } = arriving;
    let listener = TorListener { addresses, links };
    let hub = services.hub.clone();
    let tasks = &services.tasks;
    tasks.spawn(taking);
    tasks.spawn(services.links.clone().listen(Box::new(listener)));
    tasks.spawn(async move {
        while let Some(guest) = peers.recv().await {
            hub.accept(Box::new(StrangerSocket::new(guest)));
        }
    });
}

/// Phones that come by an onion service.
struct TorListener {
    addresses: Vec<Address>,
    links: mpsc::Receiver<Guest>,
}

#[async_trait]
impl Listener for TorListener {
    fn addresses(&self) -> Vec<Address> {
        self.addresses.clone()
    }

    async fn accept(&mut self) -> Option<Carrier> {
        loop {
            let guest = self.links.recv().await?;
            if let Some(carrier) = stream::over_guest(guest) {
                return Some(carrier);
            }
        }
    }
}

/// Gives the hub its incoming connections.
async fn listen_for_peers(hub: Arc<Hub>, listener: TcpListener) {
    let (guests, mut arriving) = mpsc::channel(ARRIVING);
    let admission = Admission::new(Places::STRANGERS);
    let take = async {
        while let Some(Ok(guest)) = arriving.recv().await {
            hub.accept(Box::new(StrangerSocket::new(guest)));
        }
    };
    tokio::join!(guest::accept(listener, admission, guests), take);
}

async fn serve_operator(operator: Operator, socket: OperatorSocket) {
    let api = OperatorApi(operator);
    let served = match socket {
        OperatorSocket::Unix(listener) => {
            let service = OperatorServer::new(api);
            let incoming = UnixListenerStream::new(listener);
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        }
        OperatorSocket::Tcp(listener, check) => {
            let service = OperatorServer::with_interceptor(api, check);
            let incoming = TcpListenerStream::new(listener);
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        }
    };
    if let Err(error) = served {
        tracing::error!(%error, "the operator's API has ended");
    }
}

async fn serve_metrics(services: Arc<Services>, listener: TcpListener) {
    let metrics = services.metrics.clone();
    let router = metrics::router(metrics, Arc::new(move || services.refresh_metrics()));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the metrics are no longer served");
    }
}
