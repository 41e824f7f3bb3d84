// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx's own counters, from its memory to the metrics (`--stats`).

use crate::follow::Follower;
use crate::follow::counters::CounterReader;
use crate::follow::counters::CounterSource;
use crate::host::stderr::Messages;
use crate::metrics::nginx::NginxMetrics;

/// The reader of the counters, and their metrics.
pub struct CounterExport {
    reader: CounterReader,
    metrics: NginxMetrics,
}

impl CounterExport {
    /// Exports counters as these metrics.
    pub fn new(metrics: NginxMetrics) -> Self {
        Self {
            reader: CounterReader::new(),
            metrics,
        }
    }

    /// Reads the counters of all traced processes when that is due, and updates the metrics.
    pub fn tick(&mut self, follower: &Follower, messages: Messages) {
        let sources = || follower.programs().flat_map(CounterSource::of).collect();
        match self.reader.poll(sources) {
            Ok(Some(reading)) => {
                self.metrics.update(&reading.counters);
                if let Some(hung) = reading.hung {
                    messages.warn(&hung);
                }
            }
            Ok(None) => {}
            Err(error) => messages.warn(&error),
        }
    }
}
