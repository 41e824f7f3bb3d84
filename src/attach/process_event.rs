// SPDX-License-Identifier: MIT OR Apache-2.0
//! What BPF reports of traced processes.

use plain::Plain;

use crate::bpf::types;
use crate::bpf::types::process_event_kind;

// SAFETY: integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::process_event {}

/// What has become of a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// This pid has executed a program: it is the master of an upgrade, and may have ended.
    Executed(u32),
    /// This pid, a master's new child, could not be traced.
    Untraced(u32),
    /// It has ended.
    Ended(EndedProcess),
}

/// A traced process that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedProcess {
    pub pid: u32,
    /// When it ended: `CLOCK_MONOTONIC` in nanoseconds. 0: that was not seen.
    pub ended_ns: u64,
    /// The number of its container; 0: none.
    pub container: u32,
}

impl ProcessEvent {
    /// Reads what BPF has written. `None` when that is too short, or of an unknown kind.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut event = types::process_event::default();
        plain::copy_from_bytes(&mut event, bytes).ok()?;
        match process_event_kind(event.kind) {
            process_event_kind::PROCESS_EXECUTED => Some(Self::Executed(event.pid)),
            process_event_kind::PROCESS_UNTRACED => Some(Self::Untraced(event.pid)),
            process_event_kind::PROCESS_ENDED => Some(Self::Ended(EndedProcess {
                pid: event.pid,
                ended_ns: event.ended_ns,
                container: event.container,
            })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EndedProcess;
    use super::ProcessEvent;
    use super::process_event_kind;
    use super::types;

    /// Check every kind of event, one of an unknown kind, and bytes that are not a whole event.
    #[test]
    fn process_events() {
        let ended = EndedProcess {
            pid: 7,
            ended_ns: 8,
            container: 9,
        };
        for (kind, expected) in [
            (
                process_event_kind::PROCESS_EXECUTED,
                Some(ProcessEvent::Executed(7)),
            ),
            (
                process_event_kind::PROCESS_UNTRACED,
                Some(ProcessEvent::Untraced(7)),
            ),
            (
                process_event_kind::PROCESS_ENDED,
                Some(ProcessEvent::Ended(ended)),
            ),
            (process_event_kind(99), None),
        ] {
            let event = types::process_event {
                pid: 7,
                kind: kind.0,
                ended_ns: 8,
                container: 9,
                pad: 0,
            };
            // SAFETY: `event` is plain.
            let bytes = unsafe { plain::as_bytes(&event) };
            assert_eq!(ProcessEvent::parse(bytes), expected);
            assert_eq!(ProcessEvent::parse(&bytes[1..]), None);
        }
    }
}
