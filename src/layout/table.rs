// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of layouts, as nginx_headers/README.md tells of them: the builds that a section holds for,
//! and rules that make the layout of each.

use std::collections::BTreeMap;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::Build;
use super::DIGITS;
use super::Layout;
use super::Members;
use crate::version::Version;

/// Lines of one struct; nginx's largest has a tenth of the members. What they add up to fits.
const LINES_MAX: usize = 1000;

/// One struct as a file tells of it: what it is without any macro, and what each adds.
#[derive(Debug, Default)]
struct Rule {
    /// Bytes that a macro puts in front of all that follows.
    shifts: Vec<(u32, String)>,
    /// In the order of the struct.
    members: Vec<MemberRule>,
}

/// One member as a file tells of it.
#[derive(Debug)]
struct MemberRule {
    /// As in C.
    name: String,
    /// Without any macro.
    offset: u32,
    /// How many of the shifts stand before it.
    shifts: usize,
    /// The macro without which it is not there.
    only_with: Option<String>,
}

impl Rule {
    /// The struct of one build.
    fn of(&self, build: &Build) -> Members {
        let shift = |count: usize| -> u32 {
            let shifts = self.shifts.iter().take(count);
            shifts
                .filter(|(_, name)| build.defines(name))
                .map(|(bytes, _)| bytes)
                .sum()
        };
        let members = self.members.iter().filter(|member| {
            member
                .only_with
                .as_deref()
                .is_none_or(|name| build.defines(name))
        });
        members
            .map(|member| (member.name.clone(), member.offset + shift(member.shifts)))
            .collect()
    }
}

/// What a section is for.
#[derive(Debug)]
pub enum Releases {
    /// nginx itself: the first and the last release.
    Nginx(Version, Version),
    /// One release of a fork, as it names itself.
    Fork(String),
}

