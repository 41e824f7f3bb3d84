// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of a request's keys as attributes of its span.

use crate::schema::Name;
use crate::schema::otel_names;

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

/// The keys with a name in the semantic conventions.
pub(super) struct Names {
    /// Indexed by the length of the key, each with its name. `None`: it becomes several attributes.
    by_length: Vec<Vec<(String, Option<String>)>>,
}

impl Names {
    /// Takes them from the definition of the record.
    pub fn new() -> Self {
        let mut by_length: Vec<Vec<_>> = Vec::new();
        for (key, name) in otel_names() {
            let length = key.len();
            if by_length.len() <= length {
                by_length.resize_with(length + 1, Vec::new);
            }
            let name = match name {
                Name::Is(name) => Some(name),
                Name::Parts => None,
            };
            by_length[length].push((key, name));
        }
        Self { by_length }
    }

    /// Returns the prefix and the name of the attribute of a path. `None` when it becomes several ones. A path with
    /// dots is none of these keys.
    pub fn of<'n>(&'n self, path: &'n str) -> Option<(&'static str, &'n str)> {
        let same_length = self.by_length.get(path.len()).into_iter().flatten();
        let mut known = same_length.filter(|(key, _)| key == path);
        match known.next() {
            Some((_, name)) => name.as_deref().map(|name| ("", name)),
            None => Some(("nginx.", path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Names;
    use super::OF_LOGS;
    use super::OF_SPANS;
    use crate::schema::definition;

    /// Check each kind of name, and that the keys that are no attributes exist.
    #[test]
    fn names() {
        let names = Names::new();
        assert_eq!(names.of("location"), Some(("", "http.route")));
        assert_eq!(names.of("status"), None);
        assert_eq!(names.of("uri"), Some(("nginx.", "uri")));
        assert_eq!(
            names.of("tcp.client.cwnd"),
            Some(("nginx.", "tcp.client.cwnd"))
        );
        let definition = definition();
        for key in OF_SPANS.iter().chain(&OF_LOGS) {
            assert!(
                definition["$defs"]["request"]["properties"][key].is_object(),
                "{key}"
            );
        }
    }
}
