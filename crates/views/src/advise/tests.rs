// SPDX-License-Identifier: MIT OR Apache-2.0

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ngx_bpf_record::Record;
use ngx_bpf_record::format::json::write_line;
use ngx_bpf_record::read;
use ngx_bpf_record::values::Failure;

use super::Advisor;
use super::Finding;
use super::RULES;
use super::explain;
use super::samples::Sample;
use super::terminal;
use crate::hostile::TEXTS;
use crate::hostile::check;
use crate::hostile::fill;
use crate::hostile::looks;
use crate::hostile::others;
use crate::hostile::plain;
use crate::look::Look;

const LOOK: Look = Look {
    colour: false,
    ascii: true,
    width: 80,
};

/// The root of the project.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Returns what recorded input shows.
fn advise(file: &str) -> Advisor {
    let path = Path::new(ROOT).join("tests/data").join(file);
    let mut records = read::Records::new(read::open(&path).unwrap());
    let mut advisor = Advisor::new();
    while let Some(record) = records.next_record().unwrap() {
        advisor.record(&record);
    }
    advisor
}

/// Returns the screen of recorded input.
fn screen(file: &str, look: Look) -> String {
    let advisor = advise(file);
    let head = format!("{file}: {} requests", advisor.collected.requests);
    terminal(&advisor.findings(), &advisor.fine(), &head, look)
}

/// Check the screens of recorded input: at each width, with letters and with glyphs. Colours only repeat what is there
/// without them.
#[test]
fn recorded() {
    for (file, widths) in [
        ("records.jsonl", &[80][..]),
        ("incidents.jsonl", &[40, 80, 120]),
        ("blocked.jsonl", &[80]),
    ] {
        for look in looks(widths) {
            let shown = screen(file, look);
            check(&shown, look);
            let kind = if look.ascii { "_ascii" } else { "" };
            let name = format!("{}_{}{kind}", file.trim_end_matches(".jsonl"), look.width);
            insta::assert_snapshot!(name, plain(&shown));
        }
    }
}

