//! The Tor carrier of phones: records over a stream to the host's onion service, `tor://<56 characters>.onion:<port>`.
//!
//! A host listens through its Tor process, not here: see `tor` in its settings.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use longhand_tor::{
    DialError, DiscoverySecret, LINK_PORT, OnionAddress, OnionDialer, OnionStream, SCHEME,
};
use tokio::time::{Instant, timeout_at};

use super::stream;
use super::{Carrier, Carriers, DialOptions, Dialer, Listen, Listener};
use crate::{Address, DiscoverySeed, LinkError, Rendezvous};

/// For all attempts of one dial: a client without a directory takes so long to load it over a bad connection. Tor itself has no
/// limit.
const PATIENCE: Duration = Duration::from_secs(90);
/// For one attempt at a service: one to a service that has just died hangs for longer.
const ATTEMPT: Duration = Duration::from_secs(10);
/// More for each further one: over a slow network no short one may come to its end.
const ATTEMPT_MORE: Duration = Duration::from_secs(5);
/// The pause between attempts doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause after a service did not know the holder of a pairing code.
const NOT_A_CLIENT_YET: Duration = Duration::from_secs(12);
/// The time that other ways have for themselves: Tor is slower, and costs battery and data to start.
const HEAD_START: Duration = Duration::from_secs(2);

/// The kind of carrier, for [`Carriers`].
pub struct Tor {
    dialer: Arc<dyn OnionDialer>,
}

impl Tor {
    /// Over this client.
    pub fn new(dialer: Arc<dyn OnionDialer>) -> Tor {
        Tor { dialer }
    }

    /// These carriers with Tor beside them.
    pub fn beside(carriers: Carriers, dialer: Arc<dyn OnionDialer>) -> Carriers {
        carriers.with(&[SCHEME], Tor::new(dialer))
    }

    async fn open(
        &self,
        service: &OnionAddress,
        port: u16,
        secret: Option<&DiscoverySecret>,
        is_pairing: bool,
    ) -> Result<Box<dyn OnionStream>, String> {
        let until = Instant::now() + PATIENCE;
        let (mut pause, mut time) = (FIRST_PAUSE, ATTEMPT);
        loop {
            let limit = match self.dialer.progress().is_ready() {
                true => until.min(Instant::now() + time),
                // It loads its directory.
                false => until,
            };
            time += ATTEMPT_MORE;
            let attempt = self.dialer.connect(service, port, secret);
            let failure = match timeout_at(limit, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                // Tor publishes the client of a new pairing code after up to a minute.
                Ok(Err(error @ DialError::NotAClient)) if is_pairing => {
                    pause = NOT_A_CLIENT_YET;
                    Some(error.to_string())
                }
                Ok(Err(error @ DialError::NotAClient)) => return Err(refused(&error)),
                Ok(Err(DialError::Never(reason))) => return Err(reason),
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => None,
            };
            if Instant::now() + pause >= until {
                return Err(self.stuck(failure.as_deref()));
            }
            tracing::debug!(?failure, "an attempt over Tor failed");
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// Where the last attempt was stuck, for a person.
    fn stuck(&self, failure: Option<&str>) -> String {
        let progress = self.dialer.progress();
        if !progress.is_ready() {
            return format!("over Tor, {progress}");
        }
        let reason = failure.unwrap_or("it does not answer");
        format!("over Tor, the host's onion service is not reached: {reason}")
    }
}

fn refused(error: &DialError) -> String {
    format!("over Tor, {error}: the pairing may have been renewed; ask the operator for a new code")
}

/// The service and port that an address names.
fn service_of(address: &Address) -> Result<(OnionAddress, u16), LinkError> {
    let unknown = || LinkError::UnknownCarrier(address.to_string());
    let (host, port) = match address.authority().rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| unknown())?),
        None => (address.authority(), LINK_PORT),
    };
    Ok((host.parse().map_err(|_| unknown())?, port))
}

#[async_trait]
impl Dialer for Tor {
    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn head_start(&self) -> Duration {
        HEAD_START
    }

    async fn dial(
        &self,
        address: &Address,
        _: &DialOptions,
        meeting: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        let (service, port) = service_of(address)?;
        let secret = meeting
            .discovery()
            .map(|seed| discovery_secret(seed, &service));
        let opened = self
            .open(&service, port, secret.as_ref(), meeting.is_pairing())
            .await;
        let stream = opened.map_err(|reason| LinkError::Unreachable {
            address: address.to_string(),
            reason,
        })?;
        Ok(stream::over(stream))
    }
}

#[async_trait]
impl Listen for Tor {
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        Err(LinkError::Address {
            address: address.to_string(),
            reason: "a host listens on Tor by its setting tor.enabled".into(),
        })
    }
}

