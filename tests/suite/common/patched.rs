// SPDX-License-Identifier: MIT OR Apache-2.0
//! An nginx with some of its bytes changed.

use std::fs;
use std::path::Path;

use super::program::write_program;

/// The bytes to replace, and the bytes that replace them.
pub type Change = (Vec<u8>, Vec<u8>);

/// Copies a binary with some bytes changed. The bytes to replace must be there.
pub fn patch(from: &Path, to: &Path, changes: &[Change]) {
    let mut bytes = fs::read(from).unwrap();
    for (old, new) in changes {
        assert_eq!(old.len(), new.len());
        let places: Vec<usize> = (0..bytes.len() - old.len())
            .filter(|at| bytes[*at..].starts_with(old))
            .collect();
        assert!(!places.is_empty(), "{}", String::from_utf8_lossy(old));
        for at in places {
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
    write_program(to, &bytes);
}

/// Returns the changes that make one release claim to be another.
pub fn renumbered(version: &str, other: &str) -> [Change; 2] {
    let named = |version| format!("nginx/{version}").into_bytes();
    let numbered = |version| number(version).to_le_bytes().to_vec();
    [
        (numbered(version), numbered(other)),
        (named(version), named(other)),
    ]
}

/// Returns the version that a binary prints.
pub fn version(binary: &Path) -> String {
    let bytes = fs::read(binary).unwrap();
    let is_version = |text: &[u8]| text.starts_with(b"\0nginx/1.");
    let at = bytes.windows(9).position(is_version).unwrap() + 7;
    let in_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let text: Vec<u8> = bytes[at..].iter().copied().take_while(in_version).collect();
    String::from_utf8(text).unwrap()
}

/// Returns the `nginx_version` of a release's modules.
fn number(version: &str) -> u64 {
    version.split('.').fold(0, |number, part| {
        number * 1000 + part.parse::<u64>().unwrap()
    })
}
