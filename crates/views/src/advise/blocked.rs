// SPDX-License-Identifier: MIT OR Apache-2.0
//! A worker that is blocked while requests wait for it, and by what.

use ngx_bpf_record::values::BlockPart;

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::rule::FEW;
use crate::advise::rule::Least;
use crate::advise::rule::NOTICED_FROM;
use crate::advise::rule::NOTICED_NS;
use crate::advise::rule::Rule;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::part_of;
use crate::advise::rule::spread;
use crate::advise::rule::total;
use crate::advise::workers::Place;
use crate::advise::workers::Worker;
use crate::units::counted;
use crate::units::time;

/// The least number of requests that waited.
const WAITED: u64 = 3;

/// The most places that are named.
const PLACES: usize = 3;

/// The rule.
pub const RULE: Rule = Rule {
    name: "worker_blocked",
    about: "blocked workers",
    description: "a worker does not come back to its event loop while requests wait for it",
    verb: "look",
    thresholds: &[
        least(
            Least::Count(WAITED),
            "requests that waited for the worker",
            "a single one may have met a reload or a pause of the machine",
        ),
        least(Least::Time(NOTICED_NS), "of waiting together", NOTICED_FROM),
    ],
    page: include_str!("../../../../docs/advise/worker_blocked.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let has_records = collected
        .workers
        .named()
        .any(|(_, worker)| worker.blocked > 0);
    if collected.requests < FEW && !has_records {
        return None;
    }
    let findings = collected.workers.named().filter_map(|(pid, worker)| {
        let is_found = |requests: u64, ns: u128| requests >= WAITED && ns >= u128::from(NOTICED_NS);
        if is_found(worker.waiting, worker.waiting_ns) {
            Some(with_records(pid, worker))
        } else if is_found(worker.waits.count(), worker.waits.sum_ns()) {
            Some(with_waits(pid, worker))
        } else {
            None
        }
    });
    Some(findings.collect())
}

/// Returns the finding of a worker of which there are `blocked` records.
fn with_records(pid: &str, worker: &Worker) -> Finding {
    let mut places: Vec<&Place> = worker.places.named().map(|(_, place)| place).collect();
    places.sort_by(|a, b| b.ns.cmp(&a.ns).then(a.functions.cmp(&b.functions)));
    let (longest, at) = &worker.longest;
    let at = at.as_ref().map(|at| format!(" at {at}"));
    let mut evidence = vec![
        format!(
            "{}, together {}; the longest {}{}",
            counted(worker.blocked, "time"),
            total(worker.blocked_ns),
            time(*longest),
            at.unwrap_or_default()
        ),
        format!(
            "{} waited for it, together {}; one of them {}",
            counted(worker.waiting, "request"),
            total(worker.waiting_ns),
            time(worker.waiting_max_ns)
        ),
    ];
    evidence.extend(
        places
            .iter()
            .take(PLACES)
            .filter_map(|place| describe(place)),
    );
    let part = places.first().and_then(|place| place.part);
    let by = part.map(|part| format!(": it {}", verb(part)));
    Finding {
        rule: RULE.name,
        subject: format!("worker {pid}"),
        title: format!("worker {pid} is blocked{}", by.unwrap_or_default()),
        evidence,
        requests: Some(worker.waiting),
        failed: 0,
        lost_ns: lost(worker.waiting_ns),
        advice: part.map_or_else(Vec::new, |part| vec![advice(part).to_owned()]),
        config: None,
    }
}

/// Returns the sentence about a place: what the worker did there, and where. `None` when it is not known what it did.
fn describe(place: &Place) -> Option<String> {
    let verb = verb(place.part?);
    let times = counted(place.count, "time");
    let mut text = format!("it {verb}: {} ({times})", total(place.ns));
    if !place.functions.is_empty() {
        text.push_str(", in ");
        text.push_str(&place.functions.join(" < "));
    }
    Some(text)
}

/// Returns the finding of a worker for which requests waited, without a record that says why.
fn with_waits(pid: &str, worker: &Worker) -> Finding {
    let waits = &worker.waits;
    Finding {
        rule: RULE.name,
        subject: format!("worker {pid}"),
        title: format!("worker {pid} lets requests wait"),
        evidence: vec![
            format!(
                "the bytes of {} lay in the socket until the worker came to them",
                part_of(waits.count(), worker.requests, "request")
            ),
            format!("together {}: {}", total(waits.sum_ns()), spread(waits)),
        ],
        requests: Some(waits.count()),
        failed: 0,
        lost_ns: lost(waits.sum_ns()),
        advice: vec!["trace with --blocked to see what it does meanwhile".to_owned()],
        config: None,
    }
}

/// Returns what a worker does in a part.
fn verb(part: BlockPart) -> &'static str {
    match part {
        BlockPart::OnCpu => "computes",
        BlockPart::Io => "waits in the kernel, mostly for a disk",
        BlockPart::Runqueue => "waits for a CPU",
        BlockPart::Sleep => "sleeps",
    }
}

