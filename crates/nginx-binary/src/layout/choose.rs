// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the layout of a binary comes from, and whether the binary's own code bears it out: the
//! first source that has one is asked, and believed when it fits.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use serde::Serialize;

use crate::build::Build;
use crate::elf::Elf;
use crate::elf::debug_file::DebugFiles;
use crate::files::Files;
use crate::layout;
use crate::layout::Layout;
use crate::layout::dwarf;
use crate::layout::inference;
use crate::layout::wanted::WantedMembers;
use crate::layout::witness;
use crate::layout::witness::Fit;
use crate::layout::witness::Witnesses;

/// Where a layout is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Built in: nginx_headers/layouts.txt.
    Table,
    /// `--layout`
    File,
    /// Debug information: of the binary, of its debug file, or `--debug-info`.
    Dwarf,
    /// No one knows this build, but it fits like a known one's, and no other does.
    Inferred,
}

/// The layout that a binary is traced with.
#[derive(Debug)]
pub struct Found {
    /// Where it is from.
    pub source: Source,
    /// Where the structs have their members.
    pub layout: Layout,
    /// How well it fits the binary.
    pub fit: Fit,
}

/// Fails when the binary's code speaks against what its debug information says. (Where it agrees with
/// no known layout either, the compiler's word is believed: forks and other compilers may have what the
/// witnesses do not know.)
pub fn check_stated(elf: &Elf<'_>, build: &Build, layout: &Layout) -> Result<()> {
    check(elf, build, layout, &Witnesses::of(elf))
}

/// The same, with witnesses that have been found.
fn check(elf: &Elf<'_>, build: &Build, layout: &Layout, witnesses: &Witnesses<'_>) -> Result<()> {
    let known = layout::candidates(build)?;
    let own = layout::built_in(build)?;
    let says = inference::contradiction(layout, own.as_ref(), &known, &mut |layout| {
        witnesses.ask(layout)
    });
    if let Some(says) = says {
        bail!(
            "the debug information of {build}, build id {}, is broken: {says}; pass --layout or \
             another --debug-info",
            build_id(elf)
        );
    }
    Ok(())
}

/// What is stated of a binary besides what it says itself.
pub struct Sources<'a> {
    /// The file named by `--layout`.
    pub layout: Option<&'a Path>,
    /// Where its debug information may be.
    pub debug_files: &'a DebugFiles<'a>,
    /// Opens the file of `layout`.
    pub files: &'a dyn Files,
    /// The members that are read.
    pub wanted: &'a WantedMembers,
}

/// Finds the layout of a binary at the first of its sources that has one: `--layout`, `--debug-info`,
/// the binary's own debug information or its debug file's, the built-in table, and of all layouts in
/// the table the only one that fits.
///
/// # Errors
///
/// Fails when no source has one, or when the binary's code contradicts it.
pub fn find(path: &Path, elf: &Elf<'_>, build: &Build, sources: &Sources<'_>) -> Result<Found> {
    let witnesses = Witnesses::of(elf);
    let (source, layout) = match stated(path, elf, build, sources)? {
        Some(stated) => stated,
        None => (Source::Inferred, infer(elf, build, &witnesses)?),
    };
    if source == Source::Dwarf {
        check(elf, build, &layout, &witnesses)?;
    }
    let fit = witnesses.ask(&layout);
    if let (Source::Table | Source::File, Some(differs)) = (source, fit.differ.first()) {
        bail!(
            "the layout of {build} does not fit this binary, build id {}: its code has {} of {} \
             members elsewhere ({} first); pass --debug-info or another --layout",
            build_id(elf),
            fit.differ.len(),
            fit.asked(),
            witness::name(differs),
        );
    }
    Ok(Found {
        source,
        layout,
        fit,
    })
}

/// The layout that somebody or something states for this build.
fn stated(
    path: &Path,
    elf: &Elf<'_>,
    build: &Build,
    sources: &Sources<'_>,
) -> Result<Option<(Source, Layout)>> {
    if let Some(path) = sources.layout {
        let context = || format!("failed to read layout {path:?}");
        let file = sources.files.stated(path).with_context(context)?;
        return Ok(Some((Source::File, layout::from_file(path, &file, build)?)));
    }
    if let Some(layout) = from_debug_info(path, elf, sources.debug_files, sources.wanted)? {
        return Ok(Some((Source::Dwarf, layout)));
    }
    Ok(layout::built_in(build)?.map(|layout| (Source::Table, layout)))
}

/// Reads the layout from the debug information: of the stated file, or else of the binary itself or
/// of the first debug file that has some.
///
/// # Errors
///
/// Fails when debug information is broken or lacks a member that every nginx has, and when the stated
/// file has none.
pub fn from_debug_info(
    path: &Path,
    elf: &Elf<'_>,
    debug_files: &DebugFiles<'_>,
    wanted: &WantedMembers,
) -> Result<Option<Layout>> {
    let context = |path: &Path| format!("failed to read {path:?}");
    if !debug_files.is_stated()
        && let Some(layout) = dwarf::layout(elf, wanted).with_context(|| context(path))?
    {
        return Ok(Some(layout));
    }
    for debug in debug_files.of_build(elf) {
        let (path, debug) = debug?;
        let layout = dwarf::layout(&debug, wanted).with_context(|| context(&path))?;
        if layout.is_none() && debug_files.is_stated() {
            bail!(
                "{path:?} is of this build, but has symbols only, no debug information: pass a file \
                 that has"
            );
        }
        if layout.is_some() {
            return Ok(layout);
        }
    }
    Ok(None)
}

/// The one layout of the table that is this binary's, as its code says.
fn infer(elf: &Elf<'_>, build: &Build, witnesses: &Witnesses<'_>) -> Result<Layout> {
    let known = layout::candidates(build)?;
    inference::choose(&known, &mut |layout| witnesses.ask(layout)).map_err(|why| {
        anyhow::anyhow!(
            "no layout known for {build}, build id {}, and {why}: install its debug symbols, or \
             pass --layout or --debug-info",
            build_id(elf)
        )
    })
}

/// To show.
fn build_id(elf: &Elf<'_>) -> String {
    elf.build_id().unwrap_or_else(|| "none".to_owned())
}
