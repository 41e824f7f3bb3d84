// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of another process, which is only read. The process may make a read block for ever
//! (userfaultfd, a file on a server that does not answer): a thread that reads must be one that
//! others do not wait for.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use anyhow::Context as _;
use anyhow::Result;

/// The entry of the auxiliary vector with the address of the program headers: `AT_PHDR` of the kernel's
/// `auxvec.h`.
const AT_PHDR: u64 = 3;

/// The most bytes of an auxiliary vector. The kernel keeps some thirty entries of 16 bytes.
const AUXV_BYTES_MAX: u64 = 4096;

/// The memory of a process, as long as it runs the program that it ran when this was opened.
#[derive(Debug)]
pub struct ForeignMemory {
    memory: File,
    /// The address at which the process has the program headers of its program.
    pub program_headers: u64,
}

impl ForeignMemory {
    /// Opens the memory of a process. Nothing of it is read.
    pub fn open(pid: u32) -> Result<Self> {
        let context = || format!("failed to open the memory of pid {pid}");
        let memory = File::open(format!("/proc/{pid}/mem")).with_context(context)?;
        let vector = File::open(format!("/proc/{pid}/auxv")).with_context(context)?;
        let mut bytes = Vec::new();
        let read = vector.take(AUXV_BYTES_MAX).read_to_end(&mut bytes);
        read.with_context(context)?;
        let program_headers = entry(&bytes, AT_PHDR).with_context(context)?;
        Ok(Self {
            memory,
            program_headers,
        })
    }

    /// Reads a word. `None` when it can't be read, because the process has ended or has nothing there.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Some(u64::from_ne_bytes(bytes))
    }

    /// Reads bytes. `None` when not all of them can be read.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        self.memory.read_exact_at(bytes, address).ok()
    }
}

/// Returns the value of an entry of an auxiliary vector.
fn entry(vector: &[u8], kind: u64) -> Option<u64> {
    let words = vector.chunks_exact(8);
    let mut words = words.map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
    loop {
        let (found, value) = (words.next()?, words.next()?);
        if found == kind {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AT_PHDR;
    use super::ForeignMemory;
    use super::entry;

    /// Check that a word of this process is read, and none where nothing is mapped.
    #[test]
    fn own() {
        let memory = ForeignMemory::open(std::process::id()).unwrap();
        let word = 0x1122_3344_5566_7788_u64;
        assert_eq!(memory.word(&raw const word as u64), Some(word));
        assert_eq!(memory.word(0), None);
        assert_eq!(memory.word(u64::MAX), None);
        assert_ne!(memory.program_headers, 0);
    }

    /// Check entries of a vector, and one that ends within an entry.
    #[test]
    fn vector() {
        let words = [6_u64, 4096, AT_PHDR, 0x40, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(entry(&bytes, AT_PHDR), Some(0x40));
        assert_eq!(entry(&bytes, 9), None);
        assert_eq!(entry(&bytes[..31], AT_PHDR), None);
        assert_eq!(entry(&[], AT_PHDR), None);
    }
}