/// Returns records that have hostile texts wherever there are texts.
fn hostile_records(text: &'static str) -> Vec<Record<'static>> {
    let mut records = Vec::new();
    for n in 0..400_usize {
        let mut sample = Sample::at_ms(n as u64);
        sample = sample
            .upstream("x", "y", 1_000_000_000)
            .upstream("x", "z", 1_000_000);
        sample.fail(0, Failure::Closed, 502);
        sample.attempt(0).reused_idle_ns = Some(5);
        let request = &mut sample.0;
        fill(request, text);
        request.request_method = Some("POST".into());
        request.waits.accept_queue_ns = Some(1_000_000_000);
        request.waits.limit_req_delay_ns = Some(1_000_000_000);
        request.waits.response_temp_file_bytes = Some(1);
        request.waits.client_stall_ns = Some(1_000_000_000);
        records.push(sample.record());
    }
    records.extend(others(text));
    records
}

/// Check that hostile names print no control byte, and break no column.
#[test]
fn hostile_names() {
    for text in TEXTS {
        let mut advisor = Advisor::new();
        hostile_records(text)
            .iter()
            .for_each(|record| advisor.record(record));
        let findings = advisor.findings();
        let rules: BTreeSet<_> = findings.iter().map(|finding| finding.rule).collect();
        assert!(rules.len() >= 7, "{rules:?}");
        for look in looks(&[20, 40, 80, 120]) {
            check(&terminal(&findings, &[], text, look), look);
        }
        let mut json = Vec::new();
        write_line(&mut json, &findings).unwrap();
        let json = String::from_utf8(json).unwrap();
        assert!(!json.trim_end().chars().any(char::is_control));
    }
}

/// Check that any number of names takes only so much memory.
#[test]
fn bounded() {
    let mut advisor = Advisor::new();
    for n in 0..100_000_usize {
        let mut sample = Sample::at_ms(n as u64).upstream("x", "y", 1_000_000);
        sample.0.pid = n as u32;
        sample.0.place.location = Some(format!("/{n}").into());
        sample.0.place.upstream_name = Some(format!("group-{n}").into());
        sample.0.remote_addr = Some(format!("client-{n}").into());
        sample.0.server_addr = Some(format!("addr-{}", n / 2).into());
        sample.0.scheme = ngx_bpf_record::values::Scheme::Https;
        sample.0.tls.tls_handshake_ns = Some(1);
        sample.0.status = Some(499);
        advisor.record(&sample.record());
    }
    let collected = &advisor.collected;
    assert_eq!(collected.requests, 100_000);
    for (rows, most) in [
        (collected.locations.named().count(), 128),
        (collected.servers.named().count(), 128),
        (collected.workers.named().count(), 256),
        (collected.listeners.rows.named().count(), 64),
        (collected.listeners.clients(), 4_096),
    ] {
        assert_eq!(rows, most);
    }
    let other = collected.locations.other().unwrap();
    assert!(other.left.len() <= 512);
    let other = collected.listeners.rows.other().unwrap();
    assert!(other.workers.len() <= 256);
}

/// Check that the most expensive finding is the first one: failures before time, and time before requests.
#[test]
fn sorted() {
    let mut samples = Vec::new();
    for n in 0..40 {
        let mut sample = Sample::at_ms(n);
        sample.0.waits.request_temp_file_bytes = Some(1);
        sample.0.waits.limit_req_delay_ns = Some(1_000_000_000);
        samples.push(sample);
        let mut sample = Sample::at_ms(n).upstream("x", "10.0.0.9:80", 1_000);
        sample.fail(0, Failure::ConnectError, 502);
        sample.0.status = Some(502);
        samples.push(sample);
    }
    let mut advisor = Advisor::new();
    for sample in samples {
        advisor.record(&sample.record());
    }
    let rules: Vec<_> = advisor
        .findings()
        .iter()
        .map(|finding| finding.rule)
        .collect();
    assert_eq!(rules, ["server_silent", "limit_req_delay", "request_spill"]);
    let fine = advisor.fine();
    assert!(fine.contains(&"servers that answer nothing") == rules.is_empty());
    assert!(fine.contains(&"blocked workers") && !fine.contains(&"accept queues"));
}

/// Check the names of the keys for tools.
#[test]
fn json() {
    let finding = Finding {
        rule: "resolver",
        subject: "/".to_owned(),
        requests: Some(2),
        lost_ns: Some(3),
        config: Some("nginx.conf:1".to_owned()),
        ..Default::default()
    };
    let text = serde_json::to_string(&finding).unwrap();
    assert_eq!(
        text,
        r#"{"rule":"resolver","subject":"/","title":"","evidence":[],"requests":2,"failed":0,"lost_ns":3,"do":[],"config":"nginx.conf:1"}"#
    );
}

/// Check that each rule has a page with its thresholds, that the list names all of them, and that there are no others.
#[test]
fn pages() {
    let folder = Path::new(ROOT).join("docs/advise");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for rule in &RULES {
        let (name, page) = (rule.name, explain(rule.name).unwrap());
        let entry = format!("| [`{name}`]({name}.md) | {} |", rule.description);
        assert!(list.lines().any(|line| line == entry), "{entry}");
        let title = format!("# {name} {}.", rule.description).to_lowercase();
        let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.to_lowercase().starts_with(&title), "{title}");
        for heading in ["Evidence", "Threshold", "What to do", "When it is wrong"] {
            let heading = format!("\n## {heading}\n");
            assert!(page.contains(&heading), "{name}: {heading}");
        }
        for threshold in rule.thresholds {
            let line = format!(
                "- {} {}: {}.",
                threshold.least, threshold.what, threshold.from
            );
            assert!(words.contains(&line), "{name}: {line}");
        }
        assert!(
            page.is_ascii() && page.lines().all(|line| line.len() <= 75),
            "{name}"
        );
        let lines = page.lines().count();
        assert!((20..=46).contains(&lines), "{name}: {lines} lines");
    }
    let rules: BTreeSet<_> = RULES
        .iter()
        .map(|rule| format!("{}.md", rule.name))
        .collect();
    assert_eq!(rules.len(), RULES.len());
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name());
    let pages: BTreeSet<_> = files
        .map(|file| file.into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(pages, rules);
    assert_eq!(explain("none"), None);
}

/// Check that colour changes nothing else.
#[test]
fn coloured() {
    let advisor = advise("incidents.jsonl");
    let findings = advisor.findings();
    let shown = |look: Look| terminal(&findings[..1], &[], "head", look);
    let plain = shown(LOOK);
    let look = Look {
        colour: true,
        ..LOOK
    };
    let coloured = shown(look);
    assert_ne!(coloured, plain);
    assert_eq!(
        coloured.replace("\x1b[1m", "").replace("\x1b[0m", ""),
        plain
    );
}

/// Check that nothing is found where there is nothing, and that this is said.
#[test]
fn nothing() {
    let advisor = Advisor::new();
    let (findings, fine) = (advisor.findings(), advisor.fine());
    assert!(findings.is_empty() && fine.is_empty());
    assert_eq!(
        terminal(&findings, &fine, "head", LOOK),
        "head\n\nnothing found\n"
    );
}
