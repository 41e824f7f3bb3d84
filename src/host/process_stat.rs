// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `/proc/PID/stat` says of a process.

use std::fs;
use std::str::FromStr;

/// The field with the parent's pid, counted from the end of the name.
const PARENT: usize = 1;

/// The field with the kernel's flags of the process.
const FLAGS: usize = 6;

/// The field with the time at which the process was started.
const STARTED: usize = 19;

/// The kernel's `PF_FORKNOEXEC` (include/linux/sched.h): set by fork, and cleared by exec.
const FORKED: u32 = 0x40;

/// Returns the pid of the parent. `None` when the process has ended.
pub fn parent(pid: u32) -> Option<u32> {
    field(pid, PARENT)
}

/// Returns the time at which the process was started, in the kernel's ticks. `None` when it has ended.
pub fn started(pid: u32) -> Option<u64> {
    field(pid, STARTED)
}

/// Returns whether the process still runs the program of the one that forked it, so that it has the same
/// title until it sets its own. `None` when it has ended.
pub fn is_fork(pid: u32) -> Option<bool> {
    let flags: u32 = field(pid, FLAGS)?;
    Some(flags & FORKED != 0)
}

/// Reads a field. It is counted from the end of the name, which may contain any bytes.
fn field<T: FromStr>(pid: u32, index: usize) -> Option<T> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::is_fork;
    use super::parent;
    use super::started;

    /// Check that the parent of this process is the one that the kernel names.
    #[test]
    fn own_parent() {
        let expected = std::os::unix::process::parent_id();
        assert_eq!(parent(std::process::id()), Some(expected));
    }

    /// Check a pid that no process has.
    #[test]
    fn no_process() {
        assert_eq!(parent(4_194_305), None);
        assert_eq!(started(4_194_305), None);
        assert_eq!(is_fork(4_194_305), None);
    }
}
