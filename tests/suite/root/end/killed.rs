// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a tool that is killed leaves in the kernel: nothing.

use std::collections::BTreeSet;

use libbpf_rs::libbpf_sys;

use crate::suite::common::load::Load;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_until;

/// Check that a tool that is killed under load leaves nothing in the kernel, and does not disturb
/// nginx.
#[test]
fn under_load() {
    let Some(nginx) = Nginx::steady(Config::default()) else {
        return;
    };
    let load = Load::start(nginx.port, "/file");
    for _ in 0..10 {
        let tool = Tool::trace(nginx.pid());
        nginx.wait_logged(nginx.logged().len() + 100);
        let ids = ["prog", "map", "link"].map(|kind| (kind, tool.bpf_ids(kind)));
        assert!(ids.iter().all(|(_, ids)| !ids.is_empty()), "{ids:?}");
        tool.signal("KILL");
        drop(tool.wait());
        for (kind, ids) in &ids {
            wait_until_gone(kind, ids);
        }
    }
    drop(load);
    /* wrk leaves requests in flight when it ends. */
    let logged = nginx.quit();
    let served = logged.iter().filter(|logged| logged.status == "200");
    assert!(served.count() >= 1000);
    assert!(
        logged
            .iter()
            .all(|logged| ["200", "499"].contains(&logged.status.as_str()))
    );
}

/// Waits until the kernel has freed these objects. It does so shortly after a process has ended.
fn wait_until_gone(kind: &str, ids: &BTreeSet<String>) {
    for id in ids {
        let is_gone = || !is_there(kind, id.parse().unwrap());
        wait_until(&format!("{kind} {id} is still there"), is_gone);
    }
}

/// Returns whether the kernel has an object with this id. The object is not opened, as bpftool does
/// it: Linux 6.18 never frees a map of programs that is opened while it is cleared, probably because
/// each of two calls of `prog_array_map_clear()` takes a reference, and its work runs once.
fn is_there(kind: &str, id: u32) -> bool {
    let mut next = 0;
    // SAFETY: each writes one id to `next`.
    let result = unsafe {
        match kind {
            "map" => libbpf_sys::bpf_map_get_next_id(id - 1, &raw mut next),
            "prog" => libbpf_sys::bpf_prog_get_next_id(id - 1, &raw mut next),
            _ => libbpf_sys::bpf_link_get_next_id(id - 1, &raw mut next),
        }
    };
    result == 0 && next == id
}
