// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `/proc/PID/stat` says of a process.

use std::fs;

/// The field with the parent's pid, counted from the end of the name.
const PARENT: usize = 1;

/// The field with the kernel's flags of the process.
const FLAGS: usize = 6;

/// The field with the time at which the process was started.
const STARTED: usize = 19;

/// The kernel's `PF_FORKNOEXEC` (include/linux/sched.h): set by fork, and cleared by exec.
const FORKED: u32 = 0x40;

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// The pid of its parent; 0 when that is in another pid namespace.
    pub parent: u32,
    /// The time at which it was started, in the kernel's ticks.
    pub started: u64,
    /// True when it still runs the program of the process that forked it, so that it has the title of that one
    /// until it sets its own.
    pub is_fork: bool,
}

impl ProcessStat {
    /// Reads the fields. They are counted from the end of the name, which may contain any bytes. `None` when
    /// the process has ended.
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let flags: u32 = fields.get(FLAGS)?.parse().ok()?;
        Some(Self {
            parent: fields.get(PARENT)?.parse().ok()?,
            started: fields.get(STARTED)?.parse().ok()?,
            is_fork: flags & FORKED != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ProcessStat;

    /// Check this process: its parent is the one that the kernel names, and it was executed.
    #[test]
    fn own() {
        let stat = ProcessStat::read(std::process::id()).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(stat.started > 0 && !stat.is_fork, "{stat:?}");
    }

    /// Check a pid that no process has.
    #[test]
    fn no_process() {
        assert_eq!(ProcessStat::read(4_194_305), None);
    }
}
