// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parser of files of layouts. The README of this crate describes their form.

use std::collections::BTreeMap;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::MemberRule;
use super::Releases;
use super::Section;
use super::StructRule;
use super::Table;
use crate::build::Build;
use crate::layout::lines::Line;
use crate::layout::lines::parse_lines;

/// The most lines of one struct. nginx's largest has a tenth of this. With the limit on offsets it excludes
/// that a sum of shifts overflows.
const LINES_MAX: usize = 1000;

/// Parses a file of layouts. The error names the line.
pub fn parse(text: &str) -> Result<Table> {
    let mut table = Table::default();
    let mut current = String::new();
    parse_lines(text, &mut |line| parse_line(line, &mut table, &mut current))?;
    Ok(table)
}

/// Parses one line, whose indentation says what it is. `current` is the struct that members belong to.
fn parse_line(line: Line<'_>, table: &mut Table, current: &mut String) -> Result<()> {
    let (indentation, words) = (line.indentation(), line.words());
    if indentation == 0 {
        if let ["releases", ranges @ ..] = &words[..] {
            for range in ranges {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                table.releases.push((first.parse()?, last.parse()?));
            }
        } else {
            table.sections.push(parse_header(&words)?);
            current.clear();
        }
        return Ok(());
    }
    let section = table
        .sections
        .last_mut()
        .context("a struct before any \"nginx\" line")?;
    let structs = &mut section.structs;
    if indentation == 2 {
        let [name] = words[..] else {
            bail!("a struct line is \"NAME\"");
        };
        *current = name.to_owned();
        let before = structs.insert(current.clone(), StructRule::default());
        ensure!(before.is_none(), "{name} is defined twice");
        return Ok(());
    }
    let rule = structs
        .get_mut(current.as_str())
        .context("a member before any struct")?;
    ensure!(
        rule.members.len() + rule.shifts.len() < LINES_MAX,
        "more than {LINES_MAX} lines of {current}"
    );
    parse_rule(&words, rule)
}

/// Parses a line within a struct: a shift or a member.
fn parse_rule(words: &[&str], rule: &mut StructRule) -> Result<()> {
    if let Some(bytes) = words[0].strip_prefix('+') {
        let [_, name] = words else {
            bail!("a shift is \"+BYTES MACRO\"");
        };
        rule.shifts.push((parse_bytes(bytes)?, parse_macro(name)?));
        return Ok(());
    }
    let (name, offset, only_with) = match *words {
        [name, offset] => (name, offset, None),
        [name, offset, only_with] => (name, offset, Some(parse_macro(only_with)?)),
        _ => bail!("a member line is \"NAME OFFSET [MACRO]\""),
    };
    ensure!(
        rule.members.iter().all(|member| member.name != name),
        "{name} is defined twice"
    );
    rule.members.push(MemberRule {
        name: name.to_owned(),
        offset: parse_bytes(offset)?,
        shifts: rule.shifts.len(),
        only_with,
    });
    Ok(())
}

/// Parses an offset in bytes, below 65,536.
pub fn parse_bytes(text: &str) -> Result<u32> {
    let bytes: u16 = text
        .parse()
        .with_context(|| format!("\"{text}\" is not an offset"))?;
    Ok(bytes.into())
}

/// Parses the name of a macro that moves members.
pub fn parse_macro(name: &str) -> Result<String> {
    ensure!(Build::knows(name), "unknown macro {name}");
    Ok(name.to_owned())
}

/// Parses the line that begins a section.
fn parse_header(words: &[&str]) -> Result<Section> {
    let ["nginx", signature, ranges @ ..] = words else {
        bail!("a section begins with \"nginx SIGNATURE RELEASE…\"");
    };
    ensure!(!ranges.is_empty(), "no release named");
    let releases = ranges
        .iter()
        .map(|range| {
            if !range.starts_with(|c: char| c.is_ascii_digit()) {
                return Ok(Releases::Fork((*range).to_owned()));
            }
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let last = (!last.is_empty()).then(|| last.parse()).transpose()?;
            Ok(Releases::Nginx(first.parse()?, last))
        })
        .collect::<Result<_>>()?;
    Ok(Section {
        releases,
        signature: (*signature).to_owned(),
        structs: BTreeMap::new(),
    })
}
