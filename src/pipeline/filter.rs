// SPDX-License-Identifier: MIT OR Apache-2.0
//! The filters on texts and attempts. The texts are compared before a request is built of the record. BPF
//! filters by numbers (status, duration, sampling): see `attach::object::KernelFilter`.

use ngx_bpf_record::Request;
use ngx_bpf_record::filter::has_failed;
use ngx_bpf_record::format::otlp::has_spans;
use ngx_bpf_record::host::has_name;

use crate::decode::texts::Texts;

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
    /// True when only requests whose client states a trace pass.
    pub traced_only: bool,
    /// True when only requests pass that become spans.
    pub spans_only: bool,
}

impl TextFilter {
    /// Returns whether these texts pass every filter on texts. A filter on a text that the request
    /// lacks fails. The uri is the one that the client asked for: a prefix without a query is compared
    /// with the path only.
    pub fn lets_texts_through(&self, texts: &Texts<'_>) -> bool {
        let is_method = |known: &String| texts.method.lossy().as_deref() == Some(known);
        let begins_with = |prefix: &str| {
            let uri = texts.request_uri.lossy();
            uri.is_some_and(|uri| uri.starts_with(prefix))
        };
        let is_host = |name: &str| {
            let host = texts.host.lossy();
            host.is_some_and(|host| has_name(&host, name))
        };
        (self.methods.is_empty() || self.methods.iter().any(is_method))
            && self.uri_prefix.as_deref().is_none_or(begins_with)
            && self.host.as_deref().is_none_or(is_host)
    }

    /// Returns whether the request passes the filters on what became of it, and on its trace.
    pub fn lets_through(&self, request: &Request<'_>) -> bool {
        (!self.failed_only || has_failed(request))
            && (!self.traced_only || request.trace.trace_id.is_some())
            && (!self.spans_only || has_spans(request))
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Request;
    use ngx_bpf_record::schema;

    use super::TextFilter;
    use crate::decode::examples::text;
    use crate::decode::texts::Texts;

    /// Returns texts, of which filters look at each but the uri.
    fn texts() -> Texts<'static> {
        Texts {
            method: text("GET"),
            request_uri: text("/api/x?y=1"),
            uri: text("/index.php"),
            host: text("Example.com:8080"),
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

    /// Check each filter on texts with a value that passes and one that does not.
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
            assert_eq!(filter.lets_texts_through(&texts()), expected, "{filter:?}");
        }
    }

    /// Check that a request without the text does not pass.
    #[test]
    fn absent() {
        for filter in [methods(&["GET"]), uri(""), host("a")] {
            assert!(!filter.lets_texts_through(&Texts::default()), "{filter:?}");
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
