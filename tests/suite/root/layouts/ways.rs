// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows what each refusal says to do, from every mixture of wrong and missing files: it must lead to a
//! layout, and never back to a file that was right.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::layout_of;
use crate::suite::common::imitation::check;
use crate::suite::common::imitation::compile;
use crate::suite::common::imitation::objcopy;

/// Compiler arguments for a program that exports nothing.
const STATIC: &[&str] = &["-static", "-no-pie"];
const UNKNOWN: &[&str] = &["-DVERSION=1099000", "-DNAME=\"nginx/1.99.0\""];
const WITHOUT_ID: &[&str] = &["-Wl,--build-id=none"];
/// The code has a member elsewhere than the release that the program claims to be.
const MISFIT: &[&str] = &["-DLOG=88"];

/// The options that a person has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Passed {
    layout: Option<&'static str>,
    is_trusted: bool,
    debug_info: Option<&'static str>,
}

/// What a refusal says to do.
#[derive(Clone, Copy, Debug)]
enum Way {
    Layout,
    Trust,
    DebugInfo,
}

/// The files of `--layout` that are tried first: none, one that the code contradicts, one of another build,
/// and one that lacks a member.
const LAYOUTS: [Option<&str>; 4] = [None, Some("wrong"), Some("foreign"), Some("short")];

/// The files of `--debug-info` that are tried first: none, that of another build, one with nothing but
/// symbols, one without even these, and one with broken debug information.
const DEBUG_FILES: [Option<&str>; 5] = [
    None,
    Some("other"),
    Some("symbols"),
    Some("stripped"),
    Some("broken"),
];

/// A program that runs, with its files.
struct Subject {
    folder: TempDir,
    /// The file that runs.
    program: &'static str,
}

impl Subject {
    /// Compiles a program with these arguments, of which `program` runs.
    fn new(args: &[&[&str]], program: &'static str) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let args = args.concat();
        let other = TempDir::new().unwrap();
        let other = compile(other.path(), &[&args[..], &["-g", "-O2"]].concat());
        fs::copy(other, at("other")).unwrap();
        compile(folder.path(), &[&args[..], &["-g"]].concat());
        let objcopy = |args: &[&str]| objcopy(folder.path(), args);
        objcopy(&["--strip-debug", "nginx", "symbols"]);
        objcopy(&["--strip-all", "nginx", "stripped"]);
        fs::write(at("garbage"), [0xff; 64]).unwrap();
        objcopy(&["--update-section", ".debug_info=garbage", "nginx", "broken"]);
        let is_misfit = args.contains(&MISFIT[0]);
        let right = layout_of(&at("nginx"), if is_misfit { 88 } else { 80 });
        fs::write(at("right"), &right).unwrap();
        fs::write(at("wrong"), layout_of(&at("nginx"), 96)).unwrap();
        fs::write(at("foreign"), right.replace("nginx 8,", "nginx 4,")).unwrap();
        fs::write(
            at("short"),
            right.replace("    request_length ", "    was_length "),
        )
        .unwrap();
        Self { folder, program }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the report about it with these options.
    fn check(&self, passed: Passed) -> Value {
        let mut args = Vec::new();
        for (option, file) in [
            ("--layout", passed.layout),
            ("--debug-info", passed.debug_info),
        ] {
            if let Some(file) = file {
                args.extend([option.to_owned(), self.at(file).display().to_string()]);
            }
        }
        if passed.is_trusted {
            args.push("--trust-layout".to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        check(&self.at(self.program), &args)
    }

    /// Follows every way from here to a program that can be traced.
    fn follow(&self, passed: Passed, seen: &mut BTreeSet<Passed>) {
        if !seen.insert(passed) {
            return;
        }
        let report = self.check(passed);
        if report["works"] == true {
            let nginx = &report["nginx"][0];
            let is_misused =
                nginx["layout_fit"]["differ"] != Value::Null && nginx["layout"] != "dwarf";
            assert_eq!(
                is_misused,
                passed.is_trusted && passed.layout == Some("wrong"),
                "{report:#}"
            );
            return;
        }
        let reason = report["reason"].as_str().unwrap();
        let ways = ways(reason);
        assert!(!ways.is_empty(), "{passed:?}: {reason}");
        for way in ways {
            let mut next = passed;
            match way {
                Way::Layout => next.layout = Some("right"),
                Way::Trust => next.is_trusted = true,
                Way::DebugInfo => next.debug_info = Some("nginx"),
            }
            assert_ne!(next, passed, "{way:?} was taken before: {reason}");
            self.follow(next, seen);
        }
    }
}

/// Returns what a refusal says to do.
fn ways(reason: &str) -> Vec<Way> {
    let named = [
        ("pass --layout", Way::Layout),
        ("`ngx-bpf layout`", Way::Layout),
        ("--trust-layout", Way::Trust),
        (" as --debug-info", Way::DebugInfo),
        ("or --debug-info", Way::DebugInfo),
        ("is not the debug file of build id", Way::DebugInfo),
        (
            "pass the unstripped file that the binary was made from",
            Way::DebugInfo,
        ),
    ];
    let named = named.iter().filter(|(text, _)| reason.contains(text));
    named.map(|(_, way)| *way).collect()
}

/// Follows all ways from every mixture of files.
fn follow_all(subject: &Subject) {
    let mut seen = BTreeSet::new();
    for layout in LAYOUTS {
        for debug_info in DEBUG_FILES {
            let passed = Passed {
                layout,
                is_trusted: false,
                debug_info,
            };
            subject.follow(passed, &mut seen);
        }
    }
    assert!(seen.len() > LAYOUTS.len() * DEBUG_FILES.len());
}

/// Check a static, stripped program, with a build id and without one.
#[test]
fn without_symbols() {
    follow_all(&Subject::new(&[STATIC], "stripped"));
    follow_all(&Subject::new(&[STATIC, WITHOUT_ID], "stripped"));
}

/// Check a program whose release is not known, with a build id and without one.
#[test]
fn unknown_release() {
    follow_all(&Subject::new(&[UNKNOWN], "stripped"));
    follow_all(&Subject::new(&[UNKNOWN, WITHOUT_ID], "stripped"));
}

/// Check a program that the built-in layout of its release does not fit, and one whose own debug information
/// is broken.
#[test]
fn wrong_sources() {
    follow_all(&Subject::new(&[MISFIT], "stripped"));
    follow_all(&Subject::new(&[], "broken"));
}
