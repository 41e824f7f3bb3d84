// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host with many nginx, which come and go: what all of them share, and what is freed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rustls::version::TLS13;
use tempfile::TempDir;

use crate::suite::common::build::binary;
use crate::suite::common::build::is_script;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::http2;
use crate::suite::common::http2::Http2;
use crate::suite::common::load::Load;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tls;
use crate::suite::common::tls::Tls;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_right;
use crate::suite::common::yard::Yard;
use crate::suite::root::check::probes_wanted;

/// What the tool has in the kernel and as a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    programs: usize,
    maps: usize,
    links: usize,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn by(tool: &Tool, pid: u32) -> Self {
        let listed = |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap();
        /* A thread that looks for new nginx comes twice a second. */
        let is_lasting = |thread: &fs::DirEntry| {
            let name = fs::read_to_string(thread.path().join("comm"));
            name.is_ok_and(|name| name.trim_end() != "lookout")
        };
        Self {
            programs: tool.bpf_ids_of(pid, "prog").len(),
            maps: tool.bpf_ids_of(pid, "map").len(),
            links: tool.bpf_ids_of(pid, "link").len(),
            descriptors: listed("fd").count(),
            threads: listed("task").flatten().filter(is_lasting).count(),
        }
    }
}

/// Waits until the tool holds what `is_right` says.
fn wait_held(tool: &Tool, pid: u32, is_right: impl Fn(&Held) -> bool) {
    wait_right(|| Held::by(tool, pid), is_right);
}

/// Copies the binary into a folder, so that it has an inode of its own.
fn copy(folder: &TempDir, name: &str) -> PathBuf {
    open_to_all(folder.path());
    let copy = folder.path().join(name);
    copy_program(&binary(), &copy);
    copy
}

/// Starts an nginx with one worker.
fn start(binary: PathBuf) -> Nginx {
    Nginx::start(&Config {
        binary,
        workers: 1,
        ..Config::default()
    })
}

/// Check that binaries with one layout share its programs and maps: a further one adds its uprobes
/// only, and its requests are recorded as those of the first.
#[test]
fn one_layout() {
    if is_script() {
        println!("SKIP: the binary is run by a script, whose copies run the same file");
        return;
    }
    let folder = TempDir::new().unwrap();
    let nginx: Vec<Nginx> = ["one", "two", "three"]
        .map(|name| start(copy(&folder, name)))
        .into();
    let pids: Vec<String> = nginx.iter().map(|nginx| nginx.pid().to_string()).collect();
    let held: Vec<Held> = [1, 3]
        .map(|count| {
            let pids = pids[..count].join(",");
            let tool = Tool::start(&["--json", "--pid", &pids], count);
            let held = Held::by(&tool, tool.pid());
            tool.stop().assert_clean();
            held
        })
        .into();
    assert_eq!(
        (held[0].programs, held[0].maps, held[0].threads),
        (held[1].programs, held[1].maps, held[1].threads)
    );
    let uprobes = held[1].links - held[0].links;
    /* Two more binaries have two to nine probes each. */
    assert!(
        (4..=18).contains(&uprobes) && uprobes.is_multiple_of(2),
        "{held:?}"
    );
    /* The file, the process, and for each uprobe a link; before Linux 6.6 a perf event as well. */
    let of_uprobes = held[1].descriptors - held[0].descriptors - 2 * 2;
    assert!([uprobes, 2 * uprobes].contains(&of_uprobes), "{held:?}");
    let tool = Tool::start(&["--json", "--pid", &pids.join(",")], 3);
    for nginx in &nginx {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
        nginx.wait_logged(1);
    }
    let logged: Vec<_> = nginx.iter().flat_map(Nginx::logged).collect();
    let ended = tool.stop();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 3);
    assert_equal(&ended.records(), &logged);
}

