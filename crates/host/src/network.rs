//! The network that a host reaches peers and phones by, behind one trait.
//!
//! [`Sockets`] is the program's: TCP to peers, HTTP to wake phones. An embedder that has its own ways to reach peers or
//! phones gives [`crate::Host::embed`] its own [`Network`], which may pass on to [`Sockets`] whatever it does not do itself.

use std::io::{Error, ErrorKind};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{Dialer, PeerStream, TcpDialer};
use serde::Serialize;

use crate::HostError;

/// Bytes in flight between two nodes of one host, each way.
const PIPE: usize = 64 * 1024;

/// The two ends of a connection inside one process.
pub type Joined = (Box<dyn PeerStream>, Box<dyn PeerStream>);

/// How a host reaches peers and calls phones. Shared by all of its nodes; every call may be dropped half-way.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Opens a byte stream to a peer that is no node of this host. `address` is what the owner or the operator gave
    /// for it, `host:port`. The host drops a call that takes longer than `peer.connect_timeout_ms`.
    ///
    /// # Errors
    /// Why there is no connection; the node tries again while it wants the peer.
    async fn dial(&self, node_id: PublicKey, address: &str)
    -> std::io::Result<Box<dyn PeerStream>>;

    /// Connects two nodes of this host: the first end is for `from`, which dials, the second for `to`. A pipe in
    /// memory, unless it is done otherwise.
    ///
    /// # Errors
    /// As for [`Network::dial`].
    fn join(&self, from: PublicKey, to: PublicKey) -> std::io::Result<Joined> {
        let _ = (from, to);
        let (near, far) = tokio::io::duplex(PIPE);
        Ok((Box::new(near), Box::new(far)))
    }

    /// Delivers one wake call to an owner's wake URL. The host calls again, later and later, until the phone is there
    /// or the deadline is over, whatever this returns; it drops a call that takes longer than `wake.timeout_ms`.
    ///
    /// # Errors
    /// Why the call was not taken.
    async fn wake(&self, url: &str, call: &WakeCall) -> Result<(), WakeError>;
}

/// Why a phone is called, and until when. Has no secret in it: the operator of the push service may read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WakeCall {
    /// The owner's name.
    pub owner: String,
    /// The owner's node; hexadecimal in JSON.
    pub node_id: PublicKey,
    /// Why the phone is needed.
    pub reason: WakeReason,
    /// The phone has to be there before this height.
    pub deadline_height: u32,
}

/// Why a phone is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WakeReason {
    /// A payment waits at the hub.
    Payment,
    /// The deadline of an HTLC in flight is near.
    Deadline,
}

/// A wake call was not taken. One line, without the URL, which may hold a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WakeError(pub String);

/// TCP to peers, and wake calls as HTTP POSTs with [`WakeCall`] as JSON.
pub struct Sockets {
    client: reqwest::Client,
}

impl Sockets {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// [`HostError::Tls`] when the TLS library cannot be set up.
    pub fn new() -> Result<Sockets, HostError> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let client = client.map_err(|e| HostError::Tls(e.to_string()))?;
        Ok(Sockets { client })
    }
}

#[async_trait]
impl Network for Sockets {
    async fn dial(
        &self,
        node_id: PublicKey,
        address: &str,
    ) -> std::io::Result<Box<dyn PeerStream>> {
        if address.is_empty() {
            let unknown = "no address is known: give host:port";
            return Err(Error::new(ErrorKind::InvalidInput, unknown));
        }
        TcpDialer.dial(node_id, address).await
    }

    async fn wake(&self, url: &str, call: &WakeCall) -> Result<(), WakeError> {
        let sent = self.client.post(url).json(call).send().await;
        let answer = sent.map_err(|e| WakeError(e.without_url().to_string()))?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(WakeError(format!("HTTP status {}", answer.status()))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use axum::{Json, Router};
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;

    fn call() -> WakeCall {
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        WakeCall {
            owner: "ann".into(),
            node_id: secret.public_key(&Secp256k1::new()),
            reason: WakeReason::Payment,
            deadline_height: 100,
        }
    }

    /// A push service that answers with `status`, and the bodies of its calls.
    async fn push_service(status: StatusCode) -> (String, mpsc::UnboundedReceiver<Value>) {
        type Service = (mpsc::UnboundedSender<Value>, StatusCode);
        async fn push(
            State((calls, status)): State<Service>,
            Json(body): Json<Value>,
        ) -> StatusCode {
            calls.send(body).unwrap();
            status
        }
        let (calls, called) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/wake", post(push))
            .with_state((calls, status));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/wake?token=t", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, called)
    }

    #[tokio::test]
    async fn a_wake_call_is_posted_as_json() {
        let (url, mut called) = push_service(StatusCode::NO_CONTENT).await;
        assert_eq!(Sockets::new().unwrap().wake(&url, &call()).await, Ok(()));
        let expected = json!({
            "owner": "ann",
            "node_id": call().node_id.to_string(),
            "reason": "payment",
            "deadline_height": 100,
        });
        assert_eq!(called.recv().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn a_failed_wake_call_says_why_and_not_where() {
        let (refusing, _called) = push_service(StatusCode::SERVICE_UNAVAILABLE).await;
        let sockets = Sockets::new().unwrap();
        let refused = sockets.wake(&refusing, &call()).await.unwrap_err();
        assert_eq!(refused.to_string(), "HTTP status 503 Service Unavailable");
        let unreachable = "http://127.0.0.1:1/wake?token=t";
        let failed = sockets.wake(unreachable, &call()).await.unwrap_err();
        assert!(!failed.to_string().contains("token"), "{failed}");
    }

    #[tokio::test]
    async fn a_peer_without_an_address_is_not_dialled() {
        let dialled = Sockets::new().unwrap().dial(call().node_id, "").await;
        assert_eq!(dialled.err().unwrap().kind(), ErrorKind::InvalidInput);
    }
}
