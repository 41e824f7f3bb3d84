// SPDX-License-Identifier: MIT OR Apache-2.0
//! Infers the layout of an unknown build: the one known layout that the code of the binary agrees with. It
//! never guesses: the code has to agree in every member that is read and whose offset differs between the
//! known layouts. The decision depends only on the verdicts of the witnesses.

use std::borrow::Cow;
use std::collections::BTreeSet;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::layout::KnownLayout;
use crate::layout::Layout;
use crate::layout::Members;
use crate::layout::witness;
use crate::layout::witness::Agreement;

pub mod listed;

/// A struct that neither embeds another one nor is embedded, so that it may come from another release than
/// the rest: a fix that was ported to an older branch moves the members of one struct (1.30.6 has a struct
/// of 1.31.3 in its HTTP/2).
const ALONE: &str = "ngx_http_upstream_s";

/// Structs whose layout a symbol in the binary decides (`sites::QUIC_FRAMES`), whatever a layout says.
const DECIDED_BY_SYMBOL: [&str; 1] = ["ngx_quic_frame_s"];

/// A known layout that was compared with the code of another build.
struct TriedLayout<'a> {
    /// The newest release that has it.
    release: &'a str,
    layout: Cow<'a, Layout>,
    fit: Agreement,
}

/// Returns the one known layout that the code agrees with, and the members in which it does. `known` are the
/// layouts as the build's options make them, each with the newest release that has it; `examine` compares one
/// with the code.
///
/// # Errors
///
/// Fails with the reason when none agrees, when several do, or when a member has no witness.
pub fn infer_layout(
    known: &[KnownLayout],
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Result<(Layout, Agreement)> {
    let mut candidates: Vec<TriedLayout<'_>> = Vec::new();
    for (release, layout) in known {
        candidates.push(TriedLayout {
            release,
            fit: examine(layout),
            layout: Cow::Borrowed(layout),
        });
    }
    let alone = known.iter().map(|(_, layout)| layout.structs.get(ALONE));
    let alone: BTreeSet<Option<&Members>> = alone.collect();
    let mixed: Vec<(&str, Layout)> = candidates
        .iter()
        .filter(|candidate| differs_in_one(&candidate.fit))
        .flat_map(|near| alone.iter().map(|members| with_struct(near, *members)))
        .collect();
    for (release, layout) in mixed {
        candidates.push(TriedLayout {
            release,
            fit: examine(&layout),
            layout: Cow::Owned(layout),
        });
    }
    let only = only_agreeing(candidates)?;
    let unsettled = unsettled(&only, known);
    if let Some(first) = unsettled.first() {
        bail!(
            "that of {} fits, but nothing in the code shows the offset of {first}{}",
            only.release,
            match unsettled.len() {
                1 => String::new(),
                more => format!(" and {} more", more - 1),
            }
        );
    }
    Ok((only.layout.into_owned(), only.fit))
}

/// Returns what contradicts a layout that debug information states, and with which the code does not agree
/// (`fit`): it agrees fully with a known one. `None` when it does not.
pub fn contradicted_by_known(
    fit: &Agreement,
    known: &[KnownLayout],
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Option<String> {
    let first = fit.differ.first()?;
    let better = known.iter().find(|(_, layout)| examine(layout).is_full())?;
    Some(format!(
        "the binary's code has {} of {} members elsewhere ({} first), and agrees with the layout of {} in full",
        fit.differ.len(),
        fit.asked(),
        witness::path_name(first),
        better.0
    ))
}

/// Returns what contradicts a layout that debug information states, and with which the code agrees: it agrees
/// fully with known layouts of this very build (`own`), each of which has a member at another offset. `None` when
/// it does not.
pub fn contradicted_by_own(
    stated: &Layout,
    own: &[Layout],
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Option<String> {
    let agreeing = own.iter().filter(|own| examine(own).is_full());
    let moved = agreeing.map(|own| moved_from(stated, own));
    let moved: Option<Vec<String>> = moved.collect();
    let first = moved?.into_iter().next()?;
    Some(format!(
        "it has {first} elsewhere than this release, with which the binary's code agrees in full"
    ))
}

/// Returns the first member that a layout has at another offset than a known one.
fn moved_from(stated: &Layout, own: &Layout) -> Option<String> {
    let mut members = stated.structs.iter().flat_map(|(name, members)| {
        let members = members.iter();
        members.map(move |(member, offset)| (name, member, offset))
    });
    let (name, member, _) = members.find(|(name, member, offset)| {
        let known = own.offset(name, member);
        known.is_some_and(|known| known != **offset) && !DECIDED_BY_SYMBOL.contains(&name.as_str())
    })?;
    Some(format!("{name}.{member}"))
}

/// Returns whether all members that differ are in the struct `ALONE`.
fn differs_in_one(fit: &Agreement) -> bool {
    !fit.differ.is_empty() && fit.differ.iter().all(|place| place[0].0 == ALONE)
}

/// Replaces the struct `ALONE` of a layout.
fn with_struct<'a>(near: &TriedLayout<'a>, members: Option<&Members>) -> (&'a str, Layout) {
    let mut layout = Layout::clone(&near.layout);
    let members = members.cloned();
    layout
        .structs
        .insert(ALONE.to_owned(), members.unwrap_or_default());
    (near.release, layout)
}

/// Returns the only layout that the code fully agrees with. Fails with the reason when there is none.
fn only_agreeing(candidates: Vec<TriedLayout<'_>>) -> Result<TriedLayout<'_>> {
    let nearest = candidates
        .iter()
        .max_by_key(|candidate| candidate.fit.agree.len())
        .map(|nearest| {
            let fit = &nearest.fit;
            let (agree, asked) = (fit.agree.len(), fit.asked());
            format!("that of {} in {agree} of {asked}", nearest.release)
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
            listed::differing(&only.fit, &only.layout, &other.layout).is_none(),
            "both that of {} and that of {} fit",
            only.release,
            other.release
        );
    }
    Ok(only)
}

/// Returns the members whose offset differs between the known layouts and that no witness has settled.
fn unsettled(chosen: &TriedLayout<'_>, known: &[KnownLayout]) -> Vec<String> {
    let members = chosen
        .layout
        .structs
        .iter()
        .flat_map(|(name, members)| members.keys().map(move |member| (name, member)));
    members
        .filter(|(name, member)| {
            let mut places = known.iter().map(|(_, layout)| layout.offset(name, member));
            let first = places.next();
            !chosen.fit.settles(name, member) && places.any(|place| Some(place) != first)
        })
        .map(|(name, member)| format!("{name}.{member}"))
        .collect()
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::contradicted_by_known;
    use super::contradicted_by_own;
    use super::infer_layout;
    use crate::layout::KnownLayout;
    use crate::layout::Layout;
    use crate::layout::Members;
    use crate::layout::witness::Agreement;
    use crate::layout::witness::functions::MemberPath;

    /// Two members of one struct.
    const PLACES: [MemberPath; 2] = [&[("ngx_s", "first")], &[("ngx_s", "second")]];

    /// Returns a known layout that has its members at `offset` and at 64.
    fn known(release: &str, offset: u32) -> KnownLayout {
        let members = [("first".to_owned(), offset), ("second".to_owned(), 64)];
        let structs = [("ngx_s".to_owned(), Members::from(members))];
        let layout = Layout {
            structs: structs.into(),
        };
        (release.to_owned(), layout)
    }

    /// Compares a layout with code that has the first member at `offset` and the second one at 64.
    fn fit(layout: &Layout, offset: u32) -> Agreement {
        let mut fit = Agreement {
            agree: vec![PLACES[1]],
            ..Agreement::default()
        };
        if layout.structs["ngx_s"]["first"] == offset {
            fit.agree.push(PLACES[0]);
        } else {
            fit.differ.push(PLACES[0]);
        }
        fit
    }

    /// Check that the only layout that fits is inferred.
    #[test]
    fn clear() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let chosen = infer_layout(&known, &mut |layout| fit(layout, 16)).unwrap();
        assert_eq!(chosen.0, known[1].1);
        assert!(chosen.1.is_full());
    }

    /// Check that a layout that does not fit is an error that names the nearest one, and that a missing witness
    /// is an error.
    #[test]
    fn poor() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let error = infer_layout(&known, &mut |layout| fit(layout, 24)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("that of 1.30.4 in 1 of 2 members"),
            "{error}"
        );
        let none = infer_layout(&[], &mut |layout| fit(layout, 24)).unwrap_err();
        assert_eq!(none.to_string(), "none of the known ones fits");
        let silent = infer_layout(&known, &mut |layout| {
            let mut fit = fit(layout, 16);
            fit.agree.retain(|place| *place != PLACES[1]);
            fit.unknown.push(PLACES[1]);
            fit
        });
        assert!(silent.is_err());
    }

    /// Check that several layouts that fit are an error, unless they are equal.
    #[test]
    fn tie() {
        let agree = || Agreement {
            agree: PLACES.to_vec(),
            ..Agreement::default()
        };
        let two = [known("1.20.0", 8), known("1.30.4", 16)];
        let error = infer_layout(&two, &mut |_| agree())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("both that of 1.20.0 and that of 1.30.4 fit"),
            "{error}"
        );
        let same = [known("1.20.0", 8), known("1.30.4", 8)];
        assert!(infer_layout(&same, &mut |_| agree()).is_ok());
    }

    /// Check that debug information is contradicted by a known layout that fits better and by the layout of
    /// the build itself, and by nothing else.
    #[test]
    fn contradicted() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let mut examine = |layout: &Layout| fit(layout, 16);
        let [(_, wrong), (_, right)] = &known;
        let bad = examine(wrong);
        let says = contradicted_by_known(&bad, &known, &mut examine).unwrap();
        let expected = "the binary's code has 1 of 2 members elsewhere (ngx_s.first first), and agrees \
                        with the layout of 1.30.4 in full";
        assert_eq!(says, expected);
        assert_eq!(contradicted_by_known(&bad, &known[..1], &mut examine), None);
        let good = examine(right);
        assert_eq!(contradicted_by_known(&good, &known, &mut examine), None);
        assert_eq!(
            contradicted_by_own(right, std::slice::from_ref(right), &mut examine),
            None
        );
        let mut moved = right.clone();
        let members = moved.structs.get_mut("ngx_s").unwrap();
        members.insert("third".to_owned(), 72);
        assert_eq!(
            contradicted_by_own(&moved, std::slice::from_ref(right), &mut examine),
            None
        );
        assert_eq!(
            contradicted_by_own(right, std::slice::from_ref(wrong), &mut examine),
            None
        );
        let mut own = moved.clone();
        own.structs
            .get_mut("ngx_s")
            .unwrap()
            .insert("third".to_owned(), 80);
        let says = contradicted_by_own(&moved, &[own.clone()], &mut examine).unwrap();
        assert!(says.starts_with("it has ngx_s.third elsewhere"), "{says}");
        assert_eq!(
            contradicted_by_own(&moved, &[own, moved.clone()], &mut examine),
            None
        );
    }

    /// Check that a layout that fits is refused when a member without a witness has another offset in another
    /// known layout, and that a member that nothing reads needs no witness.
    #[test]
    fn no_witness() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let of = |layout: &Layout, is_unread: bool| {
            let mut fit = fit(layout, 16);
            let is_first = |place: &MemberPath| *place == PLACES[0];
            if !fit.differ.is_empty() {
                return fit;
            }
            let first: Vec<MemberPath> =
                fit.agree.extract_if(.., |place| is_first(place)).collect();
            if is_unread {
                fit.unread.extend(first);
            }
            fit
        };
        let error = infer_layout(&known, &mut |layout| of(layout, false)).unwrap_err();
        let error = error.to_string();
        let expected =
            "that of 1.30.4 fits, but nothing in the code shows the offset of ngx_s.first";
        assert_eq!(error, expected);
        assert!(infer_layout(&known, &mut |layout| of(layout, true)).is_ok());
    }
}
