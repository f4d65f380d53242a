//! The messages between a host and its Tor process: one JSON object for each line, orders at the process's standard input and
//! reports at its standard output. The first line of the input is a [`Setup`]; at the end of the input the process ends.
//!
//! Beside them there are two kinds of connections over loopback: the host's to the process, by SOCKS 5 with the session's secret as
//! password (RFC 1928, 1929), and the process's to the host, each with an [`Arrival`] in front.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::onion::{DiscoveryKey, OnionSeed};
use crate::progress::Progress;

/// The longest line, in bytes: a service with all clients that it can have takes 10 kB.
pub const MAX_LINE: usize = 64 << 10;

/// Clients that one service with restricted discovery can have: more do not fit into a descriptor.
pub const MAX_CLIENTS: usize = 160;

/// A session's secret: who has it may use the Tor process of this machine, and hand connections to its host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(OnionSeed);

impl Secret {
    /// From 32 bytes of chance.
    pub fn from_bytes(bytes: [u8; 32]) -> Secret {
        Secret(OnionSeed::from_bytes(bytes))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// As a password of SOCKS.
    pub fn password(&self) -> Zeroizing<String> {
        Zeroizing::new(data_encoding::HEXLOWER.encode(self.expose()))
    }

    /// Whether this is the password.
    pub fn is_password(&self, password: &[u8]) -> bool {
        let decoded = data_encoding::HEXLOWER.decode(password).map(Zeroizing::new);
        decoded.is_ok_and(|bytes| self.is(&bytes))
    }

    /// Compares without a time that depends on the bytes.
    pub fn is(&self, other: &[u8]) -> bool {
        let own = self.expose();
        let differ = own.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
        other.len() == own.len() && differ == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The first line: everything but the services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Where Tor keeps its directory and its keys; made when it is missing.
    pub directory: PathBuf,
    /// A file of Arti's configuration (TOML) for another network than the public one.
    pub network_file: Option<PathBuf>,
    /// For connections from and to the host.
    pub secret: Secret,
    /// Where the host takes connections of clients.
    pub arrivals: SocketAddr,
}

/// An order of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Serve this onion service, or serve it with other clients.
    Serve(Service),
}

/// An onion service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Chosen by the host; see [`Arrival`].
    pub id: u32,
    /// The secret of its address.
    pub seed: OnionSeed,
    /// Its one port.
    pub port: u16,
    /// The only clients that can find it, at most [`MAX_CLIENTS`]; `None` = everybody.
    pub clients: Option<Vec<DiscoveryKey>>,
}

/// A report of the Tor process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// SOCKS is served.
    Listening {
        /// On loopback.
        socks: SocketAddr,
    },
    /// How far the client has come; sent when it changes.
    Progress(Progress),
    /// A service's descriptor was published, or no longer is where clients look for it.
    Service {
        /// Of the [`Service`].
        id: u32,
        /// Whether clients can find it, as far as Tor knows.
        is_published: bool,
        /// Why not.
        problem: Option<String>,
    },
}

/// A line of JSON, with its end.
pub fn to_line<T: Serialize>(message: &T) -> Zeroizing<Vec<u8>> {
    // Cannot fail: no map has keys that are not text.
    let mut line = Zeroizing::new(serde_json::to_vec(message).unwrap_or_default());
    line.push(b'\n');
    line
}

/// Reads a line.
///
/// # Errors
/// Why it is none of the protocol; without its content, which may have a secret.
pub fn from_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    if line.len() > MAX_LINE {
        return Err(LineError("it is too long".into()));
    }
    serde_json::from_slice(line).map_err(|error| {
        let place = format!("{:?} at column {}", error.classify(), error.column());
        LineError(place)
    })
}

/// A line that is none of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a line between the host and its Tor process cannot be read ({0}): are both of the same version?"
)]
pub struct LineError(String);

/// What stands in front of a connection that a client of an onion service has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Of the [`Service`].
    pub service: u32,
    /// The circuit on which it came: connections with the same number are of the same client.
    pub circuit: u64,
}

