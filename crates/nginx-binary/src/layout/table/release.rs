// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adds a release of nginx to the text of the built-in table, from the layouts that the debug information of
//! its builds states. Comments and all other lines stay as they are.

use std::collections::BTreeMap;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::Table;
use super::parse;
use crate::build::Build;
use crate::layout::Layout;
use crate::layout::lines::lines;
use crate::version::Version;

/// How far a release has moved each member of a struct, in bytes.
type Moves = BTreeMap<String, i64>;

/// Returns the text of a table with one more release. `builds` are builds of this release, each with its
/// layout. A struct that has not changed needs no line: the sections without a last release hold for it. One
/// that has changed gets a section of its own, in which each macro moves members as it did before.
///
/// # Errors
///
/// Fails when the table has the release already, or when its builds differ in how far they moved a member, so
/// that a macro must have changed.
pub fn with_release(text: &str, builds: &[(Build, Layout)]) -> Result<String> {
    let (first, _) = builds.first().context("no build of the release")?;
    let version = first.version;
    for (build, _) in builds {
        ensure!(
            build.fork.is_none() && build.version == version,
            "{build} is not nginx {version}"
        );
    }
    let known = parse(text)?;
    ensure!(
        known.layout_of(first)?.is_none(),
        "the table has nginx {version} already"
    );
    let listed = list(text, version);
    let mut changed = listed.clone();
    for (name, moves) in moved_structs(&parse(&listed)?, builds)? {
        changed = with_struct(&changed, &known, first, &name, &moves)?;
    }
    let table = parse(&changed)?;
    for (build, layout) in builds {
        for (name, member, before, now) in compare(&table, build, layout)? {
            ensure!(
                before == now,
                "{name}.{member} is at {now} in {build}, not at {before}"
            );
        }
    }
    Ok(changed)
}

/// Returns the newest release that a table lists.
///
/// # Errors
///
/// Fails when the text is not a table, or lists none.
pub fn newest_release(text: &str) -> Result<Version> {
    let table = parse(text)?;
    let last = table.releases.iter().map(|(_, last)| *last).max();
    last.context("it lists no release")
}

/// Adds a release to the lines that list those which were examined.
fn list(text: &str, version: Version) -> String {
    let before = version.previous().map(|before| before.to_string());
    let after = version.to_string();
    let mut is_listed = false;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in lines
        .iter_mut()
        .filter(|line| line.starts_with("releases "))
    {
        let words = line.split(' ').map(|word| match word.rsplit_once('-') {
            Some((first, last)) if Some(last) == before.as_deref() => {
                is_listed = true;
                format!("{first}-{after}")
            }
            None if Some(word) == before.as_deref() => {
                is_listed = true;
                format!("{word}-{after}")
            }
            _ => word.to_owned(),
        });
        *line = words.collect::<Vec<_>>().join(" ");
    }
    let mut releases = lines
        .iter_mut()
        .filter(|line| line.starts_with("releases "));
    if let Some(last) = releases.next_back()
        && !is_listed
    {
        *last += &format!(" {after}");
    }
    lines.join("\n") + "\n"
}

/// Compares the members that a table and a layout both have: the struct, the member, and the offset in each.
fn compare<'a>(
    table: &Table,
    build: &Build,
    layout: &'a Layout,
) -> Result<Vec<(&'a str, &'a str, u32, u32)>> {
    let known = table.layout_of(build)?;
    let known = known.with_context(|| format!("the table has no layout for {build}"))?;
    let mut compared = Vec::new();
    for (name, members) in &layout.structs {
        for (member, now) in members {
            if let Some(before) = known.offset(name, member) {
                compared.push((name.as_str(), member.as_str(), before, *now));
            }
        }
    }
    ensure!(!compared.is_empty(), "nothing to compare in {build}");
    Ok(compared)
}

/// Returns the structs that the release has changed.
fn moved_structs(table: &Table, builds: &[(Build, Layout)]) -> Result<BTreeMap<String, Moves>> {
    let mut structs: BTreeMap<String, Moves> = BTreeMap::new();
    for (build, layout) in builds {
        for (name, member, before, now) in compare(table, build, layout)? {
            let moved = i64::from(now) - i64::from(before);
            let moves = structs.entry(name.to_owned()).or_default();
            let others = *moves.entry(member.to_owned()).or_insert(moved);
            ensure!(
                others == moved,
                "{name}.{member} has moved by {moved} bytes in {build} and by {others} in another build: write \
                 its section by hand, as crates/nginx-binary/README.md describes"
            );
        }
    }
    structs.retain(|_, moves| moves.values().any(|moved| *moved != 0));
    Ok(structs)
}

