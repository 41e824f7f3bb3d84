// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx is replaced while it runs (USR2, WINCH, QUIT): the new master's workers are traced, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::suite::common::build::DEBIAN;
use crate::suite::common::build::binary;
use crate::suite::common::cached::cached;
use crate::suite::common::client::Client;
use crate::suite::common::load::Load;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::patched::patch;
use crate::suite::common::patched::renumbered;
use crate::suite::common::patched::version;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::program::stop;
use crate::suite::common::program::write_program;
use crate::suite::common::record::Logged;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;

/// Upgrades nginx to the file that is at its path now, while it is traced, with requests before and
/// after.
fn upgrade(nginx: &Nginx) {
    let mut tool = Tool::trace(nginx.pid());
    for _ in 0..5 {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    }
    nginx.signal("USR2");
    nginx.wait_for_log("start new binary process ");
    nginx.wait_for_log("start worker process ");
    let started = tool.wait_for_message("tracing nginx");
    let new_master = nginx.pid_of_file();
    assert!(
        started.contains(&format!("pid {new_master}, ")),
        "{started}"
    );
    retire(nginx);
    for _ in 0..5 {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    }
    nginx.wait_logged(10);
    kill("QUIT", new_master);
    /* The tool ends with the new master, not with the old one. */
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &nginx.logged());
    assert_eq!(ended.records().len(), 10);
    let pids: std::collections::BTreeSet<u32> =
        ended.records().iter().map(|record| record.pid).collect();
    assert_eq!(pids.len(), 2);
}

/// Ends the old master and its workers.
fn retire(nginx: &Nginx) {
    nginx.signal("WINCH");
    nginx.wait_for_log("gracefully shutting down");
    nginx.signal("QUIT");
    wait_for_end(nginx, nginx.pid());
}

/// Waits until a master has ended.
fn wait_for_end(nginx: &Nginx, master: u32) {
    let master = format!(" {master}#");
    loop {
        let line = nginx.wait_for_log(": exit");
        if line.contains(&master) && line.ends_with(": exit") {
            break;
        }
    }
}

/// Check an upgrade to the same binary.
#[test]
fn same_binary() {
    upgrade(&Nginx::start(&Config {
        daemon: true,
        ..Config::default()
    }));
}

/// Check an upgrade to another file at its path.
#[test]
fn another_binary() {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let path = folder.path().join("nginx");
    let put = || {
        copy_program(&binary(), &folder.path().join("new"));
        fs::rename(folder.path().join("new"), &path).unwrap();
    };
    put();
    let nginx = Nginx::start(&Config {
        binary: path.clone(),
        daemon: true,
        ..Config::default()
    });
    put();
    upgrade(&nginx);
}

/// Returns the root folder of another Debian, which `make test` has made.
fn trixie() -> Option<PathBuf> {
    let mark = cached("trixie/.complete", "tests/builds/run --fetch trixie")?;
    mark.parent().map(Path::to_owned)
}

/// Makes a folder with a binary that can be replaced, and a script that runs it under another root
/// folder, which has the libraries of both releases.
fn replaceable(from: &str, root: &Path) -> (TempDir, PathBuf, PathBuf) {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let (program, script) = (folder.path().join("nginx"), folder.path().join("script"));
    copy_program(Path::new(from), &program);
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -ec '
         mount --bind /tmp \"$0/tmp\"; exec chroot \"$0\" {} \"$@\"' {} \"$@\"\n",
        program.display(),
        root.display()
    );
    write_program(&script, text.as_bytes());
    (folder, program, script)
}

/// Replaces a file that may be running.
fn replace(program: &Path, put: impl FnOnce(&Path)) {
    let new = program.with_extension("new");
    put(&new);
    fs::rename(new, program).unwrap();
}

/// Check an upgrade to another release under load: every request of the old workers has a record,
/// and those of the new workers have records from some request on; a message says that some were
/// missed.
#[test]
fn another_release() {
    let Some(root) = trixie() else {
        return;
    };
    let new_binary = root.join("usr/sbin/nginx");
    let versions = [version(Path::new(DEBIAN)), version(&new_binary)];
    if versions[0] == versions[1] {
        println!("SKIP this machine: {DEBIAN} is trixie's own");
        return;
    }
    let (_folder, program, script) = replaceable(DEBIAN, &root);
    let Some(nginx) = Nginx::steady(Config {
        binary: script,
        daemon: true,
        ..Config::default()
    }) else {
        return;
    };
    let mut tool = Tool::unread(nginx.pid());
    tool.read_stdout();
    tool.wait_for_message(&format!(
        "tracing nginx {}, pid {}, 2 ",
        versions[0],
        nginx.pid()
    ));
    let load = Load::start(nginx.port, "/file");
    nginx.wait_served(&nginx.workers());
    replace(&program, |new| copy_program(&new_binary, new));
    nginx.signal("USR2");
    nginx.wait_for_log("start new binary process ");
    let workers = [nginx.wait_for_worker(), nginx.wait_for_worker()];
    let master = nginx.pid_of_file();
    tool.wait_for_message(&format!("tracing nginx {}, pid {master}, ", versions[1]));
    tool.wait_for_message(&format!("what pid {master} served until now was not seen"));
    retire(&nginx);
    nginx.wait_logged(nginx.logged().len() + 1000);
    /* Nothing is kept of the workers of the old release. */
    let known = tool.known_workers();
    assert!(
        !known.is_empty() && known.is_subset(&workers.into()),
        "{known:?}"
    );
    drop(load);
    kill("QUIT", master);
    let ended = tool.wait();
    ended.assert_clean();
    assert_all_but_first(ended.records(), nginx.logged(), workers);
}