/// Returns what to look at.
fn advice(part: BlockPart) -> &'static str {
    match part {
        BlockPart::OnCpu => {
            "what computes there: pcre_jit on; gzip_comp_level; certificates of RSA; lua or njs"
        }
        BlockPart::Io => {
            "aio threads; directio; a faster disk for proxy_cache_path and proxy_temp_path; buffer= of access_log"
        }
        BlockPart::Runqueue => {
            "worker_processes, worker_cpu_affinity and worker_priority; the limit of its cgroup; other programs"
        }
        BlockPart::Sleep => {
            "what waits there: access_log or error_log to a pipe; a module that calls something else"
        }
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Blocked;
    use ngx_bpf_record::Record;
    use ngx_bpf_record::values::BlockPart;

    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;
    use crate::advise::samples::found_in;

    /// Returns a record of a worker that read a file, and for which requests waited.
    fn blocked(waiting: u64, waiting_ns: u64) -> Record<'static> {
        let frames = |frames: &[&str]| frames.iter().map(|frame| (*frame).to_owned()).collect();
        Record::Blocked(Box::new(Blocked {
            time: Some("2026-11-26T21:04:03.511000000Z".to_owned()),
            pid: 5_876,
            duration_ns: 412_000_000,
            longest_part: Some(BlockPart::Io),
            longest_part_ns: Some(388_000_000),
            kernel_stack: frames(&["io_schedule+0x46", "folio_wait_bit_common+0x12b"]),
            user_stack: frames(&[
                "pread64+0x14 (libc.so.6)",
                "+0x7a (nginx)",
                "ngx_read_file+0x3c (nginx)",
            ]),
            waiting_requests: waiting,
            waiting_ns: (waiting_ns > 0).then_some(waiting_ns),
            waiting_max_ns: (waiting_ns > 0).then_some(198_000_000),
            ..Default::default()
        }))
    }

    /// Check a worker of which there are records.
    #[test]
    fn with_records() {
        let findings = found_in(RULE.name, &[blocked(97, 19_200_000_000), blocked(0, 0)]);
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(
            finding.title,
            "worker 5876 is blocked: it waits in the kernel, mostly for a disk"
        );
        assert_eq!(
            finding.evidence,
            [
                "2 times, together 824 ms; the longest 412 ms at 2026-11-26T21:04:03.511000000Z",
                "97 requests waited for it, together 19.2 s; one of them 198 ms",
                "it waits in the kernel, mostly for a disk: 776 ms (2 times), in folio_wait_bit_common (kernel) \
                 < pread64 (libc.so.6) < ngx_read_file (nginx)",
            ]
        );
        assert_eq!(
            (finding.requests, finding.lost_ns),
            (Some(97), Some(19_200_000_000))
        );
        assert!(finding.advice[0].starts_with("aio threads;"));
    }

    /// Check a worker of which only the waits of requests are known.
    #[test]
    fn with_waits() {
        let mut samples: Vec<_> = (0..100).map(Sample::at_ms).collect();
        for sample in &mut samples[..10] {
            sample.0.waits.read_wait_ns = Some(20_000_000);
        }
        samples[0].0.waits.upstream_read_wait_ns = Some(12_000_000);
        let findings = found(RULE.name, samples);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].title, "worker 100 lets requests wait");
        assert_eq!(
            findings[0].evidence,
            [
                "the bytes of 10 of 100 requests (10 %) lay in the socket until the worker came to them",
                "together 212 ms: p50 20.0 ms, p99 32.0 ms, max 32.0 ms",
            ]
        );
        assert_eq!(findings[0].lost_ns, Some(212_000_000));
    }

    /// Check that a blocked worker for which no request waited, two requests, and short waits are no finding.
    #[test]
    fn silent() {
        assert!(found_in(RULE.name, &[blocked(0, 0)]).is_empty());
        assert!(found_in(RULE.name, &[blocked(2, 900_000_000)]).is_empty());
        assert!(found_in(RULE.name, &[blocked(9, 99_000_000)]).is_empty());
        let mut samples: Vec<_> = (0..100).map(Sample::at_ms).collect();
        samples[0].0.waits.read_wait_ns = Some(2_000_000_000);
        assert!(found(RULE.name, samples).is_empty());
    }
}
