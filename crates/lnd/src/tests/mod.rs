//! Apps at a node that is made up, over real sockets: gRPC with tonic, REST with reqwest.
#![allow(clippy::unwrap_used)]

mod grpc;
mod lists;
mod rest;

use std::sync::Arc;

use futures::StreamExt;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::testing::{FakeNode, OneApp, macaroon};
use crate::{Macaroon, Rights, routes, serve};

/// A server, and one app with a macaroon.
struct World {
    node: Arc<FakeNode>,
    app: Arc<OneApp>,
    address: String,
    channel: Channel,
    serving: AbortHandle,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    async fn new() -> World {
        let node = Arc::new(FakeNode::default());
        let app = OneApp::new(node.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let routes = routes(app.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, routes.clone()));
            }
        });
        let endpoint = Endpoint::from_shared(address.clone()).unwrap();
        World {
            node,
            app,
            channel: endpoint.connect().await.unwrap(),
            address,
            serving: serving.abort_handle(),
        }
    }

    /// A call as an app with all rights.
    async fn one<Q, T>(&self, name: &str, asked: Q) -> Result<T, Status>
    where
        Q: Message + Default + 'static,
        T: Message + Default + 'static,
    {
        self.one_as(&macaroon(crate::testing::ALL, None), name, asked)
            .await
    }

    async fn one_as<Q, T>(&self, shown: &Macaroon, name: &str, asked: Q) -> Result<T, Status>
    where
        Q: Message + Default + 'static,
        T: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = format!("/{name}").parse().unwrap();
        let request = with(shown, asked);
        let answer = grpc
            .unary(request, path, ProstCodec::<Q, T>::default())
            .await;
        answer.map(tonic::Response::into_inner)
    }

    async fn many<Q, T>(&self, name: &str, asked: Q) -> Result<Streaming<T>, Status>
    where
        Q: Message + Default + 'static,
        T: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = format!("/{name}").parse().unwrap();
        let request = with(&macaroon(crate::testing::ALL, None), asked);
        let answer = grpc.server_streaming(request, path, ProstCodec::<Q, T>::default());
        answer.await.map(tonic::Response::into_inner)
    }
}

fn with<Q>(shown: &Macaroon, asked: Q) -> Request<Q> {
    let mut request = Request::new(asked);
    let value = MetadataValue::try_from(shown.to_hex().as_str()).unwrap();
    request.metadata_mut().insert("macaroon", value);
    request
}

/// All messages, and the error that ends them.
async fn all<T>(mut messages: Streaming<T>) -> (Vec<T>, Option<Status>) {
    let mut read = Vec::new();
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => read.push(message),
            Err(status) => return (read, Some(status)),
        }
    }
    (read, None)
}

fn refused<T>(answer: Result<T, Status>, code: Code, part: &str) {
    let status = answer.err().unwrap();
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(part), "{status}");
}

fn read_only() -> Macaroon {
    let read = Rights {
        read: true,
        ..Rights::default()
    };
    macaroon(read, None)
}

fn now_unix_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs()
}
