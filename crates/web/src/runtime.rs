//! Clocks, timers and tasks of JavaScript.

use std::time::Duration;

use gloo_timers::future::TimeoutFuture;
use longhand_phone::runtime::{BoxFuture, Runtime};
use send_wrapper::SendWrapper;
use wasm_bindgen_futures::spawn_local;
use web_time::Instant;

/// The longest time of one timer, in milliseconds: more than 2³¹ - 1 would fire at once (HTML, 8.6).
const LONGEST_TIMER_MS: u32 = 1 << 30;

/// The event loop of a page, a worker, or Node.
pub struct JsRuntime {
    started: Instant,
}

impl JsRuntime {
    pub fn new() -> JsRuntime {
        JsRuntime {
            started: Instant::now(),
        }
    }
}

impl Runtime for JsRuntime {
    fn unix_time(&self) -> Duration {
        let now = web_time::SystemTime::now();
        now.duration_since(web_time::SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        // A timer of JavaScript stays on its thread, which is the only one.
        Box::pin(SendWrapper::new(async move {
            let mut left_ms = duration.as_nanos().div_ceil(1_000_000);
            while left_ms > 0 {
                let ms =
                    u32::try_from(left_ms).map_or(LONGEST_TIMER_MS, |ms| ms.min(LONGEST_TIMER_MS));
                TimeoutFuture::new(ms).await;
                left_ms -= u128::from(ms);
            }
        }))
    }

    /// A panic is a trap of the whole module here: the page opens the phone anew, in a new module.
    fn spawn(&self, task: BoxFuture<()>) {
        spawn_local(task);
    }

    /// In place: there is one thread. A page that does more than wait for a phone runs it in a worker.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<()> {
        Box::pin(async move { work() })
    }
}
