// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests `ngx-bpf layout` on small programs with nginx's structs as nginx_headers/nginx.h declares
//! them.

use std::collections::BTreeSet;
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

/// Asserts that the layout of the program is the one that the compiler makes of nginx.h.
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
        "    signature 0\n    connection 8\n    main_conf 16\n    srv_conf 24\n    loc_conf 32\n    read_event_handler 40\n    write_event_handler 48\n    upstream 56\n",
    ] {
        assert!(text.contains(section), "{text}");
    }
}

/// Returns the one line with which `ngx-bpf layout` refuses a file.
fn complaint(file: &Path) -> String {
    let output = layout(file);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

/// Check DWARF 4 and 5, and sections compressed with zlib and zstd.
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
    let help = Command::new("objcopy").arg("--help").output().unwrap();
    if !String::from_utf8_lossy(&help.stdout).contains("zstd") {
        eprintln!("SKIP this machine: its objcopy has no zstd");
        return;
    }
    let folder = TempDir::new().unwrap();
    let file = compile(folder.path(), &["-g"]);
    objcopy(folder.path(), &["--compress-debug-sections=zstd", "nginx"]);
    assert_found(&file);
}

/// Check that the debug file of a stripped binary is found by its link, and only when it belongs to
/// the same build.
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

/// Check that a file that is not nginx, does not exist, or has no debug information is refused.
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
    assert!(line.contains("not a regular file"), "{line}");
}

/// Returns the members of a layout, each with its struct and its offset.
fn members(text: &str) -> BTreeSet<String> {
    let mut current = "";
    let mut found = BTreeSet::new();
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(member) => {
                found.insert(format!("{current}.{member}"));
            }
            None => current = line.trim(),
        }
    }
    found
}

/// Check that broken debug information leads to an error or to a missing member, and never to a
/// wrong offset. The file is cut, and bytes are changed at random all over it, a third of them in
/// the tables at its end.
#[test]
fn broken() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("broken");
    let mut seed: u64 = 1;
    let mut random = |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let assert_told = |bytes: &[u8], right: &BTreeSet<String>| {
        fs::write(&file, bytes).unwrap();
        let output = layout(&file);
        let errors = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => {
                assert_eq!(errors, "");
                let printed = members(&String::from_utf8(output.stdout).unwrap());
                let elsewhere: Vec<_> = printed.difference(right).collect();
                assert!(elsewhere.is_empty(), "{elsewhere:?}");
            }
            code => assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}"),
        }
    };
    for args in [&["-gdwarf-5"][..], &["-gdwarf-4"], &["-g", "-gz=zlib"]] {
        let program = compile(folder.path(), args);
        let whole = fs::read(&program).unwrap();
        let right = members(&String::from_utf8(layout(&program).stdout).unwrap());
        assert!(right.len() > 70, "{right:?}");
        for at in (0..whole.len()).step_by(whole.len() / 50) {
            assert_told(&whole[..at], &right);
        }
        for round in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=random(8) {
                let first = if round % 3 == 0 {
                    whole.len() - 4096
                } else {
                    0
                };
                bytes[first + random(whole.len() - first)] = random(256).try_into().unwrap();
            }
            assert_told(&bytes, &right);
        }
    }
}

/// Check that a file larger than any nginx is not read, neither as the binary nor as its debug
/// file.
#[test]
fn huge() {
    let folder = TempDir::new().unwrap();
    let file = compile(folder.path(), &["-g"]);
    let huge = folder.path().join("nginx.debug");
    fs::copy(&file, &huge).unwrap();
    let link = ["--strip-debug", "--add-gnu-debuglink=nginx.debug", "nginx"];
    objcopy(folder.path(), &link);
    let debug = fs::File::options().write(true).open(&huge).unwrap();
    debug.set_len(1 << 40).unwrap();
    for file in [&huge, &file] {
        let line = complaint(file);
        let expected = format!(
            "\"{}\": its {} bytes exceed the limit",
            huge.display(),
            1_u64 << 40
        );
        assert!(line.contains(&expected), "{line}");
    }
}

/// Check that the size that a compressed section claims is not trusted.
#[test]
fn claims() {
    let folder = TempDir::new().unwrap();
    let file = compile(folder.path(), &["-g", "-gz=zlib"]);
    let mut bytes = fs::read(&file).unwrap();
    // The header of such a section: type 1, reserved, size, alignment 1; then zlib's data.
    let is_header = |at: &usize| {
        let header = &bytes[*at..at + 26];
        header[..8] == [1, 0, 0, 0, 0, 0, 0, 0] && header[16..25] == [1, 0, 0, 0, 0, 0, 0, 0, 0x78]
    };
    let headers: Vec<usize> = (0..bytes.len() - 26).filter(is_header).collect();
    assert!(headers.len() > 2, "{headers:?}");
    for size in [1_u64 << 62, 257 << 20, 255 << 20] {
        for at in &headers {
            bytes[at + 8..at + 16].copy_from_slice(&size.to_le_bytes());
        }
        fs::write(&file, &bytes).unwrap();
        let line = complaint(&file);
        let expected = if size > 256 << 20 {
            format!("section .debug_info claims {size} bytes, which exceeds the limit")
        } else {
            "size does not match".to_owned()
        };
        assert!(line.contains(&expected), "{line}");
    }
}

