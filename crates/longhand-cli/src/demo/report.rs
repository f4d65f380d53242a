//! The result of a demo: steps, counts and figures, and whether all of it was as it should be.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

/// One step of the demo.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub name: &'static str,
    pub ok: bool,
    pub ms: u64,
}

/// Sequential signer round trips: of each, the longest chain of batches that had to wait for each other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrips {
    /// Until a payer knows that it succeeded, on the payer's own phone; and until the channel is settled.
    pub pay_to_success: Option<u32>,
    pub pay_total: Option<u32>,
    /// Until the payer knows, on the payee's phone; and until the channel is settled.
    pub receive_to_success: Option<u32>,
    pub receive_total: Option<u32>,
    /// Opening a channel, on the opener's phone.
    pub open: Option<u32>,
    /// Attaching again with idle channels.
    pub reconnect: Option<u32>,
    /// Closing a channel cooperatively.
    pub close: Option<u32>,
}

/// The most of each, in the order of [`RoundTrips::all`].
const TARGETS: [u32; 7] = [2, 2, 3, 4, 2, 0, 2];

impl RoundTrips {
    /// Each with its name in the report and the most that it may be.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, Option<u32>, u32)> {
        let counted = [
            ("pay_to_success", self.pay_to_success),
            ("receive_to_success", self.receive_to_success),
            ("pay_total", self.pay_total),
            ("receive_total", self.receive_total),
            ("open", self.open),
            ("reconnect", self.reconnect),
            ("close", self.close),
        ];
        counted
            .into_iter()
            .zip(TARGETS)
            .map(|((name, count), target)| (name, count, target))
    }

    fn is_ok(&self) -> bool {
        self.all()
            .all(|(_, count, target)| count.is_some_and(|count| count <= target))
    }
}

/// The kinds of carriers, as `longhand phone --carrier` names them.
pub(super) const CARRIERS: [&str; 6] = ["grpc", "websocket", "mailbox", "hashmail", "lnc", TOR];
/// The one that is tried with `--tor` only.
pub(super) const TOR: &str = "tor";

/// A payment each way over one kind of carrier.
#[derive(Clone, Copy, Debug)]
pub(super) struct CarrierTried {
    /// Signer round trips until the payer knows: paying, and being paid. At most those of a payment over any carrier.
    pub round_trips: [u32; 2],
    /// Until the payer knew.
    pub took: Duration,
}

impl CarrierTried {
    fn is_ok(&self) -> bool {
        self.round_trips
            .iter()
            .zip(TARGETS)
            .all(|(count, target)| *count <= target)
    }

    fn json(&self) -> Value {
        json!({
            "ok": self.is_ok(),
            "round_trips": self.round_trips,
            "ms": (self.took.as_secs_f64() * 10_000.0).round() / 10.0,
        })
    }
}

impl fmt::Display for CarrierTried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [pay, receive] = self.round_trips;
        let ms = self.took.as_millis();
        write!(
            f,
            "paid in {ms} ms, with {pay} signer round trips; {receive} when it was paid"
        )
    }
}

/// The result.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub steps: Vec<Step>,
    pub payments_tried: u32,
    pub payments_succeeded: u32,
    /// Commitments in the chain without a request to close.
    pub force_closes_unasked: u32,
    /// Every satoshi of the faucet was found again.
    pub accounted: bool,
    pub round_trips: RoundTrips,
    /// Each kind of carrier that was tried.
    pub carriers: Vec<(&'static str, CarrierTried)>,
    /// Whether the host saw the chain over Esplora's REST.
    pub over_esplora: bool,
    /// Whether Tor was started.
    pub has_tor: bool,
    /// From the first byte of the link to a node that can pay.
    pub attach_ms: Vec<f64>,
}

impl Report {
    /// The middle one; `None` when nothing was measured.
    pub fn attach_ms_median(&self) -> Option<f64> {
        let mut sorted = self.attach_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
        Some((lower + upper) / 2.0)
    }

    /// Whether everything was as it should be.
    pub fn is_ok(&self) -> bool {
        self.steps.iter().all(|step| step.ok)
            && self.payments_tried > 0
            && self.payments_tried == self.payments_succeeded
            && self.force_closes_unasked == 0
            && self.accounted
            && self.round_trips.is_ok()
            && self.carriers.len() == self.wanted_carriers().count()
            && self.carriers.iter().all(|(_, tried)| tried.is_ok())
            && !self.attach_ms.is_empty()
    }

