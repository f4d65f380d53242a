//! A running mailbox: its listeners and tasks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use longhand_base::system;
use longhand_base::wake::{HttpWake, WakeHook};
use longhand_link::carrier::mailbox::stream::StreamId;
use longhand_link::carrier::tls::Certificate;
use longhand_link::{Address, Carrier, Carriers, LinkError, Listener};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::MailboxError;
use crate::config::{ConfigError, MailboxConfig, Settings};
use crate::connection;
use crate::core::Limits;
use crate::hashmail;
use crate::hashmail::limits::HashmailLimits;
use crate::metrics::{self, Metrics};
use crate::shared::Shared;
use crate::wake::Wakes;

/// A mailbox that runs until it is stopped or dropped.
pub struct Mailbox {
    addresses: Vec<Address>,
    hashmail_addresses: Vec<Address>,
    hashmail: Option<Arc<hashmail::Shared>>,
    metrics: Option<SocketAddr>,
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

impl Mailbox {
    /// Binds all listeners and begins to serve. Wake calls are HTTP POSTs. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`MailboxError`]; nothing runs then.
    pub async fn start(config: MailboxConfig, carriers: Carriers) -> Result<Mailbox, MailboxError> {
        let hook = HttpWake::new().map_err(|error| MailboxError::Tls(error.to_string()))?;
        Mailbox::start_with(config, carriers, Arc::new(hook)).await
    }

    /// As [`Mailbox::start`], with another way to deliver wake calls.
    ///
    /// # Errors
    /// As [`Mailbox::start`].
    pub async fn start_with(
        config: MailboxConfig,
        carriers: Carriers,
        hook: Arc<dyn WakeHook>,
    ) -> Result<Mailbox, MailboxError> {
        config.check()?;
        raise_descriptors();
        let mut listeners = Vec::new();
        for address in config.link_listen()? {
            let listening = carriers.listen(&address).await;
            listeners.push(listening.map_err(|error| link_error("link.listen", error))?);
        }
        let mut bound = Vec::new();
        for address in config.hashmail_listen()? {
            let listening = hashmail::Bound::to(&address).await;
            bound.push(listening.map_err(|error| link_error("hashmail.listen", error))?);
        }
        let metrics_listener = match config.metrics_listen()? {
            Some(address) => Some(bind_metrics(address).await?),
            None => None,
        };
        let addresses = listeners.iter().flat_map(|it| it.addresses()).collect();
        let mut certificates: Vec<_> = listeners
            .iter()
            .filter_map(|it| certificate_of(&**it))
            .collect();
        let metrics_address = metrics_listener.as_ref().map(|(_, address)| *address);

        let tasks = Arc::new(Tasks::default());
        let metrics = Metrics::new();
        let mut wakes = None;
        if !config.wake.url.is_empty() {
            let (made, calling) = Wakes::new(config.wake, hook, metrics.clone());
            tasks.spawn(calling);
            wakes = Some(made);
        }
        let mut hashmail = None;
        let mut hashmail_addresses = Vec::new();
        if !bound.is_empty() {
            let boxes = hashmail::Shared::new(config.hashmail.limits, metrics.clone());
            let boxes = Arc::new(boxes);
            tasks.spawn(boxes.clone().tick());
            for bound in bound {
                let listener = bound.serve(&boxes);
                hashmail_addresses.extend(listener.addresses());
                certificates.extend(certificate_of(&listener));
                tasks.spawn(keep(listener));
            }
            hashmail = Some(boxes);
        }
        let shared = Shared::new(
            config.limits,
            metrics,
            wakes,
            config.has_routes,
            certificates,
        );
        let shared = Arc::new(shared);
        tasks.spawn(shared.clone().tick());
        for listener in listeners {
            tasks.spawn(accept(listener, shared.clone(), Arc::downgrade(&tasks)));
        }
        if let Some((listener, _)) = metrics_listener {
            tasks.spawn(serve_metrics(listener, shared.clone(), hashmail.clone()));
        }
        Ok(Mailbox {
            addresses,
            hashmail_addresses,
            hashmail,
            metrics: metrics_address,
            shared,
            tasks,
        })
    }

    /// A mailbox without listeners and metrics port, for programs that hand it its connections ([`Mailbox::take`],
    /// [`Mailbox::hashmail`]). It makes no wake calls. Needs a Tokio runtime.
    pub fn embed(limits: Limits) -> Mailbox {
        let tasks = Arc::new(Tasks::default());
        let metrics = Metrics::new();
        let boxes = hashmail::Shared::new(HashmailLimits::default(), metrics.clone());
        let boxes = Arc::new(boxes);
        let shared = Shared::new(limits, metrics, None, false, Vec::new());
        let shared = Arc::new(shared);
        tasks.spawn(shared.clone().tick());
        tasks.spawn(boxes.clone().tick());
        Mailbox {
            addresses: Vec::new(),
            hashmail_addresses: Vec::new(),
            hashmail: Some(boxes),
            metrics: None,
            shared,
            tasks,
        }
    }

