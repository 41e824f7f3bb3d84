// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sizes of files and functions: small enough to be read at once.

use std::fs;
use std::iter;

use super::common::sources::project;
use super::common::sources::sources;

/// The most lines of a file.
const FILE_LINES: usize = 400;

/// The most lines of a function, from its name to its last brace.
const FUNCTION_LINES: usize = 60;

/// The folders with code.
const FOLDERS: [&str; 5] = ["src", "crates", "bpf", "tests", "benches"];

/// Words that may stand before `fn`.
const QUALIFIERS: [&str; 6] = ["const", "unsafe", "async", "extern", "\"C\"", "pub"];

/// Returns each file of code, with its name and its text.
fn files() -> Vec<(String, String)> {
    let files = FOLDERS.iter().flat_map(|folder| sources(folder));
    let is_code = |name: &str| [".rs", ".c", ".h"].iter().any(|end| name.ends_with(end));
    let names = files.map(|path| path.strip_prefix(project()).unwrap().display().to_string());
    let read = |name: String| {
        let text = fs::read_to_string(project().join(&name)).unwrap();
        (name, text)
    };
    names.filter(|name| is_code(name)).map(read).collect()
}

/// Returns the functions of a formatted text, each as its first line and its number of lines. One of C
/// has both of its braces at the beginning of a line.
fn functions<'t>(name: &str, text: &'t str) -> Vec<(&'t str, usize)> {
    let is_rust = name.ends_with(".rs");
    let lines: Vec<&str> = text.lines().collect();
    let functions = (0..lines.len()).filter_map(|at| {
        let (first, end) = match is_rust {
            true => (at, end_of(&lines[at..])?),
            false if lines[at] == "{" => (at.checked_sub(1)?, "}".to_owned()),
            false => return None,
        };
        let last = lines[at..].iter().position(|line| *line == end)?;
        Some((lines[first], at + last + 1 - first))
    });
    functions.collect()
}

/// Returns the last line of the function of Rust that the first of these lines begins. `None` when it
/// begins no function, or one without a body or with an empty one.
fn end_of(lines: &[&str]) -> Option<String> {
    let code = lines.first()?.trim_start();
    if !is_function(code) {
        return None;
    }
    let mut ends = lines.iter().map(|line| line.chars().next_back());
    let opens = ends.find(|end| matches!(end, Some('{' | '}' | ';')))?;
    let indent = &lines[0][..lines[0].len() - code.len()];
    (opens == Some('{')).then(|| format!("{indent}}}"))
}

/// Returns whether a line of Rust begins a function.
fn is_function(code: &str) -> bool {
    let mut words = code.split(' ');
    let is_qualifier = |word: &&str| QUALIFIERS.contains(word) || word.starts_with("pub(");
    words.find(|word| !is_qualifier(word)) == Some("fn")
}

/// Check that no file has too many lines.
#[test]
fn of_files() {
    let files = files();
    assert!(files.len() > 250, "{} files are seen", files.len());
    let long = files.iter().filter_map(|(name, text)| {
        let lines = text.lines().count();
        (lines > FILE_LINES).then(|| format!("{name} has {lines} lines"))
    });
    assert_eq!(Vec::from_iter(long), Vec::<String>::new());
}

/// Check that no function has too many lines.
#[test]
fn of_functions() {
    let mut long = Vec::new();
    let (mut rust, mut c) = (0, 0);
    for (name, text) in files() {
        let functions = functions(&name, &text);
        let count = if name.ends_with(".rs") {
            &mut rust
        } else {
            &mut c
        };
        *count += functions.len();
        for (function, lines) in functions {
            if lines > FUNCTION_LINES {
                long.push(format!("{name}: {lines} lines: {}", function.trim()));
            }
        }
    }
    assert!(rust > 1500 && c > 150, "{rust} and {c} functions are seen");
    assert_eq!(long, Vec::<String>::new());
}

/// Check that the lines of a function are counted, whatever its form, and that a declaration is not
/// taken for one.
#[test]
fn are_seen() {
    let body = |indent: &str| iter::repeat_n(format!("{indent}    x();\n"), 70).collect::<String>();
    let text = [
        "trait T {\n    fn declared(\n        &self,\n    );\n    fn empty() {}\n",
        "    pub(super) const unsafe fn long<T>(\n        x: T,\n    ) {\n",
        &body("    "),
        "    }\n}\nfn short() {\n    fn_call();\n}\n",
    ]
    .concat();
    let found = functions("a.rs", &text);
    let lines: Vec<usize> = found.iter().map(|(_, lines)| *lines).collect();
    assert_eq!(lines, [74, 3]);
    let text = [
        "static void f(int a,\n\t\t     int b)\n{\n",
        &body(""),
        "}\n",
    ]
    .concat();
    let found = functions("a.h", &text);
    assert_eq!(found, [("\t\t     int b)", 73)]);
}
