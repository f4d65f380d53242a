//! Calls over gRPC.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::call::{Asked, Call, MOST_REQUEST_BYTES, Messages, Told, is_grpc};
use crate::door::{Caller, Door};
use crate::rights::Op;
use crate::status::status;

/// Answers a call with one reply.
pub(crate) async fn one<Q: Asked, T: Told>(
    door: Door,
    needed: Op,
    call: impl Call<Q, T>,
    request: Request,
) -> Response {
    match enter(&door, needed, &request) {
        Ok(caller) => {
            let codec = ProstCodec::<T, Q>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MOST_REQUEST_BYTES);
            let answer = grpc.unary(Entered::new(caller, call), request).await;
            answer.map(Body::new)
        }
        Err(refused) => refused.into_http(),
    }
}

/// Answers a call whose reply is a stream.
pub(crate) async fn many<Q: Asked, T: Told>(
    door: Door,
    needed: Op,
    call: impl Call<Q, Messages<T>>,
    request: Request,
) -> Response {
    match enter(&door, needed, &request) {
        Ok(caller) => {
            let codec = ProstCodec::<T, Q>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MOST_REQUEST_BYTES);
            let entered = Streaming(Entered::new(caller, call));
            let answer = grpc.server_streaming(entered, request).await;
            answer.map(Body::new)
        }
        Err(refused) => refused.into_http(),
    }
}

fn enter(door: &Door, needed: Op, request: &Request) -> Result<Caller, Status> {
    let caller = door.enter(request.headers(), Some(needed))?;
    match is_grpc(request.headers()) {
        true => Ok(caller),
        false => Err(status(
            Code::InvalidArgument,
            "the request is not gRPC: use the path of REST",
        )),
    }
}

/// A call that was let in, whose answer has this type.
struct Entered<C, A> {
    caller: Caller,
    call: C,
    answer: PhantomData<fn() -> A>,
}

impl<C, A> Entered<C, A> {
    fn new(caller: Caller, call: C) -> Entered<C, A> {
        let answer = PhantomData;
        Entered {
            caller,
            call,
            answer,
        }
    }
}

impl<Q: Asked, T: Told, C: Call<Q, T>> UnaryService<Q> for Entered<C, T> {
    type Response = T;
    type Future = BoxFuture<'static, Result<tonic::Response<T>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let caller = self.caller.clone();
        let answer = (self.call)(Arc::clone(&caller.node), request.into_inner());
        async move {
            let answer = answer.await;
            // The call's place is taken until here.
            drop(caller);
            answer.map(tonic::Response::new)
        }
        .boxed()
    }
}

struct Streaming<C, T>(Entered<C, T>);

impl<Q: Asked, T: Told, C: Call<Q, Messages<T>>> ServerStreamingService<Q> for Streaming<C, T> {
    type Response = T;
    type ResponseStream = Messages<T>;
    type Future = BoxFuture<'static, Result<tonic::Response<Messages<T>>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let caller = self.0.caller.clone();
        let answer = (self.0.call)(Arc::clone(&caller.node), request.into_inner());
        async move {
            let messages = answer.await?;
            Ok(tonic::Response::new(caller.keep(messages).boxed()))
        }
        .boxed()
    }
}
