// SPDX-License-Identifier: MIT OR Apache-2.0
//! An nginx that starts: again and again, and slowly.

use std::fs;
use std::process::Command;

use crate::suite::common::client::Client;
use crate::suite::common::program::kill;
use crate::suite::common::program::wait_stopped;
use crate::suite::common::record::assert_equal;
use crate::suite::common::yard::Yard;

/// Check that `--wait` traces an nginx after each restart, as by `systemctl restart`: its binary is
/// dropped when its last process has ended, which may be while the processes are read that run it
/// again.
#[test]
fn restarted() {
    let yard = Yard::new();
    let mut tool = yard.tool(&["--wait", "--json"]);
    tool.wait_for_message("waiting for nginx to start");
    let mut logged = Vec::new();
    for _ in 0..20 {
        let nginx = yard.nginx();
        tool.wait_ready(1);
        Client::connect(nginx.port).get("/");
        logged.extend(nginx.quit());
    }
    kill("INT", tool.child());
    assert_equal(&tool.wait().records(), &logged);
}

/// Check that a worker that is still being initialised, and so has the title of its master, is no other
/// nginx: it is traced once, as a worker.
#[test]
fn worker_starts() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("SKIP this machine: strace is not installed");
        return;
    }
    let yard = Yard::new();
    let nginx = yard.nginx_stopped_in("setgid");
    let worker = nginx.workers()[0];
    wait_stopped(worker);
    let title = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(title(worker), title(nginx.pid()));
    let mut tool = yard.tool(&["--wait", "--json"]);
    tool.wait_ready(1);
    kill("CONT", worker);
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    let logged = nginx.quit();
    kill("INT", tool.child());
    let ended = tool.wait();
    ended.assert_clean();
    let ready = ended.stderr.iter();
    let ready: Vec<_> = ready.filter(|line| line.contains(": tracing ")).collect();
    assert_eq!(ready.len(), 1, "{ready:?}");
    assert!(ready[0].ends_with(", 1 worker"), "{ready:?}");
    assert_equal(&ended.records(), &logged);
}
