// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line without root: help and bad usage. Also checks that the man page has every key
//! of docs/fields.md.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use super::common::tool::PROGRAM;

/// Runs ngx-bpf and waits until it ends.
fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

/// Check that help and version go to stdout and end with 0.
#[test]
fn help() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["-V"],
        &["help"],
        &["help", "check"],
        &["check", "--help"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        let starts = [&b"ngx-bpf"[..], b"Report"];
        assert!(starts.iter().any(|start| output.stdout.starts_with(start)));
    }
}

/// Check that bad usage is one line on stderr and exit code 2.
#[test]
fn bad_usage() {
    for args in [
        &["--nonsense"][..],
        &["operand"],
        &["--pid", "0"],
        &["--pid", "-1"],
        &["--pid", "x"],
        &["--pid", "99999999999"],
        &["--pid", ""],
        &["--pid", "1 x"],
        &["--pid", "1", "x"],
        &["--pid", "--json"],
        &["--count", "0"],
        &["--sample", "0"],
        &["--duration", "10x"],
        &["--duration", "-1s"],
        &["--min-duration", "x"],
        &["--status", "600-500"],
        &["--status", ""],
        &["--method", "G T"],
        &["--format", "xml"],
        &["--json", "--format", "text"],
        &["-v", "-q"],
        &["--wait", "--pid", "1"],
        &["--output"],
        &["--variable", "a b"],
        &["--header", "=x"],
        &["--header", "x="],
        &["--redact", ""],
        &["--redact", "a,,b"],
        &["--redact", "a=b"],
        &["--redact", "a", "--no-query"],
        &["--max-line", "0"],
        &["--max-line", "1024"],
        &["--max-line", "4k"],
        &["--format", "otlp", "--connections"],
        &["--otlp", "127.0.0.1:4318"],
        &["--otlp", "http://a:1/v1/traces", "--connections"],
        &["--format", "otlp", "--service", ""],
        &["--metrics", "host:1"],
        &["--metrics", "0"],
        &["--route", "a=/"],
        &["--metrics", "9913", "--route", "a"],
        &["check", "--sample", "2"],
        &["check", "--pid", "0"],
        &["--json", "check"],
        &["--generate", "tcsh"],
        &["--generate", "man", "--json"],
        &["help", "nonsense"],
    ] {
        let output = run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.starts_with("ngx-bpf: "), "{args:?}: {stderr}");
    }
}

/// Check that a message about bad usage says what was probably meant, which values are possible,
/// and what is missing.
#[test]
fn complaints() {
    for (args, expected) in [
        (
            &["--josn"][..],
            "there is no option \"--josn\": did you mean \"--json\"?",
        ),
        (
            &["chekc"],
            "there is no command \"chekc\": did you mean \"check\"?",
        ),
        (
            &["--format", "yaml"],
            "(it takes text, pretty, json, otel, otlp)",
        ),
        (&["--format", "jsn"], ": did you mean \"json\"?"),
        (&["--route", "a=/"], "\"--route\" changes nothing, since"),
        (
            &["--metrics-names", "otel"],
            "\"--metrics-names\" changes nothing",
        ),
        (
            &["--stats"],
            "\"--stats\" changes nothing, since no metrics are served: add \"--metrics [ADDR:]PORT\"",
        ),
        (
            &["--header=a", "--header=b c"],
            "a name has 1 to 64 letters, digits and !#$%&'*+-.^_`|~",
        ),
        (
            &["-d", "10", "s"],
            "\"--duration <TIME>\" has its value already: put a value with",
        ),
        (
            &["--pid=1", "2"],
            "\"2\" is neither an option nor a command",
        ),
        (
            &["--pid", "1\nx\n"],
            "invalid value \"1\\nx\\n\" for \"--pid <PID>...\": \"x\" is not a pid",
        ),
        (&["--json", "check"], "the command \"check\" comes first"),
        (
            &["--status", "4x"],
            "\"4x\" is not a status: 404, 5xx or 500-503",
        ),
        (&["--output"], "\"--output <FILE>\" needs a value"),
        (&["-d", "10x"], "units: ns, us, ms, s, m, h"),
        (&["layout"], "\"<FILE>\" is missing"),
        (
            &["--metrics", "1", "--route", "a=/", "--metrics", "2"],
            "cannot be used multiple times",
        ),
    ] {
        assert_complaint(args, expected);
    }
}

/// Check the same of options about spans that do not go together with others.
#[test]
fn spans() {
    for (args, expected) in [
        (
            &["--otlp", "https://a:4318"][..],
            "ngx-bpf does not speak TLS: run an OpenTelemetry Collector on this machine",
        ),
        (
            &["--service", "shop"],
            "\"--service\" changes nothing, since there are no spans: add \"--format otlp\" or \"--otlp URL\"",
        ),
        (
            &["--format=otlp", "--blocked=1s"],
            "\"--blocked\" asks for records that are no spans, and only spans are written: leave it out",
        ),
    ] {
        assert_complaint(args, expected);
    }
}