/// Check that tables that no linker makes are refused before they are read: a thousand sections,
/// and sections that are all as large as the file may be.
#[test]
fn tables() {
    let folder = TempDir::new().unwrap();
    let sections = (0..1000).map(|n| format!(".section .s{n},\"a\",@progbits\n.byte 0\n"));
    let sections: String = sections.collect();
    fs::write(folder.path().join("sections.s"), sections).unwrap();
    let line = complaint(&compile(folder.path(), &["sections.s"]));
    assert!(line.contains("segments exceed the limits"), "{line}");

    let file = compile(folder.path(), &["-g"]);
    let mut bytes = fs::read(&file).unwrap();
    let start = usize::try_from(u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap())).unwrap();
    for header in bytes[start..]
        .chunks_exact_mut(64)
        .filter(|header| header[4] == 1)
    {
        header[32..40].copy_from_slice(&(200_u64 << 20).to_le_bytes());
    }
    fs::write(&file, bytes).unwrap();
    let line = complaint(&file);
    assert!(line.contains("its sections or segments overlap"), "{line}");
}

/// Debug information that no compiler makes: the same unit repeated, with one kind of entry.
struct Crafted {
    /// `DW_TAG_…`
    tag: &'static str,
    /// `DW_AT_…`, `DW_FORM_…`, as assembly.
    attributes: &'static str,
    /// The entries of the unit, each of which begins with the byte 2.
    entries: &'static str,
    units: u32,
}

const STRUCT: &str = "0x13";
const TYPEDEF: &str = "0x16";

impl Crafted {
    /// Returns the one line with which `ngx-bpf layout` refuses it.
    fn complaint(&self) -> String {
        let Self {
            tag,
            attributes,
            entries,
            units,
        } = self;
        let source = format!(
            r#"
            .section .note.GNU-stack,"",@progbits
            .section .debug_str,"MS",@progbits,1
            .fill 1000000, 1, 97; .byte 0
            .section .debug_abbrev,"",@progbits
            .uleb128 1, 0x11; .byte 1; .uleb128 0, 0
            .uleb128 2, {tag}; .byte 0; {attributes}; .uleb128 0, 0
            .byte 0
            .section .debug_info,"",@progbits
            .rept {units}
            .long 8f - 7f
            7: .short 4; .long 0; .byte 8; .byte 1; {entries}
            .byte 0
            8:
            .endr
            "#
        );
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("crafted.s"), source).unwrap();
        complaint(&compile(folder.path(), &["crafted.s"]))
    }
}

/// Check that the work that a small file can multiply is limited: names as long as their section
/// for each entry, attributes that take no byte for each entry, and a table for each unit.
#[test]
fn multiplied_work() {
    for crafted in [
        Crafted {
            tag: STRUCT,
            attributes: ".uleb128 3, 0xe", // DW_AT_name, DW_FORM_strp
            entries: ".rept 1000; .byte 2; .long 0; .endr",
            units: 1,
        },
        Crafted {
            tag: TYPEDEF,
            attributes: ".rept 60000; .uleb128 0x3f, 0x19; .endr", // DW_FORM_flag_present
            entries: ".fill 10000, 1, 2",
            units: 1,
        },
        Crafted {
            tag: TYPEDEF,
            attributes: ".rept 130000; .uleb128 0x3f, 0x19; .endr",
            entries: "",
            units: 1000,
        },
    ] {
        let line = crafted.complaint();
        assert!(
            line.contains("exceeds the limit of 50000000 entries"),
            "{line}"
        );
    }
    let crafted = Crafted {
        tag: TYPEDEF,
        attributes: ".rept 140000; .uleb128 0x3f, 0x19; .endr",
        entries: "",
        units: 1,
    };
    let line = crafted.complaint();
    assert!(
        line.contains("a table of abbreviations exceeds the limit"),
        "{line}"
    );
}

/// Check that references that lead to themselves are refused: a type that is its own type, and a
/// form that is read from the data a thousand times.
#[test]
fn cycles() {
    for crafted in [
        Crafted {
            tag: TYPEDEF,
            attributes: ".uleb128 3, 8, 0x49, 0x13", // DW_FORM_string; DW_AT_type, DW_FORM_ref4
            entries: r#".byte 2; .asciz "ngx_str_t"; .long 12"#,
            units: 1,
        },
        Crafted {
            tag: STRUCT,
            attributes: ".uleb128 3, 0x16", // DW_FORM_indirect
            entries: r#".byte 2; .fill 1000, 1, 0x16; .byte 8; .asciz "ngx_str_t""#,
            units: 1,
        },
    ] {
        let line = crafted.complaint();
        assert!(line.contains("debug information has no ngx_"), "{line}");
    }
}
