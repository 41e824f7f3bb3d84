// SPDX-License-Identifier: MIT OR Apache-2.0
//! ClickHouse's engine, with the tables of packaging/pipelines/clickhouse.

use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use super::sources::project;

/// Returns the folder of the statements.
pub fn statements() -> PathBuf {
    project().join("packaging/pipelines/clickhouse")
}

/// Inserts files of records into new tables, runs statements, and returns what each of them has printed: a table in
/// Markdown. `python` has the engine.
pub fn run(python: &Path, files: &[&Path], statements: &[String]) -> Vec<String> {
    let mut child = Command::new(python)
        .arg(project().join("tests/clickhouse.py"))
        .arg(self::statements())
        .args(files)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input
        .write_all(&serde_json::to_vec(statements).unwrap())
        .unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the cells of a table, without its head.
pub fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table
        .lines()
        .skip(2)
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    lines
        .map(|cells| cells[1..cells.len() - 1].to_vec())
        .collect()
}
