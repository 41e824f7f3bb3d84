// SPDX-License-Identifier: MIT OR Apache-2.0
//! The counters of the BPF programs, which any thread may read while BPF updates them.

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::ptr;
use std::ptr::NonNull;

use anyhow::Context as _;
use anyhow::Result;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;

use crate::bpf::types;

/// The mapped memory of the global variables. It may outlive the object. Reading it takes no system
/// call: before Linux 5.19 `bpf(2)` may need `CAP_BPF` for that, which most threads do not have.
pub struct CounterMap(NonNull<types::bss>);

// SAFETY: the memory is only read, and BPF updates each counter at once.
unsafe impl Send for CounterMap {}
// SAFETY: as above.
unsafe impl Sync for CounterMap {}

impl CounterMap {
    /// Maps the global variables of an object.
    pub(super) fn map(variables: impl AsFd) -> Result<Self> {
        let (size, flags) = (size_of::<types::bss>(), MapFlags::SHARED);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let mapping = unsafe {
            rustix::mm::mmap(ptr::null_mut(), size, ProtFlags::READ, flags, variables, 0)
        };
        let mapping = NonNull::new(mapping.context("failed to map the counters")?.cast());
        mapping.map(Self).context("failed to map the counters")
    }

    /// Reads all counters at once. Each may be an increment ahead of the others.
    pub fn read(&self) -> types::counters {
        // SAFETY: mapped until this is dropped, and the kernel has all variables there.
        unsafe {
            let counters = self.0.as_ptr().byte_add(offset_of!(types::bss, counters));
            counters.cast::<types::counters>().read_volatile()
        }
    }
}

impl Drop for CounterMap {
    fn drop(&mut self) {
        // SAFETY: the mapping of above, which no one refers to.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), size_of::<types::bss>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::CounterMap;
    use super::types;

    /// Check that the counters are found after the variables before them.
    #[test]
    fn found_by_offset() {
        let mut variables = vec![0; size_of::<types::bss>()];
        let seen = std::mem::offset_of!(types::bss, counters)
            + std::mem::offset_of!(types::counters, seen);
        variables[seen] = 7;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&variables).unwrap();
        assert_eq!(CounterMap::map(&file).unwrap().read().seen, 7);
    }
}
