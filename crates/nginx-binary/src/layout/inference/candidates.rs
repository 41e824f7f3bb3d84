// SPDX-License-Identifier: MIT OR Apache-2.0
//! The known layouts of which inference chooses one, with what it asks of all of them together.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use crate::layout::KnownLayout;
use crate::layout::Layout;
use crate::layout::Members;

/// A struct that neither embeds another one nor is embedded, so that it may come from another release than
/// the rest: a fix that was ported to an older branch moves the members of one struct (1.30.6 has a struct
/// of 1.31.3 in its HTTP/2).
pub const ALONE: &str = "ngx_http_upstream_s";

/// The known layouts.
pub struct Candidates {
    /// The layouts as the options of one build make them, each with its name.
    pub layouts: Vec<KnownLayout>,
    /// Each distinct struct `ALONE`, with the name of a layout that has it.
    alone: BTreeMap<Members, String>,
    /// The members of each struct that not all layouts have at the same offset.
    moving: BTreeMap<String, BTreeSet<String>>,
}

impl Candidates {
    /// Examines the layouts.
    pub fn new(layouts: Vec<KnownLayout>) -> Self {
        let alone = layouts.iter().map(|(name, layout)| {
            let members = layout.structs.get(ALONE).cloned();
            (members.unwrap_or_default(), name.clone())
        });
        Self {
            alone: alone.collect(),
            moving: moving(&layouts),
            layouts,
        }
    }

    /// Returns whether not all layouts have a member at the same offset.
    pub fn is_moving(&self, name: &str, member: &str) -> bool {
        let members = self.moving.get(name);
        members.is_some_and(|members| members.contains(member))
    }

    /// Replaces the struct `ALONE` of a layout by every other one that is known, one after the other. Returns those
    /// layouts for which `is_right` holds, with their names.
    pub fn mixed(
        &self,
        name: &str,
        layout: &Layout,
        mut is_right: impl FnMut(&Layout) -> bool,
    ) -> Vec<KnownLayout> {
        let own = layout.structs.get(ALONE);
        let mut layout = layout.clone();
        let others = self
            .alone
            .iter()
            .filter(|(members, _)| Some(*members) != own);
        let mixed = others.filter_map(|(members, from)| {
            layout.structs.insert(ALONE.to_owned(), members.clone());
            is_right(&layout).then(|| (format!("{name} with {ALONE} of {from}"), layout.clone()))
        });
        mixed.collect()
    }
}

/// Returns the members that not all of these layouts have at the same offset.
fn moving(layouts: &[KnownLayout]) -> BTreeMap<String, BTreeSet<String>> {
    let mut moving: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let Some((_, first)) = layouts.first() else {
        return moving;
    };
    for (_, layout) in &layouts[1..] {
        for (one, other) in [(first, layout), (layout, first)] {
            for (name, members) in &one.structs {
                let moved = members
                    .iter()
                    .filter(|(member, offset)| other.offset(name, member) != Some(**offset));
                for (member, _) in moved {
                    let members = moving.entry(name.clone()).or_default();
                    members.insert(member.clone());
                }
            }
        }
    }
    moving
}