/// Check that what was attached for an nginx that comes while the tool waits is freed when its last
/// process has ended, and that the first one is traced all the time.
#[test]
fn freed() {
    let folder = TempDir::new().unwrap();
    let yard = Yard::new();
    let steady = yard.nginx();
    let mut tool = yard.tool(&["--wait", "--json"]);
    tool.wait_ready(1);
    let pid = tool.child();
    let before = Held::by(&tool, pid);
    let mut served = 0;
    for name in ["one", "two", "three"] {
        let passing = yard.nginx_of(&copy(&folder, name));
        tool.wait_ready(1);
        for nginx in [&passing, &steady] {
            assert_eq!(Client::connect(nginx.port).get("/").status, 200);
            nginx.wait_logged(1);
            served += 1;
        }
        passing.quit();
        wait_held(&tool, pid, |held| *held == before);
    }
    kill("INT", pid);
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), served);
}

/// The time between requests that come as long as tracing must go on: so few are never lost.
const BETWEEN: Duration = Duration::from_millis(10);

/// Check that workers of a master that was killed are traced on, and that their binary is freed only
/// when the last of them has ended.
#[test]
fn orphans() {
    let folder = TempDir::new().unwrap();
    let yard = Yard::new();
    let mut tool = yard.tool(&["--wait", "--json"]);
    let first = yard.nginx();
    tool.wait_ready(1);
    let pid = tool.child();
    let before = Held::by(&tool, pid);
    let orphaned = yard.nginx_of(&copy(&folder, "orphaned"));
    tool.wait_ready(1);
    let worker = orphaned.workers()[0];
    let both = Held::by(&tool, pid);
    kill("KILL", orphaned.pid());
    /* The tool looks for binaries without processes once a second. */
    let end = Instant::now() + Duration::from_secs(3);
    let mut served = 0;
    while Instant::now() < end {
        assert_eq!(Client::connect(orphaned.port).get("/").status, 200);
        served += 1;
        delay(BETWEEN);
    }
    assert_eq!(Held::by(&tool, pid).links, both.links);
    kill("KILL", worker);
    wait_held(&tool, pid, |held| *held == before);
    drop(first);
    kill("INT", pid);
    let ended = tool.wait();
    assert_eq!(ended.records().len(), served, "{:?}", ended.stderr);
}

/// Check that without `--wait` tracing goes on while a worker of a master that was killed does, and ends
/// with it.
#[test]
fn orphans_alone() {
    let nginx = Nginx::simple();
    let tool = Tool::trace(nginx.pid());
    let worker = nginx.workers()[0];
    kill("KILL", nginx.pid());
    /* The tool looks for processes when the master has ended, and once a second. */
    let end = Instant::now() + Duration::from_secs(3);
    let mut served = 0;
    while Instant::now() < end {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
        served += 1;
        delay(BETWEEN);
    }
    kill("KILL", worker);
    let ended = tool.wait();
    assert_eq!(ended.records().len(), served, "{:?}", ended.stderr);
}

/// The server of `closed_connections`.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls} ssl http2;
        location / { return 200 'hello\\n'; }
    }";

/// Check that BPF keeps nothing of a connection that has closed, whoever has closed it, over HTTP/1,
/// TLS and HTTP/2, after a request, without one, and after a reset.
#[test]
fn closed_connections() {
    let (http, port) = tls::with_port(HTTP);
    let nginx = Nginx::prepared(&http, 0, tls::certificate);
    let tool = Tool::trace(nginx.pid());
    let entries = |map: &str| tool.map_entries(map).len();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut plain = Client::connect(nginx.port);
        assert_eq!(plain.get("/").status, 200);
        let mut tls = Tls::begin(port, &TLS13, &["http/1.1"])
            .finish()
            .into_client();
        assert_eq!(tls.get("/").status, 200);
        let mut half = Client::connect(nginx.port);
        half.send("GET / HTTP/1.1\r\nHost: ");
        clients.extend([plain, tls, half]);
    }
    let h2 = Tls::begin(port, &TLS13, &["h2"]).finish();
    let mut h2 = Http2::start(h2.into_stream(), 65535);
    h2.send(&[http2::get(1, "/"), http2::get(3, "/")].concat());
    h2.receive([1, 3]);
    assert_eq!(clients[0].get("/").status, 200);
    assert!(entries("connections") >= 15);
    assert_eq!(entries("multiplexes"), 1);
    drop((clients, h2));
    tool.wait_map("connections", 0);
    tool.wait_map("multiplexes", 0);
    tool.stop().assert_clean();
}

