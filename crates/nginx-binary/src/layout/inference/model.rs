// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inference on models of builds whose layouts are known. A modelled witness agrees with a layout that has
//! the member where the build has it. Whichever witnesses are missing, and whichever one is wrong, no
//! layout may be inferred that has a member at another offset than the build.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ptr;

use crate::build::Build;
use crate::layout;
use crate::layout::Layout;
use crate::layout::inference::infer_layout;
use crate::layout::tests::COMPAT;
use crate::layout::tests::build;
use crate::layout::tests::configurations;
use crate::layout::witness;
use crate::layout::witness::Agreement;
use crate::layout::witness::Verdict;
use crate::layout::witness::functions::WITNESSES;
use crate::version::Version;

/// The layouts of forks and of foreign builds of nginx, one on each line.
const FORKS: &str = include_str!("../../../tests/data/forks.tsv");

/// A member that is read only when a symbol shows that it is where the table has it (`sites::QUIC_FRAMES`),
/// which is since 1.25.4.
const DECIDED_BY_SYMBOL: &str = "ngx_quic_frame_s.u";

/// A build whose layout is known.
struct Known {
    name: String,
    build: Build,
    layout: Layout,
    /// The offset of each witness's member.
    places: Vec<Option<i64>>,
}

impl Known {
    fn new(name: String, build: Build, layout: Layout) -> Self {
        Self {
            name,
            build,
            places: witness::offsets(&layout),
            layout,
        }
    }
}

/// Reads a layout from columns: the names `STRUCT.MEMBER`, and their offsets.
fn layout_of(names: &[&str], offsets: &[&str]) -> Layout {
    let mut layout = Layout::default();
    for (name, offset) in names.iter().zip(offsets) {
        let (name, member) = name.split_once('.').unwrap();
        if let Ok(offset) = offset.parse() {
            let members = layout.structs.entry(name.to_owned()).or_default();
            members.insert(member.to_owned(), offset);
        }
    }
    layout
}

/// Returns every distinct measured layout of nginx. `layout::tests` compares the table with the measured
/// offsets.
fn measured() -> Vec<Known> {
    let mut found: Vec<Known> = Vec::new();
    for (configuration, build, _) in configurations() {
        let layout = layout::built_in(&build).unwrap().unwrap();
        if !found.iter().any(|known| known.layout == layout) {
            found.push(Known::new(configuration, build, layout));
        }
    }
    found
}

/// Adds the members that were not measured in a fork (those that are not in `names`). Each is assumed to have
/// moved as far as the next member after it in nginx's layout, or else as the last one before it.
fn complete(mut layout: Layout, nginx: &Layout, names: &[&str]) -> Layout {
    for (name, members) in &nginx.structs {
        let known = layout.structs.entry(name.clone()).or_default();
        let stated = known.clone();
        for (member, offset) in members {
            if names.contains(&&*format!("{name}.{member}")) {
                continue;
            }
            let moved = |(other, at): (&String, &u32)| Some((*at, *stated.get(other)?));
            let others: Vec<(u32, u32)> = members.iter().filter_map(moved).collect();
            let after = others.iter().filter(|(at, _)| at >= offset).min();
            let before = others.iter().filter(|(at, _)| at < offset).max();
            let (from, to) = after.or(before).copied().unwrap_or_default();
            known.insert(member.clone(), (offset + to).saturating_sub(from));
        }
    }
    layout
}

/// Returns every build of a fork, with the signature that nginx would have with the same options.
fn forks() -> Vec<Known> {
    let mut lines = FORKS.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.next().unwrap().split('\t').skip(3).collect();
    let known = lines.map(|line| {
        let [name, version, signature, offsets @ ..] = &line.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        /* Angie's signature has a word before it, and one more digit in later releases. */
        let signature = signature.trim_start_matches("Angie,");
        let signature = &signature[..COMPAT.len()];
        let layout = layout_of(&names, offsets);
        let connection = &layout.structs["ngx_connection_s"];
        let build = Build {
            has_ssl: connection.contains_key("ssl"),
            has_quic: connection.contains_key("quic"),
            has_sticky: true,
            ..build(version, signature)
        };
        let layout = complete(layout, &layout::built_in(&build).unwrap().unwrap(), &names);
        Known::new((*name).to_owned(), build, layout)
    });
    known.collect()
}

