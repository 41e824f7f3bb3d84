// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of a small shop, traced once and kept, and what reads them besides the tool.

use std::path::PathBuf;

/// The lines as the tool has written them.
pub fn recorded() -> &'static str {
    include_str!("../../data/records.jsonl")
}

/// What tests/fetch has put below ~/.cache/ngx-bpf; `None`, and said, when it is not there.
pub fn cached(path: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let file = cache.or(home)?.join("ngx-bpf").join(path);
    let is_there = file.exists();
    if !is_there {
        println!(
            "SKIP: {} is not there; tests/fetch puts it there",
            file.display()
        );
    }
    is_there.then_some(file)
}
