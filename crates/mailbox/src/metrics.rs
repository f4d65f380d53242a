//! Metrics of a mailbox, as Prometheus reads them.

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::core::{Code, Counts, Event};
use crate::hashmail::core::Counts as HashmailCounts;
use crate::hashmail::refusal::Refusal;

type Labels = [(&'static str, &'static str); 1];
/// The address of a listener.
type ListenerLabel = [(&'static str, String); 1];

/// The result of a wake call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WakeResult {
    Answered,
    Failed,
    /// Not called: too many waited, or its network had caused too many.
    LeftOut,
}

/// All metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    connections: Gauge,
    ends: Gauge,
    streams: Gauge,
    queued_bytes: Gauge,
    messages: Counter,
    bytes: Counter,
    ended: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    silent: Counter,
    expired: Counter,
    wakes: Family<Labels, Counter>,
    certificate_days_left: Family<ListenerLabel, Gauge>,
    hashmail: Hashmail,
}

/// Those of the mailbox of Lightning Node Connect.
#[derive(Clone, Default)]
struct Hashmail {
    boxes: Gauge,
    ends: Gauge,
    bytes_held: Gauge,
    messages: Counter,
    bytes: Counter,
    dropped: Counter,
    stale: Counter,
    taken_over: Counter,
    refused: Family<Labels, Counter>,
}

