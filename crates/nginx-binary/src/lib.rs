// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads what an nginx executable says about itself: which build it is, where its structs have their
//! members, and where in its code probes can be placed.
//!
//! Bytes go in, plain data comes out. A binary is untrusted input and is never run. The library knows
//! neither libbpf nor processes nor threads, and builds without clang.

#![deny(missing_docs)]

use std::path::Path;
use std::path::PathBuf;

use anyhow::Error;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;

use crate::build::Build;
use crate::code::Machine;
use crate::counters::CounterPlaces;
use crate::elf::Elf;
use crate::elf::debug_file;
use crate::elf::debug_file::DebugFiles;
use crate::elf::debug_file::DebugImages;
use crate::elf::image::Image;
use crate::files::Files;
use crate::layout::choose;
use crate::layout::choose::ChosenLayout;
use crate::layout::choose::LayoutSources;
use crate::layout::file;
use crate::layout::remedy;
use crate::layout::uri_changes;
use crate::layout::wanted::WantedMembers;
use crate::pauses::PausePlaces;
use crate::sites::ProbeSites;

pub mod build;
#[cfg(test)]
mod built;
pub mod code;
pub mod counters;
pub mod elf;
pub mod files;
pub mod layout;
pub mod pauses;
pub mod sites;
pub mod unwind;
pub mod version;

/// Files that a person names because a binary does not say enough itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A file in the form of `layouts.txt`, from which the struct layout is read.
    pub layout: Option<PathBuf>,
    /// True to use the layout of that file even where the code of the binary contradicts it.
    pub trust_layout: bool,
    /// A debug file of the same build, from which the symbols that the binary lacks are read, and the struct
    /// layout unless `layout` names a file.
    pub debug_info: Option<PathBuf>,
}

/// One nginx executable that can be traced.
#[derive(Debug)]
pub struct Binary {
    /// The build of nginx that it is.
    pub identity: Identity,
    /// The offsets of the members of its structs, and where they come from.
    pub layout: ChosenLayout,
    /// The instructions that the probes are placed on.
    pub probe_sites: ProbeSites,
    /// The bits from `r->http_connection` to `r->uri_changes`. `None` when that is not certain.
    pub uri_changes: Option<u32>,
    /// Where its processes have nginx's own counters. `None` when it does not count.
    pub counters: Option<CounterPlaces>,
    /// The functions that show why nginx makes a request wait.
    pub pauses: PausePlaces,
}

/// The build of nginx that an executable is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The release, the signature, and the fork.
    pub build: Build,
    /// The build id in lower-case hex. `None` when the executable was linked without one.
    pub build_id: Option<String>,
}

/// The reason why an executable cannot be traced.
#[derive(Debug)]
pub struct Unsupported {
    /// The build of nginx that it is. `None` when it is not nginx, or when its build could not be read.
    pub identity: Option<Identity>,
    /// The reason, with its causes.
    pub error: Error,
}

impl Identity {
    /// Reads the build and the build id.
    ///
    /// # Errors
    ///
    /// Fails when `Build::identify()` does.
    pub fn read(elf: &Elf<'_>) -> Result<Self> {
        Ok(Self {
            build: Build::identify(elf)?,
            build_id: elf.build_id(),
        })
    }

    /// Returns the build id, or "none", for messages.
    pub fn shown_build_id(&self) -> &str {
        self.build_id.as_deref().unwrap_or("none")
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
    /// Reads an executable. `path` names it in messages; its debug files are searched relative to it.
    ///
    /// # Errors
    ///
    /// Fails when the executable is not nginx, is built for another machine than this one, has no known
    /// layout, or has no place for a probe that every request needs.
    pub fn read(
        path: &Path,
        image: &Image,
        options: &Options,
        wanted: &WantedMembers,
        files: &dyn Files,
    ) -> Result<Self, Unsupported> {
        let mut elf = Elf::parse(image)?;
        let stated = options.debug_info.as_deref();
        let debug_images = DebugImages::new(path, &elf, stated, files);
        let debug_files = DebugFiles::new(&debug_images, &elf);
        let verified = debug_files.verify_stated();
        let added = verified.and_then(|()| {
            debug_file::add_symbols(&mut elf, &debug_files, &sites::required_symbols())
        });
        let identity = Identity::read(&elf);
        if let Err(error) = added.and_then(|()| ensure_own(elf.machine())) {
            return Err(Unsupported {
                identity: identity.ok(),
                error,
            });
        }
        let identity = identity.map_err(|error| match elf.symbols().is_empty() {
            true => anyhow!("{error:#}: {}", remedy::for_symbols(&debug_files)),
            false => error,
        })?;
        let stated = options.layout.as_deref();
        let stated = stated.map(|path| file::read_stated(path, files, &identity.build, wanted));
        let read = stated.transpose().and_then(|stated| {
            let sources = LayoutSources {
                stated,
                is_trusted: options.trust_layout,
                debug_files: &debug_files,
                files,
            };
            let layout = choose::choose_layout(path, &elf, &identity, sources, wanted)?;
            let build = &identity.build;
            let uri_changes = uri_changes::locate(&elf, build, &layout.layout)?;
            Ok((layout, uri_changes, ProbeSites::locate(&elf)?))
        });
        match read {
            Ok((layout, uri_changes, probe_sites)) => Ok(Self {
                identity,
                layout: layout.without_unread(),
                pauses: PausePlaces::locate(&elf, &probe_sites.sites),
                probe_sites,
                uri_changes,
                counters: CounterPlaces::locate(&elf),
            }),
            Err(error) => Err(Unsupported {
                identity: Some(identity),
                error,
            }),
        }
    }
}

/// Fails when a binary is built for another machine than this one: the probes read this machine's
/// registers.
fn ensure_own(machine: Machine) -> Result<()> {
    ensure!(
        machine == Machine::OWN,
        "built for {machine}, and this machine is {}",
        Machine::OWN
    );
    Ok(())
}
