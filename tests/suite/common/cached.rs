// SPDX-License-Identifier: MIT OR Apache-2.0
//! What our own scripts keep in ~/.cache/ngx-bpf: other builds of nginx, and programs that are not
//! packaged.

use std::path::PathBuf;

/// Returns a file of that folder. When `script` has not put it there yet, prints SKIP and returns
/// `None`. What this machine lacks says nothing about the nginx that is tested: `tests/verdict` leaves
/// it out.
pub fn cached(path: &str, script: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or(home).expect("HOME is set");
    let file = cache.join("ngx-bpf").join(path);
    let is_there = file.exists();
    if !is_there {
        println!(
            "SKIP this machine: {} does not exist: {script} makes it",
            file.display()
        );
    }
    is_there.then_some(file)
}
