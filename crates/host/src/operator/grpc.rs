//! The operator's API over gRPC: each call is one of [`Operator`]'s.

use std::path::Path;

use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::hashes::{Hash, sha256};
use futures::StreamExt;
use futures::stream::BoxStream;
use longhand_proto::Code;
use longhand_proto::command::error::Action;
use longhand_proto::operator::operator_server::Operator as Service;
use longhand_proto::operator::*;
use tokio::net::UnixListener;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{Operator, OperatorError};

type Answer<T> = Result<Response<T>, Status>;

/// The API's service.
pub(crate) struct OperatorApi(pub Operator);

fn answer<T>(result: Result<T, OperatorError>) -> Answer<T> {
    result.map(Response::new).map_err(Status::from)
}

#[tonic::async_trait]
impl Service for OperatorApi {
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusReply> {
        answer(self.0.status().await)
    }

    type WatchStream = BoxStream<'static, Result<HostChange, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        answer(self.0.watch().map(|changes| changes.map(Ok).boxed()))
    }

    async fn create_owner(&self, request: Request<CreateOwnerRequest>) -> Answer<PairingCode> {
        answer(self.0.create_owner(request.into_inner()).await)
    }

    async fn renew_pairing(&self, request: Request<RenewPairingRequest>) -> Answer<PairingCode> {
        answer(self.0.renew_pairing(request.into_inner()).await)
    }

    async fn list_owners(&self, _: Request<ListOwnersRequest>) -> Answer<ListOwnersReply> {
        answer(self.0.list_owners().await)
    }

    async fn set_wake_url(&self, request: Request<SetWakeUrlRequest>) -> Answer<SetWakeUrlReply> {
        answer(self.0.set_wake_url(request.into_inner()).await)
    }

    async fn connect_app(&self, request: Request<ConnectAppRequest>) -> Answer<ConnectedApp> {
        answer(self.0.connect_app(request.into_inner()).await)
    }

    async fn list_apps(&self, request: Request<ListAppsRequest>) -> Answer<ListAppsReply> {
        answer(self.0.list_apps(request.into_inner()).await)
    }

    async fn disconnect_app(
        &self,
        request: Request<DisconnectAppRequest>,
    ) -> Answer<ListAppsReply> {
        answer(self.0.disconnect_app(request.into_inner()).await)
    }

    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Answer<ListNodesReply> {
        answer(self.0.list_nodes().await)
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Answer<NodeView> {
        answer(self.0.get_node(request.into_inner()).await)
    }

    async fn reset_signer_chain(
        &self,
        request: Request<ResetSignerChainRequest>,
    ) -> Answer<ResetSignerChainReply> {
        answer(self.0.reset_signer_chain(request.into_inner()).await)
    }

    async fn hub_address(&self, _: Request<HubAddressRequest>) -> Answer<HubAddressReply> {
        answer(self.0.hub_address().await)
    }

    async fn hub_balance(&self, _: Request<HubBalanceRequest>) -> Answer<HubBalanceReply> {
        answer(self.0.hub_balance().await)
    }

    async fn hub_open_channel(
        &self,
        request: Request<HubOpenChannelRequest>,
    ) -> Answer<HubOpenChannelReply> {
        answer(self.0.hub_open_channel(request.into_inner()).await)
    }

    async fn hub_close_channel(
        &self,
        request: Request<HubCloseChannelRequest>,
    ) -> Answer<HubCloseChannelReply> {
        answer(self.0.hub_close_channel(request.into_inner()).await)
    }

    async fn hub_invoice(&self, request: Request<HubInvoiceRequest>) -> Answer<HubInvoiceReply> {
        answer(self.0.hub_invoice(request.into_inner()).await)
    }

    async fn hub_pay(&self, request: Request<HubPayRequest>) -> Answer<HubPayReply> {
        answer(self.0.hub_pay(request.into_inner()).await)
    }

    async fn hub_connect(&self, request: Request<HubConnectRequest>) -> Answer<HubConnectReply> {
        answer(self.0.hub_connect(request.into_inner()).await)
    }

    async fn hub_channels(&self, _: Request<HubChannelsRequest>) -> Answer<HubChannelsReply> {
        answer(self.0.hub_channels().await)
    }

    async fn hub_send(&self, request: Request<HubSendRequest>) -> Answer<HubSendReply> {
        answer(self.0.hub_send(request.into_inner()).await)
    }

    async fn hub_sends(&self, _: Request<HubSendsRequest>) -> Answer<HubSendsReply> {
        answer(self.0.hub_sends().await)
    }

    async fn hub_bump(&self, request: Request<HubReplaceRequest>) -> Answer<HubSendReply> {
        answer(self.0.hub_bump(request.into_inner()).await)
    }

    async fn hub_abandon(&self, request: Request<HubReplaceRequest>) -> Answer<HubSendReply> {
        answer(self.0.hub_abandon(request.into_inner()).await)
    }

    async fn hub_fees(&self, request: Request<HubFeesRequest>) -> Answer<HubFeesReply> {
        answer(self.0.hub_fees(request.into_inner()).await)
    }

    async fn hub_payments(&self, request: Request<HubPaymentsRequest>) -> Answer<HubPaymentsReply> {
        answer(self.0.hub_payments(request.into_inner()).await)
    }

    async fn hub_forwards(&self, request: Request<HubForwardsRequest>) -> Answer<HubForwardsReply> {
        answer(self.0.hub_forwards(request.into_inner()).await)
    }
}

