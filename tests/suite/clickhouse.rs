// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the statements of packaging/pipelines/clickhouse by ClickHouse's own engine: that there is a column for each key,
//! that docs/clickhouse.md shows what the queries answer, and that the sums of many records are right.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use ngx_bpf_record::Format as _;
use ngx_bpf_record::format::json::Json;
use serde_json::Value;

use super::common::clickhouse::rows;
use super::common::clickhouse::run;
use super::common::clickhouse::statements;
use super::common::recorded::fetched;
use super::common::recorded::incidents;
use super::common::recorded::recorded;
use super::common::sources::project;
use super::common::tool::PROGRAM;
use super::common::varied::Varied;

/// The columns that are no keys: the machine, and the time by which rows are sorted and deleted.
const OWN: [&str; 2] = ["at", "host"];

/// A loss, which no file of recorded lines has.
const LOST: &str =
    r#"{"type":"lost","time":"2026-11-27T06:48:24.120000001Z","count":3,"cause":"ring_full"}"#;

/// The parameters of the queries in docs/clickhouse.md.
const PARAMETERS: [&str; 3] = [
    "SET param_from = '2026-11-27 00:00:00'",
    "SET param_to = '2026-11-28 00:00:00'",
    "SET param_trace = '4bf92f3577b34da6a3ce929d0e0e4736'",
];

/// Returns the columns of the table of records, those of tuples with the names of their tuples before them.
fn columns() -> BTreeSet<String> {
    let schema = fs::read_to_string(statements().join("schema.sql")).unwrap();
    let (_, table) = schema.split_once("ngx_bpf.records\n(\n").unwrap();
    let (table, _) = table.split_once("\n)\n").unwrap();
    let mut path: Vec<&str> = Vec::new();
    let mut columns = BTreeSet::new();
    for line in table.lines() {
        let text = line.trim_start();
        let name = text.split(' ').next().unwrap().trim_matches('`');
        if name.is_empty() || name == "--" || name == "INDEX" {
            continue;
        }
        path.truncate((line.len() - text.len()) / 4 - 1);
        path.push(name);
        if !text.ends_with('(') {
            columns.insert(path.join("."));
        }
    }
    columns
}

/// Adds the keys of a part of the schema of records to `keys`, each with the names of the objects before it.
fn keys_of(schema: &Value, part: &Value, path: &str, keys: &mut BTreeSet<String>) {
    let part = match part["$ref"].as_str() {
        Some(name) => &schema["$defs"][name.rsplit('/').next().unwrap()],
        None => part,
    };
    if part["items"].is_object() {
        return keys_of(schema, &part["items"], path, keys);
    }
    match part["properties"].as_object() {
        Some(properties) => {
            for (key, part) in properties {
                let path = format!("{path}{}{key}", if path.is_empty() { "" } else { "." });
                keys_of(schema, part, &path, keys);
            }
        }
        None => {
            keys.insert(path.to_owned());
        }
    }
}

