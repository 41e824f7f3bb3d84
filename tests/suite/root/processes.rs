// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which processes are traced, and which are not.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use ngx_bpf_record::values::End;

use crate::suite::common::client::Client;
use crate::suite::common::load::Load;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::program::write_program;
use crate::suite::common::record::Logged;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;

/// Starts nginx with this number of workers.
fn start(workers: usize) -> Nginx {
    Nginx::start(&Config {
        workers,
        ..Config::default()
    })
}

/// Sends requests on connections of their own, so that every worker gets some.
fn requests(nginx: &Nginx, count: usize) {
    for _ in 0..count {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    }
}

/// Check that another nginx of the same binary has no record.
#[test]
fn another_nginx() {
    let (traced, other) = (start(2), start(2));
    let tool = Tool::trace(traced.pid());
    requests(&other, 20);
    requests(&traced, 20);
    requests(&other, 20);
    let logged = traced.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.summary().seen, 20);
    assert_equal(&ended.records(), &logged);
    assert_eq!(other.quit().len(), 40);
}

/// Check that with the pid of a worker its requests have records, and those of the other worker
/// have none.
#[test]
fn one_worker() {
    let nginx = start(2);
    let worker = nginx.workers()[0];
    let tool = Tool::trace(worker);
    requests(&nginx, 200);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let of_worker: Vec<_> = logged
        .iter()
        .filter(|logged| logged.pid == worker)
        .cloned()
        .collect();
    assert_equal(&ended.records(), &of_worker);
    assert_eq!(ended.records().len(), of_worker.len());
}

/// Check that the workers that a reload starts are traced from their first request on, and those
/// that it ends are traced to their last.
#[test]
fn reload() {
    let nginx = start(2);
    let tool = Tool::trace(nginx.pid());
    let mut kept = Client::connect(nginx.port);
    for _ in 0..3 {
        kept.get("/");
        nginx.signal("HUP");
        for _ in 0..2 {
            nginx.wait_for_log("start worker process ");
        }
        requests(&nginx, 20);
        kept = Client::connect(nginx.port);
    }
    drop(kept);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
    assert_eq!(logged.len(), 63);
    assert_eq!(ended.records().len(), 63);
}

/// Check that reloads under load lose no request and report none twice: records and access log are
/// equal, for every generation of workers.
#[test]
fn reload_under_load() {
    let Some(nginx) = Nginx::steady(Config::default()) else {
        return;
    };
    let tool = Tool::trace(nginx.pid());
    let mut generations = vec![nginx.workers()];
    let load = Load::start(nginx.port, "/file");
    nginx.wait_served(&generations[0]);
    for _ in 0..3 {
        nginx.signal("HUP");
        generations.push(vec![nginx.wait_for_worker(), nginx.wait_for_worker()]);
        nginx.wait_served(generations.last().unwrap());
    }
    drop(load);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged);
    assert_eq!(ended.summary().written, logged.len() as u64);
    let keys: BTreeSet<_> = records.iter().map(Record::key).collect();
    assert_eq!(keys.len(), records.len());
    for workers in generations {
        let served = records
            .iter()
            .filter(|record| workers.contains(&record.pid));
        assert!(served.count() > 0, "{workers:?}");
    }
}

/// Check that each of 64 workers is traced.
#[test]
fn many_workers() {
    let nginx = start(64);
    let tool = Tool::start(&["--json", "--pid", &nginx.pid().to_string()], 1);
    requests(&nginx, 300);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert!(
        ended.stderr[0].ends_with("64 workers"),
        "{:?}",
        ended.stderr
    );
    assert_equal(&ended.records(), &logged);
    assert_eq!(ended.records().len(), 300);
}

/// Check that a worker that was killed is replaced by one that is traced.
#[test]
fn worker_killed() {
    let nginx = start(1);
    let tool = Tool::trace(nginx.pid());
    requests(&nginx, 5);
    nginx.wait_logged(5);
    kill("KILL", nginx.workers()[0]);
    nginx.wait_for_log("start worker process ");
    requests(&nginx, 5);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
    assert_eq!(ended.records().len(), 10);
}

