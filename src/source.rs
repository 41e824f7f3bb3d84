// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the layout of a binary comes from, and whether the binary's own code bears it out: the
//! first source that has one is asked, and believed when it fits.

use std::path::Path;

use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use serde::Serialize;

use crate::bpf_object;
use crate::cli::LayoutOptions;
use crate::debug_file;
use crate::elf::Elf;
use crate::fit::Fit;
use crate::fit::Witnesses;
use crate::layout;
use crate::layout::Build;
use crate::layout::Layout;
use crate::version::Version;

/// Where a layout is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Built in: nginx_headers/layouts.txt.
    Table,
    /// `--layout`
    File,
    /// Debug information: of the binary, of its debug file, or `--debug-info`.
    Dwarf,
    /// Nobody knows this build, but it fits like a known one's, and no other does.
    Inferred,
}

/// The layout that a binary is traced with.
#[derive(Debug)]
pub struct Found {
    /// Where it is from.
    pub source: Source,
    /// Where the structs have their members.
    pub layout: Layout,
    /// How well it fits the binary.
    pub fit: Fit,
}

/// From the first that is there: `--layout`, `--debug-info`, the binary's own debug information or
/// its debug file's, the table, and of what is in the table the only one that fits.
///
/// Fails when there is none, or when the binary's code contradicts what a person wrote down. The
/// compiler's own word, debug information, is not doubted.
pub fn find(path: &Path, elf: &Elf<'_>, build: &Build, from: &LayoutOptions) -> Result<Found> {
    let witnesses = Witnesses::of(elf);
    let (source, layout) = match stated(path, elf, build, from)? {
        Some(stated) => stated,
        None => (Source::Inferred, infer(elf, build, &witnesses)?),
    };
    let fit = witnesses.ask(&layout);
    if let (Source::Table | Source::File, Some(differs)) = (source, fit.differ.first()) {
        bail!(
            "the layout of {build} does not fit this binary, build id {}: its code has {} of {} \
             members elsewhere ({differs} first); pass --debug-info or another --layout",
            build_id(elf),
            fit.differ.len(),
            fit.asked(),
        );
    }
    Ok(Found {
        source,
        layout,
        fit,
    })
}

/// The layout that somebody or something states for this build.
fn stated(
    path: &Path,
    elf: &Elf<'_>,
    build: &Build,
    from: &LayoutOptions,
) -> Result<Option<(Source, Layout)>> {
    if let Some(file) = &from.layout {
        return Ok(Some((Source::File, layout::from_file(file, build)?)));
    }
    let wanted = bpf_object::wanted()?;
    if let Some(file) = &from.debug_info {
        let layout = debug_file::layout_from(file, elf, &wanted)?;
        return Ok(Some((Source::Dwarf, layout)));
    }
    if let Some(layout) = debug_file::layout(path, elf, &wanted)? {
        return Ok(Some((Source::Dwarf, layout)));
    }
    Ok(layout::built_in(build)?.map(|layout| (Source::Table, layout)))
}

/// A struct that embeds no other, nor is embedded, so that it may be another release's than the rest:
/// a fix of a newer branch that went into an older one moves members of one struct (1.30.6 has that of
/// 1.31.3 in its HTTP/2).
const ALONE: &str = "ngx_http_upstream_s";

/// The one layout of the table that every witness agrees with.
fn infer(elf: &Elf<'_>, build: &Build, witnesses: &Witnesses<'_>) -> Result<Layout> {
    let candidates = layout::candidates(build)?;
    let ask = |version: Version, layout: Layout| Candidate {
        version,
        fit: witnesses.ask(&layout),
        layout,
    };
    let mut asked: Vec<Candidate> = candidates
        .iter()
        .map(|(version, layout)| ask(*version, layout.clone()))
        .collect();
    let is_alone = |member: &String| member.split('.').next() == Some(ALONE);
    let nearly = asked.iter().filter(|candidate| {
        !candidate.fit.differ.is_empty() && candidate.fit.differ.iter().all(is_alone)
    });
    let mixed: Vec<Candidate> = nearly
        .flat_map(|near| candidates.iter().map(move |(_, other)| (near, other)))
        .map(|(near, other)| {
            let mut layout = near.layout.clone();
            let members = other.structs.get(ALONE).cloned();
            layout
                .structs
                .insert(ALONE.to_owned(), members.unwrap_or_default());
            ask(near.version, layout)
        })
        .collect();
    asked.extend(mixed);
    choose(asked).map_err(|why| {
        anyhow::anyhow!(
            "no layout known for {build}, build id {}, and {why}: install its debug symbols, or \
             pass --layout or --debug-info",
            build_id(elf)
        )
    })
}

