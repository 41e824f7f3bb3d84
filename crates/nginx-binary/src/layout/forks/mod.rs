// SPDX-License-Identifier: MIT OR Apache-2.0
//! What forks and well-known patches do to nginx's structs: `forks.txt`. A fork has the layout of the nginx that it
//! is based on, with bytes inserted into it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;

use super::KnownLayout;
use super::Layout;
use crate::build::Build;
use crate::version::Version;

pub use parse::parse;

mod parse;

/// The most patches of one build of which the code decides whether it has them. Each doubles the number of its
/// layouts.
const OPEN_MAX: usize = 6;

/// The release of a fork: numbers, of which there may be more than nginx has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(Vec<u32>);

impl FromStr for Release {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers: Result<_, _> = text.split('.').map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("\"{text}\" is not a release"))?;
        Ok(Self(numbers))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// Releases of one fork.
#[derive(Debug)]
struct Releases {
    /// The name, as in `NAME/RELEASE`.
    fork: String,
    first: Release,
    /// `None` when later releases belong to it, too.
    last: Option<Release>,
}

impl Releases {
    fn contain(&self, fork: &str, release: &Release) -> bool {
        let is_late = |last: &Release| last < release;
        self.fork == fork && self.first <= *release && !self.last.as_ref().is_some_and(is_late)
    }
}

/// What shows that a build has a patch.
#[derive(Debug)]
enum Condition {
    /// This macro is defined.
    Macro(String),
    /// The fork calls itself one of these releases.
    Releases(Releases),
}

/// Bytes that a patch inserts into a struct, or removes from it.
#[derive(Debug)]
struct Shift {
    bytes: i32,
    /// The first member that they move.
    member: String,
    /// The macro without which they are not there.
    only_with: Option<String>,
}

/// A patch that moves members.
#[derive(Debug)]
struct Patch {
    name: String,
    /// False when the code has to show whether a build for which the condition holds has the patch.
    is_certain: bool,
    condition: Condition,
    /// The shifts, each with its struct.
    shifts: Vec<(String, Shift)>,
}

impl Patch {
    /// Applies the patch to a layout. `original` is nginx's, in which the shifts name members; `nginx` has the
    /// macros.
    fn apply(&self, layout: &mut Layout, nginx: &Build, original: &Layout) -> Result<()> {
        for (name, shift) in &self.shifts {
            let mut only_with = shift.only_with.iter();
            if !only_with.all(|name| nginx.defines(name)) {
                continue;
            }
            let first = original.offset(name, &shift.member);
            let first = first.with_context(|| format!("nginx has no {name}.{}", shift.member))?;
            let members = layout.structs.get_mut(name).into_iter().flatten();
            let is_moved = |member: &str| original.offset(name, member) >= Some(first);
            for (member, offset) in members.filter(|(member, _)| is_moved(member)) {
                let at = offset.checked_add_signed(shift.bytes);
                *offset = at.with_context(|| format!("{name}.{member} is moved before 0"))?;
            }
        }
        Ok(())
    }
}

/// A layout of nginx to which patches were applied.
#[derive(Clone, Debug)]
pub struct Patched<'a> {
    /// The layout with the patches.
    pub layout: Layout,
    patches: Vec<&'a Patch>,
}

impl Patched<'_> {
    /// Returns the layout with its name: the release of nginx, and all patches.
    pub fn named(self, nginx: &str) -> KnownLayout {
        (name(nginx, self.patches.iter()), self.layout)
    }

    /// Returns the layout with its name: the release of the fork, and the patches that not each of its builds has.
    pub fn named_after(self, fork: &str) -> KnownLayout {
        let open = self.patches.iter().filter(|patch| !patch.is_certain);
        (name(fork, open), self.layout)
    }
}

