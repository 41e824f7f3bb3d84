// SPDX-License-Identifier: MIT OR Apache-2.0
//! The filters on texts and attempts. BPF filters by numbers (status, duration, sampling): see
//! `attach::object::KernelFilter`.

use ngx_bpf_record::Request;
use ngx_bpf_record::host::host_and_port;

/// The lowest status that counts as a failure.
const STATUS_FAILED: u32 = 400;

/// Filters on a request. It passes when it passes every filter that is set.
#[derive(Clone, Debug, Default)]
pub struct TextFilter {
    /// The methods that pass, in upper case; empty for any.
    pub methods: Vec<String>,
    /// The beginning of the uri that the client asked for.
    pub uri_prefix: Option<String>,
    /// The name of the host, without a port.
    pub host: Option<String>,
    /// True when only failed requests pass.
    pub failed_only: bool,
}

impl TextFilter {
    /// Returns whether the request passes every filter. A filter on a value that the request lacks
    /// fails. The uri is the one that the client asked for: a prefix without a query is compared
    /// with the path only.
    pub fn lets_through(&self, request: &Request<'_>) -> bool {
        let is_method = |known: &String| request.request_method.as_deref() == Some(known);
        let begins_with = |prefix: &str| {
            let uri = request.request_uri.as_deref();
            uri.is_some_and(|uri| uri.starts_with(prefix))
        };
        let is_host = |name: &str| {
            let host = request.http_host.as_deref();
            host.is_some_and(|host| host_and_port(host).0.eq_ignore_ascii_case(name))
        };
        (self.methods.is_empty() || self.methods.iter().any(is_method))
            && self.uri_prefix.as_deref().is_none_or(begins_with)
            && self.host.as_deref().is_none_or(is_host)
            && (!self.failed_only || has_failed(request))
    }
}

/// Returns whether the client got an error, or an attempt at an upstream failed, even if another
/// server answered instead.
fn has_failed(request: &Request<'_>) -> bool {
    let mut attempts = request.all_attempts();
    request.status.is_some_and(|status| status >= STATUS_FAILED)
        || attempts.any(|attempt| attempt.failure.is_some())
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Request;
    use ngx_bpf_record::schema;

    use super::TextFilter;

    /// Returns a request with every value that filters look at.
    fn request() -> Request<'static> {
        Request {
            request_method: Some("GET".into()),
            request_uri: Some("/api/x?y=1".into()),
            uri: Some("/index.php".into()),
            http_host: Some("Example.com:8080".into()),
            ..Default::default()
        }
    }

    /// Returns a filter on methods.
    fn methods(methods: &[&str]) -> TextFilter {
        TextFilter {
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
            ..Default::default()
        }
    }

    /// Returns a filter on the beginning of the uri.
    fn uri(prefix: &str) -> TextFilter {
        TextFilter {
            uri_prefix: Some(prefix.to_owned()),
            ..Default::default()
        }
    }

    /// Returns a filter on the host.
    fn host(name: &str) -> TextFilter {
        TextFilter {
            host: Some(name.to_owned()),
            ..Default::default()
        }
    }

    /// Check each filter with a request that passes it and one that does not pass.
    #[test]
    fn each() {
        let both = TextFilter {
            methods: vec!["POST".to_owned()],
            ..uri("/api")
        };
        for (filter, expected) in [
            (TextFilter::default(), true),
            (methods(&["POST", "GET"]), true),
            (methods(&["HEAD"]), false),
            (uri("/api"), true),
            (uri("/api/x"), true),
            (uri("/api/x?y="), true),
            (uri("/api/xy"), false),
            (uri("/index.php"), false),
            (uri("/static"), false),
            (host("example.com"), true),
            (host("example.org"), false),
            (both, false),
        ] {
            assert_eq!(filter.lets_through(&request()), expected, "{filter:?}");
        }
    }

    /// Check that a request without the value does not pass.
    #[test]
    fn absent() {
        for filter in [methods(&["GET"]), uri(""), host("a")] {
            assert!(!filter.lets_through(&Request::default()), "{filter:?}");
        }
    }

    /// Check which requests have failed: by a status, and by an attempt of the request or of a
    /// subrequest.
    #[test]
    fn failed() {
        let filter = TextFilter {
            failed_only: true,
            ..Default::default()
        };
        let with_status = |status| Request {
            status,
            ..Default::default()
        };
        for (status, expected) in [
            (None, false),
            (Some(399), false),
            (Some(400), true),
            (Some(502), true),
        ] {
            assert_eq!(filter.lets_through(&with_status(status)), expected);
        }
        let mut longest = schema::longest();
        longest.status = Some(200);
        assert!(filter.lets_through(&longest));
        longest.upstreams.clear();
        assert!(filter.lets_through(&longest));
        longest.subrequests.clear();
        assert!(!filter.lets_through(&longest));
    }
}
