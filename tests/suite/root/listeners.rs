// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metrics of listening sockets, compared with what the kernel says of a network namespace in which only
//! one nginx listens.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;
use rustix::thread::LinkNameSpaceType;
use rustix::thread::move_into_link_name_space;
use tempfile::TempDir;

use crate::suite::common::build::binary;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::program::stop;
use crate::suite::common::program::write_program;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::root::metrics::served;
use crate::suite::root::metrics::wait_line;
use crate::suite::root::metrics::with_metrics;

/// The addresses exist when the loopback device is up, which it is only later. The last listener has a socket
/// for each worker.
const HTTP: &str = "
    server { listen {port} backlog=2; listen [::]:{port} backlog=3; listen {reuseport} reuseport backlog=7;
             listen unix:{prefix}/socket; location / { return 200; } }";

/// The connections that clients try to open. Three of them find room in a queue of two.
const CLIENTS: usize = 8;

/// An nginx with two workers in a network namespace of its own.
struct Apart {
    nginx: Nginx,
    _folder: TempDir,
}

impl Apart {
    /// Starts it.
    fn start(reuseport: u16) -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let script = folder.path().join("nginx");
        let text = format!(
            "#!/bin/sh\nexec unshare --net '{}' \"$@\"\n",
            binary().display()
        );
        write_program(&script, text.as_bytes());
        let nginx = Nginx::start(&Config {
            binary: script,
            workers: 2,
            http: &HTTP.replace("{reuseport}", &reuseport.to_string()),
            ..Config::default()
        });
        Self {
            nginx,
            _folder: folder,
        }
    }

    /// Runs something in its network namespace, with the loopback device up.
    fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.nginx.pid())).unwrap();
        let run = || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).unwrap();
            loopback_up();
            run()
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// Tries to open connections to an address. Returns those that were established at once; the SYN of each of
    /// the others was dropped, and it is closed, mostly before it sends another one.
    fn connect(&self, address: &str) -> Vec<TcpStream> {
        let address: SocketAddr = format!("{address}:{}", self.nginx.port).parse().unwrap();
        self.inside(|| {
            let clients = (0..CLIENTS).filter_map(|_| {
                match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
                    Ok(stream) => Some(stream),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                        None
                    }
                }
            });
            clients.collect()
        })
    }

    /// Returns a number that the kernel counts in the namespace.
    fn kernel_count(&self, name: &str) -> u64 {
        let counts = fs::read_to_string(format!("/proc/{}/net/netstat", self.nginx.pid()));
        let counts = counts.unwrap();
        let mut lines = counts.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let all = names.split_whitespace().zip(values.split_whitespace());
        let all: BTreeMap<_, _> = all.collect();
        all[name].parse().unwrap()
    }

    /// Returns the line of a metric.
    fn line(&self, metric: &str, address: (&str, u16), value: u64) -> String {
        line(metric, self.nginx.pid(), address, value)
    }
}

/// Sets the loopback device up.
fn loopback_up() {
    // SAFETY: plain numbers, of which all bits may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: a new descriptor, and a request that the kernel reads; the descriptor is closed once.
    let result = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw mut request);
        libc::close(socket);
        result
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Returns the line of a metric of a listening socket.
pub fn line(metric: &str, pid: u32, (address, port): (&str, u16), value: u64) -> String {
    format!("nginx_listen_{metric}{{pid=\"{pid}\",listen=\"{address}:{port}\"}} {value}")
}

/// Returns whether this kernel has the metrics.
pub fn are_shown() -> bool {
    let kernel = Btf::from_vmlinux().unwrap();
    let is_new = kernel
        .type_by_name::<Enum<'_>>("bpf_iter_task_type")
        .is_some();
    if !is_new {
        println!("SKIP this kernel: it can't list the files of one process (before Linux 6.1)");
    }
    is_new
}

