// SPDX-License-Identifier: MIT OR Apache-2.0
//! Prints the requests in flight of all traced processes (SIGUSR2), in a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;

use anyhow::Context as _;
use anyhow::Result;
use ngx_bpf_record::Redaction;

use crate::follow::Follower;
use crate::follow::inflight;
use crate::follow::inflight::BinaryFacts;
use crate::follow::role::Role;
use crate::host::privileges;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;

impl Follower {
    /// Prints the requests in flight on stderr, unless that is still being done.
    pub fn print_inflight(&mut self) {
        let mut last = self.inflight.iter();
        if last.any(|thread| !thread.is_finished()) {
            let text = "the requests in flight are still being read";
            return self.messages.print(Verbosity::Quiet, text);
        }
        match self.start_inflight() {
            Ok(thread) => self.inflight = Some(thread),
            Err(error) => self.messages.warn(&error),
        }
    }

    /// Returns whether a traced process is a master, which has no requests.
    fn is_master(&self, pid: u32) -> bool {
        let mut processes = self.programs().flat_map(|program| &program.processes);
        processes.any(|process| process.pid == pid && process.role == Some(Role::Master))
    }

    /// Starts the thread. It has the rights of a lookout.
    fn start_inflight(&self) -> Result<JoinHandle<()>> {
        let binaries = self.traced.iter();
        let binaries =
            binaries.map(|traced| (traced.probe.number(), BinaryFacts::of(&traced.program)));
        let binaries: BTreeMap<u32, Arc<BinaryFacts>> = binaries.collect();
        let mut processes = self.tracer.live_processes()?;
        processes.retain(|(pid, _)| !self.is_master(*pid));
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
                print(processes, &redaction, messages);
            })
            .context("failed to start a thread")
    }
}

/// Prints the requests in flight of these processes, the oldest first.
fn print(processes: Vec<(u32, Arc<BinaryFacts>)>, redaction: &Redaction, messages: Messages) {
    let mut all = Vec::new();
    for (pid, binary) in processes {
        match inflight::read(pid, &binary) {
            Ok(requests) => all.extend(requests),
            Err(error) => messages.warn(&error),
        }
    }
    all.sort_by_key(|request| std::cmp::Reverse(request.age_ms));
    let count = all.len();
    let plural = if count == 1 { "" } else { "s" };
    messages.print(
        Verbosity::Quiet,
        format_args!("{count} request{plural} in flight"),
    );
    for mut request in all {
        redaction.apply_to_inflight(&mut request);
        messages.print(Verbosity::Quiet, request);
    }
}
