//! The network of the host: connections between two of its nodes, and wake calls. There are no other peers.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_host::{Joined, Network, PeerDial, WakeCall, WakeError, WakeUrl};
use longhand_node::PeerStream;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Life, News, lock};
use crate::world::plan::{How, Kind, Plan};

/// See the module.
pub struct SimNetwork {
    pub life: Arc<Life>,
    pub plan: Plan,
    pub news: mpsc::UnboundedSender<News>,
    pub connected: Arc<()>,
}

#[async_trait]
impl Network for SimNetwork {
    async fn dial(&self, _: PeerDial<'_>) -> Result<Box<dyn PeerStream>> {
        Err(Error::new(
            ErrorKind::HostUnreachable,
            "there is nobody else",
        ))
    }

    fn join(&self, _: PublicKey, _: PublicKey) -> Result<Joined> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (there, back) = (Arc::default(), Arc::default());
        let pipe = |end, out: &Arc<Way>, into: &Arc<Way>| SimPipe {
            end: Some(end),
            out: out.clone(),
            into: into.clone(),
            waiting: None,
            life: self.life.clone(),
            plan: self.plan.clone(),
            _connected: self.connected.clone(),
        };
        Ok((
            Box::new(pipe(near, &there, &back)),
            Box::new(pipe(far, &back, &there)),
        ))
    }

    async fn wake(&self, _: &WakeUrl, call: &WakeCall) -> std::result::Result<(), WakeError> {
        let failed = || Err(WakeError("the push service is away".into()));
        // A process that has ended sends no call.
        if self.life.has_ended() {
            return failed();
        }
        self.plan.trace(Kind::WakeCall, &call.owner);
        let interruption = self.plan.step(Kind::WakeCall);
        let ring = || drop(self.news.send(News::Woken(call.owner.clone())));
        match interruption.map(|it| (it.how, it.length.time())) {
            Some((How::Fails, _)) => return failed(),
            // Accepted by the push service, and lost on the way to the phone.
            Some((How::Silent, _)) => {}
            Some((How::Unheard, _)) => {
                ring();
                return failed();
            }
            Some((How::Twice, _)) => {
                ring();
                ring();
            }
            // Accepted at once, and late at the phone.
            Some((_, late)) => {
                let (news, woken) = (self.news.clone(), News::Woken(call.owner.clone()));
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let _ = news.send(woken);
                });
            }
            None => ring(),
        }
        Ok(())
    }
}

/// One direction of a connection.
type Way = Mutex<Flow>;

/// Delivery of the bytes that were written.
#[derive(Clone, Copy, Default)]
enum Flow {
    /// All, at once.
    #[default]
    Runs,
    /// All, but not before this time.
    Late(Instant),
    /// Nothing any more, not even the end of the stream.
    Silent,
}

/// One end of a connection between two nodes of the host. After a cut the other end reads what was sent, then the end.
struct SimPipe {
    end: Option<DuplexStream>,
    out: Arc<Way>,
    into: Arc<Way>,
    /// Timer for late bytes.
    waiting: Option<Pin<Box<Sleep>>>,
    life: Arc<Life>,
    plan: Plan,
    /// Counts the connection, as long as this end is held.
    _connected: Arc<()>,
}

impl SimPipe {
    /// Ready when the written bytes can be read.
    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match *lock(&self.into) {
            Flow::Runs => return Poll::Ready(()),
            Flow::Silent => return Poll::Pending,
            Flow::Late(until) => {
                let waiting = self
                    .waiting
                    .get_or_insert_with(|| Box::pin(sleep_until(until)));
                ready!(waiting.as_mut().poll(context));
            }
        }
        self.waiting = None;
        *lock(&self.into) = Flow::Runs;
        Poll::Ready(())
    }
}

impl AsyncRead for SimPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        ready!(self.poll_arrived(context));
        match &mut self.end {
            Some(end) => Pin::new(end).poll_read(context, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for SimPipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        if self.end.is_none() || self.life.has_ended() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        self.plan.trace(Kind::PeerMessage, bytes);
        let interruption = self.plan.step(Kind::PeerMessage);
        match interruption.map(|it| it.how) {
            None | Some(How::After) => {}
            Some(How::Late) => {
                let length = interruption.map(|it| it.length.time()).unwrap_or_default();
                let mut out = lock(&self.out);
                // A silent direction stays silent.
                if !matches!(*out, Flow::Silent) {
                    *out = Flow::Late(Instant::now() + length);
                }
            }
            Some(How::OneWay) => *lock(&self.out) = Flow::Silent,
            Some(How::Silent) => {
                *lock(&self.out) = Flow::Silent;
                *lock(&self.into) = Flow::Silent;
            }
            Some(how) => {
                if let (How::Torn, Some(end)) = (how, &mut self.end) {
                    // Bytes that it does not take at once are lost too.
                    let _ = Pin::new(end).poll_write(context, &bytes[..bytes.len() / 2]);
                }
                self.end = None;
                return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
            }
        }
        if matches!(*lock(&self.out), Flow::Silent) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let Some(end) = &mut self.end else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        let written = Pin::new(end).poll_write(context, bytes);
        if interruption.is_some_and(|it| it.how == How::After) {
            self.end = None;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_flush(context),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}