/// Check a full queue while the workers are stopped: the metrics have the connections that wait, the backlog,
/// and as many drops as the kernel counts in the whole namespace, in which nothing else listens.
#[test]
fn overflow() {
    if !are_shown() {
        return;
    }
    let reuseport = free_port();
    let apart = Apart::start(reuseport);
    let (nginx, v4) = (&apart.nginx, ("0.0.0.0", apart.nginx.port));
    let v6 = ("[::]", nginx.port);
    let (tool, port) = with_metrics(nginx);
    wait_line(&apart.line("queue_max", v4, 2), || served(port));
    let text = served(port);
    for (metric, address, value) in [
        ("queue_max", v6, 3),
        ("queue_max", ("0.0.0.0", reuseport), 14),
        ("queue_connections", v4, 0),
        ("drops_total", v4, 0),
        ("drops_total", ("0.0.0.0", reuseport), 0),
    ] {
        let line = apart.line(metric, address, value);
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(text.matches("nginx_listen_queue_max{").count(), 3, "{text}");
    for worker in nginx.workers() {
        stop(worker);
    }
    let waiting = apart.connect("127.0.0.1");
    assert_eq!(waiting.len(), 3);
    let drops = apart.kernel_count("ListenDrops");
    assert!(drops >= (CLIENTS - waiting.len()) as u64);
    assert_eq!(drops, apart.kernel_count("ListenOverflows"));
    wait_line(&apart.line("queue_connections", v4, 3), || served(port));
    wait_line(&apart.line("drops_total", v4, drops), || served(port));
    let waiting_v6 = apart.connect("[::1]");
    assert_eq!(waiting_v6.len(), 4);
    let drops_v6 = apart.kernel_count("ListenDrops") - drops;
    assert!(drops_v6 >= (CLIENTS - waiting_v6.len()) as u64);
    wait_line(&apart.line("queue_connections", v6, 4), || served(port));
    wait_line(&apart.line("drops_total", v6, drops_v6), || served(port));
    for worker in nginx.workers() {
        kill("CONT", worker);
    }
    wait_line(&apart.line("queue_connections", v4, 0), || served(port));
    wait_line(&apart.line("queue_connections", v6, 0), || served(port));
    wait_line(&apart.line("drops_total", v4, drops), || served(port));
    drop((waiting, waiting_v6));
    drop(apart);
    tool.wait().assert_clean();
}

/// Check that `advise` counts what did not fit into a queue, of which nginx itself sees nothing, and that it finds
/// nothing before.
#[test]
fn advised() {
    let apart = Apart::start(free_port());
    let pid = apart.nginx.pid().to_string();
    let options = ["advise", "--rule", "listen_overflow", "--pid", &pid];
    let fill = || {
        let workers = apart.nginx.workers();
        workers.iter().for_each(|worker| stop(*worker));
        drop(apart.connect("127.0.0.1"));
        workers.iter().for_each(|worker| kill("CONT", *worker));
    };
    let advise = |fill: &dyn Fn()| {
        let mut tool = Tool::spawn(Command::new(PROGRAM).args(options));
        tool.read_stdout();
        tool.wait_ready(1);
        tool.wait_opened("net/netstat");
        fill();
        let ended = tool.stop();
        (ended.status.code(), ended.stdout.join("\n"))
    };
    fill();
    let before = apart.kernel_count("ListenOverflows");
    assert!(before > 0);
    let (status, found) = advise(&|| {});
    assert_eq!(status, Some(0), "{found}");
    let is_fine = "looked at and fine: overflows of accept queues";
    assert!(found.contains(is_fine), "{found}");
    let (status, found) = advise(&fill);
    let count = apart.kernel_count("ListenOverflows") - before;
    assert_eq!(status, Some(3), "{found}");
    let evidence = format!("the kernel dropped {count} connection attempts");
    assert!(found.contains(&evidence), "{found}");
}

/// Check that a listener that a reload removes has no series any more, that the others keep theirs, and that
/// without metrics the program that lists sockets is not loaded.
#[test]
fn reload() {
    if !are_shown() {
        return;
    }
    let second = free_port();
    let nginx = Nginx::with(
        &format!(
            "server {{ listen 127.0.0.1:{{port}}; listen 127.0.0.1:{second}; location / {{ return 200; }} }}"
        ),
        0,
    );
    let is_loaded = |tool: &Tool| tool.verified_instructions().contains_key("listeners");
    let plain = Tool::trace(nginx.pid());
    assert!(!is_loaded(&plain));
    plain.stop().assert_clean();
    let (tool, port) = with_metrics(&nginx);
    assert!(is_loaded(&tool));
    let of = |port| line("queue_connections", nginx.pid(), ("127.0.0.1", port), 0);
    wait_line(&of(second), || served(port));
    remove(
        &nginx.prefix().join("nginx.conf"),
        &format!("listen 127.0.0.1:{second};"),
    );
    nginx.signal("HUP");
    nginx.wait_for_worker();
    wait_line("one", || {
        let count = served(port).matches("nginx_listen_queue_max{").count();
        if count == 1 { "one" } else { "more" }.to_owned()
    });
    wait_line(&of(nginx.port), || served(port));
    drop(nginx);
    tool.wait().assert_clean();
}

/// Removes a text from a file.
fn remove(file: &Path, what: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(what), "{text}");
    fs::write(file, text.replace(what, "")).unwrap();
}
