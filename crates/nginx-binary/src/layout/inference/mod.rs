// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of the known layouts is that of a build that no one has looked at. No guess: the code has to
//! agree with it in every member that is read and that is not at the same place in all of them. This
//! is decided from what the witnesses say alone, whoever they are.

use std::borrow::Cow;
use std::collections::BTreeSet;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::layout::Layout;
use crate::layout::witness;
use crate::layout::witness::Fit;
use crate::version::Version;

/// A struct that embeds no other, nor is embedded, so that it may be another release's than the rest:
/// a fix of a newer branch that went into an older one moves members of one struct (1.30.6 has that of
/// 1.31.3 in its HTTP/2).
const ALONE: &str = "ngx_http_upstream_s";

/// Read only where the binary's code has it (`hook::QUIC_FRAMES`), whatever a layout says.
const TOLD_BY_CODE: [&str; 1] = ["ngx_quic_frame_s"];

/// A layout of the table, tried on another build.
struct Candidate<'a> {
    /// The newest release that has it.
    version: Version,
    /// The layout.
    layout: Cow<'a, Layout>,
    /// How well it fits.
    fit: Fit,
}

/// Of the known layouts (as the build's options make them, each with the newest release that has it)
/// the one that `ask` finds to fit. Fails with the reason why there is none.
pub fn choose(known: &[(Version, Layout)], ask: &mut dyn FnMut(&Layout) -> Fit) -> Result<Layout> {
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for (version, layout) in known {
        candidates.push(Candidate {
            version: *version,
            fit: ask(layout),
            layout: Cow::Borrowed(layout),
        });
    }
    let mixed: Vec<(Version, Layout)> = candidates
        .iter()
        .filter(|candidate| differs_in_one(&candidate.fit))
        .flat_map(|near| known.iter().map(move |(_, other)| mix(near, other)))
        .collect();
    for (version, layout) in mixed {
        candidates.push(Candidate {
            version,
            fit: ask(&layout),
            layout: Cow::Owned(layout),
        });
    }
    let only = only(candidates)?;
    let unsettled = unsettled(&only, known);
    if let Some(first) = unsettled.first() {
        bail!(
            "{}'s fits, but nothing in its code says where it has {first}{}",
            only.version,
            match unsettled.len() {
                1 => String::new(),
                more => format!(" and {} more", more - 1),
            }
        );
    }
    Ok(only.layout.into_owned())
}

/// What speaks against a layout that debug information states: a known layout that the code agrees
/// with in full, when it does not agree with the stated one in full, or when it is that of the very
/// build (`own`) and has a member elsewhere. `None` when nothing does.
pub fn contradiction(
    stated: &Layout,
    own: Option<&Layout>,
    known: &[(Version, Layout)],
    ask: &mut dyn FnMut(&Layout) -> Fit,
) -> Option<String> {
    let fit = ask(stated);
    if let Some(first) = fit.differ.first() {
        let better = known.iter().find(|(_, layout)| ask(layout).is_full())?;
        return Some(format!(
            "the binary's code has {} of {} members elsewhere ({} first), and agrees with nginx {} \
             in full",
            fit.differ.len(),
            fit.asked(),
            witness::name(first),
            better.0
        ));
    }
    let own = own.filter(|own| ask(own).is_full())?;
    let members = stated.structs.iter().flat_map(|(name, members)| {
        let members = members.iter();
        members.map(move |(member, offset)| (name, member, offset))
    });
    for (name, member, offset) in members {
        let known = own.structs.get(name).and_then(|known| known.get(member));
        if known.is_some_and(|known| known != offset) && !TOLD_BY_CODE.contains(&name.as_str()) {
            return Some(format!(
                "it has {name}.{member} elsewhere than this release, with which the binary's code \
                 agrees in full"
            ));
        }
    }
    None
}

/// Whether all members that are elsewhere are of the struct that stands alone.
fn differs_in_one(fit: &Fit) -> bool {
    !fit.differ.is_empty() && fit.differ.iter().all(|place| place[0].0 == ALONE)
}

/// A candidate, with one struct of another layout.
fn mix(near: &Candidate<'_>, other: &Layout) -> (Version, Layout) {
    let mut layout = Layout::clone(&near.layout);
    let members = other.structs.get(ALONE).cloned();
    layout
        .structs
        .insert(ALONE.to_owned(), members.unwrap_or_default());
    (near.version, layout)
}

