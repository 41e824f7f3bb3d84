// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a binary's debug information and its symbols are: in itself, or in a file of the same
//! build.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use lzma_rust2::XzReader;

use crate::follow::foreign;
use crate::nginx_binary::dwarf;
use crate::nginx_binary::dwarf::Wanted;
use crate::nginx_binary::elf::Budget;
use crate::nginx_binary::elf::Elf;
use crate::nginx_binary::image::Image;
use crate::nginx_binary::layout::Layout;
use crate::nginx_binary::symbols::Source;
use crate::output::escape::Quoted;

/// What a `.gnu_debugdata` may have, unpacked; Fedora's have some hundred kB.
const DEBUGDATA_BYTES_MAX: u64 = 64 << 20;

/// Memory to unpack it with; `xz -9` asks for 65 MB.
const XZ_MEMORY_KIB_MAX: u32 = 80 << 10;

/// Where distributions put debug files.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// The layout that the binary at `path`, or a debug file where gdb finds it, tells. `None` when
/// neither has debug information.
pub fn layout(path: &Path, elf: &Elf<'_>, wanted: &Wanted) -> Result<Option<Layout>> {
    let context = || format!("failed to read {}", Quoted(path));
    if let Some(layout) = dwarf::layout(elf, wanted).with_context(context)? {
        return Ok(Some(layout));
    }
    for place in places(path, elf) {
        if let Some(file) = place.open()
            && let Some(layout) = read(&place.path(), &file, elf, wanted)?
        {
            return Ok(Some(layout));
        }
    }
    Ok(None)
}

/// The layout that the debug file at `path` tells. Fails when it is not of the binary's build, or
/// has no debug information.
pub fn layout_from(path: &Path, elf: &Elf<'_>, wanted: &Wanted) -> Result<Layout> {
    let context = || format!("failed to read {}", Quoted(path));
    let image = Image::open(path).with_context(context)?;
    let debug = Elf::parse(&image).with_context(context)?;
    check_build(path, &debug, elf)?;
    let layout = dwarf::layout(&debug, wanted).with_context(context)?;
    layout.with_context(|| {
        format!(
            "{} is of this build, but has symbols only, no debug information: pass a file that has",
            Quoted(path)
        )
    })
}

/// Adds what the binary at `path` lacks of these symbols: from `debug_info` if it is told, else from
/// the debug file that is found, then from `.gnu_debugdata`.
///
/// Fails when one of them is broken, or `debug_info` is of another build; not when a symbol is in
/// none.
pub fn add_symbols(
    path: &Path,
    elf: &mut Elf<'_>,
    debug_info: Option<&Path>,
    names: &[&str],
) -> Result<()> {
    let lacks_one = |elf: &Elf<'_>| names.iter().any(|name| elf.symbol(name).is_none());
    if let Some(path) = debug_info
        && lacks_one(elf)
    {
        let context = || format!("failed to read {}", Quoted(path));
        let image = Image::open(path).with_context(context)?;
        let debug = Elf::parse(&image).with_context(context)?;
        check_build(path, &debug, elf)?;
        elf.add_symbols(&debug, Source::DebugFile);
    }
    let places = match debug_info {
        Some(_) => Vec::new(),
        None => places(path, elf),
    };
    for place in places {
        if lacks_one(elf)
            && let Some(file) = place.open()
        {
            let context = || format!("failed to read {}", Quoted(&place.path()));
            let image = Image::read(&file).with_context(context)?;
            let debug = Elf::parse(&image).with_context(context)?;
            if debug.is_of_build(elf) {
                elf.add_symbols(&debug, Source::DebugFile);
            }
        }
    }
    if lacks_one(elf)
        && let Some(packed) = elf.section(".gnu_debugdata", &mut Budget::default())?
    {
        let reader = XzReader::new_mem_limit(&*packed, false, XZ_MEMORY_KIB_MAX);
        let image = Image::read_up_to(DEBUGDATA_BYTES_MAX, reader)
            .context("failed to unpack .gnu_debugdata")?;
        let debug = Elf::parse(&image).context("failed to read .gnu_debugdata")?;
        elf.add_symbols(&debug, Source::GnuDebugdata);
    }
    Ok(())
}

/// Fails when a file that was told to be the binary's debug file is not.
fn check_build(path: &Path, debug: &Elf<'_>, elf: &Elf<'_>) -> Result<()> {
    let build_id = elf.build_id();
    let build_id =
        build_id.context("it has no build id to know its debug file by: pass --layout")?;
    ensure!(
        debug.is_of_build(elf),
        "{} is no debug file of build id {build_id}: its own is {}",
        Quoted(path),
        debug.build_id().as_deref().unwrap_or("none")
    );
    Ok(())
}

/// What a file tells. `None` when it is of another build, or has no debug information.
fn read(path: &Path, file: &File, elf: &Elf<'_>, wanted: &Wanted) -> Result<Option<Layout>> {
    let context = || format!("failed to read {}", Quoted(path));
    let image = Image::read(file).with_context(context)?;
    let debug = Elf::parse(&image).with_context(context)?;
    if !debug.is_of_build(elf) {
        return Ok(None);
    }
    dwarf::layout(&debug, wanted).with_context(context)
}

/// A place where a debug file may be. The binary names it, and so may be anybody's.
enum Place {
    /// Below `DEBUG_FOLDER`, where only root can put a file.
    Shared(PathBuf),
    /// Beside the binary, where whoever put that can put another one.
    Beside(PathBuf),
}

impl Place {
    /// Opens the file, if there is one.
    fn open(&self) -> Option<File> {
        match self {
            Self::Shared(path) => foreign::beneath(DEBUG_FOLDER, path),
            Self::Beside(path) => foreign::beside(path),
        }
    }

    /// Its whole path.
    fn path(&self) -> PathBuf {
        match self {
            Self::Shared(path) => Path::new(DEBUG_FOLDER).join(path),
            Self::Beside(path) => path.clone(),
        }
    }
}

/// Where gdb looks, too: by build id, then by the name in `.gnu_debuglink`. The binary's path has no
/// links in it.
fn places(path: &Path, elf: &Elf<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    if let Some(id) = elf.build_id()
        && let Some((first, rest)) = id.split_at_checked(2)
    {
        let file = format!(".build-id/{first}/{rest}.debug");
        places.push(Place::Shared(file.into()));
    }
    if let (Some(name), Some(folder)) = (elf.debug_link(), path.parent())
        && !name.contains('/')
    {
        places.push(Place::Beside(folder.join(&name)));
        places.push(Place::Beside(folder.join(".debug").join(&name)));
        if let Ok(folder) = folder.strip_prefix("/") {
            places.push(Place::Shared(folder.join(&name)));
        }
    }
    places
}
