// SPDX-License-Identifier: MIT OR Apache-2.0

use ngx_bpf_record::Request;
use ngx_bpf_record::read::Unread;
use ngx_bpf_record::statistics::GroupKey;
use ngx_bpf_record::statistics::Settings;
use ngx_bpf_record::statistics::Statistics;
use ngx_bpf_record::values::End;

use super::Comparison;
use super::Side;
use super::chance::Numbers;
use crate::hostile::TEXTS;
use crate::hostile::check;
use crate::hostile::fill;
use crate::hostile::looks;
use crate::hostile::plain;

/// Returns the statistics of requests whose times vary around a mean.
fn statistics(count: u64, mean_ns: f64, failed: u64, seed: u64) -> Statistics {
    let mut statistics = Statistics::new(Settings {
        group: GroupKey::Location,
        slowest: 0,
    });
    let mut numbers = Numbers(seed);
    for n in 0..count {
        let ns = mean_ns * (1.0 + numbers.normal() / 4.0).max(0.01);
        let mut request = Request {
            status: Some(200),
            elapsed_ns: Some(ns as u64),
            ..Default::default()
        };
        request.place.location = Some("/a".into());
        if n < failed {
            request.ending.end = Some(End::UpstreamFailed);
        }
        statistics.request(&request);
    }
    statistics
}

/// Compares two of them.
fn compared(before: &Statistics, after: &Statistics) -> Comparison {
    let side = |name, statistics| Side {
        name,
        statistics,
        unread: Unread::default(),
    };
    Comparison::of(&side("before.json", before), &side("after.json", after))
}

/// Check that what is the same hardly ever seems to differ, and that what differs does.
#[test]
fn chance() {
    let mut wrong = 0;
    for seed in 1..=10 {
        let [one, other] = [seed, seed + 1_000].map(|seed| statistics(500, 1e6, 10, seed));
        let compared = compared(&one, &other);
        let changes = compared.elapsed_ns.iter().chain([&compared.failed]);
        wrong += changes
            .filter(|change| change.more_than_chance == Some(true))
            .count();
    }
    assert!(wrong <= 3, "{wrong} of 40");
    let [slow, fast] = [(1e6, 50), (8e5, 5)].map(|(mean, failed)| statistics(500, mean, failed, 7));
    let compared = compared(&slow, &fast);
    assert!(
        compared
            .elapsed_ns
            .iter()
            .all(|change| change.more_than_chance == Some(true))
    );
    assert_eq!(compared.failed.more_than_chance, Some(true));
    assert_eq!(compared.groups[0].name, "/a");
}

/// Check the screen at each width, with letters and with glyphs. Colours only repeat what is there without them.
#[test]
fn screen() {
    let [slow, fast] = [(1e6, 50), (8e5, 5)].map(|(mean, failed)| statistics(500, mean, failed, 7));
    let nothing = statistics(0, 1.0, 0, 1);
    for look in looks(&[40, 80, 120]) {
        let text = compared(&slow, &fast).terminal(false, look);
        check(&text, look);
        let kind = if look.ascii { "_ascii" } else { "" };
        insta::assert_snapshot!(format!("screen_{}{kind}", look.width), plain(&text));
        let text = compared(&nothing, &nothing).terminal(false, look);
        check(&text, look);
        assert!(
            !text.contains("NaN") && !text.lines().any(|line| line.ends_with("***")),
            "{text}"
        );
    }
}

/// Check the screen of recorded requests, which has stages.
#[test]
fn recorded() {
    let [before, after] = ["records.jsonl", "incidents.jsonl"]
        .map(|name| crate::summary::tests::recorded(name, "status").0);
    for look in looks(&[40, 80, 120]) {
        let text = compared(&before, &after).terminal(true, look);
        check(&text, look);
        let kind = if look.ascii { "_ascii" } else { "" };
        insta::assert_snapshot!(format!("recorded_{}{kind}", look.width), plain(&text));
    }
}

/// Check that names of files and of groups break no column and control no terminal.
#[test]
fn hostile() {
    for text in TEXTS {
        let mut statistics = statistics(3, 1e6, 1, 1);
        let mut request = Request::default();
        fill(&mut request, text);
        request.elapsed_ns = Some(5);
        statistics.request(&request);
        let side = Side {
            name: text,
            statistics: &statistics,
            unread: Unread::default(),
        };
        for look in looks(&[20, 40, 80, 120]) {
            check(&Comparison::of(&side, &side).terminal(true, look), look);
        }
    }
}

/// Check that no difference counts as more than chance where there are too few requests.
#[test]
fn few() {
    let [one, other] = [(1e6, 1), (9e6, 3)].map(|(mean, seed)| statistics(9, mean, 1, seed));
    let compared = compared(&one, &other);
    let changes = compared.elapsed_ns.iter().chain(&compared.groups);
    for change in changes.chain([&compared.failed]) {
        assert_eq!(change.more_than_chance, None, "{change:?}");
    }
}