/// The only one that fits in full. Fails with the reason why there is none.
fn only(candidates: Vec<Candidate<'_>>) -> Result<Candidate<'_>> {
    let nearest = candidates
        .iter()
        .max_by_key(|candidate| candidate.fit.agree.len())
        .map(|nearest| {
            let fit = &nearest.fit;
            let (agree, asked) = (fit.agree.len(), fit.asked());
            format!("{}'s in {agree} of {asked}", nearest.version)
        });
    let mut fitting = candidates
        .into_iter()
        .filter(|candidate| candidate.fit.is_full());
    let Some(only) = fitting.next() else {
        let nearest = nearest.map(|nearest| format!(" (the nearest, {nearest} members)"));
        bail!("none of the known ones fits{}", nearest.unwrap_or_default());
    };
    for other in fitting {
        ensure!(
            other.layout == only.layout,
            "both {}'s and {}'s fit",
            only.version,
            other.version
        );
    }
    Ok(only)
}

/// Members that are not at the same place in all known layouts, and that no witness has settled.
fn unsettled(chosen: &Candidate<'_>, known: &[(Version, Layout)]) -> Vec<String> {
    let members = chosen
        .layout
        .structs
        .iter()
        .flat_map(|(name, members)| members.keys().map(move |member| (name, member)));
    members
        .filter(|(name, member)| {
            let places: BTreeSet<Option<u32>> = known
                .iter()
                .map(|(_, layout)| layout.structs.get(*name)?.get(*member).copied())
                .collect();
            places.len() > 1 && !chosen.fit.settles(name, member)
        })
        .map(|(name, member)| format!("{name}.{member}"))
        .collect()
}

/// What it decides of builds whose layouts were measured.
#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::choose;
    use super::contradiction;
    use crate::layout::Layout;
    use crate::layout::Members;
    use crate::layout::witness::Fit;
    use crate::layout::witness::functions::Place;
    use crate::version::Version;

    /// Two members of one struct.
    const PLACES: [Place; 2] = [&[("ngx_s", "first")], &[("ngx_s", "second")]];

    /// A known layout that has its members at `offset` and at 64.
    fn known(version: &str, offset: u32) -> (Version, Layout) {
        let members = [("first".to_owned(), offset), ("second".to_owned(), 64)];
        let structs = [("ngx_s".to_owned(), Members::from(members))];
        let layout = Layout {
            structs: structs.into(),
        };
        (version.parse().unwrap(), layout)
    }

    /// What is said of a layout by code that has the first member at `offset`, and the second at 64.
    fn fit(layout: &Layout, offset: u32) -> Fit {
        let mut fit = Fit {
            agree: vec![PLACES[1]],
            ..Fit::default()
        };
        if layout.structs["ngx_s"]["first"] == offset {
            fit.agree.push(PLACES[0]);
        } else {
            fit.differ.push(PLACES[0]);
        }
        fit
    }

    /// Check that the only one that fits is taken.
    #[test]
    fn clear() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let chosen = choose(&known, &mut |layout| fit(layout, 16)).unwrap();
        assert_eq!(chosen, known[1].1);
    }

    /// Check that a poor fit is an error that names the nearest, and so is a witness that is not there.
    #[test]
    fn poor() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let error = choose(&known, &mut |layout| fit(layout, 24)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("1.30.4's in 1 of 2 members"), "{error}");
        let none = choose(&[], &mut |layout| fit(layout, 24)).unwrap_err();
        assert_eq!(none.to_string(), "none of the known ones fits");
        let silent = choose(&known, &mut |layout| {
            let mut fit = fit(layout, 16);
            fit.agree.retain(|place| *place != PLACES[1]);
            fit.unknown.push(PLACES[1]);
            fit
        });
        assert!(silent.is_err());
    }

    /// Check that a tie is an error, unless it makes no difference.
    #[test]
    fn tie() {
        let agree = || Fit {
            agree: PLACES.to_vec(),
            ..Fit::default()
        };
        let two = [known("1.20.0", 8), known("1.30.4", 16)];
        let error = choose(&two, &mut |_| agree()).unwrap_err().to_string();
        assert!(error.contains("both 1.20.0's and 1.30.4's fit"), "{error}");
        let same = [known("1.20.0", 8), known("1.30.4", 8)];
        assert!(choose(&same, &mut |_| agree()).is_ok());
    }

    /// Check that debug information is contradicted by a known layout that fits better, and by that of
    /// the build itself, and by nothing else.
    #[test]
    fn contradicted() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let mut ask = |layout: &Layout| fit(layout, 16);
        let [(_, wrong), (_, right)] = &known;
        let says = contradiction(wrong, None, &known, &mut ask).unwrap();
        let expected = "the binary's code has 1 of 2 members elsewhere (ngx_s.first first), and agrees \
                        with nginx 1.30.4 in full";
        assert_eq!(says, expected);
        assert_eq!(contradiction(wrong, None, &known[..1], &mut ask), None);
        assert_eq!(contradiction(right, Some(right), &known, &mut ask), None);
        let mut moved = right.clone();
        let members = moved.structs.get_mut("ngx_s").unwrap();
        members.insert("third".to_owned(), 72);
        assert_eq!(contradiction(&moved, Some(right), &known, &mut ask), None);
        let mut own = moved.clone();
        own.structs
            .get_mut("ngx_s")
            .unwrap()
            .insert("third".to_owned(), 80);
        let says = contradiction(&moved, Some(&own), &known, &mut ask).unwrap();
        assert!(says.starts_with("it has ngx_s.third elsewhere"), "{says}");
    }

    /// Check that a layout which fits is refused when one of its members is elsewhere in another known
    /// one and has no witness, and that a member that nothing reads needs none.
    #[test]
    fn no_witness() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let of = |layout: &Layout, is_unread: bool| {
            let mut fit = fit(layout, 16);
            let is_first = |place: &Place| *place == PLACES[0];
            if !fit.differ.is_empty() {
                return fit;
            }
            let first: Vec<Place> = fit.agree.extract_if(.., |place| is_first(place)).collect();
            if is_unread {
                fit.unread.extend(first);
            }
            fit
        };
        let error = choose(&known, &mut |layout| of(layout, false)).unwrap_err();
        let error = error.to_string();
        let expected = "1.30.4's fits, but nothing in its code says where it has ngx_s.first";
        assert_eq!(error, expected);
        assert!(choose(&known, &mut |layout| of(layout, true)).is_ok());
    }
}
