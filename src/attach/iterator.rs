// SPDX-License-Identifier: MIT OR Apache-2.0
//! BPF iterators: what the kernel writes when a program runs for each of its objects.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::ptr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use libbpf_rs::libbpf_sys;
use plain::Plain;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;

use crate::attach::link;
use crate::attach::link::owned;
use crate::bpf::types;

// SAFETY: integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::traced_task {}
// SAFETY: as above.
unsafe impl Plain for types::mapped_file {}
// SAFETY: as above.
unsafe impl Plain for types::listener {}

/// The most listening sockets of a process that are read. Whoever runs an nginx may open any number of them.
pub const LISTENERS_MAX: usize = 16_384;

/// A program that runs for each object of the kernel of one kind.
pub struct BpfIterator(OwnedFd);

impl BpfIterator {
    /// Links a loaded program. `thread` is the one whose objects are asked for, if the kernel lets
    /// them be chosen (Linux 6.1), or else all are.
    pub fn link(program: BorrowedFd<'_>, thread: Option<u32>) -> Result<Self> {
        let mut chosen = libbpf_sys::bpf_iter_link_info::default();
        let mut options = link::options();
        if let Some(thread) = thread {
            chosen.task.tid = thread;
            options.iter_info = &raw mut chosen;
            options.iter_info_len = size_of_val(&chosen) as u32;
        }
        let link = link::create(program, 0, libbpf_sys::BPF_TRACE_ITER, &options);
        Ok(Self(link.context("failed to attach a BPF iterator")?))
    }

    /// Runs the program for all objects, and returns the values that it has written.
    pub fn values<T: Plain + Copy + Default>(&self) -> Result<Vec<T>> {
        Ok(values_in(&self.bytes(u64::MAX)?))
    }

    /// Does the same as `values()`. Fails when there are more values than `max`.
    pub fn at_most<T: Plain + Copy + Default>(&self, max: usize) -> Result<Vec<T>> {
        let values = values_in(&self.bytes(((max + 1) * size_of::<T>()) as u64)?);
        ensure!(values.len() <= max, "there are more than {max}");
        Ok(values)
    }

    /// Runs the program for all objects, and returns at most `max` bytes of what it has written.
    fn bytes(&self, max: u64) -> Result<Vec<u8>> {
        // SAFETY: takes a descriptor, returns another one or an error.
        let fd = owned(unsafe { libbpf_sys::bpf_iter_create(self.0.as_raw_fd()) });
        let mut bytes = Vec::new();
        File::from(fd.context("failed to run a BPF iterator")?)
            .take(max)
            .read_to_end(&mut bytes)
            .context("failed to run a BPF iterator")?;
        Ok(bytes)
    }
}

/// Returns the values in what a program has written. A last one that is not whole is left out.
fn values_in<T: Plain + Copy + Default>(bytes: &[u8]) -> Vec<T> {
    let values = bytes.chunks_exact(size_of::<T>()).map(|bytes| {
        let mut value = T::default();
        /* There are enough bytes, and a copy needs no alignment. */
        let _ = plain::copy_from_bytes(&mut value, bytes);
        value
    });
    values.collect()
}

/// Finds out which inode probes in a file are attached to. On an overlay it is that of the layer
/// that has the file, which all containers of an image share.
pub struct MappedFiles(BpfIterator);

/// The kernel's address of an inode. It is unique while the file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealInode(u64);

impl MappedFiles {
    /// Links the program that writes the mappings of this process.
    pub fn link(program: BorrowedFd<'_>) -> Result<Self> {
        let own = std::process::id();
        Ok(Self(BpfIterator::link(program, Some(own))?))
    }

    /// Returns the inode of a file, by mapping its first page. The page is not read.
    pub fn inode(&self, file: &File) -> Result<RealInode> {
        let size = rustix::param::page_size();
        let (prot, flags) = (ProtFlags::READ, MapFlags::PRIVATE);
        // SAFETY: a new mapping, which is never accessed.
        let mapping = unsafe { rustix::mm::mmap(ptr::null_mut(), size, prot, flags, file, 0) };
        let mapping = mapping.context("failed to map a file")?;
        let files = self.0.values::<types::mapped_file>();
        // SAFETY: the mapping of above, which no one refers to.
        let unmapped = unsafe { rustix::mm::munmap(mapping, size) };
        unmapped.context("failed to unmap a file")?;
        let mut files = files?.into_iter();
        let start = mapping as u64;
        let file = files.find(|file| file.start == start);
        let file = file.context("the kernel does not list the mapping of a file")?;
        Ok(RealInode(file.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::types;
    use super::values_in;

    /// Check values at any address, of which the last one is not whole.
    #[test]
    fn values() {
        let written = [1, 2].map(|start| types::mapped_file {
            start,
            inode: start + 7,
        });
        // SAFETY: the values are plain.
        let bytes = written.map(|file| unsafe { plain::as_bytes(&file) }.to_vec());
        let bytes = [&[0][..], &bytes.concat(), &[1, 2, 3]].concat();
        let values = values_in::<types::mapped_file>(&bytes[1..]);
        let values: Vec<_> = values.iter().map(|file| (file.start, file.inode)).collect();
        assert_eq!(values, [(1, 8), (2, 9)]);
        assert!(values_in::<types::mapped_file>(&[]).is_empty());
    }
}
