// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf inflight`: prints the requests that have not ended. Nothing is attached to nginx: its memory is only
//! read.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use anyhow::ensure;
use ngx_bpf_record::Inflight;
use ngx_bpf_record::format::json::write_line;
use ngx_bpf_views::inflight as inflight_view;

use crate::cli::InflightArgs;
use crate::commands::reading;
use crate::follow::candidate::Candidate;
use crate::follow::inflight;
use crate::follow::inflight::BinaryFacts;
use crate::follow::lookout::End;
use crate::follow::messages;
use crate::follow::processes::NginxProcess;
use crate::follow::program::Program;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;
use crate::host::terminal;
use crate::output;

/// Writes the requests in flight to stdout. Returns false when some nginx could not be read, which was reported.
pub fn inflight(options: &InflightArgs) -> Result<bool> {
    let messages = Messages::new(Verbosity::Normal);
    let mut programs = Programs::default();
    let add = |candidate| programs.add(candidate);
    let end = reading::read_all(&options.pids, &options.layout, add)?;
    if let End::Blind(error) = end {
        programs.errors.push(error);
    }
    let is_found = !programs.read.is_empty() || !programs.errors.is_empty();
    ensure!(is_found, messages::none_runs());
    let redaction = options.redaction.redaction();
    let reading = inflight::read_all(programs.workers(), &redaction);
    let text = match !options.json && terminal::is_stdout() {
        true => inflight_view::terminal(&reading.requests, terminal::look(false)).into_bytes(),
        false => written(&reading.requests, options.json)?,
    };
    output::print(&text)?;
    let errors = programs.errors.into_iter().chain(reading.errors);
    Ok(errors.inspect(|error| messages.warn(error)).count() == 0)
}

/// What was read of the nginx that the user asked for.
#[derive(Default)]
struct Programs {
    read: Vec<Program>,
    errors: Vec<anyhow::Error>,
}

impl Programs {
    /// Adds the result of reading a process.
    fn add(&mut self, candidate: Candidate) {
        match candidate {
            Candidate::Gone | Candidate::Unwanted(_) => {}
            Candidate::Known(process, inode) => {
                let mut read = self.read.iter_mut();
                if let Some(program) = read.find(|program| program.inode == inode) {
                    program.processes.push(process);
                }
            }
            Candidate::New(program) => self.read.push(*program),
            Candidate::Refused(refused) => self.errors.push(refused.error),
        }
    }

    /// Returns the workers, each once, with the facts about their binaries.
    fn workers(&self) -> BTreeMap<u32, Arc<BinaryFacts>> {
        let mut workers = BTreeMap::new();
        for program in &self.read {
            let binary = BinaryFacts::of(program);
            let pids = program.processes.iter().flat_map(NginxProcess::serving);
            workers.extend(pids.map(|pid| (pid, Arc::clone(&binary))));
        }
        workers
    }
}

/// Returns the lines of all requests.
fn written(requests: &[Inflight<'_>], is_json: bool) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for request in requests {
        if is_json {
            write_line(&mut text, request)?;
        } else {
            text.extend(format!("{request}\n").into_bytes());
        }
    }
    Ok(text)
}
