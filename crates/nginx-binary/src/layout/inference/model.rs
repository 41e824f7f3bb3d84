// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inference on models of builds whose layouts are known. A modelled witness agrees with a layout that has
//! the member where the build has it. Whichever witnesses are missing, and whichever one is wrong, no
//! layout may be inferred that has a member at another offset than the build.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ptr;

use crate::build::Build;
use crate::layout;
use crate::layout::KnownLayout;
use crate::layout::Layout;
use crate::layout::forks::measured;
use crate::layout::inference::candidates::Candidates;
use crate::layout::inference::infer_layout;
use crate::layout::inference::listed;
use crate::layout::tests::configurations;
use crate::layout::tests::only;
use crate::layout::witness;
use crate::layout::witness::Agreement;
use crate::layout::witness::Verdict;
use crate::layout::witness::constant::DECIDED_BY_SYMBOL;
use crate::layout::witness::functions::WITNESSES;
use crate::version::Version;

/// A build whose layout is known.
struct Known {
    name: String,
    build: Build,
    /// The nginx that it is based on, with the same options.
    nginx: Build,
    layout: Layout,
    /// The offset of each witness's member.
    places: Vec<Option<i64>>,
}

impl Known {
    fn new(name: String, build: Build, nginx: Build, layout: Layout) -> Self {
        Self {
            name,
            build,
            nginx,
            places: witness::offsets(&layout),
            layout,
        }
    }
}

/// Returns every distinct measured layout of nginx. `layout::tests` compares the table with the measured
/// offsets.
fn measured() -> Vec<Known> {
    let mut found: Vec<Known> = Vec::new();
    for (configuration, build, _) in configurations() {
        let layout = only(&build).unwrap();
        if !found.iter().any(|known| known.layout == layout) {
            found.push(Known::new(configuration, build.clone(), build, layout));
        }
    }
    found
}

/// Returns every measured build of a fork. The members that were not measured are where the tables have them, which
/// were made from the headers.
fn forks() -> Vec<Known> {
    let known = measured::builds().into_iter().map(|fork| {
        let mut layouts = layout::built_in(&fork.build).unwrap().into_iter();
        let mut layout = layouts
            .find(|layout| fork.differing(layout).is_empty())
            .unwrap();
        for (name, members) in fork.layout.structs {
            let known = layout.structs.entry(name).or_default();
            known.extend(members);
        }
        Known::new(fork.name, fork.build, fork.nginx, layout)
    });
    known.collect()
}

/// Layouts to choose from. The offsets of the witnesses' members, which are looked up for each fault, are
/// computed once.
struct Choices {
    known: Candidates,
    offsets: Vec<Vec<Option<i64>>>,
}

impl Choices {
    fn new(layouts: Vec<KnownLayout>) -> Self {
        let offsets = layouts.iter().map(|(_, layout)| witness::offsets(layout));
        Self {
            offsets: offsets.collect(),
            known: Candidates::new(layouts),
        }
    }

    /// Returns the offsets of a layout: one of these, or one that inference has made of two.
    fn offsets_of(&self, layout: &Layout) -> Cow<'_, [Option<i64>]> {
        let mut layouts = self.known.layouts.iter();
        match layouts.position(|(_, known)| ptr::eq(known, layout)) {
            Some(number) => Cow::Borrowed(&self.offsets[number]),
            None => Cow::Owned(witness::offsets(layout)),
        }
    }
}

/// The known layouts for each set of options, computed once.
#[derive(Default)]
struct KnownLayouts(HashMap<String, Choices>);

impl KnownLayouts {
    fn with_options_of(&mut self, build: &Build) -> &Choices {
        /* Those of nginx itself do not depend on its release. */
        let version = match build.fork {
            None => Version::from_number(0),
            Some(_) => build.version,
        };
        let key = Build {
            version,
            ..build.clone()
        };
        let read = || Choices::new(layout::known_layouts(build).unwrap());
        self.0.entry(format!("{key:?}")).or_insert_with(read)
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
    let is_built_in = |module: &str| module != "ngx_quic_output" || known.build.has_quic;
    let mut examine =
        |layout: &Layout| compare(known, &choices.offsets_of(layout), fault, &is_built_in);
    match infer_layout(&choices.known, &mut examine) {
        Ok((chosen, fit)) => (true, wrong(known, &chosen, &fit)),
        Err(_) => (false, Vec::new()),
    }
}

/// Chooses between the layouts that the tables have for a build whose witnesses have a fault. Returns whether one
/// is chosen, and its members that have a wrong offset.
fn choose(known: &Known, layouts: &[Layout], fault: Fault) -> (bool, Vec<String>) {
    let is_built_in = |module: &str| module != "ngx_quic_output" || known.build.has_quic;
    let mut examine =
        |layout: &Layout| compare(known, &witness::offsets(layout), fault, &is_built_in);
    match listed::choose(layouts, &mut examine) {
        Ok((chosen, fit)) => (true, wrong(known, &chosen, &fit)),
        Err(_) => (false, Vec::new()),
    }
}

/// Returns the members that are read and that a chosen layout has at a wrong offset.
fn wrong(known: &Known, chosen: &Layout, fit: &Agreement) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, members) in &known.layout.structs {
        for (member, offset) in members {
            let inferred = chosen.offset(name, member);
            let is_elsewhere = inferred.is_some_and(|inferred| inferred != *offset);
            let is_read = !fit.is_unread(name, member)
                && (name.as_str(), member.as_str()) != DECIDED_BY_SYMBOL;
            if is_elsewhere && is_read {
                wrong.push(format!("{name}.{member}"));
            }
        }
    }
    wrong
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

