//! LDK's log lines as `tracing` events under the target `longhand::ldk`. They may contain texts of peers.

use lightning::util::logger::{Level, Logger as LdkLogger, Record};
use longhand_base::text::plain;

const TARGET: &str = "longhand::ldk";
/// The only LDK module whose trace lines are passed on: others print whole messages and events, which contain
/// per-commitment secrets and preimages.
const TRACED: &str = "lightning::routing";

/// Passes LDK's log records to `tracing`, with the name of the node. A record that no subscriber is interested in is not
/// formatted.
#[derive(Clone, Debug)]
pub(crate) struct Logger {
    /// Names the node in every event.
    pub node: String,
}

/// One event. A macro, since `tracing` requires a constant level.
macro_rules! emit {
    ($level:ident, $node:expr, $record:expr) => {
        if tracing::enabled!(target: TARGET, tracing::Level::$level) {
            tracing::event!(
                target: TARGET,
                tracing::Level::$level,
                node = $node,
                module = $record.module_path,
                peer = $record.peer_id.map(tracing::field::display),
                channel = $record.channel_id.map(tracing::field::display),
                payment = $record.payment_hash.map(tracing::field::display),
                "{}",
                plain(&$record.args.to_string())
            )
        }
    };
}

impl LdkLogger for Logger {
    fn log(&self, record: Record) {
        match record.level {
            Level::Gossip | Level::Trace if record.module_path.starts_with(TRACED) => {
                emit!(TRACE, self.node, record)
            }
            Level::Gossip | Level::Trace => {}
            Level::Debug => emit!(DEBUG, self.node, record),
            Level::Info => emit!(INFO, self.node, record),
            Level::Warn => emit!(WARN, self.node, record),
            // LDK logs as errors also what a peer or an owner may intend, such as any close of a channel.
            Level::Error => emit!(WARN, self.node, record),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::fmt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span;

    use super::*;

    /// Keeps events from a level up.
    struct Capture {
        from: tracing::Level,
        lines: Arc<Mutex<Vec<String>>>,
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.push_str(&format!("{field}={value:?} "));
        }
    }

    impl tracing::Subscriber for Capture {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() <= self.from
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut line = Line(format!(
                "{} {} ",
                event.metadata().target(),
                event.metadata().level()
            ));
            event.record(&mut line);
            self.lines.lock().unwrap().push(line.0);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    /// Counts how often it is formatted.
    struct Costly<'a>(&'a AtomicUsize);

    impl fmt::Display for Costly<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fetch_add(1, Ordering::Relaxed);
            f.write_str("a costly line")
        }
    }

    #[test]
    fn messages_and_events_with_their_secrets_are_not_passed_on() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let capture = Capture {
            from: tracing::Level::TRACE,
            lines: lines.clone(),
        };
        let logger = Logger {
            node: "alice".into(),
        };
        let says = |module, what: &str| {
            logger.log(Record::new(
                Level::Trace,
                format_args!("{what}"),
                module,
                "f",
                1,
            ));
        };
        tracing::subscriber::with_default(capture, || {
            says("lightning::ln::peer_handler", "RevokeAndACK { .. }");
            says("lightning::ln::channelmanager", "PaymentSent { .. }");
            says("lightning::routing::router", "Searching for a route");
        });
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("Searching for a route"));
    }

    #[test]
    fn only_what_a_subscriber_wants_is_formatted_and_it_names_the_node() {
        let (lines, formatted) = (Arc::new(Mutex::new(Vec::new())), AtomicUsize::new(0));
        let capture = Capture {
            from: tracing::Level::INFO,
            lines: lines.clone(),
        };
        let logger = Logger {
            node: "alice".into(),
        };
        tracing::subscriber::with_default(capture, || {
            for level in [
                Level::Gossip,
                Level::Trace,
                Level::Debug,
                Level::Info,
                Level::Error,
            ] {
                let costly = Costly(&formatted);
                logger.log(Record::new(
                    level,
                    format_args!("{costly}"),
                    "lightning::ln",
                    "f",
                    1,
                ));
            }
        });
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(formatted.load(Ordering::Relaxed), 2);
        assert!(lines[0].starts_with("longhand::ldk INFO "), "{}", lines[0]);
        assert!(
            lines[0].contains("alice") && lines[0].contains("a costly line"),
            "{}",
            lines[0]
        );
        assert!(lines[1].starts_with("longhand::ldk WARN "), "{}", lines[1]);
    }
}
