//! Links over the WebSockets of JavaScript.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use js_sys::{ArrayBuffer, Uint8Array};
use longhand_link::carrier::MAX_MESSAGE;
use longhand_link::{Address, Carrier, Dial, LinkError, Rendezvous};
use longhand_phone::runtime::{Elapsed, Runtime};
use send_wrapper::SendWrapper;
use tokio::sync::mpsc;
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::spawn_local;
use web_sys::{BinaryType, MessageEvent, WebSocket};

/// The time of one attempt, as for the carriers of an operating system.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Records that wait for the phone, some 4 MB at most; a host that sends more is hung up on.
const ARRIVED: usize = 64;
/// Bytes that wait in the socket before the next record is handed to it.
const BUFFERED: u32 = 256 << 10;
/// The interval of looking whether they have left: a socket does not report it.
const BUFFERED_PAUSE: Duration = Duration::from_millis(10);

/// Dials addresses of the schemes `ws` and `wss`, the only ones that a page can.
pub struct WebSockets {
    pub runtime: Arc<dyn Runtime>,
}

#[async_trait]
impl Dial for WebSockets {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        let unknown = || LinkError::UnknownCarrier(address.into());
        let parsed: Address = address.parse().map_err(|_| unknown())?;
        if !matches!(parsed.scheme(), "ws" | "wss") {
            return Err(unknown());
        }
        let url = parsed.websocket_url()?;
        let unreachable = |reason: &str| LinkError::Unreachable {
            address: address.into(),
            reason: reason.into(),
        };
        // An object of JavaScript stays on its thread, which is the only one.
        let opened = SendWrapper::new(open(&url, self.runtime.clone()));
        match self.runtime.timeout(DIAL_TIMEOUT, opened).await {
            Ok(Ok(carrier)) => Ok(carrier),
            Ok(Err(reason)) => Err(unreachable(reason)),
            Err(Elapsed) => Err(unreachable("it does not answer")),
        }
    }
}

/// A socket and the functions that it calls. Closed when it is dropped.
struct Socket {
    socket: WebSocket,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_event: [Closure<dyn FnMut()>; 3],
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onerror(None);
        self.socket.set_onclose(None);
        self.socket.set_onmessage(None);
        // Fails for a code that is none.
        let _ = self.socket.close();
    }
}

/// What a socket reports, apart from records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Open,
    /// It has failed or was closed. Which of the two events comes, and in which state, differs between programs.
    Over,
}

/// Returns when the handshake is done.
async fn open(url: &str, runtime: Arc<dyn Runtime>) -> Result<Carrier, &'static str> {
    let socket = WebSocket::new(url).map_err(|_| "a page may not connect to it")?;
    socket.set_binary_type(BinaryType::Arraybuffer);
    let (event, mut events) = mpsc::unbounded_channel();
    let (arrived, from_host) = mpsc::channel(ARRIVED);
    let socket = listen(socket, event, arrived.clone());
    // A page is not told why: by the reason it could search the network that it is in.
    match events.recv().await {
        Some(Event::Open) => {}
        _ => return Err("it does not answer, or not by WebSocket"),
    }
    let (to_host, leaving) = mpsc::channel(1);
    spawn_local(carry(socket, events, leaving, arrived, runtime));
    Ok(Carrier::new(to_host, from_host))
}

fn listen(
    socket: WebSocket,
    event: mpsc::UnboundedSender<Event>,
    arrived: mpsc::Sender<Vec<u8>>,
) -> Socket {
    let report = |what: Event| {
        let event = event.clone();
        Closure::<dyn FnMut()>::new(move || {
            // The socket may be given up by now.
            let _ = event.send(what);
        })
    };
    let on_event = [Event::Open, Event::Over, Event::Over].map(report);
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
        let taken = record(&message.data()).and_then(|record| arrived.try_send(record).ok());
        if taken.is_none() {
            let _ = event.send(Event::Over);
        }
    });
    let [on_open, on_error, on_close] = &on_event;
    socket.set_onopen(Some(on_open.as_ref().unchecked_ref()));
    socket.set_onerror(Some(on_error.as_ref().unchecked_ref()));
    socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));
    socket.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    Socket {
        socket,
        _on_message: on_message,
        _on_event: on_event,
    }
}

/// A message that may be a record.
fn record(message: &JsValue) -> Option<Vec<u8>> {
    let bytes: &ArrayBuffer = message.dyn_ref()?;
    let is_short = usize::try_from(bytes.byte_length()).is_ok_and(|length| length <= MAX_MESSAGE);
    is_short.then(|| Uint8Array::new(bytes).to_vec())
}

/// Sends records until the carrier is dropped, or the socket is over; then it is closed.
async fn carry(
    socket: Socket,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut leaving: mpsc::Receiver<Vec<u8>>,
    arrived: mpsc::Sender<Vec<u8>>,
    runtime: Arc<dyn Runtime>,
) {
    loop {
        let is_full = socket.socket.buffered_amount() > BUFFERED;
        tokio::select! {
            biased;
            _ = events.recv() => return,
            () = arrived.closed() => return,
            () = runtime.sleep(BUFFERED_PAUSE), if is_full => {}
            record = leaving.recv(), if !is_full => {
                let Some(record) = record else { return };
                if socket.socket.send_with_u8_array(&record).is_err() {
                    return;
                }
            }
        }
    }
}
