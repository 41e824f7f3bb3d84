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
    /// Whether it exports `ngx_ssl_create_connection()`: with mail or stream over TLS it does even
    /// when the signature says that http has none.
    pub has_ssl: bool,
    /// Whether it exports `ngx_quic_run()`: the signature tells only since 1.25.3.
    pub has_quic: bool,
}

/// What `configure` defines and a signature tells: the name (without `NGX_`), and the digit, counted
/// from 1. Only those that move a member.
const DIGITS: [(&str, usize); 9] = [
    ("QUIC", 18),
    ("PCRE", 23),
    ("SSL", 24),
    ("HTTP_GZIP", 26),
    ("HTTP_REALIP", 29),
    ("HTTP_HEADERS", 30),
    ("HTTP_DAV", 31),
    ("HTTP_CACHE", 32),
    ("COMPAT", 34),
];

/// What the digits of a signature follow: sizes of a pointer, of `sig_atomic_t` and of `time_t`.
const SIZES: &str = "8,4,8,";

/// The first release whose signature tells of QUIC.
const QUIC_IN_SIGNATURE: (u64, u64, u64) = (1, 25, 3);

impl Build {
    /// Whether a macro of `DIGITS` is defined.
    fn defines(&self, name: &str) -> bool {
        let digit = |name: &str| {
            let (_, digit) = DIGITS.iter().find(|(known, _)| *known == name)?;
            let digits = self.signature.strip_prefix(SIZES)?;
            digits.as_bytes().get(digit - 1).copied()
        };
        let told = digit(name) == Some(b'1');
        match name {
            "SSL" => told || self.has_ssl,
            "QUIC" if self.version < QUIC_IN_SIGNATURE.into() => {
                self.has_quic || digit("COMPAT") == Some(b'1')
            }
            _ => told,
        }
    }
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

impl Layout {
    /// The section of a file of layouts that tells of this layout, for one build.
    pub fn section(&self, build: &Build) -> String {
        let mut lines = vec![format!("nginx {} {}", build.signature, build.version)];
        for (name, known) in &self.structs {
            let size = known.size.map(|size| format!(" {size}"));
            lines.push(format!("  {name}{}", size.unwrap_or_default()));
            let mut members: Vec<_> = known.members.iter().collect();
            members.sort_by_key(|(_, offset)| **offset);
            for (member, offset) in members {
                lines.push(format!("    {member} {offset}"));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// One struct as a file tells of it: what it is without any macro, and what each adds.
#[derive(Debug, Default)]
struct Rule {
    /// Bytes, where the size matters.
    size: Option<u32>,
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
    fn of(&self, build: &Build) -> Struct {
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
        Struct {
            size: self.size.map(|size| size + shift(self.shifts.len())),
            members: members
                .map(|member| (member.name.clone(), member.offset + shift(member.shifts)))
                .collect(),
        }
    }
}

/// One section of a file of layouts: the builds, and the rules that hold for all of them.
#[derive(Debug)]
struct Section {
    /// First and last release of each branch.
    releases: Vec<(Version, Version)>,
    /// As `NGX_MODULE_SIGNATURE`; a dot stands for a digit that moves nothing.
    signature: String,
    /// By C name.
    structs: BTreeMap<String, Rule>,
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
    Ok(first.map(|section| Layout {
        structs: section
            .structs
            .iter()
            .map(|(name, rule)| (name.clone(), rule.of(build)))
            .collect(),
    }))
}

/// Reads `nginx SIGNATURE RELEASES…`, then `STRUCT [SIZE]`, then `MEMBER OFFSET [MACRO]` and
/// `+BYTES MACRO` lines, told apart by their indentation. `#` begins a comment.
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
    let structs = &mut section.structs;
    if indentation == 2 {
        let (name, size) = match words[..] {
            [name] => (name, None),
            [name, size] => (name, Some(parse_bytes(size)?)),
            _ => bail!("a struct line is \"NAME [SIZE]\""),
        };
        *current = name.to_owned();
        let new = Rule {
            size,
            ..Rule::default()
        };
        ensure!(
            structs.insert(current.clone(), new).is_none(),
            "{name} stands twice"
        );
        return Ok(());
    }
    let rule = structs
        .get_mut(current.as_str())
        .context("a member before any struct")?;
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

/// An offset or a size. No struct of nginx comes near the limit.
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
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Ok((first.parse()?, last.parse()?))
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
    use super::Build;
    use super::TABLE;
    use super::built_in;
    use super::find;
    use super::parse;

    /// Debian's and nginx.org's builds since 1.11.5, up to 1.25.2.
    const COMPAT: &str = "8,4,8,0011111111010111001111111111111111";

    /// Layouts of real configurations: a line each, measured with a probe program compiled against
    /// the release's own headers.
    const MEASURED: &str = include_str!("../tests/data/layouts.tsv");

    /// The build of a release with that signature.
    fn build(version: &str, signature: &str) -> Build {
        Build {
            version: version.parse().unwrap(),
            signature: signature.to_owned(),
            fork: None,
            has_ssl: true,
            has_quic: false,
        }
    }

    /// Check that every configuration that was measured is told exactly, member by member.
    #[test]
    fn measured() {
        let mut lines = MEASURED.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<&str> = lines.next().unwrap().split('\t').skip(5).collect();
        let mut count = 0;
        for line in lines {
            let [version, flags, signature, ssl, quic, offsets @ ..] =
                &line.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("{line}");
            };
            let build = Build {
                has_ssl: *ssl == "1",
                has_quic: *quic == "1",
                ..build(version, signature)
            };
            let layout = built_in(&build).unwrap().unwrap();
            for (name, offset) in names.iter().zip(offsets) {
                let (name, member) = name.split_once('.').unwrap();
                let known = &layout.structs[name];
                let told = match member {
                    "(size)" => known.size,
                    _ => known.members.get(member).copied(),
                };
                let told = told.map_or("-".to_owned(), |told| told.to_string());
                assert_eq!(told, *offset, "{version} {flags} {name}.{member}");
            }
            count += 1;
        }
        assert_eq!(count, 622);
    }

    /// Check that every release from 1.10.0 on has a layout, and what is newer has none.
    #[test]
    fn releases() {
        for section in parse(TABLE).unwrap() {
            for version in section.releases.iter().flat_map(|(a, b)| [a, b]) {
                let digits = section.signature.len();
                let build = build(&version.to_string(), &COMPAT[..digits]);
                assert!(built_in(&build).unwrap().is_some(), "{version}");
            }
        }
        for version in ["1.9.15", "1.12.3", "1.22.2", "1.30.6", "1.31.5", "2.0.0"] {
            assert!(built_in(&build(version, COMPAT)).unwrap().is_none());
        }
    }

    /// Check that other signatures than nginx's, and forks, are not taken for nginx.
    #[test]
    fn others() {
        for signature in [
            "Angie,8,4,8,00111111110101110011111111111111111",
            "4,4,4,0011111111010111001111111111111111",
            "8,4,8,001111111101011100111111111111111",
            "8,4,8,0011111111010111001111111110111111",
            "",
        ] {
            assert!(
                built_in(&build("1.22.1", signature)).unwrap().is_none(),
                "{signature}"
            );
        }
        let fork = Build {
            fork: Some("openresty/1.21.4.1".to_owned()),
            ..build("1.21.4", COMPAT)
        };
        assert!(built_in(&fork).unwrap().is_none());
    }

    /// Check that a macro moves what stands behind its line, and nothing before it.
    #[test]
    fn shifts() {
        let text = "nginx 8,4,8,.................................. 1.2.3\n  s 16\n    a 0\n    \
            +8 HTTP_CACHE\n    b 8\n    +4 PCRE\n    c 12 SSL\n";
        let layout = |signature, has_ssl| {
            let build = Build {
                has_ssl,
                ..build("1.2.3", signature)
            };
            find(parse(text).unwrap(), &build).unwrap().unwrap()
        };
        let all = &layout(COMPAT, true).structs["s"];
        assert_eq!(all.size, Some(28));
        assert_eq!(
            (all.members["a"], all.members["b"], all.members["c"]),
            (0, 16, 24)
        );
        let none = &layout("8,4,8,0000000000000000000000000000000000", false).structs["s"];
        assert_eq!(none.size, Some(16));
        assert_eq!((none.members["a"], none.members["b"]), (0, 8));
        assert!(!none.members.contains_key("c"));
    }

    /// Check that what is written for one build is read again as the same.
    #[test]
    fn written() {
        let build = build("1.22.1", COMPAT);
        let layout = built_in(&build).unwrap().unwrap();
        let again = find(parse(&layout.section(&build)).unwrap(), &build);
        assert_eq!(again.unwrap(), Some(layout));
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
