// SPDX-License-Identifier: MIT OR Apache-2.0
//! Symbols of an nginx that does not export its functions, and of one that exports functions that
//! it does not use.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::suite::common::build::Segment;
use crate::suite::common::build::binary;
use crate::suite::common::build::function;
use crate::suite::common::build::kept;
use crate::suite::common::client::Client;
use crate::suite::common::imitation::check;
use crate::suite::common::imitation::compile;
use crate::suite::common::imitation::tool;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::open_to_all;
use crate::suite::common::program::write_program;
use crate::suite::common::tool::Tool;

/// Compiler arguments for a program that exports nothing, with debug information.
const STATIC: [&str; 3] = ["-static", "-no-pie", "-g"];

/// Returns where the symbols of the probes come from.
fn source(file: &Path, args: &[&str]) -> String {
    let report = check(file, args);
    let probes = report["nginx"][0]["probes"].as_array();
    let probes = probes.unwrap_or_else(|| panic!("{report:#}"));
    let sources: Vec<&str> = probes
        .iter()
        .map(|probe| probe["symbol"].as_str().unwrap())
        .collect();
    assert_eq!(sources, [sources[0]; 2]);
    sources[0].to_owned()
}

/// Returns the one line that says why a file can't be traced.
fn refusal(file: &Path, args: &[&str]) -> String {
    let report = check(file, args);
    let reason = report["reason"].as_str();
    let reason = reason.unwrap_or_else(|| panic!("{report:#}")).to_owned();
    assert_eq!(reason.lines().count(), 1, "{reason}");
    reason
}

/// Returns a stripped copy of the program in a folder, with an additional section.
fn stripped_with(folder: &Path, section: &str) -> PathBuf {
    let section = format!(".gnu_debugdata={section}");
    tool(
        folder,
        "objcopy",
        &["-S", "--add-section", &section, "nginx", "stripped"],
    );
    folder.join("stripped")
}

/// Check every place of symbols, and the message when there are none.
#[test]
fn sources() {
    let folder = TempDir::new().unwrap();
    assert_eq!(source(&compile(folder.path(), &[]), &[]), "dynsym");
    let file = compile(folder.path(), &["-Wl,--no-export-dynamic"]);
    assert_eq!(source(&file, &[]), "symtab");
    let file = compile(folder.path(), &STATIC);
    assert_eq!(source(&file, &[]), "symtab");

    let run = |name, args: &[&str]| tool(folder.path(), name, args);
    run("objcopy", &["--only-keep-debug", "nginx", "symbols"]);
    run("strip", &["-o", "stripped", "nginx"]);
    let stripped = folder.path().join("stripped");
    let reason = refusal(&stripped, &[]);
    assert!(
        reason.contains("it has no symbols (stripped, and a static link exports none)"),
        "{reason}"
    );
    assert!(
        reason.contains("the functions of nginx 1.22.1 (signature 8,4,8,0011"),
        "{reason}"
    );
    let symbols = folder.path().join("symbols").display().to_string();
    assert_eq!(source(&stripped, &["--debug-info", &symbols]), "debug_file");
    let reason = refusal(&stripped, &["--debug-info", "/proc/self/exe"]);
    assert!(
        reason.contains("is not the debug file of build id"),
        "{reason}"
    );
    run("objcopy", &["--add-gnu-debuglink=symbols", "stripped"]);
    assert_eq!(source(&stripped, &[]), "debug_file");
    fs::remove_file(&symbols).unwrap();
    let reason = refusal(&stripped, &[]);
    assert!(reason.contains("it has no symbols"), "{reason}");

    fs::copy(&file, folder.path().join("packed")).unwrap();
    run("xz", &["-9", "packed"]);
    let file = stripped_with(folder.path(), "packed.xz");
    assert_eq!(source(&file, &[]), "gnu_debugdata");
}

/// Check that an invalid `.gnu_debugdata` is an error: huge once it is unpacked, in need of too
/// much memory, cut, changed anywhere, not xz, not ELF.
#[test]
fn hostile_debugdata() {
    let folder = TempDir::new().unwrap();
    fs::copy(
        compile(folder.path(), &STATIC),
        folder.path().join("packed"),
    )
    .unwrap();
    let run = |name, args: &[&str]| tool(folder.path(), name, args);
    let refused = |name: &str, bytes: &[u8], expected: &str| {
        fs::write(folder.path().join(name), bytes).unwrap();
        let reason = refusal(&stripped_with(folder.path(), name), &[]);
        assert!(reason.contains(expected), "{reason}");
    };
    let bomb = fs::File::create(folder.path().join("bomb")).unwrap();
    bomb.set_len(200 << 20).unwrap();
    run("xz", &["-1", "bomb"]);
    let bomb = fs::read(folder.path().join("bomb.xz")).unwrap();
    assert!(bomb.len() < 100_000);
    refused(
        "bomb",
        &bomb,
        "failed to unpack .gnu_debugdata: it has more than 67108864 bytes",
    );
    run("xz", &["-k", "--lzma2=dict=1GiB", "packed"]);
    let wide = fs::read(folder.path().join("packed.xz")).unwrap();
    refused("wide", &wide, "failed to unpack .gnu_debugdata");
    run("xz", &["-f", "packed"]);
    let packed = fs::read(folder.path().join("packed.xz")).unwrap();
    for at in (0..packed.len()).step_by(packed.len() / 8) {
        refused("cut", &packed[..at.max(1)], "failed to unpack");
        let mut bytes = packed.clone();
        bytes[at] ^= 0x5a;
        refused("changed", &bytes, ".gnu_debugdata");
    }
    refused("text", b"not xz", "failed to unpack .gnu_debugdata");
    fs::write(folder.path().join("note"), "not an ELF file").unwrap();
    run("xz", &["note"]);
    let note = fs::read(folder.path().join("note.xz")).unwrap();
    refused(
        "note",
        &note,
        "failed to read .gnu_debugdata: not an ELF file",
    );
}

