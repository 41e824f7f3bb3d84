// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capabilities of the service are sufficient; without one of them the message names it.

use tempfile::TempDir;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::service::Service;
use crate::suite::common::tool::Tool;

/// The capability that the service has in addition where uprobes are perf events.
const ADMIN: &str = "CAP_SYS_ADMIN";

/// Returns whether a service traces an nginx, or why it does not. `check` and tracing must agree.
fn verdict(service: &Service, nginx: &Nginx) -> Result<(), String> {
    let folder = TempDir::new().unwrap();
    let pid = nginx.pid().to_string();
    let check = service
        .command(&folder)
        .args(["check", "--pid", &pid])
        .output();
    let check = check.unwrap();
    let text = String::from_utf8(check.stdout).unwrap();
    let last = text.lines().last().unwrap_or_default();

    let mut tool = Tool::spawn(service.command(&folder).args(["--json", "--pid", &pid]));
    tool.read_stdout();
    let mut first = tool.wait_for_message("ngx-bpf: ");
    if first.contains("is inferred from its code") {
        first = tool.wait_for_message("ngx-bpf: ");
    }
    if !first.contains("tracing nginx") {
        assert_eq!(tool.wait().status.code(), Some(1));
        assert_eq!(check.status.code(), Some(1), "{text}\n{first}");
        let reason = last.strip_prefix("tracing would not work: ").unwrap();
        assert_eq!(first, format!("ngx-bpf: {reason}"));
        return Err(reason.to_owned());
    }
    assert_eq!(
        (check.status.code(), last),
        (Some(0), "tracing would work"),
        "{text}"
    );
    let before = nginx.logged().len();
    Client::connect(nginx.port).get("/");
    nginx.wait_logged(before + 1);
    let ended = tool.stop();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 1);
    Ok(())
}

/// Check that the service traces with exactly the rights that its unit gives it on this kernel, and
/// that the kernel accepts no fewer: each missing capability is named, by `check`, too.
#[test]
fn each_capability() {
    let nginx = Nginx::simple();
    let service = Service::installed();
    println!("capabilities: {:?}", service.capabilities);
    assert_eq!(verdict(&service, &nginx), Ok(()));
    for capability in &service.capabilities {
        let verdict_without = verdict(&service.without(capability), &nginx);
        println!("without {capability}: {verdict_without:?}");
        match verdict_without {
            Err(reason) => assert_missing(&reason, capability),
            /* Perf events need it only since some stable releases. */
            Ok(()) if capability == ADMIN => {}
            /* CAP_SYS_ADMIN includes the two capabilities that were split off from it. */
            Ok(()) => {
                assert!(["CAP_BPF", "CAP_PERFMON"].contains(&capability.as_str()));
                let neither = service.without(capability).without(ADMIN);
                assert_missing(&verdict(&neither, &nginx).unwrap_err(), capability);
            }
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

/// Check that `CAP_SYS_ADMIN` is required where uprobes are perf events, and nowhere else.
#[test]
fn asks_for_no_more() {
    let nginx = Nginx::simple();
    let service = Service::installed();
    let knows_better = std::fs::read("/sys/kernel/btf/vmlinux")
        .unwrap()
        .windows(23)
        .any(|name| name == b"BPF_TRACE_UPROBE_MULTI\0");
    let asks = service.capabilities.contains(ADMIN);
    assert_eq!(asks, !knows_better);
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
