// SPDX-License-Identifier: MIT OR Apache-2.0
//! One nginx binary that is to be traced: which build it is, where its structs have their members,
//! where its probes go, and which processes run it.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

use crate::cli::LayoutOptions;
use crate::follow::discover::Inode;
use crate::follow::discover::Process;
use crate::follow::discover::Target;
use crate::nginx_binary::debug_file;
use crate::nginx_binary::elf::Elf;
use crate::nginx_binary::hook;
use crate::nginx_binary::hook::Hooks;
use crate::nginx_binary::image::Image;
use crate::nginx_binary::layout::Build;
use crate::nginx_binary::machine::Machine;
use crate::nginx_binary::module;
use crate::nginx_binary::source;
use crate::nginx_binary::source::Found;
use crate::output::escape::Quoted;

/// What there is to know of one binary.
#[derive(Debug)]
pub struct Program {
    /// The file that all its processes run: read, and attached to, through this descriptor.
    pub binary: File,
    /// Its path, to show to people.
    pub path: PathBuf,
    /// The file itself.
    pub inode: Inode,
    /// Of the file that was read.
    pub build_id: Option<String>,
    /// Which nginx it is.
    pub build: Build,
    /// Where its structs have their members.
    pub layout: Found,
    /// Where its probes go.
    pub hooks: Hooks,
    /// Its processes: masters, or workers that were asked for.
    pub processes: Vec<Process>,
}

impl Program {
    /// Reads the file that this process runs.
    ///
    /// Fails when it is not nginx, or not one whose layout is known.
    pub fn read(target: Target, binary: File, from: &LayoutOptions) -> Result<Self> {
        let Target {
            process,
            path,
            inode,
        } = target;
        let pid = process.pid;
        let context = || format!("pid {pid} ({}) can't be traced", Quoted(&path));
        let image = Image::read(&binary).with_context(context)?;
        let elf = parse(&path, &image, from).with_context(context)?;
        ensure_own(elf.machine()).with_context(context)?;
        let build = module::build(&elf).with_context(context)?;
        let build_id = elf.build_id();
        let layout = source::find(&path, &elf, &build, from).with_context(context)?;
        let hooks = hook::find(&elf).with_context(context)?;
        Ok(Self {
            binary,
            path,
            inode,
            build_id,
            build,
            layout,
            hooks,
            processes: vec![process],
        })
    }

    /// Which nginx a binary is, and its build id, also when it can't be traced.
    pub fn identify(
        path: &Path,
        binary: &File,
        from: &LayoutOptions,
    ) -> Result<(Build, Option<String>)> {
        let image = Image::read(binary)?;
        let elf = parse(path, &image, from)?;
        Ok((module::build(&elf)?, elf.build_id()))
    }

    /// Whether one of the processes that were asked for has not ended.
    pub fn is_alive(&self) -> bool {
        self.processes.iter().any(Process::is_alive)
    }

    /// Version and path.
    pub fn shown(&self) -> String {
        let build_id = self.build_id.as_deref().unwrap_or("none");
        format!(
            "nginx {} at {} (build id {build_id})",
            self.build.version,
            Quoted(&self.path)
        )
    }
}

/// A binary, with the symbols that it has elsewhere.
fn parse<'data>(path: &Path, image: &'data Image, from: &LayoutOptions) -> Result<Elf<'data>> {
    let mut elf = Elf::parse(image)?;
    let debug_info = from.debug_info.as_deref();
    debug_file::add_symbols(path, &mut elf, debug_info, &hook::symbols())?;
    Ok(elf)
}

/// Fails when a binary is for another machine than this one: our probes read this one's registers.
fn ensure_own(machine: Machine) -> Result<()> {
    ensure!(
        machine == Machine::OWN,
        "built for {machine}, and this machine is {}",
        Machine::OWN
    );
    Ok(())
}