/// Takes a struct out of the section that holds for a build, and appends two sections: one for the releases that
/// it held for, and one for the release of this build.
fn with_struct(
    text: &str,
    known: &Table,
    build: &Build,
    name: &str,
    moves: &Moves,
) -> Result<String> {
    let version = build.version;
    let (mut kept, mut taken) = (Vec::new(), Vec::new());
    let (mut header, mut is_inside) = (String::new(), false);
    for line in lines(text) {
        let content = line.content;
        if !content.is_empty() && line.indentation() == 0 {
            (header, is_inside) = (content.to_owned(), false);
        } else if line.indentation() == 2 {
            is_inside = content.trim() == name && holds_for(&header, build)?;
            if is_inside {
                ensure!(taken.is_empty(), "two sections state {name} for {version}");
                taken.push(header.clone());
            }
        }
        match is_inside && !content.is_empty() {
            true => taken.push(content.to_owned()),
            false => kept.push(line.whole.to_owned()),
        }
    }
    let [header, rules @ ..] = &taken[..] else {
        bail!("no section states {name} for {version}");
    };
    let [old, new] = split_header(header, known, version)?;
    kept.extend([String::new(), old]);
    kept.extend(rules.iter().cloned());
    kept.extend([String::new(), new]);
    kept.extend(moved(rules, moves)?);
    Ok(without_empty_sections(&kept))
}

/// Returns whether a section with this header holds for a build.
fn holds_for(header: &str, build: &Build) -> Result<bool> {
    let sections = parse(header)?.sections;
    Ok(sections.iter().any(|section| section.holds_for(build)))
}

/// Reads a range of releases. The name of a fork is an error.
fn range(word: &str) -> Result<(Version, Option<Version>)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let last = (!last.is_empty()).then(|| last.parse()).transpose()?;
    Ok((first.parse()?, last))
}

/// Returns the header of a section without a release, and one for that release: with an open end if no later
/// one is known.
fn split_header(header: &str, known: &Table, version: Version) -> Result<[String; 2]> {
    let all = known.releases.iter();
    let before = all.clone().flat_map(|(first, last)| [*first, *last]);
    let before = before.filter(|listed| *listed < version).max();
    let before = before.context("there is no release before it")?;
    let after = all
        .map(|(first, _)| *first)
        .filter(|first| *first > version)
        .min();
    let words: Vec<&str> = header.split_whitespace().collect();
    let mut old = words[..2].join(" ");
    for word in &words[2..] {
        let (first, last) = range(word)?;
        if first > version || last.is_some_and(|last| last < version) {
            old += &format!(" {word}");
            continue;
        }
        if first <= before {
            old += &format!(" {first}-{before}");
        }
        match (after, last) {
            (Some(after), None) => old += &format!(" {after}-"),
            (Some(after), Some(last)) if after <= last => old += &format!(" {after}-{last}"),
            _ => {}
        }
    }
    let end = if after.is_none() { "-" } else { "" };
    Ok([old, format!("{} {version}{end}", words[..2].join(" "))])
}

/// Moves the members of a struct. A member that no build has moves with the one before it.
fn moved(lines: &[String], moves: &Moves) -> Result<Vec<String>> {
    let mut current = 0;
    let move_one = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, offset, ..] = words[..] else {
            return Ok(line.clone());
        };
        if name.starts_with('+') {
            return Ok(line.clone());
        }
        current = moves.get(name).copied().unwrap_or(current);
        let offset = offset.parse::<i64>()? + current;
        let only_with = words.get(2).map(|name| format!(" {name}"));
        Ok(format!(
            "    {name} {offset}{}",
            only_with.unwrap_or_default()
        ))
    };
    lines.iter().map(move_one).collect()
}

/// Joins lines, without sections that state no struct any more.
fn without_empty_sections(lines: &[String]) -> String {
    let is_blank = |line: &&String| line.trim().is_empty();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let next = lines[number + 1..].iter().find(|line| !is_blank(line));
        let is_empty = next.is_none_or(|next| !next.starts_with(' '));
        if line.starts_with("nginx ") && is_empty {
            continue;
        }
        if line.is_empty() && text.ends_with("\n\n") {
            continue;
        }
        text += line;
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests;
