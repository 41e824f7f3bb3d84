// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies of requests, and responses, that do not fit into nginx's buffers and go to temporary files.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::locations::Location;
use crate::advise::locations::Spill;
use crate::advise::rule::FEW;
use crate::advise::rule::FEW_FROM;
use crate::advise::rule::Least;
use crate::advise::rule::Rule;
use crate::advise::rule::SHARE;
use crate::advise::rule::SHARE_FROM;
use crate::advise::rule::Threshold;
use crate::advise::rule::in_locations;
use crate::advise::rule::least;
use crate::advise::rule::part_of;
use crate::units::count;
use crate::units::size;

/// The thresholds of both rules.
const THRESHOLDS: [Threshold; 2] = [
    least(
        Least::Count(FEW),
        "requests of the location with a temporary file",
        FEW_FROM,
    ),
    least(
        Least::Percent(SHARE),
        "of the requests of the location",
        SHARE_FROM,
    ),
];

/// Bodies of requests.
pub const REQUEST: Rule = Rule {
    name: "request_spill",
    about: "spilled requests",
    description: "bodies of requests go to temporary files",
    verb: "look",
    thresholds: &THRESHOLDS,
    page: include_str!("../../../../docs/advise/request_spill.md"),
    find: |collected| find(collected, |location| &location.request_spill, of_requests),
};

/// Responses of upstreams.
pub const RESPONSE: Rule = Rule {
    name: "response_spill",
    about: "spilled responses",
    description: "responses of upstreams go to temporary files",
    verb: "look",
    thresholds: &THRESHOLDS,
    page: include_str!("../../../../docs/advise/response_spill.md"),
    find: |collected| find(collected, |location| &location.response_spill, of_responses),
};

/// Returns the findings about one kind of temporary files.
fn find(
    collected: &Collected,
    spill: fn(&Location) -> &Spill,
    finding: fn(&Location) -> Finding,
) -> Option<Vec<Finding>> {
    let with_sizes = |location: &Location| {
        let spill = spill(location);
        let mut finding = finding(location);
        let all = u64::try_from(spill.bytes).unwrap_or(u64::MAX);
        let sizes = [
            format!(
                "{} with a temporary file",
                part_of(spill.count, location.requests, "request")
            ),
            format!("{} in all; the largest {}", size(all), size(spill.largest)),
        ];
        finding.evidence.splice(..0, sizes);
        Some(finding)
    };
    in_locations(collected, |location| spill(location).count, with_sizes)
}

/// Returns the part of a finding that only bodies of requests have.
fn of_requests(location: &Location) -> Finding {
    Finding {
        rule: REQUEST.name,
        title: format!(
            "{}: bodies of requests go to temporary files",
            location.subject()
        ),
        advice: vec![
            "client_body_buffer_size (8k or 16k), if most bodies are little larger".to_owned(),
            "proxy_request_buffering off; if the upstream can read as slowly as clients send"
                .to_owned(),
            "client_body_temp_path on a fast disk or in memory".to_owned(),
        ],
        ..Default::default()
    }
}

/// Returns the part of a finding that only responses have.
fn of_responses(location: &Location) -> Finding {
    let with_stall = location.response_spill.with_stall;
    let stalls = (with_stall > 0).then(|| {
        let number = count(with_stall);
        format!("of {number} the client's socket was full meanwhile")
    });
    Finding {
        rule: RESPONSE.name,
        title: format!("{}: responses go to temporary files", location.subject()),
        evidence: stalls.into_iter().collect(),
        advice: vec![
            "proxy_buffers (8 of 4k or 8k), if most responses are little larger".to_owned(),
            "proxy_max_temp_file_size 0; lets the upstream wait for the client instead".to_owned(),
            "proxy_temp_path on a fast disk or in memory".to_owned(),
        ],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::REQUEST;
    use super::RESPONSE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests of which some have temporary files.
    fn requests(number: u64, of_request: u64, of_response: u64) -> Vec<Sample> {
        (0..number)
            .map(|n| {
                let mut sample = Sample::at_ms(n);
                let waits = &mut sample.0.waits;
                waits.request_temp_file_bytes = (n < of_request).then_some(100_000 + n);
                waits.response_temp_file_bytes = (n < of_response).then_some(2_000_000);
                waits.client_stall_ns = (n < of_response / 2).then_some(1);
                sample
            })
            .collect()
    }

    /// Check both kinds.
    #[test]
    fn provoked() {
        let samples = requests(200, 50, 20);
        let findings = found(REQUEST.name, samples.clone());
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].subject, "/api/ of shop.example");
        assert_eq!(
            findings[0].evidence,
            [
                "50 of 200 requests (25 %) with a temporary file",
                "5.00 MB in all; the largest 100 kB",
            ]
        );
        assert_eq!(
            (findings[0].requests, findings[0].lost_ns),
            (Some(50), None)
        );
        assert_eq!(findings[0].config.as_deref(), Some("nginx.conf:7"));
        let findings = found(RESPONSE.name, samples);
        assert_eq!(
            findings[0].evidence,
            [
                "20 of 200 requests (10 %) with a temporary file",
                "40.0 MB in all; the largest 2.00 MB",
                "of 10 the client's socket was full meanwhile",
            ]
        );
    }

    /// Check that few of them, and a small share, are no finding.
    #[test]
    fn silent() {
        for samples in [requests(200, 19, 19), requests(5_000, 20, 20)] {
            assert!(found(REQUEST.name, samples.clone()).is_empty());
            assert!(found(RESPONSE.name, samples).is_empty());
        }
    }
}