/// Check workers that are killed under load: every logged request has a record, except perhaps the
/// one during which a worker was killed; requests in flight have records that say so; and BPF keeps no
/// entry of a killed worker.
#[test]
fn worker_killed_under_load() {
    let Some(nginx) = Nginx::steady(Config::default()) else {
        return;
    };
    let tool = Tool::trace(nginx.pid());
    let load = Load::start(nginx.port, "/file");
    let mut killed = BTreeSet::new();
    for _ in 0..3 {
        let worker = nginx.workers()[0];
        nginx.wait_served(&[worker]);
        kill("KILL", worker);
        nginx.wait_served(&[nginx.wait_for_worker()]);
        killed.insert(worker);
    }
    tool.wait_known(|known| {
        known.is_disjoint(&killed) && nginx.workers().iter().all(|worker| known.contains(worker))
    });
    drop(load);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let (in_flight, records): (Vec<_>, Vec<_>) = ended
        .records()
        .into_iter()
        .partition(|record| record.ending.end == Some(End::WorkerExit));
    assert!((1..=3 * 16).contains(&in_flight.len()), "{in_flight:?}");
    assert!(in_flight.iter().all(|record| killed.contains(&record.pid)));
    let keys: BTreeSet<_> = logged.iter().map(Logged::key).collect();
    let (known, unlogged): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|record| keys.contains(&record.key()));
    assert_equal(&known, &logged);
    let mut deaths = BTreeMap::new();
    for record in unlogged {
        assert!(killed.contains(&record.pid), "{record:#?}");
        *deaths.entry(record.pid).or_insert(0) += 1;
    }
    assert!(deaths.values().all(|count| *count == 1), "{deaths:?}");
}

/// Check that `--pid` may be given more than once, and the same one twice.
#[test]
fn two_masters() {
    let (one, two) = (start(1), start(1));
    let pids = [one.pid().to_string(), two.pid().to_string()];
    let tool = Tool::start(
        &["-p", &pids[0], "--pid", &pids[1], "-p", &pids[0], "--json"],
        2,
    );
    requests(&one, 3);
    requests(&two, 4);
    let mut logged = one.quit();
    requests(&two, 1);
    logged.extend(two.quit());
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
    assert_eq!(ended.records().len(), 8);
}

/// Check two tools on one nginx: each has all records, while the other starts and ends.
#[test]
fn two_tools() {
    let nginx = start(2);
    let one = Tool::trace(nginx.pid());
    requests(&nginx, 5);
    let two = Tool::trace(nginx.pid());
    requests(&nginx, 5);
    nginx.wait_logged(10);
    let ended = one.stop();
    ended.assert_clean();
    assert_equal(&ended.records(), &nginx.logged());
    requests(&nginx, 5);
    let logged = nginx.quit();
    let ended = two.wait();
    ended.assert_clean();
    let since: Vec<_> = logged[5..].to_vec();
    assert_equal(&ended.records(), &since);
    assert_eq!(ended.records().len(), 10);
}

/// Check that two nginx instances of different binaries are traced, with one record per request.
#[test]
fn two_binaries() {
    let folder = tempfile::TempDir::new().unwrap();
    open_to_all(folder.path());
    let copy = folder.path().join("nginx");
    copy_program(&crate::suite::common::build::binary(), &copy);
    let (one, two) = (
        start(2),
        Nginx::start(&Config {
            binary: copy,
            workers: 2,
            ..Config::default()
        }),
    );
    let pids = [one.pid().to_string(), two.pid().to_string()];
    let tool = Tool::start(&["-p", &pids[0], "-p", &pids[1], "--json"], 2);
    for _ in 0..10 {
        requests(&one, 2);
        requests(&two, 1);
    }
    let mut logged = one.quit();
    logged.extend(two.quit());
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
    assert_eq!(ended.records().len(), 30);
}

/// Check that without `--pid` every nginx is found, and named.
#[test]
fn found_by_itself() {
    let nginx = start(1);
    let mut tool =
        Tool::spawn(std::process::Command::new(crate::suite::common::tool::PROGRAM).arg("--json"));
    drop(tool.wait_for_message(&format!("pid {}, 1 worker", nginx.pid())));
    drop(nginx);
}

