// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text formats: OpenMetrics 1.0, and the one of Prometheus before it (0.0.4), which has no exemplars.

use std::fmt;
use std::fmt::Write as _;

use super::metric::Exemplar;
use super::metric::Exposed;
use super::metric::HistogramSample;
use super::metric::Kind;
use super::metric::Sample;
use crate::metrics::labels::Labels;

/// Returns the metrics as text.
pub fn encode(families: impl Iterator<Item = Exposed>, is_openmetrics: bool) -> String {
    let mut text = Text {
        text: String::new(),
        is_openmetrics,
    };
    for family in families {
        text.family(&family);
    }
    if is_openmetrics {
        text.text.push_str("# EOF\n");
    }
    text.text
}

/// The text so far.
struct Text {
    text: String,
    is_openmetrics: bool,
}

impl Text {
    /// Appends anything. Writing into a string does not fail.
    fn put(&mut self, arguments: fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(arguments);
    }

    /// Appends the metrics of one name.
    fn family(&mut self, family: &Exposed) {
        let (name, help) = (family.name, family.help);
        let (kind, suffix) = match family.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
        };
        /* Only OpenMetrics takes the suffix of counters for a part of their kind. */
        let named = if self.is_openmetrics { "" } else { suffix };
        self.put(format_args!(
            "# HELP {name}{named} {help}\n# TYPE {name}{named} {kind}\n"
        ));
        for (labels, sample) in &family.samples {
            match sample {
                Sample::Number(number) => {
                    self.put(format_args!("{name}{suffix}"));
                    self.labels(None, labels);
                    self.put(format_args!(" {number}\n"));
                }
                Sample::Histogram(histogram) => self.histogram(name, labels, histogram),
            }
        }
    }

    /// Appends a histogram. The texts have no native buckets.
    fn histogram(&mut self, name: &str, labels: &Labels, histogram: &HistogramSample) {
        self.put(format_args!("{name}_sum"));
        self.labels(None, labels);
        self.put(format_args!(" {}\n{name}_count", histogram.sum));
        self.labels(None, labels);
        self.put(format_args!(" {}\n", histogram.count));
        for bucket in &histogram.buckets {
            self.put(format_args!("{name}_bucket"));
            self.labels(Some(bucket.bound), labels);
            self.put(format_args!(" {}", bucket.count));
            if let Some((value, exemplar)) = bucket.exemplar.filter(|_| self.is_openmetrics) {
                let Exemplar { trace_id, unix_ms } = exemplar;
                let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
                self.put(format_args!(
                    " # {{trace_id=\"{trace_id:032x}\"}} {value} {seconds}.{ms:03}"
                ));
            }
            self.text.push('\n');
        }
    }

    /// Appends labels, if there are any: the bound of a bucket, and others.
    fn labels(&mut self, bound: Option<f64>, labels: &Labels) {
        let mut before = '{';
        if let Some(bound) = bound {
            match bound.is_finite() {
                true => self.put(format_args!("{{le=\"{bound:?}\"")),
                false => self.text.push_str("{le=\"+Inf\""),
            }
            before = ',';
        }
        for (name, value) in labels {
            self.text.push(before);
            self.put(format_args!("{name}=\""));
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
    }
}
