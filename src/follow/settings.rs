// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings that choose what is traced.

use std::sync::Arc;

use anyhow::Result;
use nginx_binary::Options;
use ngx_bpf_record::Redaction;
use rustix::thread::CapabilitySet;

use crate::attach::iterator::MappedFiles;
use crate::attach::kernel;
use crate::attach::kernel::Kernel;
use crate::attach::object::Extras;
use crate::attach::object::KernelFilter;
use crate::attach::socket_source::SocketSource;
use crate::follow::containers::ContainerFilter;

/// The settings that choose what is traced.
#[derive(Clone, Debug)]
pub struct FollowSettings {
    /// The pids that the user named; empty for every nginx.
    pub pids: Vec<u32>,
    /// True to trace masters that start later as well. Tracing then does not end with the last
    /// process.
    pub wait: bool,
    /// The socket source. `None`: the best one that the kernel has.
    pub sockets: Option<SocketSource>,
    /// The filters that run in BPF.
    pub filter: KernelFilter,
    /// What else BPF reads.
    pub extras: Extras,
    /// The redaction of query strings.
    pub redaction: Redaction,
}

impl FollowSettings {
    /// Returns the kernel, if it has everything that tracing with these settings needs.
    pub fn check_kernel(&self) -> Result<Kernel> {
        kernel::check(self.sockets, self.extras.blocked.is_some())
    }
}

/// What the user named for reading processes and their files.
#[derive(Clone, Debug, Default)]
pub struct ReadingSettings {
    /// The files for layouts.
    pub layout: Options,
    /// The containers and pods of which processes are wanted.
    pub containers: ContainerFilter,
    /// True to open the memory of each nginx, for its own counters.
    pub counters: bool,
}

/// How processes and their files are read.
#[derive(Clone)]
pub struct FileReading {
    /// What the user named.
    pub settings: ReadingSettings,
    /// Finds out which inode probes are attached to. `None` when nothing is going to be attached.
    pub mapped: Option<Arc<MappedFiles>>,
    /// The capabilities that the threads that read them keep. `None`: all.
    pub capabilities: Option<CapabilitySet>,
}
