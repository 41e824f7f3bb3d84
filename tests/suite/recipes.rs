// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that every command of docs/recipes.md prints the output that the document has below it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::common::recorded::fetched;
use super::common::recorded::recorded;

/// The document.
const RECIPES: &str = include_str!("../../docs/recipes.md");

/// Returns the commands of the document, and their output in the document.
fn commands() -> impl Iterator<Item = (&'static str, &'static str)> {
    RECIPES.split("\n```sh\n").skip(1).map(|part| {
        let (command, rest) = part.split_once("\n```\n").unwrap();
        let printed = rest
            .strip_prefix("\n```\n")
            .and_then(|rest| rest.split("```").next());
        (command, printed.unwrap_or_default())
    })
}

/// Runs the commands of one program in a folder with the recorded lines, and compares their output.
fn assert_printed(program: &str, path: &Path) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("requests.json"), recorded()).unwrap();
    let mut count = 0;
    for (command, printed) in commands().filter(|(command, _)| command.starts_with(program)) {
        let old = std::env::var("PATH").unwrap();
        let output = Command::new("bash")
            .args(["-c", command])
            .env("PATH", format!("{old}:{}", path.display()))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            printed,
            "{command}"
        );
        count += 1;
    }
    assert!(count >= 6, "{count} recipes for {program}");
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
