// SPDX-License-Identifier: MIT OR Apache-2.0
//! Property tests of files of layouts.

use std::collections::BTreeMap;

use proptest::collection;
use proptest::prelude::*;

use super::Table;
use super::parse;
use crate::build::Build;
use crate::layout::Layout;
use crate::layout::tests::COMPAT;
use crate::layout::tests::build;

/// Generates the build of nginx or of a fork.
fn any_build() -> impl Strategy<Value = Build> {
    let fork = prop::option::of("[a-z]{1,9}/[0-9.]{1,9}");
    (0..1000_u64, 0..1000_u64, 0..1000_u64, fork).prop_map(|(major, minor, patch, fork)| Build {
        fork,
        ..build(&format!("{major}.{minor}.{patch}"), COMPAT)
    })
}

/// Generates a layout in which every struct has a member.
fn any_layout() -> impl Strategy<Value = Layout> {
    let name = "[a-z_][a-z0-9_]{0,20}";
    let members = collection::btree_map(name, 0..=u32::from(u16::MAX), 1..20);
    collection::btree_map(name, members, 1..10).prop_map(|structs| Layout { structs })
}

/// Generates lines that resemble those of a file of layouts.
fn any_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "releases( [0-9.]{1,7}(-[0-9.]{0,7})?){0,3}",
        "nginx [0-9,.*]{0,9}( [0-9a-z./-]{0,12}){0,3}",
        " {0,6}[a-z+]{0,3}[0-9]{0,6}( [0-9]{0,6})?( (PCRE|SSL|X))?",
        ".{0,20}",
    ];
    collection::vec(line, 0..12).prop_map(|lines| lines.join("\n"))
}

/// Exercises every function of a table.
fn use_all(table: &Table, build: &Build) {
    let _ = table.layout_of(build);
    let _ = table.distinct_layouts(build);
}

proptest! {
    /// Check that a section that was written for a build is parsed as the same layout, for this build only.
    #[test]
    fn round_trip(build in any_build(), layout in any_layout()) {
        let table = parse(&layout.section(&build)).unwrap();
        prop_assert_eq!(table.layout_of(&build).unwrap(), Some(layout));
        let other = Build { signature: "8".to_owned(), ..build };
        prop_assert_eq!(table.layout_of(&other).unwrap(), None);
    }

    /// Check that no file causes a panic.
    #[test]
    fn any_file(text in any_text(), build in any_build()) {
        if let Ok(table) = parse(&text) {
            use_all(&table, &build);
        }
    }

    /// Check that each macro moves the members after it by its bytes, whatever else moves them.
    #[test]
    fn shifts(offset in 0..1000_u32, bytes in collection::vec(0..1000_u32, 0..10)) {
        let shifts: String = bytes.iter().map(|bytes| format!("    +{bytes} PCRE\n")).collect();
        let text = format!("nginx * 1.2.3\n  s\n    a {offset}\n{shifts}    b {offset}\n");
        let layout = parse(&text).unwrap().layout_of(&build("1.2.3", COMPAT)).unwrap().unwrap();
        let expected = BTreeMap::from([
            ("a".to_owned(), offset),
            ("b".to_owned(), offset + bytes.iter().sum::<u32>()),
        ]);
        prop_assert_eq!(&layout.structs["s"], &expected);
    }
}
