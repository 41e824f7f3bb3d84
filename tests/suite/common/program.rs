// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that a test writes, runs and ends.

use super::wait_right;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Copies a program that is then run at once. Another process makes the copy: a process that
/// another test starts meanwhile would inherit the descriptor that is open for writing, and as long
/// as that is open, the copy can't be run ("text file busy").
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {} {}", from.display(), to.display());
    open_to_all(to);
}

/// Writes a program that is then run at once.
pub fn write_program(to: &Path, content: &[u8]) {
    let written = to.with_extension("written");
    fs::write(&written, content).unwrap();
    copy_program(&written, to);
}

/// Sends a signal, by its name.
pub fn kill(name: &str, pid: u32) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// Stops a process. A busy machine may let it run for a while after the signal, and SIGCONT takes back a stop that has
/// not happened.
pub fn stop(pid: u32) {
    kill("STOP", pid);
    wait_stopped(pid);
}

/// Waits until a process is stopped, by a signal or by whoever traces it.
pub fn wait_stopped(pid: u32) {
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    wait_right(status, |status| {
        status.contains("\nState:\tT") || status.contains("\nState:\tt")
    });
}

/// Returns the pids of the children of a process. There are none when it has ended.
pub fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Lets every user read a file or a folder.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

/// Makes a FIFO.
pub fn make_fifo(path: &Path) {
    let status = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success(), "mkfifo {}", path.display());
}