/// How many nginx come and go in `churn`: `NGX_BPF_TEST_CHURN` or a few.
fn churn_count() -> usize {
    let asked = std::env::var("NGX_BPF_TEST_CHURN");
    asked.map_or(6, |count| count.parse().unwrap())
}

/// What the workers of an nginx have done until now.
#[derive(Clone, Copy)]
struct Work {
    cpu_ns: u64,
    requests: usize,
}

impl Work {
    fn of(nginx: &Nginx) -> Self {
        let cpu_ns = |worker| {
            let stat = fs::read_to_string(format!("/proc/{worker}/schedstat")).unwrap();
            stat.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let log = fs::read(nginx.prefix().join("access.log")).unwrap();
        Self {
            cpu_ns: nginx.workers().into_iter().map(cpu_ns).sum(),
            requests: log.iter().filter(|byte| **byte == b'\n').count(),
        }
    }

    /// Returns the CPU time of a request since then, in ns.
    fn of_request_since(self, before: Self) -> f64 {
        (self.cpu_ns - before.cpu_ns) as f64 / (self.requests - before.requests) as f64
    }
}

/// Prints how much more CPU the steady nginx takes for a request at the end of a long run than at its beginning.
/// `works` has its work before each pair of containers.
fn compare_cost(works: &[Work]) {
    let share = works.len() / 5;
    if share < 2 {
        return;
    }
    let [first, last] = [&works[..share], &works[works.len() - share..]]
        .map(|works| works[share - 1].of_request_since(works[0]));
    println!(
        "a request of the first fifth took {first:.0} ns of CPU, of the last {last:.0} ns: x{:.2}",
        last / first
    );
}

/// Asserts that each container was reported, and that its requests have their records, by their port. Returns the number
/// of other records.
fn assert_containers(ended: &Ended, of_containers: &BTreeMap<u16, usize>) -> usize {
    let lines = ended.stderr.iter();
    let ready = lines.filter(|line| line.contains("tracing nginx"));
    assert_eq!(ready.count(), 1 + 2 * churn_count(), "{:#?}", ended.stderr);
    let mut records: BTreeMap<u16, usize> = BTreeMap::new();
    for record in ended.records() {
        *records.entry(record.server_port.unwrap()).or_default() += 1;
    }
    for (port, count) in of_containers {
        let stderr = &ended.stderr;
        assert_eq!(records.get(port), Some(count), "{port} {stderr:#?}");
    }
    records.values().sum::<usize>() - 6 * churn_count()
}

/// Check containers that come and go while one nginx is under load. They run three binaries from
/// overlays over one folder: each has an inode of its own for the mount, and shares the real one.
/// Nothing of the loaded nginx is lost, everything is freed, and each container's requests have
/// their records.
#[test]
fn churn() {
    let folder = TempDir::new().unwrap();
    let binaries = ["one", "two", "three"].map(|name| copy(&folder, name));
    let yard = Yard::new();
    let Some(steady) = yard.steady() else {
        return;
    };
    let mut tool = yard.tool(&["--wait", "--json"]);
    tool.wait_ready(1);
    let pid = tool.child();
    let before = Held::by(&tool, pid);
    let load = Load::start(steady.port, "/file");
    let mut of_containers = BTreeMap::new();
    let mut works = Vec::new();
    let mut of_image = None;
    for number in 0..churn_count() {
        let binary = &binaries[number % binaries.len()];
        works.push(Work::of(&steady));
        let pair = [yard.container(binary), yard.container(binary)];
        tool.wait_ready(pair.len());
        for nginx in &pair {
            for _ in 0..3 {
                assert_eq!(Client::connect(nginx.port).get("/").status, 200);
            }
            nginx.wait_logged(3);
            /* A later container may have the port of an earlier one. */
            *of_containers.entry(nginx.port).or_default() += 3;
        }
        /* Containers of one image share the uprobes; those of images that have ended are freed. */
        let of_image = *of_image.get_or_insert_with(|| Held::by(&tool, pid).links - before.links);
        assert!(is_script() || of_image >= probes_wanted());
        wait_held(&tool, pid, |held| held.links == before.links + of_image);
    }
    compare_cost(&works);
    drop(load);
    wait_held(&tool, pid, |held| *held == before);
    let served = steady.quit().len();
    kill("INT", pid);
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(assert_containers(&ended, &of_containers), served);
}
