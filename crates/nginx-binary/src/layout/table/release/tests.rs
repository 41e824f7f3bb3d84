// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of a release that is added to the built-in table.

use super::with_release;
use crate::build::Build;
use crate::layout::Layout;
use crate::layout::TABLE;
use crate::layout::table::parse;
use crate::layout::tests::COMPAT;
use crate::layout::tests::build;
use crate::layout::tests::configurations;
use crate::version::Version;

/// The options of nginx's own makefile: nothing but what is on by default.
const PLAIN: &str = "8,4,8,0000111111010111001110101111000110";

/// Returns the newest release of a branch, and the one that would follow it.
fn next(branch: &str) -> (Version, Version) {
    let table = parse(TABLE).unwrap();
    let all = table.releases.iter().map(|(_, last)| *last);
    let last = all
        .filter(|last| last.to_string().starts_with(branch))
        .max();
    let last = last.unwrap();
    let text = last.to_string();
    let (branch, patch) = text.rsplit_once('.').unwrap();
    let patch: u64 = patch.parse().unwrap();
    (last, format!("{branch}.{}", patch + 1).parse().unwrap())
}

/// Returns builds of a release with the layouts of the one before it.
fn builds(before: Version, after: Version) -> Vec<(Build, Layout)> {
    let table = parse(TABLE).unwrap();
    let builds = [COMPAT, PLAIN].map(|signature| {
        let of = |version: Version| build(&version.to_string(), signature);
        (of(after), table.layout_of(&of(before)).unwrap().unwrap())
    });
    builds.to_vec()
}

/// Moves all members of a struct from an offset on.
fn shift(layout: &mut Layout, name: &str, from: &str, bytes: u32) {
    let members = layout.structs.get_mut(name).unwrap();
    let start = members[from];
    for offset in members.values_mut().filter(|offset| **offset >= start) {
        *offset += bytes;
    }
}

/// Asserts that a table has what was measured of all releases.
fn assert_measured(text: &str) {
    let (new, old) = (parse(text).unwrap(), parse(TABLE).unwrap());
    for (configuration, build, _) in configurations() {
        let [new, old] = [&new, &old].map(|table| table.layout_of(&build).unwrap());
        assert_eq!(new, old, "{configuration}");
    }
}

/// Check that a release that has changed no struct is one word, in its branch or in a new one.
#[test]
fn unchanged() {
    let (last, after) = next("1.");
    let text = with_release(TABLE, &builds(last, after)).unwrap();
    let changed: Vec<_> = TABLE
        .lines()
        .zip(text.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert!(changed[0].1.ends_with(&format!("-{after}")), "{changed:?}");
    assert_eq!(text.lines().count(), TABLE.lines().count());
    assert_measured(&text);
    let branch: Version = "1.99.0".parse().unwrap();
    let text = with_release(TABLE, &builds(last, branch)).unwrap();
    assert!(text.contains(&format!("{last} 1.99.0\n")));
    let again = with_release(&text, &builds(last, branch)).unwrap_err();
    assert_eq!(again.to_string(), "the table has nginx 1.99.0 already");
}

/// Check that a struct that the release has changed gets a section, in which each macro moves its members as
/// before, and that other releases keep theirs.
#[test]
fn changed() {
    for branch in ["1.", "1.26."] {
        let (last, after) = next(branch);
        let mut builds = builds(last, after);
        for (_, layout) in &mut builds {
            shift(layout, "ngx_http_request_s", "http_version", 16);
            shift(layout, "ngx_http_upstream_s", "pipe", 8);
        }
        let text = with_release(TABLE, &builds).unwrap();
        assert_measured(&text);
        let (new, old) = (parse(&text).unwrap(), parse(TABLE).unwrap());
        for (_, of_last, _) in configurations().filter(|(_, build, _)| build.version == last) {
            let mut expected = old.layout_of(&of_last).unwrap().unwrap();
            shift(&mut expected, "ngx_http_request_s", "http_version", 16);
            shift(&mut expected, "ngx_http_upstream_s", "pipe", 8);
            let of_next = Build {
                version: after,
                ..of_last
            };
            let found = new.layout_of(&of_next).unwrap().unwrap();
            assert_eq!(found, expected, "{of_next}");
        }
        let header =
            |line: &&str| line.starts_with("nginx ") && line.contains(&format!(" {after}"));
        assert_eq!(text.lines().filter(header).count(), 2);
    }
}

/// Check that builds that differ in how far a member has moved are an error: a macro has changed.
#[test]
fn macro_changed() {
    let (last, after) = next("1.");
    let mut builds = builds(last, after);
    shift(&mut builds[0].1, "ngx_http_request_s", "http_version", 16);
    let error = with_release(TABLE, &builds).unwrap_err().to_string();
    assert!(error.contains("has moved by 0 bytes in "), "{error}");
    assert!(error.contains("write its section by hand"), "{error}");
    assert!(with_release(TABLE, &[]).is_err());
    builds[0].0.version = last;
    assert!(with_release(TABLE, &builds).is_err());
}

/// Check that the pages name the newest release of the table.
#[test]
fn pages() {
    let newest = super::newest_release(TABLE).unwrap();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    for (page, before) in [
        ("README.md", "1.10.0 to "),
        ("docs/compatibility.md", "1.10.0 or after "),
    ] {
        let text = std::fs::read_to_string(format!("{root}/{page}")).unwrap();
        assert!(
            text.contains(&format!("{before}{newest}")),
            "{page}: {newest}"
        );
    }
}
