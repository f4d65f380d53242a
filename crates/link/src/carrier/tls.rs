//! TLS below carriers. A listener's certificate and key are read anew when their files change, so that a renewed certificate
//! needs no restart.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, timeout};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, server};
use zeroize::Zeroizing;

use super::reason::cause;
use crate::LinkError;
use crate::clock::now_unix_s;
use crate::key::hash;

/// Pause between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// For the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For days in metrics.
const SECONDS_A_DAY: i64 = 86_400;
/// The largest file that is read, in bytes. A chain of certificates has some thousand.
const MAX_FILE: u64 = 1 << 20;

/// The certificate of a listener. Clones are of the same listener.
#[derive(Clone, Debug)]
pub struct Certificate(watch::Receiver<Arc<Pair>>);

impl Certificate {
    /// When the certificate expires that is in use now, in seconds since 1970.
    pub fn expires_unix_s(&self) -> u64 {
        self.0.borrow().expires_unix_s
    }

    /// Whole days until then by this machine's clock; negative once it has expired.
    pub fn days_left(&self) -> i64 {
        days_between(now_unix_s(), self.expires_unix_s())
    }
}

fn days_between(from_unix_s: u64, to_unix_s: u64) -> i64 {
    let signed = |unix_s| i64::try_from(unix_s).unwrap_or(i64::MAX);
    let seconds = signed(to_unix_s).saturating_sub(signed(from_unix_s));
    seconds.div_euclid(SECONDS_A_DAY)
}

/// TLS of a listener.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    certificate: Certificate,
}

impl ServerTls {
    /// Reads a chain of certificates and its key, two files in PEM, and reads them anew when they change. `alpn` are the
    /// protocols above TLS, best first (RFC 7301).
    ///
    /// # Errors
    /// [`LinkError::Unreadable`], and [`LinkError::Tls`] when the files cannot be used.
    pub async fn open(
        certificate: &str,
        key: &str,
        alpn: &[&[u8]],
    ) -> Result<ServerTls, LinkError> {
        let files = Files {
            certificate: certificate.into(),
            key: key.into(),
        };
        let pem = files.read()?;
        let pair = pem.pair().map_err(LinkError::Tls)?;
        let (sender, receiver) = watch::channel(Arc::new(pair));
        let resolver = Arc::new(Resolver(sender));
        tokio::spawn(watch_files(
            Watcher::new(&pem),
            files,
            Arc::downgrade(&resolver),
        ));
        let builder = ServerConfig::builder_with_provider(provider());
        let mut config = builder
            .with_safe_default_protocol_versions()
            .map_err(|e| LinkError::Tls(cause(&e)))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(ServerTls {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate: Certificate(receiver),
        })
    }

    /// The TLS handshake with a client, with the certificate of that moment; `None` when it fails, or lasts too long.
    pub async fn accept<S>(&self, stream: S) -> Option<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepted = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await;
        accepted.ok()?.ok()
    }

    /// The certificate.
    pub fn certificate(&self) -> Certificate {
        self.certificate.clone()
    }
}

/// TLS of a client, which trusts the certificates `ca_pem`, or without them the web's authorities.
///
/// # Errors
/// [`LinkError::Tls`] when `ca_pem` holds no certificate.
pub fn client_config(ca_pem: Option<&[u8]>) -> Result<ClientConfig, LinkError> {
    let failed = |reason: &dyn std::error::Error| LinkError::Tls(cause(reason));
    let mut roots = RootCertStore::empty();
    match ca_pem {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| failed(&e))?;
                roots.add(certificate).map_err(|e| failed(&e))?;
            }
            if roots.is_empty() {
                return Err(LinkError::Tls(NO_CERTIFICATE.into()));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

const NO_CERTIFICATE: &str = "no certificate in PEM is in it";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The pair that new handshakes get.
#[derive(Debug)]
struct Resolver(watch::Sender<Arc<Pair>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().certified.clone())
    }
}

/// A certificate and its key.
#[derive(Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    expires_unix_s: u64,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read(&self) -> Result<Pem, LinkError> {
        Ok(Pem {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }
}

/// A file that is not a regular one, such as a pipe, could keep its reader waiting.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, LinkError> {
    let failed = |reason: String| LinkError::Unreadable {
        path: path.into(),
        reason,
    };
    let metadata = std::fs::metadata(path).map_err(|e| failed(e.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file".into()));
    }
    if metadata.len() > MAX_FILE {
        return Err(failed(format!("it is larger than {MAX_FILE} bytes")));
    }
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    let file = File::open(path).map_err(|e| failed(e.to_string()))?;
    let read = file.take(MAX_FILE).read_to_end(&mut content);
    read.map_err(|e| failed(e.to_string()))?;
    Ok(content)
}

/// The content of both files.
struct Pem {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl Pem {
    /// The reason is for a person when they cannot be used.
    fn pair(&self) -> Result<Pair, String> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate);
        let chain: Vec<_> = chain
            .collect::<Result<_, _>>()
            .map_err(|e| format!("the certificate: {e}"))?;
        let first = chain.first().ok_or("the certificate: no PEM is in it")?;
        let expires_unix_s = expiry(first)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| format!("the key: {e}"))?;
        let certified = CertifiedKey::from_der(chain, key, &provider());
        Ok(Pair {
            certified: Arc::new(certified.map_err(|e| cause(&e))?),
            expires_unix_s,
        })
    }

    fn digest(&self) -> Digest {
        [&self.certificate, &self.key].map(|file| *hash("longhand tls file", file))
    }
}

