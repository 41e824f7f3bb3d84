// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kept connections that the server closes while nginx sends a request on them.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::rule::FEW;
use crate::advise::rule::Least;
use crate::advise::rule::Rule;
use crate::advise::rule::is_share;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::servers::Closed;
use crate::advise::servers::Server;
use crate::units::counted;
use crate::units::time;

/// The least number of attempts that failed.
const CLOSED: u64 = 3;

/// The least share of them that has to agree, in percent.
const AGREE: u64 = 80;

/// How far idle times may differ, in percent of the shortest of them.
const BAND: u64 = 10;

/// The least number of responses on kept connections, where all of them had been idle for less than those that failed.
const ANSWERED: u64 = 10;

/// The rule.
pub const RULE: Rule = Rule {
    name: "keepalive_race",
    about: "keep-alive races",
    description: "a server closes kept connections while nginx sends the next request on them",
    verb: "needs",
    thresholds: &[
        least(
            Least::Count(CLOSED),
            "attempts on kept connections that were closed or reset before a byte of the response came",
            "two that agree may be chance",
        ),
        least(
            Least::Percent(AGREE),
            "of them after the same idle time (within 10 %), or as the same request of the connection",
            "a server's timer is that exact; a server that crashes or restarts closes connections of any age",
        ),
        least(
            Least::Count(ANSWERED),
            "responses on kept connections, in place of that share, if all failures had been idle for longer",
            "that the three longest of thirteen pauses are just the three failures is chance once in 286 times",
        ),
    ],
    page: include_str!("../../../../docs/advise/keepalive_race.md"),
    find,
};

/// What connections that were closed have in common.
enum Common {
    /// They had been idle for as long: from, to, and how many of them.
    Idle(u64, u64, usize),
    /// They had had as many requests: how many, and of how many of them.
    Requests(u64, usize),
}

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let servers = || collected.servers.named().map(|(_, server)| server);
    let kept: u64 = servers().map(|server| server.known - server.new).sum();
    let found: Vec<Finding> = servers().filter_map(finding).collect();
    (kept >= FEW || !found.is_empty()).then_some(found)
}

/// Returns the finding of a server.
fn finding(server: &Server) -> Option<Finding> {
    if server.closed_count < CLOSED {
        return None;
    }
    let common = common(server)?;
    let failed = server
        .closed
        .iter()
        .filter(|closed| closed.has_failed)
        .count() as u64;
    let lasted = server
        .closed
        .iter()
        .map(|closed| u128::from(closed.lasted_ns))
        .sum();
    let mut evidence = vec![format!(
        "{} on kept connections: closed or reset before a byte of the response came",
        counted(server.closed_count, "attempt")
    )];
    evidence.extend(common.sentences(server));
    let retried = server.closed.iter().filter(|closed| closed.is_retried);
    let retried = retried.count();
    evidence.push(format!(
        "{failed} of these requests failed by it, {retried} were tried again"
    ));
    Some(Finding {
        rule: RULE.name,
        subject: server.addr.clone(),
        title: format!(
            "{} closes kept connections too early for nginx",
            server.name()
        ),
        evidence,
        requests: Some(server.closed_requests.count),
        failed,
        lost_ns: lost(lasted),
        advice: vec![common.advice()],
        config: server.config.clone(),
    })
}

impl Common {
    /// Returns the sentences about it.
    fn sentences(&self, server: &Server) -> Vec<String> {
        match self {
            Self::Idle(from, to, agree) => {
                let mut sentences = vec![format!(
                    "{agree} of them after {} to {} without a request",
                    time(*from),
                    time(*to)
                )];
                if server.idle_known > 0 {
                    let longest = time(server.idle_max_ns);
                    sentences.push(format!(
                        "no response came after more than {longest} of that"
                    ));
                }
                sentences
            }
            Self::Requests(nth, agree) => {
                vec![format!(
                    "{agree} of them as request {nth} of their connection"
                )]
            }
        }
    }

    /// Returns what ends it.
    fn advice(&self) -> String {
        match self {
            Self::Idle(from, ..) => format!(
                "keepalive_timeout in the `upstream` block: less than {}, or a longer limit in the server",
                time(*from)
            ),
            Self::Requests(nth, _) => format!(
                "keepalive_requests {}; in the `upstream` block, or no such limit in the server",
                nth - 1
            ),
        }
    }
}