/// Check that `--wait` waits when no nginx runs, as in a new pid namespace, and ends when it is
/// asked to. A hint says why none may be seen there.
#[test]
fn waits() {
    let mut tool = Tool::spawn(
        std::process::Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .args([crate::suite::common::tool::PROGRAM, "--wait", "--json"]),
    );
    tool.wait_for_message("waiting for nginx to start");
    kill("INT", tool.child());
    let ended = tool.wait();
    ended.assert_clean();
    assert!(ended.stderr[1].contains("hostPID"), "{:?}", ended.stderr);
    assert_eq!(ended.stderr.len(), 3, "{:?}", ended.stderr);
}

/// Check that with `--wait` an nginx that starts later is traced, one that starts beside it, and
/// one that starts when both have ended; and that one that can't be traced is reported once.
#[test]
fn waits_for_start() {
    let mut tool = Tool::spawn(
        std::process::Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .args([crate::suite::common::tool::PROGRAM, "--wait", "--json"]),
    );
    tool.read_stdout();
    tool.wait_for_message("waiting for nginx to start");
    let folder = tempfile::TempDir::new().unwrap();
    open_to_all(folder.path());
    let enter = format!("nsenter --pid --mount --target {}", tool.child());
    let script = |name: &str, what: &str| {
        let path = folder.path().join(name);
        let text = format!("#!/bin/sh\nexec {enter} {what}\n");
        write_program(&path, text.as_bytes());
        path
    };
    let binary = crate::suite::common::build::binary();
    let script_of_nginx = script("script", &format!("{} \"$@\"", binary.display()));
    let start = || {
        Nginx::start(&Config {
            binary: script_of_nginx.clone(),
            namespace: true,
            ..Config::default()
        })
    };
    let first = start();
    tool.wait_ready(1);
    requests(&first, 5);
    /* It reads until the test closes its input. */
    let other = "bash -c 'exec -a \"nginx: master process\" cat'";
    let mut other = std::process::Command::new(script("other", other));
    let mut other = other.stdin(std::process::Stdio::piped()).spawn().unwrap();
    tool.wait_for_message("can't be traced");
    let second = start();
    tool.wait_ready(1);
    requests(&second, 5);
    let mut logged = first.quit();
    logged.extend(second.quit());
    let third = start();
    tool.wait_ready(1);
    requests(&third, 5);
    logged.extend(third.quit());
    kill("INT", tool.child());
    let ended = tool.wait();
    other.wait().unwrap();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
    assert_eq!(ended.records().len(), 15);
    let refusals = ended.stderr.iter().filter(|line| line.contains("can't be"));
    assert_eq!(refusals.count(), 1, "{:?}", ended.stderr);
}

/// Check that an nginx is found whatever the name of its file is, and that the tool with `--wait`
/// then traces it at once.
#[test]
fn found_by_title() {
    let folder = tempfile::TempDir::new().unwrap();
    open_to_all(folder.path());
    let copy = folder.path().join("other-name");
    copy_program(&crate::suite::common::build::binary(), &copy);
    let nginx = Nginx::start(&Config {
        binary: copy,
        ..Config::default()
    });
    let mut tool = Tool::spawn(
        std::process::Command::new(crate::suite::common::tool::PROGRAM).args(["--wait", "--json"]),
    );
    tool.wait_for_message(&format!("pid {}, 1 worker", nginx.pid()));
}

/// Check `master_process off`.
#[test]
fn single_process() {
    let upstream = 9;
    let nginx = Nginx::start(&Config {
        main: "master_process off;",
        workers: 0,
        upstream,
        ..Config::default()
    });
    nginx.wait_for_log("OS: Linux");
    let tool = Tool::trace(nginx.pid());
    requests(&nginx, 3);
    nginx.wait_logged(3);
    let ended = tool.stop();
    ended.assert_clean();
    assert_equal(&ended.records(), &nginx.logged());
    assert_eq!(ended.records().len(), 3);
}
