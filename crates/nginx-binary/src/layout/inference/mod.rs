// SPDX-License-Identifier: MIT OR Apache-2.0
//! Infers the layout of an unknown build: the one known layout that the code of the binary agrees with. It
//! never guesses: the code has to agree in every member that is read and whose offset differs between the
//! known layouts. The decision depends only on the verdicts of the witnesses.

use std::borrow::Cow;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::layout::KnownLayout;
use crate::layout::Layout;
use crate::layout::witness::Agreement;
use crate::layout::witness::constant::DECIDED_BY_SYMBOL;

use candidates::ALONE;
use candidates::Candidates;

pub mod candidates;
pub mod listed;

/// A known layout that was compared with the code of another build.
struct TriedLayout<'a> {
    /// What it is the layout of.
    name: Cow<'a, str>,
    layout: Cow<'a, Layout>,
    fit: Agreement,
}

/// Returns the one known layout that the code agrees with, and the members in which it does. `examine` compares one
/// with the code.
///
/// # Errors
///
/// Fails with the reason when none agrees, when several do, or when a member has no witness.
pub fn infer_layout(
    known: &Candidates,
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Result<(Layout, Agreement)> {
    let mut tried: Vec<TriedLayout<'_>> = Vec::new();
    for (name, layout) in &known.layouts {
        tried.push(TriedLayout {
            name: Cow::Borrowed(name),
            fit: examine(layout),
            layout: Cow::Borrowed(layout),
        });
    }
    let near = tried.iter().filter(|tried| differs_in_one(&tried.fit));
    let mut mixed = Vec::new();
    for near in near {
        let is_right = |layout: &Layout| examine(layout).is_full();
        mixed.extend(known.mixed(&near.name, &near.layout, is_right));
    }
    for (name, layout) in mixed {
        tried.push(TriedLayout {
            name: Cow::Owned(name),
            fit: examine(&layout),
            layout: Cow::Owned(layout),
        });
    }
    let only = only_agreeing(tried)?;
    let unsettled = unsettled(&only, known);
    if let Some(first) = unsettled.first() {
        bail!(
            "that of {} fits, but nothing in the code shows the offset of {first}{}",
            only.name,
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
    let contradiction = fit.contradiction()?;
    let (better, _) = known.iter().find(|(_, layout)| examine(layout).is_full())?;
    Some(format!(
        "the binary's code has {contradiction}, and agrees with the layout of {better} in full"
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
        let is_elsewhere = known.is_some_and(|known| known != **offset);
        is_elsewhere && (name.as_str(), member.as_str()) != DECIDED_BY_SYMBOL
    })?;
    Some(format!("{name}.{member}"))
}

/// Returns whether all members that differ are in the struct `ALONE`.
fn differs_in_one(fit: &Agreement) -> bool {
    !fit.differ.is_empty() && fit.differ.iter().all(|place| place[0].0 == ALONE)
}

/// Returns the only layout that the code fully agrees with. Fails with the reason when there is none.
fn only_agreeing(tried: Vec<TriedLayout<'_>>) -> Result<TriedLayout<'_>> {
    let nearest = tried
        .iter()
        .max_by_key(|tried| tried.fit.agree.len())
        .map(|nearest| {
            let fit = &nearest.fit;
            let (agree, asked) = (fit.agree.len(), fit.asked());
            format!("that of {} in {agree} of {asked}", nearest.name)
        });
    let mut fitting = tried.into_iter().filter(|tried| tried.fit.is_full());
    let Some(only) = fitting.next() else {
        let nearest = nearest.map(|nearest| format!(" (the nearest, {nearest} members)"));
        bail!("none of the known ones fits{}", nearest.unwrap_or_default());
    };
    for other in fitting {
        ensure!(
            listed::differing(&only.fit, &only.layout, &other.layout).is_none(),
            "both that of {} and that of {} fit",
            only.name,
            other.name
        );
    }
    Ok(only)
}

/// Returns the members whose offset differs between the known layouts and that no witness has settled.
fn unsettled(chosen: &TriedLayout<'_>, known: &Candidates) -> Vec<String> {
    let structs = chosen.layout.structs.iter();
    let members = structs.flat_map(|(name, members)| {
        let members = members.keys();
        members.map(move |member| (name, member))
    });
    let unsettled = members.filter(|(name, member)| {
        known.is_moving(name, member) && !chosen.fit.settles(name, member)
    });
    unsettled
        .map(|(name, member)| format!("{name}.{member}"))
        .collect()
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::ALONE;
    use super::Candidates;
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

    /// Returns what inference chooses from.
    fn candidates(known: &[KnownLayout]) -> Candidates {
        Candidates::new(known.to_vec())
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
        let chosen = infer_layout(&candidates(&known), &mut |layout| fit(layout, 16)).unwrap();
        assert_eq!(chosen.0, known[1].1);
        assert!(chosen.1.is_full());
    }

    /// Check that a layout that does not fit is an error that names the nearest one, and that a missing witness
    /// is an error.
    #[test]
    fn poor() {
        let known = [known("1.20.0", 8), known("1.30.4", 16)];
        let error = infer_layout(&candidates(&known), &mut |layout| fit(layout, 24)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("that of 1.30.4 in 1 of 2 members"),
            "{error}"
        );
        let none = infer_layout(&candidates(&[]), &mut |layout| fit(layout, 24)).unwrap_err();
        assert_eq!(none.to_string(), "none of the known ones fits");
        let silent = infer_layout(&candidates(&known), &mut |layout| {
            let mut fit = fit(layout, 16);
            fit.agree.retain(|place| *place != PLACES[1]);
            fit.unknown.push(PLACES[1]);
            fit
        });
        assert!(silent.is_err());
    }

    /// Check that a layout whose struct that stands alone is of another release is inferred, and that its name says so.
    #[test]
    fn ported() {
        let members = |offsets: [u32; 2]| {
            let names = ["first", "second"].map(str::to_owned);
            names.into_iter().zip(offsets).collect::<Members>()
        };
        let release = |name: &str, rest: u32, alone: u32| {
            let structs = [
                ("ngx_s", members([rest, 64])),
                (ALONE, members([alone, 64])),
            ];
            let structs = structs.map(|(name, members)| (name.to_owned(), members));
            let layout = Layout {
                structs: structs.into(),
            };
            (name.to_owned(), layout)
        };
        const ALONE_PLACE: MemberPath = &[(ALONE, "first")];
        let examine = |layout: &Layout, alone: u32| {
            let mut fit = fit(layout, 16);
            match layout.structs[ALONE]["first"] == alone {
                true => fit.agree.push(ALONE_PLACE),
                false => fit.differ.push(ALONE_PLACE),
            }
            fit
        };
        let known = [release("1.30.4", 16, 8), release("1.31.3", 24, 32)];
        let (chosen, _) =
            infer_layout(&candidates(&known), &mut |layout| examine(layout, 32)).unwrap();
        assert_eq!(chosen, release("", 16, 32).1);
        let two = [
            release("1.30.4", 16, 8),
            release("1.31.3", 24, 32),
            release("1.31.4", 24, 40),
        ];
        let error = infer_layout(&candidates(&two), &mut |layout| {
            examine(layout, layout.structs[ALONE]["first"].max(32))
        });
        let expected = "both that of 1.30.4 with ngx_http_upstream_s of 1.31.3 and that of 1.30.4 with \
                        ngx_http_upstream_s of 1.31.4 fit";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }

    /// Check that several layouts that fit are an error, unless they are equal.
    #[test]
    fn tie() {
        let agree = || Agreement {
            agree: PLACES.to_vec(),
            ..Agreement::default()
        };
        let two = [known("1.20.0", 8), known("1.30.4", 16)];
        let error = infer_layout(&candidates(&two), &mut |_| agree())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("both that of 1.20.0 and that of 1.30.4 fit"),
            "{error}"
        );
        let same = [known("1.20.0", 8), known("1.30.4", 8)];
        assert!(infer_layout(&candidates(&same), &mut |_| agree()).is_ok());
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
        let error = infer_layout(&candidates(&known), &mut |layout| of(layout, false)).unwrap_err();
        let error = error.to_string();
        let expected =
            "that of 1.30.4 fits, but nothing in the code shows the offset of ngx_s.first";
        assert_eq!(error, expected);
        assert!(infer_layout(&candidates(&known), &mut |layout| of(layout, true)).is_ok());
    }
}