/// Check that the table has a column for each key of each record, and no others.
#[test]
fn keys() {
    let schema = include_str!("../../docs/schema/record.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let mut keys = BTreeSet::from(OWN.map(str::to_owned));
    for record in ["request", "connection", "blocked", "lost"] {
        keys_of(&schema, &schema["$defs"][record], "", &mut keys);
    }
    let columns = columns();
    let missing: Vec<_> = keys.difference(&columns).collect();
    let others: Vec<_> = columns.difference(&keys).collect();
    assert!(
        missing.is_empty() && others.is_empty(),
        "packaging/pipelines/clickhouse/schema.sql lacks {missing:?}, and has {others:?}"
    );
}

/// Returns the queries, by the questions that they answer.
fn queries() -> Vec<(String, String)> {
    let text = fs::read_to_string(statements().join("queries.sql")).unwrap();
    let parts = text.split("\n-- ").skip(1).map(|part| {
        let (question, query) = part.split_once('\n').unwrap();
        (question.to_owned(), query.trim().to_owned())
    });
    parts.collect()
}

/// Check that docs/clickhouse.md has all queries, and what they answer of recorded lines, which its command has
/// given a host. `UPDATE_DOCS=1` writes both.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn answers() {
    let page = project().join("docs/clickhouse.md");
    let text = fs::read_to_string(&page).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let traced = r#""end":"ok","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","parent_span_id":"00f067aa0ba902b7"}"#;
    let lines = [
        &incidents().replacen(r#""end":"ok"}"#, traced, 1),
        recorded(),
        include_str!("../data/blocked.jsonl"),
        include_str!("../data/connections.jsonl"),
        LOST,
    ];
    fs::write(folder.path().join("requests.json"), lines.concat()).unwrap();
    let named = text
        .split("```sh\n")
        .find(|block| block.starts_with("sed "))
        .unwrap();
    let command = named
        .split(" |")
        .next()
        .unwrap()
        .replace("$(hostname)", "web1");
    let output = Command::new("bash")
        .args(["-c", &command])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let file = folder.path().join("named.json");
    fs::write(&file, output.stdout).unwrap();
    let queries = queries();
    let all = PARAMETERS.iter().map(|set| (*set).to_owned());
    let all: Vec<String> = all
        .chain(queries.iter().map(|(_, query)| query.clone()))
        .collect();
    let answers = run(&fetched("python/bin/python"), &[&file], &all).split_off(PARAMETERS.len());
    let mut written = text.clone();
    for ((question, query), answer) in queries.iter().zip(answers) {
        let heading = format!("\n## {question}\n");
        let at = written
            .find(&heading)
            .unwrap_or_else(|| panic!("docs/clickhouse.md lacks {question}"));
        let begin = at + written[at..].find("```sql\n").unwrap();
        let end = written[begin..]
            .find("\n## ")
            .map_or(written.len(), |end| begin + end);
        written.replace_range(begin..end, &format!("```sql\n{query}\n```\n\n{answer}"));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &written).unwrap();
    }
    assert!(
        text == written,
        "UPDATE_DOCS=1 writes what is different:\n{written}"
    );
}

/// The requests of a location.
#[derive(Default)]
struct Expected {
    elapsed_ns: Vec<u64>,
    upstream_ns: u64,
    failed: usize,
}

/// Writes varied records to a file, and returns what is expected of them by location.
fn write(file: &Path, count: usize) -> BTreeMap<String, Expected> {
    let mut output = BufWriter::new(File::create(file).unwrap());
    let mut all: BTreeMap<String, Expected> = BTreeMap::new();
    let mut line = Vec::new();
    for request in Varied::new().take(count) {
        line.clear();
        Json.request(&mut line, &request).unwrap();
        output.write_all(&line).unwrap();
        let location = request.place.location.as_deref().unwrap_or_default();
        let expected = all.entry(location.to_owned()).or_default();
        expected.elapsed_ns.push(request.elapsed_ns.unwrap());
        expected.upstream_ns += request.waits.time_ns.map_or(0, |shares| shares.upstream);
        expected.failed += usize::from(request.status >= Some(500));
    }
    output.flush().unwrap();
    for expected in all.values_mut() {
        expected.elapsed_ns.sort_unstable();
    }
    all
}

