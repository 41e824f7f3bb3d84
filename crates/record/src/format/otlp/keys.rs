// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a record that become attributes.

/// Keys that are no attributes: they are the span itself, other spans, or the resource.
const OF_SPANS: [&str; 11] = [
    "time",
    "trace_id",
    "parent_span_id",
    "trace_flags",
    "upstreams",
    "subrequests",
    "pid",
    "container_id",
    "pod_uid",
    "pod",
    "namespace",
];

/// Returns whether a key of a request becomes attributes of its span.
pub(super) fn is_attribute(key: &str) -> bool {
    !OF_SPANS.contains(&key)
}

/// Keys that are no attributes of a log record: they are other members of it, or the resource.
const OF_LOGS: [&str; 8] = [
    "time",
    "trace_id",
    "trace_flags",
    "pid",
    "container_id",
    "pod_uid",
    "pod",
    "namespace",
];

/// Returns whether a key of a record becomes attributes of its log record.
pub(super) fn is_log_attribute(key: &str) -> bool {
    !OF_LOGS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::OF_LOGS;
    use super::OF_SPANS;
    use crate::schema::definition;

    /// Check that the keys that are no attributes exist.
    #[test]
    fn keys() {
        let definition = definition();
        for key in OF_SPANS.iter().chain(&OF_LOGS) {
            assert!(
                definition["$defs"]["request"]["properties"][key].is_object(),
                "{key}"
            );
        }
    }
}
