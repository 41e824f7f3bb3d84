// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses the layout of a binary: from the first source that has one, provided that the binary's own code
//! does not contradict it.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use serde::Serialize;

use crate::build::Build;
use crate::elf::Elf;
use crate::elf::debug_file::DebugFiles;
use crate::layout;
use crate::layout::Layout;
use crate::layout::dwarf;
use crate::layout::inference;
use crate::layout::wanted::WantedMembers;
use crate::layout::witness;
use crate::layout::witness::Agreement;
use crate::layout::witness::Witnesses;

/// The source of a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutOrigin {
    /// The built-in table, `layouts.txt`.
    Table,
    /// The file that `--layout` names.
    File,
    /// Debug information: of the binary, of its debug file, or of the file that `--debug-info` names.
    Dwarf,
    /// Inferred: the build is not known, but its code agrees with exactly one known layout.
    Inferred,
}

/// The layout that a binary is traced with.
#[derive(Debug)]
pub struct ChosenLayout {
    /// The source of the layout.
    pub source: LayoutOrigin,
    /// The offsets of the members.
    pub layout: Layout,
    /// The members in which the code of the binary agrees.
    pub fit: Agreement,
}

/// Reads the layout from debug information as `from_debug_info()` does, and checks it against the code of the
/// binary. Where the code agrees with no known layout either, the debug information is believed: forks and
/// other compilers may produce code that the witnesses do not understand.
///
/// # Errors
///
/// Fails when `from_debug_info()` does, or when the code contradicts the debug information.
pub fn read_debug_info(
    path: &Path,
    elf: &Elf<'_>,
    build: &Build,
    debug_files: &DebugFiles<'_>,
    wanted: &WantedMembers,
) -> Result<Option<ChosenLayout>> {
    let Some(layout) = from_debug_info(path, elf, debug_files, wanted)? else {
        return Ok(None);
    };
    let witnesses = Witnesses::new(elf);
    let mut examine = |layout: &Layout| witnesses.examine(layout);
    let fit = examine(&layout);
    let contradiction = if fit.differ.is_empty() {
        layout::built_in(build)?
            .and_then(|own| inference::contradicted_by_own(&layout, &own, &mut examine))
    } else {
        let known = layout::known_layouts(build)?;
        inference::contradicted_by_known(&fit, &known, &mut examine)
    };
    if let Some(contradiction) = contradiction {
        bail!(
            "the debug information of {build}, build id {}, is broken: {contradiction}; pass --layout or \
             another --debug-info",
            build_id(elf)
        );
    }
    Ok(Some(ChosenLayout {
        source: LayoutOrigin::Dwarf,
        layout,
        fit,
    }))
}

/// Chooses the layout of a binary from the first source that has one: the file of `--layout`, that of
/// `--debug-info`, the debug information of the binary or of its debug file, the built-in table, and at last
/// inference. `path` names the binary in messages; `stated` is the layout of the file of `--layout`.
///
/// # Errors
///
/// Fails when a source is broken, when none has a layout, or when the binary's code contradicts it.
pub fn choose_layout(
    path: &Path,
    elf: &Elf<'_>,
    build: &Build,
    stated: Option<Layout>,
    debug_files: &DebugFiles<'_>,
    wanted: &WantedMembers,
) -> Result<ChosenLayout> {
    if let Some(layout) = stated {
        return fitting(elf, build, LayoutOrigin::File, layout);
    }
    if let Some(chosen) = read_debug_info(path, elf, build, debug_files, wanted)? {
        return Ok(chosen);
    }
    match layout::built_in(build)? {
        Some(layout) => fitting(elf, build, LayoutOrigin::Table, layout),
        None => infer(elf, build),
    }
}

/// Returns a layout that was not made from this binary. Fails when the binary's code contradicts it.
fn fitting(
    elf: &Elf<'_>,
    build: &Build,
    source: LayoutOrigin,
    layout: Layout,
) -> Result<ChosenLayout> {
    let fit = Witnesses::new(elf).examine(&layout);
    if let Some(differs) = fit.differ.first() {
        bail!(
            "the layout of {build} does not fit this binary, build id {}: its code has {} of {} \
             members elsewhere ({} first); pass --debug-info or another --layout",
            build_id(elf),
            fit.differ.len(),
            fit.asked(),
            witness::path_name(differs),
        );
    }
    Ok(ChosenLayout {
        source,
        layout,
        fit,
    })
}

/// Reads the layout from debug information: of the stated file, or else of the binary itself or of the first
/// debug file that has any. `None` when there is no debug information.
///
/// # Errors
///
/// Fails when debug information is broken or lacks a member that every nginx has, or when the stated file has
/// none.
pub fn from_debug_info(
    path: &Path,
    elf: &Elf<'_>,
    debug_files: &DebugFiles<'_>,
    wanted: &WantedMembers,
) -> Result<Option<Layout>> {
    let context = |path: &Path| format!("failed to read {path:?}");
    if !debug_files.is_stated()
        && let Some(layout) = dwarf::read_layout(elf, wanted).with_context(|| context(path))?
    {
        return Ok(Some(layout));
    }
    for debug in debug_files.matching() {
        let (path, debug) = debug?;
        let layout = dwarf::read_layout(&debug, wanted).with_context(|| context(&path))?;
        if layout.is_none() && debug_files.is_stated() {
            bail!(
                "{path:?} has the right build id, but only symbols and no debug information: pass a \
                 file that has"
            );
        }
        if layout.is_some() {
            return Ok(layout);
        }
    }
    Ok(None)
}

/// Infers the layout from the code of the binary.
fn infer(elf: &Elf<'_>, build: &Build) -> Result<ChosenLayout> {
    let known = layout::known_layouts(build)?;
    let witnesses = Witnesses::new(elf);
    let inferred = inference::infer_layout(&known, &mut |layout| witnesses.examine(layout));
    let (layout, fit) = inferred.map_err(|reason| {
        anyhow::anyhow!(
            "no layout known for {build}, build id {}, and {reason}: install its debug symbols, or \
             pass --layout or --debug-info",
            build_id(elf)
        )
    })?;
    Ok(ChosenLayout {
        source: LayoutOrigin::Inferred,
        layout,
        fit,
    })
}

/// Returns the build id for messages.
fn build_id(elf: &Elf<'_>) -> String {
    elf.build_id().unwrap_or_else(|| "none".to_owned())
}