    /// The kinds of carriers that are tried.
    pub fn wanted_carriers(&self) -> impl Iterator<Item = &'static str> + use<> {
        let has_tor = self.has_tor;
        CARRIERS
            .into_iter()
            .filter(move |kind| has_tor || *kind != TOR)
    }

    /// For programs. A count that was not reached is -1; a carrier that was not tried is null.
    pub fn json(&self, ok: bool) -> Value {
        let steps = self
            .steps
            .iter()
            .map(|s| json!({ "name": s.name, "ok": s.ok, "ms": s.ms }));
        let round_trips = self.round_trips.all().map(|(name, count, _)| {
            (
                name.to_owned(),
                count.map_or(json!(-1), |count| json!(count)),
            )
        });
        let carriers = CARRIERS.map(|kind| {
            let tried = self.carriers.iter().find(|(it, _)| *it == kind);
            (
                kind.to_owned(),
                tried.map_or(Value::Null, |(_, it)| it.json()),
            )
        });
        json!({
            "ok": ok,
            "chain": if self.over_esplora { "esplora" } else { "bitcoind" },
            "steps": steps.collect::<Vec<_>>(),
            "payments": { "tried": self.payments_tried, "succeeded": self.payments_succeeded },
            "force_closes_unasked": self.force_closes_unasked,
            "accounted": self.accounted,
            "round_trips": Value::Object(round_trips.collect()),
            "carriers": Value::Object(carriers.into_iter().collect()),
            "attach_ms_median": self.attach_ms_median().map_or(-1.0, |ms| (ms * 10.0).round() / 10.0),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn good() -> Report {
        Report {
            steps: vec![Step {
                name: "start",
                ok: true,
                ms: 12,
            }],
            payments_tried: 2,
            payments_succeeded: 2,
            accounted: true,
            round_trips: RoundTrips {
                pay_to_success: Some(2),
                pay_total: Some(3),
                receive_to_success: Some(2),
                receive_total: Some(4),
                open: Some(2),
                reconnect: Some(0),
                close: Some(2),
            },
            carriers: CARRIERS.map(|kind| (kind, tried([2, 2]))).into(),
            has_tor: true,
            attach_ms: vec![9.0, 1.0, 4.0, 2.0],
            ..Report::default()
        }
    }

    fn tried(round_trips: [u32; 2]) -> CarrierTried {
        let took = Duration::from_micros(8_040);
        CarrierTried { round_trips, took }
    }

    #[test]
    fn anything_off_is_not_ok() {
        let spoil: [fn(&mut Report); 10] = [
            |r| {
                r.steps.push(Step {
                    name: "pay",
                    ok: false,
                    ms: 1,
                })
            },
            |r| r.payments_tried += 1,
            |r| (r.payments_tried, r.payments_succeeded) = (0, 0),
            |r| r.force_closes_unasked = 1,
            |r| r.accounted = false,
            |r| r.round_trips.pay_to_success = Some(3),
            |r| r.round_trips.close = None,
            |r| r.carriers.truncate(2),
            |r| r.has_tor = false,
            |r| r.carriers[1].1 = tried([2, 3]),
        ];
        assert!(good().is_ok());
        for (index, spoil) in spoil.into_iter().enumerate() {
            let mut report = good();
            spoil(&mut report);
            assert!(!report.is_ok(), "{index}");
        }
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_of_it() {
        assert_eq!(good().attach_ms_median(), Some(3.0));
        let odd = Report {
            attach_ms: vec![5.0, 1.0, 2.0],
            ..good()
        };
        assert_eq!(odd.attach_ms_median(), Some(2.0));
        assert_eq!(Report::default().attach_ms_median(), None);
    }

    #[test]
    fn the_json_has_the_names_that_programs_read() {
        let json = good().json(true);
        assert_eq!(json["steps"][0]["name"], "start");
        assert_eq!(json["chain"], "bitcoind");
        assert_eq!(json["payments"]["succeeded"], 2);
        assert_eq!(json["round_trips"]["receive_total"], 4);
        assert_eq!(json["attach_ms_median"], 3.0);
        assert_eq!(json["carriers"]["websocket"]["ok"], true);
        assert_eq!(json["carriers"]["mailbox"]["round_trips"], json!([2, 2]));
        assert_eq!(json["carriers"]["grpc"]["ms"], 8.0);
        assert_eq!(json["carriers"]["lnc"]["round_trips"], json!([2, 2]));
        assert_eq!(json["carriers"]["tor"]["ok"], true);
        let without_tor = Report {
            carriers: good().carriers[..5].to_vec(),
            has_tor: false,
            ..good()
        };
        assert!(without_tor.is_ok());
        assert_eq!(without_tor.json(true)["carriers"]["tor"], Value::Null);
        assert_eq!(
            Report::default().json(false)["round_trips"]["pay_total"],
            -1
        );
    }
}
