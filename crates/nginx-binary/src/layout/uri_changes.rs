// SPDX-License-Identifier: MIT OR Apache-2.0
//! The place of `r->uri_changes`, a field of four bits. Layouts have bytes, so that none of them states it. The release
//! says which bits they are, and the code has to show that `r->count`, which precedes them, is where this release has
//! it.

use anyhow::Result;

use super::BuiltIn;
use super::Layout;
use super::forks::parse_name;
use super::witness::Witnesses;
use super::witness::functions::REQUEST;
use crate::build::Build;
use crate::elf::Elf;
use crate::version::Version;

/// A release, as its three numbers.
type Numbers = (u64, u64, u64);

/// The bits of a byte.
const BYTE: u32 = 8;

/// The release from which on every build has `r->stream`, which comes before `r->count`.
const STREAM_IN_ALL: Numbers = (1, 11, 5);

/// Where releases have `r->count`, and `r->uri_changes` after it.
struct Place {
    /// The first release that has them there.
    since: Numbers,
    /// The bytes from `r->http_connection` to `r->count`, a field of 16 bits.
    count: u32,
    /// The bits from `r->count` to `r->uri_changes`.
    uri_changes: u32,
}

impl Place {
    const fn new(since: Numbers, count: u32, uri_changes: u32) -> Self {
        Self {
            since,
            count,
            uri_changes,
        }
    }
}

/// The places in nginx, oldest first (src/http/ngx_http_request.h). 1.19.6 added `empty_path_in_uri`, and 1.21.1 removed
/// `space_in_uri`, both of which come before `uri_changes`. 1.25.0 added `v3_parse`. 1.29.3 put `port` before `count`,
/// so that `uri_changes` does not fit into its word any more, and begins the next one.
const PLACES: [Place; 6] = [
    Place::new((1, 10, 0), 24, 46),
    Place::new((1, 11, 5), 32, 46),
    Place::new((1, 19, 6), 32, 47),
    Place::new((1, 21, 1), 32, 46),
    Place::new((1, 25, 0), 40, 46),
    Place::new((1, 29, 3), 42, 48),
];

/// The releases whose header was read: of each branch (`1.10`) all up to this one. Later ones may have other bits
/// before the field, which the code does not show.
const READ: [(u64, u64); 22] = [
    (10, 3),
    (11, 13),
    (12, 2),
    (13, 12),
    (14, 2),
    (15, 12),
    (16, 1),
    (17, 10),
    (18, 0),
    (19, 10),
    (20, 2),
    (21, 6),
    (22, 1),
    (23, 4),
    (24, 0),
    (25, 5),
    (26, 3),
    (27, 5),
    (28, 3),
    (29, 8),
    (30, 4),
    (31, 4),
];

/// Releases of forks that have `r->count` elsewhere than the nginx that they are based on: the fork, the first release
/// and the last one, and how many bytes further it is. Angie had `r->finalize_request` there. Tengine has no
/// `v3_parse`; its module for XQUIC adds a member, which the code shows.
const FORKS: [(&str, &str, &str, i64); 2] = [
    ("Angie", "1.5.0", "1.9.1", 8),
    ("Tengine", "3.2.0", "3.2.0", -8),
];

/// A function that accesses `r->main->count`, and no other member of a request that is close to it.
const WITNESS: &str = "ngx_http_named_location";

/// Returns the number of bits from `r->http_connection` to `r->uri_changes` in a binary. `None` when its release was
/// not examined, or when its code does not access `r->count` where this release has it.
///
/// # Errors
///
/// Fails when a built-in table is broken, which a test excludes.
pub fn locate(elf: &Elf<'_>, build: &Build, layout: &Layout) -> Result<Option<u32>> {
    let Some((count, uri_changes)) = places(build)? else {
        return Ok(None);
    };
    let Some(from) = layout.offset(REQUEST, "http_connection") else {
        return Ok(None);
    };
    let count_at = i64::from(from) + i64::from(count);
    let is_there = Witnesses::new(elf).accesses_part(layout, WITNESS, count_at);
    Ok(is_there.then_some(uri_changes))
}

/// Returns the bytes from `r->http_connection` to `r->count`, and the bits to `r->uri_changes`, in the release of a
/// build. `None` when its header was not read.
fn places(build: &Build) -> Result<Option<(u32, u32)>> {
    let base = BuiltIn::get()?.forks.base(build);
    let Some(version) = base.map(|base| base.version).filter(|base| is_read(*base)) else {
        return Ok(None);
    };
    let is_since = |place: &&Place| Version::from(place.since) <= version;
    let Some(place) = PLACES.iter().rev().find(is_since) else {
        return Ok(None);
    };
    let has_stream = version < STREAM_IN_ALL.into() && build.defines("HTTP_V2");
    let stream = if has_stream { 8 } else { 0 };
    let count = i64::from(place.count) + stream + moved(build)?;
    let count = u32::try_from(count)?;
    Ok(Some((count, count * BYTE + place.uri_changes)))
}

