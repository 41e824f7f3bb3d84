// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds whose layout is known, as inference would see them if it were not: what their code says is
//! modelled. A witness agrees with a layout when it has the member where the build has it. Whatever
//! is missing of the witnesses, and whichever one of them is wrong, no layout may be inferred that has
//! a member elsewhere than the build.

use std::collections::HashMap;

use crate::build::Build;
use crate::layout;
use crate::layout::Layout;
use crate::layout::inference::choose;
use crate::layout::tests::COMPAT;
use crate::layout::tests::build;
use crate::layout::tests::configurations;
use crate::layout::witness;
use crate::layout::witness::Fit;
use crate::layout::witness::Verdict;
use crate::version::Version;

/// Layouts of forks, and of nginx built by others: a line each.
const FORKS: &str = include_str!("../../../tests/data/forks.tsv");

/// Read only where the binary's code has it there (`hook::QUIC_FRAMES`); the table's place is that
/// since 1.25.4.
const TOLD_OTHERWISE: &str = "ngx_quic_frame_s.u";

/// One build.
struct Known {
    /// What to call it.
    name: String,
    /// What it says of itself.
    build: Build,
    /// Where it has its members.
    layout: Layout,
    /// Where it has what each witness is asked for.
    places: Vec<Option<i64>>,
}

impl Known {
    /// A build and its layout.
    fn new(name: String, build: Build, layout: Layout) -> Self {
        let places = witness::places().map(|place| witness::offset(&layout, place));
        Self {
            name,
            build,
            places: places.collect(),
            layout,
        }
    }
}

/// A layout of columns: `STRUCT.MEMBER` and its offset.
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

/// Every layout of nginx that was measured, once. (`layout::tests` holds the
/// table against the measured offsets.)
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

/// Adds the members that no one has looked for in a fork, since they were not read then (those that
/// are not in `names`): each is taken to have moved as the next member after it has in nginx's own
/// layout, or, without one, as the last member before it.
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

/// Every build of another's source, as nginx's own signature would state its options.
fn forks() -> Vec<Known> {
    let mut lines = FORKS.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.next().unwrap().split('\t').skip(3).collect();
    let known = lines.map(|line| {
        let [name, version, signature, offsets @ ..] = &line.split('\t').collect::<Vec<_>>()[..]
        else {
            panic!("{line}");
        };
        /* Angie has a word before, and later a digit more. */
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

/// What layouts depend on beside the release: the signature, and what it does not state.
type Options = (String, [bool; 3]);

/// What the table has for a build's options, read once for each set of them.
#[derive(Default)]
struct Candidates(HashMap<Options, Vec<(Version, Layout)>>);

impl Candidates {
    /// As inference asks for them.
    fn of(&mut self, build: &Build) -> &[(Version, Layout)] {
        let flags = [build.has_ssl, build.has_quic, build.has_sticky];
        let key = (build.signature.clone(), flags);
        let read = || layout::candidates(build).unwrap();
        self.0.entry(key).or_insert_with(read)
    }
}

/// What a witness says that is not as the build is.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing.
    None,
    /// This one is not there.
    Missing(usize),
    /// This one agrees with everything.
    Wrong(usize),
    /// Some are not there: the bits of a number.
    Some(u64),
}

/// What the code of a build says of a layout. `modules`: the symbols that it has.
fn say(known: &Known, layout: &Layout, fault: Fault, modules: &dyn Fn(&str) -> bool) -> Fit {
    Fit::ask(layout, &mut |question| {
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

/// What comes of a build, when its code has such a fault: whether a layout is inferred, and the
/// members that are then elsewhere than they are.
fn infer(known: &Known, candidates: &[(Version, Layout)], fault: Fault) -> (bool, Vec<String>) {
    let is_built_in = |module: &str| match module {
        "ngx_quic_output" => known.build.has_quic,
        _ => true,
    };
    let mut ask = |layout: &Layout| say(known, layout, fault, &is_built_in);
    let Ok(chosen) = choose(candidates, &mut ask) else {
        return (false, Vec::new());
    };
    let fit = ask(&chosen);
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
            if is_elsewhere && !is_unread(name, member) && called != TOLD_OTHERWISE {
                wrong.push(called);
            }
        }
    }
    (true, wrong)
}

/// That this one is not there, for each of them.
fn one_missing() -> impl Iterator<Item = Fault> {
    (0..witness::places().count()).map(Fault::Missing)
}

/// That this one is wrong, for each of them.
fn one_wrong() -> impl Iterator<Item = Fault> {
    (0..witness::places().count()).map(Fault::Wrong)
}

/// That some are not there, at random.
fn some_missing() -> impl Iterator<Item = Fault> {
    let next = |seed: &u64| {
        let product = seed.wrapping_mul(6_364_136_223_846_793_005);
        Some(product.wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(Some(1), next)
        .take(16)
        .map(Fault::Some)
}

/// Check that nothing is inferred wrong for the builds of others, whichever of their witnesses are
/// missing, and whichever one of them agrees with everything. Those that have nginx's own layout, or
/// differ in one struct that another release has so, are inferred.
#[test]
fn never_wrong_for_forks() {
    let mut candidates = Candidates::default();
    let mut found = Vec::new();
    for known in forks() {
        let candidates = candidates.of(&known.build);
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

/// Check the same of what a fork has moved in one build, with every set of options that was measured.
/// (That a macro moves what it moves in nginx is so in all of them that were looked at.)
#[test]
fn never_wrong_for_options() {
    let mut candidates = Candidates::default();
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
            let candidates = candidates.of(&known.build);
            for fault in one_wrong().chain([Fault::None]) {
                let (_, wrong) = infer(&known, candidates, fault);
                assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

/// Check that a release that the table does not have is inferred when another one has its layout,
/// and that nothing is inferred wrong when none has, whichever one of its witnesses agrees with
/// everything.
#[test]
fn never_wrong_for_releases() {
    let mut candidates = Candidates::default();
    let measured = measured();
    for known in &measured {
        let all = candidates.of(&known.build);
        let (is_inferred, wrong) = infer(known, all, Fault::None);
        assert!(is_inferred, "{}", known.name);
        assert_eq!(wrong, [""; 0], "{}", known.name);
        for fault in some_missing() {
            let (is_inferred, _) = infer(known, all, fault);
            assert!(!is_inferred, "{} {fault:?}", known.name);
        }
        let is_other = |(_, layout): &&(Version, Layout)| *layout != known.layout;
        let others: Vec<(Version, Layout)> = all.iter().filter(is_other).cloned().collect();
        for fault in one_wrong().chain([Fault::None]) {
            let (_, wrong) = infer(known, &others, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
        }
    }
    assert!(measured.len() > 150, "{}", measured.len());
}
