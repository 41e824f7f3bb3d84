// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that may be an nginx to trace, and what a look at it has found.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use anyhow::Result;
use rustix::io::Errno;

use crate::follow::processes::Inode;
use crate::follow::processes::Process;
use crate::follow::processes::Target;
use crate::follow::program::Program;
use nginx_binary::Identity;
use nginx_binary::Options;
use nginx_binary::Unsupported;

/// What a look has found.
pub enum Candidate {
    /// The process has ended, or runs no program.
    Gone,
    /// It runs a file that was looked at before.
    Known(Process, Inode),
    /// It runs a file that can be traced.
    New(Box<Program>),
    /// It can't be traced.
    Refused(Box<Refused>),
}

/// A process that can't be traced.
pub struct Refused {
    /// Its pid.
    pub pid: u32,
    /// The process. `None` when there is none.
    pub process: Option<Process>,
    /// The file that it runs. `None` when that could not be opened.
    pub binary: Option<Binary>,
    /// Why.
    pub error: anyhow::Error,
}

/// A file that can't be traced.
pub struct Binary {
    /// Its device and inode.
    pub inode: Inode,
    /// Its path, to show to people.
    pub path: PathBuf,
    /// Which nginx it is, if that could be read.
    pub identity: Option<Identity>,
}

impl Candidate {
    /// Looks at a process. `known` are the files that were looked at before. Of one that a person has
    /// asked for it is an error that it has ended.
    pub fn look(pid: u32, is_asked: bool, known: &[Inode], options: &Options) -> Self {
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) if !is_asked && is_gone(&error) => return Self::Gone,
            Err(error) => return Self::refused(pid, error),
        };
        let (target, binary) = match Target::of(process) {
            Ok(opened) => opened,
            Err(error) if !is_asked && is_gone(&error) => return Self::Gone,
            Err(error) => return Self::refused(pid, error),
        };
        if known.contains(&target.inode) {
            return Self::Known(target.process, target.inode);
        }
        let (inode, path) = (target.inode, target.path.clone());
        match Self::read(target, &binary, options) {
            Ok(program) => Self::New(Box::new(program)),
            Err(unsupported) => Self::Refused(Box::new(Refused {
                pid,
                process: Process::open(pid).ok(),
                binary: Some(Binary {
                    identity: unsupported.identity,
                    inode,
                    path,
                }),
                error: unsupported.error,
            })),
        }
    }

    /// Reads the file that it runs. Meanwhile it may have started its workers.
    fn read(target: Target, binary: &File, options: &Options) -> Result<Program, Unsupported> {
        let binary = binary.try_clone().map_err(anyhow::Error::from)?;
        let mut program = Program::read(target, binary, options)?;
        for process in &mut program.processes {
            /* That it has ended meanwhile says nothing of the file. */
            let _ = process.read_titles();
        }
        Ok(program)
    }

    /// One of which nothing is known but its pid: not even its title is read, which may be what hung.
    pub fn refused(pid: u32, error: anyhow::Error) -> Self {
        Self::Refused(Box::new(Refused {
            pid,
            process: Process::hold(pid).ok(),
            binary: None,
            error,
        }))
    }
}

/// Whether it failed because there is no such process any more, or none that runs a program.
fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.root_cause();
    let io = cause.downcast_ref::<io::Error>();
    let errno = cause.downcast_ref::<Errno>().copied();
    let errno = errno.or_else(|| Errno::from_io_error(io?));
    matches!(errno, Some(Errno::NOENT | Errno::SRCH))
}
