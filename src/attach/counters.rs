// SPDX-License-Identifier: MIT OR Apache-2.0
//! The counters of one BPF object, which any thread may read while BPF updates them.

use std::mem::offset_of;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::MapCore as _;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use plain::Plain;

use crate::bpf::types;

// SAFETY: integers and arrays of integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::counters {}

/// A handle to the map with an object's global variables. It may outlive the object.
pub struct CounterMap(pub(super) MapHandle);

impl CounterMap {
    /// Reads all counters at once. Each may be an increment ahead of the others.
    pub fn read(&self) -> Result<types::counters> {
        let variables = self.0.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let variables = variables.context("failed to read the counters")?;
        counters_in(&variables.unwrap_or_default()).context("the BPF object has no counters")
    }
}

/// Finds the counters among the bytes of all global variables.
fn counters_in(variables: &[u8]) -> Option<types::counters> {
    let bytes = variables.get(offset_of!(types::bss, counters)..)?;
    let mut counters = types::counters::default();
    plain::copy_from_bytes(&mut counters, bytes).ok()?;
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::counters_in;
    use super::types;

    /// Check that the counters are found after the variables before them, and that too few bytes are
    /// refused.
    #[test]
    fn found_by_offset() {
        let mut variables = vec![0; size_of::<types::bss>()];
        let seen = std::mem::offset_of!(types::bss, counters)
            + std::mem::offset_of!(types::counters, seen);
        variables[seen] = 7;
        assert_eq!(counters_in(&variables).unwrap().seen, 7);
        assert!(counters_in(&variables[..seen]).is_none());
    }
}
