// SPDX-License-Identifier: MIT OR Apache-2.0
//! Struct layouts: the offsets of the members that are read, for one build of nginx. They come from the
//! built-in table `layouts.txt`, from a file of the same form, from debug information, or are inferred.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;

use crate::build::Build;
use forks::Forks;
use forks::Patched;
use table::Table;

pub use table::release::newest_release;
pub use table::release::with_release;

pub mod choose;
pub mod dwarf;
pub mod file;
mod forks;
pub mod inference;
mod lines;
pub mod remedy;
mod table;
pub mod uri_changes;
pub mod variables;
pub mod wanted;
pub mod witness;

/// The built-in layouts.
pub const TABLE: &str = include_str!("../../layouts.txt");

/// What forks do to them.
const FORKS: &str = include_str!("../../forks.txt");

/// The offset in bytes of each member of a struct, by the member's name.
pub type Members = BTreeMap<String, u32>;

/// The offsets of members in all structs that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The members of each struct, by the struct's name in C.
    pub structs: BTreeMap<String, Members>,
}

impl Layout {
    /// Returns the offset of a member in bytes. `None` when the struct or the member is not in the layout.
    pub fn offset(&self, name: &str, member: &str) -> Option<u32> {
        self.structs.get(name)?.get(member).copied()
    }

