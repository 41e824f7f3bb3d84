// SPDX-License-Identifier: MIT OR Apache-2.0
//! The epoll instances of processes.

use std::ffi::OsString;
use std::fs;
use std::io;

/// Returns the names of the descriptors of a process that are epoll instances.
///
/// Fails when its descriptors can't be listed.
pub fn epoll_instances(pid: u32) -> io::Result<impl Iterator<Item = OsString>> {
    let is_epoll = |entry: &fs::DirEntry| {
        let target = fs::read_link(entry.path());
        target.is_ok_and(|target| target.as_os_str() == "anon_inode:[eventpoll]")
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let instances = descriptors.flatten().filter(is_epoll);
    Ok(instances.map(|entry| entry.file_name()))
}
