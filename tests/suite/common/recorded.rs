// SPDX-License-Identifier: MIT OR Apache-2.0
//! Recorded lines of two small shops, and programs that read them.

use std::path::PathBuf;

use super::cached::cached;

/// Returns the lines as the tool wrote them.
pub fn recorded() -> &'static str {
    include_str!("../../data/records.jsonl")
}

/// Returns the lines of a bad minute: clients that leave or read slowly, upstreams that close connections,
/// and a worker that was stopped.
pub fn incidents() -> &'static str {
    include_str!("../../data/incidents.jsonl")
}

/// A program that tests/fetch has put below ~/.cache/ngx-bpf.
pub fn fetched(path: &str) -> PathBuf {
    cached(path, "tests/fetch").expect("tests/missing leaves this test out without its program")
}