/// The options that a layout depends on: the signature, and what the signature does not state.
type OptionSet = (String, [bool; 3]);

/// Layouts to choose from. The offsets of the witnesses' members, which are looked up for each fault, are
/// computed once.
struct Choices {
    layouts: Vec<(Version, Layout)>,
    offsets: Vec<Vec<Option<i64>>>,
}

impl Choices {
    fn new(layouts: Vec<(Version, Layout)>) -> Self {
        let offsets = layouts.iter().map(|(_, layout)| witness::offsets(layout));
        Self {
            offsets: offsets.collect(),
            layouts,
        }
    }

    /// Returns the offsets of a layout: one of these, or one that inference has made of two.
    fn offsets_of(&self, layout: &Layout) -> Cow<'_, [Option<i64>]> {
        let mut layouts = self.layouts.iter();
        match layouts.position(|(_, known)| ptr::eq(known, layout)) {
            Some(number) => Cow::Borrowed(&self.offsets[number]),
            None => Cow::Owned(witness::offsets(layout)),
        }
    }
}

/// The known layouts for each set of options, computed once.
#[derive(Default)]
struct KnownLayouts(HashMap<OptionSet, Choices>);

impl KnownLayouts {
    fn with_options_of(&mut self, build: &Build) -> &Choices {
        let flags = [build.has_ssl, build.has_quic, build.has_sticky];
        let key = (build.signature.clone(), flags);
        let read = || Choices::new(layout::known_layouts(build).unwrap());
        self.0.entry(key).or_insert_with(read)
    }
}

/// A fault of the witnesses.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// This witness is missing.
    Missing(usize),
    /// This witness agrees with every layout.
    Wrong(usize),
    /// The witnesses whose bit is set are missing.
    Some(u64),
}

/// Compares a layout with the modelled code of a build. `modules` says which symbols it has.
fn compare(
    known: &Known,
    offsets: &[Option<i64>],
    fault: Fault,
    modules: &dyn Fn(&str) -> bool,
) -> Agreement {
    Agreement::collect(offsets, &mut |question| {
        if question.module.is_some_and(|module| !modules(module)) {
            return Verdict::Unread;
        }
        let is_missing = match fault {
            Fault::None => false,
            Fault::Missing(number) => number == question.number,
            Fault::Some(bits) => bits >> question.number & 1 == 1,
            Fault::Wrong(number) if number == question.number => return Verdict::Agrees,
            Fault::Wrong(_) => false,
        };
        let is_there = known.places[question.number];
        match question.offset {
            _ if is_missing => Verdict::Unknown,
            None if is_there.is_none() => Verdict::Unread,
            offset if offset == is_there => Verdict::Agrees,
            _ => Verdict::Differs,
        }
    })
}

/// Infers the layout of a build whose witnesses have a fault. Returns whether a layout is inferred, and its
/// members that have a wrong offset.
fn infer(known: &Known, choices: &Choices, fault: Fault) -> (bool, Vec<String>) {
    let is_built_in = |module: &str| match module {
        "ngx_quic_output" => known.build.has_quic,
        _ => true,
    };
    let mut examine =
        |layout: &Layout| compare(known, &choices.offsets_of(layout), fault, &is_built_in);
    let Ok((chosen, _)) = infer_layout(&choices.layouts, &mut examine) else {
        return (false, Vec::new());
    };
    let fit = examine(&chosen);
    let is_unread = |name: &str, member: &str| {
        let mut unread = fit.unread.iter();
        unread.any(|place| place.contains(&(name, member)))
    };
    let mut wrong = Vec::new();
    for (name, members) in &known.layout.structs {
        for (member, offset) in members {
            let inferred = chosen.structs.get(name).and_then(|m| m.get(member));
            let called = format!("{name}.{member}");
            let is_elsewhere = inferred.is_some_and(|inferred| inferred != offset);
            if is_elsewhere && !is_unread(name, member) && called != DECIDED_BY_SYMBOL {
                wrong.push(called);
            }
        }
    }
    (true, wrong)
}

