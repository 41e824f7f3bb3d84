// SPDX-License-Identifier: MIT OR Apache-2.0
//! What nginx itself makes requests wait for: `limit_req`, and name servers.

use ngx_bpf_record::statistics::Times;

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::locations::Location;
use crate::advise::rule::FEW;
use crate::advise::rule::FEW_FROM;
use crate::advise::rule::Least;
use crate::advise::rule::NOTICED_FROM;
use crate::advise::rule::NOTICED_NS;
use crate::advise::rule::Rule;
use crate::advise::rule::SHARE;
use crate::advise::rule::SHARE_FROM;
use crate::advise::rule::Threshold;
use crate::advise::rule::in_locations;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::part_of;
use crate::advise::rule::spread;
use crate::advise::rule::total;

/// The thresholds of both rules.
const THRESHOLDS: [Threshold; 3] = [
    least(
        Least::Count(FEW),
        "requests of the location that waited",
        FEW_FROM,
    ),
    least(
        Least::Percent(SHARE),
        "of the requests of the location",
        SHARE_FROM,
    ),
    least(Least::Time(NOTICED_NS), "of waiting together", NOTICED_FROM),
];

/// Delays by `limit_req`.
pub const LIMIT_REQ: Rule = Rule {
    name: "limit_req_delay",
    about: "delays by limit_req",
    description: "`limit_req` delays requests",
    verb: "look",
    thresholds: &THRESHOLDS,
    page: include_str!("../../../../docs/advise/limit_req_delay.md"),
    find: |collected| find(collected, |location| &location.delay, of_limit_req),
};

/// Waits for a name server.
pub const RESOLVER: Rule = Rule {
    name: "resolver",
    about: "name servers",
    description: "requests wait for a name server",
    verb: "look",
    thresholds: &THRESHOLDS,
    page: include_str!("../../../../docs/advise/resolver.md"),
    find: |collected| find(collected, |location| &location.resolve, of_resolver),
};

/// Returns the findings about one kind of waits.
fn find(
    collected: &Collected,
    waits: fn(&Location) -> &Times,
    finding: fn(&Location) -> Finding,
) -> Option<Vec<Finding>> {
    let with_time = |location: &Location| {
        let sum_ns = waits(location).sum_ns();
        (sum_ns >= u128::from(NOTICED_NS)).then(|| Finding {
            lost_ns: lost(sum_ns),
            ..finding(location)
        })
    };
    in_locations(collected, |location| waits(location).count(), with_time)
}

/// Returns the sentence about how long requests waited.
fn lengths(waits: &Times) -> String {
    format!("together {}: {}", total(waits.sum_ns()), spread(waits))
}

/// Returns the part of a finding that only delays have.
fn of_limit_req(location: &Location) -> Finding {
    let waits = &location.delay;
    Finding {
        rule: LIMIT_REQ.name,
        title: format!("{}: limit_req delays requests", location.subject()),
        evidence: vec![
            format!(
                "{} delayed",
                part_of(waits.count(), location.requests, "request")
            ),
            lengths(waits),
        ],
        advice: vec![
            "burst= and nodelay, or delay=, of limit_req".to_owned(),
            "rate= of limit_req_zone, and its key: clients that share one address share it"
                .to_owned(),
        ],
        ..Default::default()
    }
}

/// Returns the part of a finding that only waits for a name server have.
fn of_resolver(location: &Location) -> Finding {
    let waits = &location.resolve;
    Finding {
        rule: RESOLVER.name,
        title: format!("{}: requests wait for a name server", location.subject()),
        evidence: vec![
            format!("{} waited for it", part_of(waits.count(), location.requests, "request")),
            lengths(waits),
        ],
        advice: vec![
            "valid= of resolver; a name server on the same machine".to_owned(),
            "server NAME resolve; in an `upstream` block with a zone (nginx 1.27.3), in place of a variable".to_owned(),
        ],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::LIMIT_REQ;
    use super::RESOLVER;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests of which some waited for `ns`, for both.
    fn requests(number: u64, waited: u64, ns: u64) -> Vec<Sample> {
        (0..number)
            .map(|n| {
                let mut sample = Sample::at_ms(n);
                if n < waited {
                    sample.0.waits.limit_req_delay_ns = Some(ns);
                    sample.0.waits.resolve_ns = Some(ns);
                }
                sample
            })
            .collect()
    }

    /// Check both.
    #[test]
    fn provoked() {
        let samples = requests(400, 40, 200_000_000);
        let findings = found(LIMIT_REQ.name, samples.clone());
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].subject, "/api/ of shop.example");
        assert_eq!(
            findings[0].title,
            "/api/ of shop.example: limit_req delays requests"
        );
        assert_eq!(
            findings[0].evidence,
            [
                "40 of 400 requests (10 %) delayed",
                "together 8.00 s: p50 200 ms, p99 200 ms, max 200 ms",
            ]
        );
        assert_eq!(
            (findings[0].requests, findings[0].lost_ns),
            (Some(40), Some(8_000_000_000))
        );
        assert_eq!(findings[0].config.as_deref(), Some("nginx.conf:7"));
        let findings = found(RESOLVER.name, samples);
        assert_eq!(
            findings[0].title,
            "/api/ of shop.example: requests wait for a name server"
        );
        assert_eq!(
            findings[0].evidence[0],
            "40 of 400 requests (10 %) waited for it"
        );
    }

    /// Check that few, rare and short waits are no finding.
    #[test]
    fn silent() {
        for samples in [
            requests(400, 19, 200_000_000),
            requests(4_001, 40, 200_000_000),
            requests(400, 40, 2_000_000),
        ] {
            assert!(found(LIMIT_REQ.name, samples.clone()).is_empty());
            assert!(found(RESOLVER.name, samples).is_empty());
        }
    }
}
