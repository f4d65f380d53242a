//! Calls of push services, which wake a program that is not connected.

use async_trait::async_trait;

/// Delivers wake calls.
#[async_trait]
pub trait WakeHook: Send + Sync + 'static {
    /// Delivers one call, a JSON object, to the push service at `url`. The caller limits the time, and may drop the call half-way.
    ///
    /// # Errors
    /// Why the call was not taken.
    async fn call(&self, url: &str, body: Vec<u8>) -> Result<(), WakeError>;
}

/// A wake call was not taken. One line, without the URL, which may hold a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WakeError(pub String);

#[cfg(feature = "wake-http")]
mod http {
    use async_trait::async_trait;
    use reqwest::Client;
    use reqwest::header::CONTENT_TYPE;
    use reqwest::redirect::Policy;

    use super::{WakeError, WakeHook};

    /// An HTTP POST for each call. Any answer with a status of success takes it.
    #[derive(Clone)]
    pub struct HttpWake(Client);

    impl HttpWake {
        /// With the system's names and the web's certificate authorities; redirects are not followed.
        ///
        /// # Errors
        /// When the TLS library cannot be set up.
        pub fn new() -> Result<HttpWake, WakeError> {
            let client = Client::builder().redirect(Policy::none()).build();
            let client = client.map_err(|error| WakeError(error.to_string()))?;
            Ok(HttpWake(client))
        }

        /// With a client that has its own rules of names and addresses.
        pub fn with(client: Client) -> HttpWake {
            HttpWake(client)
        }
    }

    #[async_trait]
    impl WakeHook for HttpWake {
        async fn call(&self, url: &str, body: Vec<u8>) -> Result<(), WakeError> {
            let post = self.0.post(url).header(CONTENT_TYPE, "application/json");
            let sent = post.body(body).send().await;
            let answer = sent.map_err(|e| WakeError(e.without_url().to_string()))?;
            match answer.status().is_success() {
                true => Ok(()),
                false => Err(WakeError(format!("HTTP status {}", answer.status()))),
            }
        }
    }
}

#[cfg(feature = "wake-http")]
pub use http::HttpWake;
