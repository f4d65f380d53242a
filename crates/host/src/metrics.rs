//! Metrics of a host, as Prometheus reads them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use longhand_node::State;
use longhand_store::{Batch, KeyRange, Store, StoreError};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::health::Problem;
use crate::tor::TorState;

type Labels = [(&'static str, &'static str); 1];
/// The address of a listener.
type ListenerLabel = [(&'static str, String); 1];

/// All metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    /// Live links.
    pub links: Gauge,
    /// Connections that were refused, or ended in the handshake.
    pub links_refused: Counter,
    nodes: Family<Labels, Gauge>,
    /// From the moment a batch is sent until its answers are there.
    pub signer_seconds: Histogram,
    /// Operations in those batches.
    pub signer_ops: Counter,
    /// Batches of writes that the store made durable.
    pub commits: Counter,
    /// Batches of writes that the store refused.
    pub commit_failures: Counter,
    commit_seconds: Histogram,
    wakes: Family<Labels, Counter>,
    /// Calls for payments that were left out because of `wake.per_hour`.
    pub wakes_left_out: Counter,
    /// Panics caught in nodes.
    pub restarts: Counter,
    /// Height of the chain as the host knows it.
    pub chain_height: Gauge<i64>,
    /// Whether the chain source answers.
    pub chain_reachable: Gauge,
    /// Age of the best block; 0 while it is not known.
    pub chain_tip_age_seconds: Gauge,
    problems: Family<Labels, Gauge>,
    certificate_days_left: Family<ListenerLabel, Gauge>,
    tor_ready: Gauge,
    tor_ends: Gauge<i64>,
    hub_onchain_sat: Gauge,
    hub_reserve_wanted_sat: Gauge,
    /// The fee rate for confirmation within 6 blocks.
    pub feerate_sat_per_kw: Gauge,
    /// Whether that is an estimate, and not the fallback.
    pub feerate_is_estimate: Gauge,
    /// Times that held payments were failed back because the phone did not come.
    pub held_failed: Counter<u64, AtomicU64>,
    /// Calls that ended because their deadline passed without the phone.
    pub deadlines_missed: Counter,
    /// HTLCs that owners lost because their phones did not come.
    pub htlcs_lost: Counter,
    /// Amount of the HTLCs in `htlcs_lost`.
    pub lost_msat: Counter<u64, AtomicU64>,
}

impl Metrics {
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("longhand");
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let mut metrics = Metrics {
            registry: Arc::default(),
            links: Gauge::default(),
            links_refused: Counter::default(),
            nodes: Family::default(),
            signer_seconds: seconds(),
            signer_ops: Counter::default(),
            commits: Counter::default(),
            commit_failures: Counter::default(),
            commit_seconds: seconds(),
            wakes: Family::default(),
            wakes_left_out: Counter::default(),
            restarts: Counter::default(),
            chain_height: Gauge::default(),
            chain_reachable: Gauge::default(),
            tor_ready: Gauge::default(),
            tor_ends: Gauge::default(),
            chain_tip_age_seconds: Gauge::default(),
            problems: Family::default(),
            certificate_days_left: Family::default(),
            hub_onchain_sat: Gauge::default(),
            hub_reserve_wanted_sat: Gauge::default(),
            feerate_sat_per_kw: Gauge::default(),
            feerate_is_estimate: Gauge::default(),
            held_failed: Counter::default(),
            deadlines_missed: Counter::default(),
            htlcs_lost: Counter::default(),
            lost_msat: Counter::default(),
        };
        let m = &metrics;
        registry.register("links", "Live links of phones", m.links.clone());
        registry.register(
            "links_refused",
            "Links that ended in the handshake",
            m.links_refused.clone(),
        );
        registry.register("nodes", "Owners' nodes by state", m.nodes.clone());
        registry.register(
            "signer_batch_seconds",
            "Time from sending a signer batch to its answer",
            m.signer_seconds.clone(),
        );
        registry.register(
            "signer_ops",
            "Operations asked of phones",
            m.signer_ops.clone(),
        );
        registry.register("store_commits", "Batches made durable", m.commits.clone());
        registry.register(
            "store_commit_failures",
            "Batches refused by the store",
            m.commit_failures.clone(),
        );
        registry.register(
            "store_commit_seconds",
            "Time a commit takes",
            m.commit_seconds.clone(),
        );
        registry.register("wakes", "Calls of wake URLs by result", m.wakes.clone());
        registry.register(
            "wakes_left_out",
            "Calls of phones for payments that wake.per_hour did not allow",
            m.wakes_left_out.clone(),
        );
        registry.register(
            "certificate_days_left",
            "Days until the certificate of a listener expires; negative once it has",
            m.certificate_days_left.clone(),
        );
        registry.register(
            "node_restarts",
            "Panics caught in nodes",
            m.restarts.clone(),
        );
        registry.register(
            "chain_height",
            "Height of the chain",
            m.chain_height.clone(),
        );
        registry.register(
            "chain_reachable",
            "1 when the chain source answers",
            m.chain_reachable.clone(),
        );
        registry.register(
            "chain_tip_age_seconds",
            "Age of the best block by its header",
            m.chain_tip_age_seconds.clone(),
        );
        registry.register("tor_ready", "1 when Tor is ready", m.tor_ready.clone());
        registry.register(
            "tor_ends",
            "Times that the Tor process has ended without being stopped",
            m.tor_ends.clone(),
        );
        registry.register(
            "problems",
            "1 for each problem that `admin status` shows",
            m.problems.clone(),
        );
        registry.register(
            "hub_onchain_sat",
            "Satoshis in the hub's on-chain wallet, as of the last minute",
            m.hub_onchain_sat.clone(),
        );
        registry.register(
            "hub_reserve_wanted_sat",
            "Satoshis of them that the hub keeps to defend its channels",
            m.hub_reserve_wanted_sat.clone(),
        );
        registry.register(
            "feerate_sat_per_kw",
            "Fee rate for confirmation within 6 blocks, in satoshis per 1,000 weight units",
            m.feerate_sat_per_kw.clone(),
        );
        registry.register(
            "feerate_is_estimate",
            "1 when the chain source has a fee estimate, 0 while the fallback is used",
            m.feerate_is_estimate.clone(),
        );
        registry.register(
            "held_failed",
            "Times held payments were given up because a phone did not come",
            m.held_failed.clone(),
        );
        registry.register(
            "deadlines_missed",
            "Deadlines that passed while a phone was called for them",
            m.deadlines_missed.clone(),
        );
        registry.register(
            "htlcs_lost",
            "HTLCs lost because a phone did not come to claim them",
            m.htlcs_lost.clone(),
        );
        registry.register(
            "lost_msat",
            "Millisatoshis of the HTLCs that were lost",
            m.lost_msat.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// Sets the number of nodes in each state; `None` are those that do not run.
    pub fn set_nodes(&self, states: impl Iterator<Item = Option<State>>) {
        let mut counts = [("stopped", 0), ("dormant", 0), ("waking", 0), ("active", 0)];
        for state in states {
            let slot = match state {
                None => 0,
                Some(State::Dormant) => 1,
                Some(State::Waking) => 2,
                Some(State::Active) => 3,
            };
            counts[slot].1 += 1;
        }
        for (name, count) in counts {
            self.nodes.get_or_create(&[("state", name)]).set(count);
        }
    }

    /// Sets which problems there are, by their names.
    pub fn set_problems(&self, names: impl Iterator<Item = &'static str>) {
        let names: Vec<_> = names.collect();
        for name in Problem::NAMES {
            let is_there = names.contains(&name);
            let gauge = self.problems.get_or_create(&[("problem", name)]);
            gauge.set(is_there.into());
        }
    }

    /// Sets the days until the certificate of this listener expires.
    pub fn set_certificate_days_left(&self, listener: &str, days: i64) {
        let label = [("listener", listener.to_owned())];
        self.certificate_days_left.get_or_create(&label).set(days);
    }

    /// Sets the state of the Tor process.
    pub fn set_tor(&self, tor: &TorState) {
        self.tor_ready.set(tor.progress.is_ready().into());
        self.tor_ends
            .set(i64::try_from(tor.ends).unwrap_or(i64::MAX));
    }

    /// Sets the hub's coins on chain, and those that it keeps.
    pub fn set_hub_reserve(&self, onchain_sat: u64, wanted_sat: u64) {
        let gauge = |sat| i64::try_from(sat).unwrap_or(i64::MAX);
        self.hub_onchain_sat.set(gauge(onchain_sat));
        self.hub_reserve_wanted_sat.set(gauge(wanted_sat));
    }

    /// Counts one call of a wake URL.
    pub fn count_wake(&self, answered: bool) {
        let result = if answered { "answered" } else { "failed" };
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

/// `GET /metrics`; `refresh` runs before each reading.
pub(crate) fn router(metrics: Metrics, refresh: Arc<dyn Fn() + Send + Sync>) -> Router {
    let handler = move || {
        refresh();
        let text = metrics.text();
        async move { answer(text) }
    };
    Router::new().route("/metrics", get(handler))
}

fn answer(text: String) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// A store that counts its commits.
pub(crate) struct CountedStore {
    inner: Arc<dyn Store>,
    metrics: Metrics,
}

impl CountedStore {
    pub fn new(inner: Arc<dyn Store>, metrics: Metrics) -> CountedStore {
        CountedStore { inner, metrics }
    }
}

#[async_trait]
impl Store for CountedStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.load(namespace).await
    }

    async fn range(
        &self,
        namespace: &str,
        range: KeyRange,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.inner.range(namespace, range).await
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(namespace, key).await
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.namespaces(prefix).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let started = Instant::now();
        let result = self.inner.commit(batch).await;
        self.metrics.commit_seconds.observe(seconds_since(started));
        match &result {
            Ok(()) => self.metrics.commits.inc(),
            Err(_) => self.metrics.commit_failures.inc(),
        };
        result
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        self.inner.take_lease(namespace).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}

/// Seconds, as Prometheus counts time.
pub(crate) fn seconds_since(started: Instant) -> f64 {
    Duration::as_secs_f64(&started.elapsed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use longhand_store::MemoryStore;
    use longhand_store::testing::{FailingStore, conformance};

    use super::*;

    #[tokio::test]
    async fn commits_are_counted_by_their_outcome() {
        let metrics = Metrics::new();
        let failing = FailingStore::new(Arc::new(MemoryStore::new()));
        failing.refuse(2, StoreError::Full);
        let store = CountedStore::new(Arc::new(failing), metrics.clone());
        let batch = || Batch {
            namespace: "n".into(),
            ..Batch::default()
        };
        store.commit(batch()).await.unwrap();
        store.commit(batch()).await.unwrap_err();
        let text = metrics.text();
        assert!(text.contains("longhand_store_commits_total 1\n"), "{text}");
        assert!(
            text.contains("longhand_store_commit_failures_total 1\n"),
            "{text}"
        );
        assert!(
            text.contains("longhand_store_commit_seconds_count 2\n"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn counting_changes_nothing_for_the_store() {
        let memory = MemoryStore::new();
        let open = async || CountedStore::new(Arc::new(memory.reopen()), Metrics::new());
        conformance(open).await;
    }

    #[test]
    fn problems_are_shown_by_name_also_those_that_are_not_there() {
        let metrics = Metrics::new();
        metrics.set_problems(["old_tip"].into_iter());
        let text = metrics.text();
        for line in [
            "longhand_problems{problem=\"old_tip\"} 1",
            "longhand_problems{problem=\"pruned\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn nodes_are_shown_by_state_also_those_that_are_none() {
        let metrics = Metrics::new();
        metrics.set_nodes([Some(State::Dormant), Some(State::Dormant), None].into_iter());
        let text = metrics.text();
        for line in [
            "longhand_nodes{state=\"dormant\"} 2",
            "longhand_nodes{state=\"active\"} 0",
            "longhand_nodes{state=\"stopped\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
