// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where one build of nginx keeps the members we read: struct, member, offset. From the table in
//! nginx_headers/layouts.txt or from a file of the same form; what becomes of it is `btf.rs`'s.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use crate::version::Version;

/// Layouts that come with the program.
const TABLE: &str = include_str!("../nginx_headers/layouts.txt");

/// No file of layouts is larger: the table itself is a twentieth of this.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What tells builds with different layouts apart, as nginx itself does when it loads a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The release.
    pub version: Version,
    /// `NGX_MODULE_SIGNATURE`.
    pub signature: String,
    /// What it calls itself, when that is not nginx.
    pub fork: Option<String>,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fork) = &self.fork {
            write!(f, "{fork}, which is ")?;
        }
        write!(f, "nginx {} (signature {})", self.version, self.signature)
    }
}

/// One struct.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Struct {
    /// Bytes, where the size matters.
    pub size: Option<u32>,
    /// Byte offset of each member.
    pub members: BTreeMap<String, u32>,
}

/// Every struct that is read, by its C name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// By C name.
    pub structs: BTreeMap<String, Struct>,
}

/// One section of a file of layouts: the builds, and what holds for all of them.
#[derive(Debug)]
struct Section {
    /// First and last release of each branch.
    releases: Vec<(Version, Version)>,
    /// As `NGX_MODULE_SIGNATURE`; a dot stands for a digit that moves nothing.
    signature: String,
    /// What these builds have in common.
    layout: Layout,
}

impl Section {
    /// Whether this section speaks of that build.
    fn holds_for(&self, build: &Build) -> bool {
        let known = self
            .releases
            .iter()
            .any(|(first, last)| (first..=last).contains(&&build.version));
        known
            && self.signature.len() == build.signature.len()
            && self
                .signature
                .bytes()
                .zip(build.signature.bytes())
                .all(|(ours, theirs)| ours == b'.' || ours == theirs)
    }
}

/// The built-in layout of a build. `None` when the table has none; it has nginx's own only.
pub fn built_in(build: &Build) -> Result<Option<Layout>> {
    if build.fork.is_some() {
        return Ok(None);
    }
    let sections = parse(TABLE).context("failed to read the built-in layouts")?;
    find(sections, build)
}

/// The layout of a build from a user's file. Fails when the file can't be read or parsed, or has
/// no layout for this build.
pub fn from_file(path: &Path, build: &Build) -> Result<Layout> {
    let context = || format!("failed to read layout \"{}\"", path.display());
    let size = fs::metadata(path).with_context(context)?.len();
    ensure!(
        size <= FILE_BYTES_MAX,
        "layout \"{}\" has {size} bytes, more than {FILE_BYTES_MAX}",
        path.display()
    );
    let text = fs::read_to_string(path).with_context(context)?;
    let sections = parse(&text).with_context(context)?;
    find(sections, build)?
        .with_context(|| format!("layout \"{}\" has nothing for {build}", path.display()))
}

/// The one section that holds for the build.
fn find(sections: Vec<Section>, build: &Build) -> Result<Option<Layout>> {
    let mut found = sections
        .into_iter()
        .filter(|section| section.holds_for(build));
    let first = found.next();
    ensure!(found.next().is_none(), "two layouts hold for {build}");
    Ok(first.map(|section| section.layout))
}

/// Reads `nginx SIGNATURE RELEASES…`, then `STRUCT [SIZE]`, then `MEMBER OFFSET` lines, told apart
/// by their indentation. `#` begins a comment.
fn parse(text: &str) -> Result<Vec<Section>> {
    let mut sections: Vec<Section> = Vec::new();
    let mut current = String::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim_end();
        if content.is_empty() {
            continue;
        }
        parse_line(content, &mut sections, &mut current)
            .with_context(|| format!("line {}", index + 1))?;
    }
    Ok(sections)
}

