// SPDX-License-Identifier: MIT OR Apache-2.0
//! CPU time and memory of this process.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;

/// The resources that this process has used since it began, set-up included.
pub struct Usage {
    /// The CPU time of all threads.
    pub cpu: Duration,
    /// The resident memory now, in bytes.
    pub resident: u64,
}

impl Usage {
    /// Reads the usage from the kernel.
    pub fn read() -> Result<Self> {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(cpu).context("timestamp out of range")?;
        let pages = fs::read_to_string("/proc/self/statm").context("failed to read /proc/self")?;
        let pages = pages.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
        let resident = pages.context("no memory size in /proc/self/statm")?;
        Ok(Self {
            cpu,
            resident: resident * rustix::param::page_size() as u64,
        })
    }
}

/// A buffer of at least this many bytes is mapped, and goes back to the kernel when it is freed. Smaller ones
/// are used again.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 256 << 10;

/// The most free bytes that the allocator keeps at the end of a heap: those of the batches in flight.
#[cfg(target_env = "gnu")]
const FREE_BYTES_MAX: libc::c_int = 512 << 10;

/// Limits the freed memory that the allocator keeps, in each of its heaps. glibc would raise both limits with
/// the largest buffer that was freed: set-up frees some of several MiB.
pub fn limit_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, FREE_BYTES_MAX);
    }
}

/// Returns freed memory to the kernel: set-up takes ten times the memory of tracing, and the
/// allocator would keep it.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;

    /// Check that this process has used CPU time and memory.
    #[test]
    fn own_usage() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident > 1 << 16 && !usage.cpu.is_zero());
    }
}
