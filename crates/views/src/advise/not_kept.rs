// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections to an upstream that are not kept although they could be.

use std::collections::BTreeMap;

use ngx_bpf_record::statistics::Times;

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::rule::Least;
use crate::advise::rule::MANY;
use crate::advise::rule::MANY_FROM;
use crate::advise::rule::Rule;
use crate::advise::rule::SHARE;
use crate::advise::rule::is_share;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::part_of;
use crate::units::counted;
use crate::units::percent;
use crate::units::rate;
use crate::units::time;

/// How long a connection that has become free could at least have been kept.
pub const FREE_NS: u64 = 1_000_000_000;

/// The least share of attempts on new connections, in percent.
const NEW: u64 = 90;

/// The least share of attempts before which a connection had become free, in percent.
const AVOIDABLE: u64 = 50;

/// The rule.
pub const RULE: Rule = Rule {
    name: "upstream_not_kept",
    about: "kept connections to upstreams",
    description: "nearly every attempt at an upstream makes a new connection, although one had just become free",
    verb: "needs",
    thresholds: &[
        least(Least::Count(MANY), "attempts at the upstream", MANY_FROM),
        least(
            Least::Percent(NEW),
            "of them on new connections",
            "where connections are kept, even `keepalive 1` keeps more than one in ten at a steady load",
        ),
        least(
            Least::Percent(AVOIDABLE),
            "of them less than a second after a connection of the same worker had become free",
            "no common server closes an idle connection that soon (gunicorn: 2 s, Node.js and Apache: 5 s)",
        ),
        least(
            Least::Percent(SHARE),
            "of the time of those requests for connecting",
            "less would not be seen in the time of any request",
        ),
    ],
    page: include_str!("../../../../docs/advise/upstream_not_kept.md"),
    find,
};

/// The servers of a group, or one server without a group.
#[derive(Default)]
struct Group {
    name: String,
    is_group: bool,
    config: Option<String>,
    known: u64,
    new: u64,
    connect: Times,
    requests: u64,
    elapsed_ns: u128,
}

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for (_, server) in collected.servers.named() {
        let is_group = !server.group.is_empty();
        let name = if is_group {
            &server.group
        } else {
            &server.addr
        };
        let group = groups.entry(name).or_default();
        group.name.clone_from(name);
        group.is_group = is_group;
        group.config = group.config.take().or_else(|| server.config.clone());
        group.known += server.known;
        group.new += server.new;
        group.connect.merge(&server.avoidable.connect);
        group.requests += server.avoidable.requests.count;
        group.elapsed_ns += server.avoidable.elapsed_ns;
    }
    let enough: Vec<_> = groups
        .into_values()
        .filter(|group| group.known >= MANY)
        .collect();
    if enough.is_empty() {
        return None;
    }
    let seconds = collected.seconds();
    Some(
        enough
            .iter()
            .filter(|group| group.is_found())
            .map(|group| group.finding(seconds))
            .collect(),
    )
}

impl Group {
    /// Returns whether its connections are not kept.
    fn is_found(&self) -> bool {
        let known = u128::from(self.known);
        is_share(u128::from(self.new), known, NEW)
            && is_share(u128::from(self.connect.count()), known, AVOIDABLE)
            && self.connect.sum_ns() > 0
            && is_share(self.connect.sum_ns(), self.elapsed_ns, SHARE)
    }

    /// Returns the finding.
    fn finding(&self, seconds: Option<f64>) -> Finding {
        let name = &self.name;
        let subject = if self.is_group {
            format!("upstream `{name}`")
        } else {
            name.clone()
        };
        let connect = &self.connect;
        let of = |share| time(connect.quantile(share).unwrap_or_default());
        let rate = seconds.map(|seconds| format!(", {}/s", rate(self.known, seconds)));
        let evidence = vec![
            format!(
                "{} on new connections{}",
                part_of(self.new, self.known, "attempt"),
                rate.unwrap_or_default()
            ),
            format!(
                "{}: a connection of the same worker had become free in the second before",
                counted(connect.count(), "time")
            ),
            format!(
                "to connect took p50 {}, p99 {} each, {} of these requests' time",
                of(0.5),
                of(0.99),
                percent(connect.sum_ns(), self.elapsed_ns)
            ),
        ];
        Finding {
            rule: RULE.name,
            subject: name.clone(),
            title: format!("{subject}: connections are not kept"),
            evidence,
            requests: Some(self.requests),
            failed: 0,
            lost_ns: lost(connect.sum_ns()),
            advice: vec![
                "keepalive 32; in the `upstream` block".to_owned(),
                "proxy_http_version 1.1; and proxy_set_header Connection \"\"; (fastcgi_keep_conn on; for FastCGI)".to_owned(),
                "nginx before 1.29.7 keeps none by default; later releases do: see whether the server closes them".to_owned(),
            ],
            config: self.config.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests one after the other, each on such a connection.
    fn requests(number: u64, is_reused: impl Fn(u64) -> bool, connect_ns: u64) -> Vec<Sample> {
        (0..number)
            .map(|n| {
                let mut sample =
                    Sample::at_ms(n * 100).upstream("search", "10.0.2.9:9200", 10_000_000);
                let attempt = sample.attempt(0);
                attempt.reused = Some(is_reused(n));
                if !is_reused(n) {
                    let connected = attempt.upstream_connect_time.map(|from| from + connect_ns);
                    attempt.upstream_request_first_byte_time = connected;
                }
                sample
            })
            .collect()
    }

    /// Check new connections that could have been kept ones.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, requests(200, |_| false, 1_200_000));
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(finding.subject, "search");
        assert_eq!(finding.title, "upstream `search`: connections are not kept");
        assert_eq!(
            finding.evidence,
            [
                "200 of 200 attempts (100 %) on new connections, 10.1/s",
                "199 times: a connection of the same worker had become free in the second before",
                "to connect took p50 1.20 ms, p99 1.20 ms each, 12 % of these requests' time",
            ]
        );
        assert_eq!(
            (finding.requests, finding.failed, finding.lost_ns),
            (Some(199), 0, Some(199 * 1_200_000))
        );
        assert_eq!(finding.config.as_deref(), Some("nginx.conf:41"));
    }

    /// Check that kept connections, few attempts, rare ones and cheap ones are no finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, requests(200, |n| n % 5 > 0, 1_200_000)).is_empty());
        assert!(found(RULE.name, requests(99, |_| false, 1_200_000)).is_empty());
        assert!(found(RULE.name, requests(200, |_| false, 10_000)).is_empty());
        let mut rare = requests(200, |_| false, 1_200_000);
        for (n, sample) in rare.iter_mut().enumerate() {
            sample.set_time_ms(n as u64 * 2_000);
        }
        assert!(found(RULE.name, rare).is_empty());
    }
}