/// Reads one line into the last section; `current` names the struct that members belong to.
fn parse_line(line: &str, sections: &mut Vec<Section>, current: &mut String) -> Result<()> {
    let indentation = line.len() - line.trim_start().len();
    let words: Vec<&str> = line.split_whitespace().collect();
    if indentation == 0 {
        sections.push(parse_header(&words)?);
        current.clear();
        return Ok(());
    }
    let section = sections
        .last_mut()
        .context("a struct before any \"nginx\" line")?;
    let structs = &mut section.layout.structs;
    if indentation == 2 {
        let (name, size) = match words[..] {
            [name] => (name, None),
            [name, size] => (name, Some(size.parse().context("no size")?)),
            _ => bail!("a struct line is \"NAME [SIZE]\""),
        };
        *current = name.to_owned();
        let new = Struct {
            size,
            ..Struct::default()
        };
        ensure!(
            structs.insert(current.clone(), new).is_none(),
            "{name} stands twice"
        );
        return Ok(());
    }
    let [name, offset] = words[..] else {
        bail!("a member line is \"NAME OFFSET\"");
    };
    let members = &mut structs
        .get_mut(current.as_str())
        .context("a member before any struct")?
        .members;
    let offset = offset.parse().context("no offset")?;
    ensure!(
        members.insert(name.to_owned(), offset).is_none(),
        "{name} stands twice"
    );
    Ok(())
}

/// Reads the words of an `nginx` line.
fn parse_header(words: &[&str]) -> Result<Section> {
    let ["nginx", signature, ranges @ ..] = words else {
        bail!("a section begins with \"nginx SIGNATURE RELEASE…\"");
    };
    ensure!(!ranges.is_empty(), "no release named");
    let releases = ranges
        .iter()
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Ok((first.parse()?, last.parse()?))
        })
        .collect::<Result<_>>()?;
    Ok(Section {
        releases,
        signature: (*signature).to_owned(),
        layout: Layout::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::Build;
    use super::TABLE;
    use super::Version;
    use super::built_in;
    use super::find;
    use super::parse;

    /// Debian's and nginx.org's builds since 1.11.5, up to 1.25.2.
    const COMPAT: &str = "8,4,8,0011111111010111001111111111111111";

    /// The build of a release with that signature.
    fn build(version: &str, signature: &str) -> Build {
        Build {
            version: version.parse().unwrap(),
            signature: signature.to_owned(),
            fork: None,
        }
    }

    /// Check that Debian 12's nginx is read where `ngx_http_request_s` has its members.
    #[test]
    fn bookworm() {
        let layout = built_in(&build("1.22.1", COMPAT)).unwrap().unwrap();
        let request = &layout.structs["ngx_http_request_s"].members;
        assert_eq!(request["upstream"], 72);
        assert_eq!(request["request_length"], 1248);
        let state = &layout.structs["ngx_http_upstream_state_t"];
        assert_eq!(state.size, Some(72));
    }

    /// Check that every release from 1.18.0 on has exactly one layout, and what is newer has none.
    #[test]
    fn releases() {
        let sections = parse(TABLE).unwrap();
        for section in &sections {
            for (first, last) in &section.releases {
                for version in [first, last] {
                    let build = build(&version.to_string(), COMPAT);
                    assert!(built_in(&build).unwrap().is_some(), "{version}");
                }
            }
        }
        for version in ["1.17.10", "1.22.2", "1.30.6", "1.31.5", "2.0.0"] {
            assert!(built_in(&build(version, COMPAT)).unwrap().is_none());
        }
        assert!("1.31.4".parse::<Version>().is_ok());
    }

    /// Check that a build without `--with-compat`, or without the cache, is not taken for one.
    #[test]
    fn other_signatures() {
        for signature in [
            "8,4,8,0011111111010111001111111111111110",
            "8,4,8,0011111111010111001111111111111011",
            "8,4,8,001111111101011100111111111111111",
            "",
        ] {
            assert!(built_in(&build("1.22.1", signature)).unwrap().is_none());
        }
    }

    /// Check that a broken file is refused, and the line named.
    #[test]
    fn broken() {
        for (text, line) in [
            ("ngx_str_t", "line 1"),
            ("  ngx_str_t", "line 1"),
            ("nginx 8,4,8 1.2.3\n    len 0", "line 2"),
            ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len x", "line 3"),
            ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len -8", "line 3"),
            (
                "nginx 8,4,8 1.2.3\n  ngx_str_t\n    len 0\n    len 8",
                "line 4",
            ),
            ("nginx 8,4,8", "line 1"),
            ("nginx 8,4,8 1.2", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.to_string(), line, "{text}");
        }
    }

    /// Check that a build that two sections claim is an error, not a choice.
    #[test]
    fn ambiguous() {
        let text = "nginx 8 1.2.3\nnginx . 1.2.0-1.2.9\n";
        assert!(find(parse(text).unwrap(), &build("1.2.3", "8")).is_err());
        assert!(
            find(parse(text).unwrap(), &build("1.2.4", "8"))
                .unwrap()
                .is_some()
        );
    }
}
