// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds that the table does not have: their own code shows which known layout is theirs, or that
//! none is.

use std::process::Command;

use ngx_bpf_record::values::LayoutSource;
use serde_json::Value;
use tempfile::TempDir;

use crate::suite::common::build::binary;
use crate::suite::common::client::Client;
use crate::suite::common::imitation::compile;
use crate::suite::common::imitation::while_running;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::patched::Change;
use crate::suite::common::patched::patch;
use crate::suite::common::patched::renumbered;
use crate::suite::common::patched::version;
use crate::suite::common::program::open_to_all;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::tool::check;

/// Runs the tool on a process that it can't trace. Returns what it says.
fn refusal(pid: u32) -> String {
    let output = Command::new(PROGRAM)
        .args(["--pid", &pid.to_string()])
        .output();
    let output = output.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// Check that a release that the table does not have is traced with the layout that its code agrees
/// with, and that stderr, every record and `check` say so.
#[test]
fn release() {
    let version = version(&binary());
    let (branch, _) = version.rsplit_once('.').unwrap();
    let unknown = format!("{branch}.9");
    let Patched { nginx, _folder } = Patched::of_version(&unknown);
    let found = &check(nginx.pid(), &[])["nginx"][0];
    assert_eq!(found["version"], unknown);
    assert_eq!(found["layout"], "inferred");
    assert_eq!(found["layout_fit"]["agree"], found["layout_fit"]["asked"]);
    let tool = Tool::trace(nginx.pid());
    let mut client = Client::connect(nginx.port);
    for n in 0..10 {
        assert_eq!(client.get(&format!("/?{n}")).status, 200);
    }
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    assert_equal(&records, &logged);
    assert_eq!(records.len(), 10);
    assert!(
        records
            .iter()
            .all(|r| r.layout == Some(LayoutSource::Inferred))
    );
    let said = format!("nginx {unknown} (signature 8,4,8,");
    assert!(ended.inferred[0].contains(&said), "{:?}", ended.inferred);
}

/// Check that a fork is recognised by its name, and traced when its code agrees with nginx's
/// layout.
#[test]
fn fork() {
    let patched = Patched::of_name("Angie");
    let found = &check(patched.nginx.pid(), &[])["nginx"][0];
    assert_eq!(found["fork"], format!("Angie/{}", version(&binary())));
    assert_eq!(found["layout"], "inferred");
    let tool = Tool::trace(patched.nginx.pid());
    assert_eq!(Client::connect(patched.nginx.port).get("/").status, 200);
    let logged = patched.nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
}

/// Check that a fork is refused when one of its members happens to be where another release has it:
/// the members beside it, which that release has elsewhere, need witnesses of their own.
#[test]
fn by_chance() {
    if version(&binary()) != "1.22.1" {
        eprintln!("SKIP by_chance: the test knows the code of nginx 1.22.1 only");
        return;
    }
    /*
     * The member that `$upstream_cache_status` reads. 1.29.6 has it there, and its pipe 8 bytes
     * further on.
     */
    let reads_at = |offset: u32| [&[0x0f, 0xb6, 0x80][..], &offset.to_le_bytes()].concat();
    let mut changes = renamed("Angie");
    changes.push((reads_at(1128), reads_at(1088)));
    let patched = Patched::start(&changes);
    let said = refusal(patched.nginx.pid());
    assert!(
        said.contains("no layout known for Angie/1.22.1 (signature 8,4,8,"),
        "{said}"
    );
    assert!(said.contains("none of the known ones fits"), "{said}");
    assert!(said.contains("--layout or --debug-info"), "{said}");
    assert_eq!(Client::connect(patched.nginx.port).get("/").status, 200);
    assert_eq!(patched.nginx.quit().len(), 1);
}

/// Check that a row of the table that the binary's code contradicts is refused, and that nginx is
/// unchanged.
#[test]
fn misfit() {
    let other = if version(&binary()) == "1.18.0" {
        "1.24.0"
    } else {
        "1.18.0"
    };
    let patched = Patched::of_version(other);
    let said = refusal(patched.nginx.pid());
    let expected = format!("the layout of nginx {other} (signature 8,4,8,");
    assert!(said.contains(&expected), "{said}");
    assert!(
        said.contains("does not fit this binary, build id "),
        "{said}"
    );
    assert!(said.contains("--debug-info"), "{said}");
    assert_eq!(Client::connect(patched.nginx.port).get("/").status, 200);
    assert_eq!(patched.nginx.quit().len(), 1);
}

/// Check that a program that no known layout fits is refused with an error that names it, and says
/// what to do.
#[test]
fn nothing_fits() {
    let folder = TempDir::new().unwrap();
    let file = compile(
        folder.path(),
        &["-DVERSION=1099000", "-DNAME=\"nginx/1.99.0\""],
    );
    let (said, report) = while_running(&file, |pid| (refusal(pid), check(pid, &[])));
    let found = &report["nginx"][0];
    assert_eq!(found["version"], "1.99.0", "{found:#}");
    assert_eq!(found["probes"], Value::Null, "{found:#}");
    let expected = "no layout known for nginx 1.99.0 (signature 8,4,8,00111111110101110011";
    assert!(said.contains(expected), "{said}");
    assert!(
        said.contains("none of the known ones fits (the nearest, "),
        "{said}"
    );
    assert!(said.contains("--layout or --debug-info"), "{said}");
    assert_eq!(said.lines().count(), 1);
}

/// Returns the changes that make the machine's nginx claim to be another program.
fn renamed(new: &str) -> Vec<Change> {
    let version = version(&binary());
    vec![(
        format!("\0nginx/{version}").into_bytes(),
        format!("\0{new}/{version}").into_bytes(),
    )]
}

/// A running nginx with some of its bytes changed.
struct Patched {
    nginx: Nginx,
    _folder: TempDir,
}

impl Patched {
    /// Starts it with one worker.
    fn start(changes: &[Change]) -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let copy = folder.path().join("nginx");
        patch(&binary(), &copy, changes);
        let nginx = Nginx::start(&Config {
            binary: copy,
            ..Config::default()
        });
        Self {
            nginx,
            _folder: folder,
        }
    }

    /// Starts one that claims to be another release.
    fn of_version(new: &str) -> Self {
        Self::start(&renumbered(&version(&binary()), new))
    }

    /// Starts one that claims to be another program.
    fn of_name(new: &str) -> Self {
        Self::start(&renamed(new))
    }
}
