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
use ngx_bpf_record::Inflight;

use crate::follow::Follower;
use crate::follow::counters::HUNG_MAX;
use crate::follow::inflight;
use crate::follow::inflight::BinaryFacts;
use crate::follow::inflight::InflightTo;
use crate::follow::role::Role;
use crate::host::privileges;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;

impl Follower {
    /// Passes requests in flight on, instead of printing them.
    pub fn with_inflight(mut self, to: Option<InflightTo>) -> Self {
        self.inflight.to = to;
        self
    }

    /// Prints the requests in flight on stderr, unless that is still being done.
    pub fn print_inflight(&mut self) {
        match self.inflight.thread.take() {
            Some(thread) if !thread.is_finished() => {
                self.inflight.thread = Some(thread);
                /* Who takes them waits for them already. */
                if self.inflight.to.is_none() {
                    let text = "the requests in flight are still being read";
                    self.messages.print(Verbosity::Quiet, text);
                }
                return;
            }
            /* It may have panicked: then nothing is known of what hung. */
            Some(thread) => self.inflight.hung.extend(thread.join().unwrap_or_default()),
            None => {}
        }
        match self.start_inflight() {
            Ok(thread) => self.inflight.thread = Some(thread),
            Err(error) => match &self.inflight.to {
                Some(to) => to(Err(error)),
                None => self.messages.warn(&error),
            },
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
            .collect::<Vec<_>>();
        let (redaction, messages) = (self.settings.redaction.clone(), self.messages);
        let (capabilities, to) = (self.reading.capabilities, self.inflight.to.clone());
        thread::Builder::new()
            .name("inflight".to_owned())
            .spawn(move || {
                if let Some(capabilities) = capabilities {
                    /* If it fails, reading does, and says why. */
                    let _ = privileges::keep_only(capabilities);
                }
                let reading = inflight::read_all(processes, &redaction);
                for error in &reading.errors {
                    messages.warn(error);
                }
                match to {
                    Some(to) => to(Ok(reading.requests)),
                    None => print(&reading.requests, messages),
                }
                reading.hung
            })
            .context("failed to start a thread")
    }
}

/// Prints requests in flight.
fn print(requests: &[Inflight<'_>], messages: Messages) {
    let count = requests.len();
    let plural = if count == 1 { "" } else { "s" };
    messages.print(
        Verbosity::Quiet,
        format_args!("{count} request{plural} in flight"),
    );
    for request in requests {
        messages.print(Verbosity::Quiet, request);
    }
}
