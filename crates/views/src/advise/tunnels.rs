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

/// The least number of tunnels that lived for long, or for which old workers did.
const TUNNELS: u64 = 10;

/// From how long on the life of a tunnel is long.
const LONG_NS: u64 = 600_000_000_000;

/// From how long on a worker shuts down for long.
const OUTLIVED_NS: u64 = 10_000_000_000;

/// The rule.
pub const RULE: Rule = Rule {
    name: "tunnels",
    about: "long tunnels",
    description: "tunnels (WebSocket, CONNECT) live so long that old workers live on after a reload",
    verb: "needs",
    thresholds: &[
        least(
            Least::Count(TUNNELS),
            "tunnels of the location that lived for long, or that ended in workers that had been shutting down for long",
            "they are spread over several workers, and all of those live on",
        ),
        least(
            Least::Time(LONG_NS),
            "of life, which is long",
            "by default nothing else of a request holds a worker for longer than a minute without a byte",
        ),
        least(
            Least::Time(OUTLIVED_NS),
            "of shutting down, which is long",
            "nginx closes idle connections when it begins to shut down, and few requests take as long",
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
    let outlived = location.outlived.count_between(OUTLIVED_NS, u64::MAX);
    if long.max(outlived) < TUNNELS {
        return None;
    }
    let all = counted(tunnels.count(), "tunnel");
    let of = |share| time(tunnels.quantile(share).unwrap_or_default());
    let longest = time(tunnels.max_ns().unwrap_or_default());
    let mut evidence = Vec::new();
    if outlived > 0 {
        evidence.push(format!(
            "{} of {all} ended in workers that had been shutting down for {} or longer: up to {}",
            count(outlived),
            time(OUTLIVED_NS),
            time(location.outlived.max_ns().unwrap_or_default())
        ));
    }
    if long > 0 {
        evidence.push(format!(
            "{} of {all} that ended had lived for {} or longer",
            count(long),
            time(LONG_NS)
        ));
    }
    evidence.push(format!(
        "all of them: p50 {}, p90 {}, max {longest}",
        of(0.5),
        of(0.9)
    ));
    evidence.push(format!(
        "after a reload a worker lives on until its last tunnel ends: up to {longest} here"
    ));
    Some(Finding {
        rule: RULE.name,
        subject: location.subject(),
        title: format!("{}: tunnels hold old workers", location.subject()),
        evidence,
        requests: Some(long.max(outlived)),
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
    use std::iter::repeat_n;
    use std::time::Duration;

    use ngx_bpf_record::Record;

    use super::RULE;
    use crate::advise::Advisor;
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
        assert!(found(RULE.name, tunnels(repeat_n(60, 9))).is_empty());
        assert!(found(RULE.name, tunnels(repeat_n(9, 90))).is_empty());
    }

    /// Check tunnels that ended in workers that were shutting down: a few, many, and many that ended soon.
    #[test]
    fn outlived() {
        let findings = |count: u64, seconds: u64| {
            let mut advisor = Advisor::new();
            for (n, sample) in (0..).zip(tunnels(repeat_n(1, 20))) {
                let record = sample.record();
                advisor.record(&record);
                if let Record::Request(request) = &record
                    && n < count
                {
                    advisor.tunnel_outlived(request, Duration::from_secs(seconds));
                }
            }
            advisor.findings()
        };
        assert!(findings(9, 3_600).is_empty());
        assert!(findings(20, 9).is_empty());
        let found = findings(10, 3_600);
        assert_eq!(found[0].rule, RULE.name);
        assert_eq!(found[0].requests, Some(10));
        assert_eq!(
            found[0].evidence[0],
            "10 of 20 tunnels ended in workers that had been shutting down for 10.0 s or longer: up to 60.0 m"
        );
        assert_eq!(found[0].evidence.len(), 3);
    }
}
