// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures how many bytes a record takes in each form in which records are kept or sent, and how fast they get there, for
//! docs/scale.md. It prints a table. It needs neither root nor nginx.

/* As in tests/integration.rs. Only a part of its harness is used here. */
#![allow(
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    clippy::unwrap_used,
    dead_code
)]

use std::fs;
use std::fs::File;
use std::io::BufWriter;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use ngx_bpf_record::Format;
use ngx_bpf_record::format::json::Json;
use ngx_bpf_record::format::otel::Otel;
use ngx_bpf_record::format::text::Text;

#[path = "../../tests/suite/common/mod.rs"]
mod common;

use common::cached::cached;
use common::clickhouse::rows;
use common::clickhouse::run;
use common::sources::project;
use common::varied::Varied;

/// The records.
const RECORDS: usize = 1_000_000;

/// The records of batches that are compressed by themselves, as those of Kafka and HTTP requests are.
const BATCHES: [usize; 3] = [1_000, 100, 10];

/// How many batches of each size are measured.
const MEASURED: usize = 200;

/// Requests a second, for the last column.
const RATE: f64 = 10_000.0;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    println!("{RECORDS} records, {RATE} requests a second for the last column\n");
    println!(
        "{:<44} {:>8} {:>7} {:>8} {:>9}",
        "", "bytes", "of JSON", "s", "GB a day"
    );
    let file = folder.path().join("requests.json");
    let json = write(&file, &mut Json);
    row("JSON", json, json, None);
    let other = folder.path().join("other");
    for (name, format) in [
        ("--format text", &mut Text as &mut dyn Format),
        ("--format otel", &mut Otel::new(None)),
    ] {
        row(name, write(&other, format), json, None);
    }
    compressed(folder.path(), json);
    batches(&file, json);
    parquet(folder.path(), json);
    clickhouse(&file, json);
}

/// Prints a row: `bytes` of all records, and how long it took.
fn row(name: &str, bytes: u64, json: u64, seconds: Option<f64>) {
    let each = bytes as f64 / RECORDS as f64;
    let seconds = seconds.map_or(String::new(), |seconds| format!("{seconds:.1}"));
    println!(
        "{name:<44} {each:>8.0} {:>7.3} {seconds:>8} {:>9.1}",
        bytes as f64 / json as f64,
        each * RATE * 86_400.0 / 1e9
    );
}

/// Writes the records in this format. Returns the size of the file.
fn write(file: &Path, format: &mut dyn Format) -> u64 {
    let mut output = BufWriter::new(File::create(file).unwrap());
    let mut line = Vec::new();
    for request in Varied::new().take(RECORDS) {
        line.clear();
        format.request(&mut line, &request).unwrap();
        output.write_all(&line).unwrap();
    }
    output.into_inner().unwrap().metadata().unwrap().len()
}

/// Runs a command in a folder, and returns how many seconds it took.
fn timed(folder: &Path, command: &str) -> f64 {
    let started = Instant::now();
    let status = Command::new("bash")
        .args(["-c", command])
        .current_dir(folder)
        .status()
        .unwrap();
    assert!(status.success(), "{command}");
    started.elapsed().as_secs_f64()
}

/// Prints what the file takes as a whole, by programs that compress.
fn compressed(folder: &Path, json: u64) {
    for command in ["gzip -6", "zstd -3", "zstd -9", "zstd -3 --long=27"] {
        let seconds = timed(
            folder,
            &format!("{command} -q -c requests.json >compressed"),
        );
        let bytes = fs::metadata(folder.join("compressed")).unwrap().len();
        row(&format!("JSON, {command}"), bytes, json, Some(seconds));
    }
}

/// Prints what batches take of which each is compressed by itself.
fn batches(file: &Path, json: u64) {
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for command in [["gzip", "-6"], ["zstd", "-3"]] {
        for batch in BATCHES {
            let chosen = lines.chunks(batch).step_by(RECORDS / batch / MEASURED);
            let (mut plain, mut compressed) = (0, 0);
            for batch in chosen.take(MEASURED).map(<[&str]>::concat) {
                plain += batch.len();
                compressed += through(&command, batch);
            }
            let bytes = (json as f64 * compressed as f64 / plain as f64) as u64;
            let name = format!("JSON, {} in batches of {batch}", command.join(" "));
            row(&name, bytes, json, None);
        }
    }
}

/// Returns the size of a text that a program has compressed.
fn through(command: &[&str], text: String) -> usize {
    let mut child = Command::new(command[0])
        .args([command[1], "-q", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout.len()
}

/// Prints what Parquet takes, by the recipe.
fn parquet(folder: &Path, json: u64) {
    let Some(duckdb) = cached("python/bin/duckdb", "tests/fetch") else {
        return;
    };
    let recipes = fs::read_to_string(project().join("docs/recipes.md")).unwrap();
    let recipe = recipes
        .split("```sh\n")
        .find(|block| block.contains("to 'requests.parquet'"))
        .unwrap();
    let recipe = recipe.split("\n```").next().unwrap();
    let path = duckdb.parent().unwrap().display();
    let seconds = timed(folder, &format!("PATH=$PATH:{path}; {recipe} >/dev/null"));
    let bytes = fs::metadata(folder.join("requests.parquet")).unwrap().len();
    row("Parquet, zstd, by DuckDB", bytes, json, Some(seconds));
}

/// Prints what the tables of ClickHouse take, and how long it took to insert the records into all of them.
fn clickhouse(file: &Path, json: u64) {
    let Some(python) = cached("python/bin/python", "tests/fetch") else {
        return;
    };
    let size = "SELECT table, sum(rows), sum(bytes_on_disk), sum(primary_key_bytes_in_memory) FROM system.parts \
        WHERE database = 'ngx_bpf' AND active GROUP BY table ORDER BY table";
    let columns = "SELECT column, sum(column_data_compressed_bytes) AS bytes FROM system.parts_columns \
        WHERE database = 'ngx_bpf' AND table = 'records' AND active GROUP BY column ORDER BY bytes DESC LIMIT 20";
    let mut statements = vec![size.to_owned()];
    statements.extend(
        ["records", "minutes", "attempts"]
            .map(|table| format!("OPTIMIZE TABLE ngx_bpf.{table} FINAL")),
    );
    statements.extend([size.to_owned(), columns.to_owned()]);
    let started = Instant::now();
    let empty: [&Path; 0] = [];
    run(&python, &empty, &["SELECT 1".to_owned()]);
    let start = started.elapsed().as_secs_f64();
    let started = Instant::now();
    run(&python, &[file], &["SELECT 1".to_owned()]);
    let seconds = started.elapsed().as_secs_f64() - start;
    let answers = run(&python, &[file], &statements);
    for (when, answer) in [("as inserted", &answers[0]), ("merged", &answers[4])] {
        for cells in rows(answer) {
            let [count, bytes, _] = [1, 2, 3].map(|at: usize| cells[at].parse::<u64>().unwrap());
            match cells[0] {
                "records" => {
                    assert_eq!(count, RECORDS as u64);
                    row(&format!("ClickHouse, {when}"), bytes, json, Some(seconds));
                }
                table => println!(
                    "ClickHouse, {when}: {table} has {count} rows of {} bytes",
                    bytes / count
                ),
            }
        }
    }
    println!("\n{}", answers[5]);
}
