// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often accept queues were full. The kernel counts it for each network namespace, in `/proc/PID/net/netstat`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;

/// The line of the counter, and its name: `TCP_MIB_LISTENOVERFLOWS` of the kernel's `net/ipv4/proc.c`.
const LINE: &str = "TcpExt:";
const NAME: &str = "ListenOverflows";

/// The most bytes of the file. It has 4 KiB, and kernels add to it.
const BYTES_MAX: usize = 1 << 16;

/// The counters of network namespaces, and what they were. The files stay open: nginx may end before the counters are
/// read again, and this process may be allowed less then.
#[derive(Debug)]
pub struct ListenOverflows(Vec<(File, u64)>);

impl ListenOverflows {
    /// Begins to count in the network namespaces of these processes. `None` when there are none, or when a counter
    /// can't be read.
    pub fn of(pids: &[u32]) -> Option<Self> {
        let mut counters = BTreeMap::new();
        for pid in pids {
            let file = File::open(format!("/proc/{pid}/net/netstat")).ok()?;
            /* Each namespace has an inode of its own. */
            let inode = file.metadata().ok()?.ino();
            let before = count(&file)?;
            counters.insert(inode, (file, before));
        }
        (!counters.is_empty()).then(|| Self(counters.into_values().collect()))
    }

    /// Returns how often a queue was full since then. `None` when a counter can't be read.
    pub fn since(&self) -> Option<u64> {
        let counts = self.0.iter();
        counts
            .map(|(file, before)| count(file)?.checked_sub(*before))
            .sum()
    }
}

/// Reads a counter. `None` when the file does not have it.
fn count(file: &File) -> Option<u64> {
    let text = read(file).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(LINE));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|name| name == NAME)?;
    values.split_whitespace().nth(place)?.parse().ok()
}

/// Reads the whole file from its beginning, as the kernel has it now.
fn read(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; BYTES_MAX];
    let mut length = 0;
    loop {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::ListenOverflows;
    use super::count;

    /// Check that processes of one namespace are counted once, and that an unknown process is no zero.
    #[test]
    fn namespaces() {
        let own = std::process::id();
        let counted = ListenOverflows::of(&[own, own]).unwrap();
        assert_eq!(counted.0.len(), 1);
        assert!(counted.since().is_some());
        assert!(ListenOverflows::of(&[]).is_none());
        assert!(ListenOverflows::of(&[own, u32::MAX]).is_none());
    }

    /// Check that the number is that of the name, wherever it stands, and is absent where it is not counted.
    #[test]
    fn lines() {
        let count = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            count(&file)
        };
        let text =
            "TcpExt: Other ListenOverflows ListenDrops\nTcpExt: 5 37 40\nIpExt: A\nIpExt: 1\n";
        assert_eq!(count(text), Some(37));
        assert_eq!(count("TcpExt: Other\nTcpExt: 5\n"), None);
        assert_eq!(count("TcpExt: Other ListenOverflows\nTcpExt: 5\n"), None);
        assert_eq!(count("TcpExt: ListenOverflows\n"), None);
        assert_eq!(count(""), None);
    }
}
