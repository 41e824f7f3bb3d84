// SPDX-License-Identifier: MIT OR Apache-2.0
//! The nginx processes that the user asked for, read before anything is attached: those that can be
//! traced, and those that can't.

use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;

use crate::follow::candidate::Candidate;
use crate::follow::candidate::Refused;
use crate::follow::lookout;
use crate::follow::lookout::End;
use crate::follow::messages;
use crate::follow::processes::Inode;
use crate::follow::processes::KnownProcess;
use crate::follow::processes::NginxProcess;
use crate::follow::program::Program;
use crate::follow::settings::FileReading;
use crate::follow::settings::FollowSettings;
use crate::host::pid_namespace;
use crate::host::signals::Signals;
use crate::host::stderr::Messages;

/// The processes that the user asked for, after they were read and before anything is attached.
#[derive(Default)]
pub struct Selection {
    /// The binaries that can be traced, with their processes.
    pub programs: Vec<Program>,
    /// The processes that can't be traced.
    pub refused: Vec<Refused>,
    /// Further processes that run a file of `refused`.
    pub also_refused: Vec<Untraceable>,
}

impl Selection {
    /// Reads all processes, one after the other. A process that can't be traced does not keep the
    /// others from being traced, nor those that start later with `--wait`. Returns an empty
    /// selection when the end was asked for.
    ///
    /// Fails when there is nothing to trace, unless `--wait` is set.
    pub fn read(
        settings: &FollowSettings,
        reading: &FileReading,
        messages: Messages,
        signals: &Signals,
    ) -> Result<Self> {
        pid_namespace::ensure_proc_is_own()?;
        let mut selection = Self::default();
        let add = |candidate| selection.add(candidate);
        match lookout::read_all(&settings.pids, reading, Some(signals), add)? {
            End::Over => {}
            End::Asked => return Ok(Self::default()),
            End::Blind(error) if selection.programs.is_empty() && !settings.wait => {
                return Err(error);
            }
            End::Blind(error) => messages.warn(&error),
        }
        if selection.programs.is_empty() && settings.wait {
            messages::waiting(messages);
        } else if selection.programs.is_empty() {
            if selection.refused.is_empty() && reading.settings.containers.is_set() {
                bail!("no nginx is running in the container or pod that was named");
            }
            let refused = selection.refused.into_iter();
            return Err(in_one_line(refused.map(|refused| refused.error)));
        }
        Ok(selection)
    }

    /// Adds the result of reading a process.
    fn add(&mut self, candidate: Candidate) {
        match candidate {
            Candidate::Gone => {}
            Candidate::Unwanted(process) => self.also_refused.extend(untraceable(&process, None)),
            Candidate::New(program) => self.programs.push(*program),
            Candidate::Refused(refused) => self.refused.push(*refused),
            Candidate::Known(process, inode) => {
                let mut programs = self.programs.iter_mut();
                match programs.find(|program| program.inode == inode) {
                    Some(program) => program.processes.push(process),
                    None => self.also_refused.extend(untraceable(&process, Some(inode))),
                }
            }
        }
    }
}

/// Joins the reasons why nothing is traced into one error of one line.
pub fn in_one_line(errors: impl Iterator<Item = anyhow::Error>) -> anyhow::Error {
    let mut errors: Vec<_> = errors.collect();
    if errors.len() == 1 {
        return errors.remove(0);
    }
    if errors.is_empty() {
        return anyhow!(messages::none_runs());
    }
    let lines: Vec<_> = errors.iter().map(|error| format!("{error:#}")).collect();
    anyhow!(lines.join("; "))
}

/// A process that can't be traced, and the inode of its file, if that could be opened.
pub type Untraceable = (KnownProcess, Option<Inode>);

/// Remembers a process that can't be traced. `None` when it has ended.
pub fn untraceable(process: &NginxProcess, inode: Option<Inode>) -> Option<Untraceable> {
    Some((KnownProcess::remember(process)?, inode))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::in_one_line;

    /// Check that one reason keeps its causes, that several reasons become one line, and that there
    /// is a message even without a reason.
    #[test]
    fn reasons() {
        let text = |errors: Vec<anyhow::Error>| format!("{:#}", in_one_line(errors.into_iter()));
        let first = || anyhow!("b").context("a");
        assert_eq!(text(vec![first()]), "a: b");
        assert_eq!(text(vec![first(), anyhow!("c")]), "a: b; c");
        assert!(text(Vec::new()).contains("no nginx is running"));
    }
}