/// Check that the layout of every fork is the one that its code chooses, and that no wrong one is chosen or
/// inferred for it, whichever witnesses are missing and whichever one agrees with everything.
#[test]
fn never_wrong_for_forks() {
    let mut candidates = KnownLayouts::default();
    for known in forks() {
        let candidates = candidates.with_options_of(&known.build);
        let built_in = layout::built_in(&known.build).unwrap();
        let faults = one_missing().chain(one_wrong()).chain(some_missing());
        for fault in faults.chain([Fault::None]) {
            let (is_chosen, wrong) = choose(&known, &built_in, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
            assert!(is_chosen || !matches!(fault, Fault::None), "{}", known.name);
            let (_, wrong) = infer(&known, candidates, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
        }
    }
}

/// Check the same for a fork whose release the tables do not have: its layout is inferred from other releases of
/// the fork or from nginx, if one of them has it, or else no layout. Those of Tengine and freenginx are not, since
/// some of their builds have moved members that have no witness.
#[test]
fn never_wrong_for_unknown_forks() {
    for mut known in forks() {
        if let Some(fork) = &mut known.build.fork {
            let (name, _) = fork.split_once('/').unwrap();
            *fork = format!("{name}/999");
        }
        let built_in = layout::built_in(&known.build).unwrap();
        assert_eq!(built_in.is_empty(), known.build.fork.is_some());
        let choices = Choices::new(layout::known_layouts(&known.build).unwrap());
        let is_other = |(_, layout): &&KnownLayout| *layout != known.layout;
        let others = Choices::new(
            choices
                .known
                .layouts
                .iter()
                .filter(is_other)
                .cloned()
                .collect(),
        );
        for fault in one_wrong().chain([Fault::None]) {
            let (is_inferred, wrong) = infer(&known, &choices, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
            if matches!(fault, Fault::None) {
                let unsettled = ["tengine", "freenginx"];
                let is_settled = !unsettled.iter().any(|fork| known.name.contains(fork));
                assert_eq!(is_inferred, is_settled, "{}", known.name);
            }
            let (_, wrong) = infer(&known, &others, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
        }
    }
}

/// Check that the code of each fork chooses its layout with every set of options that was measured, and that no wrong
/// one is inferred. Macros are assumed to move what they move in nginx, which is so in all forks that were examined.
#[test]
fn never_wrong_for_options() {
    let mut candidates = KnownLayouts::default();
    let measured = measured();
    let mut count = 0;
    for fork in forks() {
        let nginx = only(&fork.nginx).unwrap();
        let is_base = |options: &&Known| options.build.version == fork.nginx.version;
        for options in measured.iter().filter(is_base) {
            let mut layout = options.layout.clone();
            for (name, members) in &mut layout.structs {
                for (member, offset) in members {
                    let of = |layout: &Layout| layout.offset(name, member);
                    if let (Some(moved), Some(from)) = (of(&fork.layout), of(&nginx)) {
                        *offset = (*offset + moved).saturating_sub(from);
                    }
                }
            }
            let name = format!("{} with the options of {}", fork.name, options.name);
            let build = Build {
                version: fork.build.version,
                fork: fork.build.fork.clone(),
                fork_macros: fork.build.fork_macros.clone(),
                ..options.build.clone()
            };
            let known = Known::new(name, build, options.build.clone(), layout);
            let built_in = layout::built_in(&known.build).unwrap();
            let chosen = choose(&known, &built_in, Fault::None);
            assert_eq!(chosen, (true, Vec::new()), "{}", known.name);
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
        let is_other = |(_, layout): &&KnownLayout| *layout != known.layout;
        let others = Choices::new(all.known.layouts.iter().filter(is_other).cloned().collect());
        for fault in one_wrong().chain([Fault::None]) {
            let (_, wrong) = infer(known, &others, fault);
            assert_eq!(wrong, [""; 0], "{} {fault:?}", known.name);
        }
    }
    assert!(measured.len() > 150, "{}", measured.len());
}
