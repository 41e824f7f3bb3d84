// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses between the layouts that a known release may have: two forks have one name, or a module that moves
//! members is built in or not.

use crate::layout::Layout;
use crate::layout::witness::Agreement;

/// Why none of the layouts that a release may have is chosen.
#[derive(Debug)]
pub enum Refusal {
    /// The code contradicts all of them. This is the comparison with the nearest one.
    Contradicted(Agreement),
    /// Several remain, and nothing in the code shows the offset of this member.
    Open(String),
}

/// Returns the one of these layouts that the code does not contradict, and the members in which it agrees.
/// `examine` compares one with the code.
///
/// # Errors
///
/// Fails when the code contradicts all of them, or when several remain that have a member at different offsets.
pub fn choose(
    layouts: &[Layout],
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Result<(Layout, Agreement), Refusal> {
    let mut chosen: Option<(&Layout, Agreement)> = None;
    let mut nearest: Option<Agreement> = None;
    for layout in layouts {
        let fit = examine(layout);
        if !fit.differ.is_empty() {
            let mut before = nearest.iter();
            if before.all(|before| fit.differ.len() < before.differ.len()) {
                nearest = Some(fit);
            }
            continue;
        }
        let Some((other, _)) = &chosen else {
            chosen = Some((layout, fit));
            continue;
        };
        if let Some(member) = differing(&fit, layout, other) {
            return Err(Refusal::Open(member));
        }
    }
    match chosen {
        Some((layout, fit)) => Ok((layout.clone(), fit)),
        None => Err(Refusal::Contradicted(nearest.unwrap_or_default())),
    }
}

/// Returns a member that a binary reads, and that two layouts do not have at the same offset. `None` when there is
/// none. `fit` says what the binary reads.
pub fn differing(fit: &Agreement, one: &Layout, other: &Layout) -> Option<String> {
    let structs = one.structs.iter().chain(&other.structs);
    let mut members = structs.flat_map(|(name, members)| {
        let members = members.keys();
        members.map(move |member| (name, member))
    });
    let (name, member) = members.find(|(name, member)| {
        one.offset(name, member) != other.offset(name, member) && !fit.is_unread(name, member)
    })?;
    Some(format!("{name}.{member}"))
}

#[cfg(test)]
mod tests {
    use super::Refusal;
    use super::choose;
    use crate::layout::tests::PLACE;
    use crate::layout::tests::layout;
    use crate::layout::witness::Agreement;

    /// Check that the layout is chosen that the code does not contradict, that of several which it contradicts the
    /// nearest one is named, and that two which remain are an error unless what they differ in is not read.
    #[test]
    fn chosen() {
        let choose = |fit_of: &dyn Fn(u32) -> Agreement| {
            let layouts = [layout(0), layout(8), layout(8)];
            let chosen = choose(&layouts, &mut |layout| fit_of(layout.structs["s"]["a"]));
            match chosen {
                Ok((layout, _)) => layout.structs["s"]["a"].to_string(),
                Err(Refusal::Contradicted(nearest)) => nearest.contradiction().unwrap(),
                Err(Refusal::Open(member)) => member,
            }
        };
        let agree = || Agreement {
            agree: vec![PLACE],
            ..Agreement::default()
        };
        let differ = |count| Agreement {
            differ: vec![PLACE; count],
            ..Agreement::default()
        };
        assert_eq!(choose(&|at| if at == 8 { agree() } else { differ(1) }), "8");
        let contradicted = choose(&|at| differ(if at == 8 { 2 } else { 3 }));
        assert_eq!(contradicted, "2 of 2 members elsewhere (s.a first)");
        assert_eq!(choose(&|_| agree()), "s.a");
        let unread = |_| Agreement {
            unread: vec![PLACE],
            ..Agreement::default()
        };
        assert_eq!(choose(&unread), "0");
    }
}
