//! TCP with `TCP_NODELAY`, which Arti does not set: without it a cell waits for the acknowledgement of the one before, tens of
//! milliseconds at each relay.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tor_rtcompat::{
    NetStreamListener, NetStreamProvider, StreamOps, TcpConnectOptions, TcpListenOptions,
};

/// Connects to relays.
#[derive(Clone, Debug)]
pub(super) struct NoDelay;

#[async_trait]
impl NetStreamProvider for NoDelay {
    type Stream = Socket;
    type Listener = NoListener;
    type ConnectOptions = TcpConnectOptions;
    type ListenOptions = TcpListenOptions;

    async fn connect(&self, address: &SocketAddr, _: &TcpConnectOptions) -> Result<Socket> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Socket(stream.compat()))
    }

    async fn listen(&self, _: &SocketAddr, _: &TcpListenOptions) -> Result<NoListener> {
        Err(Error::new(ErrorKind::Unsupported, "Tor listens nowhere"))
    }
}

/// A connection to a relay.
pub(super) struct Socket(Compat<TcpStream>);

impl StreamOps for Socket {}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// There is none: a client and an onion service only dial.
pub(super) enum NoListener {}

impl NetStreamListener for NoListener {
    type Stream = Socket;
    type Incoming = NoListener;

    fn incoming(self) -> NoListener {
        self
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        match *self {}
    }
}

impl Stream for NoListener {
    type Item = Result<(Socket, SocketAddr)>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match *self {}
    }
}
