// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last column of the tables in docs/compatibility.md.

use std::fs;
use std::process::Command;

use tempfile::NamedTempFile;

use super::common::sources::project;

/// A test that passed although it was skipped, and why.
fn skipped(test: &str, reason: &str) -> String {
    format!("---- suite::root::{test} stdout ----\n{reason}\n")
}

/// Returns what `tests/verdict` prints of a log, to stdout and to stderr.
fn verdict(log: &str) -> (String, String) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), log).unwrap();
    let mut command = Command::new(project().join("tests/verdict"));
    let output = command.arg(file.path()).output().unwrap();
    let [said, heard] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (said.trim_end().to_owned(), heard)
}

/// Check that a row is the same whatever the machine lacks, which is reported, and that what the build
/// lacks and what fails stands in the row.
#[test]
fn rows() {
    let result = "test result: ok. 9 passed; 0 failed\n";
    let machine = [
        skipped("metrics::served", "SKIP this machine: no Prometheus"),
        skipped("http3::simple", "SKIP this machine: no aioquic"),
        skipped("tls::kernel::sent", "SKIP this kernel: no TLS"),
    ]
    .concat();
    let build = skipped("cache::hit", "SKIP: this nginx is built without a cache");
    assert_eq!(verdict(result), ("all".to_owned(), String::new()));
    let (said, heard) = verdict(&format!("{machine}{result}"));
    assert_eq!(said, "all");
    assert_eq!(heard.lines().count(), 3);
    assert!(heard.contains("SKIP metrics::served: this machine: no Prometheus"));
    let (said, _) = verdict(&format!("{machine}{build}{build}{result}"));
    assert_eq!(said, "all but parts of cache");
    let failed = "test suite::root::cache::hit ... FAILED\n";
    let (said, _) = verdict(&format!("{failed}{machine}{result}"));
    assert_eq!(said, "not: cache::hit");
    assert_eq!(verdict("").0, "did not run");
}
