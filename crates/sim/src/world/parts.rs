//! What stands behind the seams of a host and a phone. Each part belongs to the life of one process; when that ends, the
//! part answers nothing more.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Block, BlockHash, OutPoint, Transaction, TxOut};
use longhand_chain::devnet::DirectSource;
use longhand_chain::{BlockRef, ChainError, ChainSource, FeeRates};
use longhand_host::{Joined, Outside, WakeCall, WakeError};
use longhand_link::{Carrier, CarrierError, RecordSink, RecordStream};
use longhand_node::PeerStream;
use longhand_phone::testing::{DiskFate, DiskFaults, DiskWrite};
use longhand_store::{Batch, MemoryStore, Store, StoreError};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{mpsc, watch};

use crate::world::plan::{How, Kind, Plan};

/// Commits after a lie, the last of which is the process's end.
const LIE: u32 = 4;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the stage has to hear of.
#[derive(Clone, Debug)]
pub enum News {
    /// The host's process has ended.
    HostDied,
    /// A phone's process has ended.
    PhoneDied(usize),
    /// A phone's link was dropped; it cannot come back for so many seconds.
    LinkDropped { phone: usize, away_s: u64 },
    /// An owner's phone was called.
    Woken(String),
}

/// The life of one process. All its parts look at it; it ends once.
pub struct Life {
    has_ended: AtomicBool,
    ended: watch::Sender<bool>,
    /// Counts the times when every line of the process broke.
    breaks: watch::Sender<u32>,
    news: mpsc::UnboundedSender<News>,
    died: News,
}

impl Life {
    pub fn begin(died: News, news: mpsc::UnboundedSender<News>) -> Arc<Life> {
        Arc::new(Life {
            has_ended: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            breaks: watch::Sender::new(0),
            news,
            died,
        })
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Returns when it has ended.
    pub async fn over(&self) {
        // The sender is here: waiting cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Cuts every line that it has now.
    pub fn break_lines(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Ends it in this instant, as a crash does: it is started again.
    pub fn end(&self) {
        if self.retire() {
            let _ = self.news.send(self.died.clone());
        }
    }

    /// Ends it for good. False when it had ended before.
    pub fn retire(&self) -> bool {
        let ends = !self.has_ended.swap(true, Ordering::SeqCst);
        self.ended.send_replace(true);
        ends
    }
}

/// The host's store. What it holds outlives the process.
pub struct SimStore {
    pub disk: Arc<MemoryStore>,
    pub life: Arc<Life>,
    pub plan: Plan,
    /// Commits until the process dies of a lie, see [`How::Forgotten`]; 0 without one.
    pub dies_in: AtomicU32,
}

impl SimStore {
    async fn alive(&self) {
        if self.life.has_ended() {
            std::future::pending::<()>().await;
        }
    }

    async fn die(&self) -> Result<(), StoreError> {
        self.life.end();
        std::future::pending().await
    }
}

#[async_trait]
impl Store for SimStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.alive().await;
        self.disk.load(namespace).await
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.alive().await;
        self.disk.get(namespace, key).await
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.alive().await;
        self.disk.namespaces(prefix).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.alive().await;
        if self.dies_in.load(Ordering::SeqCst) > 0
            && self.dies_in.fetch_sub(1, Ordering::SeqCst) == 1
        {
            return self.die().await;
        }
        let interruption = self.plan.step(Kind::StoreWrite);
        match interruption.map(|it| it.how) {
            None => {
                // A disk takes its time: what comes meanwhile waits, as it does behind a real one.
                tokio::task::yield_now().await;
                self.alive().await;
                self.disk.commit(batch).await
            }
            Some(How::After) => {
                self.disk.commit(batch).await?;
                self.die().await
            }
            Some(How::Before | How::Torn) => self.die().await,
            Some(How::Forgotten) => {
                self.dies_in.store(LIE, Ordering::SeqCst);
                Ok(())
            }
        }
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        self.alive().await;
        self.disk.take_lease(namespace).await
    }
}

/// The host's chain source.
pub struct SimSource {
    pub chain: DirectSource,
    pub life: Arc<Life>,
}

impl SimSource {
    fn alive(&self) -> Result<(), ChainError> {
        match self.life.has_ended() {
            false => Ok(()),
            true => Err(ChainError::Unreachable {
                url: "simulated".into(),
                reason: "the process has ended".into(),
            }),
        }
    }
}

#[async_trait]
impl ChainSource for SimSource {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        self.alive()?;
        self.chain.tip().await
    }
    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        self.alive()?;
        self.chain.header(hash).await
    }
    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        self.alive()?;
        self.chain.hash_at(height).await
    }
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        self.alive()?;
        self.chain.block(hash).await
    }
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        self.alive()?;
        self.chain.fee_rates().await
    }
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
        self.alive()?;
        self.chain.broadcast(package).await
    }
    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        self.alive()?;
        self.chain.unspent(outpoint).await
    }
    async fn transaction_at(
        &self,
        height: u32,
        index: u32,
    ) -> Result<Option<Transaction>, ChainError> {
        self.alive()?;
        self.chain.transaction_at(height, index).await
    }
}

/// The host's way out: pipes between its nodes, and wake calls. There are no other peers.
pub struct SimOutside {
    pub life: Arc<Life>,
    pub plan: Plan,
    pub news: mpsc::UnboundedSender<News>,
}

