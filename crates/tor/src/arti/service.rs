//! An onion service.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arti_client::config::onion_service::{OnionServiceConfig, OnionServiceConfigBuilder};
use futures::stream::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tor_cell::relaycell::msg::{Connected, End, EndReason};
use tor_hscrypto::pk::{HsClientDescEncKey, HsId, HsIdKeypair};
use tor_hsservice::config::TokenBucketConfig;
use tor_hsservice::config::restricted_discovery::HsClientNickname;
use tor_hsservice::{HsNickname, RendRequest, RunningOnionService, StreamRequest};
use tor_llcrypto::pk::{curve25519, ed25519};
use tor_proto::stream::IncomingStreamRequest;

use super::{Tor, TorError, TorStream, Users, chain};
use crate::control::{MAX_CLIENTS, Service};
use crate::onion::DiscoveryKey;

/// Streams of one circuit that are open at once: a phone has one link, and a second one while it changes.
const STREAMS_PER_CIRCUIT: u32 = 16;
/// Connections that wait to be taken.
const ARRIVING: usize = 64;
/// Circuits of clients of one service: each phone has one, and strangers have the others.
const CIRCUITS: usize = 1_024;
/// Until a client's circuit is built, and until its first stream.
const PATIENCE: Duration = Duration::from_secs(60);
/// Introductions a second, and in a burst, that each introduction point passes on.
const INTRODUCTIONS: (u32, u32) = (25, 200);
/// Names the circuits of this process.
static NAMES: AtomicU64 = AtomicU64::new(1);

/// Circuits that clients ask for.
type Requests = Pin<Box<dyn Stream<Item = RendRequest> + Send>>;

/// A service that runs until this is dropped; streams that were taken go on.
pub struct OnionService {
    running: Arc<RunningOnionService>,
    service: Service,
    arrived: mpsc::Receiver<Arrived>,
}

/// A stream that a client has opened.
pub struct Arrived {
    /// Streams with the same number are of the same client.
    pub circuit: u64,
    /// The stream.
    pub stream: TorStream,
}

/// A service's descriptor, as far as Tor knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// Clients can find the service.
    pub is_published: bool,
    /// Why not.
    pub problem: Option<String>,
}

impl Tor {
    /// Serves an onion service. Its descriptor is published when the client has reached the network.
    ///
    /// # Errors
    /// [`TorError::Service`].
    pub fn serve(&self, service: Service) -> Result<OnionService, TorError> {
        let config = config_of(&service)?;
        let seed = ed25519::Keypair::from_bytes(service.seed.expose());
        let key = HsIdKeypair::from(ed25519::ExpandedKeypair::from(&seed));
        let disabled = || failed("it is disabled".into());
        let first = self
            .client
            .launch_onion_service_with_hsid(config.clone(), key);
        let (running, requests): (_, Requests) = match first {
            Ok(launched) => {
                let (running, requests) = launched.ok_or_else(disabled)?;
                (running, Box::pin(requests))
            }
            // The key is there from an earlier start. That of a nickname never changes, since the nickname follows from it.
            Err(error) => {
                let again = self.client.launch_onion_service(config);
                let again = again
                    .map_err(|again| failed(format!("{}; {}", chain(&error), chain(&again))))?;
                let (running, requests) = again.ok_or_else(disabled)?;
                (running, Box::pin(requests))
            }
        };
        let expected = HsId::from(*service.seed.address().public_key());
        if running
            .onion_address()
            .is_some_and(|address| address != expected)
        {
            return Err(failed(
                "Tor has another key for it: remove its directory".into(),
            ));
        }
        let (arriving, arrived) = mpsc::channel(ARRIVING);
        tokio::spawn(take_circuits(
            requests,
            service.port,
            arriving,
            self.users.clone(),
        ));
        Ok(OnionService {
            running,
            service,
            arrived,
        })
    }
}

impl OnionService {
    /// The next stream to the service's port; `None` when the service has ended. May be cancelled.
    pub async fn accept(&mut self) -> Option<Arrived> {
        self.arrived.recv().await
    }

