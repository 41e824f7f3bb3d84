// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often programs run for a request, as the kernel counts them.

use std::fs;

use crate::common::load::wrk;
use crate::common::nginx::Nginx;
use crate::common::tool::bpftool;
use crate::tracing::tool;

/// Returns the runs of uprobes for each request. This is a run of its own, because counting has a cost, too.
pub fn of_uprobes(nginx: &Nginx, uri: &str) -> f64 {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    let was = fs::read_to_string(SWITCH).unwrap();
    fs::write(SWITCH, "1").unwrap();
    let tool = tool(nginx, &[]);
    let requests = wrk(nginx.port, uri, 16, 1);
    let programs: Vec<_> = tool
        .bpf_ids("prog")
        .iter()
        .map(|id| bpftool(&["prog", "show", "id", id]))
        .collect();
    fs::write(SWITCH, was.trim()).unwrap();
    drop(tool.stop());
    let uprobes = programs
        .iter()
        .filter(|program| program["type"] == "kprobe");
    let runs: u64 = uprobes
        .filter_map(|program| program["run_cnt"].as_u64())
        .sum();
    runs as f64 / requests as f64
}
