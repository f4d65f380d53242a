//! The operator's side of the operator API: a client that finds the host by its configuration.

use std::path::Path;

use longhand_proto::operator::operator_client::OperatorClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::config::OperatorListen;
use crate::files::{self, FileError};

/// The largest answer of a host, in bytes. A list of owners has up to 2 KiB for each one's wake URLs.
const MOST_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A client of the operator's API.
pub type Client = OperatorClient<InterceptedService<Channel, SendToken>>;

/// Reaches the operator's API of a running host. The token is read for TCP only.
///
/// # Errors
/// [`ClientError`].
pub async fn connect(listen: &OperatorListen, token_file: &Path) -> Result<Client, ClientError> {
    let (uri, token) = match listen {
        OperatorListen::Unix(path) => (format!("unix:{}", path.display()), None),
        OperatorListen::Tcp(address) => {
            (format!("http://{address}"), Some(read_token(token_file)?))
        }
    };
    let unreachable = |error: tonic::transport::Error| ClientError::Unreachable {
        address: uri.clone(),
        reason: innermost(&error),
    };
    let endpoint = Endpoint::from_shared(uri.clone()).map_err(unreachable)?;
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let client = OperatorClient::with_interceptor(channel, SendToken(token));
    Ok(client.max_decoding_message_size(MOST_ANSWER_BYTES))
}

/// Adds the token to each call.
#[derive(Clone)]
pub struct SendToken(Option<MetadataValue<Ascii>>);

impl Interceptor for SendToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

fn read_token(path: &Path) -> Result<MetadataValue<Ascii>, ClientError> {
    let token = files::read_secret(path)?.ok_or_else(|| ClientError::NoToken(path.to_owned()))?;
    let text = zeroize::Zeroizing::new(format!("Bearer {}", files::to_hex(token.as_ref())));
    let mut value = MetadataValue::try_from(text.as_str())
        .map_err(|_| ClientError::NoToken(path.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The socket's error, beneath those of the libraries.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

/// Why the operator's API cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No host answers.
    #[error(
        "the host cannot be reached at {address} ({reason}): check that it runs, and where it listens"
    )]
    Unreachable {
        /// As dialled.
        address: String,
        /// The socket's error.
        reason: String,
    },
    /// The token file is missing.
    #[error("there is no token in {0}: give the token file that the host made")]
    NoToken(std::path::PathBuf),
    /// The token file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}
