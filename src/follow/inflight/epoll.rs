// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connections of a worker, as the kernel knows them: nginx registers the address of each
//! `ngx_connection_t` with epoll, and the kernel shows it (`fdinfo`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

use crate::host::epoll_instances::epoll_instances;

/// The most bytes of one list that are read. A line has some 90 bytes: these are 370,000 descriptors.
const LIST_BYTES_MAX: u64 = 32 << 20;

/// The most epoll instances of a process that are read. A worker of nginx has one.
const INSTANCES_MAX: usize = 8;

/// Returns the addresses that a process has registered with epoll. Bit 0 is nginx's instance bit.
///
/// Fails when the descriptors of the process can't be listed, or when it does not use epoll.
pub fn registered(pid: u32) -> Result<BTreeSet<u64>> {
    let instances: Vec<_> = epoll_instances(pid)
        .with_context(|| format!("failed to list the sockets of pid {pid}"))?
        .take(INSTANCES_MAX)
        .collect();
    ensure!(
        !instances.is_empty(),
        "the requests of pid {pid} can't be listed: it does not use epoll"
    );
    let mut addresses = BTreeSet::new();
    for instance in instances {
        let path = format!("/proc/{pid}/fdinfo/{}", instance.display());
        let mut list = String::new();
        let read =
            File::open(path).and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut list));
        read.with_context(|| format!("failed to list the sockets of pid {pid}"))?;
        addresses.extend(list.lines().filter_map(address).map(|address| address & !1));
    }
    Ok(addresses)
}

/// Returns the address in a line of a list.
fn address(line: &str) -> Option<u64> {
    let (_, data) = line.strip_prefix("tfd:")?.split_once("data:")?;
    u64::from_str_radix(data.split_whitespace().next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::address;

    /// Check a line of the kernel's `ep_show_fdinfo()`, and other lines.
    #[test]
    fn lines() {
        let line = "tfd:        8 events: 80002019 data:     7f5c08a1b1e9  pos:0 ino:1e1bd sdev:8";
        assert_eq!(address(line), Some(0x7f5c_08a1_b1e9));
        for other in [
            "pos:\t0",
            "flags:\t02000002",
            "tfd: 8 events: 19 data: x",
            "tfd: data:",
            "",
        ] {
            assert_eq!(address(other), None, "{other}");
        }
    }
}
