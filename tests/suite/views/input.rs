// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the views read: from files and stdin, compressed, interrupted, redacted, and hostile.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;

use ngx_bpf_record::format::escape::is_unsafe;
use serde_json::Value;

use super::numbers;
use super::recorded;
use super::run;
use super::text;
use crate::suite::common::program::kill;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::wait_until;

/// Check that files and stdin, compressed or not, give the same numbers, and that several files are added up.
#[test]
fn sources() {
    let file = recorded("incidents.jsonl");
    let path = file.to_str().unwrap();
    let bytes = fs::read(&file).unwrap();
    let known = numbers(&[path], b"");
    assert_eq!(known["requests"], 75);
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("a.gz");
    let output = Command::new("gzip").arg("-c").arg(&file).output().unwrap();
    fs::write(&packed, output.stdout).unwrap();
    let from_stdin = numbers(&["-"], &bytes);
    for other in [from_stdin, numbers(&[packed.to_str().unwrap()], b"")] {
        for key in ["requests", "statuses", "elapsed_ns", "stages", "incidents"] {
            assert_eq!(other[key], known[key], "{key}");
        }
    }
    let twice = numbers(&[path, path], b"");
    assert_eq!(twice["requests"], 150);
    /* xz is no format that is read: its lines are counted. */
    let packed = folder.path().join("a.xz");
    fs::write(&packed, b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\n\x02").unwrap();
    let unknown = numbers(&[packed.to_str().unwrap()], b"");
    assert_eq!(unknown["requests"], 0);
    assert!(unknown["unread_lines"].as_u64() > Some(0));
}

/// Check that filters choose among recorded requests, and that those that were left out are counted.
#[test]
fn filters() {
    let file = recorded("incidents.jsonl");
    let path = file.to_str().unwrap();
    for (option, requests) in [
        ("--status=499,502,504", 11),
        ("--uri=/reports/", 10),
        ("--method=post", 15),
        ("--min-duration=100ms", 14),
        ("--host=none.example", 0),
    ] {
        let numbers = numbers(&[option, path], b"");
        assert_eq!(numbers["requests"], requests, "{option}");
        assert_eq!(numbers["filtered"], 75 - requests, "{option}");
    }
    let failed = text(&["summary", "--status=499", path], b"");
    assert!(failed.contains("the client left; 127."), "{failed}");
}

/// Check that secrets in query strings are not shown.
#[test]
fn redacted() {
    let line = br#"{"type":"request","pid":1,"scheme":"http","status":200,"request_uri":"/a?sig=hidden","elapsed_ns":5}"#;
    for args in [&["summary", "-"][..], &["summary", "--json", "-"]] {
        let text = text(args, line);
        assert!(
            text.contains("sig=REDACTED") && !text.contains("hidden"),
            "{text}"
        );
    }
}

/// Check that no command writes a byte of a hostile record that a terminal obeys, and that each line fits.
#[test]
fn hostile() {
    let file = fs::read_to_string(recorded("incidents.jsonl")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests\u{1b}[31m.json");
    for text in [
        "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{90}q\u{9c}\u{7f}\r\n\t\0",
        "\u{202e}evil\u{2066}\u{200b}\u{feff}\u{2028}a\u{301}\u{301}",
        "漢字👍\u{1f3fd}👩\u{200d}👧🇩🇪\u{644}\u{627}",
    ] {
        let lines = file.lines().map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            fill(&mut record, text);
            record.to_string() + "\n"
        });
        fs::write(&path, lines.collect::<String>()).unwrap();
        let path = path.to_str().unwrap();
        for args in [
            &["summary", path][..],
            &["summary", "--all", "--group=peer", path],
            &["summary", "--status=499,502,504", path],
            &["summary", "--compare", path, path],
            &["waterfall", "--slowest=100", path],
            &["advise", path],
            &["summary", "--ascii", path],
            &["waterfall", "--ascii", path],
        ] {
            let output = run(args, b"");
            assert!(output.stderr.is_empty(), "{args:?} {output:?}");
            let screen = String::from_utf8(output.stdout).unwrap();
            assert!(screen.lines().count() > 3, "{args:?} {screen}");
            let is_bad =
                |c: char| is_unsafe(c) && c != '\n' || matches!(c, '\u{200b}'..='\u{200d}');
            assert_eq!(screen.find(is_bad), None, "{args:?} {screen:?}");
            assert!(!args.contains(&"--ascii") || screen.is_ascii(), "{screen}");
        }
    }
}

/// Replaces each text of a record that a client or an upstream may choose by this one, and makes uris long.
fn fill(record: &mut Value, text: &str) {
    for (key, value) in record.as_object_mut().unwrap() {
        let is_long = key.ends_with("uri");
        let is_name = key.ends_with("addr") || key.ends_with("name") || key.ends_with("host");
        match value {
            Value::String(value) if is_long => *value = text.repeat(4_096 / text.len()),
            Value::String(value) if is_name || key == "location" => text.clone_into(value),
            Value::Array(values) => {
                let objects = values.iter_mut().filter(|value| value.is_object());
                objects.for_each(|object| fill(object, text));
            }
            _ => {}
        }
    }
}

/// Check that absurd numbers end no command, and that the losses stay on the first line.
#[test]
fn absurd() {
    let max = u64::MAX;
    let lines = format!(
        "{{\"type\":\"lost\",\"time\":\"2026-11-22T17:17:57.972980760Z\",\"count\":{max},\"cause\":\"ring_full\"}}\n\
         {{\"type\":\"blocked\",\"pid\":1,\"duration_ns\":{max},\"waiting_requests\":{max},\"waiting_ns\":{max}}}\n\
         {{\"type\":\"request\",\"pid\":1,\"scheme\":\"http\",\"elapsed_ns\":{max},\"status\":200}}\n"
    );
    let twice = lines.repeat(2);
    for args in [
        &["summary", "-"][..],
        &["advise", "-"],
        &["waterfall", "-"],
        &["summary", "--json", "-"],
    ] {
        let output = run(args, twice.as_bytes());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(0 | 3)) && stderr.is_empty(),
            "{args:?}: {stderr}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(200));
    fs::write(&long, &lines).unwrap();
    let screen = text(&["summary", long.to_str().unwrap()], b"");
    assert!(
        screen.lines().next().unwrap().contains("; lost 18,4"),
        "{screen}"
    );
}

/// Check that Ctrl-C ends the reading of stdin, and that what has come by then is shown.
#[test]
fn interrupted() {
    let records = fs::read(recorded("incidents.jsonl")).unwrap();
    let expected = numbers(&["-"], &records);
    let mut child = Command::new(PROGRAM)
        .args(["summary", "--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&records).unwrap();
    wait_until("it does not read", || {
        rustix::io::ioctl_fionread(&stdin).unwrap() == 0
    });
    kill("INT", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown, expected);
}
