//! Host names, resolved by tasks. The resolver of the operating system takes a thread for each name: a few names whose servers
//! are slow would use up the threads that the store and wake calls need.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use longhand_base::text::is_onion;

use super::Reach;

/// Addresses of one name that are tried.
const MOST: usize = 8;

/// After a failed look-up the configuration is read again, at most this often: it may have come later than the host, or have changed.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// A resolver with connections and a cache of its own. Clones share them.
#[derive(Clone)]
pub(super) struct Names(Arc<Mutex<Current>>);

struct Current {
    /// `None` without name servers: only addresses are reached.
    resolver: Option<TokioResolver>,
    /// When the configuration was read; `None` to never read it.
    read: Option<Instant>,
}

impl Names {
    /// With the name servers of the operating system's configuration.
    pub fn of_system() -> Names {
        Names(Arc::new(Mutex::new(Current {
            resolver: read_configuration(),
            read: Some(Instant::now()),
        })))
    }

    /// Without name servers.
    #[cfg(test)]
    pub fn none() -> Names {
        Names(Arc::new(Mutex::new(Current {
            resolver: None,
            read: None,
        })))
    }

    fn resolver(&self) -> Option<TokioResolver> {
        self.lock().resolver.clone()
    }

    /// A look-up has failed.
    fn read_again(&self) {
        let mut current = self.lock();
        if current
            .read
            .is_some_and(|read| read.elapsed() >= READ_AGAIN)
        {
            *current = Current {
                resolver: read_configuration(),
                read: Some(Instant::now()),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of `host:port`, at most eight. An IP address needs no name server.
    pub async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let invalid = || Error::new(ErrorKind::InvalidInput, "it is not host:port");
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        let addresses = self.look_up(host).await?.into_iter();
        Ok(addresses.map(|ip| SocketAddr::new(ip, port)).collect())
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>> {
        // A name under `.onion` is never sent to name servers (RFC 7686).
        if is_onion(host) {
            let reason = "this host dials no onion services: set tor.enabled, or give another address of the peer";
            return Err(Error::new(ErrorKind::Unsupported, reason));
        }
        let unknown = || Error::new(ErrorKind::NotFound, "the host name has no address");
        let Some(resolver) = self.resolver() else {
            self.read_again();
            return Err(unknown());
        };
        match resolver.lookup_ip(host).await {
            Ok(found) => Ok(found.iter().take(MOST).collect()),
            Err(error) => {
                tracing::debug!(%error, "a host name was not resolved");
                self.read_again();
                Err(unknown())
            }
        }
    }
}

fn read_configuration() -> Option<TokioResolver> {
    let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        builder.build()
    });
    if let Err(error) = &resolver {
        tracing::warn!(%error, "host names cannot be resolved: no name servers are configured");
    }
    resolver.ok()
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let found = names.look_up(name.as_str()).await?;
            let addresses = found.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Names for clients of owners: addresses out of reach are left out, and a name without another has none.
pub(super) struct NamesWithin {
    pub names: Names,
    pub reach: Reach,
}

impl Resolve for NamesWithin {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, reach) = (self.names.clone(), self.reach.clone());
        Box::pin(async move {
            let mut found = names.look_up(name.as_str()).await?;
            found.retain(|ip| reach.allows(*ip));
            if found.is_empty() {
                return Err(Error::new(ErrorKind::NotFound, "the host name has no address").into());
            }
            let addresses = found.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_name_server() {
        let names = Names::none();
        for address in ["192.0.2.1:9735", "[2001:db8::1]:9735"] {
            let found = names.resolve(address).await.unwrap();
            assert_eq!(found, [address.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_asked_for_is_refused() {
        let names = Names::none();
        for (address, kind) in [
            ("peer.example", ErrorKind::InvalidInput),
            ("peer.example:port", ErrorKind::InvalidInput),
            ("peer.example:9735", ErrorKind::NotFound),
            ("abc.ONION.:9735", ErrorKind::Unsupported),
        ] {
            let refused = names.resolve(address).await.unwrap_err();
            assert_eq!(refused.kind(), kind, "{address}");
        }
    }
}
