// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of other viewers, and the page.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use ngx_bpf_record::Request;
use serde_json::Value;

use super::all;
use super::partial;
use super::slow;
use crate::waterfall::har;
use crate::waterfall::html;
use crate::waterfall::trace;

/// Returns all recorded requests, and some that were made here.
fn requests() -> Vec<Request<'static>> {
    let mut requests = all();
    requests.extend([slow(), partial(), Request::default()]);
    requests
}

/// Returns whether a value is of a type of JSON Schema.
fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

/// Checks that an object has keys of these types.
fn check(object: &Value, keys: &[(&str, &str)]) {
    for (key, kind) in keys {
        assert!(is(&object[*key], kind), "{key} {object}");
    }
}

/// Check that an archive has what HAR 1.2 requires, of the types that it requires.
#[test]
fn archive() {
    let requests = requests();
    let archive = har(&requests);
    let log = &archive["log"];
    check(
        log,
        &[
            ("version", "string"),
            ("creator", "object"),
            ("entries", "array"),
        ],
    );
    check(
        &log["creator"],
        &[("name", "string"), ("version", "string")],
    );
    let entries = log["entries"].as_array().unwrap();
    let without_time = log["_without_time"].as_u64().unwrap() as usize;
    assert_eq!(entries.len() + without_time, requests.len());
    for entry in entries {
        check(
            entry,
            &[
                ("startedDateTime", "string"),
                ("time", "number"),
                ("request", "object"),
                ("response", "object"),
                ("cache", "object"),
                ("timings", "object"),
                ("_id", "string"),
                ("_record", "object"),
            ],
        );
        check_messages(entry);
        check_timings(entry);
    }
}

/// Checks the request and the response of an entry.
fn check_messages(entry: &Value) {
    let both = [
        ("httpVersion", "string"),
        ("cookies", "array"),
        ("headers", "array"),
        ("headersSize", "integer"),
        ("bodySize", "integer"),
    ];
    check(&entry["request"], &both);
    check(&entry["response"], &both);
    check(
        &entry["request"],
        &[
            ("method", "string"),
            ("url", "string"),
            ("queryString", "array"),
        ],
    );
    check(
        &entry["response"],
        &[
            ("status", "integer"),
            ("statusText", "string"),
            ("redirectURL", "string"),
            ("content", "object"),
        ],
    );
    check(
        &entry["response"]["content"],
        &[("size", "integer"), ("mimeType", "string")],
    );
    for list in ["headers", "queryString"] {
        for pair in entry["request"][list].as_array().unwrap() {
            check(pair, &[("name", "string"), ("value", "string")]);
        }
    }
}

/// Checks that the timings of an entry add up to its time.
fn check_timings(entry: &Value) {
    let names = [
        "blocked", "dns", "connect", "send", "wait", "receive", "ssl",
    ];
    let timings = names.map(|name| entry["timings"][name].as_f64().unwrap());
    let known = timings[..6].iter().filter(|ms| **ms >= 0.0);
    let sum: f64 = known.sum();
    let time = entry["time"].as_f64().unwrap();
    assert!((sum - time).abs() < 1e-6, "{entry}");
    assert!(
        timings.iter().all(|ms| *ms >= 0.0 || *ms == -1.0),
        "{entry}"
    );
}

/// Check the timings of one request.
#[test]
fn timings() {
    let archive = har(&[slow()]);
    let entry = &archive["log"]["entries"][0];
    let timings = &entry["timings"];
    for (name, ms) in [
        ("blocked", 4.1),
        ("dns", -1.0),
        ("connect", 1_000.0),
        ("ssl", -1.0),
        ("send", 0.26),
        ("receive", 11.9),
    ] {
        let known = timings[name].as_f64().unwrap();
        assert!((known - ms).abs() < 1e-6, "{name} {timings}");
    }
    assert_eq!(
        entry["request"]["url"],
        "https://shop.example/api/orders/7?page=2"
    );
    assert_eq!(entry["request"]["queryString"][0]["name"], "page");
    assert_eq!(entry["serverIPAddress"], "192.0.2.1");
    assert_eq!(entry["connection"], "5875/71");
    assert_eq!(entry["_id"], "5875/71/3");
}

/// Check that events nest on each track, that asynchronous ones end, and that no request stays in flight.
#[test]
fn events() {
    let mut requests = requests();
    /* A second stream of the same connection, which begins while the first is under way. */
    requests.push(Request {
        time: Some("2026-11-26T20:04:11.283529112Z".to_owned()),
        connection_requests: Some(4),
        ..slow()
    });
    let trace = trace(&requests);
    let events = trace["traceEvents"].as_array().unwrap();
    let mut complete: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    let (mut begun, mut in_flight) = (BTreeMap::new(), BTreeMap::new());
    let mut named = BTreeSet::new();
    for event in events {
        let pid = event["pid"].as_u64().unwrap();
        let ts = event["ts"].as_f64();
        match event["ph"].as_str().unwrap() {
            "M" => {
                named.insert((pid, event["tid"].as_u64()));
            }
            "X" => {
                let (ts, dur) = (ts.unwrap(), event["dur"].as_f64().unwrap());
                let track = event["tid"].as_u64().unwrap();
                assert!(named.contains(&(pid, Some(track))) && named.contains(&(pid, None)));
                complete.entry(track).or_default().push((ts, ts + dur));
            }
            "b" => *begun.entry(event["id"].to_string()).or_insert(0) += 1,
            "e" => *begun.get_mut(&event["id"].to_string()).unwrap() -= 1,
            "C" => {
                let requests = event["args"]["requests"].as_u64().unwrap();
                in_flight.insert(pid, requests);
            }
            other => panic!("{other}"),
        }
    }
    assert!(begun.values().all(|open| *open == 0) && begun.len() == 2);
    assert!(in_flight.values().all(|requests| *requests == 0));
    assert_eq!(trace["otherData"]["without_time"], 7);
    complete.into_values().for_each(check_nesting);
}

/// Checks that each of these is within another one, or after it; a nanosecond is the precision.
fn check_nesting(mut events: Vec<(f64, f64)>) {
    events.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut open: Vec<f64> = Vec::new();
    for (from, to) in events {
        while open.last().is_some_and(|end| *end < from + 0.000_5) {
            open.pop();
        }
        assert!(
            open.last().is_none_or(|end| to < end + 0.000_5),
            "{from} {to}"
        );
        open.push(to);
    }
}

/// Check that a page has a section for each request, and each on the clock of all.
#[test]
fn page() {
    let requests = requests();
    let page = html(&requests);
    assert_eq!(page.matches("<section").count(), requests.len());
    assert_eq!(page.matches("<a href=\"#r").count(), requests.len());
    for text in [
        "try 1",
        "connect_timeout",
        "subrequest",
        "No bars:",
        "are not known",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!html(&[slow()]).contains("<a href"));
}
