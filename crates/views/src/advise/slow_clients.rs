// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that take their responses slowly, and hold nginx's buffers meanwhile.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::locations::Location;
use crate::advise::locations::STALLED;
use crate::advise::rule::FEW;
use crate::advise::rule::FEW_FROM;
use crate::advise::rule::Least;
use crate::advise::rule::Rule;
use crate::advise::rule::SHARE;
use crate::advise::rule::SHARE_FROM;
use crate::advise::rule::in_locations;
use crate::advise::rule::least;
use crate::advise::rule::part_of;
use crate::advise::rule::spread;
use crate::advise::rule::total;
use crate::units::count;

/// The least sum of times.
const HELD_NS: u64 = 1_000_000_000;

/// The rule.
pub const RULE: Rule = Rule {
    name: "slow_clients",
    about: "slow clients",
    description: "clients take their responses slowly, and hold buffers meanwhile",
    verb: "look",
    thresholds: &[
        least(
            Least::Count(FEW),
            "requests of the location whose client was slow",
            FEW_FROM,
        ),
        least(
            Least::Percent(STALLED as u64),
            "of the time of such a request with a full socket, or a temporary file",
            "below that it is not mostly the client that the request waits for",
        ),
        least(
            Least::Percent(SHARE),
            "of the requests of the location",
            SHARE_FROM,
        ),
        least(
            Least::Time(HELD_NS),
            "of full sockets together",
            "buffers that are held for less are soon free again",
        ),
    ],
    page: include_str!("../../../../docs/advise/slow_clients.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let slow = |location: &Location| location.stalled.times.count();
    in_locations(collected, slow, |location| {
        let sum_ns = location.stalled.times.sum_ns();
        (sum_ns >= u128::from(HELD_NS)).then(|| finding(location))
    })
}

/// Returns the finding of a location. The time is not one that nginx could save: none is lost.
fn finding(location: &Location) -> Finding {
    let stalled = &location.stalled;
    let slow = &stalled.times;
    let mut evidence = vec![
        format!(
            "{} to slow clients; their sockets were full for {} together",
            part_of(slow.count(), location.requests, "response"),
            total(slow.sum_ns())
        ),
        format!("of one: {}", spread(slow)),
    ];
    for (number, held) in [
        (stalled.with_file, "held a temporary file"),
        (stalled.with_upstream, "held a connection to the upstream"),
    ] {
        if number > 0 {
            evidence.push(format!("{} of them {held}", count(number)));
        }
    }
    Finding {
        rule: RULE.name,
        title: format!("{}: slow clients hold buffers", location.subject()),
        evidence,
        advice: vec![
            "smaller responses: gzip on; expires; sizes of images".to_owned(),
            "proxy_buffering on; where an upstream's connection is held".to_owned(),
            "send_timeout, which ends a client that takes nothing at all".to_owned(),
        ],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests of which some have a full socket for a part of their second.
    fn requests(number: u64, slow: u64, stall_ns: u64) -> Vec<Sample> {
        (0..number)
            .map(|n| {
                let mut sample = Sample::at_ms(n).upstream("app", "10.0.1.5:80", 1_000_000);
                if n < slow {
                    sample.set_elapsed(1_000_000_000);
                    sample.0.phases.downstream_response_first_byte_time = Some(2_000_000);
                    sample.0.phases.upstream_response_last_byte_time = Some(900_000_000);
                    sample.0.waits.client_stall_ns = Some(stall_ns);
                    sample.0.waits.response_temp_file_bytes = (n == 0).then_some(5);
                }
                sample
            })
            .collect()
    }

    /// Check slow clients.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, requests(400, 40, 800_000_000));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].title,
            "/api/ of shop.example: slow clients hold buffers"
        );
        assert_eq!(
            findings[0].evidence,
            [
                "40 of 400 responses (10 %) to slow clients; their sockets were full for 32.0 s together",
                "of one: p50 800 ms, p99 800 ms, max 800 ms",
                "1 of them held a temporary file",
                "40 of them held a connection to the upstream",
            ]
        );
        assert_eq!(
            (findings[0].requests, findings[0].lost_ns),
            (Some(40), None)
        );
    }

    /// Check that few, rare and short stalls are no finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, requests(400, 19, 800_000_000)).is_empty());
        assert!(found(RULE.name, requests(4_001, 40, 800_000_000)).is_empty());
        assert!(found(RULE.name, requests(400, 40, 400_000_000)).is_empty());
    }
}