impl Hashmail {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("hashmail");
        let gauges = [
            ("boxes", "Boxes of Lightning Node Connect", &self.boxes),
            (
                "ends",
                "Ends of boxes in use, and waits for one",
                &self.ends,
            ),
            (
                "held_bytes",
                "Bytes that wait, arrive or are being sent, with the memory of each message",
                &self.bytes_held,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let counters = [
            ("messages", "Messages given to readers", &self.messages),
            ("bytes", "Bytes of messages given to readers", &self.bytes),
            (
                "dropped_messages",
                "Messages dropped because nobody was there to read them",
                &self.dropped,
            ),
            (
                "stale_boxes",
                "Boxes removed because nobody used them",
                &self.stale,
            ),
            (
                "taken_over",
                "Ends whose silent user had to give them to another",
                &self.taken_over,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let help = "Requests refused and uses ended, by reason";
        registry.register("refused", help, self.refused.clone());
        for refusal in Refusal::ALL {
            drop(self.refused.get_or_create(&[("reason", refusal.name())]));
        }
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("longhand_mailbox");
        let mut metrics = Metrics {
            registry: Arc::default(),
            connections: Gauge::default(),
            ends: Gauge::default(),
            streams: Gauge::default(),
            queued_bytes: Gauge::default(),
            messages: Counter::default(),
            bytes: Counter::default(),
            ended: Family::default(),
            refused: Family::default(),
            silent: Counter::default(),
            expired: Counter::default(),
            wakes: Family::default(),
            certificate_days_left: Family::default(),
            hashmail: Hashmail::default(),
        };
        let m = &metrics;
        let gauges = [
            ("connections", "Connections of clients", &m.connections),
            ("ends", "Attached ends of streams", &m.ends),
            (
                "streams",
                "Streams with an attached end or a message",
                &m.streams,
            ),
            (
                "queued_bytes",
                "Bytes that wait or are being sent, with the memory of each message",
                &m.queued_bytes,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let counters = [
            ("messages", "Messages given to readers", &m.messages),
            ("bytes", "Bytes of messages given to readers", &m.bytes),
            (
                "silent",
                "Connections closed because they attached nothing in time or fell silent",
                &m.silent,
            ),
            (
                "expired_messages",
                "Messages dropped because no reader came in time",
                &m.expired,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let families = [
            ("ended", "Streams ended by the mailbox, by code", &m.ended),
            ("refused", "Requests refused, by code", &m.refused),
            ("wakes", "Calls of the wake URL by result", &m.wakes),
        ];
        for (name, help, family) in families {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "certificate_days_left",
            "Days until the certificate of a listener expires; negative once it has",
            m.certificate_days_left.clone(),
        );
        m.hashmail.register(&mut registry);
        for code in Code::ALL {
            drop(m.ended.get_or_create(&[("code", code.as_str())]));
        }
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// Sets the values that are read and not counted.
    pub fn set(&self, counts: &Counts) {
        self.connections.set(gauge(counts.connections));
        self.ends.set(gauge(counts.ends));
        self.streams.set(gauge(counts.streams));
        self.queued_bytes.set(gauge(counts.queued_bytes));
        advance(&self.messages, counts.moved_messages);
        advance(&self.bytes, counts.moved_bytes);
    }

    /// Sets those of the mailbox of Lightning Node Connect that are read and not counted.
    pub fn set_hashmail(&self, counts: &HashmailCounts) {
        let m = &self.hashmail;
        m.boxes.set(gauge(counts.boxes));
        m.ends.set(gauge(counts.ends));
        m.bytes_held.set(gauge(counts.bytes));
        advance(&m.messages, counts.moved_messages);
        advance(&m.bytes, counts.moved_bytes);
        advance(&m.dropped, counts.dropped_messages);
        advance(&m.stale, counts.stale_boxes);
        advance(&m.taken_over, counts.taken_over);
    }

    /// Counts a request to the mailbox of Lightning Node Connect that is refused, or a use that is ended.
    pub fn count_hashmail_refusal(&self, refusal: Refusal) {
        let label = [("reason", refusal.name())];
        self.hashmail.refused.get_or_create(&label).inc();
    }

    /// Sets the days until the certificate of this listener expires.
    pub fn set_certificate_days_left(&self, listener: &str, days: i64) {
        let label = [("listener", listener.to_owned())];
        self.certificate_days_left.get_or_create(&label).set(days);
    }

    /// Counts an event of the relay.
    pub fn count(&self, event: &Event) {
        match event {
            Event::Ended { code, .. } => {
                self.ended.get_or_create(&[("code", code.as_str())]).inc();
            }
            Event::Refused { code } => {
                self.refused.get_or_create(&[("code", code.as_str())]).inc();
            }
            Event::Silent => {
                self.silent.inc();
            }
            Event::Expired { messages } => {
                self.expired.inc_by(*messages);
            }
            Event::Waits { .. } => {}
        }
    }

    /// Counts a wake call.
    pub fn count_wake(&self, result: WakeResult) {
        let result = match result {
            WakeResult::Answered => "answered",
            WakeResult::Failed => "failed",
            WakeResult::LeftOut => "left_out",
        };
        self.wakes.get_or_create(&[("result", result)]).inc();
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only when a metric cannot be encoded.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "the metrics cannot be encoded");
        }
        text
    }
}

fn gauge(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Brings a counter to a value that it has elsewhere.
fn advance(counter: &Counter, now: u64) {
    counter.inc_by(now.saturating_sub(counter.get()));
}

/// `GET /metrics`; `read` sets what is not counted, and gives the text.
pub(crate) fn router(read: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    let handler = move || {
        let text = read();
        async move { answer(text) }
    };
    Router::new().route("/metrics", get(handler))
}

fn answer(text: String) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_relay_reports_is_counted_by_code() {
        let metrics = Metrics::new();
        metrics.count(&Event::Refused {
            code: Code::BadSignature,
        });
        metrics.count(&Event::Expired { messages: 3 });
        metrics.count_wake(WakeResult::LeftOut);
        metrics.count_hashmail_refusal(Refusal::Full);
        metrics.set_hashmail(&HashmailCounts {
            boxes: 5,
            dropped_messages: 7,
            ..HashmailCounts::default()
        });
        let counts = |moved_messages| Counts {
            ends: 2,
            moved_messages,
            ..Counts::default()
        };
        metrics.set(&counts(4));
        metrics.set(&counts(6));
        let text = metrics.text();
        for line in [
            "longhand_mailbox_refused_total{code=\"BAD_SIGNATURE\"} 1\n",
            "longhand_mailbox_ended_total{code=\"OVERFLOW\"} 0\n",
            "longhand_mailbox_expired_messages_total 3\n",
            "longhand_mailbox_wakes_total{result=\"left_out\"} 1\n",
            "longhand_mailbox_ends 2\n",
            "longhand_mailbox_messages_total 6\n",
            "longhand_mailbox_hashmail_boxes 5\n",
            "longhand_mailbox_hashmail_dropped_messages_total 7\n",
            "longhand_mailbox_hashmail_refused_total{reason=\"full\"} 1\n",
            "longhand_mailbox_hashmail_refused_total{reason=\"read_occupied\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
