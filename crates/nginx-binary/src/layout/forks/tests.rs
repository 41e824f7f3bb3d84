// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of what forks do to nginx's structs.

use std::collections::BTreeSet;

use super::measured;
use super::parse;
use crate::build::Build;
use crate::layout::FORKS;
use crate::layout::Layout;
use crate::layout::built_in;
use crate::layout::known_layouts;
use crate::layout::tests::COMPAT;
use crate::layout::tests::build;
use crate::layout::tests::only;

/// Check that the tables have every measured build of a fork exactly, member by member: as one of the layouts that
/// a build of this name may have.
#[test]
fn measured_builds() {
    let builds = measured::builds();
    assert_eq!(builds.len(), 59);
    for known in builds {
        let layouts = built_in(&known.build).unwrap();
        let all: Vec<_> = layouts
            .iter()
            .map(|layout| known.differing(layout))
            .collect();
        let exact = all.iter().filter(|differing| differing.is_empty()).count();
        assert_eq!(exact, 1, "{} {all:?}", known.name);
    }
}

/// Check that a build without anything that shows a fork has nginx's layout alone, and that the code of a Tengine
/// chooses between all sets of its modules.
#[test]
fn numbers() {
    let count = |build: &Build| built_in(build).unwrap().len();
    let nginx = build("1.27.1", COMPAT);
    assert_eq!(count(&nginx), 1);
    let fork = |name: &str, version: &str| Build {
        fork: Some(name.to_owned()),
        ..build(version, COMPAT)
    };
    assert_eq!(count(&fork("Tengine/3.2.0", "1.31.3")), 16);
    assert_eq!(count(&fork("openresty/1.27.1.2", "1.27.1")), 4);
    assert_eq!(count(&fork("openresty/1.31.1.1", "1.31.1")), 1);
    assert_eq!(count(&fork("openresty/1.31.1.2", "1.31.1")), 0);
    assert_eq!(count(&fork("Angie/1.12.0", "1.12.0")), 1);
    assert_eq!(count(&fork("Angie/1.12.0-rc1", "1.12.0")), 0);
    assert_eq!(count(&fork("Angie/1.13.0", "1.13.0")), 0);
    assert_eq!(count(&fork("Angie/x", "1.13.0")), 0);
    assert_eq!(count(&fork("unnamed-fork", "1.27.1")), 0);
}

/// Check that a fork is named with its own release, and with nginx's only where its modules carry that.
#[test]
fn names() {
    let shown = |fork: &str, version: &str| {
        let fork = Some(fork.to_owned());
        let build = Build {
            fork,
            ..build(version, "8")
        };
        (build.name(), build.to_string())
    };
    let (name, described) = shown("openresty/1.27.1.2", "1.27.1");
    assert_eq!(name, "openresty/1.27.1.2");
    assert_eq!(
        described,
        "openresty/1.27.1.2, which is nginx 1.27.1 (signature 8)"
    );
    let (_, described) = shown("Angie/1.12.1", "1.12.1");
    assert_eq!(described, "Angie/1.12.1 (signature 8)");
    assert_eq!(build("1.22.1", "8").name(), "nginx 1.22.1");
}

/// Check that the layouts of a fork are known for its releases that are not, and that a patch which a symbol shows
/// is in every known layout and in its name.
#[test]
fn known() {
    let known = |build: &Build| known_layouts(build).unwrap();
    let nginx = known(&build("1.27.1", COMPAT));
    let later = Build {
        fork: Some("Angie/1.13.0".to_owned()),
        ..build("1.13.0", "Angie,8,4,8,00111111110101110111111111111111111")
    };
    let angie = known(&later);
    assert!(angie.iter().any(|(release, _)| release == "Angie/1.12.1"));
    let store = |(_, layout): &(String, Layout)| layout.structs["ngx_http_upstream_s"]["store"];
    let patched = Build {
        fork_macros: vec!["DELAYED_EVENTS"],
        ..build("1.27.1", COMPAT)
    };
    let moved = known(&patched);
    assert_eq!(moved.len(), nginx.len());
    for (moved, from) in moved.iter().zip(&nginx) {
        let name = format!("{} with upstream_timeout_fields", from.0);
        assert_eq!((&moved.0, store(moved)), (&name, store(from) + 24));
    }
}

/// Check that no known layout has the name of a release that has another one: for each measured build, and for a
/// later release of its fork.
#[test]
fn true_names() {
    let mut count = 0;
    for measured in measured::builds() {
        let later = measured.build.fork.as_ref().map(|fork| {
            let (name, _) = fork.split_once('/').unwrap();
            format!("{name}/999")
        });
        let later = Build {
            fork: later,
            ..measured.build.clone()
        };
        for build in [&measured.build, &later] {
            let known = known_layouts(build).unwrap();
            let names: BTreeSet<&String> = known.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), known.len(), "{build}: {names:?}");
            for (name, layout) in &known {
                let (release, _) = name.split_once(" with ").unwrap_or((name, ""));
                let Some((fork, _)) = release.split_once('/') else {
                    let nginx = build.of_nginx(release.parse().unwrap());
                    let plain = Build {
                        fork_macros: Vec::new(),
                        ..nginx
                    };
                    let plain = only(&plain).unwrap();
                    assert_eq!(name == release, *layout == plain, "{build}: {name}");
                    continue;
                };
                /* The nginx that it is based on is stated, or it is this very build. */
                let is_own = build.fork.as_deref() == Some(release);
                assert!(is_own || ["Angie", "freenginx"].contains(&fork), "{name}");
                let named = Build {
                    fork: Some(release.to_owned()),
                    ..build.clone()
                };
                let own = built_in(&named).unwrap();
                assert!(own.contains(layout), "{build}: {name}");
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count}");
}

/// Check that every patch can be applied to every release that it may be in: its members exist.
#[test]
fn applicable() {
    let forks = parse(FORKS).unwrap();
    for examined in &forks.examined {
        let releases = &examined.releases;
        for release in [Some(&releases.first), releases.last.as_ref()] {
            let build = Build {
                fork: Some(format!("{}/{}", releases.fork, release.unwrap())),
                fork_macros: vec!["DELAYED_EVENTS", "ANGIE_API"],
                has_sticky: true,
                ..build("1.22.1", "8,4,8,0000111111010111001110001011000010")
            };
            assert!(!built_in(&build).unwrap().is_empty(), "{build}");
        }
    }
}

/// Check that a broken text is refused with the number of the line.
#[test]
fn broken() {
    for (text, line) in [
        ("fork", "line 1"),
        ("fork a", "line 1"),
        ("fork a 1.2-", "line 1"),
        ("fork a 1.x", "line 1"),
        ("fork a 1.2 as x", "line 1"),
        ("patch a", "line 1"),
        ("patch a THING", "line 1"),
        ("patch a b/x", "line 1"),
        ("  s", "line 1"),
        ("    +8 m", "line 1"),
        ("patch a b/1\n    +8 m", "line 2"),
        ("patch a b/1\n  s\n    8 m", "line 3"),
        ("patch a b/1\n  s\n    +x m", "line 3"),
        ("patch a b/1\n  s\n    +8", "line 3"),
        ("patch a b/1\n  s\n    +8 m THING", "line 3"),
        (
            "patch a b/1\n  s\n    +8 m\npatch b b/1\n    +8 m",
            "line 5",
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.to_string(), line, "{text}");
    }
}
