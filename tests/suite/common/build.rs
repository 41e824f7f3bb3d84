// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which nginx is tested, and what it was built with.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::cached::cached;

/// Then there is no `$upstream_cache_status`.
pub const WITHOUT_CACHE: &str = "--without-http-cache";

/// Modules that are there unless they are left out: that of `return`, `set` and `if`, and another.
pub const REWRITE: &str = "http_rewrite_module";
pub const MEMCACHED: &str = "http_memcached_module";

/// The module of HTTP/3, which no Debian before trixie has.
pub const HTTP3: &str = "http_v3_module";

/// Debian's nginx, unless the environment names another one.
pub fn binary() -> PathBuf {
    std::env::var_os("NGX_BPF_TEST_NGINX").map_or("/usr/sbin/nginx".into(), PathBuf::from)
}

/// A file that `make test-nginx` keeps.
pub fn kept(path: &str) -> Option<PathBuf> {
    cached(path, "make test-nginx")
}

/// The address and the size of a function, exported or not, as nm has them.
pub fn function(file: &Path, name: &str) -> (u64, u64) {
    let symbols = |args: &[&str]| {
        let output = Command::new("nm").arg("-S").args(args).arg(file).output();
        String::from_utf8(output.expect("binutils are installed by make test").stdout).unwrap()
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    (symbols(&["-D"]) + &symbols(&[]))
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.len() == 4 && words[3] == name)
        .map(|words| (hex(words[0]), hex(words[1])))
        .unwrap()
}

/// Its options, and the arguments of `./configure` that it was built with.
pub fn about(binary: &Path) -> String {
    let output = Command::new(binary).arg("-hV").output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether this nginx has an optional module.
pub fn is_built_with(module: &str) -> bool {
    let about = about(&binary());
    match module {
        "http-cache" => !about.contains(WITHOUT_CACHE),
        REWRITE | MEMCACHED => !about.contains(&format!("--without-{module}")),
        _ => about.contains(module),
    }
}

/// Whether it lacks one; then it is said that the test is skipped.
pub fn is_built_without(module: &str) -> bool {
    let is_there = is_built_with(module);
    if !is_there {
        println!("SKIP: this nginx is built without {module}");
    }
    !is_there
}

/// Whether this nginx is older than a release that brought something; then it is said that the test is
/// skipped.
pub fn is_before(release: (u32, u32, u32), what: &str) -> bool {
    let about = about(&binary());
    let version = about.split_once("nginx/").unwrap().1;
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    let is_before = (next(), next(), next()) < release;
    if is_before {
        let (major, minor, patch) = release;
        println!("SKIP: {what} came with nginx {major}.{minor}.{patch}");
    }
    is_before
}
