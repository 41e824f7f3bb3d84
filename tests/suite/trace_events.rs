// SPDX-License-Identifier: MIT OR Apache-2.0
//! The traces of `ngx-bpf waterfall --trace`, against a schema of the format, and against the records.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::common::recorded::incidents;
use super::common::sources::project;
use super::common::tool::PROGRAM;

/// A part of a trace: its place, its category, its begin and its end in ns.
#[derive(Debug)]
struct Slice {
    process: u64,
    track: u64,
    category: String,
    from: u64,
    to: u64,
    id: Option<String>,
}

/// Returns the trace of all requests of some lines.
fn trace(lines: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["requests.json", "a.trace"].map(|name| folder.path().join(name));
    fs::write(&from, lines).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["waterfall", "--slowest=100", "--trace"]);
    let output = command.arg(&to).arg(from).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&fs::read_to_string(to).unwrap()).unwrap()
}

/// Returns a time in ns, as a viewer reads it: the rest below a nanosecond is cut.
fn nanoseconds(microseconds: &Value) -> u64 {
    (microseconds.as_f64().unwrap() * 1_000.0) as u64
}

/// Returns the slices of a trace: complete events, and asynchronous ones from their begin to their end, which is the
/// end of the last one with this id that has not ended.
fn slices(events: &[Value]) -> Vec<Slice> {
    let mut open: BTreeMap<&str, Vec<Slice>> = BTreeMap::new();
    let mut slices = Vec::new();
    for event in events {
        let phase = event["ph"].as_str().unwrap();
        let id = event["id"].as_str();
        if phase == "e" {
            let begun = open.get_mut(id.unwrap()).and_then(Vec::pop);
            let mut slice = begun.expect("an asynchronous event ends that has begun");
            slice.to = nanoseconds(&event["ts"]);
            slices.push(slice);
        } else if phase == "X" || phase == "b" {
            let from = nanoseconds(&event["ts"]);
            let dur = event.get("dur").map_or(0, nanoseconds);
            let slice = Slice {
                process: event["pid"].as_u64().unwrap(),
                track: event["tid"].as_u64().unwrap(),
                category: event["cat"].as_str().unwrap().to_owned(),
                from,
                to: from + dur,
                id: event["args"]["id"].as_str().map(str::to_owned),
            };
            match id.filter(|_| phase == "b") {
                Some(id) => open.entry(id).or_default().push(slice),
                None => slices.push(slice),
            }
        }
    }
    assert!(open.values().all(Vec::is_empty), "{open:?}");
    slices
}

/// Returns the names of processes and tracks.
fn names(events: &[Value]) -> BTreeMap<(u64, Option<u64>), &str> {
    let named = events.iter().filter(|event| event["ph"] == "M");
    let named = named.map(|event| {
        let name = event["args"]["name"].as_str().unwrap();
        (
            (event["pid"].as_u64().unwrap(), event["tid"].as_u64()),
            name,
        )
    });
    named.collect()
}

/// Checks that the counter of each worker goes up and down by its requests, and ends at none.
fn check_counters(events: &[Value], slices: &[Slice]) {
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "C") {
        let (pid, at) = (event["pid"].as_u64().unwrap(), nanoseconds(&event["ts"]));
        let count = event["args"]["requests"].as_u64().unwrap();
        let open = slices.iter().filter(|slice| {
            slice.process == pid && slice.id.is_some() && (slice.from..slice.to).contains(&at)
        });
        assert_eq!(open.count() as u64, count, "{event}");
        let before = last.insert(pid, (at, count));
        assert!(before.is_none_or(|(before, _)| before < at), "{event}");
    }
    assert!(!last.is_empty() && last.values().all(|(_, count)| *count == 0));
}

/// Check that a trace is valid, and that its slices are the requests: each with its time, on the track of its connection,
/// with parts that add up to it.
#[test]
fn requests() {
    let schema = project().join("tests/data/trace-events.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let trace = trace(incidents());
    let errors = validator.iter_errors(&trace).map(|error| error.to_string());
    assert_eq!(errors.collect::<Vec<_>>(), [""; 0]);
    let events = trace["traceEvents"].as_array().unwrap();
    let (slices, names) = (slices(events), names(events));
    let mut known = 0;
    for line in incidents().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let [pid, connection, number] =
            ["pid", "connection", "connection_requests"].map(|key| record[key].as_u64().unwrap());
        let id = format!("{pid}/{connection}/{number}");
        let mut of_request = slices.iter().filter(|slice| slice.id.as_ref() == Some(&id));
        let slice = of_request.next().unwrap();
        assert!(of_request.next().is_none(), "{id}");
        assert_eq!(slice.category, "request");
        let elapsed = record["elapsed_ns"].as_u64().unwrap();
        assert_eq!(slice.to - slice.from, elapsed, "{record}");
        assert_eq!(names[&(pid, None)], format!("nginx worker {pid}"));
        let track = format!("connection {connection}");
        assert_eq!(names[&(pid, Some(slice.track))], track);
        let parts = slices.iter().filter(|part| {
            part.track == slice.track
                && part.category != "request"
                && (slice.from..=slice.to).contains(&part.from)
                && (slice.from..=slice.to).contains(&part.to)
        });
        let sum: u64 = parts.map(|part| part.to - part.from).sum();
        assert_eq!(sum, elapsed, "{record}");
        known += 1;
    }
    let of_requests = slices.iter().filter(|slice| slice.id.is_some());
    assert_eq!((of_requests.count(), known), (75, 75));
    check_counters(events, &slices);
    for key in ["ts", "dur", "tid", "pid", "name"] {
        let mut wrong = trace.clone();
        let events = wrong["traceEvents"].as_array_mut().unwrap();
        let complete = events.iter_mut().find(|event| event["ph"] == "X");
        complete.unwrap().as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&wrong), "{key}");
    }
}

/// Check that requests that overlap on a connection have asynchronous events, each with an id of its own.
#[test]
fn overlapping() {
    let line = incidents().lines().next().unwrap();
    let lines: Vec<String> = (0..4)
        .map(|n| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["time"] = Value::from(format!("2026-11-27T06:48:18.0046{n}2308Z"));
            record["connection_requests"] = Value::from(n + 1);
            record.to_string() + "\n"
        })
        .collect();
    let trace = trace(&lines.concat());
    let events = trace["traceEvents"].as_array().unwrap();
    let slices = slices(events);
    let of_requests: Vec<_> = slices.iter().filter(|slice| slice.id.is_some()).collect();
    assert_eq!(of_requests.len(), 4);
    let begun = events.iter().filter(|event| event["ph"] == "b");
    let requests = begun.filter(|event| event["args"]["id"].is_string());
    let mut ids: Vec<_> = requests.map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len(), 3);
    ids.dedup();
    assert_eq!(ids.len(), 3);
    check_counters(events, &slices);
}
