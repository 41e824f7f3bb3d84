// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx's own counters, which `stub_status` shows. A build with that module exports a pointer to each
//! (`ngx_stat_active` and so on, `src/event/ngx_event.c`), and its master and workers share what the pointers
//! lead to.

use crate::elf::Elf;

/// The counters that `CounterPlaces` has, without the prefix `ngx_stat_`.
pub const COUNTERS: [&str; 7] = [
    "accepted", "handled", "requests", "active", "reading", "writing", "waiting",
];

/// Where a process has the pointers to the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterPlaces {
    /// The address of each pointer, as linked.
    pointers: [u64; COUNTERS.len()],
    /// The address of the program headers, as linked. The kernel passes their real address to the process.
    program_headers: u64,
}

impl CounterPlaces {
    /// Finds the pointers by their symbols. `None` when the build does not count.
    pub fn locate(elf: &Elf<'_>) -> Option<Self> {
        let mut pointers = [0; COUNTERS.len()];
        for (pointer, name) in pointers.iter_mut().zip(COUNTERS) {
            *pointer = elf.symbol(&format!("ngx_stat_{name}"))?.address;
        }
        Some(Self {
            pointers,
            program_headers: elf.program_headers()?,
        })
    }

    /// Returns the address of each pointer in a process that has its program headers at this address.
    pub fn in_process(&self, program_headers: u64) -> [u64; COUNTERS.len()] {
        let moved = program_headers.wrapping_sub(self.program_headers);
        self.pointers.map(|pointer| pointer.wrapping_add(moved))
    }
}
