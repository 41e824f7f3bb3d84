// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf layout FILE`: the struct layout that an nginx binary's debug information states, in the
//! form that `--layout` reads and the built-in table is written in.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use nginx_binary::Identity;
use nginx_binary::build;
use nginx_binary::elf::Elf;
use nginx_binary::elf::debug_file;
use nginx_binary::elf::debug_file::DebugFiles;
use nginx_binary::elf::debug_file::DebugImages;
use nginx_binary::elf::image::Image;
use nginx_binary::files::Files as _;
use nginx_binary::layout::choose;

use crate::attach::program_types;
use crate::follow::program::SafeFiles;
use crate::host::escape::Quoted;
use crate::output;

/// Writes the layout to stdout. Fails when the file is not nginx, or when neither it nor a debug
/// file of the same build has one.
pub fn print_layout(path: &Path) -> Result<()> {
    let context = || format!("failed to read {}", Quoted(path));
    let file = SafeFiles.stated(path).with_context(context)?;
    let image = Image::read(&file).with_context(context)?;
    let mut elf = Elf::parse(&image).with_context(context)?;
    /* The debug file is searched beside the file itself, not beside a link to it. */
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let debug_images = DebugImages::new(&place, &elf, None, &SafeFiles);
    let debug_files = DebugFiles::new(&debug_images, &elf);
    debug_file::add_symbols(&mut elf, &debug_files, &[build::HTTP_CORE])?;
    let identity = Identity::read(&elf).with_context(context);
    let identity = identity.map_err(|error| match elf.symbols().is_empty() {
        true => anyhow!("{error:#}: name the unstripped file of this build"),
        false => error,
    })?;
    let wanted = program_types::wanted()?;
    let chosen = choose::read_debug_info(&place, &elf, &identity, &debug_files, &wanted)?;
    let chosen = chosen.with_context(|| match &identity.build_id {
        Some(build_id) => format!(
            "{} has no debug information, nor has a debug file of build id {build_id}: install its \
             debug symbols, or name the unstripped file of this build, or build it with -g",
            Quoted(path)
        ),
        None => format!(
            "{} has no debug information, and no build id to find its debug file by: name the \
             unstripped file of this build, or build it with -g",
            Quoted(path)
        ),
    })?;
    output::print(chosen.layout.section(&identity.build).as_bytes())
}
