// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a binary's debug information is: in itself, or in a file of the same build.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

use crate::dwarf;
use crate::dwarf::Wanted;
use crate::elf::Elf;
use crate::elf::Image;
use crate::layout::Layout;

/// Where distributions put debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// The layout that the binary at `path`, or a debug file where gdb finds it, tells. `None` when
/// neither has debug information.
pub fn layout(path: &Path, elf: &Elf<'_>, wanted: &Wanted) -> Result<Option<Layout>> {
    let context = || format!("failed to read \"{}\"", path.display());
    if let Some(layout) = dwarf::layout(elf, wanted).with_context(context)? {
        return Ok(Some(layout));
    }
    for candidate in candidates(path, elf) {
        if candidate.is_file()
            && let Some(layout) = read(&candidate, elf, wanted)?
        {
            return Ok(Some(layout));
        }
    }
    Ok(None)
}

/// The layout that the debug file at `path` tells. Fails when it is not of the binary's build, or
/// has no debug information.
pub fn layout_from(path: &Path, elf: &Elf<'_>, wanted: &Wanted) -> Result<Layout> {
    read(path, elf, wanted)?.with_context(|| {
        format!(
            "\"{}\" is no debug file of build id {}",
            path.display(),
            elf.build_id().as_deref().unwrap_or("none")
        )
    })
}

/// What a file tells. `None` when it is of another build, or has no debug information.
fn read(path: &Path, elf: &Elf<'_>, wanted: &Wanted) -> Result<Option<Layout>> {
    let context = || format!("failed to read \"{}\"", path.display());
    let image = open(path).with_context(context)?;
    let debug = Elf::parse(&image).with_context(context)?;
    if elf.build_id().is_none() || debug.build_id() != elf.build_id() {
        return Ok(None);
    }
    dwarf::layout(&debug, wanted).with_context(context)
}

/// A whole file. What is not a file is not opened: a pipe would make us wait.
pub fn open(path: &Path) -> Result<Image> {
    ensure!(path.metadata()?.is_file(), "not a file");
    Image::read(&File::open(path)?)
}

/// Where gdb looks, too: by build id, then by the name in `.gnu_debuglink`.
fn candidates(path: &Path, elf: &Elf<'_>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(id) = elf.build_id()
        && let Some((first, rest)) = id.split_at_checked(2)
    {
        files.push(format!("{DEBUG_FOLDER}/.build-id/{first}/{rest}.debug").into());
    }
    if let (Some(name), Some(folder)) = (elf.debug_link(), path.parent())
        && !name.contains('/')
    {
        files.push(folder.join(&name));
        files.push(folder.join(".debug").join(&name));
        if let Ok(folder) = folder.canonicalize() {
            files.push(PathBuf::from(format!("{DEBUG_FOLDER}{}", folder.display())).join(&name));
        }
    }
    files
}
