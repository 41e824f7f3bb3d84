// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints the requests in flight of all traced processes (SIGUSR2), in a thread of its own.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use ngx_bpf_record::Redaction;

use crate::follow::Follower;
use crate::follow::counters::HUNG_MAX;
use crate::follow::inflight;
use crate::follow::inflight::BinaryFacts;
use crate::follow::role::Role;
use crate::host::privileges;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;

impl Follower {
    /// Prints the requests in flight on stderr, unless that is still being done.
    pub fn print_inflight(&mut self) {
        match self.inflight.thread.take() {
            Some(thread) if !thread.is_finished() => {
                self.inflight.thread = Some(thread);
                let text = "the requests in flight are still being read";
                return self.messages.print(Verbosity::Quiet, text);
            }
            /* It may have panicked: then nothing is known of what hung. */
            Some(thread) => self.inflight.hung.extend(thread.join().unwrap_or_default()),
            None => {}
        }
        match self.start_inflight() {
            Ok(thread) => self.inflight.thread = Some(thread),
            Err(error) => self.messages.warn(&error),
        }
    }

    /// Returns whether a traced process is a master, which has no requests.
    fn is_master(&self, pid: u32) -> bool {
        let mut processes = self.programs().flat_map(|program| &program.processes);
        processes.any(|process| process.pid == pid && process.role == Some(Role::Master))
    }

    /// Starts the thread. It has the rights of a lookout.
    ///
    /// Fails when threads hang in too many workers, whose memory is not read again.
    fn start_inflight(&mut self) -> Result<JoinHandle<BTreeSet<u32>>> {
        let binaries = self.traced.iter();
        let binaries =
            binaries.map(|traced| (traced.probe.number(), BinaryFacts::of(&traced.program)));
        let binaries: BTreeMap<u32, Arc<BinaryFacts>> = binaries.collect();
        let mut processes = self.tracer.live_processes()?;
        self.inflight
            .hung
            .retain(|hung| processes.iter().any(|(pid, _)| pid == hung));
        ensure!(
            self.inflight.hung.len() < HUNG_MAX,
            "the requests in flight are not read any more: the memory of {} workers could not be read in time",
            self.inflight.hung.len()
        );
        processes.retain(|(pid, _)| !self.is_master(*pid) && !self.inflight.hung.contains(pid));
        let processes = processes
            .into_iter()
            .filter_map(|(pid, binary)| Some((pid, Arc::clone(binaries.get(&binary)?))))
            .collect();
        let (redaction, messages) = (self.settings.redaction.clone(), self.messages);
        let capabilities = self.reading.capabilities;
        thread::Builder::new()
            .name("inflight".to_owned())
            .spawn(move || {
                if let Some(capabilities) = capabilities {
                    /* If it fails, reading does, and says why. */
                    let _ = privileges::keep_only(capabilities);
                }
                print(processes, &redaction, messages)
            })
            .context("failed to start a thread")
    }
}

/// Prints the requests in flight of these processes, the oldest first. Returns those that were given up.
fn print(
    processes: Vec<(u32, Arc<BinaryFacts>)>,
    redaction: &Redaction,
    messages: Messages,
) -> BTreeSet<u32> {
    let reading = inflight::read_all(processes, redaction);
    for error in &reading.errors {
        messages.warn(error);
    }
    let count = reading.requests.len();
    let plural = if count == 1 { "" } else { "s" };
    messages.print(
        Verbosity::Quiet,
        format_args!("{count} request{plural} in flight"),
    );
    for request in reading.requests {
        messages.print(Verbosity::Quiet, request);
    }
    reading.hung
}
