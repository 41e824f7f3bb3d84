// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files for tests: C programs that a test compiles, and builds of nginx that `make test-binaries` keeps.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::elf::image::Image;

/// Builds of tests/NGINX by several compilers, and of forks without modules of their own.
const BUILDS: [&str; 17] = [
    "default",
    "small",
    "debug",
    "unoptimised",
    "fixed",
    "compat",
    "threads",
    "lto",
    "bookworm-lto",
    "mold",
    "clang",
    "clang-19-small",
    "musl",
    "arm64",
    "openresty",
    "kong",
    "tengine",
];

/// Returns these builds, each with its name.
pub fn builds() -> impl Iterator<Item = (&'static str, Image)> {
    let read = |build| image(&cached(&format!("source-{build}/objs/nginx")));
    BUILDS.into_iter().map(move |build| (build, read(build)))
}

/// Returns a file of the cache. Tests that call this are ignored unless `make test-binaries` runs them,
/// which has made the cache.
pub fn cached(path: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let file = cache.or(home).unwrap().join("ngx-bpf").join(path);
    assert!(file.exists(), "make test-binaries makes {file:?}");
    file
}

/// Compiles a C program with the compiler that Rust itself links with.
pub fn compiled(source: &str, flags: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("a.c"), source).unwrap();
    let status = Command::new("cc")
        .args(flags.split(' '))
        .args(["-o", "a", "a.c"])
        .current_dir(folder.path())
        .status();
    assert!(status.unwrap().success());
    let file = folder.path().join("a");
    (folder, file)
}

/// Reads a file.
pub fn image(path: &Path) -> Image {
    Image::read(&std::fs::File::open(path).unwrap()).unwrap()
}