fn one_missing() -> impl Iterator<Item = Fault> {
    (0..WITNESSES.len()).map(Fault::Missing)
}

fn one_wrong() -> impl Iterator<Item = Fault> {
    (0..WITNESSES.len()).map(Fault::Wrong)
}

/// Returns faults in which random witnesses are missing.
fn some_missing() -> impl Iterator<Item = Fault> {
    let next = |seed: &u64| {
        let product = seed.wrapping_mul(6_364_136_223_846_793_005);
        Some(product.wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(Some(1), next)
        .take(16)
        .map(Fault::Some)
}

/// Check that no wrong layout is inferred for forks, whichever witnesses are missing and whichever one agrees
/// with everything. Those that have a layout of nginx, or differ in one struct that another release has, are
/// inferred.
#[test]
fn never_wrong_for_forks() {
    let mut candidates = KnownLayouts::default();
    let mut found = Vec::new();
    for known in forks() {
        let candidates = candidates.with_options_of(&known.build);
        let faults = one_missing().chain(one_wrong()).chain(some_missing());
        for fault in faults.chain([Fault::None]) {
            let (is_inferred, wrong) = infer(&known, candidates, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
            if is_inferred && matches!(fault, Fault::None) {
                found.push(known.name.clone());
            }
        }
    }
    let expected = [
        "angie-1.0.0-compat",
        "clang-1.30.4",
        "gcc-nopie-1.30.4",
        "ingress-1.27.1",
        "musl-dyn-1.30.4",
        "musl-static-1.30.4",
        "openresty-1.25.3.2-compat",
        "openresty-1.27.1.2-compat",
        "openresty-1.27.1.2-lua",
    ];
    assert_eq!(found, expected);
}

/// Check the same for what each fork has moved, with every set of options that was measured. Macros are
/// assumed to move what they move in nginx, which is so in all forks that were examined.
#[test]
fn never_wrong_for_options() {
    let mut candidates = KnownLayouts::default();
    let measured = measured();
    let mut count = 0;
    for fork in forks() {
        let nginx = layout::built_in(&fork.build).unwrap().unwrap();
        for options in &measured {
            let mut layout = options.layout.clone();
            for (name, members) in &mut layout.structs {
                for (member, offset) in members {
                    let of = |layout: &Layout| layout.structs.get(name)?.get(member).copied();
                    if let (Some(moved), Some(from)) = (of(&fork.layout), of(&nginx)) {
                        *offset = (*offset + moved).saturating_sub(from);
                    }
                }
            }
            if options.build.version != fork.build.version {
                continue;
            }
            let name = format!("{} with the options of {}", fork.name, options.name);
            let known = Known::new(name, options.build.clone(), layout);
            let candidates = candidates.with_options_of(&known.build);
            for fault in one_wrong().chain([Fault::None]) {
                let (_, wrong) = infer(&known, candidates, fault);
                assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

/// Check that the layout of a release that the table does not have is inferred when another release has it,
/// and that no wrong layout is inferred when none has, whichever witness agrees with everything.
#[test]
fn never_wrong_for_releases() {
    let mut candidates = KnownLayouts::default();
    let measured = measured();
    for known in &measured {
        let all = candidates.with_options_of(&known.build);
        let (is_inferred, wrong) = infer(known, all, Fault::None);
        assert!(is_inferred, "{}", known.name);
        assert_eq!(wrong, [""; 0], "{}", known.name);
        for fault in some_missing() {
            let (is_inferred, _) = infer(known, all, fault);
            assert!(!is_inferred, "{} {fault:?}", known.name);
        }
        let is_other = |(_, layout): &&(Version, Layout)| *layout != known.layout;
        let others = Choices::new(all.layouts.iter().filter(is_other).cloned().collect());
        for fault in one_wrong().chain([Fault::None]) {
            let (_, wrong) = infer(known, &others, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
        }
    }
    assert!(measured.len() > 150, "{}", measured.len());
}