/// Asserts that options are bad usage, and what the message says.
fn assert_complaint(args: &[&str], expected: &str) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains(expected), "{args:?}: {stderr}");
    assert!(stderr.ends_with("; try \"ngx-bpf --help\"\n"), "{stderr}");
}

/// All commands.
const COMMANDS: [&str; 7] = [
    "advise",
    "check",
    "inflight",
    "layout",
    "summary",
    "top",
    "waterfall",
];

/// An option for tests. Help and man page must not have it; clap's completions may.
const HIDDEN: &str = "sockets";

/// Check that a failed write is an error, and that a reader that has left is not.
#[test]
fn unwritten() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    for args in [&["--generate", "man"][..], &["check", "--json"]] {
        let command = || {
            let mut command = Command::new(PROGRAM);
            command.args(args).stderr(Stdio::piped());
            command
        };
        let output = command()
            .stdout(full.try_clone().unwrap())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("failed to write to stdout"), "{stderr}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command().stdout(writer).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("failed to write"), "{args:?}: {stderr}");
    }
}

/// Returns what `--generate` prints.
fn generate(what: &str) -> String {
    let output = run(&["--generate", what]);
    assert_eq!(output.status.code(), Some(0), "{what}");
    assert!(output.stderr.is_empty(), "{what}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the long options in a text: the words after each `mark`, without punctuation at the end.
fn options(text: &str, mark: &str) -> BTreeSet<String> {
    let ends = |c: char| !(c.is_ascii_lowercase() || c == '-');
    let after = text.split(mark).skip(1);
    let words = after.map(|rest| rest.split(ends).next().unwrap().to_owned());
    words.filter(|word| word.len() > 1).collect()
}

/// Check that help, man page and completions have the same options, and that the page has every
/// exit status and every key of a record.
#[test]
fn generated() {
    let commands = COMMANDS.map(|command| vec![command, "--help"]);
    let help: Vec<String> = [vec!["--help"]]
        .iter()
        .chain(&commands)
        .map(|args| String::from_utf8(run(args).stdout).unwrap())
        .collect();
    let expected = options(&help.concat(), "--");
    assert!(expected.contains("min-duration") && expected.contains("generate"));
    let page = generate("man").replace("\\-", "-");
    let pages = COMMANDS.map(|command| generate(&format!("man-{command}")).replace("\\-", "-"));
    assert_eq!(options(&(page.clone() + &pages.concat()), "--"), expected);
    for (command, page_of) in COMMANDS.into_iter().zip(&pages) {
        assert!(page.contains(&format!("ngx-bpf-{command}(8)")), "{command}");
        let help = String::from_utf8(run(&[command, "--help"]).stdout).unwrap();
        assert_eq!(options(page_of, "--"), options(&help, "--"), "{command}");
        assert!(page_of.contains("\n\\fB2\\fR\n"), "{command}");
    }
    for shell in ["bash", "zsh"] {
        let mut completed = options(&generate(shell), "--");
        completed.remove(HIDDEN);
        assert_eq!(completed, expected, "{shell}");
    }
    let fish = generate("fish");
    let fish: Vec<_> = fish.split("\ncomplete ").skip(1).collect();
    let mut completed = options(&fish.concat(), " -l ");
    completed.remove(HIDDEN);
    assert_eq!(completed, expected);
    for text in [&generate("bash"), &generate("zsh"), &generate("fish")] {
        assert!(text.contains("check") && text.contains("layout"));
    }
    for status in ["0", "1", "2"] {
        assert!(page.contains(&format!("\n\\fB{status}\\fR\n")), "{status}");
        assert!(help[0].contains(&format!(" {status} ")), "{status}");
    }
    let fields = include_str!("../../docs/fields.md").lines();
    let keys: Vec<_> = fields
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .collect();
    assert!(keys.len() > 40);
    for (key, _) in keys {
        assert!(page.contains(&format!("\\fB{key}\\fR")), "{key}");
    }
}

/// Returns the words of each line but the last when these words are filled into lines of this length.
fn filled(text: &str, length: usize) -> Vec<usize> {
    let (mut lines, mut words, mut column) = (Vec::new(), 0, 0);
    for word in text.split_whitespace() {
        if words > 0 && column + 1 + word.len() > length {
            lines.push(words);
            (words, column) = (0, 0);
        }
        column += word.len() + usize::from(words > 0);
        words += 1;
    }
    lines
}

/// Check that troff can adjust the terms of the man page, in 80 columns: it complains about a line of one
/// word, such as a path with another one beside it.
#[test]
fn terms_of_man_page() {
    let page = generate("man").replace("\\-", "-");
    let mut terms = 0;
    for paragraph in page.split("\n.TP\n").skip(1) {
        let mut term = paragraph.lines().next().unwrap().to_owned();
        for font in ["\\fB", "\\fI", "\\fR"] {
            term = term.replace(font, "");
        }
        assert!(!filled(&term, 72).contains(&1), "{term}");
        terms += 1;
    }
    assert!(terms > 100, "{terms}");
    assert!(filled(&"x".repeat(50), 72).is_empty());
    assert_eq!(filled(&format!("{0} {0}", "x".repeat(50)), 72), [1]);
}
