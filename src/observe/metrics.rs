//! Counters and gauges.
//!
//! A module registers its counters once, by name, when it is built, and keeps them. The registry shows all
//! of them as OpenMetrics text and as JSON. Names are without prefix and without `_total`; both are added
//! here.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};

use crate::sys::Mutex;

type PrometheusCounter = counter::Counter<u64, AtomicU64>;

/// Counts events.
#[derive(Debug, Clone, Default)]
pub struct Counter(PrometheusCounter);

impl Counter {
    /// Adds one.
    pub fn add_one(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The count since the start.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

/// Shows a number that goes up and down.
#[derive(Debug, Clone, Default)]
pub struct Gauge(gauge::Gauge<i64, AtomicI64>);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, n: i64) {
        self.0.set(n);
    }

    /// Adds one.
    pub fn add_one(&self) {
        self.0.inc();
    }

    /// Subtracts one.
    pub fn subtract_one(&self) {
        self.0.dec();
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.get()
    }
}

type PrometheusFamily = Family<Vec<(&'static str, String)>, PrometheusCounter>;

/// A counter for each value of one label. The values are a fixed, small set, and never an address or other
/// text of a peer.
#[derive(Debug, Clone)]
pub struct CounterFamily {
    family: PrometheusFamily,
    label: &'static str,
    /// The counters by value, so that counting makes no new key.
    counters_by_value: Arc<Mutex<Vec<(String, PrometheusCounter)>>>,
}

impl CounterFamily {
    /// Adds one for `value`.
    pub fn add_one(&self, value: &str) {
        let mut known = self.counters_by_value.lock();
        if let Some((_, counter)) = known.iter().find(|(other, _)| other == value) {
            counter.inc();
            return;
        }
        let counter = self.family.get_or_create_owned(&vec![(self.label, value.to_owned())]);
        counter.inc();
        known.push((value.to_owned(), counter));
    }

    /// The count for `value` since the start.
    #[must_use]
    pub fn value(&self, value: &str) -> u64 {
        self.counters_by_value
            .lock()
            .iter()
            .find(|(other, _)| other == value)
            .map_or(0, |(_, counter)| counter.get())
    }
}

enum Metric {
    Counter(Counter),
    Family(CounterFamily),
    Gauge(Gauge),
}

struct RegisteredMetric {
    name: &'static str,
    help: &'static str,
    metric: Metric,
}

/// All counters and gauges. Registering a name again returns the same one.
#[derive(Default)]
pub struct Metrics {
    registered: Mutex<Vec<RegisteredMetric>>,
}

impl Metrics {
    /// The counter of this name. `help` is a sentence without a final dot.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let mut known = self.registered.lock();
        for one in known.iter() {
            if let (true, Metric::Counter(counter)) = (one.name == name, &one.metric) {
                return counter.clone();
            }
        }
        let counter = Counter::default();
        known.push(RegisteredMetric { name, help, metric: Metric::Counter(counter.clone()) });
        counter
    }

    /// The counters of this name, one for each value of `label`.
    pub fn counter_family(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
    ) -> CounterFamily {
        let mut known = self.registered.lock();
        for one in known.iter() {
            if let (true, Metric::Family(family)) = (one.name == name, &one.metric) {
                return family.clone();
            }
        }
        let family =
            CounterFamily { family: PrometheusFamily::default(), label, counters_by_value: Arc::default() };
        known.push(RegisteredMetric { name, help, metric: Metric::Family(family.clone()) });
        family
    }

    /// The gauge of this name.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let mut known = self.registered.lock();
        for one in known.iter() {
            if let (true, Metric::Gauge(gauge)) = (one.name == name, &one.metric) {
                return gauge.clone();
            }
        }
        let gauge = Gauge::default();
        known.push(RegisteredMetric { name, help, metric: Metric::Gauge(gauge.clone()) });
        gauge
    }

    /// All of them as OpenMetrics 1.0 text.
    #[must_use]
    pub fn to_openmetrics(&self) -> String {
        let mut registry = Registry::with_prefix("postrider");
        for RegisteredMetric { name, help, metric: kind } in self.registered.lock().iter() {
            match kind {
                Metric::Counter(counter) => registry.register(*name, *help, counter.0.clone()),
                Metric::Family(family) => registry.register(*name, *help, family.family.clone()),
                Metric::Gauge(gauge) => registry.register(*name, *help, gauge.0.clone()),
            }
        }
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// All of them as one JSON object; a family is an object by label value.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        for RegisteredMetric { name, metric: kind, .. } in self.registered.lock().iter() {
            let value = match kind {
                Metric::Counter(counter) => json!(counter.value()),
                Metric::Gauge(gauge) => json!(gauge.value()),
                Metric::Family(family) => {
                    let known = family.counters_by_value.lock();
                    let values = known.iter().map(|(value, counter)| (value.clone(), json!(counter.get())));
                    values.collect::<Map<_, _>>().into()
                }
            };
            all.insert((*name).to_owned(), value);
        }
        Value::Object(all)
    }

    /// The names with their help, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<(&'static str, &'static str)> {
        let mut list: Vec<_> = self.registered.lock().iter().map(|one| (one.name, one.help)).collect();
        list.sort_unstable();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_shown_as_text_and_as_json() {
        let metrics = Metrics::default();
        metrics.counter("queue_messages_accepted", "Messages accepted").add(2);
        metrics.counter_family("session_command", "Commands, by verb", "verb").add_one("MAIL");
        metrics.gauge("queue_length", "Messages in the queue").set(3);
        assert_eq!(metrics.counter("queue_messages_accepted", "").value(), 2, "the same counter");
        let text = metrics.to_openmetrics();
        for line in [
            "postrider_queue_messages_accepted_total 2",
            "postrider_session_command_total{verb=\"MAIL\"} 1",
            "postrider_queue_length 3",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(
            metrics.to_json(),
            json!({"queue_messages_accepted": 2, "session_command": {"MAIL": 1}, "queue_length": 3})
        );
    }
}
