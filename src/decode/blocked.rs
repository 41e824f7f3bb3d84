// SPDX-License-Identifier: MIT OR Apache-2.0
//! Gives the record of a blocked worker its meaning.

use ngx_bpf_record::Blocked;
use ngx_bpf_record::values::BlockPart;
use plain::Plain;

use crate::bpf::types;
use crate::bpf::types::block_part;
use crate::decode::clock::Clock;
use crate::decode::nonzero;

// SAFETY: integers and arrays of integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::blocked_record {}

/// Returns what a record reports.
pub fn blocked(record: &types::blocked_record, clock: Clock) -> Blocked<'static> {
    let duration_ns = record.ended_ns.saturating_sub(record.began_ns);
    let off_cpu = [record.io_ns, record.runqueue_ns, record.sleep_ns];
    let off_cpu_ns = off_cpu.into_iter().fold(0, u64::saturating_add);
    let on_cpu_ns = duration_ns.checked_sub(off_cpu_ns);
    let waiters = &record.waiters;
    let longest = part(record.longest.part).filter(|_| record.longest.part_ns > 0);
    Blocked {
        time: clock.wall(record.began_ns).ok(),
        pid: record.pid,
        duration_ns,
        on_cpu_ns,
        io_ns: on_cpu_ns.map(|_| record.io_ns),
        runqueue_ns: on_cpu_ns.map(|_| record.runqueue_ns),
        sleep_ns: on_cpu_ns.map(|_| record.sleep_ns),
        longest_part: longest,
        longest_part_ns: longest.and(nonzero(record.longest.part_ns)),
        waiting_requests: waiters.requests,
        waiting_ns: nonzero(waiters.ns),
        waiting_max_ns: nonzero(waiters.max_ns),
        ..Blocked::default()
    }
}

/// Returns the name of a part.
fn part(part: u32) -> Option<BlockPart> {
    match block_part(part) {
        block_part::PART_CPU => Some(BlockPart::OnCpu),
        block_part::PART_IO => Some(BlockPart::Io),
        block_part::PART_RUNQUEUE => Some(BlockPart::Runqueue),
        block_part::PART_SLEEP => Some(BlockPart::Sleep),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::BlockPart;

    use super::blocked;
    use super::types;
    use super::types::block_part;
    use crate::decode::clock::Clock;

    /// Check that the four parts add up to the duration, and that they are absent where they can't.
    #[test]
    fn parts() {
        let mut record = types::blocked_record {
            began_ns: 1_000,
            ended_ns: 11_000,
            io_ns: 1_000,
            runqueue_ns: 2_000,
            sleep_ns: 3_000,
            ..Default::default()
        };
        record.longest.part = block_part::PART_SLEEP.0;
        record.longest.part_ns = 3_000;
        let found = blocked(&record, Clock::now());
        assert_eq!(found.duration_ns, 10_000);
        let parts = [found.on_cpu_ns, found.io_ns, found.runqueue_ns];
        assert_eq!(parts, [Some(4_000), Some(1_000), Some(2_000)]);
        assert_eq!(found.sleep_ns, Some(3_000));
        assert_eq!(found.longest_part, Some(BlockPart::Sleep));
        assert_eq!((found.waiting_requests, found.waiting_ns), (0, None));
        record.sleep_ns = u64::MAX;
        record.longest.part = u32::MAX;
        let found = blocked(&record, Clock::now());
        assert_eq!((found.on_cpu_ns, found.sleep_ns), (None, None));
        assert_eq!((found.longest_part, found.longest_part_ns), (None, None));
    }
}
