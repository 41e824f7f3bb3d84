// SPDX-License-Identifier: MIT OR Apache-2.0
//! The numbers of a summary, against those that DuckDB computes over the same file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Map;
use serde_json::Value;

use super::common::recorded::fetched;
use super::common::recorded::incidents;
use super::common::recorded::recorded;
use super::common::tool::PROGRAM;

/// The number of lines. It is a prime, so that no percentile lies between two requests.
const LINES: usize = 20_011;

/// How far a percentile may be above the exact one: histograms with two significant digits have 256 steps between a power
/// of two and the one above the next, so that a step is 1/128 of its value at most.
const STEP: f64 = 1.0 / 128.0;

/// The percentiles by their keys, in thousandths.
const PERCENTILES: [(&str, u64); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("p99_9", 999)];

/// What is read of each line, and what of it is counted.
const REQUESTS: &str = "with requests as (
    select * from read_json('requests.json', format = 'newline_delimited', columns = {
        type: 'VARCHAR', status: 'INTEGER', \"end\": 'VARCHAR', tunnel: 'BOOLEAN', location: 'VARCHAR',
        elapsed_ns: 'BIGINT', accept_queue_ns: 'BIGINT', read_wait_ns: 'BIGINT', tls_handshake_ns: 'BIGINT',
        time_ns: 'STRUCT(client BIGINT, nginx BIGINT, upstream BIGINT, wait BIGINT)'})
    where type = 'request' and tunnel is not true)";

/// The columns about all requests of a group.
const COUNTS: &str = "count(*) as requests,
    count(*) filter (status is null or status >= 500
        or \"end\" not in ('ok', 'rejected', 'limited')) as failed,
    coalesce(sum(time_ns.client), 0)::BIGINT as client, coalesce(sum(time_ns.nginx), 0)::BIGINT as nginx,
    coalesce(sum(time_ns.upstream), 0)::BIGINT as upstream, coalesce(sum(time_ns.wait), 0)::BIGINT as wait";

/// Numbers that look random, and are the same in each run.
struct Numbers(u64);

impl Numbers {
    /// Returns the next one.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a factor between 1/32 and 32.
    fn factor(&mut self) -> f64 {
        let exponent = self.next() % 10_000;
        (exponent as f64 / 1_000.0 - 5.0).exp2()
    }
}

/// Multiplies all times of a record.
fn stretch(object: &mut Map<String, Value>, factor: f64, is_time: bool) {
    for (key, value) in object {
        let is_time = is_time || key.ends_with("_ns") || key.ends_with("_time");
        match value {
            Value::Object(object) => stretch(object, factor, is_time),
            Value::Array(values) => {
                let objects = values.iter_mut().filter_map(Value::as_object_mut);
                objects.for_each(|object| stretch(object, factor, is_time));
            }
            Value::Number(number) if is_time => {
                let stretched = number.as_f64().unwrap() * factor;
                *value = Value::from(stretched as u64);
            }
            _ => {}
        }
    }
}

/// Returns recorded lines in a random order, each many times as long, or as short, as it was.
fn lines() -> String {
    let recorded = recorded().lines().chain(incidents().lines());
    let recorded: Vec<Value> = recorded
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut numbers = Numbers(88_172_645_463_325_252);
    let mut text = String::new();
    for _ in 0..LINES {
        let mut record = recorded[numbers.next() as usize % recorded.len()].clone();
        stretch(record.as_object_mut().unwrap(), numbers.factor(), false);
        writeln!(text, "{record}").unwrap();
    }
    text
}

/// Returns the columns about a time of a group: its count, its sum, its maximum and its percentiles.
fn columns(name: &str) -> String {
    let mut columns = format!(
        "count({name}) as {name}_count, coalesce(sum({name}), 0)::BIGINT as {name}_sum, max({name}) as {name}_max"
    );
    for (key, thousandths) in PERCENTILES {
        let place = format!("(count({name}) * {thousandths} + 999) // 1000");
        columns += &format!(
            ", list_sort(list({name}) filter ({name} is not null))[{place}] as {name}_{key}"
        );
    }
    columns
}

/// Returns the rows of a query.
fn query(folder: &Path, sql: &str) -> Vec<Value> {
    let mut command = Command::new(fetched("python/bin/duckdb"));
    command.args(["-json", "-c", sql]).current_dir(folder);
    let output = command.output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the numbers of a summary.
fn summary(folder: &Path, group: &str) -> Value {
    let mut command = Command::new(PROGRAM);
    command.args([
        "summary",
        "--json",
        "--all",
        "--group",
        group,
        "requests.json",
    ]);
    let output = command.current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Asserts that the times of a summary are those of a row. Percentiles are at most one step of the histogram above it.
fn assert_times(times: &Value, row: &Value, name: &str) {
    for key in ["count", "sum"] {
        assert_eq!(times[key], row[format!("{name}_{key}")], "{name} {key}");
    }
    for key in ["max"].iter().chain(&PERCENTILES.map(|(key, _)| key)) {
        let (found, exact) = (&times[key], &row[format!("{name}_{key}")]);
        let (Some(found), Some(exact)) = (found.as_f64(), exact.as_f64()) else {
            assert!(found.is_null() && exact.is_null(), "{name} {key}");
            continue;
        };
        let most = if *key == "max" {
            exact
        } else {
            exact * (1.0 + STEP)
        };
        assert!(
            (exact..=most).contains(&found),
            "{name} {key}: {found}, exactly {exact}"
        );
    }
}

/// Asserts that the counts and the shares of a summary, or of a group of it, are those of a row.
fn assert_counts(numbers: &Value, row: &Value) {
    for key in ["requests", "failed"] {
        assert_eq!(numbers[key], row[key], "{row}");
    }
    for key in ["client", "nginx", "upstream", "wait"] {
        assert_eq!(numbers["time_ns"][key], row[key], "{row}");
    }
    assert_times(&numbers["elapsed_ns"], row, "elapsed_ns");
}

/// Check counts, sums, shares, maxima and percentiles of all requests, and of those of each status and location.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn summaries() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("requests.json"), lines()).unwrap();
    let elapsed = columns("elapsed_ns");
    let others = ["accept_queue_ns", "read_wait_ns", "tls_handshake_ns"];
    let of_others = others.map(columns).join(", ");
    let sql = format!("{REQUESTS} select {COUNTS}, {elapsed}, {of_others} from requests");
    let all = query(folder.path(), &sql);
    let numbers = summary(folder.path(), "status");
    assert!(numbers["requests"].as_u64() > Some(19_000), "{numbers}");
    assert_counts(&numbers, &all[0]);
    for name in others {
        assert_times(&numbers[name], &all[0], name);
    }
    for key in ["status", "location"] {
        let sql = format!(
            "{REQUESTS} select coalesce({key}::VARCHAR, '(none)') as name, {COUNTS}, {elapsed} from requests
             group by {key}"
        );
        let rows = query(folder.path(), &sql);
        let numbers = summary(folder.path(), key);
        let groups = numbers["groups"].as_array().unwrap();
        assert_eq!(groups.len(), rows.len(), "{key}");
        assert!(rows.len() >= 5, "{key}");
        for row in &rows {
            let mut groups = groups.iter();
            let group = groups.find(|group| group["name"] == row["name"]);
            let group = group.unwrap_or_else(|| panic!("{row}"));
            assert_counts(group, row);
            let status = &numbers["statuses"][row["name"].as_str().unwrap()];
            assert!(key != "status" || *status == row["requests"] || row["name"] == "(none)");
        }
    }
}
