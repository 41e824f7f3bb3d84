// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a look at the start has found: what can be traced, and what can't.

use anyhow::Result;
use anyhow::anyhow;

use crate::cli::Trace;
use crate::follow::candidate::Candidate;
use crate::follow::candidate::Refused;
use crate::follow::lookout::Lookout;
use crate::follow::lookout::News;
use crate::follow::lookout::Wanted;
use crate::follow::processes;
use crate::follow::processes::Inode;
use crate::follow::processes::Passed;
use crate::follow::processes::Process;
use crate::follow::program::Program;
use crate::host::signals::Signals;
use crate::pipeline::messages::Messages;

/// What is asked for, read and not yet touched.
#[derive(Default)]
pub struct Found {
    /// What can be traced.
    pub programs: Vec<Program>,
    /// Processes that can't.
    pub refused: Vec<Refused>,
    /// Further processes that run the file of one of these.
    pub also_refused: Vec<PassedOver>,
}

impl Found {
    /// Looks at all of them, one after the other. One that can't be traced does not stand in the way
    /// of the others, nor of those that are waited for. Empty when the end was asked for.
    ///
    /// Fails when there is none to trace, and none is waited for.
    pub fn read(cli: &Trace, messages: Messages, stop: &Signals) -> Result<Self> {
        processes::check_proc()?;
        let mut found = Self::default();
        let mut seen = Vec::new();
        loop {
            let wanted = match cli.pids.asked() {
                pids if pids.is_empty() => Wanted::Running,
                pids => Wanted::Asked(pids),
            };
            let known = found.known();
            let mut lookout =
                match Lookout::start(wanted, seen.clone(), known, &(&cli.layout).into()) {
                    Ok(lookout) => lookout,
                    Err(error) if found.programs.is_empty() && !cli.wait => return Err(error),
                    Err(error) => {
                        messages.warn(&error);
                        break;
                    }
                };
            loop {
                match lookout.wait(Some(stop)) {
                    None => return Ok(Self::default()),
                    Some(News::Over) => break,
                    Some(News::Failed(error)) => return Err(error),
                    Some(News::Candidate(pid, candidate)) => {
                        seen.push(pid);
                        found.add(candidate);
                    }
                }
            }
            if !lookout.has_given_up() {
                break;
            }
        }
        if found.programs.is_empty() && cli.wait {
            messages.waiting();
        } else if found.programs.is_empty() {
            return Err(all(found.refused.into_iter().map(|refused| refused.error)));
        }
        Ok(found)
    }

    /// Adds what a look has found.
    fn add(&mut self, candidate: Candidate) {
        match candidate {
            Candidate::Gone => {}
            Candidate::New(program) => self.programs.push(*program),
            Candidate::Refused(refused) => self.refused.push(*refused),
            Candidate::Known(process, inode) => {
                let mut programs = self.programs.iter_mut();
                match programs.find(|program| program.inode == inode) {
                    Some(program) => program.processes.push(process),
                    None => self.also_refused.extend(passed(&process, Some(inode))),
                }
            }
        }
    }

    /// The files that were read.
    fn known(&self) -> Vec<Inode> {
        let refused = self.refused.iter().filter_map(|r| r.binary.as_ref());
        let programs = self.programs.iter().map(|program| program.inode);
        programs.chain(refused.map(|binary| binary.inode)).collect()
    }
}

/// Why nothing is traced, in one line.
pub fn all(errors: impl Iterator<Item = anyhow::Error>) -> anyhow::Error {
    let mut errors: Vec<_> = errors.collect();
    if errors.len() == 1 {
        return errors.remove(0);
    }
    if errors.is_empty() {
        return anyhow!(processes::NONE_RUNS);
    }
    let lines: Vec<_> = errors.iter().map(|error| format!("{error:#}")).collect();
    anyhow!(lines.join("; "))
}

/// A process that can't be traced, and the file that it runs, if that could be opened.
pub type PassedOver = (Passed, Option<Inode>);

/// A process that can't be traced, unless it has ended.
pub fn passed(process: &Process, inode: Option<Inode>) -> Option<PassedOver> {
    Some((Passed::of(process)?, inode))
}
