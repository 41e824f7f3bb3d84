// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of layouts: sections, the builds that each holds for, and rules that make the layout of a build.
//! The README of this crate describes them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::Result;
use anyhow::ensure;

use super::Build;
use super::Layout;
use super::Members;
use crate::version::Version;

pub use parse::parse;
pub use parse::parse_bytes;
pub use parse::parse_macro;

mod parse;
pub mod release;

/// The rules for one struct: its layout without any macro, and what each macro adds.
#[derive(Debug, Default)]
struct StructRule {
    /// The bytes that a macro inserts before the members that follow, and the macro.
    shifts: Vec<(u32, String)>,
    /// The members in the order of the struct.
    members: Vec<MemberRule>,
}

/// The rule for one member.
#[derive(Debug)]
struct MemberRule {
    name: String,
    /// The offset in bytes without any macro.
    offset: u32,
    /// The number of shifts that come before it.
    shifts: usize,
    /// The macro without which the member does not exist.
    only_with: Option<String>,
}

impl StructRule {
    /// Returns the members in one build.
    fn members_of(&self, build: &Build) -> Members {
        let shift = |count: usize| -> u32 {
            let shifts = self.shifts.iter().take(count);
            shifts
                .filter(|(_, name)| build.defines(name))
                .map(|(bytes, _)| bytes)
                .sum()
        };
        let members = self.members.iter().filter(|member| {
            member
                .only_with
                .as_deref()
                .is_none_or(|name| build.defines(name))
        });
        members
            .map(|member| (member.name.clone(), member.offset + shift(member.shifts)))
            .collect()
    }
}

/// Releases that a section holds for.
#[derive(Debug)]
enum Releases {
    /// Releases of nginx itself: the first one, and the last one unless the range is open.
    Nginx(Version, Option<Version>),
    /// One release of a fork, as it identifies itself.
    Fork(String),
}

impl Releases {
    fn contains(&self, build: &Build) -> bool {
        match (self, &build.fork) {
            (Self::Nginx(first, last), None) => {
                *first <= build.version && last.is_none_or(|last| build.version <= last)
            }
            (Self::Fork(ours), Some(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

/// One section of a file of layouts: the builds, and the rules that hold for all of them.
#[derive(Debug)]
struct Section {
    releases: Vec<Releases>,
    /// A pattern for `NGX_MODULE_SIGNATURE`: a dot matches any digit, a `*` at the end any rest.
    signature: String,
    /// The rules of each struct, by its name in C.
    structs: BTreeMap<String, StructRule>,
}

impl Section {
    fn holds_for(&self, build: &Build) -> bool {
        self.releases
            .iter()
            .any(|releases| releases.contains(build))
            && self.has_signature(&build.signature)
    }

    fn has_signature(&self, signature: &str) -> bool {
        let (ours, theirs) = match self.signature.strip_suffix('*') {
            Some(ours) => (ours, signature.get(..ours.len())),
            None => (self.signature.as_str(), Some(signature)),
        };
        theirs.is_some_and(|theirs| {
            let digits = ours.bytes().zip(theirs.bytes());
            let mut digits = digits.map(|(ours, theirs)| ours == b'.' || ours == theirs);
            ours.len() == theirs.len() && digits.all(|is_same| is_same)
        })
    }
}

/// A file of layouts.
#[derive(Debug, Default)]
pub struct Table {
    /// The releases that were examined, as ranges with their first and last one. Empty when the file does not
    /// say.
    pub releases: Vec<(Version, Version)>,
    sections: Vec<Section>,
}

impl Table {
    /// Returns the layout that all sections which hold for the build state together. `None` when none does.
    ///
    /// Fails when two of them state the same struct.
    pub fn layout_of(&self, build: &Build) -> Result<Option<Layout>> {
        let is_listed = |(first, last): &(Version, Version)| {
            (first..=last).contains(&&build.version) && build.fork.is_none()
        };
        if !self.releases.is_empty() && !self.releases.iter().any(is_listed) {
            return Ok(None);
        }
        let mut layout = Layout::default();
        for section in self.sections.iter().filter(|s| s.holds_for(build)) {
            for (name, rule) in &section.structs {
                let before = layout.structs.insert(name.clone(), rule.members_of(build));
                ensure!(before.is_none(), "two layouts of {name} hold for {build}");
            }
        }
        Ok(Some(layout).filter(|layout| !layout.structs.is_empty()))
    }

    /// Returns every distinct layout of the examined releases, as the build's options make it, each with the
    /// newest release that has it.
    pub fn distinct_layouts(&self, build: &Build) -> Result<Vec<(Version, Layout)>> {
        let mut found: Vec<(Version, Layout)> = Vec::new();
        for version in self.versions() {
            let build = Build {
                version,
                fork: None,
                ..build.clone()
            };
            let Some(layout) = self.layout_of(&build)? else {
                continue;
            };
            match found.last_mut() {
                Some((newest, last)) if *last == layout => *newest = version,
                _ => found.push((version, layout)),
            }
        }
        Ok(found)
    }

    /// Returns the examined releases after which a layout may change, oldest first: the last one of each
    /// branch, and the last one of each section.
    fn versions(&self) -> BTreeSet<Version> {
        let ranges = self.sections.iter().flat_map(|section| &section.releases);
        let last = ranges.filter_map(|releases| match releases {
            Releases::Nginx(_, last) => *last,
            Releases::Fork(_) => None,
        });
        last.chain(self.releases.iter().map(|(_, last)| *last))
            .collect()
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
