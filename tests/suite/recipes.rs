// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that every command of docs/recipes.md prints the output that the document has below it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::common::recorded::fetched;
use super::common::recorded::incidents;
use super::common::recorded::recorded;

/// The document.
const RECIPES: &str = include_str!("../../docs/recipes.md");

/// Records of workers that were blocked.
const BLOCKED: &str = include_str!("../data/blocked.jsonl");

/// Records of connections, and what nginx has logged of them.
const CONNECTIONS: &str = include_str!("../data/connections.jsonl");
const LOG: &str = include_str!("../data/connections.log");

/// The first section whose lines are those of the bad minute.
const INCIDENTS: &str = "\n## Who was cut off, and where?\n";

/// Returns the commands of a part of the document, and their output in the document.
fn commands(part: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    part.split("\n```sh\n").skip(1).map(|part| {
        let (command, rest) = part.split_once("\n```\n").unwrap();
        let printed = rest
            .strip_prefix("\n```\n")
            .and_then(|rest| rest.split("```").next());
        (command, printed.unwrap_or_default())
    })
}

/// Runs the commands of one program on the lines that belong to each part of the document, and compares
/// their output.
fn assert_printed(program: &str, path: &Path) {
    let (first, second) = RECIPES.split_once(INCIDENTS).unwrap();
    for (part, lines) in [
        (first, recorded().to_owned()),
        (second, incidents().to_owned() + BLOCKED + CONNECTIONS),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("requests.json"), lines).unwrap();
        fs::write(folder.path().join("error.log"), LOG).unwrap();
        let imports = commands(first).take_while(|_| part == second).take(1);
        let mut count = 0;
        for (command, printed) in imports.chain(commands(part)) {
            if command.starts_with(program) {
                assert_eq!(run(command, folder.path(), path), printed, "{command}");
                count += 1;
            }
        }
        assert!(count >= 5, "{count} recipes for {program}");
    }
}

/// Runs a command in a folder, and returns its output.
fn run(command: &str, folder: &Path, path: &Path) -> String {
    let old = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-c", command])
        .env("PATH", format!("{old}:{}", path.display()))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Check the recipes for jq.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn jq() {
    assert_printed("jq", Path::new("/usr/bin"));
}

/// Check the recipes for SQLite.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn sqlite() {
    assert_printed("sqlite3", Path::new("/usr/bin"));
}

/// Check the recipes for DuckDB.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn duckdb() {
    let program = fetched("python/bin/duckdb");
    assert_printed("duckdb", program.parent().unwrap());
}
