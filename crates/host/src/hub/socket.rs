//! A TCP connection of a stranger to the hub: it has a place at the listener, and little time, until its handshake is over.

use std::io::Result;
use std::pin::Pin;
use std::task::{Context, Poll};

use longhand_link::carrier::guest::{Attached, Guest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that the hub reads in a handshake: Act One and Act Three (BOLT 8), and the smallest `init` (BOLT 1), with its length and
/// both authentication tags. LDK closes a connection with wrong ones, and has limits of its own for peers after it.
const HANDSHAKE_BYTES: usize = 50 + 66 + (2 + 16) + (6 + 16);

/// See the module.
pub(crate) struct StrangerSocket {
    guest: Guest,
    handshake_left: usize,
    /// While the connection is used, after its handshake.
    used: Option<Attached>,
}

impl StrangerSocket {
    /// No byte was read from it yet.
    pub fn new(guest: Guest) -> StrangerSocket {
        StrangerSocket {
            guest,
            handshake_left: HANDSHAKE_BYTES,
            used: None,
        }
    }

    fn was_read(&mut self, bytes: usize) {
        if self.handshake_left == 0 {
            return;
        }
        self.handshake_left = self.handshake_left.saturating_sub(bytes);
        if self.handshake_left == 0 {
            self.used = self.guest.visit().attach();
            if let Some(used) = &mut self.used {
                used.place = None;
            }
        }
    }
}

impl AsyncRead for StrangerSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let socket = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut socket.guest).poll_read(cx, buffer);
        socket.was_read(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for StrangerSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.get_mut().guest).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().guest).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().guest).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use longhand_link::carrier::admission::{Admission, Places};
    use longhand_link::carrier::guest;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_stranger_has_a_place_until_the_handshake_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (guests, mut arriving) = mpsc::channel(1);
        let places = Places { all: 1, each: 1 };
        tokio::spawn(guest::accept(listener, Admission::new(places), guests));

        let mut first = TcpStream::connect(address).await.unwrap();
        let mut near = StrangerSocket::new(arriving.recv().await.unwrap().unwrap());
        first.write_all(&[0; HANDSHAKE_BYTES - 1]).await.unwrap();
        near.read_exact(&mut [0; HANDSHAKE_BYTES - 1])
            .await
            .unwrap();
        let mut refused = TcpStream::connect(address).await.unwrap();
        assert_eq!(refused.read(&mut [0]).await.unwrap(), 0, "no place is left");

        first.write_all(&[0; 1]).await.unwrap();
        near.read_exact(&mut [0; 1]).await.unwrap();
        let _second = TcpStream::connect(address).await.unwrap();
        let _taken = arriving.recv().await.unwrap().unwrap();
        tokio::time::pause();
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(3_600), near.read(&mut byte));
        assert!(
            read.await.is_err(),
            "after its handshake it does not time out"
        );
    }

    #[tokio::test]
    async fn a_stranger_that_sends_nothing_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (guests, mut arriving) = mpsc::channel(1);
        tokio::spawn(guest::accept(
            listener,
            Admission::new(Places::STRANGERS),
            guests,
        ));
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut near = StrangerSocket::new(arriving.recv().await.unwrap().unwrap());
        tokio::time::pause();
        let closed = near.read(&mut [0]).await.unwrap_err();
        assert_eq!(closed.kind(), std::io::ErrorKind::TimedOut);
    }
}