/// Check that an nginx that exports nothing is traced by its `.symtab`.
#[test]
fn traced_by_symtab() {
    let Some(file) = kept("source-symbols/objs/nginx") else {
        return;
    };
    assert_traced(&without_dynsym(fs::read(file).unwrap()));
}

/// Asserts that a request of an nginx with these bytes has a record.
fn assert_traced(file: &[u8]) {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let copy = folder.path().join("nginx");
    write_program(&copy, file);
    let nginx = Nginx::start(&Config {
        binary: copy,
        ..Config::default()
    });
    let tool = Tool::trace(nginx.pid());
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    drop(nginx.quit());
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 1);
}

/// Breaks the section header of the dynamic symbol table of an ELF file. The dynamic linker does
/// not read that.
fn without_dynsym(mut file: Vec<u8>) -> Vec<u8> {
    let number = |at: usize, size: usize| {
        let bytes = file[at..at + size].iter().rev();
        bytes.fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (start, count) = (number(0x28, 8), number(0x3c, 2));
    let kinds = (0..count).map(|section| start + 64 * section + 4);
    let dynsym: Vec<usize> = kinds.filter(|at| number(*at, 4) == 11).collect();
    assert_eq!(dynsym.len(), 1);
    file[dynsym[0]] = 1;
    file
}

/// Check that a function that nothing calls is not probed: its body is probed when other code calls
/// that, otherwise it is an error.
#[test]
fn dead_export() {
    let folder = TempDir::new().unwrap();
    let function = "ngx_http_free_request";
    let alive = check(&compile(folder.path(), &[]), &[]);
    let probe = &alive["nginx"][0]["probes"][1];
    assert_eq!(probe["function"], function);
    assert_eq!(probe["pointers"], 1);
    assert_eq!(probe["body"], Value::Null);

    let body = "-DBODY=__asm__ volatile(\"push %rax; pop %rax\")";
    let called = "-DCALL=body(&r, 0)";
    let file = compile(folder.path(), &["-O2", "-s", body, called]);
    let dead = check(&file, &[]);
    let probe = &dead["nginx"][0]["probes"][1];
    assert_eq!(probe["function"], function, "{dead:#}");
    assert_eq!(
        (&probe["calls"], &probe["pointers"]),
        (&0.into(), &0.into())
    );
    assert_eq!(probe["instruction"], "push");
    let body_address = probe["body"].as_u64().unwrap();
    let symbols = compile(folder.path(), &["-O2", body, called]);
    let symbols = Command::new("nm").arg(symbols).output().unwrap().stdout;
    let symbols = String::from_utf8(symbols).unwrap();
    let line = format!("{body_address:016x} t body");
    assert!(symbols.contains(&line), "{line} in {symbols}");

    let reason = refusal(&compile(folder.path(), &["-O2", "-s", body]), &[]);
    assert!(
        reason.contains(&format!("a probe in {function}: no code calls it")),
        "{reason}"
    );
}

/// Check that requests have records when `ngx_http_free_request()` is exported and dead: the test
/// moves the symbol to a jump of its own, which nothing calls and which leads to the function.
#[test]
fn traced_by_body() {
    let mut file = fs::read(binary()).unwrap();
    if !file.starts_with(b"\x7fELF") {
        eprintln!("SKIP: a script runs this nginx");
        return;
    }
    let (body, size) = function(&binary(), "ngx_http_free_request");
    let symbol = [body.to_le_bytes(), size.to_le_bytes()].concat();
    let symbols = 0..file.len() - symbol.len();
    let symbols: Vec<usize> = symbols
        .filter(|at| file[*at..].starts_with(&symbol))
        .collect();
    // ret; nopw: padding between functions.
    let padding = [0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
    let segment = Segment::of(&binary(), body);
    let places = segment.places_from(body);
    let mut code = file[places.clone()].windows(padding.len());
    let Some(into) = code.position(|code| code == padding) else {
        eprintln!("SKIP: {} has no room for a jump", binary().display());
        return;
    };
    let stub_at = places.start + into + 1;
    let stub = segment.address_of(stub_at);
    let distance = i32::try_from(stub + 5 - body).unwrap();
    file[stub_at] = 0xe9;
    file[stub_at + 1..stub_at + 5].copy_from_slice(&(-distance).to_le_bytes());
    assert!(!symbols.is_empty());
    for at in symbols {
        file[at..at + 8].copy_from_slice(&stub.to_le_bytes());
        file[at + 8..at + 16].copy_from_slice(&5_u64.to_le_bytes());
    }
    assert_traced(&file);
}
