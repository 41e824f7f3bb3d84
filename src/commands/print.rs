// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf layout FILE`: the struct layout that an nginx binary's debug information tells, in the
//! form that `--layout` reads and the built-in table is written in.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;

use crate::attach::bpf_object;
use crate::nginx_binary::debug_file;
use crate::nginx_binary::elf::Elf;
use crate::nginx_binary::image::Image;
use crate::nginx_binary::module;
use crate::nginx_binary::source;
use crate::output;
use crate::output::escape::Quoted;

/// Writes the layout to stdout. Fails when the file is not nginx, or when neither it nor a debug
/// file of the same build tells one.
pub fn run(path: &Path) -> Result<()> {
    let context = || format!("failed to read {}", Quoted(path));
    let image = Image::open(path).with_context(context)?;
    let mut elf = Elf::parse(&image).with_context(context)?;
    /* Its debug file is looked for beside the file itself, not beside a link to it. */
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    debug_file::add_symbols(&place, &mut elf, None, &[module::HTTP_CORE])?;
    let build = module::build(&elf).with_context(context)?;
    let layout = debug_file::layout(&place, &elf, &bpf_object::wanted()?)?.with_context(|| {
        format!(
            "{} has no debug information, nor has a debug file of build id {}: install its \
             debug symbols, or build it with -g",
            Quoted(path),
            elf.build_id().as_deref().unwrap_or("none")
        )
    })?;
    source::check_stated(&elf, &build, &layout)?;
    output::print(layout.section(&build).as_bytes())
}
