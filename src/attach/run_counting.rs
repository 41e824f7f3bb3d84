// SPDX-License-Identifier: MIT OR Apache-2.0
//! The count of the runs of BPF programs, which the kernel keeps only while it is asked for.

use std::io;
use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::libbpf_sys;

/// Makes the kernel count the runs of all BPF programs, and their time, until the descriptor is
/// closed. Each run then reads the clock twice.
///
/// Fails without CAP_SYS_ADMIN.
pub fn start() -> Result<OwnedFd> {
    // SAFETY: takes a number, returns a descriptor or an error.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd)).context(
            "failed to enable the kernel's count of BPF runs (--self-stats needs CAP_SYS_ADMIN)",
        );
    }
    // SAFETY: just opened, and owned by no one else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
