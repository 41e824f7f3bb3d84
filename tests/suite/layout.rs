// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf layout`, on small programs with nginx's structs as nginx_headers/nginx.h declares them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use tempfile::TempDir;

use super::common::imitation::compile;
use super::common::imitation::objcopy;
use super::common::tool::PROGRAM;

/// Runs `ngx-bpf layout`.
fn layout(file: &Path) -> Output {
    Command::new(PROGRAM)
        .arg("layout")
        .arg(file)
        .output()
        .unwrap()
}

/// Checks the layout of the program: the compiler packs what nginx.h declares.
fn assert_found(file: &Path) {
    let output = layout(file);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert_eq!(
        first,
        "nginx 8,4,8,0011111111010111001111111111111111 1.22.1"
    );
    for section in [
        "  ngx_str_t\n    len 0\n    data 8\n",
        "  ngx_http_upstream_state_t\n    status 0\n    header_time 8\n    bytes_received 16\n",
        "    signature 0\n    connection 8\n    upstream 16\n    upstream_states 24\n",
    ] {
        assert!(text.contains(section), "{text}");
    }
}

/// What it complains of, in one line.
fn complaint(file: &Path) -> String {
    let output = layout(file);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

/// Check DWARF 4 and 5, and compressed sections.
#[test]
fn dwarf() {
    for args in [
        &["-gdwarf-4"][..],
        &["-gdwarf-5"],
        &["-gdwarf-5", "-gz=zlib"],
        &["-gdwarf-4", "-O2"],
    ] {
        let folder = TempDir::new().unwrap();
        assert_found(&compile(folder.path(), args));
    }
}

/// Check that the debug file of a stripped binary is found by its link, and only that of its own
/// build.
#[test]
fn debug_file() {
    let folder = TempDir::new().unwrap();
    let file = compile(folder.path(), &["-g"]);
    let objcopy = |args: &[&str]| objcopy(folder.path(), args);
    objcopy(&["--only-keep-debug", "nginx", "nginx.debug"]);
    objcopy(&["--strip-debug", "--add-gnu-debuglink=nginx.debug", "nginx"]);
    assert_found(&file);
    fs::create_dir(folder.path().join(".debug")).unwrap();
    let moved = folder.path().join(".debug/nginx.debug");
    fs::rename(folder.path().join("nginx.debug"), &moved).unwrap();
    assert_found(&file);
    let other = TempDir::new().unwrap();
    fs::copy(compile(other.path(), &["-g", "-O2", "-DX=1"]), &moved).unwrap();
    let line = complaint(&file);
    assert!(
        line.contains("has no debug information, nor has a debug file of build id"),
        "{line}"
    );
}

/// Check that what is not nginx, not there, or without debug information is refused.
#[test]
fn refused() {
    let folder = TempDir::new().unwrap();
    let line = complaint(&folder.path().join("nothing"));
    assert!(line.contains("No such file"), "{line}");
    let line = complaint(Path::new("/proc/self/exe"));
    assert!(line.contains("not nginx with http"), "{line}");
    let line = complaint(&compile(folder.path(), &[]));
    assert!(line.contains("build it with -g"), "{line}");
    let line = complaint(Path::new("/dev/zero"));
    assert!(line.contains("not a file"), "{line}");
}

/// Check that broken debug information is an error at the worst: bytes changed all over the file,
/// and the file cut.
#[test]
fn broken() {
    let folder = TempDir::new().unwrap();
    let whole = fs::read(compile(folder.path(), &["-gdwarf-5"])).unwrap();
    let file = folder.path().join("broken");
    let step = whole.len() / 150;
    for at in (0..whole.len()).step_by(step) {
        let mut bytes = whole.clone();
        for byte in bytes[at..].iter_mut().take(4) {
            *byte = 0xff;
        }
        fs::write(&file, bytes).unwrap();
        let code = layout(&file).status.code();
        assert!(matches!(code, Some(0 | 1)), "{at}: {code:?}");
        fs::write(&file, &whole[..at]).unwrap();
        let code = layout(&file).status.code();
        assert!(matches!(code, Some(0 | 1)), "{at}: {code:?}");
    }
}