/// Returns the name of a release with patches.
fn name<'a>(release: &str, patches: impl Iterator<Item = &'a &'a Patch>) -> String {
    let patches: Vec<&str> = patches.map(|patch| patch.name.as_str()).collect();
    match patches.is_empty() {
        true => release.to_owned(),
        false => format!("{release} with {}", patches.join(", ")),
    }
}

/// The nginx that a build has the structs of.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// Its release.
    pub version: Version,
    /// True when it is stated for the release of the fork, so that it does not depend on the build.
    pub is_stated: bool,
}

/// A range of releases that were examined.
#[derive(Debug)]
struct Examined {
    releases: Releases,
    /// The release of nginx whose structs they have. `None` when it is the one that their modules carry.
    nginx: Option<Version>,
}

/// The forks and patches that are known.
#[derive(Debug, Default)]
pub struct Forks {
    examined: Vec<Examined>,
    patches: Vec<Patch>,
}

impl Forks {
    /// Returns the nginx that a build has the structs of. `None` when it is of a fork that was not examined.
    pub fn base(&self, build: &Build) -> Option<Base> {
        let Some(fork) = &build.fork else {
            return Some(Base {
                version: build.version,
                is_stated: false,
            });
        };
        let (name, release) = parse_name(fork)?;
        let mut examined = self.examined.iter();
        let examined = examined.find(|known| known.releases.contain(name, &release))?;
        Some(Base {
            version: examined.nginx.unwrap_or(build.version),
            is_stated: examined.nginx.is_some(),
        })
    }

    /// Returns the names of the first and last of each range of examined releases of the fork that a build is,
    /// newest first.
    pub fn releases(&self, build: &Build) -> Vec<String> {
        let named = build.fork.as_deref().and_then(|fork| fork.split_once('/'));
        let Some((name, _)) = named else {
            return Vec::new();
        };
        let own = self.examined.iter().map(|known| &known.releases);
        let own = own.filter(|releases| releases.fork == name);
        let ends = own.flat_map(|releases| [Some(&releases.first), releases.last.as_ref()]);
        let ends: BTreeSet<&Release> = ends.flatten().collect();
        let newest = ends.into_iter().rev();
        newest.map(|release| format!("{name}/{release}")).collect()
    }

    /// Returns every layout that a build may have, made of the one of the nginx that it is based on. `nginx` is
    /// the build that this nginx would be with the same options.
    pub fn apply(
        &self,
        build: &Build,
        nginx: &Build,
        original: &Layout,
    ) -> Result<Vec<Patched<'_>>> {
        let named = build.fork.as_deref().and_then(parse_name);
        let holds = |patch: &&Patch| match &patch.condition {
            Condition::Macro(name) => nginx.defines(name),
            Condition::Releases(releases) => {
                let mut named = named.iter();
                named.any(|(name, release)| releases.contain(name, release))
            }
        };
        let patches = self.patches.iter().filter(holds);
        let (certain, open): (Vec<&Patch>, Vec<&Patch>) = patches.partition(|p| p.is_certain);
        ensure!(open.len() <= OPEN_MAX, "more than {OPEN_MAX} open patches");
        let mut layouts = vec![Patched {
            layout: original.clone(),
            patches: Vec::new(),
        }];
        for patch in certain.into_iter().chain(open) {
            let mut patched = layouts.clone();
            for known in &mut patched {
                let context = || format!("failed to apply {}", patch.name);
                let layout = &mut known.layout;
                patch.apply(layout, nginx, original).with_context(context)?;
                known.patches.push(patch);
            }
            match patch.is_certain {
                true => layouts = patched,
                false => layouts.extend(patched),
            }
        }
        Ok(layouts)
    }
}

/// Splits the name of a fork into its name and its release. `None` when the release has another form: that of a
/// candidate (`1.27.1.2rc1`) was not examined.
pub fn parse_name(fork: &str) -> Option<(&str, Release)> {
    let (name, release) = fork.split_once('/')?;
    Some((name, release.parse().ok()?))
}

#[cfg(test)]
pub mod measured;
#[cfg(test)]
mod tests;
