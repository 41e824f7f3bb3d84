// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the commands of docs/tutorial.md, and compares what they print with what stands there.

use std::fs;
use std::process::Command;

use super::common::sources::project;
use super::common::tool::PROGRAM;

/// Stands for lines that are left out.
const LEFT_OUT: &str = "...";

/// Returns the commands of the tutorial, each with the lines that stand below it.
fn commands(text: &str) -> Vec<(&str, Vec<&str>)> {
    let blocks = text.split("\n```\n").skip(1).step_by(2);
    blocks
        .filter_map(|block| {
            let (command, output) = block.strip_prefix("$ ngx-bpf ")?.split_once('\n')?;
            Some((command, output.lines().collect()))
        })
        .collect()
}

/// Asserts that a text has these lines in order, with others only where they are left out.
fn assert_shown(text: &str, expected: &[&str], command: &str) {
    let mut lines = text.lines();
    let mut may_skip = false;
    for expected in expected {
        if *expected == LEFT_OUT {
            may_skip = true;
            continue;
        }
        let found = match may_skip {
            true => lines.find(|line| line == expected),
            false => lines.next().filter(|line| line == expected),
        };
        assert!(
            found.is_some(),
            "{command}: {expected:?} is not there in\n{text}"
        );
        may_skip = false;
    }
    assert!(
        may_skip || lines.next().is_none(),
        "{command}: more follows in\n{text}"
    );
}

/// Check that each command prints what the tutorial says.
#[test]
fn shown() {
    let text = fs::read_to_string(project().join("docs/tutorial.md")).unwrap();
    let commands = commands(&text);
    assert!(commands.len() >= 5, "{commands:?}");
    for (command, expected) in commands {
        let output = Command::new(PROGRAM)
            .args(command.split_whitespace())
            .current_dir(project().join("tests/data"))
            .env("LANG", "C.UTF-8")
            .env_remove("LC_ALL")
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{command}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_shown(&text, &expected, command);
    }
}
