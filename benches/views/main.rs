// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures the commands that show records, on recorded ones: a million requests summed up, beside what jq and DuckDB need
//! for less, and `top` with 100,000 records a second. It prints tables, and asserts nothing. It needs neither root nor
//! nginx.

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
use std::time::Duration;
use std::time::Instant;

#[path = "../../tests/suite/common/mod.rs"]
mod common;

use common::cached::cached;
use common::program::children;
use common::program::make_fifo;
use common::screen::Screen;
use common::sources::project;
use common::tool::PROGRAM;

/// The requests of the file.
const REQUESTS: usize = 1_000_000;

/// The number of measurements of each row.
const ROUNDS: usize = 3;

/// The records that `top` gets in a second, and for how long.
const RATE: usize = 100_000;
const SECONDS: usize = 10;

/// How often records are written in a second.
const BEATS: usize = 100;

/// The clock ticks of /proc/PID/stat in a second.
const TICKS: f64 = 100.0;

/// What a program took.
#[derive(Clone, Copy)]
struct Taken {
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.json");
    let lines = recorded();
    let bytes = write(&file, &lines);
    println!(
        "{REQUESTS} requests, {:.0} bytes each; {ROUNDS} rounds, alternating, the fastest of each",
        bytes as f64 / REQUESTS as f64
    );
    summaries(&file);
    top(folder.path(), &lines);
}

/// Returns the lines of recorded requests.
fn recorded() -> Vec<String> {
    let text = ["records.jsonl", "incidents.jsonl"]
        .map(|name| fs::read_to_string(project().join("tests/data").join(name)).unwrap());
    let lines = text.iter().flat_map(|text| text.lines());
    let requests = lines.filter(|line| line.starts_with(r#"{"type":"request""#));
    requests.map(|line| format!("{line}\n")).collect()
}

/// Writes the requests again and again. Returns the size of the file.
fn write(file: &Path, lines: &[String]) -> u64 {
    let mut output = BufWriter::new(File::create(file).unwrap());
    for line in lines.iter().cycle().take(REQUESTS) {
        output.write_all(line.as_bytes()).unwrap();
    }
    output.into_inner().unwrap().metadata().unwrap().len()
}

/// Prints what a summary takes, and what other programs take for a part of it.
fn summaries(file: &Path) {
    let path = file.to_str().unwrap();
    let query = format!(
        "SELECT location, count(*), quantile_cont(elapsed_ns, [0.5, 0.99]), max(elapsed_ns) \
         FROM read_ndjson('{path}', columns={{location: 'VARCHAR', elapsed_ns: 'BIGINT'}}) GROUP BY location"
    );
    let duckdb = cached("python/bin/duckdb", "tests/fetch").unwrap_or_default();
    let duckdb = duckdb.to_str().unwrap();
    let sum = "reduce inputs.elapsed_ns as $ns (0; . + $ns)";
    let rows: [(&str, Vec<&str>); 4] = [
        ("ngx-bpf summary", vec![PROGRAM, "summary", path]),
        ("ngx-bpf advise", vec![PROGRAM, "advise", path]),
        ("jq, one sum", vec!["jq", "-n", sum, path]),
        ("DuckDB, percentiles", vec![duckdb, "-c", &query]),
    ];
    println!(
        "\n{:<24} {:>8} {:>8} {:>10} {:>8}",
        "", "s", "CPU, s", "peak, MiB", "ratio"
    );
    let mut best: Vec<Option<Taken>> = vec![None; rows.len()];
    for _ in 0..ROUNDS {
        for ((_, command), best) in rows.iter().zip(&mut best) {
            let taken = run(command);
            let is_better = |best: &Taken| taken.is_some_and(|taken| taken.seconds < best.seconds);
            if best.as_ref().is_none_or(is_better) {
                *best = taken;
            }
        }
    }
    let base = best[0].unwrap();
    for ((name, _), taken) in rows.iter().zip(best) {
        match taken {
            Some(taken) => println!(
                "{name:<24} {:>8.2} {:>8.2} {:>10.1} {:>8.2}",
                taken.seconds,
                taken.cpu,
                taken.peak_mib,
                taken.seconds / base.seconds
            ),
            None => println!("{name:<24} is not there"),
        }
    }
}

/// Runs a command to its end. `None` when it can't be started.
fn run(command: &[&str]) -> Option<Taken> {
    let started = Instant::now();
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .ok()?;
    let mut peak_mib: f64 = 0.0;
    /* A process that has ended has no memory, and its CPU time until it is waited for. */
    while let Some(kib) = peak_kib(child.id()) {
        /* What is installed as DuckDB starts the program itself. */
        let of_children = children(child.id()).into_iter().filter_map(peak_kib);
        let kib = of_children.fold(kib, f64::max);
        peak_mib = peak_mib.max(kib / 1024.0);
        std::thread::sleep(Duration::from_millis(2));
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = cpu(child.id());
    let status = child.wait().unwrap();
    /* advise has found something. */
    assert!(matches!(status.code(), Some(0 | 3)), "{command:?}");
    Some(Taken {
        seconds,
        cpu,
        peak_mib,
    })
}

/// Returns the most memory that a process has had. `None` when it has ended.
fn peak_kib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let peak = lines.find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches(" kB").parse().ok()
}

/// Returns the CPU time of a process, and of those that it has started and waited for, in seconds.
fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(4);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / TICKS
}

/// Returns the number of system calls that have written something.
fn writes(pid: u32) -> f64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let mut lines = io.lines();
    let writes = lines.find_map(|line| line.strip_prefix("syscw: ")).unwrap();
    writes.parse().unwrap()
}

/// Prints what `top` takes while records come at a fixed rate, and how far its reading falls back.
fn top(folder: &Path, lines: &[String]) {
    let Some(screen) = Screen::open(120, 40) else {
        return;
    };
    let fifo = folder.join("records");
    make_fifo(&fifo);
    screen.line(&format!("$P top - <{}", fifo.display()));
    let mut output = File::options().write(true).open(&fifo).unwrap();
    let beat: Vec<u8> = lines
        .iter()
        .cycle()
        .take(RATE / BEATS)
        .flat_map(|line| line.bytes())
        .collect();
    output.write_all(&beat).unwrap();
    screen.wait_for("LOCATION");
    let pid = screen.child();
    let (cpu_before, writes_before) = (cpu(pid), writes(pid));
    let started = Instant::now();
    let mut latest = Duration::ZERO;
    for n in 0..SECONDS * BEATS {
        let due = started + Duration::from_secs_f64(n as f64 / BEATS as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        output.write_all(&beat).unwrap();
        latest = latest.max(due.elapsed());
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("\ntop, {} records in {seconds:.1} s", RATE * SECONDS);
    println!(
        "{:.0} % of a CPU, {:.1} MiB at its peak, {:.1} writes to the terminal a second, a beat was written {:.0} ms late at most",
        (cpu(pid) - cpu_before) / seconds * 100.0,
        peak_kib(pid).unwrap() / 1024.0,
        (writes(pid) - writes_before) / seconds,
        latest.as_secs_f64() * 1e3
    );
    let first = |text: String| text.lines().take(3).collect::<Vec<_>>().join("\n");
    println!("{}", first(screen.seen()));
    screen.keys(&["q"]);
}
