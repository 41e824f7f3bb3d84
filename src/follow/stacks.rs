// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names the functions on a worker's stack: of nginx, of its modules and of libraries. Their files are
//! chosen by others, and may make a read block for ever.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;

use nginx_binary::elf::image::Image;
use nginx_binary::unwind::CodeFile;
use nginx_binary::unwind::Stack;
use ngx_bpf_record::limits::FRAMES_MAX;

use crate::host::code_mappings::CodeMapping;
use crate::host::code_mappings::FileId;
use crate::host::code_mappings::id_of;
use crate::host::foreign;
use crate::host::process_root::ProcessRoot;

/// The most files whose code is kept.
const FILES_MAX: usize = 16;

/// The most characters of the name of a file.
const NAME_MAX: usize = 64;

/// A worker's registers, as the kernel keeps them, and a copy of its stack from the stack pointer on.
pub struct WorkerStack<'a> {
    pub pid: u32,
    pub registers: &'a [u64],
    pub bytes: &'a [u8],
}

/// The code of the files that were read. `None`: it could not be read.
#[derive(Default)]
pub struct CodeFiles(HashMap<FileState, Option<Rc<CodeFile>>>);

/// A file as it is. The number of one that was removed may be given to another one.
#[derive(PartialEq, Eq, Hash)]
struct FileState {
    id: FileId,
    size: u64,
    /// When it was last changed: seconds and nanoseconds.
    changed: (i64, i64),
}

impl CodeFiles {
    /// Returns the frames of a stack, the innermost first, as far as they are certain. None when the process
    /// has ended.
    pub fn frames(&mut self, worker: &WorkerStack<'_>) -> Vec<String> {
        let mut frames = Vec::new();
        let mappings = CodeMapping::of(worker.pid).unwrap_or_default();
        let Some(mut stack) = stack(worker) else {
            return frames;
        };
        while frames.len() < FRAMES_MAX {
            let at = stack.pc.wrapping_sub(u64::from(stack.is_caller));
            let mut all = mappings.iter();
            let Some(mapping) = all.find(|mapping| mapping.range.contains(&at)) else {
                break;
            };
            let offset = at - mapping.range.start + mapping.file_offset;
            let file = self.code(worker.pid, mapping);
            let address = file.as_ref().and_then(|file| file.address_of(offset));
            let symbol = file.as_ref().zip(address);
            let symbol = symbol.and_then(|(file, address)| file.symbol_at(address));
            let caller = u64::from(stack.is_caller);
            let name = name(&mapping.path);
            frames.push(match symbol {
                Some((symbol, into)) => format!("{symbol}+{:#x} ({name})", into + caller),
                None => format!("+{:#x} ({name})", offset + caller),
            });
            let Some((file, address)) = file.zip(address) else {
                break;
            };
            if file
                .to_caller(&mut stack, at.wrapping_sub(address))
                .is_err()
            {
                break;
            }
        }
        frames
    }

    /// Returns the code of a mapped file.
    fn code(&mut self, pid: u32, mapping: &CodeMapping) -> Option<Rc<CodeFile>> {
        let file = open(pid, mapping)?;
        let metadata = file.metadata().ok()?;
        let state = FileState {
            id: mapping.id,
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if !self.0.contains_key(&state) && self.0.len() >= FILES_MAX {
            self.0.clear();
        }
        let known = self.0.entry(state).or_insert_with(|| {
            let image = Image::read(&file).ok()?;
            Some(Rc::new(CodeFile::read(&image).ok()?))
        });
        known.clone()
    }
}

/// Opens a file that a process has mapped. `None` when its path leads to another file by now.
fn open(pid: u32, mapping: &CodeMapping) -> Option<File> {
    let is_same = |file: &File| id_of(file) == Some(mapping.id);
    in_root(pid, &mapping.path).filter(is_same).or_else(|| {
        /* It may have been replaced (an upgrade), or be on an overlay. */
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        (program == mapping.path)
            .then(|| foreign::program(pid).ok())
            .flatten()
    })
}

/// Opens a file by its path in `/proc/PID/maps`, which begins with that of the root folder (chroot).
fn in_root(pid: u32, path: &Path) -> Option<File> {
    let folder = std::fs::read_link(format!("/proc/{pid}/root")).ok()?;
    let path = path.strip_prefix(folder).ok()?.to_str()?;
    ProcessRoot::hold(pid)?.file(path)
}

/// Returns the name of a file without its folder.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().chars().take(NAME_MAX).collect()
}

/// Returns a stack with the registers by their numbers in DWARF. `None` when one of them is missing.
fn stack<'a>(worker: &WorkerStack<'a>) -> Option<Stack<'a>> {
    /* The words of the kernel's `struct pt_regs` and `struct user_pt_regs`. */
    #[cfg(target_arch = "x86_64")]
    let (words, pc, pointer) = (
        [10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0],
        16,
        19,
    );
    #[cfg(target_arch = "aarch64")]
    let (words, pc, pointer) = (std::array::from_fn::<usize, 32, _>(|word| word), 32, 31);
    let word = |at: usize| worker.registers.get(at).copied();
    let mut stack = Stack {
        pc: word(pc)?,
        registers: Default::default(),
        start: word(pointer)?,
        bytes: worker.bytes,
        is_caller: false,
    };
    for (register, at) in stack.registers.iter_mut().zip(words) {
        *register = word(at);
    }
    Some(stack)
}