/// By which one phone, or the holder of its pairing code, finds a service with restricted discovery; both ends derive it.
pub fn discovery_secret(seed: &DiscoverySeed, service: &OnionAddress) -> DiscoverySecret {
    DiscoverySecret::from_bytes(&seed.derive("longhand tor discovery", service.public_key()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use longhand_tor::{OnionSeed, Progress, Step};

    use super::*;
    use crate::{LinkKeypair, PairingSecret};

    /// A client of which each attempt ends as scripted; `None` never ends. After the last it answers.
    struct Scripted {
        step: Step,
        attempts: Mutex<VecDeque<Option<DialError>>>,
    }

    #[async_trait]
    impl OnionDialer for Scripted {
        async fn connect(
            &self,
            _: &OnionAddress,
            _: u16,
            _: Option<&DiscoverySecret>,
        ) -> Result<Box<dyn OnionStream>, DialError> {
            let attempt = self.attempts.lock().unwrap().pop_front();
            match attempt {
                Some(Some(error)) => Err(error),
                Some(None) => std::future::pending().await,
                None => Ok(Box::new(tokio::io::duplex(64).0)),
            }
        }

        fn progress(&self) -> Progress {
            Progress {
                step: self.step,
                percent: 15,
                problem: None,
            }
        }
    }

    fn service() -> OnionAddress {
        OnionSeed::from_bytes([1; 32]).address()
    }

    async fn dial(step: Step, attempts: Vec<Option<DialError>>) -> Result<Carrier, LinkError> {
        let [host, phone] = [1, 2].map(|n| LinkKeypair::from_bytes([n; 32]));
        dial_for(&Rendezvous::of_keys(&phone, &host.public()), step, attempts).await
    }

    async fn dial_for(
        meeting: &Rendezvous,
        step: Step,
        attempts: Vec<Option<DialError>>,
    ) -> Result<Carrier, LinkError> {
        let attempts = Mutex::new(attempts.into());
        let tor = Tor::new(Arc::new(Scripted { step, attempts }));
        let address = Address::new(SCHEME, &format!("{}:9750", service())).unwrap();
        tor.dial(&address, &DialOptions::default(), meeting).await
    }

    fn failed(reason: &str) -> Option<DialError> {
        Some(DialError::Failed(reason.into()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_fails_or_hangs_is_followed_by_another() {
        dial(Step::Service, vec![failed("no circuit"), None, None])
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_loads_its_directory_gets_all_the_time_for_it() {
        let began = Instant::now();
        let error = dial(Step::Directory, vec![None]).await.err().unwrap();
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
        assert!(
            error
                .to_string()
                .contains("directory of the Tor network is being loaded (15 %)"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_names_the_step_that_is_stuck() {
        for (step, text) in [
            (Step::Clock, "clock is wrong"),
            (Step::Guards, "no relay"),
            (Step::Service, "onion service is not reached: 404"),
        ] {
            let error = dial(step, vec![failed("404"); 100]).await.err().unwrap();
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_does_not_know_the_phone_is_not_tried_again() {
        let attempts = vec![Some(DialError::NotAClient)];
        let error = dial(Step::Service, attempts).await.err().unwrap();
        assert!(
            error.to_string().contains("does not know this client"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_holder_of_a_new_code_waits_until_the_service_knows_it() {
        let code = Rendezvous::of_pairing(&PairingSecret::from_bytes([1; 16]));
        let unknown = |times| vec![Some(DialError::NotAClient); times];
        dial_for(&code, Step::Service, unknown(5)).await.unwrap();
        let never = dial_for(&code, Step::Service, unknown(100)).await;
        let error = never.err().unwrap().to_string();
        assert!(error.contains("does not know this client"), "{error}");
    }

    #[test]
    fn an_address_is_an_onion_service_with_or_without_a_port() {
        let of = |authority: &str| service_of(&Address::new(SCHEME, authority).unwrap());
        let onion = service().to_string();
        assert_eq!(of(&onion).unwrap(), (service(), LINK_PORT));
        assert_eq!(of(&format!("{onion}:1")).unwrap(), (service(), 1));
        for wrong in ["host.example:9750", "a.onion:1", &format!("{onion}:99999")] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_ends_derive_the_same_discovery_key_for_each_service_and_pairing_another() {
        let other = OnionSeed::from_bytes([2; 32]).address();
        let [code, renewed] = [1, 2].map(|n| PairingSecret::from_bytes([n; 16]));
        let at_host = discovery_secret(&DiscoverySeed::of(&code), &service()).public();
        // The phone has the code at first, then what it has kept of it.
        let pairing = Rendezvous::of_pairing(&code);
        let seed = pairing.discovery().unwrap();
        let kept = DiscoverySeed::from_bytes(*seed.to_bytes());
        let [host, phone] = [1, 2].map(|n| LinkKeypair::from_bytes([n; 32]));
        let later = Rendezvous::of_keys(&phone, &host.public()).with_discovery(Some(kept));
        for meeting in [pairing, later] {
            let secret = discovery_secret(meeting.discovery().unwrap(), &service());
            assert_eq!(secret.public(), at_host);
        }
        let renewed = discovery_secret(&DiscoverySeed::of(&renewed), &service());
        assert_ne!(renewed.public(), at_host);
        let elsewhere = discovery_secret(&DiscoverySeed::of(&code), &other);
        assert_ne!(elsewhere.public(), at_host);
    }
}
