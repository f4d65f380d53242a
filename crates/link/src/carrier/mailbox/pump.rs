//! The shell of a [`Trunk`]: moves messages between a carrier to the mailbox and the carriers of links, until either is gone.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::ends::{Ask, Connected, connect};
use super::stream::End;
use super::trunk::{Event, Line, Trunk};
use crate::carrier::{Carrier, CarrierError, RecordSink};

/// Packets of all carriers that wait for the mailbox's connection.
const QUEUE: usize = 64;
/// Messages that wait for the mailbox while more are read of it: some of what it sends is answered.
const MOST_WAITING: usize = 256;

/// What the user of a pump asks for beside its carriers, and what it learns.
pub(super) trait User: Send {
    /// Whether the pump ends when its last carrier has ended, and all of it is sent: a phone's, whose connection has no other use.
    const ENDS_WITH_CARRIERS: bool;

    /// Changes the trunk's streams; pends while there is nothing to change. May be cancelled.
    ///
    /// # Errors
    /// Why the pump stops.
    fn change(
        &mut self,
        trunk: &mut Trunk,
    ) -> impl Future<Output = Result<(), CarrierError>> + Send;

    /// An event that is no carrier's.
    ///
    /// # Errors
    /// Why the pump stops.
    fn event(&mut self, trunk: &mut Trunk, event: Event) -> Result<(), CarrierError>;

    /// A phone has opened a connection.
    fn opened(&mut self, line: Line, carrier: Carrier);
}

/// See the module.
pub(super) struct Pump {
    pub trunk: Trunk,
    begun: Instant,
    asks: mpsc::Receiver<Ask>,
    asking: mpsc::Sender<Ask>,
    connected: HashMap<Line, Connected>,
}

impl Pump {
    pub fn new(end: End) -> Pump {
        let (asking, asks) = mpsc::channel(QUEUE);
        Pump {
            trunk: Trunk::new(end, 0),
            begun: Instant::now(),
            asks,
            asking,
            connected: HashMap::new(),
        }
    }

    /// A carrier over a connection that this side opens or has accepted.
    pub fn connect(&mut self, line: Line) -> Carrier {
        let (carrier, connected) = connect(line, self.asking.clone());
        self.connected.insert(line, connected);
        carrier
    }

    /// Runs until the mailbox's connection ends. All carriers end with it.
    pub async fn run<U: User>(mut self, mailbox: Carrier, user: &mut U) -> CarrierError {
        let Carrier {
            sink, mut stream, ..
        } = mailbox;
        let (messages, leaving) = mpsc::channel(QUEUE);
        let mut writer = Writer(tokio::spawn(write(sink, leaving)));
        let ended = loop {
            let waiting = self.trunk.waiting();
            let is_idle = waiting == 0;
            let tick = self.begun + Duration::from_millis(self.trunk.next_tick_ms());
            tokio::select! {
                biased;
                permit = messages.reserve(), if !is_idle => match permit {
                    Ok(permit) => if let Some(message) = self.trunk.poll_message() {
                        permit.send(message);
                    },
                    Err(_) => break match (&mut writer.0).await {
                        Ok(error) => error,
                        Err(_) => gone(),
                    },
                },
                received = stream.recv(), if waiting < MOST_WAITING => match received {
                    Ok(Some(message)) => {
                        let now_ms = self.now_ms();
                        if let Err(error) = self.trunk.receive(&message, now_ms) {
                            break CarrierError(error.to_string());
                        }
                    }
                    Ok(None) => break gone(),
                    Err(error) => break error,
                },
                // After what has arrived: a process that was stopped for long may have messages that show that the mailbox is there.
                () = tokio::time::sleep_until(tick) => {
                    if let Err(error) = self.trunk.tick(self.now_ms()) {
                        break CarrierError(error.to_string());
                    }
                }
                // While messages wait for room, nothing is added to them.
                Some(ask) = self.asks.recv(), if is_idle => self.ask(ask),
                changed = user.change(&mut self.trunk), if is_idle => if let Err(error) = changed {
                    break error;
                },
            }
            if let Err(error) = self.handle(user) {
                break error;
            }
            if self.is_over::<U>() {
                break CarrierError("the connection was closed".into());
            }
        };
        for connected in self.connected.values() {
            connected.fail(&ended);
        }
        drop(messages);
        // What was handed over is sent, as far as the mailbox takes it.
        if !writer.0.is_finished() {
            let _ = tokio::time::timeout(LINGER, &mut writer.0).await;
        }
        ended
    }

    /// Whether nothing is left to do.
    fn is_over<U: User>(&self) -> bool {
        U::ENDS_WITH_CARRIERS && self.connected.is_empty() && self.trunk.waiting() == 0
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Record(line, record) => self.trunk.record(line, record),
            Ask::Taken(line, bytes) => self.trunk.credit(line, bytes),
            Ask::Close(line) => {
                self.trunk.close(line);
                self.connected.remove(&line);
            }
        }
    }

    fn handle(&mut self, user: &mut impl User) -> Result<(), CarrierError> {
        while let Some(event) = self.trunk.poll_event() {
            match event {
                Event::Opened(line) => {
                    let carrier = self.connect(line);
                    user.opened(line, carrier);
                }
                Event::Record(line, record) => {
                    if let Some(connected) = self.connected.get(&line) {
                        connected.record(record);
                    }
                }
                Event::Credit(line, bytes) => {
                    if let Some(connected) = self.connected.get(&line) {
                        connected.credit(bytes);
                    }
                }
                Event::Closed(line) => {
                    self.connected.remove(&line);
                }
                event => user.event(&mut self.trunk, event)?,
            }
        }
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The task that writes; it ends with its pump, also with one that is dropped.
struct Writer(JoinHandle<CarrierError>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The time for which messages are still sent when a pump stops.
const LINGER: Duration = Duration::from_secs(2);

fn gone() -> CarrierError {
    CarrierError("the mailbox closed the connection".into())
}

/// Hands messages to the mailbox's connection; returns why it took no more.
async fn write(
    mut sink: Box<dyn RecordSink>,
    mut leaving: mpsc::Receiver<Vec<u8>>,
) -> CarrierError {
    while let Some(message) = leaving.recv().await {
        if let Err(error) = sink.send(message).await {
            return error;
        }
    }
    gone()
}
