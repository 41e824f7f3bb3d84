// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files of layouts, as nginx_headers/README.md tells of them: the builds that a section holds for,
//! and rules that make the layout of each.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

use super::Build;
use super::Layout;
use super::Members;
use crate::build::DIGITS;
use crate::build::STICKY;
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
enum Releases {
    /// nginx itself: the first release and the last, if there is one.
    Nginx(Version, Option<Version>),
    /// One release of a fork, as it names itself.
    Fork(String),
}

impl Releases {
    /// Whether the build is one of them.
    fn contains(&self, build: &Build) -> bool {
        match (self, &build.fork) {
            (Self::Nginx(first, last), None) => {
                *first <= build.version && last.is_none_or(|last| build.version <= last)
            }
            (Self::Fork(ours), Some(theirs)) => ours == theirs,
            _ => false,
        }
    }
}

/// One section of a file of layouts: the builds, and the rules that hold for all of them.
#[derive(Debug)]
struct Section {
    /// Any of these.
    releases: Vec<Releases>,
    /// As `NGX_MODULE_SIGNATURE`; a dot stands for a digit that moves nothing, and a `*` for all that
    /// follow.
    signature: String,
    /// By C name.
    structs: BTreeMap<String, Rule>,
}

impl Section {
    /// Whether this section speaks of that build.
    fn holds_for(&self, build: &Build) -> bool {
        self.releases
            .iter()
            .any(|releases| releases.contains(build))
            && self.has_signature(&build.signature)
    }

    /// Whether the signature is one of this section's.
    fn has_signature(&self, signature: &str) -> bool {
        let (ours, theirs) = match self.signature.strip_suffix('*') {
            Some(ours) => (ours, signature.get(..ours.len())),
            None => (self.signature.as_str(), Some(signature)),
        };
        theirs.is_some_and(|theirs| {
            let digits = ours.bytes().zip(theirs.bytes());
            let mut digits = digits.map(|(ours, theirs)| ours == b'.' || ours == theirs);
            ours.len() == theirs.len() && digits.all(|is_same| is_same)
        })
    }
}

/// A file of layouts.
#[derive(Debug, Default)]
pub struct Table {
    /// First and last of the releases that the sections speak of, when the file says which.
    pub releases: Vec<(Version, Version)>,
    /// What they say.
    sections: Vec<Section>,
}

impl Table {
    /// What the sections that hold for the build say together. `None` when none does.
    ///
    /// Fails when two of them tell of one struct.
    pub fn find(&self, build: &Build) -> Result<Option<Layout>> {
        let is_listed = |(first, last): &(Version, Version)| {
            (first..=last).contains(&&build.version) && build.fork.is_none()
        };
        if !self.releases.is_empty() && !self.releases.iter().any(is_listed) {
            return Ok(None);
        }
        let mut layout = Layout::default();
        for section in self.sections.iter().filter(|s| s.holds_for(build)) {
            for (name, rule) in &section.structs {
                let told = layout.structs.insert(name.clone(), rule.of(build));
                ensure!(told.is_none(), "two layouts of {name} hold for {build}");
            }
        }
        Ok(Some(layout).filter(|layout| !layout.structs.is_empty()))
    }

    /// Every layout that the listed releases have, as the build's options make it, and the newest
    /// release with it.
    pub fn all(&self, build: &Build) -> Result<Vec<(Version, Layout)>> {
        let mut found: Vec<(Version, Layout)> = Vec::new();
        for version in self.versions() {
            let build = Build {
                version,
                fork: None,
                ..build.clone()
            };
            let Some(layout) = self.find(&build)? else {
                continue;
            };
            match found.last_mut() {
                Some((newest, last)) if *last == layout => *newest = version,
                _ => found.push((version, layout)),
            }
        }
        Ok(found)
    }

    /// The listed releases behind which a layout may change, oldest first: the last of each branch,
    /// and the last that a section speaks of.
    fn versions(&self) -> BTreeSet<Version> {
        let ranges = self.sections.iter().flat_map(|section| &section.releases);
        let last = ranges.filter_map(|releases| match releases {
            Releases::Nginx(_, last) => *last,
            Releases::Fork(_) => None,
        });
        last.chain(self.releases.iter().map(|(_, last)| *last))
            .collect()
    }
}

/// Reads `releases RELEASE…`, `nginx SIGNATURE RELEASE…`, then `STRUCT`, then `MEMBER OFFSET [MACRO]`
/// and `+BYTES MACRO` lines, told apart by their indentation. `#` begins a comment.
pub fn parse(text: &str) -> Result<Table> {
    let mut table = Table::default();
    let mut current = String::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim_end();
        if content.is_empty() {
            continue;
        }
        parse_line(content, &mut table, &mut current)
            .with_context(|| format!("line {}", index + 1))?;
    }
    Ok(table)
}

/// Reads one line into the last section; `current` names the struct that members belong to.
fn parse_line(line: &str, table: &mut Table, current: &mut String) -> Result<()> {
    let indentation = line.len() - line.trim_start().len();
    let words: Vec<&str> = line.split_whitespace().collect();
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
        let before = structs.insert(current.clone(), Rule::default());
        ensure!(before.is_none(), "{name} stands twice");
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

/// Reads the words of a line within a struct: what shifts its members, or a member.
fn parse_rule(words: &[&str], rule: &mut Rule) -> Result<()> {
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
    let known = name == STICKY || DIGITS.iter().any(|(known, _)| *known == name);
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

#[cfg(test)]
mod tests {
    use super::parse;
    use crate::build::Build;
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
            parse(text).unwrap().find(&build).unwrap().unwrap()
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
            let layout = parse(text).unwrap().find(&build).unwrap();
            layout.map(|layout| layout.structs["s"]["a"])
        };
        assert_eq!(of(None), Some(0));
        assert_eq!(of(Some("fork/1.2.3.4")), Some(8));
        assert_eq!(of(Some("fork/1.2.3.5")), None);
    }

    /// Check that a struct that two sections tell of is an error, not a choice.
    #[test]
    fn ambiguous() {
        let text = "nginx 8 1.2.3\n  s\nnginx . 1.2.0-1.2.9\n  s\n";
        let table = parse(text).unwrap();
        assert!(table.find(&build("1.2.3", "8")).is_err());
        assert!(table.find(&build("1.2.4", "8")).unwrap().is_some());
    }

    /// Check that sections add up, that ranges may be open, that releases which are not listed have
    /// nothing, and that every layout of those that are is a candidate for others.
    #[test]
    fn sections() {
        let text = "releases 1.2.0-1.2.4 1.4.0-1.4.1\nnginx 8* 1.2.0-\n  s\n    a 0\n\
            nginx 8.* 1.2.0-1.2.2\n  t\n    b 0\nnginx 8.* 1.2.3-\n  t\n    b 8\n";
        let table = parse(text).unwrap();
        let b = |version| {
            let layout = table.find(&build(version, "8,4")).unwrap();
            layout.map(|layout| (layout.structs["s"]["a"], layout.structs["t"]["b"]))
        };
        assert_eq!(b("1.2.2"), Some((0, 0)));
        assert_eq!(b("1.2.3"), Some((0, 8)));
        assert_eq!(b("1.4.1"), Some((0, 8)));
        assert_eq!((b("1.1.9"), b("1.2.5"), b("1.4.2")), (None, None, None));
        let all = table.all(&build("1.6.0", "8,4")).unwrap();
        let newest: Vec<String> = all.iter().map(|(version, _)| version.to_string()).collect();
        assert_eq!(newest, ["1.2.2", "1.4.1"]);
    }
}