/// Asserts that every request of the old workers has a record, and that the new workers have at least
/// a thousand records, from some request on.
fn assert_all_but_first(records: Vec<Record>, logged: Vec<Logged>, new_workers: [u32; 2]) {
    let is_new = |pid: u32| new_workers.contains(&pid);
    let (new, old): (Vec<_>, Vec<_>) = records.into_iter().partition(|r| is_new(r.pid));
    let (new_logged, old_logged): (Vec<_>, Vec<_>) =
        logged.into_iter().partition(|l| is_new(l.pid));
    assert_equal(&old, &old_logged);
    assert!(
        !old.is_empty() && new.len() >= 1000,
        "{}, {}",
        old.len(),
        new.len()
    );
    assert_tail(&new, &new_logged);
}

/// Asserts that the requests of each worker have records from some request on.
fn assert_tail(records: &[Record], logged: &[Logged]) {
    let mut by_worker: BTreeMap<u32, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_worker.entry(record.pid).or_default().push(record);
    }
    for (worker, records) in by_worker {
        let logged: Vec<_> = logged
            .iter()
            .filter(|logged| logged.pid == worker)
            .collect();
        let first = logged.len().checked_sub(records.len()).unwrap();
        for (record, logged) in records.into_iter().zip(&logged[first..]) {
            assert_eq!(record.key(), logged.key());
            /* A request in progress when tracing began may lack something. */
            if !record.partial {
                record.assert_logged(logged);
            }
        }
    }
}

/// Check an upgrade to a binary that is not what it claims to be: this is reported once, and the
/// old workers are still traced, also after the upgrade is rolled back.
#[test]
fn untraceable() {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let program = folder.path().join("nginx");
    copy_program(Path::new(DEBIAN), &program);
    let nginx = Nginx::start(&Config {
        binary: program.clone(),
        daemon: true,
        ..Config::default()
    });
    let mut tool = Tool::trace(nginx.pid());
    let serve = || assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    let old = nginx.workers()[0];
    serve();
    let changes = renumbered(&version(Path::new(DEBIAN)), "1.18.0");
    replace(&program, |new| patch(Path::new(DEBIAN), new, &changes));
    nginx.signal("USR2");
    let new = nginx.wait_for_worker();
    let warning = tool.wait_for_message("upgrade");
    let new_master = nginx.pid_of_file();
    let expected =
        format!("failed to follow the upgrade of nginx to pid {new_master}: pid {new_master} (");
    assert!(warning.contains(&expected), "{warning}");
    assert!(warning.contains("does not fit this binary"), "{warning}");
    /* Both masters serve. The new one is stopped for a moment, so that the old one gets the requests. */
    stop(new);
    serve();
    kill("CONT", new);
    nginx.signal("WINCH");
    wait_for_end(&nginx, old);
    serve();
    nginx.signal("HUP");
    nginx.wait_for_worker();
    kill("QUIT", new_master);
    wait_for_end(&nginx, new_master);
    serve();
    nginx.wait_logged(4);
    let ended = tool.stop();
    ended.assert_clean();
    assert_eq!(ended.stderr.len(), 3, "{:?}", ended.stderr);
    let (missed, recorded): (Vec<_>, Vec<_>) =
        nginx.logged().into_iter().partition(|l| l.pid == new);
    assert_eq!((missed.len(), recorded.len()), (1, 3));
    assert_equal(&ended.records(), &recorded);
    assert_eq!(ended.records().len(), 3);
}

/// Check that an upgrade is followed when the old master ends before the tool has noticed the new
/// one.
#[test]
fn at_once() {
    let nginx = Nginx::start(&Config {
        daemon: true,
        ..Config::default()
    });
    let mut tool = Tool::trace(nginx.pid());
    tool.signal("STOP");
    nginx.signal("USR2");
    nginx.wait_for_worker();
    let new_master = nginx.pid_of_file();
    nginx.signal("QUIT");
    wait_for_end(&nginx, nginx.pid());
    tool.signal("CONT");
    /* Its worker may not exist yet. */
    tool.wait_for_message(&format!("pid {new_master}, "));
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    kill("QUIT", new_master);
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &nginx.logged());
    assert_eq!(ended.records().len(), 1);
}

/// Check a tool that starts during an upgrade: workers that a reload of the new master starts are
/// traced, although this master is a child of the old one, like its workers.
#[test]
fn under_way() {
    let Some(nginx) = Nginx::steady(Config {
        daemon: true,
        ..Config::default()
    }) else {
        return;
    };
    nginx.signal("USR2");
    nginx.wait_for_worker();
    let new_master = nginx.pid_of_file();
    let pids = [nginx.pid().to_string(), new_master.to_string()];
    let tool = Tool::start(&["--json", "-p", &pids[0], "-p", &pids[1]], 2);
    kill("HUP", new_master);
    nginx.wait_for_log("reconfiguring");
    let workers = [nginx.wait_for_worker(), nginx.wait_for_worker()];
    let load = Load::start(nginx.port, "/file");
    nginx.wait_served(&workers);
    retire(&nginx);
    drop(load);
    kill("QUIT", new_master);
    let ended = tool.wait();
    ended.assert_clean();
    let logged = nginx.logged();
    assert_equal(&ended.records(), &logged);
    assert!(logged.iter().any(|logged| workers.contains(&logged.pid)));
}

/// Check that tracing begins and continues when the binary has been deleted.
#[test]
fn deleted_binary() {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let path = folder.path().join("nginx");
    copy_program(&binary(), &path);
    let nginx = Nginx::start(&Config {
        binary: path.clone(),
        ..Config::default()
    });
    fs::remove_file(path).unwrap();
    let tool = Tool::trace(nginx.pid());
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
    assert_eq!(ended.records().len(), 1);
}
