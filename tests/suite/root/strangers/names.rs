// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that a stranger chooses, in messages and reports.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::as_service;
use super::assert_unharmed;
use super::beside;
use super::count;
use super::requests;
use super::wait_traced;
use crate::suite::common::build::binary;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::open_to_all;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::wait_for;
use crate::suite::common::yard::Yard;

/// A name that clears a terminal, starts a line that looks like the tool's own, turns the direction
/// of text, and is not UTF-8.
const HOSTILE: &[u8] = b"\x1b[2J\nngx-bpf: \xc2\x9b\xe2\x80\xae\xff\"\\";

/// The same name, escaped.
const SHOWN: &str = r#"\x1b[2J\x0angx-bpf: \u{9b}\u{202e}\xff\"\\"#;

/// Returns whether a character could control a terminal.
fn is_unsafe(c: char) -> bool {
    let is_bidi =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_bidi
}

/// Check that a path with such characters is escaped in every message that contains it: about a
/// program that is not an nginx, that is too large, or that may not be read.
#[test]
fn hostile_path_in_messages() {
    let yard = Yard::new();
    let folder = yard.folder().join(OsStr::from_bytes(HOSTILE));
    fs::create_dir(&folder).unwrap();
    open_to_all(&folder);
    for name in ["sleep", "huge", "closed"] {
        copy_program(Path::new("/bin/sleep"), &folder.join(name));
    }
    let huge = fs::File::options().write(true).open(folder.join("huge"));
    huge.unwrap().set_len(1 << 40).unwrap();
    let closed = fs::Permissions::from_mode(0o111);
    fs::set_permissions(folder.join("closed"), closed).unwrap();
    let come = || {
        for name in ["sleep", "huge", "closed"] {
            yard.stranger(&folder.join(name), &["infinity"]);
        }
    };
    let ended = beside(&yard, &["-v"], come);
    for line in &ended.stderr {
        assert!(!line.chars().any(is_unsafe), "{line:?}");
        assert!(
            line.starts_with("ngx-bpf: ") || !line.contains("ngx-bpf"),
            "{line:?}"
        );
    }
    assert_eq!(count(&ended, SHOWN), 3, "{:?}", ended.stderr);
    let nginx = yard.nginx();
    let mut tool = as_service(&yard, &["--json"]);
    wait_traced(&mut tool, &nginx);
    requests(&nginx, 1);
    nginx.wait_logged(1);
    let ended = assert_unharmed(tool, vec![nginx]);
    let line = ended
        .stderr
        .iter()
        .find(|l| l.contains("CAP_DAC_READ_SEARCH"));
    let line = line.unwrap_or_else(|| panic!("{:?}", ended.stderr));
    assert!(
        line.contains(SHOWN) && !line.chars().any(is_unsafe),
        "{line:?}"
    );
}

/// Check that `check` prints such a path escaped, for an nginx that can be traced and for a program
/// that can't, as text and as JSON.
#[test]
fn hostile_path_in_check() {
    let yard = Yard::new();
    let folder = yard.folder().join(OsStr::from_bytes(HOSTILE));
    fs::create_dir(&folder).unwrap();
    open_to_all(&folder);
    let (real, other) = (folder.join("nginx"), folder.join("sleep"));
    copy_program(&binary(), &real);
    copy_program(Path::new("/bin/sleep"), &other);
    let prefix = yard.folder();
    fs::write(
        prefix.join("conf"),
        "daemon off; error_log /dev/null; pid pid; events {} http { access_log off; }",
    )
    .unwrap();
    let mut nginx = yard.command("bash");
    nginx.args(["-c", "exec \"$0\" \"$@\""]).arg(&real);
    nginx.arg("-p").arg(&prefix).args(["-c", "conf"]);
    yard.start(&mut nginx);
    yard.stranger(&other, &["infinity"]);
    let json = wait_for(|| {
        let output = yard.command(PROGRAM).args(["check", "--json"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        let found = report["nginx"].as_array().unwrap();
        let is_ready = |found: &Value| found["processes"][0]["workers"][0].is_u64();
        if found.len() == 2 && found.iter().any(is_ready) {
            return Ok(text);
        }
        Err(format!("{report:#}"))
    });
    assert!(!json.trim_end().chars().any(is_unsafe), "{json:?}");
    let output = yard.command(PROGRAM).arg("check").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        assert!(!line.chars().any(is_unsafe), "{line:?}");
        assert!(!line.starts_with("ngx-bpf: "), "{line:?}");
    }
    assert!(text.contains(&format!("{SHOWN}/sleep")), "{text}");
}
