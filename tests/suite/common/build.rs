// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which nginx is tested, and how it was built.

use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::cached::cached;
use super::sources::project;

/// With this option nginx has no `$upstream_cache_status`.
pub const WITHOUT_CACHE: &str = "--without-http-cache";

/// Modules that are built in unless an option leaves them out: the one of `return`, `set` and `if`,
/// and another one.
pub const REWRITE: &str = "http_rewrite_module";
pub const MEMCACHED: &str = "http_memcached_module";
/// Modules that limit requests, which are built in unless an option leaves them out.
pub const LIMIT_REQ: &str = "http_limit_req_module";
pub const LIMIT_CONN: &str = "http_limit_conn_module";

/// The module of HTTP/3, which no Debian before trixie builds in.
pub const HTTP3: &str = "http_v3_module";

/// This machine's own nginx, even when the environment names another one, which may be a script.
pub const DEBIAN: &str = "/usr/sbin/nginx";

/// Returns Debian's nginx, unless the environment names another one.
pub fn binary() -> PathBuf {
    std::env::var_os("NGX_BPF_TEST_NGINX").map_or(DEBIAN.into(), PathBuf::from)
}

/// Returns whether a script runs it, in a root folder of its own.
pub fn is_script() -> bool {
    std::fs::read(binary()).unwrap().starts_with(b"#!")
}

/// Returns a file that `make test-nginx` keeps. When it is of another build than would be made now, prints
/// SKIP and returns `None`.
pub fn kept(path: &str) -> Option<PathBuf> {
    let file = cached(path, "make test-nginx")?;
    let folder = path.split('/').next().unwrap();
    let Some(name) = folder.strip_prefix("source-") else {
        return Some(file);
    };
    let mut command = Command::new(project().join("tests/builds/run"));
    let output = command.args(["--is-current", name]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.is_empty(), "{said}");
    let is_current = output.status.success();
    if !is_current {
        println!(
            "SKIP this machine: {} is of an earlier build: make test-nginx makes it again",
            file.display()
        );
    }
    is_current.then_some(file)
}

/// Returns the address and the size of a function, exported or not, from nm.
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

/// A part of a file that is mapped into memory.
pub struct Segment {
    /// The offset of its first byte in the file.
    offset: usize,
    /// The address of its first byte, as linked.
    address: u64,
    /// Its bytes in the file.
    size: usize,
}

impl Segment {
    /// Returns the one that has an address, from readelf.
    pub fn of(file: &Path, address: u64) -> Self {
        let output = Command::new("readelf").arg("-lW").arg(file).output();
        let output = output.expect("binutils are installed by make test");
        let text = String::from_utf8(output.stdout).unwrap();
        let hex = |text: &str| u64::from_str_radix(&text[2..], 16).unwrap();
        let mut segments = text.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["LOAD", offset, address, _, size, ..] = words[..] else {
                return None;
            };
            Some(Self {
                offset: usize::try_from(hex(offset)).unwrap(),
                address: hex(address),
                size: usize::try_from(hex(size)).unwrap(),
            })
        });
        let has_it = |segment: &Self| {
            (segment.address..segment.address + segment.size as u64).contains(&address)
        };
        segments.find(has_it).unwrap()
    }

    /// Returns the offsets in the file from an address of this segment to its end.
    pub fn places_from(&self, address: u64) -> Range<usize> {
        let into = usize::try_from(address - self.address).unwrap();
        self.offset + into..self.offset + self.size
    }

    /// Returns the address of an offset in the file.
    pub fn address_of(&self, place: usize) -> u64 {
        self.address + (place - self.offset) as u64
    }
}

/// Returns the build id of a file, from readelf.
pub fn build_id(file: &Path) -> String {
    let output = Command::new("readelf").arg("-n").arg(file).output();
    let output = output.expect("binutils are installed by make test");
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, id) = text.split_once("Build ID: ").unwrap();
    id.split_whitespace().next().unwrap().to_owned()
}

/// Returns the version of nginx and the arguments of `./configure` with which it was built.
pub fn about(binary: &Path) -> String {
    let output = Command::new(binary).arg("-hV").output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns whether this nginx has an optional module.
pub fn is_built_with(module: &str) -> bool {
    let about = about(&binary());
    match module {
        "http-cache" => !about.contains(WITHOUT_CACHE),
        REWRITE | MEMCACHED | LIMIT_REQ | LIMIT_CONN => {
            !about.contains(&format!("--without-{module}"))
        }
        _ => about.contains(module),
    }
}

/// Returns whether this nginx lacks a module, and then prints that the test is skipped.
pub fn is_built_without(module: &str) -> bool {
    let is_there = is_built_with(module);
    if !is_there {
        println!("SKIP: this nginx is built without {module}");
    }
    !is_there
}

/// Returns whether this nginx is older than a release.
pub fn is_older_than(release: (u32, u32, u32)) -> bool {
    let about = about(&binary());
    let version = about.split_once("nginx/").unwrap().1;
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    (next(), next(), next()) < release
}

/// Returns whether this nginx is older than a release that introduced something, and then prints
/// that the test is skipped.
pub fn is_before(release: (u32, u32, u32), what: &str) -> bool {
    let is_before = is_older_than(release);
    if is_before {
        let (major, minor, patch) = release;
        println!("SKIP: {what} came with nginx {major}.{minor}.{patch}");
    }
    is_before
}
