// SPDX-License-Identifier: MIT OR Apache-2.0
//! One nginx binary that is to be traced: its build, the layout of its structs, the sites of its
//! probes, and the processes that run it.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Result;
use nginx_binary::Binary;
use nginx_binary::Identity;
use nginx_binary::Options;
use nginx_binary::Unsupported;
use nginx_binary::counters::CounterPlaces;
use nginx_binary::elf::image::Image;
use nginx_binary::files::Files;
use nginx_binary::layout::choose::ChosenLayout;
use nginx_binary::pauses::PausePlaces;
use nginx_binary::sites::ProbeSites;

use crate::attach::program_types;
use crate::follow::processes::Inode;
use crate::follow::processes::NginxProcess;
use crate::follow::processes::OpenedProcess;
use crate::host::escape::Quoted;
use crate::host::foreign;

/// The facts about one binary.
#[derive(Debug)]
pub struct Program {
    /// The file that all its processes run. It is read, and probes are attached, through this
    /// descriptor.
    pub binary: File,
    /// The path of the file, for messages.
    pub path: PathBuf,
    /// The inode of the file.
    pub inode: Inode,
    /// The build of nginx, and the build id of the file.
    pub identity: Identity,
    /// The layout of its structs.
    pub layout: ChosenLayout,
    /// Where its probes go.
    pub probe_sites: ProbeSites,
    /// The bits from `r->http_connection` to `r->uri_changes`. `None` when that is not certain.
    pub uri_changes: Option<u32>,
    /// Where its processes have nginx's own counters. `None` when it does not count.
    pub counters: Option<CounterPlaces>,
    /// The functions that show why nginx makes a request wait.
    pub pauses: PausePlaces,
    /// Its processes: masters, or workers that were asked for.
    pub processes: Vec<NginxProcess>,
}

impl Program {
    /// Reads the file that this process runs.
    ///
    /// Fails when it is not nginx, or not one whose layout is known.
    pub fn read(
        target: OpenedProcess,
        binary: File,
        options: &Options,
    ) -> Result<Self, Unsupported> {
        let OpenedProcess {
            process,
            path,
            inode,
        } = target;
        let read = read(&path, &binary, options).map_err(|unsupported| {
            let (pid, path) = (process.pid, Quoted(&path));
            let context = format!("pid {pid} ({path}) can't be traced");
            Unsupported {
                error: unsupported.error.context(context),
                ..unsupported
            }
        })?;
        Ok(Self {
            binary,
            path,
            inode,
            identity: read.identity,
            layout: read.layout,
            probe_sites: read.probe_sites,
            uri_changes: read.uri_changes,
            counters: read.counters,
            pauses: read.pauses,
            processes: vec![process],
        })
    }

    /// Returns whether one of the processes has not ended.
    pub fn is_alive(&self) -> bool {
        self.processes.iter().any(NginxProcess::is_alive)
    }

    /// Returns the name, the release and the path, for messages.
    pub fn shown(&self) -> String {
        let build_id = self.identity.build_id.as_deref().unwrap_or("none");
        format!(
            "{} at {} (build id {build_id})",
            self.identity.build.name(),
            Quoted(&self.path)
        )
    }
}

/// Reads a binary, with the layout of the members that our BPF program reads.
fn read(path: &Path, binary: &File, options: &Options) -> Result<Binary, Unsupported> {
    let image = Image::read(binary)?;
    let wanted = program_types::wanted()?;
    Binary::read(path, &image, options, &wanted, &SafeFiles)
}

/// Opens further files with the care that a program that runs as root needs.
pub struct SafeFiles;

impl Files for SafeFiles {
    fn stated(&self, path: &Path) -> Result<File> {
        foreign::own(path)
    }

    fn beside(&self, path: &Path) -> Option<File> {
        foreign::beside(path)
    }

    fn beneath(&self, folder: &Path, path: &Path) -> Option<File> {
        foreign::beneath(folder, path)
    }
}