    /// Returns the section of a file of layouts that states this layout for one build.
    pub fn section(&self, build: &Build) -> String {
        let release = match &build.fork {
            Some(fork) => fork.clone(),
            None => build.version.to_string(),
        };
        let mut lines = vec![format!("nginx {} {release}", build.signature)];
        for (name, members) in &self.structs {
            lines.push(format!("  {name}"));
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(_, offset)| **offset);
            for (member, offset) in members {
                lines.push(format!("    {member} {offset}"));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// A known layout, with its name for messages: the newest release that has it, or a release and the patches that were
/// applied to it (`1.27.1`, `1.27.1 with upstream_timeout_fields`, `Angie/1.12.1`).
pub type KnownLayout = (String, Layout);

/// Returns the layouts that the built-in tables have for a build: none when its release is not known, and several
/// when builds of one name differ, of which its code has to show which one it is.
///
/// # Errors
///
/// Fails when a built-in table is broken, which a test excludes.
pub fn built_in(build: &Build) -> Result<Vec<Layout>> {
    BuiltIn::get()?.layouts_of(build)
}

/// Returns every known layout as this build's options make it. Inference chooses from them for builds that the
/// tables do not know. Those of a fork are known for builds of this fork only.
///
/// # Errors
///
/// Fails when a built-in table is broken, which a test excludes.
pub fn known_layouts(build: &Build) -> Result<Vec<KnownLayout>> {
    BuiltIn::get()?.known_layouts(build)
}

/// The built-in tables, parsed when they are first needed.
static BUILT_IN: LazyLock<Result<BuiltIn>> = LazyLock::new(BuiltIn::parse);

/// The built-in tables.
struct BuiltIn {
    table: Table,
    forks: Forks,
}

impl BuiltIn {
    fn get() -> Result<&'static Self> {
        let tables = BUILT_IN.as_ref();
        tables.map_err(|error| anyhow!("{error:#}"))
    }

    fn parse() -> Result<Self> {
        Ok(Self {
            table: table::parse(TABLE).context("failed to read the built-in layouts")?,
            forks: forks::parse(FORKS).context("failed to read the built-in forks")?,
        })
    }

    /// Returns the layouts that a build may have. None when its release is not known.
    fn layouts_of(&self, build: &Build) -> Result<Vec<Layout>> {
        let Some(base) = self.forks.base(build) else {
            return Ok(Vec::new());
        };
        let patched = self.patched(build, &build.of_nginx(base.version))?;
        Ok(patched.into_iter().map(|patched| patched.layout).collect())
    }

    /// Returns every layout that a build may have, made of that of the nginx that it is based on.
    fn patched(&self, build: &Build, nginx: &Build) -> Result<Vec<Patched<'_>>> {
        match self.table.layout_of(nginx)? {
            Some(layout) => self.forks.apply(build, nginx, &layout),
            None => Ok(Vec::new()),
        }
    }

    /// Returns every known layout, each once. Where it is not stated which nginx a release of the fork is based on, its
    /// patches are applied to the nginx that this build is based on. The result may be the layout of no release, so
    /// that it is named by its patches.
    fn known_layouts(&self, build: &Build) -> Result<Vec<KnownLayout>> {
        let nginx = build.of_nginx(build.version);
        let mut found: Vec<KnownLayout> = Vec::new();
        for (version, layout) in self.table.distinct_layouts(&nginx)? {
            let nginx = nginx.of_nginx(version);
            let all = self.forks.apply(&nginx, &nginx, &layout)?;
            let version = version.to_string();
            found.extend(all.into_iter().map(|patched| patched.named(&version)));
        }
        for release in self.forks.releases(build) {
            let is_own = build.fork.as_ref() == Some(&release);
            let build = Build {
                fork: Some(release.clone()),
                ..build.clone()
            };
            let Some(base) = self.forks.base(&build) else {
                continue;
            };
            for patched in self.patched(&build, &build.of_nginx(base.version))? {
                if found.iter().any(|(_, known)| *known == patched.layout) {
                    continue;
                }
                found.push(match base.is_stated || is_own {
                    true => patched.named_after(&release),
                    false => patched.named(&base.version.to_string()),
                });
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Build;
    use super::Layout;
    use super::TABLE;
    use super::built_in;
    use super::table::parse;
    use super::witness::functions::MemberPath;

    /// Debian's and nginx.org's builds since 1.11.5, up to 1.25.2.
    pub const COMPAT: &str = "8,4,8,0011111111010111001111111111111111";

    /// The layouts of real configurations, one on each line, measured by a program that was compiled against
    /// the headers of the release.
    const MEASURED: &str = include_str!("../../tests/data/layouts.tsv");

    /// The member of `layout()`.
    pub const PLACE: MemberPath = &[("s", "a")];

    /// Returns a layout with one member.
    pub fn layout(offset: u32) -> Layout {
        let members = [("a".to_owned(), offset)].into();
        let structs = [("s".to_owned(), members)].into();
        Layout { structs }
    }

    /// Returns the build of a release with that signature.
    pub fn build(version: &str, signature: &str) -> Build {
        Build {
            version: version.parse().unwrap(),
            signature: signature.to_owned(),
            fork: None,
            has_ssl: true,
            has_quic: false,
            has_sticky: false,
            fork_macros: Vec::new(),
        }
    }

    /// Returns the only layout that the tables have for a build. `None` when they have none.
    pub fn only(build: &Build) -> Option<Layout> {
        let mut layouts = built_in(build).unwrap();
        assert!(layouts.len() <= 1, "{build}");
        layouts.pop()
    }

    /// Returns every measured configuration: its release and options, the build, and the offsets.
    pub fn configurations() -> impl Iterator<Item = (String, Build, Vec<&'static str>)> {
        let lines = MEASURED.lines().filter(|line| !line.starts_with('#'));
        lines.skip(1).map(|line| {
            let mut columns = line.split('\t');
            let mut next = || columns.next().unwrap();
            let (version, flags, signature) = (next(), next(), next());
            let [has_ssl, has_quic, has_sticky] = [(); 3].map(|()| next() == "1");
            let build = Build {
                has_ssl,
                has_quic,
                has_sticky,
                ..build(version, signature)
            };
            (format!("{version} {flags}"), build, columns.collect())
        })
    }

    /// Check that the table has every measured configuration exactly, member by member.
    #[test]
    fn measured() {
        let mut lines = MEASURED.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<&str> = lines.next().unwrap().split('\t').skip(6).collect();
        let mut count = 0;
        for (configuration, build, offsets) in configurations() {
            let layout = only(&build).unwrap();
            for (name, offset) in names.iter().zip(offsets) {
                let (name, member) = name.split_once('.').unwrap();
                let stated = layout.structs[name].get(member);
                let stated = stated.map_or("-".to_owned(), u32::to_string);
                assert_eq!(stated, offset, "{configuration} {name}.{member}");
            }
            count += 1;
        }
        assert_eq!(count, 622);
    }

    /// Check that every release from 1.10.0 on has a layout, and that newer releases have none.
    #[test]
    fn releases() {
        let whole = only(&build("1.22.1", COMPAT)).unwrap();
        for (first, last) in parse(TABLE).unwrap().releases {
            for version in [first, last] {
                let layout = only(&build(&version.to_string(), COMPAT)).unwrap();
                assert!(layout.structs.keys().eq(whole.structs.keys()), "{version}");
            }
        }
        for version in ["1.9.15", "1.12.3", "1.22.2", "1.31.999", "2.0.0"] {
            assert!(only(&build(version, COMPAT)).is_none());
        }
    }

    /// Check that foreign signatures and forks are not taken for nginx.
    #[test]
    fn others() {
        for signature in [
            "4,4,4,0011111111010111001111111111111111",
            "8,4,8,0011111111010111001111111110111111",
            "",
        ] {
            assert!(only(&build("1.22.1", signature)).is_none(), "{signature}");
        }
        let fork = Build {
            fork: Some("openresty/1.21.4.1".to_owned()),
            ..build("1.21.4", COMPAT)
        };
        assert!(only(&fork).is_none());
    }

    /// Check that a section that was written is parsed as the same layout.
    #[test]
    fn written() {
        let build = build("1.22.1", COMPAT);
        let layout = only(&build).unwrap();
        let again = parse(&layout.section(&build)).unwrap();
        assert_eq!(again.layout_of(&build).unwrap(), Some(layout));
    }
}
