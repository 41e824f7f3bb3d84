// SPDX-License-Identifier: MIT OR Apache-2.0
//! The choice among records that are read, by the same rules as among those that are written.

use std::ops::RangeInclusive;

use crate::Record;
use crate::host::has_name;
use crate::redact::Redaction;
use crate::request::Request;
use crate::values::End;

/// The lowest status that counts as a failure.
const STATUS_FAILED: u32 = 400;

/// What a request must be to pass. An empty filter lets every request through.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The pids of workers that pass; empty for any.
    pub pids: Vec<u32>,
    /// The statuses that pass; empty for any.
    pub statuses: Vec<RangeInclusive<u32>>,
    /// The least `elapsed_ns`.
    pub min_ns: Option<u64>,
    /// The methods that pass, in upper case; empty for any.
    pub methods: Vec<String>,
    /// The begin of `request_uri`.
    pub uri_prefix: Option<String>,
    /// The name of the host, without a port.
    pub host: Option<String>,
    /// True when only failed requests pass.
    pub failed_only: bool,
    /// The values that headers must have, by their names.
    pub headers: Vec<(String, String)>,
    /// The begins of container ids that pass; empty for any.
    pub containers: Vec<String>,
    /// The pods that pass, each after its namespace where that matters; empty for any.
    pub pods: Vec<(Option<String>, String)>,
}

impl Filter {
    /// Returns whether a request passes. A filter on a key that the request lacks fails.
    pub fn lets_through(&self, request: &Request<'_>) -> bool {
        let is_status = |status: u32| self.statuses.iter().any(|range| range.contains(&status));
        let has_header = |(name, value): &(String, String)| {
            let known = request.place.headers.get(name.as_str());
            known.is_some_and(|known| known == value)
        };
        let is_host = |name: &str| {
            let host = request.http_host.as_deref();
            host.is_some_and(|host| has_name(host, name))
        };
        let is_method = |method: &String| request.request_method.as_deref() == Some(method);
        let begins = |prefix: &str| {
            let uri = request.request_uri.as_deref();
            uri.is_some_and(|uri| uri.starts_with(prefix))
        };
        (self.pids.is_empty() || self.pids.contains(&request.pid))
            && (self.statuses.is_empty() || request.status.is_some_and(is_status))
            && self
                .min_ns
                .is_none_or(|min| request.elapsed_ns >= Some(min))
            && (self.methods.is_empty() || self.methods.iter().any(is_method))
            && self.uri_prefix.as_deref().is_none_or(begins)
            && self.host.as_deref().is_none_or(is_host)
            && (!self.failed_only || has_failed(request))
            && self.headers.iter().all(has_header)
            && self.is_place(request)
    }

    /// Returns whether nginx runs where it must.
    fn is_place(&self, request: &Request<'_>) -> bool {
        let container = &request.container;
        let is_id = |begin: &String| {
            let id = container.container_id.as_deref();
            id.is_some_and(|id| id.starts_with(begin))
        };
        let is_pod = |(namespace, name): &(Option<String>, String)| {
            let is_namespace =
                namespace.is_none() || container.namespace.as_deref() == namespace.as_deref();
            is_namespace && container.pod.as_deref() == Some(name)
        };
        (self.containers.is_empty() || self.containers.iter().any(is_id))
            && (self.pods.is_empty() || self.pods.iter().any(is_pod))
    }
}

/// What is read of records: the requests that pass a filter, without secrets.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The filter.
    pub filter: Filter,
    /// What is removed from the requests that pass it.
    pub redaction: Redaction,
}

impl Choice {
    /// Chooses all records, as they are.
    pub fn all() -> Self {
        Self {
            filter: Filter::default(),
            redaction: Redaction::Keys(Vec::new()),
        }
    }

    /// Returns whether a record passes, and then removes its secrets. Filters are about requests only.
    pub fn take(&self, record: &mut Record<'_>) -> bool {
        if let Record::Request(request) = record {
            if !self.filter.lets_through(request) {
                return false;
            }
            self.redaction.apply(request);
        }
        true
    }
}

/// Returns whether the client got an error or, since the worker had ended, nothing, or an attempt at an
/// upstream failed, even if another server answered instead: what `--failed` chooses.
pub fn has_failed(request: &Request<'_>) -> bool {
    let mut attempts = request.all_attempts();
    request.status.is_some_and(|status| status >= STATUS_FAILED)
        || request.ending.end == Some(End::WorkerExit)
        || attempts.any(|attempt| attempt.failure.is_some())
}

#[cfg(test)]
mod tests {
    use super::Filter;
    use crate::request::Request;

    /// Returns whether a filter lets a request through.
    fn passes(set: impl FnOnce(&mut Filter)) -> bool {
        let mut request = Request {
            pid: 7,
            status: Some(404),
            elapsed_ns: Some(1_000),
            request_method: Some("GET".into()),
            request_uri: Some("/a?b".into()),
            http_host: Some("Shop.example:80".into()),
            ..Default::default()
        };
        request.place.headers.insert("x".into(), "1".into());
        request.container.container_id = Some("0123456789abcdef".into());
        request.container.pod = Some("web".into());
        request.container.namespace = Some("shop".into());
        let mut filter = Filter::default();
        set(&mut filter);
        filter.lets_through(&request)
    }

    /// Check each filter with a value that passes and one that does not.
    #[test]
    fn each() {
        assert!(passes(|_| {}));
        assert!(passes(|filter| filter.pids = vec![1, 7]));
        assert!(!passes(|filter| filter.pids = vec![1]));
        assert!(passes(|filter| filter.statuses = vec![500..=599, 404..=404]));
        assert!(!passes(|filter| filter.statuses = vec![500..=599]));
        assert!(passes(|filter| filter.min_ns = Some(1_000)));
        assert!(!passes(|filter| filter.min_ns = Some(1_001)));
        assert!(passes(|filter| filter.methods = vec!["GET".to_owned()]));
        assert!(!passes(|filter| filter.methods = vec!["POST".to_owned()]));
        assert!(passes(|filter| filter.uri_prefix = Some("/a".to_owned())));
        assert!(!passes(|filter| filter.uri_prefix = Some("/b".to_owned())));
        assert!(passes(
            |filter| filter.host = Some("shop.EXAMPLE".to_owned())
        ));
        assert!(!passes(|filter| filter.host = Some("shop".to_owned())));
        assert!(passes(|filter| filter.failed_only = true));
        let header = |value: &str| vec![("x".to_owned(), value.to_owned())];
        assert!(passes(|filter| filter.headers = header("1")));
        assert!(!passes(|filter| filter.headers = header("2")));
        let id = |id: &str| vec![id.to_owned()];
        assert!(passes(|filter| filter.containers = id("0123456789ab")));
        assert!(!passes(|filter| filter.containers = id("1123456789ab")));
        let pod = |space: Option<&str>| vec![(space.map(str::to_owned), "web".to_owned())];
        assert!(passes(|filter| filter.pods = pod(None)));
        assert!(passes(|filter| filter.pods = pod(Some("shop"))));
        assert!(!passes(|filter| filter.pods = pod(Some("other"))));
    }
}
