// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parser of `forks.txt`. The README of this crate describes its form.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::Condition;
use super::Examined;
use super::Forks;
use super::Patch;
use super::Release;
use super::Releases;
use super::Shift;
use crate::layout::lines::Line;
use crate::layout::lines::parse_lines;
use crate::layout::table::parse_bytes;
use crate::layout::table::parse_macro;

/// Parses the text. The error names the line.
pub fn parse(text: &str) -> Result<Forks> {
    let mut forks = Forks::default();
    let mut current = None;
    parse_lines(text, &mut |line| parse_line(line, &mut forks, &mut current))?;
    Ok(forks)
}

/// Parses one line, whose indentation says what it is. `current` is the struct that shifts belong to.
fn parse_line(line: Line<'_>, forks: &mut Forks, current: &mut Option<String>) -> Result<()> {
    let words = line.words();
    let patch = forks.patches.last_mut();
    match (line.indentation(), &words[..]) {
        (0, ["fork", fork, releases @ ..]) => parse_fork(fork, releases, forks),
        (0, [kind @ ("patch" | "maybe"), name, condition]) => {
            *current = None;
            forks.patches.push(Patch {
                name: (*name).to_owned(),
                is_certain: *kind == "patch",
                condition: parse_condition(condition)?,
                shifts: Vec::new(),
            });
            Ok(())
        }
        (2, [name]) => {
            ensure!(patch.is_some(), "a struct before any patch");
            *current = Some((*name).to_owned());
            Ok(())
        }
        (4, words) => {
            let name = current.as_ref().context("a shift before any struct")?;
            let patch = patch.context("a shift before any patch")?;
            patch.shifts.push((name.clone(), parse_shift(words)?));
            Ok(())
        }
        _ => bail!(
            "a line is \"fork NAME RELEASE… [as NGINX]\", \"patch NAME CONDITION\" or part of a patch"
        ),
    }
}

/// Parses the releases of a fork that were examined.
fn parse_fork(fork: &str, words: &[&str], forks: &mut Forks) -> Result<()> {
    let (ranges, nginx) = match words {
        [ranges @ .., "as", nginx] => (ranges, Some(nginx.parse()?)),
        ranges => (ranges, None),
    };
    ensure!(!ranges.is_empty(), "no release named");
    for range in ranges {
        let releases = parse_releases(fork, range)?;
        ensure!(releases.last.is_some(), "an open range was not examined");
        forks.examined.push(Examined { releases, nginx });
    }
    Ok(())
}

/// Parses one release, a range, or an open range.
fn parse_releases(fork: &str, range: &str) -> Result<Releases> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let last = (!last.is_empty()).then(|| last.parse::<Release>());
    Ok(Releases {
        fork: fork.to_owned(),
        first: first.parse()?,
        last: last.transpose()?,
    })
}

/// Parses what shows that a build has a patch: a macro, or releases of a fork.
fn parse_condition(word: &str) -> Result<Condition> {
    if let Some((fork, range)) = word.split_once('/') {
        return Ok(Condition::Releases(parse_releases(fork, range)?));
    }
    Ok(Condition::Macro(parse_macro(word)?))
}

/// Parses the bytes that a patch inserts before a member, or removes there.
fn parse_shift(words: &[&str]) -> Result<Shift> {
    let (bytes, member, only_with) = match *words {
        [bytes, member] => (bytes, member, None),
        [bytes, member, only_with] => (bytes, member, Some(parse_macro(only_with)?)),
        _ => bail!("a shift is \"+BYTES MEMBER [MACRO]\""),
    };
    let (sign, digits) = match (bytes.strip_prefix('+'), bytes.strip_prefix('-')) {
        (Some(digits), _) => (1, digits),
        (_, Some(digits)) => (-1, digits),
        _ => bail!("\"{bytes}\" has no sign"),
    };
    Ok(Shift {
        bytes: sign * parse_bytes(digits)?.cast_signed(),
        member: member.to_owned(),
        only_with,
    })
}
