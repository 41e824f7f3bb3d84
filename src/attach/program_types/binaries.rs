// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the members that the BPF object reads, against the tables of the library about nginx
//! binaries.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use nginx_binary::Binary;
use nginx_binary::Options;
use nginx_binary::build::Build;
use nginx_binary::code::Machine;
use nginx_binary::elf::Elf;
use nginx_binary::elf::debug_file::DebugFiles;
use nginx_binary::elf::debug_file::DebugImages;
use nginx_binary::elf::image::Image;
use nginx_binary::files::Files;
use nginx_binary::layout::Layout;
use nginx_binary::layout::built_in;
use nginx_binary::layout::choose;
use nginx_binary::layout::choose::LayoutOrigin;
use nginx_binary::layout::inference::listed;
use nginx_binary::layout::uri_changes;
use nginx_binary::layout::witness::Witnesses;
use nginx_binary::layout::witness::constant::CONSTANT;
use nginx_binary::layout::witness::constant::DECIDED_BY_SYMBOL;
use nginx_binary::layout::witness::functions::WITNESSES;
use nginx_binary::sites::ProbeSites;
use nginx_binary::sites::placement::register_name;

use super::wanted;
use crate::bpf::types::reg;

/// Opens no further file: the builds contain their debug information, or have none.
struct NoFiles;

impl Files for NoFiles {
    fn stated(&self, path: &Path) -> anyhow::Result<File> {
        Ok(File::open(path)?)
    }

    fn beside(&self, _: &Path) -> Option<File> {
        None
    }

    fn beneath(&self, _: &Path, _: &Path) -> Option<File> {
        None
    }
}

/// Check that BPF and the placement of probes use the same numbers of registers.
#[test]
fn register_numbers() {
    for (register, number) in [
        ("rax", reg::REG_AX),
        ("rbx", reg::REG_BX),
        ("rbp", reg::REG_BP),
        ("rsi", reg::REG_SI),
        ("rdi", reg::REG_DI),
        ("r8", reg::REG_R8),
        ("r15", reg::REG_R15),
    ] {
        assert_eq!(register, register_name(Machine::X86_64, number.0 as u8));
    }
}

/// Check that every member that is read, and is not known to be constant, has a witness.
#[test]
fn complete() {
    let wanted = wanted().unwrap();
    let wanted: BTreeSet<String> = wanted
        .structs
        .iter()
        .flat_map(|(name, members)| members.iter().map(move |m| format!("{name}.{m}")))
        .collect();
    let places = WITNESSES.iter().flat_map(|(_, place)| place.iter());
    let mut covered: BTreeSet<String> = places
        .map(|(name, member)| format!("{name}.{member}"))
        .collect();
    covered.extend(CONSTANT.map(str::to_owned));
    let (name, member) = DECIDED_BY_SYMBOL;
    covered.insert(format!("{name}.{member}"));
    assert_eq!(wanted, covered);
}

/// The list of builds of nginx that `make test-binaries` makes.
const BUILDS: &str = include_str!("../../../tests/NGINX");

/// Returns the path of each build of tests/NGINX, and of trixie's nginx for arm64.
fn builds() -> Vec<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let cache = cache.unwrap_or_else(home).join("ngx-bpf");
    let lines = BUILDS.lines().filter(|line| !line.starts_with('#'));
    let builds = lines.filter_map(|line| {
        let (name, what) = line.split_once('\t')?;
        let mut words = what.split(' ');
        Some(match words.next()? {
            "debian" => {
                let suite = cache.join(words.next()?);
                let unpacked = suite.join(words.next()?).join("usr/sbin/nginx");
                let installed = suite.join("usr/sbin/nginx");
                if unpacked.exists() {
                    unpacked
                } else {
                    installed
                }
            }
            _ => cache.join(format!("source-{name}/objs/nginx")),
        })
    });
    let arm64 = ["arm64", "arm64/srv/trixie"].map(|root| cache.join(root).join("usr/sbin/nginx"));
    builds.chain(arm64).collect()
}

