// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that is slower than the others of its group.

use std::collections::BTreeMap;

use ngx_bpf_record::statistics::Times;

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::rule::Least;
use crate::advise::rule::Rule;
use crate::advise::rule::SHARE;
use crate::advise::rule::is_share;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::servers::Server;
use crate::units::count;
use crate::units::counted;
use crate::units::significant;
use crate::units::time;

/// The least number of responses of the server, and of the others.
const RESPONSES: u64 = 30;

/// How many times as long it must take.
const RATIO: u64 = 2;

/// The shares between which a median lies with 95 % certainty, where there are [`RESPONSES`].
const LOW: f64 = 0.33;
const HIGH: f64 = 0.67;

/// The rule.
pub const RULE: Rule = Rule {
    name: "server_slow",
    about: "servers slower than their peers",
    description: "one server of a group takes longer for its responses than the others",
    verb: "look",
    thresholds: &[
        least(
            Least::Count(RESPONSES),
            "responses of the server, and as many of the others",
            "the median of 30 lies between the 10th and the 21st of them with 95 % certainty, and these two ranges must not meet",
        ),
        least(
            Least::Ratio(RATIO),
            "the median time to the header of the response that the others need",
            "below that, servers that get other requests than their peers look slower than they are",
        ),
        least(
            Least::Percent(SHARE),
            "of the time of its requests more than the others would need",
            "less would not be seen in the time of any request",
        ),
    ],
    page: include_str!("../../../../docs/advise/server_slow.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let mut groups: BTreeMap<&str, Vec<&Server>> = BTreeMap::new();
    for (_, server) in collected.servers.named() {
        if !server.group.is_empty() && server.header.count() >= RESPONSES {
            groups.entry(&server.group).or_default().push(server);
        }
    }
    groups.retain(|_, servers| servers.len() > 1);
    let found = groups.values().flat_map(|servers| {
        let of = |server: &&Server| finding(server, servers);
        servers.iter().filter_map(of)
    });
    (!groups.is_empty()).then(|| found.collect())
}

/// Returns the finding of a server among the servers of its group.
fn finding(server: &Server, group: &[&Server]) -> Option<Finding> {
    let mut peers = Times::default();
    let others = group.iter().filter(|peer| peer.addr != server.addr);
    others.clone().for_each(|peer| peers.merge(&peer.header));
    let own = &server.header;
    let (of_own, of_peers) = (own.quantile(0.5)?, peers.quantile(0.5)?);
    let is_clear = own.quantile(LOW)? > peers.quantile(HIGH)?;
    let per_response = peers.sum_ns() / u128::from(peers.count().max(1));
    let lost_ns = own
        .sum_ns()
        .saturating_sub(per_response * u128::from(own.count()));
    if !is_clear
        || of_own < of_peers.saturating_mul(RATIO)
        || lost_ns == 0
        || !is_share(lost_ns, server.header_elapsed_ns, SHARE)
    {
        return None;
    }
    let ratio = significant(of_own as f64 / of_peers.max(1) as f64);
    let peers_99 = time(peers.quantile(0.99)?);
    Some(Finding {
        rule: RULE.name,
        subject: server.addr.clone(),
        title: format!("{} is slower than its peers", server.name()),
        evidence: vec![
            format!(
                "to the header of its response: p50 {}, p99 {} ({})",
                time(of_own),
                time(own.quantile(0.99)?),
                counted(own.count(), "response")
            ),
            format!(
                "{} of its group: p50 {}, p99 {peers_99} ({})",
                counted(others.count() as u64, "other"),
                time(of_peers),
                count(peers.count())
            ),
            format!("its median is {ratio} times theirs"),
        ],
        requests: Some(server.header_requests.count),
        failed: 0,
        lost_ns: lost(lost_ns),
        advice: vec![
            "what is different there: its load, its machine, the way to it".to_owned(),
            "least_conn; or weight= of `server` in the `upstream` block".to_owned(),
        ],
        config: server.config.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests in turn at three servers of a group, of which the first takes `ns`.
    fn requests(number: u64, ns: impl Fn(u64) -> u64) -> Vec<Sample> {
        let servers = ["10.0.1.4:80", "10.0.1.5:80", "10.0.1.6:80"];
        (0..number)
            .map(|n| {
                let ns = if n % 3 == 0 {
                    ns(n)
                } else {
                    1_000_000 + n * 1_000
                };
                Sample::at_ms(n).upstream("backend", servers[n as usize % 3], ns)
            })
            .collect()
    }

    /// Check one that takes four times as long.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, requests(120, |_| 4_240_000));
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(
            finding.title,
            "10.0.1.4:80 (backend) is slower than its peers"
        );
        assert_eq!(
            finding.evidence,
            [
                "to the header of its response: p50 4.24 ms, p99 4.24 ms (40 responses)",
                "2 others of its group: p50 1.06 ms, p99 1.12 ms (80)",
                "its median is 4.00 times theirs",
            ]
        );
        assert_eq!((finding.requests, finding.failed), (Some(40), 0));
        assert_eq!(finding.lost_ns, Some(40 * (4_240_000 - 1_060_000)));
    }

    /// Check that few responses, a small difference and times that vary are no finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, requests(80, |_| 4_240_000)).is_empty());
        assert!(found(RULE.name, requests(300, |_| 1_900_000)).is_empty());
        let varies = |n: u64| {
            if n.is_multiple_of(2) {
                900_000
            } else {
                20_000_000
            }
        };
        assert!(found(RULE.name, requests(300, varies)).is_empty());
    }
}
