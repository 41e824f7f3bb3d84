// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an nginx executable says about itself: which build it is, where its structs have their
//! members, and where in its code probes can be placed.
//!
//! Bytes go in, plain data comes out. Nothing in a binary is trusted, and nothing of it is run; the
//! library knows neither libbpf nor processes nor threads, and builds without clang.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Error;
use anyhow::Result;
use anyhow::ensure;

use crate::build::Build;
use crate::code::Machine;
use crate::elf::Elf;
use crate::elf::debug_file;
use crate::elf::debug_file::DebugFiles;
use crate::elf::image::Image;
use crate::files::Files;
use crate::layout::choose;
use crate::layout::choose::Found;
use crate::layout::choose::Sources;
use crate::layout::wanted::WantedMembers;
use crate::sites::Hooks;

pub mod build;
#[cfg(test)]
mod built;
pub mod code;
pub mod elf;
pub mod files;
pub mod layout;
pub mod sites;
pub mod version;

/// What a person states of binaries that do not say enough themselves.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A file of layouts, in the form of `layouts.txt`: the struct layout comes from there.
    pub layout: Option<PathBuf>,
    /// A debug file of the same build: the struct layout, and the symbols that the binary lacks, come
    /// from there.
    pub debug_info: Option<PathBuf>,
}

/// One nginx executable that can be traced.
#[derive(Debug)]
pub struct Binary {
    /// Which nginx it is.
    pub identity: Identity,
    /// Where its structs have their members.
    pub layout: Found,
    /// Where its probes go.
    pub hooks: Hooks,
}

/// Which nginx an executable is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The release, the signature, and the fork.
    pub build: Build,
    /// The build id in hex. `None` when it was linked without one.
    pub build_id: Option<String>,
}

/// Why an executable can't be traced.
#[derive(Debug)]
pub struct Unsupported {
    /// Which nginx it is. `None` when it is not nginx, or that could not be read.
    pub identity: Option<Identity>,
    /// The reason.
    pub error: Error,
}

impl Identity {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Fails when this is not nginx with http, or has no symbols.
    fn read(elf: &Elf<'_>) -> Result<Self> {
        Ok(Self {
            build: build::build(elf)?,
            build_id: elf.build_id(),
        })
    }
}

impl From<Error> for Unsupported {
    fn from(error: Error) -> Self {
        Self {
            identity: None,
            error,
        }
    }
}

impl Binary {
    /// Reads an executable. `path` is where its debug files are searched, and what messages name.
    ///
    /// # Errors
    ///
    /// Fails when it is not nginx, is built for another machine than this one, has no layout that is
    /// known, or no place for a probe.
    pub fn read(
        path: &Path,
        image: &Image,
        options: &Options,
        wanted: &WantedMembers,
        files: &dyn Files,
    ) -> Result<Self, Unsupported> {
        let mut elf = Elf::parse(image)?;
        let debug_files = DebugFiles::new(path, &elf, options.debug_info.as_deref(), files);
        debug_file::add_symbols(&mut elf, &debug_files, &sites::symbols())?;
        let identity = Identity::read(&elf);
        if let Err(error) = ensure_own(elf.machine()) {
            return Err(Unsupported {
                identity: identity.ok(),
                error,
            });
        }
        let identity = identity?;
        let sources = Sources {
            layout: options.layout.as_deref(),
            debug_files: &debug_files,
            files,
            wanted,
        };
        let found = choose::find(path, &elf, &identity.build, &sources)
            .and_then(|layout| Ok((layout, sites::find(&elf)?)));
        match found {
            Ok((layout, hooks)) => Ok(Self {
                identity,
                layout,
                hooks,
            }),
            Err(error) => Err(Unsupported {
                identity: Some(identity),
                error,
            }),
        }
    }
}

/// Fails when a binary is for another machine than this one, whose registers our probes read.
fn ensure_own(machine: Machine) -> Result<()> {
    ensure!(
        machine == Machine::OWN,
        "built for {machine}, and this machine is {}",
        Machine::OWN
    );
    Ok(())
}