impl Releases {
    /// Whether the build is one of them.
    fn contains(&self, build: &Build) -> bool {
        match (self, &build.fork) {
            (Self::Nginx(first, last), None) => (first..=last).contains(&&build.version),
            (Self::Fork(ours), Some(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

/// One section of a file of layouts: the builds, and the rules that hold for all of them.
#[derive(Debug)]
pub struct Section {
    /// Of each branch.
    pub releases: Vec<Releases>,
    /// As `NGX_MODULE_SIGNATURE`; a dot stands for a digit that moves nothing.
    pub signature: String,
    /// By C name.
    structs: BTreeMap<String, Rule>,
}

impl Section {
    /// Whether this section speaks of that build.
    fn holds_for(&self, build: &Build) -> bool {
        self.releases
            .iter()
            .any(|releases| releases.contains(build))
            && self.signature.len() == build.signature.len()
            && self
                .signature
                .bytes()
                .zip(build.signature.bytes())
                .all(|(ours, theirs)| ours == b'.' || ours == theirs)
    }

    /// The layout of one build.
    fn of(&self, build: &Build) -> Layout {
        let structs = self.structs.iter();
        Layout {
            structs: structs
                .map(|(name, rule)| (name.clone(), rule.of(build)))
                .collect(),
        }
    }

    /// The newest release of nginx that this section speaks of.
    fn newest(&self) -> Option<Version> {
        let releases = self.releases.iter();
        releases
            .filter_map(|releases| match releases {
                Releases::Nginx(_, last) => Some(*last),
                Releases::Fork(_) => None,
            })
            .max()
    }
}

/// What each section of nginx's own releases would make of the build.
pub fn all(sections: &[Section], build: &Build) -> Vec<(Version, Layout)> {
    let sections = sections.iter();
    sections
        .filter_map(|section| Some((section.newest()?, section.of(build))))
        .collect()
}

/// The one section that holds for the build.
pub fn find(sections: Vec<Section>, build: &Build) -> Result<Option<Layout>> {
    let mut found = sections
        .into_iter()
        .filter(|section| section.holds_for(build));
    let first = found.next();
    ensure!(found.next().is_none(), "two layouts hold for {build}");
    Ok(first.map(|section| section.of(build)))
}

/// Reads `nginx SIGNATURE RELEASES…`, then `STRUCT`, then `MEMBER OFFSET [MACRO]` and
/// `+BYTES MACRO` lines, told apart by their indentation. `#` begins a comment.
pub fn parse(text: &str) -> Result<Vec<Section>> {
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
    let structs = &mut section.structs;
    if indentation == 2 {
        let [name] = words[..] else {
            bail!("a struct line is \"NAME\"");
        };
        *current = name.to_owned();
        ensure!(
            structs.insert(current.clone(), Rule::default()).is_none(),
            "{name} stands twice"
        );
        return Ok(());
    }
    let rule = structs
        .get_mut(current.as_str())
        .context("a member before any struct")?;
    ensure!(
        rule.members.len() + rule.shifts.len() < LINES_MAX,
        "more than {LINES_MAX} lines of {current}"
    );
    if let Some(bytes) = words[0].strip_prefix('+') {
        let [_, name] = words[..] else {
            bail!("a shift is \"+BYTES MACRO\"");
        };
        rule.shifts.push((parse_bytes(bytes)?, parse_macro(name)?));
        return Ok(());
    }
    let (name, offset, only_with) = match words[..] {
        [name, offset] => (name, offset, None),
        [name, offset, only_with] => (name, offset, Some(parse_macro(only_with)?)),
        _ => bail!("a member line is \"NAME OFFSET [MACRO]\""),
    };
    ensure!(
        rule.members.iter().all(|member| member.name != name),
        "{name} stands twice"
    );
    rule.members.push(MemberRule {
        name: name.to_owned(),
        offset: parse_bytes(offset)?,
        shifts: rule.shifts.len(),
        only_with,
    });
    Ok(())
}

/// An offset. No struct of nginx comes near the limit.
fn parse_bytes(text: &str) -> Result<u32> {
    let bytes: u16 = text
        .parse()
        .with_context(|| format!("\"{text}\" is no offset"))?;
    Ok(bytes.into())
}

/// One of the macros that move members.
fn parse_macro(name: &str) -> Result<String> {
    let known = DIGITS.iter().any(|(known, _)| *known == name);
    ensure!(known, "unknown macro {name}");
    Ok(name.to_owned())
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
            if !range.starts_with(|c: char| c.is_ascii_digit()) {
                return Ok(Releases::Fork((*range).to_owned()));
            }
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Ok(Releases::Nginx(first.parse()?, last.parse()?))
        })
        .collect::<Result<_>>()?;
    Ok(Section {
        releases,
        signature: (*signature).to_owned(),
        structs: BTreeMap::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::find;
    use super::parse;
    use crate::layout::Build;
    use crate::layout::tests::COMPAT;
    use crate::layout::tests::build;

    /// Check that a macro moves what stands behind its line, and nothing before it.
    #[test]
    fn shifts() {
        let text = "nginx 8,4,8,.................................. 1.2.3\n  s\n    a 0\n    \
            +8 HTTP_CACHE\n    b 8\n    +4 PCRE\n    c 12 SSL\n";
        let layout = |signature, has_ssl| {
            let build = Build {
                has_ssl,
                ..build("1.2.3", signature)
            };
            find(parse(text).unwrap(), &build).unwrap().unwrap()
        };
        let all = &layout(COMPAT, true).structs["s"];
        assert_eq!((all["a"], all["b"], all["c"]), (0, 16, 24));
        let none = &layout("8,4,8,0000000000000000000000000000000000", false).structs["s"];
        assert_eq!((none["a"], none["b"]), (0, 8));
        assert!(!none.contains_key("c"));
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
            ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len 99999", "line 3"),
            ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    +8", "line 3"),
            ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    +8 THING", "line 3"),
            ("nginx 8,4,8 1.2.3\n  ngx_str_t\n    len 0 THING", "line 3"),
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

    /// Check that a fork has its own sections, by its own release, and nginx never has them.
    #[test]
    fn forks() {
        let text = "nginx 8 1.2.3\n  s\n    a 0\nnginx 8 fork/1.2.3.4\n  s\n    a 8\n";
        let of = |fork: Option<&str>| {
            let build = Build {
                fork: fork.map(str::to_owned),
                ..build("1.2.3", "8")
            };
            let layout = find(parse(text).unwrap(), &build).unwrap();
            layout.map(|layout| layout.structs["s"]["a"])
        };
        assert_eq!(of(None), Some(0));
        assert_eq!(of(Some("fork/1.2.3.4")), Some(8));
        assert_eq!(of(Some("fork/1.2.3.5")), None);
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
