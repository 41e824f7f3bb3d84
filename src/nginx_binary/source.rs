// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the layout of a binary comes from, and whether the binary's own code bears it out: the
//! first source that has one is asked, and believed when it fits.

use std::path::Path;

use anyhow::Result;
use anyhow::bail;
use serde::Serialize;

use crate::attach::bpf_object;
use crate::cli::LayoutOptions;
use crate::nginx_binary::debug_file;
use crate::nginx_binary::elf::Elf;
use crate::nginx_binary::fit;
use crate::nginx_binary::fit::Fit;
use crate::nginx_binary::fit::Witnesses;
use crate::nginx_binary::inference;
use crate::nginx_binary::layout;
use crate::nginx_binary::layout::Build;
use crate::nginx_binary::layout::Layout;

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

/// From the first that is there: `--layout`, `--debug-info`, the binary's own debug information or
/// its debug file's, the table, and of what is in the table the only one that fits.
///
/// Fails when there is none, or when the binary's code contradicts it.
pub fn find(path: &Path, elf: &Elf<'_>, build: &Build, from: &LayoutOptions) -> Result<Found> {
    let witnesses = Witnesses::of(elf);
    let (source, layout) = match stated(path, elf, build, from)? {
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
            fit::name(differs),
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
    from: &LayoutOptions,
) -> Result<Option<(Source, Layout)>> {
    if let Some(file) = &from.layout {
        return Ok(Some((Source::File, layout::from_file(file, build)?)));
    }
    let wanted = bpf_object::wanted()?;
    if let Some(file) = &from.debug_info {
        let layout = debug_file::layout_from(file, elf, &wanted)?;
        return Ok(Some((Source::Dwarf, layout)));
    }
    if let Some(layout) = debug_file::layout(path, elf, &wanted)? {
        return Ok(Some((Source::Dwarf, layout)));
    }
    Ok(layout::built_in(build)?.map(|layout| (Source::Table, layout)))
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
