// SPDX-License-Identifier: MIT OR Apache-2.0
//! The pid namespace of this process, which all pids refer to.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

/// Returns the inode of the pid namespace, by which BPF recognizes it.
pub fn own_inode() -> Result<u32> {
    let metadata = fs::metadata("/proc/self/ns/pid").context("failed to read the pid namespace")?;
    u32::try_from(metadata.ino()).context("failed to read the pid namespace")
}

/// Fails when `/proc` shows the pids of another namespace than that of this process, since the
/// kernel would take them for other processes.
pub fn ensure_proc_is_own() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    /* One pid for each namespace, from that of /proc down to this process's. */
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ensure!(
        pids.is_some_and(|pids| pids.split_whitespace().count() == 1),
        "/proc is of another pid namespace: mount this one's, as \"unshare --mount-proc\" does"
    );
    Ok(())
}
