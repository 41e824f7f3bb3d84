// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of a host with many nginx: a request, memory, descriptors and the start, by the number of
//! binaries that are traced.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::HTTP;
use crate::common::build::binary;
use crate::common::build::kept;
use crate::common::cgroup::Cgroup;
use crate::common::nginx::Config;
use crate::common::nginx::Nginx;
use crate::common::program::copy_program;
use crate::common::program::open_to_all;
use crate::common::tool::PROGRAM;
use crate::common::tool::Tool;
use crate::compare;
use crate::heading;
use crate::row;

/// Builds with layouts other than that of the machine's nginx.
const OTHERS: [&str; 2] = ["source-symbols/objs/nginx", "source-compat/objs/nginx"];

/// The numbers of binaries.
const COUNTS: [(usize, &str); 3] = [(1, "1 binary"), (5, "5 binaries"), (30, "30 binaries")];

/// The folder of the memory controller, version 1 or 2, and its files for the use and the peak.
const MEMORY: [(&str, &str, &str); 2] = [
    (
        "/sys/fs/cgroup/memory",
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
    ),
    ("/sys/fs/cgroup", "memory.current", "memory.peak"),
];

/// Measures nginx of the same build, each of which runs a file of its own.
pub fn measure(upstream: u16) {
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    let start = |binary| {
        Nginx::start(&Config {
            http: HTTP,
            upstream,
            binary,
            ..Config::default()
        })
    };
    let all: Vec<Nginx> = (0..COUNTS[COUNTS.len() - 1].0)
        .map(|n| {
            let copy = folder.path().join(format!("nginx-{n}"));
            copy_program(&binary(), &copy);
            start(copy)
        })
        .collect();
    heading("many nginx, return 200");
    let mut rows = Vec::from(COUNTS.map(|(count, name)| {
        let traced = &all[..count];
        row(name, "/static", move || trace(&pids(traced), None))
    }));
    let others: Vec<Nginx> = OTHERS.into_iter().filter_map(kept).map(start).collect();
    if others.len() == OTHERS.len() {
        let three = [pids(&all[..1]), pids(&others)].concat();
        rows.push(row("3 layouts", "/static", move || trace(&three, None)));
    }
    compare(&all[0], "/static", &rows);
    drop(others);
    println!("\nthe tool, by the number of binaries");
    for (count, name) in COUNTS {
        report(name, &all[..count]);
    }
}

/// Returns the pids of masters, as the command line takes them.
fn pids(nginx: &[Nginx]) -> Vec<String> {
    nginx.iter().map(|nginx| nginx.pid().to_string()).collect()
}

/// Traces these nginx, in a control group if there is one.
fn trace(pids: &[String], group: Option<&Path>) -> Tool {
    let join = group.map_or("true".to_owned(), |group| {
        format!("echo $$ >{}/cgroup.procs", group.display())
    });
    let mut tool = Tool::spawn(
        Command::new("sh")
            .args([
                "-c",
                &format!("{join} && exec {PROGRAM} --json -p \"$0\" >/dev/null"),
            ])
            .arg(pids.join(",")),
    );
    tool.wait_ready(pids.len());
    tool
}

/// Prints the start, the memory and the descriptors of the tool.
fn report(name: &str, nginx: &[Nginx]) {
    let group = MEMORY.into_iter().find_map(|(root, now, peak)| {
        let group = Cgroup::make(root, &format!("ngx-bpf-bench-{}", std::process::id()))?;
        let files = [now, peak].map(|file| group.folder().join(file));
        /* Without the controller the folder has no such files. */
        let is_there = files.iter().all(|file| file.exists());
        is_there.then_some((group, files))
    });
    let started = Instant::now();
    let tool = trace(
        &pids(nginx),
        group.as_ref().map(|(group, _)| group.folder()),
    );
    let start = started.elapsed().as_secs_f64();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", tool.pid())).unwrap();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    print!(
        "{name:<12} start {start:.2} s, {} descriptors, {:.1} MiB resident",
        descriptors.count(),
        mib(tool.resident())
    );
    let bytes = |file| fs::read_to_string(file).unwrap().trim().parse().unwrap();
    match &group {
        Some((_, [now, peak])) => println!(
            ", in its cgroup {:.1} MiB, at most {:.1} MiB",
            mib(bytes(now)),
            mib(bytes(peak))
        ),
        None => println!("; no cgroup with a memory controller"),
    }
    drop(tool.stop());
}
