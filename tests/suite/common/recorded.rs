// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of a small shop, traced once and kept, and what reads them besides the tool.

use std::path::PathBuf;

use super::cached::cached;

/// The lines as the tool has written them.
pub fn recorded() -> &'static str {
    include_str!("../../data/records.jsonl")
}

/// A program that tests/fetch has put below ~/.cache/ngx-bpf.
pub fn fetched(path: &str) -> PathBuf {
    cached(path, "tests/fetch").expect("tests/missing leaves this test out without its program")
}