impl Arrival {
    /// Bytes of an arrival with its secret.
    pub const BYTES: usize = 32 + 4 + 8;

    /// With the session's secret, by which the host knows that its Tor process sends it.
    pub fn to_bytes(self, secret: &Secret) -> Zeroizing<[u8; Arrival::BYTES]> {
        let mut bytes = Zeroizing::new([0; Arrival::BYTES]);
        let (key, rest) = bytes.split_at_mut(32);
        key.copy_from_slice(secret.expose());
        let (service, circuit) = rest.split_at_mut(4);
        service.copy_from_slice(&self.service.to_be_bytes());
        circuit.copy_from_slice(&self.circuit.to_be_bytes());
        bytes
    }

    /// `None` when the secret is another one.
    pub fn from_bytes(bytes: &[u8; Arrival::BYTES], secret: &Secret) -> Option<Arrival> {
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let (service, circuit) = rest.split_first_chunk::<4>()?;
        secret.is(key).then_some(())?;
        Some(Arrival {
            service: u32::from_be_bytes(*service),
            circuit: u64::from_be_bytes(circuit.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::progress::Step;

    fn service(clients: usize) -> Service {
        Service {
            id: 3,
            seed: OnionSeed::from_bytes([1; 32]),
            port: 9750,
            clients: Some(vec![DiscoveryKey([2; 32]); clients]),
        }
    }

    #[test]
    fn every_message_comes_back_from_its_line() {
        let setup = Setup {
            directory: "tor".into(),
            network_file: None,
            secret: Secret::from_bytes([3; 32]),
            arrivals: "127.0.0.1:1".parse().unwrap(),
        };
        assert_eq!(from_line(&to_line(&setup)), Ok(setup));
        let order = Order::Serve(service(2));
        assert_eq!(from_line(&to_line(&order)), Ok(order));
        for report in [
            Report::Listening {
                socks: "127.0.0.1:2".parse().unwrap(),
            },
            Report::Progress(Progress {
                step: Step::Directory,
                percent: 15,
                problem: Some("offline".into()),
            }),
            Report::Service {
                id: 3,
                is_published: true,
                problem: None,
            },
        ] {
            assert_eq!(from_line(&to_line(&report)), Ok(report));
        }
    }

    #[test]
    fn a_service_with_all_its_clients_fits_into_a_line() {
        assert!(to_line(&Order::Serve(service(MAX_CLIENTS))).len() < MAX_LINE);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_not_repeated_in_the_error() {
        let line = br#"{"serve":{"id":1,"seed":"MYSECRET","port":1}}"#;
        let error = from_line::<Order>(line).unwrap_err().to_string();
        assert!(!error.contains("MYSECRET"), "{error}");
        let long = vec![b' '; MAX_LINE + 1];
        assert!(from_line::<Report>(&long).is_err());
    }

    #[test]
    fn neither_seeds_nor_secrets_are_shown() {
        let shown = format!("{:?} {:?}", service(0), Secret::from_bytes([1; 32]));
        assert!(shown.contains("OnionSeed(secret)") && shown.contains("Secret(hidden)"));
        assert!(!shown.contains("[1, 1"), "{shown}");
    }

    proptest! {
        #[test]
        fn an_arrival_is_read_with_its_secret_alone(service: u32, circuit: u64, at in 0..32usize) {
            let arrival = Arrival { service, circuit };
            let secret = Secret::from_bytes([5; 32]);
            let bytes = arrival.to_bytes(&secret);
            prop_assert_eq!(Arrival::from_bytes(&bytes, &secret), Some(arrival));
            let mut other = *bytes;
            other[at] ^= 1;
            prop_assert_eq!(Arrival::from_bytes(&other, &secret), None);
        }

        #[test]
        fn any_line_is_a_message_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_line::<Order>(&line);
            let _ = from_line::<Report>(&line);
            let _ = from_line::<Setup>(&line);
        }
    }
}
