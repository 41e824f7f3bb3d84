// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of files of layouts: the builds that sections hold for, and errors.

use super::parse;
use crate::build::Build;
use crate::layout::tests::COMPAT;
use crate::layout::tests::build;

/// Check that a macro moves the members after its line, and none before it.
#[test]
fn shifts() {
    let text = "nginx 8,4,8,.................................. 1.2.3\n  s\n    a 0\n    \
        +8 HTTP_CACHE\n    b 8\n    +4 PCRE\n    c 12 SSL\n";
    let layout = |signature, has_ssl| {
        let build = Build {
            has_ssl,
            ..build("1.2.3", signature)
        };
        parse(text).unwrap().layout_of(&build).unwrap().unwrap()
    };
    let all = &layout(COMPAT, true).structs["s"];
    assert_eq!((all["a"], all["b"], all["c"]), (0, 16, 24));
    let none = &layout("8,4,8,0000000000000000000000000000000000", false).structs["s"];
    assert_eq!((none["a"], none["b"]), (0, 8));
    assert!(!none.contains_key("c"));
}

/// Check that a broken file is refused with the number of the line.
#[test]
fn broken() {
    for (text, line) in [
        ("ngx_str_t", "line 1"),
        ("  ngx_str_t", "line 1"),
        ("nginx 8,4,8 1.2.3\n    len 0", "line 2"),
        ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len x", "line 3"),
        ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len -8", "line 3"),
        ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len 99999", "line 3"),
        ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    +8", "line 3"),
        ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    +8 THING", "line 3"),
        ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len 0 THING", "line 3"),
        (
            "nginx 8,4,8 1.2.3\n  ngx_str_t\n    len 0\n    len 8",
            "line 4",
        ),
        ("nginx 8,4,8", "line 1"),
        ("nginx 8,4,8 1.2", "line 1"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.to_string(), line, "{text}");
    }
}

/// Check that the sections of a fork hold for its release only, and never for nginx.
#[test]
fn forks() {
    let text = "nginx 8 1.2.3\n  s\n    a 0\nnginx 8 fork/1.2.3.4\n  s\n    a 8\n";
    let of = |fork: Option<&str>| {
        let build = Build {
            fork: fork.map(str::to_owned),
            ..build("1.2.3", "8")
        };
        let layout = parse(text).unwrap().layout_of(&build).unwrap();
        layout.map(|layout| layout.structs["s"]["a"])
    };
    assert_eq!(of(None), Some(0));
    assert_eq!(of(Some("fork/1.2.3.4")), Some(8));
    assert_eq!(of(Some("fork/1.2.3.5")), None);
}

/// Check that a struct that two sections state is an error.
#[test]
fn ambiguous() {
    let text = "nginx 8 1.2.3\n  s\nnginx . 1.2.0-1.2.9\n  s\n";
    let table = parse(text).unwrap();
    assert!(table.layout_of(&build("1.2.3", "8")).is_err());
    assert!(table.layout_of(&build("1.2.4", "8")).unwrap().is_some());
}

/// Check that sections add up, that ranges may be open, that a release that is not listed has no layout, and
/// that the distinct layouts of the listed ones are found.
#[test]
fn sections() {
    let text = "releases 1.2.0-1.2.4 1.4.0-1.4.1\nnginx 8* 1.2.0-\n  s\n    a 0\n\
        nginx 8.* 1.2.0-1.2.2\n  t\n    b 0\nnginx 8.* 1.2.3-\n  t\n    b 8\n";
    let table = parse(text).unwrap();
    let b = |version| {
        let layout = table.layout_of(&build(version, "8,4")).unwrap();
        layout.map(|layout| (layout.structs["s"]["a"], layout.structs["t"]["b"]))
    };
    assert_eq!(b("1.2.2"), Some((0, 0)));
    assert_eq!(b("1.2.3"), Some((0, 8)));
    assert_eq!(b("1.4.1"), Some((0, 8)));
    assert_eq!((b("1.1.9"), b("1.2.5"), b("1.4.2")), (None, None, None));
    let all = table.distinct_layouts(&build("1.6.0", "8,4")).unwrap();
    let newest: Vec<String> = all.iter().map(|(version, _)| version.to_string()).collect();
    assert_eq!(newest, ["1.2.2", "1.4.1"]);
}
