// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of a `Host` header.

/// Splits a `Host` into the name, with the brackets of IPv6, and the port if it has one. The text
/// after the last colon is a port when it is empty or consists of digits.
pub fn host_and_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (host, None),
    }
}

/// Returns whether a `Host` has this name, with any port, in upper or lower case.
pub fn has_name(host: &str, name: &str) -> bool {
    host_and_port(host).0.eq_ignore_ascii_case(name)
}

/// Returns the address within the brackets of IPv6, or the name itself when it has none.
pub fn without_brackets(name: &str) -> &str {
    name.strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::host_and_port;
    use super::without_brackets;

    /// Check that only both brackets are removed.
    #[test]
    fn brackets() {
        for (name, expected) in [("[::1]", "::1"), ("a", "a"), ("[a", "[a"), ("a]", "a]")] {
            assert_eq!(without_brackets(name), expected);
        }
    }

    /// Check hosts with and without a port.
    #[test]
    fn hosts() {
        assert_eq!(host_and_port("a.b:80"), ("a.b", Some("80")));
        assert_eq!(host_and_port("a.b"), ("a.b", None));
        assert_eq!(host_and_port("a.b:"), ("a.b", Some("")));
        assert_eq!(host_and_port("[::1]:80"), ("[::1]", Some("80")));
        assert_eq!(host_and_port("[::1]"), ("[::1]", None));
    }
}
