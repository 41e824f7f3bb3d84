// SPDX-License-Identifier: MIT OR Apache-2.0
//! The number of requests by how they ended, with the last upstream.

use std::collections::HashMap;

use super::exposition::Counter;
use super::exposition::Family;
use super::exposition::Registry;
use super::labels::Labels;
use super::labels::NONE;
use ngx_bpf_record::Ending;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Timeout;

/// How a request ended: `end`, `timeout` and `last_phase`.
type How = (Option<End>, Option<Timeout>, Option<Part>);

/// The number of requests by how they ended. Each of the three keys has a fixed set of values.
#[derive(Default)]
pub struct Ends {
    counters: Family<Counter>,
    /// The counters that exist, by the label of the upstream.
    known: HashMap<String, Vec<(How, Counter)>>,
}

impl Ends {
    /// Registers the metric.
    pub fn register(registry: &mut Registry) -> Self {
        let ends = Self::default();
        registry.register(
            "nginx_http_request_ends",
            "Requests by how they ended",
            &ends.counters,
        );
        ends
    }

    /// Counts a request.
    pub fn count(&mut self, upstream: &str, ending: &Ending) {
        let how = (ending.end, ending.timeout, ending.last_phase);
        let found = self.known.get(upstream).and_then(|known| {
            let known = known.iter().find(|(known, _)| *known == how);
            known.map(|(_, counter)| counter)
        });
        if let Some(counter) = found {
            counter.inc();
            return;
        }
        let counter = self.counters.with(&labels(upstream, how));
        counter.inc();
        let known = self.known.entry(upstream.to_owned()).or_default();
        known.push((how, counter));
    }

    /// Removes the series of an upstream.
    pub fn forget(&mut self, upstream: &str) {
        for (how, _) in self.known.remove(upstream).unwrap_or_default() {
            self.counters.remove(&labels(upstream, how));
        }
    }
}

/// Returns names and values.
fn labels(upstream: &str, (end, timeout, last_phase): How) -> Labels {
    let label = |name: Option<&str>| name.unwrap_or(NONE).to_owned();
    vec![
        ("upstream", upstream.to_owned()),
        ("end", label(end.map(End::name))),
        ("timeout", label(timeout.map(Timeout::name))),
        ("last_phase", label(last_phase.map(Part::name))),
    ]
}
