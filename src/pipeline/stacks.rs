// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that names the functions on the stacks of blocked workers. It reads files that other users
//! have named, so that nothing waits for it.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::bounded;
use rustix::thread::CapabilitySet;

use crate::bpf::types;
use crate::follow::stacks::CodeFiles;
use crate::follow::stacks::WorkerStack;
use crate::host::kernel_symbols::KernelSymbols;
use crate::host::privileges;

/// Records that may wait for the thread: each has 2.4 KiB.
const WAITING: usize = 64;

/// How long the end waits for the thread.
const GRACE: Duration = Duration::from_secs(1);

/// The function of the kernel that takes a task off its CPU, which is on each stack.
const SCHEDULER: &str = "__schedule+";

/// A record with its stacks.
pub struct NamedRecord {
    pub record: Box<types::blocked_record>,
    /// The frames in the kernel, the innermost first.
    pub kernel: Vec<String>,
    /// Those in the worker.
    pub user: Vec<String>,
}

impl NamedRecord {
    fn without_names(record: Box<types::blocked_record>) -> Self {
        Self {
            record,
            kernel: Vec::new(),
            user: Vec::new(),
        }
    }
}

/// The channels to the thread and from it.
pub struct StackThread {
    /// `None` when no more records follow.
    records: Option<Sender<Box<types::blocked_record>>>,
    named: Receiver<NamedRecord>,
    /// Copies of the records that the thread has.
    waiting: VecDeque<Box<types::blocked_record>>,
}

impl StackThread {
    /// Starts the thread, with only these capabilities. What the kernel shows of itself is opened before.
    pub fn start(kept: CapabilitySet) -> Result<Self> {
        let (records, to_name) = bounded::<Box<types::blocked_record>>(WAITING);
        let (done, named) = bounded(WAITING);
        let kernel = KernelSymbols::open();
        thread::Builder::new()
            .name("stacks".to_owned())
            .spawn(move || {
                /* If it fails, the main thread reports why. */
                let _ = privileges::keep_only(kept);
                let mut stacks = Stacks {
                    kernel,
                    files: CodeFiles::default(),
                };
                for record in to_name {
                    if done.send(stacks.named(record)).is_err() {
                        return;
                    }
                }
            })
            .context("failed to start a thread")?;
        Ok(Self {
            records: Some(records),
            named,
            waiting: VecDeque::new(),
        })
    }

    /// Passes a record to the thread. Returns it without stacks when too many wait.
    pub fn name(&mut self, record: Box<types::blocked_record>) -> Option<NamedRecord> {
        let sent = self.records.as_ref()?.try_send(record.clone());
        if sent.is_ok() {
            self.waiting.push_back(record);
            return None;
        }
        Some(NamedRecord::without_names(record))
    }

    /// Notes that a record came back. They come in order.
    pub fn note_done(&mut self) {
        self.waiting.pop_front();
    }

    /// Returns the records that the thread is done with.
    pub fn named(&self) -> Receiver<NamedRecord> {
        self.named.clone()
    }

    /// Returns the rest. Those that take too long have no names.
    pub fn rest(&mut self) -> Vec<NamedRecord> {
        self.records = None;
        let end = Instant::now() + GRACE;
        let next = || self.named.recv_deadline(end).ok();
        let mut rest: Vec<_> = std::iter::from_fn(next).collect();
        let late = self.waiting.drain(..).skip(rest.len());
        rest.extend(late.map(NamedRecord::without_names));
        rest
    }
}

/// What the names of functions are found by.
struct Stacks {
    kernel: KernelSymbols,
    files: CodeFiles,
}

impl Stacks {
    /// Names the functions on both stacks of a record.
    fn named(&mut self, record: Box<types::blocked_record>) -> NamedRecord {
        let longest = &record.longest;
        let kernel_len = longest.kernel.len().min(longest.kernel_len.into());
        let kernel = self.kernel.names(&longest.kernel[..kernel_len]);
        let stack_len = longest.stack.len().min(longest.stack_len.into());
        let user = match stack_len {
            0 => Vec::new(),
            _ => self.files.frames(&WorkerStack {
                pid: record.pid,
                registers: &longest.registers,
                bytes: &longest.stack[..stack_len],
            }),
        };
        NamedRecord {
            kernel: below_scheduler(kernel),
            user,
            record,
        }
    }
}

/// Returns the frames that called the scheduler: those above it are our own program and what called it.
/// A frame without a name ends the stack.
fn below_scheduler(frames: Vec<Option<String>>) -> Vec<String> {
    let is_scheduler = |name: &Option<String>| {
        let name = name.as_deref().unwrap_or_default();
        name.starts_with(SCHEDULER)
    };
    let above = frames.iter().rposition(is_scheduler).map_or(0, |at| at + 1);
    frames
        .into_iter()
        .skip(above)
        .map_while(|name| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::below_scheduler;

    /// Check that what is above the scheduler is left out, and what follows a frame without a name.
    #[test]
    fn kernel_frames() {
        let frames = |names: &[&str]| -> Vec<Option<String>> {
            let named = names.iter().map(|name| (*name).to_owned());
            named
                .map(|name| Some(name).filter(|name| !name.is_empty()))
                .collect()
        };
        let names = [
            "",
            "bpf_x+0x1",
            "__schedule+0x2",
            "schedule+0x3",
            "b",
            "",
            "c",
        ];
        assert_eq!(below_scheduler(frames(&names)), ["schedule+0x3", "b"]);
        assert_eq!(
            below_scheduler(frames(&["a", "__scheduler"])),
            ["a", "__scheduler"]
        );
        assert!(below_scheduler(frames(&[""])).is_empty());
    }
}
