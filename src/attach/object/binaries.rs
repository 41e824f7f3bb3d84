// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the members that the BPF object reads, against the tables of the library about nginx
//! binaries.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use nginx_binary::build::Build;
use nginx_binary::code::Machine;
use nginx_binary::elf::Elf;
use nginx_binary::elf::debug_file::DebugFiles;
use nginx_binary::elf::image::Image;
use nginx_binary::files::Files;
use nginx_binary::layout::built_in;
use nginx_binary::layout::choose;
use nginx_binary::layout::witness::CONSTANT;
use nginx_binary::layout::witness::WITHOUT_WITNESS;
use nginx_binary::layout::witness::Witnesses;
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
    covered.extend(WITHOUT_WITNESS.map(str::to_owned));
    assert_eq!(wanted, covered);
}

/// Check that in builds for arm64 the offsets of the members are those of the table, both in the
/// debug information and in the code, and that all probes can be placed.
#[test]
#[ignore = "reads builds of nginx that make test-binaries makes"]
fn arm64() {
    let files = [
        "source-arm64/objs/nginx",
        "source-arm64-compat/objs/nginx",
        "source-arm64-bare/objs/nginx",
        "arm64/usr/sbin/nginx",
        "arm64/srv/trixie/usr/sbin/nginx",
    ];
    let wanted = wanted().unwrap();
    let home = std::env::var("HOME").unwrap();
    let cache = Path::new(&home).join(".cache/ngx-bpf");
    for path in files.map(|file| cache.join(file)) {
        let image = Image::read(&File::open(&path).unwrap()).unwrap();
        let elf = Elf::parse(&image).unwrap();
        assert_eq!(elf.machine(), Machine::Arm64);
        let build = Build::identify(&elf).unwrap();
        let table = built_in(&build).unwrap().unwrap();
        let debug_info = {
            let files = DebugFiles::new(&path, &elf, None, &NoFiles);
            choose::from_debug_info(&path, &elf, &files, &wanted).unwrap()
        };
        let is_stripped = path.ends_with("sbin/nginx");
        assert_eq!(debug_info.is_none(), is_stripped, "{}", path.display());
        /* The table has members that this build may lack, and does not have members that are not read. */
        let mut compared = 0;
        for (name, members) in debug_info.iter().flat_map(|layout| &layout.structs) {
            for (member, offset) in members {
                let known = table.structs.get(name).and_then(|known| known.get(member));
                assert!(known.is_none_or(|known| known == offset), "{name}.{member}");
                compared += usize::from(known.is_some());
            }
        }
        assert!(is_stripped || compared > 70, "{compared}");
        let fit = Witnesses::new(&elf).examine(&table);
        assert!(fit.is_full(), "{}: {fit:?}", path.display());
        let sites = ProbeSites::locate(&elf).unwrap();
        assert!(sites.sites.iter().all(|site| site.emulated), "{sites:?}");
    }
}
