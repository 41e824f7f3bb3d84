// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx replaced while it runs (USR2, WINCH, QUIT): the new master's workers are traced, too.

use std::fs;

use tempfile::TempDir;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::nginx::binary;
use crate::suite::common::nginx::kill;
use crate::suite::common::nginx::open_to_all;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;

/// Upgrades nginx to whatever is at its path by now, while it is traced; requests before and after.
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
    nginx.signal("WINCH");
    nginx.wait_for_log("gracefully shutting down");
    nginx.signal("QUIT");
    let old_master = format!(" {}#", nginx.pid());
    loop {
        let line = nginx.wait_for_log(": exit");
        if line.contains(&old_master) && line.ends_with(": exit") {
            break;
        }
    }
    for _ in 0..5 {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    }
    nginx.wait_logged(10);
    kill("QUIT", new_master);
    /* It ends with the new master, not with the old one. */
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &nginx.logged());
    assert_eq!(ended.records().len(), 10);
    let pids: std::collections::BTreeSet<u32> =
        ended.records().iter().map(|record| record.pid).collect();
    assert_eq!(pids.len(), 2);
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
        fs::copy(binary(), folder.path().join("new")).unwrap();
        open_to_all(&folder.path().join("new"));
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

/// Check that tracing begins and goes on when the binary is no longer there.
#[test]
fn deleted_binary() {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let path = folder.path().join("nginx");
    fs::copy(binary(), &path).unwrap();
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