fn expiry(certificate: &CertificateDer<'_>) -> Result<u64, String> {
    let parsed = x509_parser::parse_x509_certificate(certificate);
    let (_, parsed) = parsed.map_err(|e| format!("the certificate: {e}"))?;
    let expires = parsed.validity().not_after.timestamp();
    Ok(u64::try_from(expires).unwrap_or_default())
}

/// Of both files.
type Digest = [[u8; 32]; 2];

/// Compares each look at the files with the one before.
struct Watcher {
    seen: Digest,
    /// Why the files could not be read at the last look.
    unreadable: Option<LinkError>,
}

impl Watcher {
    fn new(pem: &Pem) -> Watcher {
        Watcher {
            seen: pem.digest(),
            unreadable: None,
        }
    }

    /// The pair that is there since this look, or the reason for which it cannot be used; `None` when nothing has changed.
    fn look(&mut self, read: Result<Pem, LinkError>) -> Option<Result<Pair, String>> {
        let pem = match read {
            Ok(pem) => pem,
            Err(error) if self.unreadable.as_ref() == Some(&error) => return None,
            Err(error) => {
                let reason = error.to_string();
                self.unreadable = Some(error);
                return Some(Err(reason));
            }
        };
        self.unreadable = None;
        let digest = pem.digest();
        if digest == self.seen {
            return None;
        }
        self.seen = digest;
        Some(pem.pair())
    }
}

/// Runs until the listener and all its handshakes are gone.
async fn watch_files(mut watcher: Watcher, files: Files, resolver: Weak<Resolver>) {
    let files = Arc::new(files);
    let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    loop {
        looks.tick().await;
        let looked = Arc::clone(&files);
        let read = tokio::task::spawn_blocking(move || looked.read()).await;
        let (Ok(read), Some(resolver)) = (read, resolver.upgrade()) else {
            return;
        };
        let path = files.certificate.display();
        match watcher.look(read) {
            None => {}
            Some(Ok(pair)) => {
                tracing::info!(%path, "the new TLS certificate is in use");
                resolver.0.send_replace(Arc::new(pair));
            }
            Some(Err(reason)) => tracing::warn!(
                "the new TLS certificate {path} with the key {key} cannot be used ({reason}): the old one stays in use; put a \
                 certificate and its key there that fit together",
                key = files.key.display(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made(not_after_year: i32) -> (Vec<u8>, Vec<u8>) {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(not_after_year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        (certificate.into_bytes(), key.serialize_pem().into_bytes())
    }

    fn pem((certificate, key): (&[u8], &[u8])) -> Pem {
        Pem {
            certificate: certificate.to_vec().into(),
            key: key.to_vec().into(),
        }
    }

    #[test]
    fn the_expiry_is_the_certificates() {
        let (certificate, key) = made(2030);
        let pair = pem((&certificate, &key)).pair().unwrap();
        assert_eq!(pair.expires_unix_s, 1_893_456_000);
    }

    #[test]
    fn the_last_day_is_day_zero_and_an_expired_certificate_has_fewer() {
        let day: u64 = 86_400;
        assert_eq!(days_between(0, 30 * day), 30);
        assert_eq!(days_between(0, day - 1), 0);
        assert_eq!(days_between(1, 0), -1);
    }

    #[test]
    fn files_that_stay_as_they_are_change_nothing_and_new_ones_are_a_new_pair() {
        let (old, new) = (made(2030), made(2031));
        let mut watcher = Watcher::new(&pem((&old.0, &old.1)));
        assert!(watcher.look(Ok(pem((&old.0, &old.1)))).is_none());
        let changed = watcher.look(Ok(pem((&new.0, &new.1)))).unwrap().unwrap();
        assert_eq!(changed.expires_unix_s, 1_924_992_000);
        assert!(watcher.look(Ok(pem((&new.0, &new.1)))).is_none());
    }

    #[test]
    fn files_that_cannot_be_used_are_reported_once_for_each_change() {
        let (old, new) = (made(2030), made(2031));
        let mut watcher = Watcher::new(&pem((&old.0, &old.1)));
        for wrong in [
            pem((&new.0, &old.1)),
            pem((b"no", &old.1)),
            pem((&new.0, b"no")),
        ] {
            let again = pem((&wrong.certificate, &wrong.key));
            assert!(watcher.look(Ok(wrong)).unwrap().is_err());
            assert!(watcher.look(Ok(again)).is_none());
        }
        let gone = || {
            Err(LinkError::Unreadable {
                path: "host.pem".into(),
                reason: "it is gone".into(),
            })
        };
        let reason = watcher.look(gone()).unwrap().unwrap_err();
        assert!(reason.contains("host.pem"), "{reason}");
        assert!(watcher.look(gone()).is_none());
        assert!(watcher.look(Ok(pem((&old.0, &old.1)))).unwrap().is_ok());
    }
}
