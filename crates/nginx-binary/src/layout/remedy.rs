// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of an error that says what to do: which file would give the symbols or the layout that are
//! missing. No remedy leads back to what was tried before it: without a file `--debug-info` and `--layout` are
//! named, after `--debug-info` another one or `--layout`, and after `--layout` another one or `--trust-layout`.
//! tests/suite/root/layouts/ways.rs follows each of them.

use std::path::Path;

use crate::build::Build;
use crate::elf::debug_file::DebugFiles;

/// Returns what to do about a binary without any symbol. Its error names the build.
pub fn for_symbols(debug_files: &DebugFiles<'_>) -> String {
    let file = match (debug_files.stated(), debug_files.has_build_id()) {
        (Some(path), _) => format!("{path:?} has none either: pass one that has"),
        (None, true) => "pass its debug file".to_owned(),
        (None, false) => "pass the unstripped file that it was made from".to_owned(),
    };
    format!("{file} as --debug-info, or run an nginx that is not stripped or not static")
}

/// Returns what to do when no layout is known, or when the built-in one does not fit.
pub fn for_layout(debug_files: &DebugFiles<'_>) -> &'static str {
    match (debug_files.stated(), debug_files.has_build_id()) {
        (Some(_), _) => "also pass --layout, or a file with debug information as --debug-info",
        (None, true) => "install its debug symbols, or pass --layout or --debug-info",
        (None, false) => {
            "pass --layout or --debug-info (the unstripped file, since it has no build id)"
        }
    }
}

/// Returns what to do when debug information is broken, or when the code contradicts it.
pub fn for_debug_info(debug_files: &DebugFiles<'_>) -> &'static str {
    match debug_files.stated() {
        Some(_) => "also pass --layout, or another file as --debug-info",
        None => "pass --layout or --debug-info",
    }
}

/// Returns what to do when the code contradicts the file of `--layout`.
pub fn for_stated() -> &'static str {
    "pass what `ngx-bpf layout` prints for an unstripped file of this build, or --trust-layout if you know \
     that this one is right"
}

/// Returns what to do when an installed layout can't be used.
pub fn for_installed(path: &Path) -> String {
    format!("remove {path:?}, or pass --layout")
}

/// Returns what to do when a file of layouts has none for the build, or not all of it.
pub fn for_other_build(build: &Build) -> String {
    format!("print one with `ngx-bpf layout` from an unstripped file of {build}")
}