/// A layout of the table, tried on another build.
struct Candidate {
    /// The newest release that has it.
    version: Version,
    /// The layout.
    layout: Layout,
    /// How well it fits.
    fit: Fit,
}

/// The only one that fits in full. Fails with the reason why there is none.
fn choose(candidates: Vec<Candidate>) -> Result<Layout> {
    let nearest = candidates
        .iter()
        .max_by_key(|candidate| candidate.fit.agree)
        .map(|nearest| {
            let fit = &nearest.fit;
            format!("{}'s in {} of {}", nearest.version, fit.agree, fit.asked())
        });
    let mut fitting = candidates
        .into_iter()
        .filter(|candidate| candidate.fit.is_full());
    let Some(only) = fitting.next() else {
        bail!(
            "none of the known ones fits (the nearest, {} members)",
            nearest.unwrap_or_default()
        );
    };
    if let Some(other) = fitting.next() {
        ensure!(
            other.layout == only.layout,
            "both {}'s and {}'s fit",
            only.version,
            other.version
        );
    }
    Ok(only.layout)
}

/// To show.
fn build_id(elf: &Elf<'_>) -> String {
    elf.build_id().unwrap_or_else(|| "none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::Candidate;
    use super::choose;
    use crate::fit::Fit;
    use crate::layout::Layout;
    use crate::layout::Members;

    /// A candidate with so many members that agree and differ, and `offset` somewhere.
    fn candidate(version: &str, agree: usize, differ: usize, offset: u32) -> Candidate {
        let members = Members::from([("member".to_owned(), offset)]);
        Candidate {
            version: version.parse().unwrap(),
            layout: Layout {
                structs: [("ngx_s".to_owned(), members)].into(),
            },
            fit: Fit {
                agree,
                differ: vec!["member".to_owned(); differ],
                unknown: Vec::new(),
            },
        }
    }

    /// Check that the only one that fits is taken.
    #[test]
    fn clear() {
        let chosen = choose(vec![
            candidate("1.20.0", 20, 11, 8),
            candidate("1.30.4", 31, 0, 16),
        ]);
        assert_eq!(chosen.unwrap().structs["ngx_s"]["member"], 16);
    }

    /// Check that a poor fit is an error that names the nearest.
    #[test]
    fn poor() {
        let chosen = choose(vec![
            candidate("1.20.0", 20, 11, 8),
            candidate("1.30.4", 30, 1, 16),
        ]);
        let error = chosen.unwrap_err().to_string();
        assert!(error.contains("1.30.4's in 30 of 31"), "{error}");
        assert!(choose(Vec::new()).is_err());
        let mut silent = candidate("1.30.4", 30, 0, 16);
        silent.fit.unknown.push("member".to_owned());
        assert!(choose(vec![silent]).is_err());
    }

    /// Check that a tie is an error, unless it makes no difference.
    #[test]
    fn tie() {
        let chosen = choose(vec![
            candidate("1.20.0", 31, 0, 8),
            candidate("1.30.4", 31, 0, 16),
        ]);
        let error = chosen.unwrap_err().to_string();
        assert!(error.contains("both 1.20.0's and 1.30.4's fit"), "{error}");
        let chosen = choose(vec![
            candidate("1.20.0", 31, 0, 8),
            candidate("1.30.4", 31, 0, 8),
        ]);
        assert!(chosen.is_ok());
    }
}
