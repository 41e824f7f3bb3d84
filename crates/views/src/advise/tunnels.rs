// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tunnels that live for so long that old workers live on after a reload.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::locations::Location;
use crate::advise::rule::Least;
use crate::advise::rule::Rule;
use crate::advise::rule::enough;
use crate::advise::rule::least;
use crate::units::count;
use crate::units::counted;
use crate::units::time;

/// The least number of tunnels that lived for long.
const TUNNELS: u64 = 10;

/// From how long on that is.
const LONG_NS: u64 = 600_000_000_000;

/// The rule.
pub const RULE: Rule = Rule {
    name: "tunnels",
    about: "long tunnels",
    description: "tunnels (WebSocket, CONNECT) live so long that old workers live on after a reload",
    verb: "needs",
    thresholds: &[
        least(
            Least::Count(TUNNELS),
            "tunnels of the location that lived for long",
            "they are spread over several workers, and all of those live on",
        ),
        least(
            Least::Time(LONG_NS),
            "of life, which is long",
            "by default nothing else of a request holds a worker for longer than a minute without a byte",
        ),
    ],
    page: include_str!("../../../../docs/advise/tunnels.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let has_enough = |location: &Location| location.tunnels.count() >= TUNNELS;
    let enough = enough(&collected.locations, has_enough)?;
    Some(enough.into_iter().filter_map(finding).collect())
}

/// Returns the finding of a location. Requests lose no time by it.
fn finding(location: &Location) -> Option<Finding> {
    let tunnels = &location.tunnels;
    let long = tunnels.count_between(LONG_NS, u64::MAX);
    if long < TUNNELS {
        return None;
    }
    let of = |share| time(tunnels.quantile(share).unwrap_or_default());
    let longest = time(tunnels.max_ns().unwrap_or_default());
    Some(Finding {
        rule: RULE.name,
        subject: location.subject(),
        title: format!("{}: tunnels hold old workers", location.subject()),
        evidence: vec![
            format!(
                "{} of {} that ended had lived for {} or longer",
                count(long),
                counted(tunnels.count(), "tunnel"),
                time(LONG_NS)
            ),
            format!(
                "all of them: p50 {}, p90 {}, max {longest}",
                of(0.5),
                of(0.9)
            ),
            format!(
                "after a reload a worker lives on until its last tunnel ends: up to {longest} here"
            ),
        ],
        requests: Some(long),
        failed: 0,
        lost_ns: None,
        advice: vec![
            "worker_shutdown_timeout, which ends them that time after a reload".to_owned(),
            "proxy_read_timeout, which ends them after that time without a byte".to_owned(),
        ],
        config: location.config.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    const MINUTE: u64 = 60_000_000_000;

    /// Returns tunnels that lived for these times, in minutes.
    fn tunnels(minutes: impl Iterator<Item = u64>) -> Vec<Sample> {
        minutes
            .map(|minutes| {
                let mut sample = Sample::at_ms(0);
                sample.0.ending.tunnel = true;
                sample.0.ending.tunnel_ns = Some(minutes * MINUTE);
                sample
            })
            .collect()
    }

    /// Check tunnels that live for up to 50 minutes.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, tunnels((1..=25).map(|n| n * 2)));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].title,
            "/api/ of shop.example: tunnels hold old workers"
        );
        assert_eq!(
            findings[0].evidence,
            [
                "21 of 25 tunnels that ended had lived for 10.0 m or longer",
                "all of them: p50 26.0 m, p90 46.0 m, max 50.0 m",
                "after a reload a worker lives on until its last tunnel ends: up to 50.0 m here",
            ]
        );
        assert_eq!(
            (findings[0].requests, findings[0].lost_ns),
            (Some(21), None)
        );
    }

    /// Check that few long ones and many short ones are no finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, tunnels(std::iter::repeat_n(60, 9))).is_empty());
        assert!(found(RULE.name, tunnels(std::iter::repeat_n(9, 90))).is_empty());
    }
}