/// Check that the materialised sums of many records are exact, their percentiles within 1 %, and that `ngx-bpf summary`
/// counts the same. `NGX_BPF_TEST_RECORDS` says how many records.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn sums() {
    let count =
        std::env::var("NGX_BPF_TEST_RECORDS").map_or(20_000, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.json");
    let mut expected = write(&file, count);
    let summary = Command::new(PROGRAM)
        .args(["summary", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(summary.status.success(), "{summary:?}");
    let summary: Value = serde_json::from_slice(&summary.stdout).unwrap();
    assert_eq!(summary["requests"], count);
    let by_location = "SELECT location, sum(requests), sumIf(requests, status_class = '5xx'), sum(upstream_ns), max(elapsed_max_ns), \
         arrayStringConcat(quantilesDDMerge(0.01, 0.5, 0.9, 0.99, 0.999)(elapsed_state), ' ') FROM ngx_bpf.minutes GROUP BY location";
    let by_status = "SELECT status, count() FROM ngx_bpf.records GROUP BY status";
    let answers = run(
        &fetched("python/bin/python"),
        &[&file],
        &[by_location.to_owned(), by_status.to_owned()],
    );
    for row in rows(&answers[0]) {
        let expected = expected.remove(row[0]).unwrap();
        let ns = &expected.elapsed_ns;
        let sums = [
            ns.len() as u64,
            expected.failed as u64,
            expected.upstream_ns,
            ns[ns.len() - 1],
        ];
        assert_eq!(row[1..5], sums.map(|sum| sum.to_string()), "{row:?}");
        for (quantile, found) in [0.5, 0.9, 0.99, 0.999].into_iter().zip(row[5].split(' ')) {
            let exact = ns[(quantile * (ns.len() - 1) as f64) as usize] as f64;
            let found: f64 = found.parse().unwrap();
            let error = (found / exact - 1.0).abs();
            println!(
                "{:<12} {quantile:<5} {exact:>12} {:.3} %",
                row[0],
                error * 100.0
            );
            assert!(error <= 0.0101, "{row:?}: {quantile} is {exact}");
        }
    }
    assert!(expected.is_empty(), "{:?}", expected.keys());
    let statuses = rows(&answers[1])
        .into_iter()
        .map(|row| (row[0].to_owned(), row[1].parse().unwrap()));
    let statuses: BTreeMap<String, u64> = statuses.collect();
    let counted: BTreeMap<String, u64> =
        serde_json::from_value(summary["statuses"].clone()).unwrap();
    assert_eq!(statuses, counted);
}

/// A request that has what the recorded ones do not.
const OTHER: &str = r#"{"type":"request","time":"2026-11-27T06:48:25.000000001Z","pid":1,"connection":18446744073709551615,"remote_addr":"unix:","scheme":"https","location":"=\u0001\"\\","config":{"server":"/etc/nginx/nginx.conf:9"},"variables":{"request_id":"a.b","x":"\t"},"headers":{"x-a.b":"é"},"truncated":["uri","subrequests"],"status":9,"upstream_cache_status":"MISS","tcp":{"client":{"rtt_us":536870911,"cwnd":10},"upstream":{"retransmits":1,"rwnd_limited_ns":2}},"tunnel":true,"tunnel_ns":0,"upstreams":[{"reused":false,"post_action":true},{"addr":"unix:/a b","failure":"error"}],"subrequests":[{"uri":"/auth","status":204,"duration_ns":3,"upstreams":[{"addr":"[::1]:80","reused":true}]}],"partial":true}"#;

/// Leaves out what a record would not have: what is empty, and objects of which nothing is left.
fn pruned(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(values) if values.is_empty() => None,
        Value::Array(values) => Some(
            values
                .into_iter()
                .map(|value| pruned(value).unwrap_or_default())
                .collect(),
        ),
        Value::Object(keys) => {
            let keys = keys
                .into_iter()
                .filter_map(|(key, value)| Some((key, pruned(value)?)));
            let keys: serde_json::Map<_, _> = keys.collect();
            (!keys.is_empty()).then_some(Value::Object(keys))
        }
        value => Some(value),
    }
}

/// Check that each record comes out of the table as it went in, with every key.
#[test]
#[ignore = "needs a program that make test installs or fetches"]
fn round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.json");
    let others = [
        include_str!("../data/blocked.jsonl"),
        include_str!("../data/connections.jsonl"),
    ];
    let lines = [recorded(), incidents(), &others.concat(), LOST, "\n", OTHER].concat();
    fs::write(&file, &lines).unwrap();
    let select = "SELECT * EXCEPT (host, at) FROM ngx_bpf.records \
         SETTINGS output_format_json_quote_64bit_integers = 0, date_time_output_format = 'iso' FORMAT JSONEachRow";
    let answers = run(
        &fetched("python/bin/python"),
        &[&file],
        &[select.to_owned()],
    );
    let read = |line| pruned(serde_json::from_str(line).unwrap()).unwrap();
    let mut found: Vec<Value> = answers[0].lines().map(read).collect();
    for written in lines.lines().map(read) {
        let at = found.iter().position(|found| *found == written);
        let at = at
            .unwrap_or_else(|| panic!("{written} is not in the table: {}", found[found.len() - 1]));
        found.swap_remove(at);
    }
    assert!(found.is_empty(), "{found:?}");
}
