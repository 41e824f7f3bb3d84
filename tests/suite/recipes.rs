// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every command of docs/recipes.md says what stands below it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::common::recorded::fetched;
use super::common::recorded::recorded;

/// The recipes.
const RECIPES: &str = include_str!("../../docs/recipes.md");

/// Commands, and what the document has them print.
fn commands() -> impl Iterator<Item = (&'static str, &'static str)> {
    RECIPES.split("\n```sh\n").skip(1).map(|part| {
        let (command, rest) = part.split_once("\n```\n").unwrap();
        let printed = rest
            .strip_prefix("\n```\n")
            .and_then(|rest| rest.split("```").next());
        (command, printed.unwrap_or_default())
    })
}

/// Runs those of one program in a folder with the recorded lines.
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

/// Check those for SQLite.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn sqlite() {
    assert_printed("sqlite3", Path::new("/usr/bin"));
}

/// Check those for DuckDB.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn duckdb() {
    let program = fetched("python/bin/duckdb");
    assert_printed("duckdb", program.parent().unwrap());
}
