// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors of this process: their limit, and what they refer to.

use std::os::fd::AsFd;
use std::os::fd::AsRawFd as _;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::process::Resource;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// Raises the limit of open files to its maximum, since each layout takes about twenty, and each traced binary
/// some. If that is refused the limit stays, and opening more files than that fails later.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Returns a path that refers to the open file itself, even if its own path was changed or removed.
pub fn path_of(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// Returns whether the process of a pidfd has not ended.
pub fn is_process_alive(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
}
