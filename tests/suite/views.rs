// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that show records, on recorded ones: without root and without nginx.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use super::common::sources::project;
use super::common::tool::PROGRAM;

/// What is read: where it comes from, and how hostile it may be.
mod input;

/// Returns the path of a recorded file.
fn recorded(name: &str) -> PathBuf {
    project().join("tests/data").join(name)
}

/// Runs a command with this input and returns its output.
fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .env("LANG", "C.UTF-8")
        .env_remove("LC_ALL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    /* The program may end before it has read everything. */
    let _ = writer.join().unwrap();
    output
}

/// Returns the text of a command that succeeds and says nothing.
fn text(args: &[&str], input: &[u8]) -> String {
    let output = run(args, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    assert!(stderr.is_empty(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the numbers of a summary.
fn numbers(args: &[&str], input: &[u8]) -> Value {
    let text = text(&[&["summary", "--json"], args].concat(), input);
    serde_json::from_str(&text).unwrap()
}

/// Returns the line of the error of a command that fails with this status.
fn error(status: i32, args: &[&str]) -> String {
    let output = run(args, b"");
    assert_eq!(output.status.code(), Some(status), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

/// Check the numbers of a summary against those that jq computes over the same file.
#[test]
fn numbers_of_jq() {
    let file = recorded("incidents.jsonl");
    let known = numbers(&["--group", "status", file.to_str().unwrap()], b"");
    let filter = "map(select(.type == \"request\" and (.tunnel | not)) | .elapsed_ns) | sort
        | [length, add, .[length * 0.5 | ceil - 1], .[length * 0.9 | ceil - 1], max]";
    let output = Command::new("jq")
        .args(["-s", "-c", filter])
        .arg(&file)
        .output();
    let Ok(output) = output else {
        println!("SKIP this machine: jq is not installed");
        return;
    };
    let exact: Vec<u64> = serde_json::from_slice(&output.stdout).unwrap();
    let times = &known["elapsed_ns"];
    let found = ["count", "sum", "p50", "p90", "max"].map(|key| times[key].as_u64().unwrap());
    assert_eq!(
        [found[0], found[1], found[4]],
        [exact[0], exact[1], exact[4]]
    );
    for n in [2, 3] {
        assert!(
            found[n] >= exact[n] && found[n] - exact[n] <= exact[n] / 100,
            "{found:?} {exact:?}"
        );
    }
    let groups = known["groups"].as_array().unwrap();
    for group in groups.iter().filter(|group| group["name"] != "(none)") {
        let name = group["name"].as_str().unwrap();
        assert_eq!(group["requests"], known["statuses"][name], "{name}");
    }
}

/// Check that what can't be read, or has no meaning here, is an error that says what to do.
#[test]
fn errors() {
    let file = recorded("incidents.jsonl");
    let path = file.to_str().unwrap();
    for args in [
        &["summary", "/nowhere"][..],
        &["advise", "/nowhere"],
        &["summary", "--compare", path, "/nowhere"],
    ] {
        let line = error(1, args);
        assert!(line.contains("failed to open \"/nowhere\""), "{line}");
    }
    for command in ["summary", "top", "waterfall", "advise"] {
        for option in ["--tcp", "--duration=1s", "--layout=file"] {
            let line = error(2, &[command, option, path]);
            let (name, _) = option.split_once('=').unwrap_or((option, ""));
            let expected = format!("\"{name}\" is for tracing");
            assert!(line.contains(&expected), "{line}");
        }
    }
    for args in [
        &["top", "-", path, "-"][..],
        &["summary", "--compare", "-", "-"],
    ] {
        let line = error(2, args);
        assert!(
            line.contains("stdin (\"-\") can be read only once"),
            "{line}"
        );
    }
    let line = error(2, &["summary", "--group", "uri", path]);
    assert!(line.contains("--group"), "{line}");
}

/// Check that one screen has room for a summary, unless all of it is asked for.
#[test]
fn one_screen() {
    let file = recorded("incidents.jsonl");
    let file = file.to_str().unwrap();
    for args in [
        &["summary", file][..],
        &["summary", "--status", "400-599", file],
    ] {
        let shown = text(args, b"");
        assert!(shown.lines().count() <= 24, "{shown}");
        let all = text(&[args, &["--all"]].concat(), b"");
        assert!(all.lines().count() >= shown.lines().count(), "{all}");
        let is_cut = shown.ends_with("--all shows the rest\n");
        assert_eq!(is_cut, all != shown, "{shown}");
        assert!(!all.contains("--all"), "{all}");
    }
}

/// Check that a comparison of a file with itself finds nothing, and that one with another file does.
#[test]
fn compared() {
    let [one, other] = ["incidents.jsonl", "records.jsonl"].map(recorded);
    let [one, other] = [one.to_str().unwrap(), other.to_str().unwrap()];
    let compared = |other: &str| -> Value {
        let text = text(&["summary", "--json", "--compare", one, other], b"");
        serde_json::from_str(&text).unwrap()
    };
    let same = compared(one);
    for change in same["elapsed_ns"].as_array().unwrap() {
        assert_ne!(change["more_than_chance"], true, "{change}");
    }
    let differs = compared(other);
    assert_eq!(differs["failed"]["more_than_chance"], true);
    let screen = text(&["summary", "--compare", one, other], b"");
    assert!(screen.contains("99 of 100"), "{screen}");
}

/// Check that the JSON of summaries is as their schemas say.
#[test]
fn schemas() {
    let file = recorded("incidents.jsonl");
    let path = file.to_str().unwrap();
    for (name, args) in [
        ("summary", &["summary", "--json", path][..]),
        (
            "comparison",
            &["summary", "--json", "--compare", path, path],
        ),
    ] {
        let schema = project().join("docs/schema").join(format!("{name}.json"));
        let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let value: Value = serde_json::from_str(&text(args, b"")).unwrap();
        let errors: Vec<_> = validator
            .iter_errors(&value)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// Check the waterfall of the slowest request, of one by its id, and of several in a file of each format.
#[test]
fn waterfall() {
    let file = recorded("incidents.jsonl");
    let path = file.to_str().unwrap();
    let screen = text(&["waterfall", path], b"");
    assert!(screen.contains("id 7955/30/1"), "{screen}");
    assert_eq!(screen, text(&["waterfall", "--id", "7955/30/1", path], b""));
    assert!(error(1, &["waterfall", "--id", "1/2/3", path]).contains("no request has this id"));
    assert!(error(1, &["waterfall", "/dev/null"]).contains("there is no request"));
    let folder = tempfile::tempdir().unwrap();
    let [html, trace, har] = ["a.html", "a.trace", "a.har"].map(|name| folder.path().join(name));
    let printed = text(
        &[
            "waterfall",
            "--slowest=5",
            "--html",
            html.to_str().unwrap(),
            "--trace",
            trace.to_str().unwrap(),
            "--har",
            har.to_str().unwrap(),
            path,
        ],
        b"",
    );
    assert!(printed.is_empty(), "{printed}");
    /* A file that others could read is replaced. */
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(&html, fs::Permissions::from_mode(0o644)).unwrap();
    text(&["waterfall", "--html", html.to_str().unwrap(), path], b"");
    assert_eq!(mode(&html), 0o600);
    let page = fs::read_to_string(html).unwrap();
    assert!(page.contains("7955/30/1") && page.contains("<svg"));
    let har: Value = serde_json::from_str(&fs::read_to_string(har).unwrap()).unwrap();
    assert_eq!(har["log"]["entries"].as_array().unwrap().len(), 5);
    let trace: Value = serde_json::from_str(&fs::read_to_string(trace).unwrap()).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 5);
    let error = error(1, &["waterfall", "--html", "/nowhere/a", path]);
    assert!(error.contains("failed to write \"/nowhere/a\""), "{error}");
}

/// Check the findings of recorded requests, the choice of a rule, and the exit status.
#[test]
fn advise() {
    let file = recorded("incidents.jsonl");
    let path = file.to_str().unwrap();
    let found = run(&["advise", path], b"");
    assert_eq!(found.status.code(), Some(3));
    let screen = String::from_utf8(found.stdout).unwrap();
    assert!(
        screen.contains("closes kept connections too early"),
        "{screen}"
    );
    let one = run(&["advise", "--json", "--rule=keepalive_race", path], b"");
    assert_eq!(one.status.code(), Some(3));
    let finding: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(finding["rule"], "keepalive_race");
    assert_eq!(finding["subject"], "127.0.0.1:9421");
    let none = run(&["advise", "--json", "--rule=tunnels", path], b"");
    assert_eq!((none.status.code(), none.stdout.len()), (Some(0), 0));
    let page = text(&["advise", "--explain", "keepalive_race"], b"");
    assert!(page.starts_with("# "), "{page}");
    assert_eq!(
        run(&["advise", "--rule", "nosuch", path], b"")
            .status
            .code(),
        Some(2)
    );
}
