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
use crate::advise::rule::is_share;
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
    find: |collected| find(collected, |location| &location.request_spill, of_request),
};

/// Responses of upstreams.
pub const RESPONSE: Rule = Rule {
    name: "response_spill",
    about: "spilled responses",
    description: "responses of upstreams go to temporary files",
    verb: "look",
    thresholds: &THRESHOLDS,
    page: include_str!("../../../../docs/advise/response_spill.md"),
    find: |collected| find(collected, |location| &location.response_spill, of_response),
};

/// Returns the findings about one kind of temporary files.
fn find(
    collected: &Collected,
    spill: fn(&Location) -> &Spill,
    finding: fn(&Location, &Spill) -> Finding,
) -> Option<Vec<Finding>> {
    if collected.requests < FEW {
        return None;
    }
    let locations = collected.locations.named().map(|(_, location)| location);
    let is_found = |location: &&Location| {
        let (count, all) = (spill(location).count, location.requests);
        count >= FEW && is_share(u128::from(count), u128::from(all), SHARE)
    };
    let found = locations.filter(is_found);
    Some(
        found
            .map(|location| finding(location, spill(location)))
            .collect(),
    )
}

/// Returns the sentence about the sizes of temporary files.
fn sizes(spill: &Spill) -> String {
    let all = u64::try_from(spill.bytes).unwrap_or(u64::MAX);
    format!("{} in all; the largest {}", size(all), size(spill.largest))
}

/// Returns the finding about bodies of requests.
fn of_request(location: &Location, spill: &Spill) -> Finding {
    Finding {
        rule: REQUEST.name,
        subject: location.subject(),
        title: format!(
            "{}: bodies of requests go to temporary files",
            location.subject()
        ),
        evidence: vec![
            format!(
                "{} with a temporary file",
                part_of(spill.count, location.requests, "request")
            ),
            sizes(spill),
        ],
        requests: Some(spill.count),
        failed: 0,
        lost_ns: None,
        advice: vec![
            "client_body_buffer_size (8k or 16k), if most bodies are little larger".to_owned(),
            "proxy_request_buffering off; if the upstream can read as slowly as clients send"
                .to_owned(),
            "client_body_temp_path on a fast disk or in memory".to_owned(),
        ],
        config: location.config.clone(),
    }
}

/// Returns the finding about responses.
fn of_response(location: &Location, spill: &Spill) -> Finding {
    let mut evidence = vec![
        format!(
            "{} with a temporary file",
            part_of(spill.count, location.requests, "request")
        ),
        sizes(spill),
    ];
    if spill.with_stall > 0 {
        evidence.push(format!(
            "of {} the client's socket was full meanwhile",
            count(spill.with_stall)
        ));
    }
    Finding {
        rule: RESPONSE.name,
        subject: location.subject(),
        title: format!("{}: responses go to temporary files", location.subject()),
        evidence,
        requests: Some(spill.count),
        failed: 0,
        lost_ns: None,
        advice: vec![
            "proxy_buffers (8 of 4k or 8k), if most responses are little larger".to_owned(),
            "proxy_max_temp_file_size 0; lets the upstream wait for the client instead".to_owned(),
            "proxy_temp_path on a fast disk or in memory".to_owned(),
        ],
        config: location.config.clone(),
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
