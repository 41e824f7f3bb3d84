// SPDX-License-Identifier: MIT OR Apache-2.0
//! Attempts at upstreams: how many, how long, and why they failed.

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::values::Failure;

use super::buckets::own_histograms;
use super::exposition::Counter;
use super::exposition::Exemplar;
use super::exposition::Family;
use super::exposition::Histogram;
use super::exposition::Registry;
use super::labels::Labels;
use super::labels::NONE;

/// The values of the label `reused`.
const REUSED: [&str; 3] = ["true", "false", NONE];

/// Calls `with` with each attempt of a request and of its subrequests, and how long it took. That is not known of one that
/// was never seen to begin or to end.
pub fn timed<'r, 'a>(request: &'r Request<'a>, mut with: impl FnMut(&'r Attempt<'a>, Option<u64>)) {
    let subrequests = request.subrequests.iter().map(|sub| (&sub.upstreams, None));
    let own = (&request.upstreams, end_of_last(request));
    for (attempts, end_of_last) in [own].into_iter().chain(subrequests) {
        for (at, attempt) in attempts.iter().enumerate() {
            let last = attempt.upstream_response_last_byte_time;
            /* nginx goes on with the next server at the moment at which an attempt fails. */
            let end = match attempts.get(at + 1) {
                _ if last.is_some() => last,
                _ if attempt.failure.is_none() => None,
                Some(next) if next.post_action => end_of_last,
                Some(next) => next.upstream_connect_time,
                None => end_of_last,
            };
            let begin = attempt.upstream_connect_time;
            let ns = begin.and_then(|begin| end?.checked_sub(begin));
            with(attempt, ns);
        }
    }
}

/// Returns when an attempt without a response, after which no other one followed, was over: nginx answers then, or the
/// request ends.
fn end_of_last(request: &Request<'_>) -> Option<u64> {
    let phases = &request.phases;
    let ended = || {
        let first = phases.downstream_request_first_byte_time?;
        first.checked_add(request.elapsed_ns?)
    };
    phases.downstream_response_first_byte_time.or_else(ended)
}

/// The metrics of attempts.
pub struct AttemptMetrics {
    attempts: Family<Counter>,
    durations: Family<Histogram>,
    failures: Family<Counter>,
}

impl AttemptMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            attempts: Family::default(),
            durations: own_histograms(),
            failures: Family::default(),
        };
        registry.register(
            "nginx_http_upstream_attempts",
            "Attempts at an upstream",
            &metrics.attempts,
        );
        registry.register(
            "nginx_http_upstream_attempt_seconds",
            "From the connect of an attempt to its last byte, or to its failure",
            &metrics.durations,
        );
        registry.register(
            "nginx_http_upstream_failures",
            "Attempts at an upstream that failed",
            &metrics.failures,
        );
        metrics
    }

    /// Counts and measures an attempt at the upstream of this label.
    pub fn observe(
        &self,
        upstream: &str,
        attempt: &Attempt<'_>,
        ns: Option<u64>,
        exemplar: Option<Exemplar>,
    ) {
        let reused = match attempt.reused {
            Some(true) => REUSED[0],
            Some(false) => REUSED[1],
            None => REUSED[2],
        };
        self.attempts
            .with(&labels(upstream, "reused", reused))
            .inc();
        if let Some(failure) = attempt.failure {
            let labels = labels(upstream, "failure", failure.name());
            self.failures.with(&labels).inc();
        }
        if let Some(ns) = ns {
            let failure = attempt.failure.map_or(NONE, Failure::name);
            let labels = labels(upstream, "failure", failure);
            self.durations.with(&labels).observe(ns, exemplar);
        }
    }

    /// Removes the series of an upstream.
    pub fn forget(&self, upstream: &str) {
        for reused in REUSED {
            self.attempts.remove(&labels(upstream, "reused", reused));
        }
        for failure in Failure::ALL.map(Failure::name).iter().chain([&NONE]) {
            let labels = labels(upstream, "failure", failure);
            self.failures.remove(&labels);
            self.durations.remove(&labels);
        }
    }
}

/// Returns the labels of attempts.
fn labels(upstream: &str, name: &'static str, value: &str) -> Labels {
    vec![("upstream", upstream.to_owned()), (name, value.to_owned())]
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Attempt;
    use ngx_bpf_record::Phases;
    use ngx_bpf_record::Request;
    use ngx_bpf_record::values::Failure;

    use super::timed;

    /// Check how long attempts took: one that failed until the next one began, the last one until nginx answered or the
    /// request ended, and none that is not known to have ended.
    #[test]
    fn durations() {
        let attempt = |begin, end, failure| Attempt {
            upstream_connect_time: begin,
            upstream_response_last_byte_time: end,
            failure,
            ..Default::default()
        };
        let mut request = Request {
            upstreams: vec![
                attempt(Some(10), None, Some(Failure::ConnectTimeout)),
                attempt(Some(30), Some(35), None),
                attempt(None, None, Some(Failure::ConnectError)),
                attempt(Some(50), None, Some(Failure::Timeout)),
            ],
            phases: Phases {
                downstream_request_first_byte_time: Some(5),
                ..Default::default()
            },
            elapsed_ns: Some(100),
            ..Default::default()
        };
        let of = |request: &Request<'_>| {
            let mut times = Vec::new();
            timed(request, |_, ns| times.push(ns));
            times
        };
        assert_eq!(of(&request), [Some(20), Some(5), None, Some(55)]);
        request.phases.downstream_response_first_byte_time = Some(60);
        assert_eq!(of(&request)[3], Some(10));
        request.upstreams[3].failure = None;
        assert_eq!(of(&request)[3], None);
    }
}
