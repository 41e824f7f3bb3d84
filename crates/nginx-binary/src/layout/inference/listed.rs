// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chooses between the layouts that a known release may have: two forks have one name, or a module that moves
//! members is built in or not.

use anyhow::Result;
use anyhow::bail;

use crate::layout::Layout;
use crate::layout::witness::Agreement;

/// Returns the one of these layouts that the code does not contradict, and the members in which it agrees. `None`
/// when it contradicts all of them. `examine` compares one with the code.
///
/// # Errors
///
/// Fails when several remain that have a member at different offsets.
pub fn choose(
    layouts: Vec<Layout>,
    examine: &mut dyn FnMut(&Layout) -> Agreement,
) -> Result<Option<(Layout, Agreement)>> {
    let mut chosen: Option<(Layout, Agreement)> = None;
    for layout in layouts {
        let fit = examine(&layout);
        if !fit.differ.is_empty() {
            continue;
        }
        let Some((other, _)) = &chosen else {
            chosen = Some((layout, fit));
            continue;
        };
        if let Some(member) = differing(&fit, &layout, other) {
            bail!("nothing in the code shows the offset of {member}");
        }
    }
    Ok(chosen)
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
    use super::choose;
    use crate::layout::Layout;
    use crate::layout::witness::Agreement;
    use crate::layout::witness::functions::MemberPath;

    const PLACE: MemberPath = &[("s", "a")];

    /// Returns a layout with one member.
    fn layout(offset: u32) -> Layout {
        let members = [("a".to_owned(), offset)].into();
        let structs = [("s".to_owned(), members)].into();
        Layout { structs }
    }

    /// Check that the layout is chosen that the code does not contradict, and that two which remain are an error
    /// unless what they differ in is not read.
    #[test]
    fn chosen() {
        let choose = |fit_of: &dyn Fn(u32) -> Agreement| {
            let layouts = vec![layout(0), layout(8), layout(8)];
            let chosen = choose(layouts, &mut |layout| fit_of(layout.structs["s"]["a"]));
            let offset = |(layout, _): (Layout, Agreement)| layout.structs["s"]["a"];
            chosen
                .map(|chosen| chosen.map(offset))
                .map_err(|error| error.to_string())
        };
        let agree = || Agreement {
            agree: vec![PLACE],
            ..Agreement::default()
        };
        let differ = || Agreement {
            differ: vec![PLACE],
            ..Agreement::default()
        };
        let one = |at| if at == 8 { agree() } else { differ() };
        assert_eq!(choose(&one), Ok(Some(8)));
        assert_eq!(choose(&|_| differ()), Ok(None));
        let open = "nothing in the code shows the offset of s.a".to_owned();
        assert_eq!(choose(&|_| agree()), Err(open));
        let unread = |_| Agreement {
            unread: vec![PLACE],
            ..Agreement::default()
        };
        assert_eq!(choose(&unread), Ok(Some(0)));
    }
}
