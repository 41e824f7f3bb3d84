// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that may be an nginx to trace, and the result of reading it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use nginx_binary::Identity;
use nginx_binary::Options;
use nginx_binary::Unsupported;
use rustix::io::Errno;

use crate::follow::processes::Inode;
use crate::follow::processes::NginxProcess;
use crate::follow::processes::OpenedProcess;
use crate::follow::program::Program;
use crate::follow::settings::FileReading;
use crate::host::memory::ForeignMemory;

/// The result of reading a process and its file.
pub enum Candidate {
    /// The process has ended, or runs no program.
    Gone,
    /// It is in no container or pod that the user named.
    Unwanted(NginxProcess),
    /// It runs a file that was read before, with this inode.
    Known(NginxProcess, Inode),
    /// It runs a file that was not read before, and can be traced.
    New(Box<Program>),
    /// It can't be traced.
    Refused(Box<Refused>),
}

/// A process that can't be traced.
pub struct Refused {
    pub pid: u32,
    /// The process. `None` when it could not be opened.
    pub process: Option<NginxProcess>,
    /// The file that it runs. `None` when that could not be opened.
    pub binary: Option<RefusedBinary>,
    pub error: anyhow::Error,
}

impl Refused {
    /// Returns the inode of the file that it runs, if that could be opened.
    pub fn inode(&self) -> Option<Inode> {
        self.binary.as_ref().map(|binary| binary.inode)
    }
}

/// A file that can't be traced.
pub struct RefusedBinary {
    /// Its inode.
    pub inode: Inode,
    /// The path of the file, for messages.
    pub path: PathBuf,
    /// The build of nginx and the build id, if these could be read.
    pub identity: Option<Identity>,
}

impl Candidate {
    /// Returns the inode of the file that was read.
    pub fn inode_read(&self) -> Option<Inode> {
        match self {
            Self::New(program) => Some(program.inode),
            Self::Refused(refused) => refused.inode(),
            Self::Gone | Self::Unwanted(_) | Self::Known(..) => None,
        }
    }

    /// Reads a process and its file, unless the file is one of `known`. It is an error that the
    /// process has ended only if the user named it.
    pub fn read(pid: u32, is_named: bool, known: &[Inode], reading: &FileReading) -> Self {
        let mut process = match NginxProcess::open(pid) {
            Ok(process) => process,
            Err(error) if !is_named && is_gone(&error) => return Self::Gone,
            Err(error) => return Self::refused(pid, error),
        };
        let wanted = &reading.settings.containers;
        let is_wanted = wanted.lets_through(process.container.as_deref());
        if !is_wanted && is_named {
            let error = anyhow!("pid {pid} is not in the container or pod that was named");
            return Self::refused(pid, error);
        }
        if !is_wanted {
            return Self::Unwanted(process);
        }
        if reading.settings.counters {
            process.memory = Some(ForeignMemory::open(pid).map(Arc::new));
        }
        let (target, binary) = match OpenedProcess::open(process, reading.mapped.as_deref()) {
            Ok(opened) => opened,
            Err(error) if !is_named && is_gone(&error) => return Self::Gone,
            Err(error) => return Self::refused(pid, error),
        };
        if known.contains(&target.inode) {
            return Self::Known(target.process, target.inode);
        }
        let (inode, path) = (target.inode, target.path.clone());
        match Self::read_program(target, binary, &reading.settings.layout) {
            Ok(program) => Self::New(Box::new(program)),
            Err(unsupported) => Self::Refused(Box::new(Refused {
                pid,
                process: NginxProcess::open(pid).ok(),
                binary: Some(RefusedBinary {
                    identity: unsupported.identity,
                    inode,
                    path,
                }),
                error: unsupported.error,
            })),
        }
    }

    /// Reads the file of a process, and then the titles again, since the process may have started
    /// its workers meanwhile.
    fn read_program(
        target: OpenedProcess,
        binary: File,
        from: &Options,
    ) -> Result<Program, Unsupported> {
        let mut program = Program::read(target, binary, from)?;
        for process in &mut program.processes {
            /* If the process has ended meanwhile, the file can still be used. */
            let _ = process.read_titles();
        }
        Ok(program)
    }

    /// Creates a refused candidate of which only the pid is known. Its title is not read, since
    /// reading it may be what hung.
    pub fn refused(pid: u32, error: anyhow::Error) -> Self {
        Self::Refused(Box::new(Refused {
            pid,
            process: NginxProcess::hold(pid).ok(),
            binary: None,
            error,
        }))
    }
}

/// Returns whether the error means that the process has ended, or runs no program.
fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.root_cause();
    let io = cause.downcast_ref::<io::Error>();
    let errno = cause.downcast_ref::<Errno>().copied();
    let errno = errno.or_else(|| Errno::from_io_error(io?));
    matches!(errno, Some(Errno::NOENT | Errno::SRCH))
}