/// Reads a build as it is read before it is traced.
fn read(path: &Path) -> Binary {
    let image = Image::read(&File::open(path).unwrap()).unwrap();
    let wanted = wanted().unwrap();
    let read = Binary::read(path, &image, &Options::default(), &wanted, &NoFiles);
    read.unwrap_or_else(|refused| panic!("{path:?}: {:#}", refused.error))
}

/// Check every build of nginx that the tests know: the offsets of the members in its debug information, if
/// it has some, are those of the table; no function of its code contradicts them; each probe has its site; and
/// the place of `r->uri_changes` is known. An arm64 build shows every member that has a witness.
#[test]
#[ignore = "reads builds of nginx that make test-binaries makes"]
fn every_build() {
    let wanted = wanted().unwrap();
    let builds = builds();
    assert!(builds.len() > 20, "{builds:?}");
    for path in builds {
        let image = Image::read(&File::open(&path).unwrap()).unwrap();
        let elf = Elf::parse(&image).unwrap();
        let build = Build::identify(&elf).unwrap();
        let images = DebugImages::new(&path, &elf, None, &NoFiles);
        let files = DebugFiles::new(&images, &elf);
        let witnesses = Witnesses::new(&elf);
        let known = built_in(&build).unwrap();
        if known.is_empty() {
            /* A release that the tables do not know yet: its layout is inferred. */
            let inferred = read(&path).layout;
            assert_eq!(inferred.source, LayoutOrigin::Inferred, "{path:?}");
            assert_uri_changes(&path, &elf, &build, &inferred.layout, false);
            continue;
        }
        let chosen = listed::choose(&known, &mut |layout| witnesses.examine(layout));
        let (table, fit) = chosen.unwrap_or_else(|refusal| panic!("{path:?}: {refusal:?}"));
        let stripped = path.with_extension("stripped");
        if elf.machine() == Machine::OWN && stripped.exists() {
            let layout = read(&stripped).layout;
            assert_eq!(layout.source, LayoutOrigin::Table, "{stripped:?}");
            assert!(layout.fit.is_full(), "{stripped:?}: {:?}", layout.fit);
            let has_ssl = layout.layout.structs["ngx_connection_s"].contains_key("ssl");
            assert_eq!(has_ssl, build.has_ssl, "{stripped:?}");
        }
        /* The table has members that this build may lack, and does not have members that are not read. */
        let debug_info = choose::from_debug_info(&path, &elf, &files, &wanted).unwrap();
        let mut compared = 0;
        for (name, members) in debug_info.iter().flat_map(|layout| &layout.structs) {
            for (member, offset) in members {
                let known = table.offset(name, member);
                let is_equal = known.is_none_or(|known| known == *offset);
                assert!(is_equal, "{path:?}: {name}.{member}");
                compared += usize::from(known.is_some());
            }
        }
        assert!(
            debug_info.is_none() || compared > 70,
            "{path:?}: {compared}"
        );
        assert!(fit.agree.len() > 30, "{path:?}: {fit:?}");
        assert_uri_changes(&path, &elf, &build, &table, true);
        let sites = ProbeSites::locate(&elf).unwrap();
        if elf.machine() == Machine::Arm64 {
            assert!(fit.is_full(), "{path:?}: {fit:?}");
            /* Only requests that have waited come to the end of a wait, which may cost them more. */
            let mut often = sites
                .sites
                .iter()
                .filter(|site| site.program != "wait_ended");
            assert!(often.all(|site| site.emulated), "{sites:?}");
        }
    }
}

/// Asserts that the place of `r->uri_changes` is known in a build of a release whose headers were read, but not in the
/// stand-in for Angie, which lacks the member that Angie has before it.
fn assert_uri_changes(path: &Path, elf: &Elf<'_>, build: &Build, layout: &Layout, is_read: bool) {
    let found = uri_changes::locate(elf, build, layout).unwrap();
    let is_stand_in = path.to_string_lossy().contains("source-angie");
    assert_eq!(found.is_some(), is_read && !is_stand_in, "{path:?}");
}