/// The text is the error's: its code, a colon, and the line for a person.
impl From<OperatorError> for Status {
    fn from(error: OperatorError) -> Status {
        Status::new(kind_of(error.code), error.to_string())
    }
}

/// gRPC's own kind of error, which is all that some clients look at.
fn kind_of(code: Code) -> tonic::Code {
    use tonic::Code as Kind;
    match code {
        Code::OwnerNotFound => Kind::NotFound,
        Code::OwnerExists => Kind::AlreadyExists,
        Code::Internal => Kind::Internal,
        Code::NodeFailed | Code::NodeNotRunning | Code::OwnerNotPaired | Code::OwnerUnreadable => {
            Kind::FailedPrecondition
        }
        // Tried, and over.
        Code::PaymentFailed => Kind::Aborted,
        _ => match code.action() {
            Action::FixInput => Kind::InvalidArgument,
            Action::Retry => Kind::Unavailable,
            Action::WaitForPhone => Kind::FailedPrecondition,
            Action::GiveUp | Action::Unspecified => Kind::Aborted,
        },
    }
}

/// Lets calls with the right token through.
#[derive(Clone)]
pub(crate) struct TokenCheck {
    /// Hashed, so that comparing takes as long whatever was sent.
    expected: [u8; 32],
}

impl TokenCheck {
    pub fn new(token: &Zeroizing<[u8; 32]>) -> TokenCheck {
        let text = Zeroizing::new(crate::files::to_hex(token.as_ref()));
        TokenCheck {
            expected: sha256::Hash::hash(text.as_bytes()).to_byte_array(),
        }
    }
}

impl Interceptor for TokenCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        let given = sha256::Hash::hash(token.as_bytes()).to_byte_array();
        match fixed_time_eq(&given, &self.expected) {
            true => Ok(request),
            false => {
                let message = "the token is missing or wrong: see operator.token";
                Err(Status::unauthenticated(format!(
                    "{}: {message}",
                    Code::Unauthenticated
                )))
            }
        }
    }
}

/// Binds the socket for its owner alone; takes the place of one that a crash left behind.
pub(crate) fn bind_socket(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let in_use = std::os::unix::net::UnixStream::connect(path).is_ok();
    if in_use {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token = Zeroizing::new([0xab; 32]);
        let right = format!("Bearer {}", "ab".repeat(32));
        let headers: [(Option<&str>, bool); 6] = [
            (Some(&right), true),
            (Some(&right[..right.len() - 1]), false),
            (Some(&right["Bearer ".len()..]), false),
            (Some("Bearer "), false),
            (Some(""), false),
            (None, false),
        ];
        for (header, opens) in headers {
            let mut request = Request::new(());
            if let Some(header) = header {
                request
                    .metadata_mut()
                    .insert("authorization", header.parse().unwrap());
            }
            assert_eq!(
                TokenCheck::new(&token).call(request).is_ok(),
                opens,
                "{header:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_socket_of_a_crash_is_replaced_and_a_live_one_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.sock");
        let first = bind_socket(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let second = bind_socket(&path).unwrap_err();
        assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
        drop(first);
        bind_socket(&path).unwrap();
    }
}