    /// Replaces the clients that can find the service. A client that was removed may find it until its introduction points change.
    ///
    /// # Errors
    /// [`TorError::Service`].
    pub fn set_clients(&mut self, clients: Option<Vec<DiscoveryKey>>) -> Result<(), TorError> {
        let service = Service {
            clients,
            ..self.service.clone()
        };
        let reconfigured = self.running.reconfigure(
            config_of(&service)?,
            arti_client::config::Reconfigure::AllOrNothing,
        );
        reconfigured.map_err(|error| failed(chain(&error)))?;
        self.service = service;
        Ok(())
    }

    /// The states of the descriptor, from the present one on.
    pub fn states(&self) -> impl Stream<Item = ServiceState> + Send + Unpin + use<> {
        self.running.status_events().map(|status| ServiceState {
            is_published: status.state().is_fully_reachable(),
            problem: status
                .current_problem()
                .map(|problem| format!("{problem:?}").chars().take(200).collect()),
        })
    }
}

fn failed(reason: String) -> TorError {
    TorError::Service(reason)
}

/// The nickname names the key in Arti's keystore, so it follows from the address.
fn config_of(service: &Service) -> Result<OnionServiceConfig, TorError> {
    let address = service.seed.address().to_string();
    let nickname: String = address.chars().take(32).collect();
    let nickname = HsNickname::new(nickname).map_err(|error| failed(chain(&error)))?;
    let (rate, burst) = INTRODUCTIONS;
    let mut builder = OnionServiceConfigBuilder::default();
    builder
        .nickname(nickname)
        .max_concurrent_streams_per_circuit(STREAMS_PER_CIRCUIT)
        .rate_limit_at_intro(Some(TokenBucketConfig::new(rate, burst)));
    if let Some(clients) = &service.clients {
        let restricted = builder.restricted_discovery();
        restricted.enabled(true);
        let keys = restricted.static_keys().access();
        for (index, client) in clients.iter().take(MAX_CLIENTS).enumerate() {
            let name = format!("c{index}").parse::<HsClientNickname>();
            let name = name.map_err(|error| failed(chain(&error)))?;
            let key = curve25519::PublicKey::from(client.0);
            keys.push((name, HsClientDescEncKey::from(key)));
        }
    }
    builder.build().map_err(|error| failed(chain(&error)))
}

/// Takes all circuits of clients, each in a task of its own: until one is built takes seconds.
async fn take_circuits(
    mut requests: Requests,
    port: u16,
    arriving: mpsc::Sender<Arrived>,
    users: Users,
) {
    let circuits = Arc::new(Semaphore::new(CIRCUITS));
    loop {
        let Ok(permit) = circuits.clone().acquire_owned().await else {
            return;
        };
        let request = tokio::select! {
            () = arriving.closed() => return,
            request = requests.next() => match request {
                Some(request) => request,
                None => return,
            },
        };
        let (arriving, users) = (arriving.clone(), users.clone());
        let circuit = NAMES.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _permit = permit;
            let mut streams = match timeout(PATIENCE, request.accept()).await {
                Ok(Ok(streams)) => streams,
                Ok(Err(error)) => {
                    tracing::debug!("a client's circuit was not built: {}", chain(&error));
                    return;
                }
                Err(_) => return,
            };
            let mut next = timeout(PATIENCE, streams.next()).await.ok().flatten();
            while let Some(request) = next {
                if let Some(stream) = take_stream(request, port, &users).await
                    && arriving.send(Arrived { circuit, stream }).await.is_err()
                {
                    return;
                }
                next = streams.next().await;
            }
        });
    }
}

async fn take_stream(request: StreamRequest, port: u16, users: &Users) -> Option<TorStream> {
    let is_ours =
        matches!(request.request(), IncomingStreamRequest::Begin(begin) if begin.port() == port);
    if !is_ours {
        // As C-Tor's onion services answer: nothing tells them apart.
        let end = End::new_with_reason(EndReason::DONE);
        let _ = request.reject(end).await;
        return None;
    }
    let in_use = users.enter();
    let stream = request.accept(Connected::new_empty()).await.ok()?;
    Some(TorStream {
        stream,
        _in_use: in_use,
    })
}
