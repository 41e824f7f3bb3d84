// SPDX-License-Identifier: MIT OR Apache-2.0
//! The filters on texts and attempts. What numbers decide (status, duration, sampling) is filtered in
//! BPF: `attach::object::KernelFilter`.

use ngx_bpf_record::Request;
use ngx_bpf_record::host::host_and_port;

/// The lowest status of a failure.
const STATUS_FAILED: u32 = 400;

/// A request passes when it passes every filter that is set.
#[derive(Clone, Debug, Default)]
pub struct TextFilter {
    /// Methods in upper case; empty for any.
    pub methods: Vec<String>,
    /// How the uri begins that the client asked for.
    pub uri_prefix: Option<String>,
    /// The host's name, without a port.
    pub host: Option<String>,
    /// Whether only failed requests pass.
    pub failed_only: bool,
}

impl TextFilter {
    /// Returns whether the request passes every filter. What it does not have never matches. Its uri is what the client
    /// asked for: a prefix that has no query ends within the path.
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

/// Returns whether the client got an error, or an attempt at an upstream failed, even if another one
/// answered in its place.
fn has_failed(request: &Request<'_>) -> bool {
    let subrequests = request.subrequests.iter().flat_map(|sub| &sub.upstreams);
    let mut attempts = request.upstreams.iter().chain(subrequests);
    request.status.is_some_and(|status| status >= STATUS_FAILED)
        || attempts.any(|attempt| attempt.failure.is_some())
}

#[cfg(test)]
mod tests {
    use super::TextFilter;
    use ngx_bpf_record::Request;
    use ngx_bpf_record::schema;

    /// A request with every value that filters look at.
    fn request() -> Request<'static> {
        Request {
            request_method: Some("GET".into()),
            request_uri: Some("/api/x?y=1".into()),
            uri: Some("/index.php".into()),
            http_host: Some("Example.com:8080".into()),
            ..Default::default()
        }
    }

    /// A filter on methods.
    fn methods(methods: &[&str]) -> TextFilter {
        TextFilter {
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
            ..Default::default()
        }
    }

    /// A filter on the beginning of the uri.
    fn uri(prefix: &str) -> TextFilter {
        TextFilter {
            uri_prefix: Some(prefix.to_owned()),
            ..Default::default()
        }
    }

    /// A filter on the host.
    fn host(name: &str) -> TextFilter {
        TextFilter {
            host: Some(name.to_owned()),
            ..Default::default()
        }
    }

    /// Check each filter with a request that passes it and one that does not.
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

    /// Check what is a failure: a status, and an attempt of the request or of a subrequest.
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
