// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that answers nothing, also where another one answers in its place.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::rule::Least;
use crate::advise::rule::Rule;
use crate::advise::rule::enough;
use crate::advise::rule::is_share;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::part_of;
use crate::advise::servers::Server;
use crate::units::count;
use crate::units::time;

/// The least number of attempts.
const TRIES: u64 = 5;

/// The least share of those without an answer, in percent.
const SILENT: u64 = 90;

/// The rule.
pub const RULE: Rule = Rule {
    name: "server_silent",
    about: "servers that answer nothing",
    description: "a server answers nothing, also where another one answers in its place",
    verb: "look",
    thresholds: &[
        least(
            Least::Count(TRIES),
            "attempts at the server",
            "with `fail_timeout=10s`, the default, a worker tries a dead server six times a minute",
        ),
        least(
            Least::Percent(SILENT),
            "of them without a byte of a response",
            "a server that is only slow, or restarts, answers more than one attempt in ten",
        ),
    ],
    page: include_str!("../../../../docs/advise/server_silent.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let tries = |server: &Server| server.answered + server.silent.count;
    let enough = enough(&collected.servers, |server| tries(server) >= TRIES)?;
    let is_silent = |server: &&Server| {
        let silent = u128::from(server.silent.count);
        is_share(silent, u128::from(tries(server)), SILENT)
    };
    let found = enough.into_iter().filter(is_silent);
    Some(found.map(finding).collect())
}

/// Returns the finding of a server.
fn finding(server: &Server) -> Finding {
    let silent = &server.silent;
    let tries = server.answered + silent.count;
    let mut kinds: Vec<_> = silent.failures.iter().collect();
    kinds.sort_by_key(|(_, count)| u64::MAX - **count);
    let kinds = kinds
        .iter()
        .map(|(failure, number)| format!("{failure} {}", count(**number)));
    let kinds = Vec::from_iter(kinds).join(", ");
    let mut evidence = vec![format!(
        "{} without an answer: {kinds}",
        part_of(silent.count, tries, "attempt")
    )];
    if silent.longest_ns > 0 {
        evidence.push(format!("the longest took {}", time(silent.longest_ns)));
    }
    let failed = silent.failed + silent.hidden;
    let otherwise = silent.requests.count.saturating_sub(failed);
    let ends = [
        (silent.failed, "failed by it"),
        (otherwise, "failed after it"),
        (silent.hidden, "answered otherwise"),
    ];
    let ends = ends.iter().filter(|(number, _)| *number > 0);
    let ends: Vec<_> = ends
        .map(|(number, how)| format!("{} {how}", count(*number)))
        .collect();
    evidence.push(format!("requests: {}", ends.join(", ")));
    Finding {
        rule: RULE.name,
        subject: server.addr.clone(),
        title: format!("{} answers nothing", server.name()),
        evidence,
        requests: Some(silent.requests.count),
        failed: silent.failed,
        lost_ns: lost(silent.lasted_ns),
        advice: vec![
            "is it up? does its port agree with `server` in the `upstream` block?".to_owned(),
            "max_fails= and fail_timeout= of `server`; proxy_connect_timeout; proxy_next_upstream_tries 2;".to_owned(),
        ],
        config: server.config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::Failure;

    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests of which the first attempt gets no answer, and the second one, if there is one, does.
    fn requests(number: u64, is_hidden: impl Fn(u64) -> bool) -> Vec<Sample> {
        (0..number)
            .map(|n| {
                let mut sample = Sample::at_ms(n).upstream("backend", "10.0.1.4:80", 1_000_000_000);
                if is_hidden(n) {
                    sample = sample.upstream("backend", "10.0.1.5:80", 2_000_000);
                } else {
                    sample.0.status = Some(504);
                }
                sample.fail(0, Failure::ConnectTimeout, 504);
                sample.attempt(0).reused = None;
                sample
            })
            .collect()
    }

    /// Check a server whose silence is seen, hidden, or both.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, requests(10, |n| n < 6));
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(finding.subject, "10.0.1.4:80");
        assert_eq!(finding.title, "10.0.1.4:80 (backend) answers nothing");
        assert_eq!(
            finding.evidence,
            [
                "10 of 10 attempts (100 %) without an answer: connect_timeout 10",
                "the longest took 1.00 s",
                "requests: 4 failed by it, 6 answered otherwise",
            ]
        );
        assert_eq!(
            (finding.requests, finding.failed, finding.lost_ns),
            (Some(10), 4, Some(10_000_000_000))
        );
        let hidden = found(RULE.name, requests(10, |_| true));
        assert_eq!(hidden[0].evidence[2], "requests: 10 answered otherwise");
        let seen = found(RULE.name, requests(10, |_| false));
        assert_eq!(seen[0].evidence[2], "requests: 10 failed by it");
    }

    /// Check that few attempts, and a server that answers one in nine, are no finding; nor is one whose clients left.
    #[test]
    fn silent() {
        assert!(found(RULE.name, requests(4, |_| true)).is_empty());
        let mut some = requests(9, |_| true);
        some.push(Sample::at_ms(0).upstream("backend", "10.0.1.4:80", 1));
        some.push(Sample::at_ms(0).upstream("backend", "10.0.1.4:80", 1));
        assert!(found(RULE.name, some).is_empty());
        let mut timeless = requests(6, |_| true);
        for n in 0..2 {
            let mut sample = Sample::at_ms(n).upstream("backend", "10.0.1.4:80", 1);
            sample.attempt(0).upstream_response_first_byte_time = None;
            timeless.push(sample);
        }
        assert!(found(RULE.name, timeless).is_empty());
        let mut left = requests(9, |_| false);
        for sample in &mut left {
            sample.fail(0, Failure::ClientClosed, 499);
        }
        assert!(found(RULE.name, left).is_empty());
    }
}