    /// Where clients connect, with what the system chose.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where clients and servers of Lightning Node Connect connect.
    pub fn hashmail_addresses(&self) -> &[Address] {
        &self.hashmail_addresses
    }

    /// Where metrics are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Serves a connection that came over something else than the mailbox's listeners.
    pub fn take(&self, carrier: Carrier) {
        let serving = connection::serve(self.shared.clone(), carrier);
        self.tasks.spawn(serving);
    }

    /// A new connection to its hashmail, over something else than its listeners; `None` when it serves none.
    pub fn hashmail(&self) -> Option<hashmail::Connection> {
        self.hashmail.as_ref().map(hashmail::Connection::new)
    }

    /// Drops what waits in a stream, and ends it at both ends, as when more waits than has room.
    pub fn drop_stream(&self, stream: StreamId) {
        self.shared.with(|relay, _| relay.overflow(stream));
    }

    /// The metrics in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        metrics_text(&self.shared, self.hashmail.as_deref())
    }

    /// Closes all connections and listeners. Returns when they are closed. Messages that wait are lost, as they would be soon.
    pub async fn stop(self) {
        self.stop_hashmail();
        self.tasks.shutdown().await;
    }

    /// Its requests are no tasks of this mailbox: they end when their boxes do.
    fn stop_hashmail(&self) {
        if let Some(hashmail) = &self.hashmail {
            hashmail.stop();
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.stop_hashmail();
        drop(self.tasks.take());
    }
}

/// The tasks of a mailbox.
struct Tasks(Mutex<Option<JoinSet<()>>>);

impl Default for Tasks {
    fn default() -> Tasks {
        Tasks(Mutex::new(Some(JoinSet::new())))
    }
}

impl Tasks {
    /// Runs a task; drops it once the mailbox has ended.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = running.as_mut() else {
            return;
        };
        while let Some(ended) = running.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the mailbox ended by a panic");
            }
        }
        running.spawn(task);
    }

    async fn shutdown(&self) {
        if let Some(mut running) = self.take() {
            running.shutdown().await;
        }
    }

    fn take(&self) -> Option<JoinSet<()>> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.take()
    }
}

/// Takes in connections until the listener or the mailbox ends.
async fn accept(
    mut listener: Box<dyn Listener>,
    shared: Arc<Shared>,
    tasks: std::sync::Weak<Tasks>,
) {
    while let Some(carrier) = listener.accept().await {
        let Some(tasks) = tasks.upgrade() else {
            return;
        };
        tasks.spawn(connection::serve(shared.clone(), carrier));
    }
}

/// Each connection takes a file descriptor.
fn raise_descriptors() {
    if let Err(error) = system::raise_descriptors() {
        tracing::debug!(%error, "the limit of file descriptors cannot be raised");
    }
    let descriptors = system::descriptors();
    tracing::info!(
        descriptors,
        "the limit of connections is that of file descriptors"
    );
}

/// The certificate of a listener with TLS, by the listener's authority.
fn certificate_of(listener: &dyn Listener) -> Option<(String, Certificate)> {
    let address = listener.addresses().into_iter().next()?;
    Some((address.authority().to_owned(), listener.certificate()?))
}

async fn bind_metrics(address: SocketAddr) -> Result<(TcpListener, SocketAddr), MailboxError> {
    let failed = |error: std::io::Error| MailboxError::Listen {
        key: "metrics.listen",
        address: address.to_string(),
        reason: match error.kind() {
            std::io::ErrorKind::AddrInUse => "it is in use".into(),
            _ => error.to_string(),
        },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves what the listener has for as long as the mailbox runs. It takes in no carriers.
async fn keep(mut listener: impl Listener) {
    while listener.accept().await.is_some() {}
}

fn metrics_text(shared: &Shared, hashmail: Option<&hashmail::Shared>) -> String {
    let counts = hashmail.map(hashmail::Shared::counts);
    shared.metrics_text(&counts.unwrap_or_default())
}

async fn serve_metrics(
    listener: TcpListener,
    shared: Arc<Shared>,
    hashmail: Option<Arc<hashmail::Shared>>,
) {
    let read = move || metrics_text(&shared, hashmail.as_deref());
    let router = metrics::router(Arc::new(read));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!(%error, "metrics are no longer served");
    }
}

/// Why a listener cannot listen, with the setting that its address is from.
fn link_error(key: &'static str, error: LinkError) -> MailboxError {
    match error {
        LinkError::Listen { address, reason } => MailboxError::Listen {
            key,
            address,
            reason,
        },
        error @ (LinkError::Address { .. } | LinkError::UnknownCarrier(_)) => {
            ConfigError::Invalid(format!("{key}: {error}")).into()
        }
        error => error.into(),
    }
}
