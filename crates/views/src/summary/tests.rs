// SPDX-License-Identifier: MIT OR Apache-2.0

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::read::Records;
use ngx_bpf_record::statistics::Settings;
use ngx_bpf_record::statistics::Statistics;
use ngx_bpf_record::values::Failure;

use super::About;
use super::Numbers;
use super::terminal;
use crate::hostile::TEXTS;
use crate::hostile::check;
use crate::hostile::fill;
use crate::hostile::looks;
use crate::hostile::others;
use crate::hostile::plain;
use crate::look::Look;

/// Returns the statistics of a recorded file, by this key.
pub fn recorded(name: &str, group: &str) -> (Statistics, About) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data");
    let file = File::open(folder.join(name)).unwrap();
    let mut records = Records::new(BufReader::new(file));
    let mut statistics = Statistics::new(Settings {
        group: group.parse().unwrap(),
        slowest: 10,
    });
    while let Some(record) = records.next_record().unwrap() {
        statistics.add(&record);
    }
    let about = About {
        source: name.to_owned(),
        unread: records.unread(),
        ..About::default()
    };
    (statistics, about)
}

/// Returns a look of this width.
fn look(width: usize, ascii: bool) -> Look {
    Look {
        colour: false,
        ascii,
        width,
    }
}

/// Check the screens of recorded requests: at each width, with letters and with glyphs. Colours only repeat what is there
/// without them.
#[test]
fn screens() {
    for (name, group, width) in [
        ("records.jsonl", "location", 80),
        ("incidents.jsonl", "peer", 80),
        ("incidents.jsonl", "location", 120),
        ("incidents.jsonl", "location", 80),
        ("incidents.jsonl", "location", 40),
    ] {
        let (statistics, about) = recorded(name, group);
        for look in looks(&[width]) {
            let text = terminal(&statistics, &about, look);
            check(&text, look);
            let kind = if look.ascii { "_ascii" } else { "" };
            let snapshot = format!("{}_{group}_{width}{kind}", name.trim_end_matches(".jsonl"));
            insta::assert_snapshot!(snapshot, plain(&text));
            assert!(look.colour || !text.contains('\x1b'));
        }
    }
}

/// Check the screen of failed requests only.
#[test]
fn failures() {
    let (all, about) = recorded("incidents.jsonl", "location");
    let mut failed = Statistics::new(all.settings().clone());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data");
    let file = File::open(folder.join("incidents.jsonl")).unwrap();
    let mut records = Records::new(BufReader::new(file));
    while let Some(record) = records.next_record().unwrap() {
        if let ngx_bpf_record::Record::Request(request) = &record
            && request.status.is_some_and(|status| status >= 499)
        {
            failed.add(&record);
        }
    }
    for look in looks(&[40, 80, 120]) {
        let text = terminal(&failed, &about, look);
        check(&text, look);
        if !look.colour {
            let kind = if look.ascii { "_ascii" } else { "" };
            insta::assert_snapshot!(format!("failures_{}{kind}", look.width), text);
        }
    }
}

/// Check that nothing is made up where there are no records.
#[test]
fn empty() {
    let (full, about) = recorded("incidents.jsonl", "location");
    let empty = Statistics::new(full.settings().clone());
    let text = terminal(&empty, &about, look(80, false));
    assert_eq!(text, "incidents.jsonl: 0 requests; lost 0\n");
    let numbers = serde_json::to_value(Numbers::of(&empty, &about)).unwrap();
    assert!(numbers.get("seconds").is_none() && numbers["elapsed_ns"].get("p50").is_none());
}

/// Check that the numbers of a summary are those of its screen.
#[test]
fn numbers() {
    let (statistics, about) = recorded("records.jsonl", "location");
    let numbers = serde_json::to_value(Numbers::of(&statistics, &about)).unwrap();
    let shares = &numbers["time_ns"];
    let shares = ["client", "nginx", "upstream", "wait"].map(|name| shares[name].as_u64().unwrap());
    let stages = numbers["stages"].as_object().unwrap().values();
    let stages: u64 = stages.map(|times| times["sum"].as_u64().unwrap()).sum();
    assert!(stages >= shares.iter().sum());
    let groups = numbers["groups"].as_array().unwrap().iter();
    let requests: u64 = groups
        .map(|group| group["requests"].as_u64().unwrap())
        .sum();
    assert_eq!(numbers["requests"], requests);
    assert_eq!(
        numbers["slowest"][0]["elapsed_ns"],
        numbers["elapsed_ns"]["max"]
    );
}

/// Check that texts of records break no column and control no terminal, whatever requests are grouped by, and when all
/// of them failed.
#[test]
fn hostile() {
    for text in TEXTS {
        for (group, status) in [
            ("location", 200),
            ("peer", 200),
            ("container", 200),
            ("method", 502),
        ] {
            let mut statistics = Statistics::new(Settings {
                group: group.parse().unwrap(),
                slowest: 10,
            });
            for n in 0..3 {
                let mut request = Request {
                    status: Some(status),
                    elapsed_ns: Some(n * 1_000_000),
                    upstreams: vec![Attempt {
                        failure: Some(Failure::Closed),
                        ..Default::default()
                    }],
                    ..Default::default()
                };
                fill(&mut request, text);
                statistics.request(&request);
            }
            others(text).iter().for_each(|other| statistics.add(other));
            let about = About {
                source: text.to_owned(),
                all: true,
                ..About::default()
            };
            for look in looks(&[20, 40, 80, 120]) {
                check(&terminal(&statistics, &about, look), look);
            }
        }
    }
}
