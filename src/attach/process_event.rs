// SPDX-License-Identifier: MIT OR Apache-2.0
//! What BPF reports of traced processes.

use plain::Plain;

use crate::bpf::types;
use crate::bpf::types::process_event_kind;

// SAFETY: integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::process_event {}

/// What has become of a traced process.
#[derive(Clone, Copy, Debug)]
pub enum ProcessEvent {
    /// This pid has executed a program: it is the master of an upgrade, and may have ended.
    Executed(u32),
    /// This pid, a master's new child, could not be traced.
    Untraced(u32),
    /// It has ended.
    Ended(EndedProcess),
}

/// The end of a traced process: when (`CLOCK_MONOTONIC`, in nanoseconds), and in the container with which number.
pub type EndedProcess = types::process_event;

impl ProcessEvent {
    /// Reads what BPF has written. `None` when that is too short, or of an unknown kind.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut event = types::process_event::default();
        plain::copy_from_bytes(&mut event, bytes).ok()?;
        match process_event_kind(event.kind) {
            process_event_kind::PROCESS_EXECUTED => Some(Self::Executed(event.pid)),
            process_event_kind::PROCESS_UNTRACED => Some(Self::Untraced(event.pid)),
            process_event_kind::PROCESS_ENDED => Some(Self::Ended(event)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProcessEvent;
    use super::process_event_kind;
    use super::types;

    /// Returns the event of this kind that BPF writes.
    fn parse(kind: process_event_kind) -> Option<ProcessEvent> {
        let event = types::process_event {
            pid: 7,
            kind: kind.0,
            ended_ns: 8,
            container: 9,
            pad: 0,
        };
        // SAFETY: `event` is plain.
        let bytes = unsafe { plain::as_bytes(&event) };
        assert!(ProcessEvent::parse(&bytes[1..]).is_none());
        ProcessEvent::parse(bytes)
    }

    /// Check every kind of event, one of an unknown kind, and bytes that are not a whole event.
    #[test]
    fn process_events() {
        let executed = parse(process_event_kind::PROCESS_EXECUTED);
        assert!(matches!(executed, Some(ProcessEvent::Executed(7))));
        let untraced = parse(process_event_kind::PROCESS_UNTRACED);
        assert!(matches!(untraced, Some(ProcessEvent::Untraced(7))));
        let Some(ProcessEvent::Ended(ended)) = parse(process_event_kind::PROCESS_ENDED) else {
            panic!("not an event of an end");
        };
        assert_eq!((ended.pid, ended.ended_ns, ended.container), (7, 8, 9));
        assert!(parse(process_event_kind(99)).is_none());
    }
}