/// Returns whether the header of a release was read.
fn is_read(version: Version) -> bool {
    READ.iter().any(|(branch, last)| {
        let (first, last) = ((1, *branch, 0).into(), (1, *branch, *last).into());
        (first..=last).contains(&version)
    })
}

/// Returns how many bytes further than nginx a fork has `r->count`.
fn moved(build: &Build) -> Result<i64> {
    let named = build.fork.as_deref().and_then(parse_name);
    let Some((name, release)) = named else {
        return Ok(0);
    };
    for (fork, first, last, bytes) in FORKS {
        if fork == name && (first.parse()?..=last.parse()?).contains(&release) {
            return Ok(bytes);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::BuiltIn;
    use super::REQUEST;
    use super::is_read;
    use super::locate;
    use super::places;
    use crate::build::Build;
    use crate::built;
    use crate::elf::Elf;
    use crate::layout::tests::COMPAT;
    use crate::layout::tests::build;
    use crate::layout::tests::only;

    /// Where each release was measured to have the members.
    const MEASURED: &str = include_str!("../../tests/data/uri_changes.tsv");

    /// Returns the build of a fork.
    fn fork(name: &str, version: &str) -> Build {
        Build {
            fork: Some(name.to_owned()),
            ..build(version, COMPAT)
        }
    }

    /// Check that every measured release has the field where it was measured.
    #[test]
    fn measured() {
        let lines = MEASURED.lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for line in lines.skip(1) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [version, signature, at, uri_changes] = columns[..] else {
                panic!("{line}");
            };
            let number = |text: &str| text.parse::<u32>().unwrap();
            let expected = (number(at), number(at) * 8 + number(uri_changes));
            let found = places(&build(version, signature)).unwrap();
            assert_eq!(found, Some(expected), "{line}");
            count += 1;
        }
        assert_eq!(count, 89);
    }

    /// Check that the header of every release was read that the table has. If this fails for a new one: read
    /// `struct ngx_http_request_s` of src/http/ngx_http_request.h from `http_connection` to `uri_changes`. If nothing
    /// was inserted or removed there, add the release to `READ`, else also to `PLACES`.
    #[test]
    fn all_read() {
        for (first, last) in &BuiltIn::get().unwrap().table.releases {
            assert!(is_read(*first) && is_read(*last), "{first}-{last}");
        }
        for later in [
            "1.9.15", "1.10.4", "1.28.4", "1.30.6", "1.31.5", "1.32.0", "2.10.0",
        ] {
            assert!(!is_read(later.parse().unwrap()), "{later}");
        }
    }

    /// Check that forks have it where the nginx has it that they are based on, unless they have added or removed a member there.
    #[test]
    fn forks() {
        for (name, version, expected) in [
            ("openresty/1.19.9.2", "1.19.9", Some((32, 303))),
            ("openresty/1.21.4.4", "1.21.4", Some((32, 302))),
            ("openresty/1.29.2.5", "1.29.2", Some((40, 366))),
            ("openresty/1.31.1.1", "1.31.1", Some((42, 384))),
            ("freenginx/1.29.7", "1.29.7", Some((40, 366))),
            ("Angie/1.4.1", "1.4.1", Some((40, 366))),
            ("Angie/1.5.0", "1.5.0", Some((48, 430))),
            ("Angie/1.9.1", "1.9.1", Some((48, 430))),
            ("Angie/1.10.0", "1.10.0", Some((40, 366))),
            ("Angie/1.12.1", "1.12.1", Some((42, 384))),
            ("Tengine/2.4.1", "1.22.1", Some((32, 302))),
            ("Tengine/3.2.0", "1.31.3", Some((34, 320))),
            ("Angie/1.13.0", "1.13.0", None),
            ("openresty/1.25.3.1", "1.25.3", None),
        ] {
            assert_eq!(places(&fork(name, version)).unwrap(), expected, "{name}");
        }
    }

    /// Check that it is known only where the code accesses the bits before it.
    #[test]
    fn confirmed() {
        let release = build("1.25.2", COMPAT);
        let layout = only(&release).unwrap();
        let main = layout.structs[REQUEST]["main"];
        let count = layout.structs[REQUEST]["http_connection"] + 40;
        for (ty, at, expected) in [
            ("short", count, Some(366)),
            ("short", count + 8, None),
            ("long", count, None),
        ] {
            let source = format!(
                "void ngx_http_named_location(char *r) {{ (*({ty} *)(*(char **)(r + {main}) + {at}))++; }}\n\
                 int main(void) {{ return 0; }}"
            );
            let (_folder, file) = built::compiled(&source, "-O1 -fPIE -pie -rdynamic");
            let image = built::image(&file);
            let elf = Elf::parse(&image).unwrap();
            let found = locate(&elf, &release, &layout).unwrap();
            assert_eq!(found, expected, "{ty} {at}");
            assert_eq!(
                locate(&elf, &build("1.25.9", COMPAT), &layout).unwrap(),
                None
            );
        }
    }
}
