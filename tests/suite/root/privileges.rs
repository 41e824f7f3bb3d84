// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capabilities of the service are sufficient; without one of them the message names it.

use tempfile::TempDir;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::service::Service;
use crate::suite::common::tool::Tool;
use crate::suite::root::sockets::sources;

/// The table of the capabilities that each kernel requires.
const TABLE: &str = include_str!("../../../docs/compatibility.md");

/// The columns of the table with a capability.
const COLUMNS: [&str; 4] = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", ADMIN];

/// The capability that the service has in addition where uprobes are perf events.
const ADMIN: &str = "CAP_SYS_ADMIN";

/// Returns whether a service traces an nginx with a socket source, or why it does not.
fn traces(service: &Service, nginx: &Nginx, sockets: &[&str]) -> Result<(), String> {
    let folder = TempDir::new().unwrap();
    let pid = nginx.pid().to_string();
    let mut command = service.command(&folder);
    let mut tool = Tool::spawn(command.args(["--json", "--pid", &pid]).args(sockets));
    tool.read_stdout();
    let mut first = tool.wait_for_message("ngx-bpf: ");
    if first.contains("is inferred from its code") {
        first = tool.wait_for_message("ngx-bpf: ");
    }
    if !first.contains("tracing nginx") {
        assert_eq!(tool.wait().status.code(), Some(1));
        return Err(first.strip_prefix("ngx-bpf: ").unwrap().to_owned());
    }
    let before = nginx.logged().len();
    Client::connect(nginx.port).get("/");
    nginx.wait_logged(before + 1);
    let ended = tool.stop();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 1);
    Ok(())
}

/// Does the same with the source that the tool chooses, and asserts that `check` agrees.
fn verdict(service: &Service, nginx: &Nginx) -> Result<(), String> {
    let folder = TempDir::new().unwrap();
    let pid = nginx.pid().to_string();
    let mut command = service.command(&folder);
    let check = command.args(["check", "--pid", &pid]).output().unwrap();
    let text = String::from_utf8(check.stdout).unwrap();
    let last = text.lines().last().unwrap_or_default();
    let verdict = traces(service, nginx, &[]);
    let expected = match &verdict {
        Ok(()) => (Some(0), "tracing would work".to_owned()),
        Err(reason) => (Some(1), format!("tracing would not work: {reason}")),
    };
    assert_eq!((check.status.code(), last), (expected.0, &*expected.1));
    verdict
}

/// Returns what a kernel needs a capability for, which is a cell of the table. `try_with` traces
/// with a set of capabilities.
fn cell(
    service: &Service,
    capability: &str,
    try_with: impl Fn(&Service) -> Result<(), String>,
) -> &'static str {
    if !service.capabilities.contains(capability) {
        return "no";
    }
    match try_with(&service.without(capability)) {
        Err(reason) => {
            assert_missing(&reason, capability);
            "yes"
        }
        /* Perf events need it only since some stable releases. */
        Ok(()) if capability == ADMIN => "in other releases",
        /* CAP_SYS_ADMIN includes the two capabilities that were split off from it. */
        Ok(()) => {
            assert!(["CAP_BPF", "CAP_PERFMON"].contains(&capability));
            let neither = service.without(capability).without(ADMIN);
            assert_missing(&try_with(&neither).unwrap_err(), capability);
            "or CAP_SYS_ADMIN"
        }
    }
}

/// Check that the service traces with exactly the rights that its unit gives it on this kernel, with
/// every socket source, and that the kernel accepts no fewer: each missing capability is named, by
/// `check`, too. docs/compatibility.md has the results.
#[test]
fn each_capability() {
    let nginx = Nginx::simple();
    let service = Service::installed();
    assert_eq!(verdict(&service, &nginx), Ok(()));
    for capability in &service.capabilities {
        let _ = verdict(&service.without(capability), &nginx);
    }
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_str().unwrap();
    let kernel: Vec<&str> = kernel.split(['.', '-']).take(2).collect();
    let kernel = kernel.join(".");
    let uprobes = if has_uprobe_multi() {
        "uprobe_multi"
    } else {
        "perf events"
    };
    for source in sources() {
        let try_with = |service: &Service| traces(service, &nginx, &["--sockets", source]);
        assert_eq!(try_with(&service), Ok(()));
        let cells = COLUMNS.map(|capability| cell(&service, capability, try_with));
        let start = format!("| {kernel} | {uprobes} | {source} |");
        let row = format!("{start} {} |", cells.join(" | "));
        println!("capabilities: {row}");
        match TABLE.lines().find(|line| line.starts_with(&start)) {
            Some(line) => assert_eq!(line, row),
            None => println!("docs/compatibility.md has no such row"),
        }
    }
}

/// Asserts that the reason names this capability, and no other.
fn assert_missing(reason: &str, capability: &str) {
    assert!(
        reason.starts_with(&format!("missing {capability}: ")),
        "{reason}"
    );
}

/// Returns whether this kernel attaches uprobes without perf events.
fn has_uprobe_multi() -> bool {
    std::fs::read("/sys/kernel/btf/vmlinux")
        .unwrap()
        .windows(23)
        .any(|name| name == b"BPF_TRACE_UPROBE_MULTI\0")
}

/// Check that `CAP_SYS_ADMIN` is required where uprobes are perf events, and nowhere else.
#[test]
fn asks_for_no_more() {
    let nginx = Nginx::simple();
    let service = Service::installed();
    let asks = service.capabilities.contains(ADMIN);
    assert_eq!(asks, !has_uprobe_multi());
    let mut bare = service;
    bare.capabilities.clear();
    let reason = verdict(&bare, &nginx).unwrap_err();
    assert_eq!(
        reason,
        "missing CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE: run as root"
    );
}

/// Check that a system call that a filter forbids is reported as such, and not as a missing
/// capability.
#[test]
fn forbidden_system_call() {
    let nginx = Nginx::simple();
    let service = Service::installed().without_call("bpf");
    let reason = verdict(&service, &nginx).unwrap_err();
    assert!(
        reason.starts_with("the kernel refuses to load a program: Operation not permitted"),
        "{reason}"
    );
}
