// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of keys as attributes.

use crate::schema::Name;
use crate::schema::otel_names;

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

    /// Check each kind of name.
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
    }
}