#[async_trait]
impl Outside for SimOutside {
    async fn dial(&self, _: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
        Err(Error::new(
            ErrorKind::HostUnreachable,
            "there is nobody else",
        ))
    }

    fn join(&self, _: PublicKey, _: PublicKey) -> std::io::Result<Joined> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let pipe = |end| SimPipe {
            end: Some(end),
            plan: self.plan.clone(),
        };
        Ok((Box::new(pipe(near)), Box::new(pipe(far))))
    }

    async fn wake(&self, _: &str, call: &WakeCall) -> Result<(), WakeError> {
        if !self.life.has_ended() {
            let _ = self.news.send(News::Woken(call.owner.clone()));
        }
        Ok(())
    }
}

/// One end of a connection between two nodes of the host. Cut, the other end reads what was sent, and then the end.
struct SimPipe {
    end: Option<DuplexStream>,
    plan: Plan,
}

impl AsyncRead for SimPipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
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
    ) -> Poll<std::io::Result<usize>> {
        let plan = self.plan.clone();
        let Some(end) = &mut self.end else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        match plan.step(Kind::PeerMessage).map(|it| it.how) {
            None => Pin::new(end).poll_write(context, bytes),
            Some(How::Before | How::Torn | How::Forgotten) => {
                self.end = None;
                Poll::Ready(Err(ErrorKind::BrokenPipe.into()))
            }
            Some(How::After) => {
                let written = Pin::new(end).poll_write(context, bytes);
                self.end = None;
                written
            }
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_flush(context),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// One connection between a phone and the host. It ends with either of them, or when it is cut.
pub struct Line {
    phone: usize,
    lives: [Arc<Life>; 2],
    is_cut: watch::Sender<bool>,
    plan: Plan,
    news: mpsc::UnboundedSender<News>,
}

impl Line {
    /// The phone's end and the host's.
    pub fn lay(
        phone: usize,
        lives: [Arc<Life>; 2],
        plan: &Plan,
        news: &mpsc::UnboundedSender<News>,
    ) -> (Carrier, Carrier) {
        let line = Arc::new(Line {
            phone,
            lives,
            is_cut: watch::Sender::new(false),
            plan: plan.clone(),
            news: news.clone(),
        });
        let (phone_end, host_end) = Carrier::pair();
        (line.hold(phone_end), line.hold(host_end))
    }

    fn hold(self: &Arc<Line>, carrier: Carrier) -> Carrier {
        let sink = LineSink {
            inner: carrier.sink,
            line: self.clone(),
        };
        let stream = LineStream {
            inner: carrier.stream,
            is_cut: self.is_cut.subscribe(),
            breaks: self.lives.each_ref().map(|life| life.breaks.subscribe()),
            ends: self.lives.each_ref().map(|life| life.ended.subscribe()),
        };
        Carrier::new(sink, stream)
    }

    fn is_dead(&self) -> bool {
        *self.is_cut.borrow() || self.lives.iter().any(|life| life.has_ended())
    }

    fn cut(&self, away_s: u64) {
        self.is_cut.send_replace(true);
        let phone = self.phone;
        let _ = self.news.send(News::LinkDropped { phone, away_s });
    }
}

fn broken() -> CarrierError {
    CarrierError("the line is dead".into())
}

struct LineSink {
    inner: Box<dyn RecordSink>,
    line: Arc<Line>,
}

#[async_trait]
impl RecordSink for LineSink {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        if self.line.is_dead() {
            return Err(broken());
        }
        let Some(interruption) = self.line.plan.step(Kind::Frame) else {
            return self.inner.send(record).await;
        };
        if interruption.how == How::After {
            self.inner.send(record).await?;
        }
        self.line.cut(interruption.away.seconds());
        Err(broken())
    }
}

struct LineStream {
    inner: Box<dyn RecordStream>,
    is_cut: watch::Receiver<bool>,
    breaks: [watch::Receiver<u32>; 2],
    ends: [watch::Receiver<bool>; 2],
}

#[async_trait]
impl RecordStream for LineStream {
    /// What was on its way when the line was cut still arrives; nothing comes from or to a process that has ended.
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        let LineStream {
            inner,
            is_cut,
            breaks: [first, second],
            ends: [one, other],
        } = self;
        tokio::select! {
            biased;
            _ = one.wait_for(|ended| *ended) => Err(broken()),
            _ = other.wait_for(|ended| *ended) => Err(broken()),
            received = inner.recv() => received,
            _ = is_cut.wait_for(|is_cut| *is_cut) => Err(broken()),
            _ = first.changed() => Err(broken()),
            _ = second.changed() => Err(broken()),
        }
    }
}

/// A phone's disk.
pub struct SimDisk {
    pub life: Arc<Life>,
    pub plan: Plan,
}

impl DiskFaults for SimDisk {
    fn before(&self, write: DiskWrite, bytes: usize) -> DiskFate {
        if self.life.has_ended() {
            return DiskFate::PowerGoneBefore;
        }
        if matches!(write, DiskWrite::Host | DiskWrite::HostForget) {
            return DiskFate::GoOn;
        }
        match self.plan.step(Kind::LedgerWrite).map(|it| it.how) {
            None => DiskFate::GoOn,
            Some(How::Before | How::Forgotten) => DiskFate::PowerGoneBefore,
            Some(How::Torn) => DiskFate::PowerGoneTorn { written: bytes / 2 },
            Some(How::After) => DiskFate::PowerGoneAfter,
        }
    }

    fn power_gone(&self) {
        self.life.end();
    }
}
