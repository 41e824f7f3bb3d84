// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers of one listener of which one has far more to do than the others.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::listeners::Listener;
use crate::advise::listeners::Share;
use crate::advise::rule::Least;
use crate::advise::rule::NOTICED_FROM;
use crate::advise::rule::NOTICED_NS;
use crate::advise::rule::Rule;
use crate::advise::rule::enough;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::total;
use crate::units::count;
use crate::units::counted;
use crate::units::significant;

/// The least number of requests at the listener.
const REQUESTS: u64 = 1_000;

/// How many times as much one worker must have as the others on average.
const RATIO: u64 = 4;

/// The rule.
pub const RULE: Rule = Rule {
    name: "workers_unbalanced",
    about: "the balance of workers",
    description: "one worker of a listener has far more requests than the others, and they wait for it",
    verb: "look",
    thresholds: &[
        least(
            Least::Count(REQUESTS),
            "requests at the listener, of two workers or more",
            "a few connections with many requests each may fall to one worker by chance",
        ),
        least(
            Least::Ratio(RATIO),
            "the requests of the other workers on average, or their connections",
            "workers that were seen during half of the same time differ by 2 without any imbalance",
        ),
        least(
            Least::Time(NOTICED_NS),
            "of waiting for this worker together, and more of it than of the others",
            NOTICED_FROM,
        ),
    ],
    page: include_str!("../../../../docs/advise/workers_unbalanced.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let enough = enough(&collected.listeners.rows, |listener| {
        let requests = listener.workers.values().map(|share| share.requests);
        listener.workers.len() > 1 && requests.sum::<u64>() >= REQUESTS
    })?;
    Some(enough.into_iter().filter_map(finding).collect())
}

/// Returns the finding of a listener.
fn finding(listener: &Listener) -> Option<Finding> {
    let (pid, busiest) = listener
        .workers
        .iter()
        .max_by_key(|(_, share)| share.requests)?;
    let others: Vec<(&u32, &Share)> = listener
        .workers
        .iter()
        .filter(|(other, share)| *other != pid && is_at_same_time(busiest, share))
        .collect();
    let number = others.len() as u64;
    let sum = |of: fn(&Share) -> u64| others.iter().map(|(_, share)| of(share)).sum::<u64>();
    let (requests, connections) = (sum(|share| share.requests), sum(|share| share.connections));
    let is_more = |own: u64, others: u64| own * number >= others * RATIO;
    let is_unequal = is_more(busiest.requests, requests)
        || (busiest.connections > 0 && is_more(busiest.connections, connections));
    let waited = others
        .iter()
        .map(|(_, share)| share.waited_ns)
        .max()
        .unwrap_or_default();
    if number == 0
        || !is_unequal
        || busiest.waited_ns < u128::from(NOTICED_NS)
        || busiest.waited_ns <= waited
    {
        return None;
    }
    Some(Finding {
        rule: RULE.name,
        subject: format!("worker {pid}"),
        title: format!("worker {pid} has most of the load of {}", listener.name),
        evidence: evidence(busiest, number, requests, connections, waited),
        requests: Some(busiest.waited),
        failed: 0,
        lost_ns: lost(busiest.waited_ns),
        advice: vec![
            "reuseport of `listen`, which divides connections among workers".to_owned(),
            "accept_mutex off; multi_accept off;".to_owned(),
            "keepalive_requests, where few clients have connections with many requests".to_owned(),
        ],
        config: None,
    })
}

/// Returns the sentences about the busiest worker and the others: their number, their requests and connections
/// together, and the longest time that requests waited for one of them.
fn evidence(
    busiest: &Share,
    number: u64,
    requests: u64,
    connections: u64,
    waited: u128,
) -> Vec<String> {
    let average = |sum: u64| significant(sum as f64 / number as f64);
    let of_others = match waited {
        0 => "no request waited for the others".to_owned(),
        ns => format!("for each of the others {} at most", total(ns)),
    };
    vec![
        format!(
            "{} on {}; {} of the same time: {} and {} on average",
            counted(busiest.requests, "request"),
            counted(busiest.connections, "new connection"),
            counted(number, "other worker"),
            average(requests),
            average(connections)
        ),
        format!(
            "{} waited for it, together {}; {of_others}",
            count(busiest.waited),
            total(busiest.waited_ns)
        ),
    ]
}

/// Returns whether two workers were there at the same time, for half of the time of both at least: after a reload there
/// are new ones.
fn is_at_same_time(one: &Share, other: &Share) -> bool {
    let (Some((from, to)), Some((since, until))) = (one.seen, other.seen) else {
        return false;
    };
    let both = to.min(until).saturating_sub(from.max(since));
    let all = to.max(until) - from.min(since);
    both.saturating_mul(2) >= all
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests of four workers. The first has `share` percent of them, and lets one in ten wait for `wait_ns`.
    fn requests(share: u64, wait_ns: u64) -> Vec<Sample> {
        (0..2_000)
            .map(|n| {
                let mut sample = Sample::at_ms(n * 10);
                let place = n * 37 % 100;
                sample.0.pid = if place < share {
                    10
                } else {
                    11 + (n % 3) as u32
                };
                sample.0.connection_requests = Some(1 + n % 4);
                if sample.0.pid == 10 && n.is_multiple_of(10) && wait_ns > 0 {
                    sample.0.waits.read_wait_ns = Some(wait_ns);
                }
                sample
            })
            .collect()
    }

    /// Check a worker that has most requests, and lets them wait.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, requests(70, 20_000_000));
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(
            finding.title,
            "worker 10 has most of the load of 10.0.0.1:443"
        );
        assert_eq!(
            finding.evidence,
            [
                "1,400 requests on 360 new connections; 3 other workers of the same time: 200 and 46.7 on average",
                "140 waited for it, together 2.80 s; no request waited for the others",
            ]
        );
        assert_eq!(
            (finding.requests, finding.lost_ns),
            (Some(140), Some(2_800_000_000))
        );
    }

    /// Check that equal workers, unequal ones for which no request waits, and those of before and after a reload are no
    /// finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, requests(25, 20_000_000)).is_empty());
        assert!(found(RULE.name, requests(70, 0)).is_empty());
        let mut reloaded = requests(70, 20_000_000);
        reloaded.sort_by_key(|sample| sample.0.pid);
        for (n, sample) in reloaded.iter_mut().enumerate() {
            sample.set_time_ms(n as u64 * 10);
        }
        assert!(found(RULE.name, reloaded).is_empty());
    }
}
