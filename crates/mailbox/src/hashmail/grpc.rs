//! The gRPC service `hashmailrpc.HashMail`.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request as HttpRequest;
use axum::response::Response as HttpResponse;
use futures::{Stream, StreamExt, stream};
use longhand_link::carrier::guest::Visit;
use longhand_proto::hashmail::hash_mail_server::{HashMail, HashMailServer};
use longhand_proto::hashmail::{
    CipherBox, CipherBoxAuth, CipherBoxDesc, CipherInitResp, CipherSuccess, DelCipherBoxResp,
    cipher_init_resp,
};
use tonic::{Code, Extensions, Request, Response, Status, Streaming};

use super::body::{self, Reserved};
use super::core::{BoxId, Role};
use super::refusal::Refusal;
use super::shared::{Account, Attached, Reservation, Shared};
use super::{check_auth, check_desc, given_id};

/// A request that is no message of a stream, in bytes.
const MAX_CALL: usize = 4 << 10;

/// Where gRPC is served.
pub(super) const PATH: &str = "/hashmailrpc.HashMail/{*method}";

/// The service for requests at [`PATH`].
pub(super) async fn serve(shared: Arc<Shared>, request: HttpRequest) -> HttpResponse {
    let is_stream = request.uri().path().ends_with("/SendStream");
    let most = match is_stream {
        true => shared.with(|core, _| core.limits().message_bytes),
        false => MAX_CALL,
    };
    let account = Account::new(&shared, request.extensions().get());
    let (mut head, body) = request.into_parts();
    let (body, reserved) = body::metered(body, account, most);
    head.extensions.insert(reserved);
    let mut service = HashMailServer::new(Service { shared })
        .max_decoding_message_size(most)
        .max_encoding_message_size(usize::MAX);
    let call = tower::Service::call(&mut service, HttpRequest::from_parts(head, body));
    match call.await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(never) => match never {},
    }
}

struct Service {
    shared: Arc<Shared>,
}

impl Service {
    fn refuse(&self, refusal: Refusal) -> Status {
        self.shared.refused(refusal);
        status(refusal)
    }
}

#[tonic::async_trait]
impl HashMail for Service {
    type RecvStreamStream = Pin<Box<dyn Stream<Item = Result<CipherBox, Status>> + Send>>;

    async fn new_cipher_box(
        &self,
        request: Request<CipherBoxAuth>,
    ) -> Result<Response<CipherInitResp>, Status> {
        let by = visit(request.extensions()).as_ref().and_then(Visit::source);
        let created = check_auth(request.get_ref()).and_then(|id| self.shared.create(id, by));
        created.map_err(|refusal| self.refuse(refusal))?;
        let resp = cipher_init_resp::Resp::Success(CipherSuccess::default());
        Ok(Response::new(CipherInitResp { resp: Some(resp) }))
    }

    async fn del_cipher_box(
        &self,
        request: Request<CipherBoxAuth>,
    ) -> Result<Response<DelCipherBoxResp>, Status> {
        let deleted = check_auth(request.get_ref()).and_then(|id| self.shared.delete(id));
        deleted.map_err(|refusal| self.refuse(refusal))?;
        Ok(Response::new(DelCipherBoxResp {}))
    }

    async fn send_stream(
        &self,
        request: Request<Streaming<CipherBox>>,
    ) -> Result<Response<CipherBoxDesc>, Status> {
        let visit = visit(request.extensions());
        let reserved = request.extensions().get::<Reserved>().cloned();
        let sending = Sending {
            shared: &self.shared,
            messages: request.into_inner(),
            reserved: reserved.unwrap_or_default(),
        };
        sending.run(visit).await.map(Response::new)
    }

    async fn recv_stream(
        &self,
        request: Request<CipherBoxDesc>,
    ) -> Result<Response<Self::RecvStreamStream>, Status> {
        let visit = visit(request.extensions());
        let stream_id = given_id(&request.get_ref().stream_id).to_vec();
        let id = BoxId::new(&stream_id);
        let attached = self.shared.attach(id, Role::Reader, visit).await;
        let attached = attached.map_err(|refusal| self.refuse(refusal))?;
        let desc = CipherBoxDesc { stream_id };
        Ok(Response::new(messages(attached, desc).boxed()))
    }
}

/// A request whose client sends messages.
pub(super) struct Sending<'a, Messages> {
    pub shared: &'a Arc<Shared>,
    pub messages: Messages,
    pub reserved: Reserved,
}

impl<Messages: Stream<Item = Result<CipherBox, Status>> + Unpin> Sending<'_, Messages> {
    /// Until the client has sent all of them.
    pub async fn run(mut self, visit: Option<Visit>) -> Result<CipherBoxDesc, Status> {
        let Some((first, reserved)) = self.next().await? else {
            return Err(self.refuse(Refusal::NoDescriptor));
        };
        let id = check_desc(first.desc.as_ref()).map_err(|refusal| self.refuse(refusal))?;
        let attached = self.shared.attach(id, Role::Writer, visit).await;
        let attached = attached.map_err(|refusal| self.refuse(refusal))?;
        let mut next = Some((first.msg, reserved));
        while let Some((msg, reserved)) = next {
            let sent = attached.put(msg, reserved);
            sent.map_err(|refusal| self.refuse(refusal))?;
            let may_put = attached.may_put().await;
            may_put.map_err(|refusal| self.refuse(refusal))?;
            let read = tokio::select! {
                biased;
                read = self.next() => read?,
                refusal = attached.ended() => return Err(self.refuse(refusal)),
            };
            next = read.map(|(message, reserved)| (message.msg, reserved));
        }
        Ok(first.desc.unwrap_or_default())
    }

    async fn next(&mut self) -> Result<Option<(CipherBox, Option<Reservation>)>, Status> {
        let message = self.messages.next().await.transpose()?;
        Ok(message.map(|message| (message, self.reserved.next())))
    }

    fn refuse(&self, refusal: Refusal) -> Status {
        self.shared.refused(refusal);
        status(refusal)
    }
}

/// The messages of a box, until its use ends.
pub(super) fn messages(
    attached: Attached,
    desc: CipherBoxDesc,
) -> impl Stream<Item = Result<CipherBox, Status>> + Send {
    stream::unfold(Some((attached, desc)), |state| async move {
        let (attached, desc) = state?;
        match attached.take().await {
            Ok(msg) => {
                let message = CipherBox {
                    desc: Some(desc.clone()),
                    msg,
                };
                Some((Ok(message), Some((attached, desc))))
            }
            Err(refusal) => Some((Err(status(refusal)), None)),
        }
    })
}

fn visit(extensions: &Extensions) -> Option<Visit> {
    extensions.get::<Visit>().cloned()
}

/// As gRPC sends it.
pub(super) fn status(refusal: Refusal) -> Status {
    Status::new(Code::from_i32(refusal.code().into()), refusal.text())
}