/// Returns what the closed connections of a server have in common. `None` when that is nothing.
fn common(server: &Server) -> Option<Common> {
    let closed = &server.closed;
    let is_enough = |agree: usize| {
        agree as u64 >= CLOSED && is_share(agree as u128, closed.len() as u128, AGREE)
    };
    let of = |value: fn(&Closed) -> Option<u64>| {
        let mut values: Vec<u64> = closed.iter().filter_map(value).collect();
        values.sort_unstable();
        values
    };
    let idle = of(|closed| closed.idle_ns);
    if let [shortest, .., longest] = idle.as_slice()
        && idle.len() == closed.len()
        && *shortest > server.idle_max_ns
        && server.idle_known >= ANSWERED
    {
        return Some(Common::Idle(*shortest, *longest, idle.len()));
    }
    let (from, agree) = densest(&idle, |from| from.saturating_add(from / 100 * BAND));
    if is_enough(agree) {
        let to = idle[from + agree - 1];
        /* Where responses came after much longer pauses, these were not closed because of the pause. */
        let longest = to.saturating_add(to / 100 * BAND);
        if server.idle_max_ns <= longest {
            return Some(Common::Idle(idle[from], to, agree));
        }
    }
    let nth = of(|closed| closed.nth.filter(|nth| *nth > 1));
    let (from, agree) = densest(&nth, |nth| nth);
    is_enough(agree).then(|| Common::Requests(nth[from], agree))
}

/// Returns where most of these sorted values lie within a band, whose end follows from its begin: the place of the
/// first of them, and their number.
pub(super) fn densest(values: &[u64], end: impl Fn(u64) -> u64) -> (usize, usize) {
    let counts = values.iter().enumerate().map(|(from, value)| {
        let last = end(*value);
        (from, values.partition_point(|value| *value <= last) - from)
    });
    counts
        .max_by_key(|(from, count)| (*count, usize::MAX - from))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::Failure;

    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests on kept connections, each with its idle time and whether the connection was closed.
    fn requests(of: &[(u64, bool)]) -> Vec<Sample> {
        let sample = |(n, (idle, is_closed)): (usize, &(u64, bool))| {
            let mut sample = Sample::at_ms(n as u64 * 10).upstream("app", "10.0.2.9:80", 300_000);
            sample.attempt(0).reused_idle_ns = Some(*idle);
            sample.attempt(0).connection_requests = Some(n as u64 + 2);
            if *is_closed {
                sample.fail(0, Failure::Closed, 502);
                sample.0.status = Some(502);
            }
            sample
        };
        of.iter().enumerate().map(sample).collect()
    }

    const SECOND: u64 = 1_000_000_000;

    /// Check connections that are closed after the same time.
    #[test]
    fn idle() {
        let mut of = vec![(10 * SECOND, false); 20];
        of.extend([
            (60 * SECOND, true),
            (59_800_000_000, true),
            (60_100_000_000, true),
        ]);
        let findings = found(RULE.name, requests(&of));
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(
            finding.title,
            "10.0.2.9:80 (app) closes kept connections too early for nginx"
        );
        assert_eq!(
            finding.evidence,
            [
                "3 attempts on kept connections: closed or reset before a byte of the response came",
                "3 of them after 59.8 s to 60.1 s without a request",
                "no response came after more than 10.0 s of that",
                "3 of these requests failed by it, 0 were tried again",
            ]
        );
        assert_eq!(
            (finding.requests, finding.failed, finding.lost_ns),
            (Some(3), 3, Some(900_000))
        );
        assert!(finding.advice[0].contains("less than 59.8 s"));
    }

    /// Check connections that are closed after different times, all of them longer than those of responses.
    #[test]
    fn longer() {
        let mut of = vec![(SECOND, false); 10];
        of.extend([(5 * SECOND, true), (9 * SECOND, true), (70 * SECOND, true)]);
        let findings = found(RULE.name, requests(&of));
        assert_eq!(
            findings[0].evidence[1],
            "3 of them after 5.00 s to 70.0 s without a request"
        );
        assert!(found(RULE.name, requests(&of[1..])).is_empty());
    }

    /// Check connections that are closed after the same number of requests.
    #[test]
    fn limit_of_requests() {
        let mut samples = requests(&[(SECOND, true), (5 * SECOND, true), (90 * SECOND, true)]);
        for sample in &mut samples {
            sample.attempt(0).connection_requests = Some(100);
        }
        let findings = found(RULE.name, samples);
        assert_eq!(
            findings[0].evidence[1],
            "3 of them as request 100 of their connection"
        );
        assert!(findings[0].advice[0].starts_with("keepalive_requests 99;"));
    }

    /// Check that two, that ends without anything in common, and that ends although others were idle for longer are no
    /// finding.
    #[test]
    fn silent() {
        let closed = |idle: &[u64]| Vec::from_iter(idle.iter().map(|s| (s * SECOND, true)));
        assert!(found(RULE.name, requests(&closed(&[60, 60]))).is_empty());
        assert!(found(RULE.name, requests(&closed(&[1, 5, 90, 30]))).is_empty());
        let mut longer = closed(&[60, 60, 60, 60]);
        longer.push((100 * SECOND, false));
        assert!(found(RULE.name, requests(&longer)).is_empty());
    }
}
