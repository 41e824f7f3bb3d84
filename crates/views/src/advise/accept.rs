// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that wait for long to be accepted, and those that the kernel drops because the accept queue is full.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::listeners::LONG_NS;
use crate::advise::listeners::Listener;
use crate::advise::rule::Least;
use crate::advise::rule::MANY;
use crate::advise::rule::MANY_FROM;
use crate::advise::rule::NOTICED_FROM;
use crate::advise::rule::NOTICED_NS;
use crate::advise::rule::Rule;
use crate::advise::rule::SHARE;
use crate::advise::rule::SHARE_FROM;
use crate::advise::rule::enough;
use crate::advise::rule::is_share;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::part_of;
use crate::advise::rule::spread;
use crate::units::counted;
use crate::units::time;

/// Connections that wait for long.
pub const QUEUE: Rule = Rule {
    name: "accept_queue",
    about: "accept queues",
    description: "connections wait for long until a worker accepts them",
    verb: "look",
    thresholds: &[
        least(Least::Count(MANY), "connections at the listener", MANY_FROM),
        least(
            Least::Time(LONG_NS),
            "in the queue, which is a long wait",
            "an idle worker needs microseconds, and a busy one accepts after the events of one turn of its loop",
        ),
        least(
            Least::Percent(SHARE),
            "of the connections with a long wait",
            SHARE_FROM,
        ),
        least(
            Least::Time(NOTICED_NS),
            "of long waits together",
            NOTICED_FROM,
        ),
    ],
    page: include_str!("../../../../docs/advise/accept_queue.md"),
    find: find_waits,
};

/// Accept queues that were full.
pub const OVERFLOW: Rule = Rule {
    name: "listen_overflow",
    about: "overflows of accept queues",
    description: "an accept queue was full when connections came",
    verb: "look",
    thresholds: &[least(
        Least::Count(1),
        "connection that found an accept queue full",
        "each of these clients waits for a second or more until its kernel tries again",
    )],
    page: include_str!("../../../../docs/advise/listen_overflow.md"),
    find: find_overflows,
};

/// Returns the findings about long waits.
fn find_waits(collected: &Collected) -> Option<Vec<Finding>> {
    let rows = &collected.listeners.rows;
    let enough = enough(rows, |listener| listener.accept.count() >= MANY)?;
    let is_found = |listener: &&Listener| {
        let all = u128::from(listener.accept.count());
        is_share(u128::from(listener.long), all, SHARE)
            && listener.long_ns >= u128::from(NOTICED_NS)
    };
    let found = enough.into_iter().filter(is_found);
    Some(found.map(finding).collect())
}

/// Returns the finding of a listener.
fn finding(listener: &Listener) -> Finding {
    let waits = &listener.accept;
    Finding {
        rule: QUEUE.name,
        subject: listener.name.clone(),
        title: format!("connections to {} wait to be accepted", listener.name),
        evidence: vec![
            format!(
                "{} waited for {} or longer",
                part_of(listener.long, waits.count(), "connection"),
                time(LONG_NS)
            ),
            format!("all of them: {}", spread(waits)),
        ],
        requests: Some(listener.long),
        failed: 0,
        lost_ns: lost(listener.long_ns),
        advice: vec![
            "are workers blocked, or short of CPU? worker_processes auto;".to_owned(),
            "reuseport of `listen`: a queue for each worker; multi_accept on;".to_owned(),
            "backlog= of `listen` (511) and net.core.somaxconn, if connections come in bursts"
                .to_owned(),
        ],
        config: None,
    }
}

/// Returns the finding about queues that were full.
fn find_overflows(collected: &Collected) -> Option<Vec<Finding>> {
    let count = collected.listen_overflows?;
    let finding = || Finding {
        rule: OVERFLOW.name,
        subject: "accept queues".to_owned(),
        title: "an accept queue was full".to_owned(),
        evidence: vec![format!(
            "the kernel dropped {}, since a queue had no room (ListenOverflows)",
            counted(count, "connection attempt")
        )],
        requests: None,
        failed: 0,
        lost_ns: None,
        advice: vec![
            "backlog= of `listen` (511), and net.core.somaxconn, which limits it".to_owned(),
            "are workers blocked, or short of CPU? worker_processes auto;".to_owned(),
        ],
        config: None,
    };
    Some(if count > 0 {
        vec![finding()]
    } else {
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Connection;
    use ngx_bpf_record::Record;

    use super::OVERFLOW;
    use super::QUEUE;
    use crate::advise::Advisor;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;
    use crate::advise::samples::found_in;

    /// Returns requests on connections of their own, of which the first ones waited for `ns`.
    fn requests(number: u64, long: u64, ns: u64) -> Vec<Sample> {
        (0..number)
            .map(|n| {
                let mut sample = Sample::at_ms(n);
                sample.0.waits.accept_queue_ns = Some(if n < long { ns } else { 50_000 });
                sample
            })
            .collect()
    }

    /// Check long waits, also of connections without a request.
    #[test]
    fn provoked() {
        let findings = found(QUEUE.name, requests(200, 10, 20_000_000));
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(
            finding.title,
            "connections to 10.0.0.1:443 wait to be accepted"
        );
        assert_eq!(
            finding.evidence,
            [
                "10 of 200 connections (5.0 %) waited for 10.0 ms or longer",
                "all of them: p50 50.2 us, p99 20.0 ms, max 20.0 ms",
            ]
        );
        assert_eq!(
            (finding.requests, finding.lost_ns),
            (Some(10), Some(200_000_000))
        );
        let connection = Connection {
            server_addr: Some("::1".into()),
            server_port: Some(80),
            accept_queue_ns: Some(20_000_000),
            ..Default::default()
        };
        let records = vec![Record::Connection(Box::new(connection)); 100];
        let findings = found_in(QUEUE.name, &records);
        assert_eq!(findings[0].subject, "[::1]:80");
    }

    /// Check that few connections, few long waits and short ones are no finding.
    #[test]
    fn silent() {
        assert!(found(QUEUE.name, requests(99, 99, 20_000_000)).is_empty());
        assert!(found(QUEUE.name, requests(2_000, 10, 20_000_000)).is_empty());
        assert!(found(QUEUE.name, requests(200, 200, 9_000_000)).is_empty());
        assert!(found(QUEUE.name, requests(200, 5, 11_000_000)).is_empty());
    }

    /// Check that overflows are a finding if there were some, and are not looked at where they are not known.
    #[test]
    fn overflows() {
        let mut advisor = Advisor::new();
        assert!(!advisor.fine().contains(&OVERFLOW.about));
        advisor.set_listen_overflows(0);
        assert!(advisor.findings().is_empty());
        assert!(advisor.fine().contains(&OVERFLOW.about));
        advisor.set_listen_overflows(37);
        let findings = advisor.findings();
        assert_eq!(findings[0].rule, OVERFLOW.name);
        assert_eq!(
            findings[0].evidence,
            [
                "the kernel dropped 37 connection attempts, since a queue had no room (ListenOverflows)"
            ]
        );
        assert_eq!((findings[0].requests, findings[0].lost_ns), (None, None));
    }
}
