// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cost of a host with many nginx: a request, memory, descriptors and the start, by the number of
//! binaries that are traced.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::common::build::binary;
use crate::common::build::kept;
use crate::common::cgroup::Cgroup;
use crate::common::nginx::Config;
use crate::common::nginx::Nginx;
use crate::common::program::copy_program;
use crate::common::program::open_to_all;
use crate::common::tool::PROGRAM;
use crate::common::tool::Tool;
use crate::load::Load;
use crate::row::Row;
use crate::run::Run;
use crate::site::HTTP;

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

/// Instances of nginx, each of which runs a file of its own.
struct Many {
    all: Vec<Nginx>,
    _folder: TempDir,
}

impl Many {
    /// Starts as many as a row traces at most, of the same build.
    fn start(upstream: u16) -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let copy = |n| {
            let copy = folder.path().join(format!("nginx-{n}"));
            copy_program(&binary(), &copy);
            start(upstream, copy)
        };
        Self {
            all: (0..COUNTS[COUNTS.len() - 1].0).map(copy).collect(),
            _folder: folder,
        }
    }
}

/// Starts an nginx.
fn start(upstream: u16, binary: PathBuf) -> Nginx {
    Nginx::start(&Config {
        http: HTTP,
        upstream,
        binary,
        ..Config::default()
    })
}

/// Measures requests of one of them while this number is traced.
pub fn measure(run: &mut Run, upstream: u16) {
    let rows = COUNTS.map(|(count, name)| (count, format!("static, {name} traced")));
    let of_layouts = "static, 3 layouts traced";
    let mut names = rows
        .iter()
        .map(|(_, name)| name.as_str())
        .chain([of_layouts]);
    if !names.any(|name| run.wants(name, false)) {
        return;
    }
    let many = Many::start(upstream);
    let nginx = &many.all[0];
    let load = || Load::http1(nginx.port, "/static");
    for (count, name) in &rows {
        let traced = pids(&many.all[..*count]);
        let start = |program: &str| trace(program, &traced, None);
        run.measure(&Row::started(name, nginx, load(), start));
    }
    let others = OTHERS.into_iter().filter_map(kept);
    let others: Vec<Nginx> = others.map(|binary| start(upstream, binary)).collect();
    if others.len() < OTHERS.len() {
        return run.skip(of_layouts, "make test-nginx has not made the builds");
    }
    let three = [pids(&many.all[..1]), pids(&others)].concat();
    let start = |program: &str| trace(program, &three, None);
    run.measure(&Row::started(of_layouts, nginx, load(), start));
}

/// Prints what the tool itself takes.
pub fn report(upstream: u16) {
    let many = Many::start(upstream);
    println!("\nthe tool, by the number of binaries");
    for (count, name) in COUNTS {
        of_tool(name, &many.all[..count]);
    }
}

/// Returns the pids of masters, as the command line takes them.
fn pids(nginx: &[Nginx]) -> Vec<String> {
    nginx.iter().map(|nginx| nginx.pid().to_string()).collect()
}

/// Traces these nginx, in a control group if there is one.
fn trace(program: &str, pids: &[String], group: Option<&Path>) -> Tool {
    let join = group.map_or("true".to_owned(), |group| {
        format!("echo $$ >{}/cgroup.procs", group.display())
    });
    let mut tool = Tool::spawn(
        Command::new("sh")
            .args([
                "-c",
                &format!("{join} && exec {program} --json -p \"$0\" >/dev/null"),
            ])
            .arg(pids.join(",")),
    );
    tool.wait_ready(pids.len());
    tool
}

/// Prints the start, the memory and the descriptors of the tool.
fn of_tool(name: &str, nginx: &[Nginx]) {
    let group = MEMORY.into_iter().find_map(|(root, now, peak)| {
        let group = Cgroup::make(root, &format!("ngx-bpf-bench-{}", std::process::id()))?;
        let files = [now, peak].map(|file| group.folder().join(file));
        /* Without the controller the folder has no such files. */
        let is_there = files.iter().all(|file| file.exists());
        is_there.then_some((group, files))
    });
    let started = Instant::now();
    let tool = trace(
        PROGRAM,
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
